//! A disk: what is on it is what a crash leaves. Writes land whole or not at all.

use std::ops::Range;

use crate::{
    Entries, Entry, EntryKind, EntryRef, HardState, Identity, Index, LogId, LogTime, Membership,
    Recovered, Term, Write, raft::WriteBatch,
};

/// The durable state of one server.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) hard_state: HardState,
    /// The entry of index 1 first.
    pub(super) log: Vec<Entry>,
}

impl Disk {
    /// The disk of a founder of a cluster of these members.
    pub(super) fn founded(membership: &Membership) -> Self {
        let mut disk = Self { hard_state: HardState::default(), log: Vec::new() };
        membership.founding_writes().iter().for_each(|write| disk.land_one(write));
        disk
    }

    /// Makes a batch durable.
    pub(super) fn land(&mut self, batch: &WriteBatch) {
        let commit = self.hard_state.commit;
        batch.writes.iter().for_each(|write| self.land_one(write));
        assert!(self.hard_state.commit >= commit, "the commit hint went back");
        assert!(self.hard_state.commit <= self.last(), "the commit hint is past the log on disk");
    }

    fn land_one(&mut self, write: &Write) {
        match write {
            Write::HardState(next) => {
                let old = self.hard_state;
                assert!(next.term >= old.term, "the term on disk went back");
                assert!(
                    next.term > old.term
                        || old.voted_for.is_none()
                        || next.voted_for == old.voted_for,
                    "the vote on disk changed within a term"
                );
                self.hard_state = *next;
            }
            Write::Append(entries) => {
                let first = place(entries.first_index().expect("an append is not empty"));
                assert!(first <= self.log.len(), "an append would leave a gap on disk");
                self.log.truncate(first);
                self.log.extend(entries.iter().map(EntryRef::to_entry));
            }
            other => panic!("nothing asks for {other:?} yet"),
        }
    }

    pub(super) fn last(&self) -> Index {
        Index(self.log.len() as u64)
    }

    /// Whether the entry with this identity is durable here.
    pub(super) fn holds(&self, log_id: LogId) -> bool {
        log_id.index == Index(0) || self.term_at(log_id.index) == Some(log_id.term)
    }

    pub(super) fn term_at(&self, index: Index) -> Option<Term> {
        let at = usize::try_from(index.0.checked_sub(1)?).ok()?;
        self.log.get(at).map(|entry| entry.log_id.term)
    }

    /// A run from the start of the range, at least one entry where there is one.
    pub(super) fn read(&self, range: &Range<Index>, max_bytes: usize) -> Entries {
        let mut bytes = 0;
        let end = place(range.end).min(self.log.len());
        let from = self.log.get(place(range.start)..end).unwrap_or_default();
        let fits = from.iter().take_while(|entry| {
            let first = bytes == 0;
            bytes += entry.size();
            first || bytes <= max_bytes
        });
        fits.cloned().collect()
    }

    /// What a store would say after a restart.
    pub(super) fn recover(&self, identity: Identity) -> Recovered {
        let mut terms: Vec<(Index, Term)> = Vec::new();
        let mut memberships = Vec::new();
        for entry in &self.log {
            if terms.last().is_none_or(|(_, term)| *term != entry.log_id.term) {
                terms.push((entry.log_id.index, entry.log_id.term));
            }
            if entry.kind == EntryKind::Membership {
                let membership = Membership::decode(&entry.payload).expect("written by ourselves");
                memberships.push((entry.log_id, membership));
            }
        }
        let last = self.log.last();
        Recovered {
            hard_state: self.hard_state,
            last: last.map_or(LogId::ZERO, |entry| entry.log_id),
            last_time: last.map_or(LogTime(0), |entry| entry.time),
            terms,
            memberships,
            ..Recovered::newborn(identity)
        }
    }
}

/// Where the entry of `index` is in a list that begins with index 1.
pub(super) fn place(index: Index) -> usize {
    usize::try_from(index.0).expect("small").checked_sub(1).expect("the first index is 1")
}
