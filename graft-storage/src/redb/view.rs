//! Reading a segment as of one of its commits.

use std::ops::{ControlFlow, Range};

use graft_core::{Entry, Identity, Index, StoreError};
use redb::{ReadOnlyTable, ReadTransaction};

use super::{
    codec::Malformed,
    facts::{Fact, Head, State},
    pages::Pages,
    record::{Chunk, ChunkHeader},
    segment::Segment,
    tables::{
        BALLAST, BALLAST_PAGES, FACTS, FACTS_PAGES, GROUP, HEAD, LOG, LOG_PAGES, guarded, key,
        place_of, translate,
    },
};

/// A segment as of one of its commits.
pub(super) struct View<'a> {
    segment: &'a Segment,
    transaction: ReadTransaction,
}

impl<'a> View<'a> {
    pub(super) fn new(segment: &'a Segment, transaction: ReadTransaction) -> Self {
        Self { segment, transaction }
    }

    fn guarded<T>(
        &self,
        pages: &Pages,
        work: impl FnOnce() -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let (backend, action) = (self.segment.backend(), "read a segment");
        guarded(backend, pages, || work().map_err(|error| translate(backend, pages, action, error)))
    }

    fn corrupt(&self, place: &str, reason: Malformed) -> StoreError {
        StoreError::Corrupt { location: format!("{}, {place}", self.segment.name()), reason }
    }

    pub(super) fn corrupt_fact(&self, fact: Fact, reason: Malformed) -> StoreError {
        self.corrupt(&format!("table facts, record {}", fact.name()), reason)
    }

    /// The error of an entry.
    pub(super) fn corrupt_entry(&self, index: Index, reason: Malformed) -> StoreError {
        self.corrupt(&format!("table log, entry {index}"), reason)
    }

    pub(super) fn head(&self) -> Result<Head, StoreError> {
        let bytes = self.guarded(&LOG_PAGES, || {
            let log = self.transaction.open_table(LOG)?;
            Ok(log.get(&HEAD)?.map(|found| found.value().to_vec()))
        })?;
        let bytes = bytes.ok_or_else(|| self.corrupt("table log, head", "it is missing".into()))?;
        Head::decode(&bytes).map_err(|reason| self.corrupt("table log, head", reason))
    }

    pub(super) fn fact(&self, fact: Fact) -> Result<Option<Vec<u8>>, StoreError> {
        self.guarded(&FACTS_PAGES, || {
            let facts = match self.transaction.open_table(FACTS) {
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
                opened => opened?,
            };
            Ok(facts.get(&fact.key(GROUP))?.map(|found| found.value().to_vec()))
        })
    }

    /// Whether it was written by a store at all.
    pub(super) fn has_ballast(&self) -> Result<bool, StoreError> {
        self.guarded(&BALLAST_PAGES, || match self.transaction.open_table(BALLAST) {
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(false),
            opened => Ok(opened.map(|_| true)?),
        })
    }

    /// Whose the segment is.
    pub(super) fn identity(&self) -> Result<Identity, StoreError> {
        let head = self.head()?;
        let missing = || self.corrupt_fact(Fact::Identity, "it is missing".into());
        let found = self.fact(Fact::Identity)?.ok_or_else(missing)?;
        let decoded = State::decode_identity(&head, GROUP, &found);
        decoded.map_err(|(fact, reason)| self.corrupt_fact(fact, reason))
    }

    /// An error unless the segment is of the store of this identity.
    pub(super) fn check_owner(&self, owner: &Identity) -> Result<(), StoreError> {
        let found = self.identity()?;
        if found == *owner {
            return Ok(());
        }
        let of = |it: &Identity| {
            format!("server `{}` of cluster {}, born as {}", it.name, it.cluster, it.incarnation)
        };
        let reason = format!("the file is of {}, the store of {}", of(&found), of(owner));
        Err(self.corrupt_fact(Fact::Identity, reason))
    }

    /// Everything that the segment holds beside records.
    pub(super) fn state(&self) -> Result<State, StoreError> {
        let head = self.head()?;
        let mut failed = None;
        let decoded = State::decode(self.segment.number, &head, GROUP, |fact| {
            let found = self.fact(fact).unwrap_or_else(|error| {
                failed = Some(error);
                None
            });
            found.ok_or((fact, "it is missing".into()))
        });
        match (failed, decoded) {
            (Some(error), _) => Err(error),
            (None, decoded) => decoded.map_err(|(fact, reason)| self.corrupt_fact(fact, reason)),
        }
    }

