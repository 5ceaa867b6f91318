//! Generated work for a store, and the states that it goes through.

use std::{fmt, ops::RangeInclusive, time::Duration};

use bytes::Bytes;
use graft_core::{
    Entries, Entry, EntryKind, HardState, Index, Loaded, LogId, LogStore, LogTime, NodeId,
    Recovered, SnapshotChunk, SnapshotMeta, StoreError, Term, Write,
};

use super::super::{block_on, samples};
use crate::{MemoryStore, medium::random::Random};

/// The size of a batch where the size is what matters, in bytes.
const BULK: u64 = 1 << 18;

/// The work of a store's life, batch by batch, and what the store holds before and after each.
///
/// The same seed gives the same work. Batch 0 is the birth; batch `i` leads from state `i` to state
/// `i + 1`, so whoever finds a store in one of the states can go on from there. What the states are a
/// [`MemoryStore`] decides.
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
            return differs("an entry", wanted, given);
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

/// Thinks of batches that fit the store, which `shadow` stands for.
struct Writer {
    random: Random,
    shadow: MemoryStore,
    workload: Workload,
    snapshots: u64,
}

impl Writer {
    fn new(seed: u64) -> Self {
        let shadow = MemoryStore::new();
        let birth = Batch { chunks: Vec::new(), writes: Vec::new() };
        let workload = Workload { batches: vec![birth], states: vec![None] };
        let mut writer = Self { random: Random::of(&[seed, 1]), shadow, workload, snapshots: 0 };
        writer.advance();
        writer
    }

    /// Does the last batch, and keeps the state that it leads to.
    fn advance(&mut self) {
        let number = self.workload.batches.len() - 1;
        let (workload, shadow) = (&self.workload, &self.shadow);
        let work = async {
            workload.perform(shadow, number).await?;
            observe(shadow, 0).await
        };
        let state = block_on(Duration::ZERO, work);
        match state {
            Some(Ok(state)) => self.workload.states.push(state),
            other => unreachable!("a memory store takes what fits at once: {other:?}"),
        }
    }

    fn recovered(&self) -> &Recovered {
        let state = self.workload.states.last().and_then(Option::as_ref);
        match state {
            Some(seen) => &seen.recovered,
            None => unreachable!("the store was born"),
        }
    }

    fn batch(&mut self) {
        let mut batch = Batch { chunks: Vec::new(), writes: Vec::new() };
        match self.random.below(100) {
            0..45 => self.append(&mut batch, false),
            45..62 => self.append(&mut batch, true),
            62..70 => self.hard_state(&mut batch),
            70..76 => self.snapshot_behind(&mut batch),
            76..80 => self.snapshot_ahead(&mut batch),
            80..90 => self.compact(&mut batch),
            90..93 => {
                self.unfinished_snapshot(&mut batch);
                self.append(&mut batch, false);
            }
            _ => {
                self.append(&mut batch, false);
                self.hard_state(&mut batch);
            }
        }
        self.workload.batches.push(batch);
        self.advance();
    }

    fn hard_state(&mut self, batch: &mut Batch) {
        let HardState { term, .. } = self.recovered().hard_state;
        let last = self.recovered().last.index.0;
        let term = Term(term.0.max(self.recovered().last.term.0) + self.random.below(3));
        let voted_for = self.random.percent(50).then(|| NodeId(1 + self.random.below(5)));
        let commit = Index(self.random.below(last + 1));
        batch.writes.push(Write::HardState(HardState { term, voted_for, commit }));
    }

    /// Appends at the end, or in place of a part of the log.
    fn append(&mut self, batch: &mut Batch, truncates: bool) {
        let last = self.recovered().last;
        // What a snapshot covers is committed, and never replaced.
        let length = last.index.0 - self.covered();
        let mut first = last.index.0 + 1;
        let mut term = last.term.0.max(1);
        if truncates && length > 0 {
            // Mostly near the end, as leaders do.
            let back = if self.random.percent(70) { length.min(12) } else { length };
            first -= 1 + self.random.below(back);
            term += 1;
        } else if self.random.percent(15) {
            term += 1 + self.random.below(3);
        }
        let count = match self.random.below(20) {
            0..11 => 1 + self.random.below(3),
            11..18 => 4 + self.random.below(16),
            18 => 100,
            _ => 100 + self.random.below(200),
        };
        let mut entries = Vec::new();
        let mut bytes = 0;
        for index in first..first + count {
            let entry = self.entry(LogId::new(term, index));
            bytes += entry.payload.len();
            entries.push(entry);
            if bytes > 200_000 {
                break;
            }
            if self.random.percent(2) {
                term += 1;
            }
        }
        batch.writes.push(Write::Append(entries.into()));
    }

    /// Entries of one to eight kilobytes.
    fn bulk(&mut self) {
        let LogId { term, index } = self.recovered().last;
        let mut entries = Vec::new();
        let mut left = BULK;
        while left > 0 {
            let log_id = LogId::new(term.0.max(1), index.0 + 1 + entries.len() as u64);
            let size = (1000 + self.random.below(7000)).min(left);
            let time = LogTime(log_id.index.0 * 1000);
            let payload = self.bytes(size);
            entries.push(Entry { log_id, time, kind: EntryKind::Plain, payload });
            left -= size;
        }
        let writes = vec![Write::Append(entries.into())];
        self.workload.batches.push(Batch { chunks: Vec::new(), writes });
        self.advance();
    }

