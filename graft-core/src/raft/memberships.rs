//! The memberships in the log. The latest is in force, committed or not (thesis §4.1).

use std::sync::Arc;

use crate::{Entries, EntryKind, Index, LogId, Membership, MembershipError, Recovered};

/// Every membership that truncation may bring back, in the order of the log.
#[derive(Debug)]
pub(super) struct Memberships {
    /// In force where the log holds none: the snapshot's, or nobody.
    base: Arc<Membership>,
    in_log: Vec<(LogId, Arc<Membership>)>,
}

impl Memberships {
    pub(super) fn recover(durable: &Recovered) -> Self {
        let base = durable.snapshot.as_ref().map(|snapshot| snapshot.membership.1.clone());
        let in_log = durable.memberships.iter();
        Self {
            base: Arc::new(base.unwrap_or_default()),
            in_log: in_log.map(|(log_id, one)| (*log_id, Arc::new(one.clone()))).collect(),
        }
    }

    pub(super) fn current(&self) -> &Arc<Membership> {
        self.in_log.last().map_or(&self.base, |(_, membership)| membership)
    }

    /// Entry 1, as long as the log tells it.
    pub(super) fn founding(&self) -> Option<&Membership> {
        let (log_id, membership) = self.in_log.first()?;
        (log_id.index == Index(1)).then_some(&**membership)
    }

    /// Takes note of the membership entries among `entries`, which are now in the log.
    pub(super) fn note(&mut self, entries: &Entries) -> Result<(), (LogId, MembershipError)> {
        for entry in entries.iter().filter(|entry| entry.kind == EntryKind::Membership) {
            let membership =
                Membership::decode(entry.payload).map_err(|error| (entry.log_id, error))?;
            self.in_log.push((entry.log_id, Arc::new(membership)));
        }
        Ok(())
    }

    /// The log was cut at `index`: what came with the entries there is undone.
    pub(super) fn truncate_from(&mut self, index: Index) {
        let keep = self.in_log.partition_point(|(log_id, _)| log_id.index < index);
        self.in_log.truncate(keep);
    }
}
