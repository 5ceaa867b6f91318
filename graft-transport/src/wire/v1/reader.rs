//! From received bytes to frames.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};
use graft_core::{ClusterId, GroupId};
use rkyv::{
    Portable,
    api::low::{self, LowValidator},
    bytecheck::CheckBytes,
    rancor::Failure,
    util::AlignedVec,
};

use super::{Header, Kind, Kinds, Limits, WireError, header::padded};

/// A frame that has arrived whole. Its header is checked, its body is not yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    header: Header,
    /// Body and payloads, aligned in memory.
    bytes: Bytes,
}

impl Frame {
    /// The header.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// What the frame carries.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.header.kind
    }

    /// About how many bytes the frame takes in memory, and on the wire.
    #[must_use]
    pub fn size(&self) -> usize {
        Header::BYTES + self.bytes.len()
    }

    /// The body, where the frame is of `kind` and rkyv finds an archive of a `T` in it.
    pub(super) fn access<T>(&self, kind: Kind) -> Result<&T, WireError>
    where
        T: Portable + for<'a> CheckBytes<LowValidator<'a, Failure>>,
    {
        if self.header.kind != kind {
            return Err(WireError::Unexpected { kind: self.header.kind });
        }
        let body = &self.bytes[..self.header.body_bytes as usize];
        low::access::<T, Failure>(body)
            .map_err(|Failure| self.malformed("its body is no archive of its kind"))
    }

    /// As [`access`](Self::access), of kinds that belong to no group.
    pub(super) fn access_in_group_0<T>(&self, kind: Kind) -> Result<&T, WireError>
    where
        T: Portable + for<'a> CheckBytes<LowValidator<'a, Failure>>,
    {
        match self.header.group {
            GroupId(0) => self.access(kind),
            found => Err(WireError::WrongGroup { kind: self.header.kind, found }),
        }
    }

    /// All that comes behind the body, sharing memory.
    pub(super) fn payload_area(&self) -> Bytes {
        self.bytes.slice(padded(self.header.body_bytes as usize)..)
    }

    /// The payloads, to be taken one after the other.
    pub(super) fn payloads(&self) -> Payloads<'_> {
        Payloads { frame: self, at: padded(self.header.body_bytes as usize) }
    }

    pub(super) const fn malformed(&self, what: &'static str) -> WireError {
        WireError::Malformed { kind: self.header.kind, what }
    }
}

/// The payloads of a frame, shared with it.
pub(super) struct Payloads<'a> {
    frame: &'a Frame,
    at: usize,
}

impl<'a> Payloads<'a> {
    /// The next payload, `bytes` long, as part of the frame.
    pub(super) fn shared(&mut self, bytes: u32) -> Result<Bytes, WireError> {
        let from = self.at;
        self.skip(bytes)?;
        Ok(self.frame.bytes.slice(from..from + bytes as usize))
    }

    /// The next payload, `bytes` long, of a value that may stay for long: as part of the frame where it is most of
    /// that, else as a copy, so that a part does not keep the whole.
    pub(super) fn kept(&mut self, bytes: u32) -> Result<Bytes, WireError> {
        let length = bytes as usize;
        if length * 2 >= self.frame.size() {
            return self.shared(bytes);
        }
        let mut copy = AlignedVec::<16>::with_capacity(length);
        copy.extend_from_slice(self.borrowed(bytes)?);
        Ok(Bytes::from_owner(copy))
    }

    /// The next payload, `bytes` long.
    pub(super) fn borrowed(&mut self, bytes: u32) -> Result<&'a [u8], WireError> {
        let from = self.at;
        self.skip(bytes)?;
        Ok(&self.frame.bytes[from..from + bytes as usize])
    }

    fn skip(&mut self, bytes: u32) -> Result<(), WireError> {
        let left = self.frame.bytes.len() - self.at;
        let bytes = padded(bytes as usize);
        if bytes > left {
            return Err(self.frame.malformed("its payloads are shorter than its body says"));
        }
        self.at += bytes;
        Ok(())
    }

    /// Checks that all payloads were taken.
    pub(super) fn finish(self) -> Result<(), WireError> {
        if self.at == self.frame.bytes.len() {
            Ok(())
        } else {
            Err(self.frame.malformed("its payloads are longer than its body says"))
        }
    }
}

/// Cuts what arrives on a stream into frames.
///
/// A frame is copied once, into memory of its own that is aligned as its body wants it. That memory grows
/// with what has arrived, never with what a header promises alone, and never beyond the limit of the kind.
#[derive(Debug)]
pub struct FrameReader {
    limits: Limits,
    cluster: Option<ClusterId>,
    kinds: Kinds,
    /// What was fed and not looked at yet; the first chunk apart, because there mostly is no other.
    chunk: Bytes,
    more: VecDeque<Bytes>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Between frames, or in a header of which so many bytes are there.
    Head([u8; Header::BYTES], usize),
    /// In a frame of which so many bytes are there.
    Rest(Header, AlignedVec),
    /// Past an error.
    Failed(WireError),
}

impl State {
    const BETWEEN: Self = Self::Head([0; Header::BYTES], 0);
}

impl FrameReader {
    /// The memory that a large frame begins with, in bytes.
    const FIRST_BYTES: usize = 64 << 10;
    /// How many times as much it gets when it is full. Each time is a copy, and leaves a hole in the heap that fits nothing
    /// else, so that many small steps take more memory than they save: the largest frame by default takes one.
    const GROWTH: usize = 16;

