//! The terms of a log as runs: a log has few terms and many entries.

use graft_core::{Index, LogId, Term};

/// The term of every entry of a log that begins with entry 1.
#[derive(Clone, Debug, Default)]
pub(super) struct Runs {
    /// Where each term begins.
    runs: Vec<(Index, Term)>,
    last: Index,
}

impl Runs {
    pub(super) const fn last_index(&self) -> Index {
        self.last
    }

    pub(super) fn last(&self) -> LogId {
        let term = self.runs.last().map_or(Term(0), |(_, term)| *term);
        LogId { term, index: self.last }
    }

    pub(super) fn term_at(&self, index: Index) -> Option<Term> {
        if index.0 == 0 || index > self.last {
            return None;
        }
        if let Some((_, term)) = self.runs.last().filter(|(first, _)| index >= *first) {
            return Some(*term);
        }
        let after = self.runs.partition_point(|(first, _)| *first <= index);
        Some(self.runs.get(after.checked_sub(1)?)?.1)
    }

    /// Whether the log holds this entry. Every log holds the beginning.
    pub(super) fn holds(&self, log_id: LogId) -> bool {
        log_id == LogId::ZERO || self.term_at(log_id.index) == Some(log_id.term)
    }

    pub(super) fn push(&mut self, term: Term) {
        self.last = self.last.next();
        if self.runs.last().is_none_or(|(_, last)| *last != term) {
            self.runs.push((self.last, term));
        }
    }

    /// Drops the entries at `index` and above.
    pub(super) fn truncate_from(&mut self, index: Index) {
        if index > self.last {
            return;
        }
        let keep = self.runs.partition_point(|(first, _)| *first < index);
        self.runs.truncate(keep);
        self.last = index.previous();
    }
}
