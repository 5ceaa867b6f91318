//! Frames on their way out.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use graft_core::{ClusterId, GroupId};
use rkyv::{
    Serialize,
    api::low::{self, LowSerializer},
    rancor::Failure,
    ser::{
        Positional, Writer,
        allocator::{Arena, ArenaHandle},
    },
};

use super::{Header, Kind, Limits, WireError, header::padded};

/// Collects frames to be written, and is used again after each write.
///
/// Headers, bodies and small payloads are written one behind the other into one buffer; payloads from
/// 4 KiB up are shared, not copied.
#[derive(Default)]
pub struct Outgoing {
    /// What was written since the last chunk was closed.
    buffer: BytesMut,
    chunks: Vec<Bytes>,
    /// How long `chunks` are together.
    closed: usize,
    /// Where rkyv keeps what it needs on the way.
    arena: Arena,
}

impl Outgoing {
    /// A payload of at least this many bytes is shared. Below it a copy costs less than a chunk of its own.
    pub const SHARED_BYTES: usize = 4096;

    /// Nothing to be written yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes are to be written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.closed + self.buffer.len()
    }

    /// Whether there is nothing to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All that is to be written, in order. Who takes the chunks out of the slice, as
    /// `quinn::SendStream::write_all_chunks` does, calls [`clear`](Self::clear) afterwards.
    pub fn chunks(&mut self) -> &mut [Bytes] {
        self.close();
        &mut self.chunks
    }

    /// Forgets what was written, and keeps the memory.
    pub fn clear(&mut self) {
        self.chunks.clear();
        self.closed = 0;
        self.buffer.clear();
    }

    /// Appends a frame, unless it is beyond `limits`; then nothing is appended.
    ///
    /// `payloads` are copied or shared by their size.
    pub(super) fn frame<'a, B>(
        &mut self,
        header: (Kind, ClusterId, GroupId),
        body: &B,
        payloads: impl Iterator<Item = Payload<'a>> + Clone,
        limits: &Limits,
    ) -> Result<(), WireError>
    where
        B: for<'s> Serialize<LowSerializer<Sink<'s>, ArenaHandle<'s>, Failure>>,
    {
        let (kind, cluster, group) = header;
        let start = self.buffer.len();
        self.buffer.put_bytes(0, Header::BYTES);
        let payload_bytes: usize = payloads.clone().map(|payload| padded(payload.len())).sum();
        let header = self.body(start, body).and_then(|body_bytes| {
            let body_bytes = Self::size(kind, "body", body_bytes)?;
            let payload_bytes = Self::size(kind, "payload", payload_bytes)?;
            let header = Header { kind, cluster, group, body_bytes, payload_bytes };
            header.check(limits).map(|()| header)
        });
        match header {
            Ok(header) => {
                self.buffer[start..start + Header::BYTES].copy_from_slice(&header.encode());
            }
            Err(error) => {
                self.buffer.truncate(start);
                return Err(error);
            }
        }
        self.pad(self.buffer.len() - start);
        for payload in payloads {
            self.payload(payload);
        }
        Ok(())
    }

    /// Archives `body` behind the header at `start`, and says how long it is.
    fn body<B>(&mut self, start: usize, body: &B) -> Result<usize, WireError>
    where
        B: for<'s> Serialize<LowSerializer<Sink<'s>, ArenaHandle<'s>, Failure>>,
    {
        let from = start + Header::BYTES;
        let sink = Sink { buffer: &mut self.buffer, from };
        low::to_bytes_in_with_alloc::<_, _, Failure>(body, sink, self.arena.acquire())
            .map_err(|Failure| WireError::Unwritable { what: "its body is too large" })?;
        Ok(self.buffer.len() - from)
    }

    fn size(kind: Kind, part: &'static str, bytes: usize) -> Result<u32, WireError> {
        u32::try_from(bytes).map_err(|_| WireError::TooLarge {
            kind,
            part,
            bytes: bytes as u64,
            limit: u32::MAX.into(),
        })
    }

    fn payload(&mut self, payload: Payload<'_>) {
        match payload {
            Payload::Shared(bytes) if bytes.len() >= Self::SHARED_BYTES => {
                self.close();
                self.closed += bytes.len();
                self.chunks.push(bytes.clone());
            }
            Payload::Shared(bytes) => self.buffer.extend_from_slice(bytes),
            Payload::Copied(bytes) => self.buffer.extend_from_slice(bytes),
        }
        self.pad(payload.len());
    }

    /// Pads what is `bytes` long.
    fn pad(&mut self, bytes: usize) {
        self.buffer.put_bytes(0, padded(bytes) - bytes);
    }

    /// Makes a chunk of what is in the buffer.
    fn close(&mut self) {
        if !self.buffer.is_empty() {
            let chunk = self.buffer.split().freeze();
            self.closed += chunk.len();
            self.chunks.push(chunk);
        }
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing").field("bytes", &self.len()).finish_non_exhaustive()
    }
}

/// A payload of a frame that is written.
#[derive(Clone, Copy)]
pub(crate) enum Payload<'a> {
    /// It may be shared.
    Shared(&'a Bytes),
    /// It must be copied.
    Copied(&'a [u8]),
}

impl<'a> Payload<'a> {
    pub(super) const NONE: Self = Self::Copied(&[]);

    pub(crate) fn len(self) -> usize {
        self.bytes().len()
    }

    pub(crate) fn bytes(self) -> &'a [u8] {
        match self {
            Self::Shared(bytes) => bytes,
            Self::Copied(bytes) => bytes,
        }
    }
}

/// Where rkyv writes a body: behind what the buffer holds, counted from its own beginning.
pub(super) struct Sink<'a> {
    buffer: &'a mut BytesMut,
    from: usize,
}

impl Positional for Sink<'_> {
    fn pos(&self) -> usize {
        self.buffer.len() - self.from
    }
}

impl Writer<Failure> for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }
}