    /// Shows `visit` the entries of `range` in order, until it breaks off. Each is checked: one
    /// that is missing or not what was written is an error.
    pub(super) fn entries(
        &self,
        range: Range<Index>,
        visit: &mut dyn FnMut(Entry) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let mut next = range.start;
        let mut end = ControlFlow::Continue(());
        self.chunks(range.clone(), &mut |chunk, behind| {
            // What a later chunk holds replaced what this one holds of it.
            let stop = behind.min(range.end).min(chunk.end());
            for (index, entry) in (chunk.first.0..stop.0).zip(chunk.entries()) {
                let entry = entry.map_err(|bad| self.corrupt_entry(bad.index, bad.reason))?;
                if index < next.0 {
                    continue;
                }
                if index != next.0 {
                    break;
                }
                next = Index(index).next();
                end = visit(entry);
                if end.is_break() || next == range.end {
                    return Ok(ControlFlow::Break(()));
                }
            }
            // A gap is found here or behind the last chunk.
            let whole = next == behind.min(range.end);
            Ok(if whole { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        if end.is_continue() && next < range.end {
            return Err(self.corrupt_entry(next, "it is missing".into()));
        }
        Ok(end)
    }

    /// Shows `visit` the chunks around `range` in order, each with the first index of the next one.
    fn chunks(
        &self,
        range: Range<Index>,
        visit: &mut dyn FnMut(Chunk, Index) -> Result<ControlFlow<()>, StoreError>,
    ) -> Result<(), StoreError> {
        let log = self.guarded(&LOG_PAGES, || Ok(self.transaction.open_table(LOG)?))?;
        let Some(first) = self.chunk_at(&log, range.start)? else {
            return Ok(());
        };
        let rows = self.guarded(&LOG_PAGES, || {
            let to = key(GROUP, range.end, u32::MAX);
            Ok(log.range::<&[u8; 20]>(&key(GROUP, first, 0)..=&to)?)
        })?;
        let mut rows = rows;
        let mut open: Option<(Index, Vec<redb::AccessGuard<'_, &[u8]>>)> = None;
        while let Some((at, value)) = self.guarded(&LOG_PAGES, || {
            Ok(rows.next().transpose()?.map(|(key, value)| (*key.value(), value)))
        })? {
            let (_, first, part) = place_of(&at);
            match &mut open {
                Some((begun, parts)) if *begun == first => {
                    let expected = parts.len();
                    if part as usize != expected {
                        let reason =
                            format!("part {part} of its chunk stands where {expected} should");
                        return Err(self.corrupt_entry(first, reason));
                    }
                    parts.push(value);
                }
                _ => {
                    if let Some((begun, parts)) = open.take()
                        && visit(self.assemble(begun, &parts)?, first)?.is_break()
                    {
                        return Ok(());
                    }
                    if part != 0 {
                        let reason = format!("its chunk begins with part {part}");
                        return Err(self.corrupt_entry(first, reason));
                    }
                    open = Some((first, vec![value]));
                }
            }
        }
        if let Some((begun, parts)) = open {
            let _: ControlFlow<()> = visit(self.assemble(begun, &parts)?, Index(u64::MAX))?;
        }
        Ok(())
    }

    /// The first index of the chunk that `index` is in, if it is in one.
    fn chunk_at(
        &self,
        log: &ReadOnlyTable<&'static [u8; 20], &'static [u8]>,
        index: Index,
    ) -> Result<Option<Index>, StoreError> {
        self.guarded(&LOG_PAGES, || {
            let (from, to) = (key(GROUP, Index(0), 0), key(GROUP, index, u32::MAX));
            let mut before = log.range::<&[u8; 20]>(&from..=&to)?;
            let found = before.next_back().transpose()?;
            Ok(found.map(|(key, _)| place_of(key.value()).1))
        })
    }

    fn assemble(
        &self,
        first: Index,
        parts: &[redb::AccessGuard<'_, &'static [u8]>],
    ) -> Result<Chunk, StoreError> {
        let bad = |reason| self.corrupt_entry(first, reason);
        let parts: Vec<&[u8]> = parts.iter().map(redb::AccessGuard::value).collect();
        let header = ChunkHeader::decode(GROUP, first, parts.first().copied().unwrap_or_default());
        let header = header.map_err(bad)?;
        Chunk::assemble(GROUP, first, header, &parts).map_err(bad)
    }
}
