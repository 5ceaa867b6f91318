//! A log in memory for the peers: a lock, a ring of entries, and an answer at once.

use std::{
    collections::VecDeque,
    ops::{Bound, RangeBounds},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A log and the vote beside it, shared between the peer's writer and its readers.
///
/// `E` is an entry, `I` its identity, `V` a vote.
#[derive(Debug)]
pub(super) struct PeerLog<E, I, V> {
    shared: Arc<Mutex<State<E, I, V>>>,
}

impl<E, I, V> Clone for PeerLog<E, I, V> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<E, I, V> Default for PeerLog<E, I, V> {
    fn default() -> Self {
        let state = State { first: 0, entries: VecDeque::new(), purged: None, vote: None };
        Self { shared: Arc::new(Mutex::new(state)) }
    }
}

#[derive(Debug)]
pub(super) struct State<E, I, V> {
    /// The index of the first entry in `entries`.
    first: u64,
    entries: VecDeque<E>,
    /// The last entry that was purged.
    pub(super) purged: Option<I>,
    pub(super) vote: Option<V>,
}

impl<E, I, V> PeerLog<E, I, V> {
    pub(super) fn lock(&self) -> MutexGuard<'_, State<E, I, V>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<E: Clone, I, V> State<E, I, V> {
    pub(super) fn last(&self) -> Option<&E> {
        self.entries.back()
    }

    /// Appends entries, which the peer hands over without gaps.
    pub(super) fn append(&mut self, entries: impl IntoIterator<Item = E>) {
        self.entries.extend(entries);
    }

    /// Copies of the entries whose indexes are in `range`.
    pub(super) fn range(&self, range: &impl RangeBounds<u64>) -> Vec<E> {
        let start = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index + 1,
            Bound::Unbounded => self.first,
        };
        let end = match range.end_bound() {
            Bound::Included(index) => index + 1,
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        let range = self.position(start)..self.position(end).max(self.position(start));
        self.entries.range(range).cloned().collect()
    }

    /// Forgets the entries from `index` on.
    pub(super) fn truncate(&mut self, index: u64) {
        self.entries.truncate(self.position(index));
    }

    /// Forgets the entries up to `index`, of which `id` is the identity.
    pub(super) fn purge(&mut self, index: u64, id: I) {
        self.entries.drain(..self.position(index + 1));
        self.first = self.first.max(index + 1);
        self.purged = Some(id);
    }

    /// Where `index` is in the ring, or the nearest end of it.
    fn position(&self, index: u64) -> usize {
        let offset = usize::try_from(index.saturating_sub(self.first)).unwrap_or(usize::MAX);
        offset.min(self.entries.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_survive_purges_and_truncations() {
        let log = PeerLog::<u64, u64, ()>::default();
        let mut state = log.lock();
        state.append(0..10);
        state.purge(2, 2);
        state.truncate(8);
        assert_eq!(state.range(&(0..100)), [3, 4, 5, 6, 7]);
        assert_eq!(state.range(&(5..=6)), [5, 6]);
        assert!(state.range(&(9..9)).is_empty());
        assert_eq!((state.last(), state.purged), (Some(&7), Some(2)));
    }
}
