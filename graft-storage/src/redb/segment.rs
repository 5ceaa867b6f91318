//! One segment of the log: a redb database in a file of its own.

use std::{
    io,
    ops::{ControlFlow, Range},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use graft_core::{Entries, Entry, GroupId, Index, StoreError};
use redb::{
    Builder, Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, TableDefinition,
    WriteTransaction,
};

use super::{
    backend::Backend,
    check::Pacer,
    codec::Malformed,
    error::OpenError,
    facts::{Fact, Format, Head, State, VERSION},
    options::Options,
    record::{self, Chunk, ChunkHeader},
    shared::Shared,
};
use crate::medium::{Medium, MediumFile, Open};

const LOG: TableDefinition<'_, &[u8; 20], &[u8]> = TableDefinition::new("log");
const FACTS: TableDefinition<'_, &[u8; 9], &[u8]> = TableDefinition::new("facts");

/// The head is kept among the chunks, behind all of them: a table of its own would cost each commit two
/// more pages. No group has this number.
const HEAD: [u8; 20] = [0xff; 20];

/// What every file of redb begins with.
const MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";

/// The size of redb's pages.
const PAGE: u64 = 4096;

/// Where a segment of one group is kept.
const GROUP: GroupId = GroupId(0);

/// A segment of the log.
pub(super) struct Segment {
    pub(super) number: u64,
    name: String,
    backend: Backend,
    /// Always there until it is dropped.
    database: Option<Database>,
}

/// The changes of one commit that the head does not show.
#[derive(Default)]
pub(super) struct Changes {
    /// All chunks that begin at or above this go first.
    pub(super) truncate_from: Option<Index>,
    pub(super) entries: Entries,
    pub(super) facts: Vec<Fact>,
}

/// The name of the file of a segment.
pub(super) fn file_name(number: u64) -> String {
    format!("log-{number:020}.redb")
}

/// The number in a name that [`file_name`] made.
pub(super) fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("log-")?.strip_suffix(".redb")?;
    let number = digits.parse().ok()?;
    (file_name(number) == name).then_some(number)
}

fn key(group: GroupId, first: Index, part: u32) -> [u8; 20] {
    let mut key = [0; 20];
    key[..8].copy_from_slice(&group.0.to_be_bytes());
    key[8..16].copy_from_slice(&first.0.to_be_bytes());
    key[16..].copy_from_slice(&part.to_be_bytes());
    key
}

fn place_of(key: &[u8; 20]) -> (GroupId, Index, u32) {
    let mut fields = [0; 8];
    fields.copy_from_slice(&key[..8]);
    let group = GroupId(u64::from_be_bytes(fields));
    fields.copy_from_slice(&key[8..16]);
    let first = Index(u64::from_be_bytes(fields));
    let mut part = [0; 4];
    part.copy_from_slice(&key[16..]);
    (group, first, u32::from_be_bytes(part))
}

impl Segment {
    /// A new segment that holds `state` and `changes`, in a file whose content is durable, but not its
    /// name, which is to be `name`.
    pub(super) fn create(
        medium: &Arc<dyn Medium>,
        name: &str,
        file: Box<dyn MediumFile>,
        options: &Options,
        changes: &Changes,
        state: &State,
    ) -> Result<Self, StoreError> {
        let io = |source| StoreError::Io { action: "create a segment", source };
        fill(&*file, options.preallocated_bytes).map_err(io)?;
        let backend = Backend::new(Arc::clone(medium), name, file, 0).map_err(io)?;
        let segment = Self::start(state.active, name, backend, options.cache_bytes)?;
        segment.commit(changes, state, &mut Vec::new())?;
        segment.backend.accept_new().map_err(io)?;
        Ok(segment)
    }

