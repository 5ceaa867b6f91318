//! Looks at a whole batch before any of it is applied, so that a batch happens whole or not at all.

use graft_core::{
    Entries, EntryKind, EntryRef, Index, LogId, Membership, SnapshotChunk, SnapshotMeta,
    StoreError, Term, Write,
};

use crate::outline::{Outline, push_runs, term_in};

/// The snapshots of a store, as far as a batch must fit them.
pub(crate) trait Snapshots {
    /// The last index that the installed snapshot covers; zero where there is none.
    fn covered(&self) -> Index;

    /// Whether all bytes of this snapshot are staged.
    fn is_complete(&self, meta: &SnapshotMeta) -> bool;
}

/// How many unfinished snapshots a store keeps. Two are in use at most: the one a leader sends and
/// the one taken here; the others are what earlier leaders did not finish.
pub(crate) const MAX_STAGED: usize = 4;

/// Indexes are below this. No log gets there, and whoever counts on from one that is there does not run over.
const END_OF_INDEXES: Index = Index(1 << 62);

/// How long a payload may be, in bytes: with what a store puts beside it, its length has 32 bits.
const MAX_PAYLOAD: u64 = (4 << 30) - 1024;

/// Checks that a chunk fits behind the `staged` bytes that came of its snapshot so far, or begins
/// it anew. Returns how many there are with it.
pub(crate) fn check_chunk(chunk: &SnapshotChunk, staged: u64) -> Result<u64, StoreError> {
    let SnapshotChunk { meta, offset, bytes } = chunk;
    let (id, offset) = (meta.id, *offset);
    if offset != 0 && offset != staged {
        return Err(StoreError::BadChunk { id, offset, expected: staged });
    }
    let size = offset.saturating_add(bytes.len() as u64);
    if size > meta.size {
        let reason = format!(
            "a chunk of snapshot {id} ends at byte {size}, its description ends it at {}",
            meta.size
        );
        return Err(StoreError::Backend { reason });
    }
    Ok(size)
}

/// What log and snapshot will be after the orders looked at so far, without a copy of the log.
struct Plan<'a> {
    log: &'a Outline,
    snapshots: &'a dyn Snapshots,
    /// The log's own entries still stand up to here.
    kept: Index,
    /// The runs of terms of the batch's own entries, all of them above `kept`.
    appended: Vec<(Index, Term)>,
    compacted: LogId,
    last: LogId,
    covered: Index,
    installed: Vec<&'a SnapshotMeta>,
}

/// Checks that every order of a batch fits what the store will hold when its turn comes.
///
/// `scratch` is a buffer whose content does not matter; it saves an allocation a batch.
pub(crate) fn check(
    log: &Outline,
    snapshots: &dyn Snapshots,
    writes: &[Write],
    scratch: &mut Vec<(Index, Term)>,
) -> Result<(), StoreError> {
    scratch.clear();
    let mut plan = Plan {
        log,
        snapshots,
        kept: log.last.index,
        appended: std::mem::take(scratch),
        compacted: log.compacted,
        last: log.last,
        covered: snapshots.covered(),
        installed: Vec::new(),
    };
    let checked = writes.iter().try_for_each(|order| plan.order(order));
    *scratch = plan.appended;
    checked.map_err(|reason| StoreError::BadWrite { reason, last: log.last })
}

