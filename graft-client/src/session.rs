//! The client's half of a session: which sequence numbers are out, and the floor below which no answer is wanted.

use std::mem;

use graft_core::SessionId;

/// A session that is open.
///
/// Invariants: `1 <= floor <= next`; a bit of `wanted` is set exactly for the sequences in
/// `floor..next` whose answers are wanted; `floor` is wanted or equals `next`; `next - floor` is at
/// most `window`.
#[derive(Debug)]
pub(crate) struct Session {
    id: SessionId,
    next: u64,
    floor: u64,
    window: u64,
    wanted: Box<[u64]>,
    /// A moment, in nanoseconds, at which the session was certainly alive: when a command was first sent that was
    /// later answered.
    renewed: u64,
    /// When a command went out last, in nanoseconds.
    touched: u64,
    /// Whether a command went out since the last keep-alive.
    used: bool,
}

/// What a command carries of its session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Position {
    pub(crate) session: SessionId,
    pub(crate) sequence: u64,
    pub(crate) floor: u64,
}

impl Session {
    pub(crate) fn new(id: SessionId, window: u32, renewed: u64) -> Self {
        let words = u64::from(window).div_ceil(64).next_power_of_two();
        Self {
            id,
            next: 1,
            floor: 1,
            window: u64::from(window),
            wanted: vec![0; usize::try_from(words).unwrap_or(usize::MAX)].into_boxed_slice(),
            renewed,
            touched: renewed,
            used: false,
        }
    }

    pub(crate) fn id(&self) -> SessionId {
        self.id
    }

    /// How many more commands may go out now.
    pub(crate) fn room(&self) -> u64 {
        self.window - (self.next - self.floor)
    }

    /// Where the next command would stand. Nothing changes until [`take`](Self::take).
    pub(crate) fn peek(&self) -> Position {
        Position { session: self.id, sequence: self.next, floor: self.floor }
    }

    /// Takes the place that [`peek`](Self::peek) showed.
    pub(crate) fn take(&mut self, now: u64) {
        assert!(self.room() > 0, "the window was checked before");
        let (word, bit) = self.place(self.next);
        self.wanted[word] |= bit;
        self.next += 1;
        self.touched = now;
        self.used = true;
    }

    /// The answer to `sequence` is here, or no longer wanted.
    pub(crate) fn release(&mut self, sequence: u64) {
        let (word, bit) = self.place(sequence);
        debug_assert!(
            (self.floor..self.next).contains(&sequence) && self.wanted[word] & bit != 0,
            "sequence {sequence} is released twice"
        );
        self.wanted[word] &= !bit;
        if sequence == self.floor {
            self.raise_floor();
        }
    }

    /// Moves the floor to the lowest wanted sequence, a word at a time.
    fn raise_floor(&mut self) {
        while self.floor < self.next {
            let (word, bit) = self.place(self.floor);
            let from_here = self.wanted[word] & !(bit - 1);
            if from_here != 0 {
                let gap = from_here.trailing_zeros() - bit.trailing_zeros();
                self.floor += u64::from(gap);
                return;
            }
            self.floor += u64::from(64 - bit.trailing_zeros());
        }
        self.floor = self.next;
    }

    fn place(&self, sequence: u64) -> (usize, u64) {
        let words = self.wanted.len() as u64;
        let word = usize::try_from((sequence / 64) & (words - 1)).unwrap_or(0);
        (word, 1 << (sequence % 64))
    }

    /// The session was alive at `at`.
    pub(crate) fn renew(&mut self, at: u64) {
        self.renewed = self.renewed.max(at);
    }

    pub(crate) fn renewed(&self) -> u64 {
        self.renewed
    }

    /// Since when nothing was sent or answered, where a keep-alive is due after such a time: a
    /// command went out since the last one.
    pub(crate) fn idle_since(&self) -> Option<u64> {
        self.used.then(|| self.touched.max(self.renewed))
    }

    /// Whether a command went out since this was asked last.
    pub(crate) fn take_used(&mut self) -> bool {
        mem::take(&mut self.used)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn take(session: &mut Session) -> Position {
        let position = session.peek();
        session.take(0);
        position
    }

    #[test]
    fn sequences_start_at_one_and_the_first_is_its_own_floor() {
        let mut session = Session::new(SessionId(7), 4, 0);
        let first = take(&mut session);
        assert_eq!((first.sequence, first.floor), (1, 1));
        assert_eq!(take(&mut session).floor, 1);
        session.release(1);
        assert_eq!(session.peek().floor, 2);
        session.release(2);
        assert_eq!((session.peek().sequence, session.peek().floor), (3, 3));
    }

    #[test]
    fn the_oldest_wanted_answer_holds_the_window() {
        let mut session = Session::new(SessionId(7), 3, 0);
        for _ in 0..3 {
            take(&mut session);
        }
        session.release(2);
        session.release(3);
        assert_eq!(session.room(), 0);
        session.release(1);
        assert_eq!(session.room(), 3);
    }

    /// The ring against a set, over many random orders and windows around the size of a word.
    #[test]
    fn the_floor_is_always_the_lowest_wanted_sequence() {
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let window = [1, 3, 63, 64, 65, 128, 1000][rng.usize(..7)];
            let mut session = Session::new(SessionId(1), window, 0);
            let mut wanted = BTreeSet::new();
            for _ in 0..5000 {
                if session.room() > 0 && rng.bool() {
                    wanted.insert(take(&mut session).sequence);
                } else if !wanted.is_empty() {
                    let at = rng.usize(..wanted.len().min(10));
                    let sequence = *wanted.iter().nth(at).unwrap();
                    wanted.remove(&sequence);
                    session.release(sequence);
                }
                let floor = session.peek().floor;
                assert_eq!(floor, wanted.first().copied().unwrap_or(session.next));
                assert_eq!(session.room(), u64::from(window) - (session.next - floor));
            }
        }
    }
}
