//! One segment of the log: a redb database in a file of its own.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use graft_core::{Entries, Index, StoreError};
use redb::{Builder, Database, ReadableDatabase, WriteTransaction};

use super::{
    backend::Backend,
    check::Pacer,
    error::OpenError,
    facts::{Fact, Format, State, VERSION},
    pages::Pages,
    record::{self, Layout},
    shared::Shared,
    tables::{
        BALLAST, BALLAST_PAGES, FACTS, GROUP, HEAD, LOG, LOG_PAGES, corrupt_pages, guarded, key,
        translate,
    },
    view::View,
};
use crate::medium::{Medium, MediumFile, Open};

/// What every file of redb begins with.
const MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";

/// The size of redb's pages.
const PAGE: u64 = 4096;

/// A segment of the log.
pub(super) struct Segment {
    pub(super) number: u64,
    /// The version of the format that it is in.
    pub(super) version: u32,
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
    /// How the entries are written: see [`lay_out`](Self::lay_out).
    pub(super) layout: Layout,
    pub(super) facts: Vec<Fact>,
}

impl Changes {
    /// Decides how the entries are written in a file of this version, and says how much of it they take.
    pub(super) fn lay_out(&mut self, version: u32) -> u64 {
        self.layout = Layout::of(&self.entries, version);
        self.layout.footprint()
    }
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

impl Segment {
    /// A new segment that holds `state` and `changes`. `sizes` are those of cache and ballast.
    /// Whatever `file` held before is gone. Its content is then durable, but not its name, which is
    /// to be `name`.
    pub(super) fn create(
        medium: &Arc<dyn Medium>,
        name: &str,
        file: Box<dyn MediumFile>,
        sizes: (usize, usize),
        changes: &Changes,
        state: &State,
    ) -> Result<Self, StoreError> {
        let (cache, ballast) = sizes;
        let io = |source| StoreError::Io { action: "create a segment", source };
        let backend = Backend::new(Arc::clone(medium), name, file, 0).map_err(io)?;
        let segment = Self::start(state.active, backend, cache)?;
        segment.lay_ballast(ballast)?;
        segment.commit(changes, state, &mut Vec::new())?;
        segment.backend.accept_new().map_err(io)?;
        Ok(segment)
    }

