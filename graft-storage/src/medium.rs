//! The seam between a store and its disk: a directory of files, and what each call on it promises.
//!
//! A store that reaches its disk through a [`Medium`] alone runs unchanged on [`Disk`], which is the
//! real one, and on [`FaultyMedium`], which forgets, tears, refuses and lies as disks do. So a test that
//! crashes the store at every step of its work runs the code that will run in production, renames and
//! syncs of the directory included.
//!
//! What a crash (of the machine, not only of the process) may do is fixed here, because a store is
//! correct only with respect to it:
//!
//! * What [`MediumFile::sync_data`] has returned for, the file's length included, survives.
//! * What was written or cut since may be there, or not, in any combination, and a write may be there
//!   in part: in whole sectors of [`SECTOR`] bytes.
//! * Which names there are, and which file each one is, survives as of the last
//!   [`Medium::sync_names`]. What was created, renamed or removed since may have happened, or not, in
//!   any combination, but each change as a whole. Syncing a file does not promise that its name
//!   survives, and that a name survives says nothing of what is in the file.
//! * After a sync has failed, nothing is known of what was written since the one before, and no later
//!   sync can find out: the medium is to be [poisoned](Medium::poison).

mod disk;
mod faulty;
mod image;
mod platter;
pub(crate) mod random;
mod trace;

pub use disk::Disk;
pub use faulty::{Call, Fault, FaultyMedium};
pub use image::Image;
pub use trace::{Replay, Trace};

use std::{any::Any, fmt, io};

/// The unit in which a write may be torn, in bytes: no disk promises more.
pub const SECTOR: usize = 512;

/// A directory of files that belongs to one store.
///
/// Names are plain file names, without any path; another is [`io::ErrorKind::InvalidInput`]. All calls
/// may come from any thread.
pub trait Medium: fmt::Debug + Send + Sync + 'static {
    /// Opens a file.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] where it does not exist and is not to be created,
    /// [`io::ErrorKind::AlreadyExists`] where it exists and is to be new; whatever the disk says.
    fn open(&self, name: &str, how: Open) -> io::Result<Box<dyn MediumFile>>;

    /// The names in the directory, sorted, but for that of the lock.
    ///
    /// # Errors
    ///
    /// Whatever the disk says.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Gives the file `from` the name `to`, in place of whatever had it. Survives a crash once
    /// [`sync_names`](Self::sync_names) has returned.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] where there is no `from`; whatever the disk says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes the name of a file. Whoever has it open may go on using it. Survives a crash once
    /// [`sync_names`](Self::sync_names) has returned.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] where there is none; whatever the disk says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names durable as they are now: what was created, renamed and removed before this call
    /// survives a crash. Says nothing of what is in the files.
    ///
    /// # Errors
    ///
    /// Whatever the disk says. It is then not known which names survive.
    fn sync_names(&self) -> io::Result<()>;

    /// Takes the directory for the caller alone, among all processes and within this one, until the
    /// guard is dropped or the process ends. Never waits.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] where somebody holds it; whatever the disk says.
    fn lock(&self) -> io::Result<LockGuard>;

    /// The same for whoever only reads: beside others who do, never beside an owner. Changes nothing, so
    /// that it can be had where nothing may be written. By default the same as [`lock`](Self::lock).
    ///
    /// # Errors
    ///
    /// Those of [`lock`](Self::lock).
    fn lock_shared(&self) -> io::Result<LockGuard> {
        self.lock()
    }

    /// Whether files may be made, renamed and removed, as far as that can be told by asking: nothing is
    /// changed. By default they may.
    ///
    /// # Errors
    ///
    /// Why not, in the words of the disk.
    fn check_writable(&self) -> io::Result<()> {
        Ok(())
    }

    /// Remembers, until this process ends, that nothing more is known of what the disk holds. The first
    /// reason stays. Whoever opens the same directory in this process, by whatever path, finds it
    /// [`poisoned`](Self::poisoned): the system's cache may show what the disk never got.
    fn poison(&self, reason: &str);

    /// Why the directory must not be used any more in this process, if it must not.
    fn poisoned(&self) -> Option<String>;

    /// Where the directory is, for the texts of errors.
    fn describe(&self) -> String;
}

/// An open file. It outlives its name.
///
/// Reads see every write that has returned, synced or not. All calls may come from any thread;
/// concurrent writes to the same bytes leave either.
pub trait MediumFile: fmt::Debug + Send + Sync + 'static {
    /// Its length in bytes.
    ///
    /// # Errors
    ///
    /// Whatever the disk says.
    fn len(&self) -> io::Result<u64>;

    /// Whether it holds no byte.
    ///
    /// # Errors
    ///
    /// Those of [`len`](Self::len).
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `into` with the bytes at `offset`.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::UnexpectedEof`] where the file ends before; whatever the disk says.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`. A file that ends before grows; a gap reads as zeros.
    ///
    /// # Errors
    ///
    /// Whatever the disk says. Any part of the bytes may then be there.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Writes `length` zeros at `offset`, so that later writes there find blocks that are the file's
    /// already. By default one call of [`write_at`](Self::write_at).
    ///
    /// # Errors
    ///
    /// Those of [`write_at`](Self::write_at).
    fn write_zeros(&self, offset: u64, length: usize) -> io::Result<()> {
        self.write_at(offset, &vec![0; length])
    }

    /// Cuts the file, or extends it by zeros.
    ///
    /// # Errors
    ///
    /// Whatever the disk says.
    fn set_len(&self, length: u64) -> io::Result<()>;

    /// Makes the bytes and the length durable as they are now. Says nothing of the file's name.
    ///
    /// # Errors
    ///
    /// Whatever the disk says: see the [module](self) for what is then known.
    fn sync_data(&self) -> io::Result<()>;
}

/// How to open a file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Open {
    /// One that exists, for reading alone.
    Read,
    /// One that exists, for reading and writing.
    Existing,
    /// For reading and writing; a new, empty one where it does not exist.
    Create,
    /// A new, empty one, for reading and writing; an error where it exists.
    CreateNew,
}

impl Open {
    /// Whether writing through the file is allowed.
    #[must_use]
    pub const fn is_writable(self) -> bool {
        !matches!(self, Self::Read)
    }
}

/// Holds a directory for its owner until it is dropped.
#[must_use = "the lock is given up when the guard is dropped"]
pub struct LockGuard {
    _held: Box<dyn Any + Send + Sync>,
}

impl LockGuard {
    /// A guard that gives the lock up by dropping `held`.
    pub fn new(held: impl Any + Send + Sync) -> Self {
        Self { _held: Box::new(held) }
    }
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LockGuard")
    }
}

/// Refuses what is not the plain name of a file.
fn check_name(name: &str) -> io::Result<()> {
    let is_plain =
        !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0']);
    if is_plain {
        return Ok(());
    }
    let problem = format!("`{}` is not the plain name of a file", name.escape_debug());
    Err(io::Error::new(io::ErrorKind::InvalidInput, problem))
}
