//! Opening a store: everything that is looked at before anything is written, and what is written once
//! the store is somebody's.
//!
//! Whose a store is can be seen only once it is open, so opening writes nothing. The first recovery
//! [takes it over](Born::take_over).

use std::{io, path::Path, sync::Arc};

use graft_core::StoreError;

use super::{
    commit::UNNAMED,
    error::{NOT_EMPTY, OpenError},
    facts::State,
    options::Options,
    segment::{self, Segment},
    snapshot::{self, Snapshot, Snapshots},
    spare,
    witness::{self, Witness},
    writer::Born,
};
use crate::medium::{LockGuard, Medium, Open};

/// What file systems such as ext4 put into the directory at their root.
const OF_A_VOLUME: &str = "lost+found";

/// The files that a store finds in its directory.
pub(super) struct Files {
    names: Vec<String>,
    segments: Vec<u64>,
    snapshots: Vec<u64>,
}

impl Files {
    pub(super) fn list(medium: &dyn Medium) -> Result<Self, OpenError> {
        let names = medium.list().map_err(|source| inaccessible(medium, source))?;
        let segments = names.iter().filter_map(|name| segment::number_of(name)).collect();
        let snapshots = names.iter().filter_map(|name| snapshot::number_of(name)).collect();
        Ok(Self { names, segments, snapshots })
    }

    fn is_own(name: &str) -> bool {
        let whole = name.strip_suffix(UNNAMED).unwrap_or(name);
        name == witness::NAME
            || spare::is_name(name)
            || segment::number_of(whole).is_some()
            || snapshot::number_of(name).is_some()
    }

    /// A new store begins in an empty directory, or in what is left of one that never was. A volume of its
    /// own is empty, too.
    fn check_own(&self, medium: &dyn Medium) -> Result<(), OpenError> {
        let is_foreign = |name: &&String| !Self::is_own(name) && *name != OF_A_VOLUME;
        let Some(foreign) = self.names.iter().find(is_foreign) else {
            return Ok(());
        };
        let reason = NOT_EMPTY.into();
        Err(OpenError::Foreign { file: in_store(medium, foreign), reason })
    }

    /// The same of a store that is at work: what nothing refers to may be on its way to become something.
    pub(super) fn without_orphans(self) -> Self {
        Self { names: Vec::new(), ..self }
    }

    /// The numbers that the files of snapshots have are not given again.
    fn snapshots(&self) -> Snapshots {
        Snapshots::new(self.snapshots.iter().copied().max().unwrap_or(0))
    }

    /// Removes what a crash left behind. What cannot be removed does no harm.
    fn remove_orphans(&self, medium: &dyn Medium, state: &State) {
        let is_used = |name: &str| {
            name == witness::NAME
                || segment::number_of(name).is_some_and(|number| {
                    number == state.active
                        || state.sealed.iter().any(|sealed| sealed.segment == number)
                })
                || snapshot::number_of(name).is_some_and(|number| {
                    state.snapshot.as_ref().is_some_and(|installed| installed.file == number)
                })
        };
        for name in self.names.iter().filter(|name| Self::is_own(name) && !is_used(name)) {
            let _ = medium.remove(name);
        }
    }
}

/// A store that was looked at, and is taken over by nobody yet.
pub(super) struct Found {
    pub(super) born: Option<Born>,
    pub(super) snapshots: Snapshots,
}

/// Looks at the store on `medium`. No file is changed.
pub(super) fn look(
    medium: &Arc<dyn Medium>,
    how: Open,
    options: &Options,
) -> Result<Found, OpenError> {
    let files = Files::list(&**medium)?;
    let Some(newest) = files.segments.iter().copied().max() else {
        return look_at_unborn(&**medium, &files);
    };
    let witness = open_witness(&**medium, how);
    let known = witness.as_ref().ok().and_then(|witness| Some(witness.as_ref()?.latest()));
    let active = Segment::open(medium, newest, how, options.cache_bytes, None);
    let active = active.map_err(|error| match known {
        Some(acknowledged) => shorter(&**medium, newest, &acknowledged, error),
        None => error,
    })?;
    let mut witness = witness?.ok_or_else(|| missing(&**medium, witness::NAME))?;
    // Where that cannot be read, the state cannot be read either, and its error says more.
    if let Ok(identity) = active.view().and_then(|view| view.identity()) {
        let checked = witness.check_owner(&identity, newest, active.version);
        checked.map_err(|reason| OpenError::Corrupt {
            location: in_store(&**medium, witness::NAME),
            reason,
        })?;
    }
    let acknowledged = witness.latest();
    if newest < acknowledged.segment {
        return Err(missing(&**medium, &segment::file_name(acknowledged.segment)));
    }
    if newest == acknowledged.segment && active.length() < acknowledged.length {
        return Err(OpenError::Truncated {
            file: in_store(&**medium, active.name()),
            length: active.length(),
            expected: acknowledged.length,
        });
    }
    let failed = |error| OpenError::of(&medium.describe(), error);
    let state = active.view().and_then(|view| view.state()).map_err(failed)?;
    if state.sequence < acknowledged.sequence {
        return Err(OpenError::Corrupt {
            location: in_store(&**medium, &active.place_of_head()),
            reason: format!(
                "it is of commit {}, commit {} was acknowledged",
                state.sequence, acknowledged.sequence
            ),
        });
    }
    for sealed in &state.sealed {
        if !files.segments.contains(&sealed.segment) {
            return Err(missing(&**medium, &segment::file_name(sealed.segment)));
        }
    }
    let installed = state.snapshot.as_ref();
    let snapshot = installed.map(|installed| Snapshot::open(&**medium, installed).map(Arc::new));
    let snapshot = snapshot.transpose().map_err(failed)?;
    let snapshots = files.snapshots().in_version(active.version);
    let untouched = Some(files);
    let born = Born { state, active: Arc::new(active), snapshot, witness, untouched };
    Ok(Found { born: Some(born), snapshots })
}

