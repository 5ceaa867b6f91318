//! How large frames may be.

use graft_core::Entry;

use super::{Kind, header::padded};

/// The largest frames of each kind that a reader takes in. What is larger is refused by its header.
///
/// They follow from the largest entry and the largest batch, so both sides of a connection that agree
/// on these two agree on all of it. [`Hello`](super::Hello) states them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    entry: u32,
    batch: u32,
    reply: u32,
}

impl Limits {
    /// The most requests or replies in a frame: enough to make a header's and an archive's cost nothing
    /// for each, and few enough that a frame's body is small.
    pub const MAX_BATCH: usize = 1024;

    /// A frame of requests or replies is closed once its payloads take this many bytes: the receiver
    /// can begin with it while the next is written.
    pub const BATCH_BYTES: usize = 256 << 10;

    /// The largest membership: some thousands of servers.
    pub const MAX_MEMBERSHIP_BYTES: usize = 1 << 20;

    /// No limit is below this: an entry may be a membership, and servers whose configurations differ a
    /// little should still understand each other.
    const FLOOR: u32 = 1 << 20;

    /// No frame can state more.
    const CEILING: u32 = 1 << 30;

    /// What a body has beside its lists: envelope, numbers, the archive's root.
    const BODY: usize = 1024;

    /// Limits for entries of at most `max_entry_bytes`, appends of at most `max_batch_bytes` by
    /// [`Entry::size`], and replies of at most `max_reply_bytes`. Each is at least 1 MiB.
    #[must_use]
    pub fn new(max_entry_bytes: usize, max_batch_bytes: usize, max_reply_bytes: usize) -> Self {
        let bounded = |bytes: usize| {
            u32::try_from(bytes).unwrap_or(u32::MAX).clamp(Self::FLOOR, Self::CEILING)
        };
        Self {
            entry: bounded(max_entry_bytes),
            batch: bounded(max_batch_bytes),
            reply: bounded(max_reply_bytes),
        }
    }

    /// The largest payload of an entry or a request, in bytes.
    #[must_use]
    pub const fn max_entry_bytes(&self) -> usize {
        self.entry as usize
    }

    /// The largest payload of a reply, in bytes.
    #[must_use]
    pub const fn max_reply_bytes(&self) -> usize {
        self.reply as usize
    }

    /// These limits for one who takes in replies of at most `bytes`, where that is less.
    #[must_use]
    pub fn with_replies_of(self, bytes: u32) -> Self {
        Self { reply: bytes.max(Self::FLOOR).min(self.reply), ..self }
    }

    /// The largest body of a frame of `kind`, in bytes, without padding.
    #[must_use]
    pub const fn body(&self, kind: Kind) -> u32 {
        let lists = match kind {
            Kind::Hello | Kind::Refusal => 4096,
            Kind::Message => 0,
            Kind::Append => self.append() / Entry::OVERHEAD * super::append::ENTRY_BYTES,
            Kind::Snapshot | Kind::Birth | Kind::Members => Self::MAX_MEMBERSHIP_BYTES,
            Kind::Requests => Self::MAX_BATCH * super::requests::REQUEST_BYTES,
            Kind::Replies => {
                Self::MAX_BATCH * super::replies::REPLY_BYTES + Self::MAX_MEMBERSHIP_BYTES
            }
        };
        to_u32(lists + Self::BODY)
    }

    /// The most bytes of payload of a frame of `kind`, with padding.
    #[must_use]
    pub const fn payload(&self, kind: Kind) -> u32 {
        to_u32(match kind {
            Kind::Hello | Kind::Refusal | Kind::Message | Kind::Birth | Kind::Members => 0,
            // Every entry counts for more than its padding takes.
            Kind::Append => padded(self.append()),
            Kind::Snapshot => padded(self.batch as usize),
            Kind::Requests => padded(max(self.entry as usize, Self::BATCH_BYTES)),
            Kind::Replies => padded(max(self.reply as usize, Self::BATCH_BYTES)),
        })
    }

    /// The largest frame of any kind, in bytes, its header included.
    #[must_use]
    pub fn max_frame_bytes(&self) -> usize {
        let frame = |kind| padded(self.body(kind) as usize) + self.payload(kind) as usize;
        super::Header::BYTES + Kind::ALL.map(frame).into_iter().max().unwrap_or(0)
    }

    /// The largest append by [`Entry::size`]: one entry at least always goes.
    const fn append(&self) -> usize {
        max(self.batch as usize, self.entry as usize + Entry::OVERHEAD)
    }
}

impl Default for Limits {
    /// 1 MiB for entries and batches, as the defaults of a node have it, and 16 MiB for replies: nothing
    /// bounds what a machine answers.
    fn default() -> Self {
        Self::new(1 << 20, 1 << 20, 16 << 20)
    }
}

const fn max(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

#[expect(clippy::cast_possible_truncation, reason = "limits are below 2^32 by `CEILING`")]
const fn to_u32(bytes: usize) -> u32 {
    debug_assert!(bytes <= u32::MAX as usize);
    bytes as u32
}
