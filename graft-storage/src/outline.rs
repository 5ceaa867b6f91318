//! What a store knows of its log without looking at an entry: everything that `recover` returns of
//! it.

use bytes::Bytes;
use graft_core::{
    Entries, EntryKind, Index, LogId, LogTime, Membership, MembershipError, StoreError, Term,
};

/// The outline of a log, kept up to date by every change of it.
///
/// Invariants: `terms` has one element for each run of equal terms after `compacted`, and
/// `memberships` one for each membership entry.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outline {
    pub(crate) compacted: LogId,
    pub(crate) last: LogId,
    /// The time of the last entry, also where that is compacted.
    pub(crate) last_time: LogTime,
    pub(crate) terms: Vec<(Index, Term)>,
    /// The payloads as they were written.
    pub(crate) memberships: Vec<(LogId, Bytes)>,
    /// How often `terms` changed.
    pub(crate) terms_version: u64,
    /// How often `memberships` changed.
    pub(crate) memberships_version: u64,
}

impl Outline {
    /// The term of the entry at `index`; that of the compacted entry is still known.
    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.compacted.index {
            return Some(self.compacted.term);
        }
        (index <= self.last.index).then(|| term_in(&self.terms, index)).flatten()
    }

    /// Replaces everything at and above the first index of `entries`, which must not leave a gap.
    ///
    /// Costs a look at each new entry's kind and nothing per entry that is there already.
    pub(crate) fn append(&mut self, entries: &Entries) {
        let (Some(first), Some(last)) = (entries.first_index(), entries.last()) else {
            return;
        };
        if first <= self.last.index {
            self.truncate_from(first);
        }
        (self.last, self.last_time) = (last.log_id, last.time);
        let before = self.terms.len();
        push_runs(&mut self.terms, entries);
        self.terms_version += u64::from(self.terms.len() != before);
        let found = entries.iter();
        let found = found.filter(|entry| entry.kind == EntryKind::Membership);
        // A copy, so that a few bytes do not keep the whole batch that they came in.
        let found = found.map(|entry| (entry.log_id, Bytes::copy_from_slice(entry.payload)));
        let before = self.memberships.len();
        self.memberships.extend(found);
        self.memberships_version += u64::from(self.memberships.len() != before);
    }

    fn truncate_from(&mut self, index: Index) {
        let keep = self.terms.partition_point(|(begin, _)| *begin < index);
        self.terms_version += u64::from(keep != self.terms.len());
        self.terms.truncate(keep);
        let keep = self.memberships.partition_point(|(at, _)| at.index < index);
        self.memberships_version += u64::from(keep != self.memberships.len());
        self.memberships.truncate(keep);
    }

    /// Forgets everything up to and including `upto`, an entry of this log.
    pub(crate) fn compact(&mut self, upto: LogId) {
        let first = upto.index.next();
        self.compacted = upto;
        self.terms_version += 1;
        // The run that goes on beyond `upto` now begins right after it.
        let gone = self.terms.partition_point(|(begin, _)| *begin <= first);
        self.terms.drain(..gone.saturating_sub(1));
        if let Some(run) = self.terms.first_mut() {
            run.0 = run.0.max(first);
        }
        if self.last.index <= upto.index {
            self.last = upto;
            self.terms.clear();
        }
        let gone = self.memberships.partition_point(|(at, _)| at.index < first);
        self.memberships_version += u64::from(gone != 0);
        self.memberships.drain(..gone);
    }

    /// Forgets the whole log: it goes on after `compacted`, an entry of `last_time`.
    pub(crate) fn restart_after(&mut self, compacted: LogId, last_time: LogTime) {
        (self.compacted, self.last, self.last_time) = (compacted, compacted, last_time);
        self.terms.clear();
        self.memberships.clear();
        self.terms_version += 1;
        self.memberships_version += 1;
    }

    /// The memberships, decoded.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] names the first one that does not decode: the list would be wrong
    /// without it.
    pub(crate) fn decoded_memberships(&self) -> Result<Vec<(LogId, Membership)>, StoreError> {
        let decode = |(at, payload): &(LogId, Bytes)| {
            let decoded: Result<_, MembershipError> = Membership::decode(payload);
            let membership = decoded.map_err(|error| StoreError::Corrupt {
                location: format!("membership entry {at}"),
                reason: error.to_string(),
            })?;
            Ok((*at, membership))
        };
        self.memberships.iter().map(decode).collect()
    }
}

/// The term at `index` by the runs of terms around it.
pub(crate) fn term_in(runs: &[(Index, Term)], index: Index) -> Option<Term> {
    let after = runs.partition_point(|(begin, _)| *begin <= index);
    runs[..after].last().map(|(_, term)| *term)
}

/// Adds the runs of `entries` to those of the entries before them.
pub(crate) fn push_runs(runs: &mut Vec<(Index, Term)>, entries: &Entries) {
    for run in entries.runs() {
        let LogId { term, index } = run.first().log_id;
        if runs.last().is_none_or(|(_, before)| *before != term) {
            runs.push((index, term));
        }
    }
}
