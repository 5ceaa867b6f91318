//! What the baseline says on streams: commands, each with its length in front, and in the other direction how
//! many of them are done.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use quinn::{RecvStream, SendStream};

use crate::disk::Error;

/// How many packets are taken from a stream at once, as graft does.
const READ_CHUNKS: usize = 32;

/// A command of at least this many bytes is shared with the library, as graft does.
const SHARED_BYTES: usize = 4096;

/// What a command has in front.
const LENGTH_BYTES: usize = size_of::<u32>();

/// Gathers commands for one write.
#[derive(Default)]
pub(super) struct Outgoing {
    buffer: BytesMut,
    chunks: Vec<Bytes>,
}

impl Outgoing {
    /// Adds one.
    pub(super) fn push(&mut self, command: Bytes) {
        // No command is nearly as long.
        self.buffer.put_u32_le(u32::try_from(command.len()).unwrap_or(u32::MAX));
        if command.len() < SHARED_BYTES {
            self.buffer.put_slice(&command);
        } else {
            self.chunks.push(self.buffer.split().freeze());
            self.chunks.push(command);
        }
    }

    /// Writes all.
    pub(super) async fn write(&mut self, stream: &mut SendStream) -> Result<(), Error> {
        if !self.buffer.is_empty() {
            self.chunks.push(self.buffer.split().freeze());
        }
        stream.write_all_chunks(&mut self.chunks).await?;
        self.chunks.clear();
        Ok(())
    }
}

/// Commands as they arrive.
pub(super) struct Commands {
    stream: RecvStream,
    chunks: [Bytes; READ_CHUNKS],
    buffer: BytesMut,
}

/// Commands that arrived together.
pub(super) struct Arrived {
    pub(super) commands: Vec<Bytes>,
    /// The same in one piece, with their lengths, to be sent on as it is.
    pub(super) bytes: Bytes,
}

impl Commands {
    /// What a buffer begins with.
    const BUFFER_BYTES: usize = 64 << 10;

    pub(super) fn new(stream: RecvStream) -> Self {
        let chunks = [const { Bytes::new() }; READ_CHUNKS];
        Self { stream, chunks, buffer: BytesMut::with_capacity(Self::BUFFER_BYTES) }
    }

    /// Waits for more; there may be no whole command among it. `None` at the end. Nothing is lost where it
    /// is dropped before it is done.
    pub(super) async fn next(&mut self) -> Result<Option<Arrived>, Error> {
        let Some(count) = self.stream.read_chunks(&mut self.chunks).await? else {
            return Ok(None);
        };
        for chunk in &mut self.chunks[..count] {
            self.buffer.extend_from_slice(chunk);
            *chunk = Bytes::new();
        }
        let mut ends = Vec::with_capacity(self.buffer.len() / (LENGTH_BYTES + super::HEADER_BYTES));
        let mut at = 0;
        while let Some(mut rest) = self.buffer.get(at..).filter(|rest| rest.len() >= LENGTH_BYTES) {
            let end = at + LENGTH_BYTES + rest.get_u32_le() as usize;
            if end > self.buffer.len() {
                break;
            }
            ends.push(end);
            at = end;
        }
        let bytes = self.buffer.split_to(at).freeze();
        let mut begin = 0;
        let commands = ends.into_iter().map(|end| {
            let command = bytes.slice(begin + LENGTH_BYTES..end);
            begin = end;
            command
        });
        Ok(Some(Arrived { commands: commands.collect(), bytes }))
    }
}

/// Says how many are done.
pub(super) async fn write_count(stream: &mut SendStream, count: u64) -> Result<(), Error> {
    Ok(stream.write_all(&count.to_le_bytes()).await?)
}

/// How many are done, as it arrives.
pub(super) struct Counts {
    stream: RecvStream,
    buffer: [u8; 1024],
    filled: usize,
}

impl Counts {
    pub(super) fn new(stream: RecvStream) -> Self {
        Self { stream, buffer: [0; 1024], filled: 0 }
    }

    /// Waits for the latest count. `None` at the end. Nothing is lost where it is dropped before it is done.
    pub(super) async fn next(&mut self) -> Result<Option<u64>, Error> {
        loop {
            let Some(more) = self.stream.read(&mut self.buffer[self.filled..]).await? else {
                return Ok(None);
            };
            self.filled += more;
            let (counts, rest) = self.buffer[..self.filled].as_chunks::<{ size_of::<u64>() }>();
            if let Some(latest) = counts.last() {
                let (latest, whole) = (u64::from_le_bytes(*latest), self.filled - rest.len());
                self.buffer.copy_within(whole..self.filled, 0);
                self.filled -= whole;
                return Ok(Some(latest));
            }
        }
    }
}