    fn entry(&mut self, log_id: LogId) -> Entry {
        let time = LogTime(log_id.index.0 * 1000 + log_id.term.0);
        let kind = match self.random.below(40) {
            0 => {
                let voters: Vec<u64> = (1..2 + self.random.below(5)).collect();
                let payload = samples::membership("generated", &voters).encode();
                return Entry { log_id, time, kind: EntryKind::Membership, payload };
            }
            1 => EntryKind::Blank,
            2..20 => EntryKind::SessionCommand,
            _ => EntryKind::Plain,
        };
        let size = match self.random.below(200) {
            0..20 => 0,
            20..170 => self.random.below(200),
            170..195 => 200 + self.random.below(5000),
            195..199 => 5000 + self.random.below(15_000),
            _ => 60_000 + self.random.below(90_000),
        };
        Entry { log_id, time, kind, payload: self.bytes(size) }
    }

    fn bytes(&mut self, size: u64) -> Bytes {
        let words = (0..size.div_ceil(8)).flat_map(|_| self.random.next().to_le_bytes());
        words.take(usize::try_from(size).unwrap_or(0)).collect::<Vec<u8>>().into()
    }

    /// A snapshot of what the log holds, as a server takes it of its own machine.
    fn snapshot_behind(&mut self, batch: &mut Batch) {
        let from = self.covered() + 1;
        let to = self.recovered().last.index.0 + 1;
        if from >= to {
            return self.append(batch, false);
        }
        let index = from + self.random.below(to - from);
        let last = LogId { term: self.term_at(index), index: Index(index) };
        self.stage(batch, last);
        if self.random.percent(50) {
            batch.writes.push(Write::Compact(last));
        }
        if self.random.percent(30) {
            self.append(batch, false);
        }
    }

    /// A snapshot that a leader sends to a server far behind: the log goes whole.
    fn snapshot_ahead(&mut self, batch: &mut Batch) {
        let LogId { term, index } = self.recovered().last;
        let last = LogId::new(term.0 + 1, index.0 + 1 + self.random.below(50));
        self.stage(batch, last);
        if self.random.percent(30) {
            let entries: Vec<_> = (1..4)
                .map(|ahead| self.entry(LogId::new(last.term.0, last.index.0 + ahead)))
                .collect();
            batch.writes.push(Write::Append(entries.into()));
            self.hard_state(batch);
        }
    }

    fn unfinished_snapshot(&mut self, batch: &mut Batch) {
        let last = self.recovered().last;
        let mut unused = Batch { chunks: Vec::new(), writes: Vec::new() };
        self.stage(&mut unused, LogId::new(last.term.0 + 1, last.index.0 + 1));
        let count = unused.chunks.len();
        batch.chunks.extend(unused.chunks.into_iter().take(count.div_ceil(2)));
    }

    /// Stages a snapshot, and orders its installation.
    fn stage(&mut self, batch: &mut Batch, last: LogId) {
        self.snapshots += 1;
        let size = match self.random.below(10) {
            0..6 => 1 + self.random.below(3000),
            6..9 => 3000 + self.random.below(30_000),
            _ => 100_000 + self.random.below(100_000),
        };
        let bytes = self.bytes(size);
        let (sample, _) = samples::snapshot(self.snapshots, last, 0);
        let meta = SnapshotMeta { size, digest: graft_core::stable_hash(&bytes), ..sample };
        let chunk = 1 + bytes.len() / (1 + self.random.index(4));
        for offset in (0..bytes.len()).step_by(chunk) {
            let piece = bytes.slice(offset..bytes.len().min(offset + chunk));
            let chunk = SnapshotChunk { meta: meta.clone(), offset: offset as u64, bytes: piece };
            batch.chunks.push(chunk);
        }
        batch.writes.push(Write::InstallSnapshot(meta));
    }

    fn compact(&mut self, batch: &mut Batch) {
        let from = self.recovered().compacted.index.0 + 1;
        let to = self.covered() + 1;
        if from >= to {
            return self.snapshot_behind(batch);
        }
        let index =
            if self.random.percent(60) { to - 1 } else { from + self.random.below(to - from) };
        let upto = LogId { term: self.term_at(index), index: Index(index) };
        batch.writes.push(Write::Compact(upto));
        if self.random.percent(30) {
            self.append(batch, false);
        }
    }

    /// Up to where a snapshot covers the log, or it is compacted.
    fn covered(&self) -> u64 {
        let Recovered { snapshot, compacted, .. } = self.recovered();
        snapshot.as_ref().map_or(0, |meta| meta.last.index.0).max(compacted.index.0)
    }

    /// The term of an entry that the log holds.
    fn term_at(&self, index: u64) -> Term {
        let runs = &self.recovered().terms;
        let after = runs.partition_point(|(begin, _)| begin.0 <= index);
        runs[..after].last().map_or(Term(0), |(_, term)| *term)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
