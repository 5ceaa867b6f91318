//! Archiving often: memory that is used again, and copies of exactly the size that is kept.
//!
//! What is archived here is kept: an entry as long as the log, a response as long as its session. So it is
//! archived into a buffer that grows once, and then copied to where it takes no more than it needs.

use std::{cell::Cell, fmt, mem};

use bytes::Bytes;
use graft_client::HEADER_BYTES;
use rkyv::{api::high, rancor::Error, ser::allocator::Arena, util::AlignedVec};

use crate::wire::{ALIGNMENT, Wire};

/// Archives values one after the other.
#[derive(Default)]
pub(crate) struct Encoder {
    buffer: AlignedVec,
    /// Where rkyv keeps what it needs on the way.
    arena: Arena,
}

impl Encoder {
    /// A buffer above this is not kept for the next value.
    const KEPT_BYTES: usize = 64 << 10;

    /// The archive of `value` behind `header` bytes of zero.
    pub(crate) fn encode<T: Wire>(&mut self, header: usize, value: &T) -> Result<&[u8], Error> {
        debug_assert!(header.is_multiple_of(ALIGNMENT), "an archive begins aligned");
        let mut buffer = mem::take(&mut self.buffer);
        if buffer.capacity() > Self::KEPT_BYTES {
            buffer = AlignedVec::new();
        }
        buffer.clear();
        buffer.resize(header, 0);
        self.buffer = high::to_bytes_in_with_alloc(value, buffer, self.arena.acquire())?;
        Ok(&self.buffer)
    }
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").finish_non_exhaustive()
    }
}

thread_local! {
    /// The encoder of the requests that are made in this thread. It is away while one is made: the
    /// user's own code may make another.
    static REQUESTS: Cell<Option<Encoder>> = const { Cell::new(None) };
}

/// A request's buffer: room for the client's header, and the archive of `value` behind it.
pub(crate) fn request_body<T: Wire>(value: &T) -> Result<Body, Error> {
    let mut encoder = REQUESTS.try_with(Cell::take).ok().flatten().unwrap_or_default();
    let body = encoder.encode(HEADER_BYTES, value).map(Body::copy_of);
    // A thread that is ending keeps none.
    let _ = REQUESTS.try_with(|kept| kept.set(Some(encoder)));
    body
}

/// The bytes of a request, before they are shared. Few of them then lie beside their count, in one
/// allocation.
pub(crate) enum Body {
    Fewest(Inline<FEWEST>),
    Few(Inline<FEW>),
    Many(AlignedVec),
}

/// The header and an entry of 16 bytes.
const FEWEST: usize = HEADER_BYTES + 16;

/// The header and an entry of 64 bytes.
const FEW: usize = HEADER_BYTES + 64;

impl Body {
    fn copy_of(bytes: &[u8]) -> Self {
        if let Some(fewest) = Inline::copy_of(bytes) {
            return Self::Fewest(fewest);
        }
        match Inline::copy_of(bytes) {
            Some(few) => Self::Few(few),
            None => Self::Many(aligned_copy(bytes)),
        }
    }

    /// How long the entry behind the header is.
    pub(crate) fn entry_bytes(&self) -> usize {
        self.as_ref().len() - HEADER_BYTES
    }
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Fewest(few) => few.as_ref(),
            Self::Few(few) => few.as_ref(),
            Self::Many(many) => many,
        }
    }
}

impl graft_client::Body for Body {
    fn into_bytes(self) -> Bytes {
        match self {
            Self::Fewest(few) => Bytes::from_owner(few),
            Self::Few(few) => Bytes::from_owner(few),
            Self::Many(many) => Bytes::from_owner(many),
        }
    }
}

impl AsMut<[u8]> for Body {
    fn as_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Fewest(few) => &mut few.bytes[..few.length],
            Self::Few(few) => &mut few.bytes[..few.length],
            Self::Many(many) => many,
        }
    }
}

/// A copy of `bytes` that can be shared: one allocation where they are few, its count included.
pub(crate) fn share(bytes: &[u8]) -> Bytes {
    fn inline<const N: usize>(bytes: &[u8]) -> Option<Bytes> {
        Inline::<N>::copy_of(bytes).map(Bytes::from_owner)
    }
    if bytes.is_empty() {
        return Bytes::new();
    }
    let few = inline::<16>(bytes).or_else(|| inline::<64>(bytes));
    few.unwrap_or_else(|| Bytes::from_owner(aligned_copy(bytes)))
}

fn aligned_copy(bytes: &[u8]) -> AlignedVec {
    let mut copy = AlignedVec::with_capacity(bytes.len());
    copy.extend_from_slice(bytes);
    copy
}

/// At most `N` bytes, aligned as archives want it.
#[repr(align(16))]
pub(crate) struct Inline<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Inline<N> {
    fn copy_of(bytes: &[u8]) -> Option<Self> {
        let mut copy = [0; N];
        copy.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Self { bytes: copy, length: bytes.len() })
    }
}

impl<const N: usize> AsRef<[u8]> for Inline<N> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::decode;

    #[test]
    fn an_archive_behind_a_header_reads_as_one_without_whatever_its_size() {
        for length in [0, 1, 8, 9, 50, 64, 65, 1000, 100_000] {
            let value = ("x".repeat(length), 7_u64);
            let mut body = request_body(&value).unwrap();
            body.as_mut()[..HEADER_BYTES].fill(0xff);
            assert_eq!(body.as_ref().len(), HEADER_BYTES + body.entry_bytes());
            assert_eq!(decode::<(String, u64)>(&body.as_ref()[HEADER_BYTES..]).unwrap(), value);
            let shared = graft_client::Body::into_bytes(body);
            assert!(shared.as_ptr().addr().is_multiple_of(ALIGNMENT));
        }
    }

    #[test]
    fn an_encoder_that_is_used_again_archives_as_a_new_one() {
        let mut encoder = Encoder::default();
        for length in [200_000, 3, 0, 70, 12] {
            let value = "y".repeat(length);
            let new = crate::wire::encode(&value).unwrap();
            assert_eq!(encoder.encode(0, &value).unwrap(), &new[..]);
        }
    }

    #[test]
    fn shared_bytes_are_the_bytes_and_lie_aligned() {
        for length in [0, 1, 15, 16, 17, 64, 65, 1000] {
            let bytes: Vec<u8> = (0..=250).cycle().take(length).collect();
            let shared = share(&bytes);
            assert_eq!(shared, bytes);
            assert!(bytes.is_empty() || shared.as_ptr().addr().is_multiple_of(ALIGNMENT));
        }
    }
}