    /// The segment in the file of this number, each page of it checked. The file stays as it is
    /// until the segment is [accepted](Self::accept).
    pub(super) fn open(
        medium: &Arc<dyn Medium>,
        number: u64,
        how: Open,
        cache: usize,
        pacer: Option<(Arc<Pacer>, Arc<Shared>)>,
    ) -> Result<Self, OpenError> {
        let name = file_name(number);
        let (path, action) = (medium.describe(), "open a segment");
        let io = |source| OpenError::Io { path: path.clone(), action, source };
        let location = || format!("{name} in {path}");
        let file = medium.open(&name, how).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                OpenError::Corrupt { location: location(), reason: "the file is missing".into() }
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                OpenError::Inaccessible { path: location(), source: error }
            }
            _ => io(error),
        })?;
        Self::open_file(medium, number, file, cache, pacer)
    }

    /// The same with the file at hand.
    pub(super) fn open_file(
        medium: &Arc<dyn Medium>,
        number: u64,
        file: Box<dyn MediumFile>,
        cache: usize,
        pacer: Option<(Arc<Pacer>, Arc<Shared>)>,
    ) -> Result<Self, OpenError> {
        let name = file_name(number);
        let (path, action) = (medium.describe(), "open a segment");
        let io = |source| OpenError::Io { path: path.clone(), action, source };
        let location = || format!("{name} in {path}");
        let length = file.len().map_err(io)?;
        // A crash may have left a part of a page at the end. It counts as a page: what it lacks reads
        // as zeros, and where it lacks nothing that redb keeps in it, its commit may be whole.
        let whole = length.next_multiple_of(PAGE);
        let backend = Backend::new(Arc::clone(medium), &name, file, whole).map_err(io)?;
        let backend = pacer.into_iter().fold(backend, Backend::paced);
        let mut magic = [0; MAGIC.len()];
        if length < PAGE {
            let expected = PAGE;
            return Err(OpenError::Truncated { file: location(), length, expected });
        }
        backend.read_file(0, &mut magic).map_err(io)?;
        if magic != MAGIC {
            let reason = "redb's own pages begin otherwise".into();
            return Err(OpenError::Foreign { file: location(), reason });
        }
        let opened = Self::start(number, backend, cache);
        let mut segment = opened.map_err(|error| OpenError::of(&path, error))?;
        segment.version = segment.check_format(&path)?;
        Ok(segment)
    }

    fn start(number: u64, backend: Backend, cache: usize) -> Result<Self, StoreError> {
        let opened = guarded(&backend, &Pages::Own, || {
            let mut builder = Builder::new();
            builder.set_cache_size(cache).set_check_integrity_on_open(true);
            let checked = backend.clone();
            builder.set_repair_callback(move |session| {
                // Between its first word and half of the work redb speaks up only where it has
                // just stopped checking the later commit.
                if session.progress() > 0.0 && session.progress() < 0.5 {
                    checked.note_bad_page();
                }
            });
            let opened = builder.create_with_backend(backend.clone());
            opened.map_err(|error| translate(&backend, &Pages::Own, "open a segment", error))
        });
        let opened = opened.map_err(|error| match error {
            StoreError::Corrupt { reason, .. } => {
                corrupt_pages(&backend, &backend.suspect(), reason)
            }
            other => other,
        });
        let database = Some(opened?);
        Ok(Self { number, version: VERSION, backend, database })
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

    pub(super) fn name(&self) -> &str {
        self.backend.name()
    }

    pub(super) fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Where the head of its latest commit is, or, where redb fell back to an earlier commit because
    /// of a page that is not what was written, whose page that is.
    pub(super) fn place_of_head(&self) -> String {
        let bad = self.backend.bad_page().map(|pages| pages.to_string());
        let place = bad.unwrap_or_else(|| "table log, head".to_owned());
        format!("{}, {place}", self.name())
    }

    /// How long redb wants the file to be.
    pub(super) fn wanted_length(&self) -> u64 {
        self.backend.wanted_length()
    }

    /// redb doubles a file that is full and cuts one that is mostly empty, so how long it becomes
    /// depends on the sizes of the first few values. A value of `bytes` bytes, which is never read,
    /// comes before them: then the lengths are the same whatever comes, and the file can be made
    /// ready for them.
    fn lay_ballast(&self, bytes: usize) -> Result<(), StoreError> {
        guarded(&self.backend, &BALLAST_PAGES, || {
            let database = self.database()?;
            let lay = || -> Result<(), redb::Error> {
                let transaction = database.begin_write()?;
                transaction.open_table(BALLAST)?.insert(&0, vec![0; bytes].as_slice())?;
                Ok(transaction.commit()?)
            };
            lay().map_err(|error| {
                translate(&self.backend, &BALLAST_PAGES, "create a segment", error)
            })
        })
    }

    /// The version of its format, if it is one that this build reads.
    fn check_format(&self, path: &str) -> Result<u32, OpenError> {
        let wrong = |error| OpenError::of(path, error);
        let file = format!("{} in {path}", self.name());
        let view = self.view().map_err(wrong)?;
        let found = view.fact(Fact::Format).map_err(wrong)?;
        let Some(found) = found else {
            // A segment has its ballast before it has anything else.
            if view.has_ballast().map_err(wrong)? {
                return Err(wrong(view.corrupt_fact(Fact::Format, "it is missing".into())));
            }
            let reason = "it has no table facts".into();
            return Err(OpenError::Foreign { file, reason });
        };
        let found = Format::decode(GROUP, &found)
            .map_err(|reason| wrong(view.corrupt_fact(Fact::Format, reason)))?;
        if found.version > VERSION {
            return Err(OpenError::NewerFormat { file, found: found.version, known: VERSION });
        }
        let known = Format::of(found.version).unwrap_or_else(Format::own);
        if found != known {
            let Format { version, fingerprint: found } = found;
            return Err(OpenError::OtherFormat { file, version, found, known: known.fingerprint });
        }
        Ok(found.version)
    }

    fn database(&self) -> Result<&Database, StoreError> {
        self.database.as_ref().ok_or_else(|| StoreError::Backend { reason: "it is closed".into() })
    }

    /// What was committed last.
    pub(super) fn view(&self) -> Result<View<'_>, StoreError> {
        let action = "read a segment";
        guarded(&self.backend, &Pages::Own, || {
            let begun = self.database()?.begin_read();
            let transaction =
                begun.map_err(|error| translate(&self.backend, &Pages::Own, action, error))?;
            Ok(View::new(self, transaction))
        })
    }

    /// Makes `changes` and the head of `state` durable, together or not at all.
    pub(super) fn commit(
        &self,
        changes: &Changes,
        state: &State,
        buffer: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        let done = guarded(&self.backend, &LOG_PAGES, || {
            let begun = self.database()?.begin_write();
            let transaction =
                begun.map_err(|error| translate(&self.backend, &Pages::Own, "write", error))?;
            let changed = apply(&transaction, changes, state, buffer);
            changed.map_err(|error| translate(&self.backend, &LOG_PAGES, "write", error))?;
            let committed = transaction.commit();
            committed.map_err(|error| translate(&self.backend, &Pages::Own, "commit", error))
        });
        // redb forgives a page that could not be written ahead of the commit. The disk did not keep
        // what it was given, so this does not.
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
    let mut head_is_out = false;
    changes.layout.write(state.group, &changes.entries, buffer, |first, chunk| {
        if !head_is_out && record::is_large(chunk.len()) {
            // What comes behind all rows begins a page of its own. What comes between a small row and
            // the head does not: it would get a page of twice its size together with the small row.
            log.remove(&HEAD)?;
            head_is_out = true;
        }
        for (number, part) in (0..).zip(record::parts(chunk.len())) {
            log.insert(&key(state.group, first, number), &chunk[part])?;
        }
        Ok::<(), redb::Error>(())
    })?;
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

#[cfg(test)]
mod tests;
