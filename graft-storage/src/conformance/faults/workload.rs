//! Generated work for a store, and the states that it goes through.

mod writer;

use std::{fmt, ops::RangeInclusive};

use bytes::Bytes;
use graft_core::{
    Entries, Index, Loaded, LogId, LogStore, Recovered, SnapshotChunk, StoreError, Write,
};

use self::writer::{BULK, Writer};
use crate::conformance::samples;

/// The work of a store's life, batch by batch, and what the store holds before and after each.
///
/// The same seed gives the same work. Batch 0 is the birth; batch `i` leads from state `i` to state
/// `i + 1`, so whoever finds a store in one of the states can go on from there. What the states are a
/// [`MemoryStore`](crate::MemoryStore) decides.
#[derive(Clone, Debug)]
pub struct Workload {
    batches: Vec<Batch>,
    states: Vec<Option<Seen>>,
}

/// What is to be done at once, and the snapshot chunks that must be staged before.
#[derive(Clone, Debug)]
struct Batch {
    chunks: Vec<SnapshotChunk>,
    writes: Vec<Write>,
}

/// Everything that can be seen of a store that was born.
#[derive(Clone, PartialEq)]
struct Seen {
    recovered: Recovered,
    entries: Entries,
    snapshot: Bytes,
}

/// A store that is not in any state in which it may be.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Mismatch(String);

impl Workload {
    /// A birth and `batches` batches behind it.
    #[must_use]
    pub fn generate(seed: u64, batches: usize) -> Self {
        let mut writer = Writer::new(seed);
        for _ in 0..batches {
            writer.batch();
        }
        writer.workload
    }

    /// A birth, and appends of about a quarter of a megabyte until the log holds `bytes` bytes.
    #[must_use]
    pub fn of_size(seed: u64, bytes: u64) -> Self {
        let mut writer = Writer::new(seed);
        for _ in 0..bytes.div_ceil(BULK) {
            writer.bulk();
        }
        writer.workload
    }

    /// How many batches there are, the birth included.
    #[must_use]
    pub fn batches(&self) -> usize {
        self.batches.len()
    }

    /// Whether batch `number` needs chunks staged before it is written: such a batch can be given to a
    /// store only once those before it are done.
    #[must_use]
    pub fn stages(&self, number: usize) -> bool {
        number == 0 || !self.batches[number].chunks.is_empty()
    }

    /// Does batch `number`, durably.
    ///
    /// # Errors
    ///
    /// Those of the store.
    pub async fn perform(&self, store: &dyn LogStore, number: usize) -> Result<(), StoreError> {
        if number == 0 {
            return store.create(&samples::identity()).await;
        }
        let batch = &self.batches[number];
        for chunk in &batch.chunks {
            store.stage(chunk.clone()).await?;
        }
        let buffer = store.write(batch.writes.clone()).await?;
        debug_assert!(buffer.is_empty());
        Ok(())
    }

    /// Recovers the store, reads all of it, and says in which of the `allowed` states it is: the last
    /// of those that fit.
    ///
    /// # Errors
    ///
    /// [`Mismatch`] where it is in none of them; says in which it is, or how it differs. What the store
    /// itself reports is returned as it is.
    pub async fn find(
        &self,
        store: &dyn LogStore,
        allowed: RangeInclusive<usize>,
    ) -> Result<Result<usize, Mismatch>, StoreError> {
        let found = observe(store, allowed.end() + 1).await?;
        if let Some(number) = allowed.clone().rev().find(|number| self.fits(*number, &found)) {
            return Ok(Ok(number));
        }
        let is = (0..self.states.len()).rev().find(|number| self.fits(*number, &found));
        let (from, to) = (allowed.start(), allowed.end());
        let what = match is {
            Some(number) => format!("it is in state {number}"),
            None => format!(
                "it is in no state at all: {}; and {}",
                difference(*from, self.states[*from].as_ref(), found.as_ref()),
                difference(*to, self.states[*to].as_ref(), found.as_ref()),
            ),
        };
        let mismatch =
            format!("state {from} was acknowledged and {to} is the last possible, {what}");
        Ok(Err(Mismatch(mismatch)))
    }

    fn fits(&self, number: usize, found: &Option<Seen>) -> bool {
        match (&self.states[number], found) {
            (None, None) => true,
            (Some(state), Some(found)) => state.difference(found).is_none(),
            _ => false,
        }
    }
}

fn difference(number: usize, state: Option<&Seen>, found: Option<&Seen>) -> String {
    let what = match (state, found) {
        (Some(state), Some(found)) => state.difference(found),
        (None, Some(_)) => Some("it was born".to_owned()),
        (Some(_), None) => Some("it was never born".to_owned()),
        (None, None) => None,
    };
    format!("unlike state {number}, {}", what.unwrap_or_else(|| "nothing".to_owned()))
}