/// A file that is shorter than it was is no file of redb in many ways; the length says it best.
fn shorter(
    medium: &dyn Medium,
    number: u64,
    acknowledged: &witness::Acknowledged,
    error: OpenError,
) -> OpenError {
    let name = segment::file_name(number);
    let length = medium.open(&name, Open::Read).and_then(|file| file.len());
    match length {
        Ok(length) if number == acknowledged.segment && length < acknowledged.length => {
            let expected = acknowledged.length;
            OpenError::Truncated { file: in_store(medium, &name), length, expected }
        }
        _ => error,
    }
}

fn open_witness(medium: &dyn Medium, how: Open) -> Result<Option<Witness>, OpenError> {
    let opened = Witness::open(medium, how).map_err(|source| inaccessible(medium, source))?;
    let found = opened.transpose().map_err(|reason| OpenError::Corrupt {
        location: in_store(medium, witness::NAME),
        reason,
    })?;
    Ok(found)
}

/// There is no segment: a new directory, or what is left of one.
fn look_at_unborn(medium: &dyn Medium, files: &Files) -> Result<Found, OpenError> {
    files.check_own(medium)?;
    let acknowledged = open_witness(medium, Open::Read).ok().flatten().map(|found| found.latest());
    match acknowledged {
        Some(found) if found.sequence > 0 => {
            Err(missing(medium, &segment::file_name(found.segment)))
        }
        _ => Ok(Found { born: None, snapshots: files.snapshots() }),
    }
}

fn in_store(medium: &dyn Medium, place: &str) -> String {
    format!("{place} in {}", medium.describe())
}

fn missing(medium: &dyn Medium, name: &str) -> OpenError {
    let reason = "the file is missing".into();
    OpenError::Corrupt { location: in_store(medium, name), reason }
}

/// Why there is no directory at `path`.
pub(super) fn not_a_directory(path: &Path, source: io::Error) -> OpenError {
    // A separator at the end makes a file one that is not there.
    let plain = path.components().as_path();
    let part = plain.ancestors().find(|part| part.exists() && !part.is_dir());
    let part = part.unwrap_or(path).display().to_string();
    let path = path.display().to_string();
    match source.kind() {
        io::ErrorKind::NotADirectory => OpenError::NotADirectory { path, part },
        _ => OpenError::Inaccessible { path, source },
    }
}

fn inaccessible(medium: &dyn Medium, source: io::Error) -> OpenError {
    OpenError::Inaccessible { path: medium.describe(), source }
}

/// Takes the store for the caller alone. A directory of something else is refused before so much
/// as a lock is put into it, and one that cannot be written before anything is looked at: files are
/// made in it again and again, and where that fails first in the midst of the work, nothing is left
/// but to give up.
pub(super) fn lock(medium: &dyn Medium) -> Result<LockGuard, OpenError> {
    let lock = lock_by(medium, Medium::lock)?;
    medium.check_writable().map_err(|source| inaccessible(medium, source))?;
    Ok(lock)
}

/// The same for the caller and others who only read.
pub(super) fn lock_to_read(medium: &dyn Medium) -> Result<LockGuard, OpenError> {
    lock_by(medium, Medium::lock_shared)
}

fn lock_by(
    medium: &dyn Medium,
    lock: impl FnOnce(&dyn Medium) -> io::Result<LockGuard>,
) -> Result<LockGuard, OpenError> {
    let locked = Files::list(medium).and_then(|files| {
        if files.segments.is_empty() {
            files.check_own(medium)?;
        }
        lock(medium).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => OpenError::InUse { path: medium.describe() },
            _ => inaccessible(medium, source),
        })
    });
    // Behind the lock, since whoever had it may have failed before letting it go; and whatever else
    // is wrong, since this is why.
    match medium.poisoned() {
        Some(reason) => Err(OpenError::Poisoned { path: medium.describe(), reason }),
        None => locked,
    }
}

impl Born {
    /// Makes what was found what a power cut cannot undo, and removes what a crash left behind, unless
    /// that was done: from now on the store is written.
    pub(super) fn take_over(&mut self, medium: &dyn Medium) -> Result<(), StoreError> {
        let Some(files) = self.untouched.take() else {
            return Ok(());
        };
        self.begin_to_write(medium).inspect_err(|error| match error {
            StoreError::Io { action, source } => medium.poison(&format!("{action}: {source}")),
            other => medium.poison(&other.to_string()),
        })?;
        files.remove_orphans(medium, &self.state);
        Ok(())
    }

    fn begin_to_write(&mut self, medium: &dyn Medium) -> Result<(), StoreError> {
        self.active.accept()?;
        // Where a process ended between the renaming of a segment and the sync behind it, the name is
        // seen and would still not survive a power cut, while what is recovered must.
        let action = "make the names of files durable";
        medium.sync_names().map_err(|source| StoreError::Io { action, source })?;
        self.acknowledge()
    }
}