    /// The segment in the file of this number, each page of it checked. The file stays as it is until
    /// the segment is [accepted](Self::accept).
    pub(super) fn open(
        medium: &Arc<dyn Medium>,
        number: u64,
        how: Open,
        cache: usize,
        pacer: Option<(Arc<Pacer>, Arc<Shared>)>,
    ) -> Result<Self, OpenError> {
        let name = file_name(number);
        let io = |source| OpenError::Io { action: "open a segment", source };
        let location = || format!("{} in {}", name, medium.describe());
        let file = medium.open(&name, how).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                OpenError::Corrupt { location: location(), reason: "the file is missing".into() }
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                OpenError::Inaccessible { path: location(), source: error }
            }
            _ => io(error),
        })?;
        let length = file.len().map_err(io)?;
        // A crash may have left a part of a page at the end, of a commit that never ended.
        let whole = length - length % PAGE;
        let backend = Backend::new(Arc::clone(medium), &name, file, whole).map_err(io)?;
        let backend = pacer.into_iter().fold(backend, Backend::paced);
        let mut magic = [0; MAGIC.len()];
        if whole == 0 {
            let expected = PAGE;
            return Err(OpenError::Truncated { file: location(), length, expected });
        }
        backend.read_file(0, &mut magic).map_err(io)?;
        if magic != MAGIC {
            let reason = "it is no file of redb".into();
            return Err(OpenError::Foreign { file: location(), reason });
        }
        let opened = Self::start(number, &name, backend, cache);
        let segment = opened.map_err(|error| OpenError::of(&medium.describe(), error))?;
        segment.check_format(&location())?;
        Ok(segment)
    }

    fn start(number: u64, name: &str, backend: Backend, cache: usize) -> Result<Self, StoreError> {
        let opened = guarded(&backend, || {
            let mut builder = Builder::new();
            builder.set_cache_size(cache).set_check_integrity_on_open(true);
            let opened = builder.create_with_backend(backend.clone());
            opened.map_err(|error| translate(&backend, "open a segment", error))
        });
        let database = Some(opened?);
        Ok(Self { number, name: name.to_owned(), backend, database })
    }

    /// From now on it may be written: what redb did to recover it is written first.
    pub(super) fn accept(&self) -> Result<(), StoreError> {
        let action = "write to a segment that was recovered";
        self.backend.accept().map_err(|source| StoreError::Io { action, source })
    }

    /// From now on nothing reaches the file any more.
    pub(super) fn freeze(&self) {
        self.backend.freeze();
    }

    pub(super) fn length(&self) -> u64 {
        self.backend.physical_length()
    }

    /// Where in the file that ends which was written since it was opened.
    pub(super) fn used(&self) -> u64 {
        self.backend.used()
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn check_format(&self, file: &str) -> Result<(), OpenError> {
        let wrong = |error| OpenError::of("", error);
        let view = self.view().map_err(wrong)?;
        let found = view.fact(Fact::Format).map_err(wrong)?;
        let Some(found) = found else {
            let reason = "it holds no log".into();
            return Err(OpenError::Foreign { file: file.to_owned(), reason });
        };
        let found = Format::decode(GROUP, &found)
            .map_err(|reason| wrong(view.corrupt_fact(Fact::Format, reason)))?;
        let own = Format::own();
        let file = file.to_owned();
        if found.version > VERSION {
            return Err(OpenError::NewerFormat { file, found: found.version, known: VERSION });
        }
        if found != own {
            let Format { version, fingerprint: found } = found;
            return Err(OpenError::OtherFormat { file, version, found, known: own.fingerprint });
        }
        Ok(())
    }

    fn database(&self) -> Result<&Database, StoreError> {
        self.database.as_ref().ok_or_else(|| StoreError::Backend { reason: "it is closed".into() })
    }

    /// What was committed last.
    pub(super) fn view(&self) -> Result<View<'_>, StoreError> {
        let action = "read a segment";
        guarded(&self.backend, || {
            let begun = self.database()?.begin_read();
            let transaction = begun.map_err(|error| translate(&self.backend, action, error))?;
            Ok(View { segment: self, transaction })
        })
    }

    /// Makes `changes` and the head of `state` durable, together or not at all.
    pub(super) fn commit(
        &self,
        changes: &Changes,
        state: &State,
        buffer: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        let done = guarded(&self.backend, || {
            let begun = self.database()?.begin_write();
            let transaction = begun.map_err(|error| translate(&self.backend, "write", error))?;
            let changed = apply(&transaction, changes, state, buffer);
            changed.map_err(|error| translate(&self.backend, "write", error))?;
            let committed = transaction.commit();
            committed.map_err(|error| translate(&self.backend, "commit", error))
        });
        // redb forgives a page that could not be written ahead of the commit. The disk did not keep what
        // it was given, so this does not.
        match self.backend.failure() {
            None => done,
            Some(failure) => {
                Err(StoreError::Io { action: failure.action, source: failure.error() })
            }
        }
    }
}

