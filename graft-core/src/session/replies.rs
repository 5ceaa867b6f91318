//! The replies a session keeps, for the case that the client asks again.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{Outcome, checksum::word};

/// Replies by sequence. Copies of what the machine answered: a shared buffer, of which a reply may be
/// a small part, is not held for it, so what is counted is what is taken.
///
/// Invariants: sequences rise; `bytes` is the sum of the costs.
#[derive(Clone, Default)]
pub(super) struct Replies {
    kept: VecDeque<Kept>,
    bytes: u64,
}

/// One kept reply.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) sequence: u64,
    pub(super) reply: KeptReply,
}

/// What is kept of an outcome: 24 bytes, and most replies need no more.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum KeptReply {
    /// Of a command that was applied, up to [`SHORT`] bytes. In words, because words move through
    /// registers where bytes would wait for each other in memory.
    Short { length: u8, words: [u64; 2] },
    /// Of a command that was applied.
    Long(Box<[u8]>),
    /// The message of a panic.
    Panicked(Box<[u8]>),
}

/// The longest reply that is kept in place.
const SHORT: usize = 16;

impl KeptReply {
    /// How many bytes the reply has.
    #[inline]
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Short { length, .. } => usize::from(*length),
            Self::Long(bytes) | Self::Panicked(bytes) => bytes.len(),
        }
    }

    /// Calls `read` with the bytes of the reply.
    pub(super) fn with_bytes<T>(&self, read: impl FnOnce(&[u8]) -> T) -> T {
        match self {
            Self::Short { length, words } => {
                let bytes = words.map(u64::to_le_bytes);
                read(&bytes.as_flattened()[..usize::from(*length)])
            }
            Self::Long(bytes) | Self::Panicked(bytes) => read(bytes),
        }
    }

    pub(super) fn to_outcome(&self) -> Outcome {
        let bytes = self.with_bytes(Bytes::copy_from_slice);
        match self {
            Self::Short { .. } | Self::Long(_) => Outcome::Applied(bytes),
            Self::Panicked(_) => Outcome::Panicked(bytes),
        }
    }
}

impl Replies {
    /// What a kept reply costs beside its bytes. Part of the replicated rules: it never changes.
    pub(super) const OVERHEAD: u64 = 32;
    /// Room for so many replies is never given back.
    const SPARE: usize = 16;

    /// What the replies cost in all.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Kept> {
        self.kept.iter()
    }

    /// The reply kept for `sequence`.
    #[inline]
    pub(super) fn find(&self, sequence: u64) -> Option<&KeptReply> {
        // Nearly every command is newer than all before it, and then nothing is searched.
        if self.kept.back()?.sequence < sequence {
            return None;
        }
        let at = self.position(sequence);
        let kept = self.kept.get(at)?;
        (kept.sequence == sequence).then_some(&kept.reply)
    }

    /// Keeps the reply of a sequence that has none.
    #[inline]
    pub(super) fn keep(&mut self, sequence: u64, reply: &[u8]) {
        // Each case puts its own value in, so that a short reply is written to its place directly.
        match u8::try_from(reply.len()) {
            Ok(length) if reply.len() <= SHORT => {
                let words = [word(reply), word(reply.get(8..).unwrap_or_default())];
                self.insert(sequence, KeptReply::Short { length, words });
            }
            _ => self.insert(sequence, KeptReply::Long(reply.into())),
        }
    }

    /// Keeps the message of a panic as the reply of a sequence that has none.
    pub(super) fn keep_panic(&mut self, sequence: u64, message: &[u8]) {
        self.insert(sequence, KeptReply::Panicked(message.into()));
    }

    #[inline]
    fn insert(&mut self, sequence: u64, reply: KeptReply) {
        self.bytes += Self::cost(&reply);
        if self.kept.back().is_none_or(|last| last.sequence < sequence) {
            self.kept.push_back(Kept { sequence, reply });
        } else {
            self.insert_between(sequence, reply);
        }
    }

    #[cold]
    fn insert_between(&mut self, sequence: u64, reply: KeptReply) {
        let at = self.position(sequence);
        self.kept.insert(at, Kept { sequence, reply });
    }

    /// Drops what lies below `floor`.
    #[inline]
    pub(super) fn forget_below(&mut self, floor: u64) {
        let before = self.kept.len();
        while let Some(first) = self.kept.front()
            && first.sequence < floor
        {
            self.bytes -= Self::cost(&first.reply);
            self.kept.pop_front();
        }
        // A session that was busy once must not hold the room for ever. That it falls to an eighth
        // and keeps twice what it needs makes the copying rare.
        let (len, capacity) = (self.kept.len(), self.kept.capacity());
        if len < before && len < capacity / 8 && capacity > Self::SPARE {
            self.kept.shrink_to(Self::SPARE.max(len * 2));
        }
    }

    /// What a known bug did.
    pub(super) fn forget_all_but_last(&mut self) {
        if let Some(last) = self.kept.back().map(|kept| kept.sequence) {
            self.forget_below(last);
        }
    }

    fn position(&self, sequence: u64) -> usize {
        self.kept.partition_point(|kept| kept.sequence < sequence)
    }

    #[inline]
    fn cost(reply: &KeptReply) -> u64 {
        Self::OVERHEAD + reply.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(replies: &Replies) -> Vec<(u64, Vec<u8>)> {
        let pair = |kept: &Kept| (kept.sequence, kept.reply.with_bytes(<[u8]>::to_vec));
        replies.iter().map(pair).collect()
    }

    #[test]
    fn a_kept_reply_takes_no_more_room_than_it_is_counted_for() {
        assert!(size_of::<Kept>() as u64 <= Replies::OVERHEAD);
    }

    #[test]
    fn replies_of_every_length_are_given_back_as_they_were() {
        for length in 0..64 {
            let reply: Vec<u8> = (0..length).collect();
            let mut replies = Replies::default();
            replies.keep(0, &reply);
            let outcome = replies.find(0).map(KeptReply::to_outcome);
            assert_eq!(outcome, Some(Outcome::Applied(reply.into())));
        }
        let mut replies = Replies::default();
        replies.keep_panic(0, b"message");
        let outcome = replies.find(0).map(KeptReply::to_outcome);
        assert_eq!(outcome, Some(Outcome::Panicked("message".into())));
    }

    #[test]
    fn replies_that_come_in_any_order_lie_in_the_order_of_their_sequences() {
        let mut replies = Replies::default();
        for sequence in [5_u8, 9, 7, 6, 2] {
            replies.keep(u64::from(sequence), &[sequence]);
        }
        assert_eq!(
            kept(&replies),
            [2, 5, 6, 7, 9].map(|sequence: u8| (u64::from(sequence), vec![sequence]))
        );
        for sequence in 0..12 {
            let found = replies.find(sequence).is_some();
            assert_eq!(found, [2, 5, 6, 7, 9].contains(&sequence), "{sequence}");
        }
        replies.forget_below(6);
        assert_eq!(kept(&replies).len(), 3);
        assert_eq!(replies.bytes(), 3 * (Replies::OVERHEAD + 1));
    }

    #[test]
    fn a_session_that_falls_idle_gives_back_its_room() {
        let mut replies = Replies::default();
        for sequence in 0..10_000 {
            replies.keep(sequence, &[]);
        }
        for floor in 1..=10_000 {
            replies.forget_below(floor);
            let (len, room) = (replies.len(), replies.kept.capacity());
            assert!(room <= 16.max(8 * len + 8), "{len} replies take the room of {room}");
        }
        assert_eq!(replies.bytes(), 0);
    }
}
