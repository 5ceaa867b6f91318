//! The running checksum of outcomes: replicas that answer differently have diverged.

use super::Outcome;
use crate::Index;

/// A 64-bit fold over every outcome since the log began.
///
/// Each step is a bijection of the sum for a given word, and of the word for a given sum: one word
/// that differs always changes the sum, and two sums that differ stay different for as long as what
/// follows is equal. So a divergence cannot heal before the next comparison. It guards against
/// mistakes, not against an attacker who picks the words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Checksum(pub(super) u64);

impl Default for Checksum {
    fn default() -> Self {
        Self(0x243f_6a88_85a3_08d3)
    }
}

impl Checksum {
    /// Takes in how the entry at `index` ended. The numbers and the order are part of what servers of
    /// different builds compare, and never change.
    #[inline]
    pub(super) fn add(&mut self, index: Index, outcome: &Outcome) {
        // A panic's message may hold addresses: only the fact counts.
        let (kind, reply): (u64, &[u8]) = match outcome {
            Outcome::Applied(reply) => (1, reply),
            Outcome::Panicked(_) => (2, &[]),
            Outcome::SessionOpened(_) => (3, &[]),
            Outcome::SessionDone => (4, &[]),
            Outcome::SessionExpired => (5, &[]),
            Outcome::Forgotten => (6, &[]),
            Outcome::SessionFull => (7, &[]),
        };
        self.absorb(index.0);
        // The length tells a short last word from one that ends in zeros.
        self.absorb((reply.len() as u64) << 8 | kind);
        let (words, rest) = reply.as_chunks::<8>();
        for whole in words {
            self.absorb(u64::from_le_bytes(*whole));
        }
        if !rest.is_empty() {
            self.absorb(word(rest));
        }
    }

    #[inline]
    const fn absorb(&mut self, word: u64) {
        let product = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ (product >> 32);
    }
}

/// The first eight bytes as a number, little endian; what is missing is zero.
#[inline]
pub(super) fn word(bytes: &[u8]) -> u64 {
    match bytes.first_chunk() {
        Some(whole) => u64::from_le_bytes(*whole),
        None => bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::SessionId;

    fn sum(outcomes: &[Outcome]) -> Checksum {
        let mut checksum = Checksum::default();
        for (index, outcome) in (1..).map(Index).zip(outcomes) {
            checksum.add(index, outcome);
        }
        checksum
    }

    fn outcome() -> impl Strategy<Value = Outcome> {
        let reply = prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from);
        prop_oneof![
            4 => reply.prop_map(Outcome::Applied),
            1 => Just(Outcome::Panicked(Bytes::new())),
            1 => Just(Outcome::SessionDone),
            1 => Just(Outcome::SessionExpired),
            1 => Just(Outcome::Forgotten),
            1 => Just(Outcome::SessionFull),
        ]
    }

    /// Servers of different builds compare these: the values may never change.
    #[test]
    fn the_sum_of_these_outcomes_is_the_same_for_ever() {
        let outcomes = [
            Outcome::SessionOpened(SessionId(1)),
            Outcome::Applied(Bytes::from_static(b"a reply of 19 bytes")),
            Outcome::Applied(Bytes::new()),
            Outcome::Panicked(Bytes::from_static(b"at 0x7f00")),
            Outcome::SessionDone,
            Outcome::SessionExpired,
            Outcome::Forgotten,
            Outcome::SessionFull,
        ];
        assert_eq!(sum(&outcomes), Checksum(0x11bd_b5c6_d9a2_3b92));
    }

    #[test]
    fn a_panics_message_does_not_count_but_the_panic_does() {
        let panicked = |message: &'static str| [Outcome::Panicked(message.into())];
        assert_eq!(sum(&panicked("at 0x1000")), sum(&panicked("at 0x2000")));
        assert_ne!(sum(&panicked("")), sum(&[Outcome::Applied(Bytes::new())]));
    }

    #[test]
    fn a_reply_differs_from_the_same_with_zeros_behind() {
        let sums: Vec<_> =
            (0..24).map(|length| sum(&[Outcome::Applied(vec![0; length].into())]).0).collect();
        for (at, one) in sums.iter().enumerate() {
            assert!(!sums[..at].contains(one), "length {at} collides");
        }
    }

    proptest! {
        #[test]
        fn one_outcome_that_differs_shows_in_every_later_sum(
            before in prop::collection::vec(outcome(), 0..4),
            (one, other) in (outcome(), outcome()),
            after in prop::collection::vec(outcome(), 0..20),
        ) {
            prop_assume!(one != other);
            let run = |differing: &Outcome| {
                sum(&[&before[..], std::slice::from_ref(differing), &after].concat())
            };
            prop_assert_ne!(run(&one), run(&other));
        }
    }
}
