//! What a store may be asked for next.

use std::time::Duration;

use bytes::Bytes;
use graft_core::{
    Entry, EntryKind, HardState, Index, LogId, LogTime, NodeId, Recovered, SessionId,
    SnapshotChunk, SnapshotMeta, Term, Write,
    session::{CommandHeader, encode_command},
};

use super::{Batch, Workload, observe};
use crate::{
    MemoryStore,
    conformance::{block_on, samples},
    medium::random::Random,
};

/// The size of a batch where the size is what matters, in bytes.
pub(super) const BULK: u64 = 1 << 18;

/// Thinks of batches that fit the store, which `shadow` stands for.
pub(super) struct Writer {
    random: Random,
    shadow: MemoryStore,
    pub(super) workload: Workload,
    snapshots: u64,
}

impl Writer {
    pub(super) fn new(seed: u64) -> Self {
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

    /// Any batch that fits.
    pub(super) fn batch(&mut self) {
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
        let burst = self.random.percent(30).then(|| self.random.next());
        for index in first..first + count {
            let log_id = LogId::new(term, index);
            let entry = match burst {
                Some(session) => self.of_burst(log_id, session, first),
                None => self.entry(log_id),
            };
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
    pub(super) fn bulk(&mut self) {
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

    /// One of the commands that a client with much to ask sends at once, in an append that begins at `first`, or
    /// what comes between them.
    fn of_burst(&mut self, log_id: LogId, session: u64, first: u64) -> Entry {
        let time = LogTime(first * 1000 + log_id.term.0);
        if self.random.percent(5) {
            return Entry { time, ..self.entry(log_id) };
        }
        let (session, floor) = (SessionId(session), 1);
        let header = CommandHeader { session, sequence: log_id.index.0, floor, version: 1 };
        let size = if self.random.percent(50) { 0 } else { self.random.below(110) };
        let payload = encode_command(&header, &self.bytes(size));
        Entry { log_id, time, kind: EntryKind::SessionCommand, payload }
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