    /// A reader of frames of every kind within `limits`. Where `cluster` is known, frames of another are
    /// refused, but for hellos and refusals: they are how a stranger learns that it is one.
    #[must_use]
    pub const fn new(limits: Limits, cluster: Option<ClusterId>) -> Self {
        Self {
            limits,
            cluster,
            kinds: Kinds::ALL,
            chunk: Bytes::new(),
            more: VecDeque::new(),
            state: State::BETWEEN,
        }
    }

    /// From the next header on, takes in these kinds alone. Others are refused before anything is
    /// allocated for them.
    pub const fn expect(&mut self, kinds: Kinds) {
        self.kinds = kinds;
    }

    /// From the next header on, takes in frames of this cluster alone.
    pub const fn set_cluster(&mut self, cluster: ClusterId) {
        self.cluster = Some(cluster);
    }

    /// Takes in what was received. [`next`](Self::next) is to be called until it has no more.
    pub fn feed(&mut self, chunk: Bytes) {
        if self.chunk.is_empty() {
            self.chunk = chunk;
        } else {
            self.more.push_back(chunk);
        }
    }

    /// The next whole frame, or `None`: more must be fed.
    ///
    /// # Errors
    ///
    /// [`WireError`] says what is wrong with the header. No frame comes after an error: it is returned
    /// again and again.
    #[expect(clippy::should_implement_trait, reason = "a stream that fails is no iterator")]
    pub fn next(&mut self) -> Result<Option<Frame>, WireError> {
        loop {
            match &mut self.state {
                State::Head(head, filled) => {
                    let take = self.chunk.len().min(Header::BYTES - *filled);
                    head[*filled..*filled + take].copy_from_slice(&self.chunk[..take]);
                    self.chunk.advance(take);
                    *filled += take;
                    if *filled == Header::BYTES {
                        let head = *head;
                        self.state = match self.check(&head) {
                            Ok(header) => State::Rest(header, AlignedVec::new()),
                            Err(error) => State::Failed(error),
                        };
                        continue;
                    }
                }
                State::Rest(header, bytes) => {
                    let whole = header.rest();
                    let take = self.chunk.len().min(whole - bytes.len());
                    grow(bytes, take, whole);
                    bytes.extend_from_slice(&self.chunk[..take]);
                    self.chunk.advance(take);
                    if bytes.len() == whole {
                        let frame = Frame {
                            header: *header,
                            bytes: Bytes::from_owner(std::mem::take(bytes)),
                        };
                        self.state = State::BETWEEN;
                        return Ok(Some(frame));
                    }
                }
                State::Failed(error) => return Err(error.clone()),
            }
            match self.more.pop_front() {
                Some(chunk) => self.chunk = chunk,
                None => return Ok(None),
            }
        }
    }

    /// How long the frame is whose header has come and whose rest has not, and how much of it is missing.
    #[cfg(feature = "quic")]
    pub(crate) fn begun(&self) -> Option<(usize, usize)> {
        match &self.state {
            State::Rest(header, bytes) => Some((header.rest(), header.rest() - bytes.len())),
            _ => None,
        }
    }

    /// Checks that the stream may end here.
    ///
    /// # Errors
    ///
    /// [`WireError::Truncated`] inside a frame, or the error that the reader has met.
    pub fn finish(&self) -> Result<(), WireError> {
        match &self.state {
            State::Head(_, 0) => Ok(()),
            State::Head(_, filled) => Err(WireError::Truncated { missing: Header::BYTES - filled }),
            State::Rest(header, bytes) => {
                Err(WireError::Truncated { missing: header.rest() - bytes.len() })
            }
            State::Failed(error) => Err(error.clone()),
        }
    }

    fn check(&self, head: &[u8; Header::BYTES]) -> Result<Header, WireError> {
        let header = Header::decode(head)?;
        if let Some(expected) = self.cluster
            && header.cluster != expected
            && !Kinds::HANDSHAKE.contains(header.kind)
        {
            return Err(WireError::WrongCluster { found: header.cluster, expected });
        }
        if !self.kinds.contains(header.kind) {
            return Err(WireError::Unexpected { kind: header.kind });
        }
        header.check(&self.limits)?;
        Ok(header)
    }
}

/// Makes room for `more` bytes of a frame that will be `whole` long: exactly that where it is small or
/// nearly there, else a few times what is there. So a frame that never comes holds little.
fn grow(bytes: &mut AlignedVec, more: usize, whole: usize) {
    let wanted = bytes.len() + more;
    if wanted > bytes.capacity() {
        let more_room = bytes.capacity() * FrameReader::GROWTH;
        let room = wanted.max(more_room).max(FrameReader::FIRST_BYTES).min(whole);
        bytes.reserve_exact(room - bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use graft_core::GroupId;

    use super::*;

    #[test]
    fn a_frame_that_was_announced_and_does_not_come_holds_little() {
        let limits = Limits::default();
        let (kind, group) = (Kind::Requests, GroupId(0));
        let (body_bytes, payload_bytes) = (limits.body(kind), limits.payload(kind));
        let header = Header { kind, cluster: ClusterId(1), group, body_bytes, payload_bytes };
        let mut reader = FrameReader::new(limits, None);
        reader.feed(header.encode().to_vec().into());
        let held = |reader: &FrameReader| match &reader.state {
            State::Rest(_, bytes) => bytes.capacity(),
            _ => panic!("the header is right"),
        };
        assert_eq!((reader.next(), held(&reader)), (Ok(None), 0));
        let mut arrived = 0;
        while arrived + 1000 < header.rest() {
            reader.feed(vec![0; 1000].into());
            arrived += 1000;
            assert_eq!(reader.next(), Ok(None));
            let bound = (arrived * FrameReader::GROWTH).max(FrameReader::FIRST_BYTES);
            assert!(held(&reader) <= bound, "{} bytes for {arrived}", held(&reader));
        }
    }
}