fn apply(
    transaction: &WriteTransaction,
    changes: &Changes,
    state: &State,
    buffer: &mut Vec<u8>,
) -> Result<(), redb::Error> {
    let mut log = transaction.open_table(LOG)?;
    if let Some(index) = changes.truncate_from {
        let (from, to) = (key(state.group, index, 0), key(state.group, Index(u64::MAX), u32::MAX));
        log.retain_in::<&[u8; 20], _>(&from..=&to, |_, _| false)?;
    }
    let entries: Vec<&Entry> = changes.entries.slices().flatten().collect();
    for chunk in record::chunks(&entries) {
        record::encode(state.group, chunk, buffer);
        for (number, part) in (0..).zip(record::parts(buffer.len())) {
            log.insert(&key(state.group, chunk[0].log_id.index, number), &buffer[part])?;
        }
    }
    log.insert(&HEAD, state.head().encode().as_slice())?;
    if !changes.facts.is_empty() {
        let mut facts = transaction.open_table(FACTS)?;
        for fact in &changes.facts {
            facts.insert(&fact.key(state.group), state.encode(*fact).as_slice())?;
        }
    }
    Ok(())
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.backend.freeze();
        self.backend.close();
        let database = self.database.take();
        // Nothing is written any more, so nothing is lost by a panic on the way.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(database)));
    }
}

/// A segment as of one of its commits.
pub(super) struct View<'a> {
    segment: &'a Segment,
    transaction: ReadTransaction,
}