/// Checks that an entry can be given back as it is, and what recovery says of it as well.
fn check_entry(entry: EntryRef<'_>) -> Result<(), &'static str> {
    if entry.payload.len() as u64 > MAX_PAYLOAD {
        return Err("a payload has 4 GiB or more");
    }
    if entry.kind == EntryKind::Membership && Membership::decode(entry.payload).is_err() {
        return Err("a membership does not decode");
    }
    Ok(())
}

impl<'a> Plan<'a> {
    fn order(&mut self, order: &'a Write) -> Result<(), &'static str> {
        match order {
            Write::HardState(_) => Ok(()),
            Write::Append(entries) => self.append(entries),
            Write::InstallSnapshot(meta) => self.install(meta),
            Write::Compact(upto) => self.compact(*upto),
            _ => Err("it holds an order that this store does not know"),
        }
    }

    fn append(&mut self, entries: &Entries) -> Result<(), &'static str> {
        let (Some(first), Some(last)) = (entries.first(), entries.last_log_id()) else {
            return Ok(());
        };
        let LogId { term, index } = first.log_id;
        if index <= self.compacted.index {
            return Err("an append begins at or below what is compacted");
        }
        if index > self.last.index.next() {
            return Err("an append leaves a gap");
        }
        if self.term_at(index.previous()) > Some(term) {
            return Err("an append begins with a lower term than the entry before it");
        }
        if last.index >= END_OF_INDEXES {
            return Err("an index is 2^62 or above");
        }
        entries.iter().try_for_each(check_entry)?;
        self.kept = self.kept.min(index.previous());
        let keep = self.appended.partition_point(|(begin, _)| *begin < index);
        self.appended.truncate(keep);
        push_runs(&mut self.appended, entries);
        self.last = last;
        Ok(())
    }

    fn compact(&mut self, upto: LogId) -> Result<(), &'static str> {
        if upto.index < self.compacted.index {
            return Ok(());
        }
        if self.term_at(upto.index) != Some(upto.term) {
            return Err("a compaction names an entry that the log does not hold");
        }
        if upto.index > self.covered && upto.index > self.compacted.index {
            return Err("a compaction drops entries that no installed snapshot covers");
        }
        self.compacted = upto;
        Ok(())
    }

    fn install(&mut self, meta: &'a SnapshotMeta) -> Result<(), &'static str> {
        // What is staged and does not reach beyond an installation goes with it.
        let is_gone = self.installed.iter().any(|before| meta.last.index <= before.last.index);
        if is_gone || !self.snapshots.is_complete(meta) {
            return Err("a snapshot is installed that is not completely staged");
        }
        if meta.last.index < self.compacted.index {
            return Err("a snapshot is installed that ends below what is compacted");
        }
        if meta.last.index >= END_OF_INDEXES {
            return Err("a snapshot is installed that ends at index 2^62 or above");
        }
        if self.term_at(meta.last.index) != Some(meta.last.term) {
            self.kept = Index(0);
            self.appended.clear();
            self.compacted = meta.last;
            self.last = meta.last;
        }
        self.covered = meta.last.index;
        self.installed.push(meta);
        Ok(())
    }

    fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.compacted.index {
            Some(self.compacted.term)
        } else if index < self.compacted.index || index > self.last.index {
            None
        } else if index <= self.kept {
            self.log.term_at(index)
        } else {
            term_in(&self.appended, index)
        }
    }
}

#[cfg(all(test, target_pointer_width = "64"))]
mod tests {
    use graft_core::{Entry, LogTime};

    use super::*;

    struct None;

    impl Snapshots for None {
        fn covered(&self) -> Index {
            Index(0)
        }

        fn is_complete(&self, _: &SnapshotMeta) -> bool {
            false
        }
    }

    /// Memory that is only asked for, and never touched.
    fn append(length: u64) -> [Write; 1] {
        let payload = vec![0; usize::try_from(length).unwrap_or(usize::MAX)].into();
        let (log_id, time) = (LogId::new(1, 1), LogTime(0));
        let entry = Entry { log_id, time, kind: EntryKind::Plain, payload };
        [Write::Append(vec![entry].into())]
    }

    #[test]
    fn a_payload_whose_length_a_store_cannot_tell_is_refused() {
        let checked = |length| check(&Outline::default(), &None, &append(length), &mut Vec::new());
        checked(MAX_PAYLOAD).unwrap();
        let refused = checked(MAX_PAYLOAD + 1);
        let is_meant = |reason: &str| reason.contains("4 GiB");
        assert!(
            matches!(&refused, Err(StoreError::BadWrite { reason, .. }) if is_meant(reason)),
            "{refused:?}"
        );
    }
}