/// Everything that can be seen of a store. Reads go in pieces, whose sizes depend on `variant`.
async fn observe(store: &dyn LogStore, variant: usize) -> Result<Option<Seen>, StoreError> {
    let Some(recovered) = store.recover().await? else { return Ok(None) };
    let max_bytes = [usize::MAX, 1 << 14, 1 << 17][variant % 3];
    let mut entries = Entries::new();
    let end = recovered.last.index.next();
    let mut next = recovered.compacted.index.next();
    while next < end {
        let piece = match store.read(next..end, max_bytes).await? {
            Loaded::Entries(piece) if piece.first_index() == Some(next) => piece,
            other => return Err(unexpected(format!("entry {next} was read, {other:?} came"))),
        };
        next = piece.last_log_id().map_or(end, |last| last.index.next());
        entries.append(piece);
    }
    let mut snapshot = Vec::new();
    if let Some(meta) = &recovered.snapshot {
        loop {
            let piece = store.read_snapshot(meta.id, snapshot.len() as u64, 1 << 16).await?;
            if piece.is_empty() {
                break;
            }
            snapshot.extend_from_slice(&piece);
            if snapshot.len() as u64 > meta.size {
                return Err(unexpected(format!("{meta:?} has more bytes than it has")));
            }
        }
    }
    Ok(Some(Seen { recovered, entries, snapshot: snapshot.into() }))
}

fn unexpected(reason: String) -> StoreError {
    StoreError::Backend { reason }
}

impl Seen {
    /// What is wrong with `found` where it should be this.
    ///
    /// A store may compact what an installed snapshot covers before it is told to; all else is equal.
    fn difference(&self, found: &Self) -> Option<String> {
        let (wanted, given) = (&self.recovered, &found.recovered);
        let differs = |what: &str, wanted: &dyn fmt::Debug, given: &dyn fmt::Debug| {
            Some(format!("{what} is {given:?} and not {wanted:?}"))
        };
        if given.identity != wanted.identity {
            return differs("the identity", &wanted.identity, &given.identity);
        }
        if given.hard_state != wanted.hard_state {
            return differs("the hard state", &wanted.hard_state, &given.hard_state);
        }
        if (given.last, given.last_time) != (wanted.last, wanted.last_time) {
            let [wanted, given] = [wanted, given].map(|one| (one.last, one.last_time));
            return differs("the end", &wanted, &given);
        }
        if given.snapshot != wanted.snapshot {
            return differs("the snapshot", &wanted.snapshot, &given.snapshot);
        }
        if found.snapshot != self.snapshot {
            return Some("the snapshot has other bytes".to_owned());
        }
        let expected = self.compacted_to(given.compacted);
        let Some(expected) = expected else {
            return differs("what is compacted", &wanted.compacted, &given.compacted);
        };
        if given.terms != expected.terms {
            return differs("the runs of terms", &expected.terms, &given.terms);
        }
        if given.memberships != expected.memberships {
            return differs("the memberships", &expected.memberships, &given.memberships);
        }
        let entries = self.entries.slice(given.compacted.index.next()..wanted.last.index.next());
        let mut pairs = entries.iter().zip(found.entries.iter());
        if let Some((wanted, given)) = pairs.find(|(wanted, given)| wanted != given) {
            return differs("an entry", &wanted, &given);
        }
        (entries.len() != found.entries.len()).then(|| "the log has another length".to_owned())
    }

    /// What this store would recover after a compaction to `compacted`, where it may have made it.
    fn compacted_to(&self, compacted: LogId) -> Option<Recovered> {
        let mut recovered = self.recovered.clone();
        if compacted == recovered.compacted {
            return Some(recovered);
        }
        let covered = recovered.snapshot.as_ref().map_or(Index(0), |meta| meta.last.index);
        let entry = self.entries.get(compacted.index)?;
        if entry.log_id != compacted || compacted.index > covered {
            return None;
        }
        let first = compacted.index.next();
        let gone = recovered.terms.partition_point(|(begin, _)| *begin <= first);
        recovered.terms.drain(..gone.saturating_sub(1));
        if let Some(run) = recovered.terms.first_mut() {
            run.0 = run.0.max(first);
        }
        if compacted == recovered.last {
            recovered.terms.clear();
        }
        recovered.memberships.retain(|(at, _)| at.index >= first);
        recovered.compacted = compacted;
        Some(recovered)
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.recovered.compacted, self.recovered.last)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{MemoryStore, conformance::block_on};

    /// Whatever the seed, every kind of order comes, and a store that starts anywhere can go on.
    #[test]
    fn a_workload_is_the_same_each_time_and_holds_every_order() {
        let mut kinds = [0; 4];
        for seed in 0..20 {
            let workload = Workload::generate(seed, 40);
            let again = Workload::generate(seed, 40);
            assert_eq!(workload.batches(), 41);
            for (batch, same) in workload.batches.iter().zip(&again.batches) {
                assert_eq!(batch.writes, same.writes);
            }
            for write in workload.batches.iter().flat_map(|batch| &batch.writes) {
                let kind = match write {
                    Write::HardState(_) => 0,
                    Write::Append(_) => 1,
                    Write::InstallSnapshot(_) => 2,
                    _ => 3,
                };
                kinds[kind] += 1;
            }
        }
        assert!(kinds.iter().all(|count| *count > 20), "{kinds:?}");
    }

    #[test]
    fn a_state_is_found_and_another_is_told_apart() {
        let workload = Workload::generate(3, 12);
        let store = MemoryStore::new();
        let done = async {
            for number in 0..workload.batches() {
                workload.perform(&store, number).await?;
                let found = workload.find(&store, number..=number + 1).await?;
                assert_eq!(found.unwrap(), number + 1);
                let less = workload.find(&store, 0..=0).await?;
                assert!(less.is_err(), "{less:?}");
            }
            Ok::<(), StoreError>(())
        };
        block_on(Duration::ZERO, done).unwrap().unwrap();
    }
}