impl View<'_> {
    fn guarded<T>(&self, work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let backend = &self.segment.backend;
        guarded(backend, || work().map_err(|error| translate(backend, "read a segment", error)))
    }

    fn corrupt(&self, place: &str, reason: Malformed) -> StoreError {
        StoreError::Corrupt { location: format!("{}, {place}", self.segment.name), reason }
    }

    fn corrupt_fact(&self, fact: Fact, reason: Malformed) -> StoreError {
        self.corrupt(&format!("table facts, record {}", fact.name()), reason)
    }

    /// The error of an entry.
    pub(super) fn corrupt_entry(&self, index: Index, reason: Malformed) -> StoreError {
        self.corrupt(&format!("table log, entry {index}"), reason)
    }

    pub(super) fn head(&self) -> Result<Head, StoreError> {
        let bytes = self.guarded(|| {
            let log = self.transaction.open_table(LOG)?;
            Ok(log.get(&HEAD)?.map(|found| found.value().to_vec()))
        })?;
        let bytes = bytes.ok_or_else(|| self.corrupt("table log, head", "it is missing".into()))?;
        Head::decode(&bytes).map_err(|reason| self.corrupt("table log, head", reason))
    }

    fn fact(&self, fact: Fact) -> Result<Option<Vec<u8>>, StoreError> {
        self.guarded(|| {
            let facts = match self.transaction.open_table(FACTS) {
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
                opened => opened?,
            };
            Ok(facts.get(&fact.key(GROUP))?.map(|found| found.value().to_vec()))
        })
    }

    /// Everything that the segment holds beside records.
    pub(super) fn state(&self) -> Result<State, StoreError> {
        let head = self.head()?;
        let mut failed = None;
        let decoded = State::decode(self.segment.number, head, GROUP, |fact| {
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

    /// Shows `visit` the entries of `range` in order, until it breaks off. Each is checked: one that is
    /// missing or not what was written is an error.
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
        let log = self.guarded(|| Ok(self.transaction.open_table(LOG)?))?;
        let Some(first) = self.chunk_at(&log, range.start)? else {
            return Ok(());
        };
        let rows = self.guarded(|| {
            let to = key(GROUP, range.end, u32::MAX);
            Ok(log.range::<&[u8; 20]>(&key(GROUP, first, 0)..=&to)?)
        })?;
        let mut rows = rows;
        let mut open: Option<(Index, Vec<redb::AccessGuard<'_, &[u8]>>)> = None;
        while let Some((at, value)) =
            self.guarded(|| Ok(rows.next().transpose()?.map(|(key, value)| (*key.value(), value))))?
        {
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
                    if let Some((begun, parts)) = open.take() {
                        if visit(self.assemble(begun, &parts)?, first)?.is_break() {
                            return Ok(());
                        }
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
        self.guarded(|| {
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

/// Gives a file space ahead. Zeros are written, since a disk that has a length but no blocks needs the
/// journal for each block it gets.
fn fill(file: &dyn MediumFile, length: u64) -> io::Result<()> {
    const PIECE: u64 = 1 << 20;
    let zeros = vec![0; usize::try_from(PIECE.min(length)).unwrap_or(0)];
    let mut at = 0;
    while at < length {
        let piece = usize::try_from(length - at).unwrap_or(zeros.len()).min(zeros.len());
        file.write_at(at, &zeros[..piece])?;
        at += piece as u64;
    }
    Ok(())
}

/// What redb's own words mean.
fn translate(backend: &Backend, action: &'static str, error: impl Into<redb::Error>) -> StoreError {
    match error.into() {
        // The disk is asked for what it does not have only where a page names a page that cannot be.
        redb::Error::Io(source) if source.kind() != io::ErrorKind::UnexpectedEof => {
            StoreError::Io { action, source }
        }
        redb::Error::PreviousIo | redb::Error::DatabaseClosed => match backend.failure() {
            Some(failure) => StoreError::Io { action: failure.action, source: failure.error() },
            None => corrupt_pages(backend, "an earlier read failed".into()),
        },
        other => corrupt_pages(backend, other.to_string()),
    }
}

/// The error of a page, of which redb does not say what it is part of.
fn corrupt_pages(backend: &Backend, reason: String) -> StoreError {
    StoreError::Corrupt { location: format!("{}, pages of its tables", backend.name()), reason }
}

/// Runs what reads pages of which none was checked since it was read: where they are not what was
/// written, redb may panic.
fn guarded<T>(
    backend: &Backend,
    work: impl FnOnce() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let reason = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "redb panicked".to_owned());
        Err(corrupt_pages(backend, reason))
    })
}

#[cfg(test)]
mod tests {
    use graft_core::{Birth, ClusterId, Epoch, Identity, Incarnation, NodeId};

    use super::*;
    use crate::{medium::FaultyMedium, redb::facts::Fact};

    fn state() -> State {
        let mut state = State::newborn(Identity {
            cluster: ClusterId(1),
            epoch: Epoch(0),
            node: NodeId(1),
            name: "server1".into(),
            incarnation: Incarnation(1),
            birth: Birth::Founder,
            machine: "test".into(),
            format: 0,
        });
        state.active = 1;
        state.advance(&Fact::STAMPED);
        state
    }

    /// A medium with a segment that says it is in `format`.
    fn segment_in(format: Format) -> Arc<dyn Medium> {
        let medium: Arc<dyn Medium> = Arc::new(FaultyMedium::new(1));
        let name = file_name(1);
        let file = medium.open(&name, Open::CreateNew).unwrap();
        let options = Options::default().preallocated_bytes(0);
        let changes = Changes { facts: Fact::ALL.to_vec(), ..Changes::default() };
        let segment = Segment::create(&medium, &name, file, &options, &changes, &state()).unwrap();
        let transaction = segment.database().unwrap().begin_write().unwrap();
        {
            let mut facts = transaction.open_table(FACTS).unwrap();
            facts.insert(&Fact::Format.key(GROUP), format.encode(GROUP).as_slice()).unwrap();
        }
        transaction.commit().unwrap();
        medium
    }

    fn opened(format: Format) -> Result<Segment, OpenError> {
        Segment::open(&segment_in(format), 1, Open::Read, 1 << 20, None)
    }

    #[test]
    fn a_segment_in_this_builds_format_is_opened() {
        let segment = opened(Format::own()).unwrap();
        assert_eq!(segment.view().unwrap().head().unwrap(), state().head());
    }

    #[test]
    fn a_newer_format_is_told_from_another_of_the_same_version() {
        let newer = Format { version: VERSION + 1, fingerprint: 5 };
        let error = opened(newer).map(drop).unwrap_err();
        let known = VERSION;
        assert!(
            matches!(&error, OpenError::NewerFormat { found, known: k, .. }
                if *found == known + 1 && *k == known),
            "{error:?}"
        );
        assert!(error.to_string().contains("upgrade this server first"), "{error}");
        let other = Format { version: VERSION, fingerprint: 5 };
        let error = opened(other).map(drop).unwrap_err();
        assert!(matches!(&error, OpenError::OtherFormat { found: 5, .. }), "{error:?}");
    }

    #[test]
    fn names_of_segments_are_those_that_were_given() {
        assert_eq!(number_of(&file_name(7)), Some(7));
        assert_eq!(number_of(&file_name(u64::MAX)), Some(u64::MAX));
        for name in ["log-7.redb", "log-00000000000000000007.redb.tmp", "log-.redb", "witness"] {
            assert_eq!(number_of(name), None, "{name}");
        }
    }
}
