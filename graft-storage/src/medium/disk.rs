//! The real medium: a directory of the file system.

mod directory;

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use self::directory::Directory;
use super::{LockGuard, Medium, MediumFile, Open, check_name};

/// The file whose lock stands for that of the directory where directories cannot be locked. It is never
/// written and never removed: removing it would let two owners each hold a lock of their own.
const LOCK: &str = "lock";

/// A directory of the file system.
///
/// On Unix everything goes through a handle on the directory that is opened once. So the directory may be
/// moved while it is in use, another one may take its path, and the process may change its working
/// directory: the files stay those of this directory. Elsewhere the path is made absolute when it is opened.
///
/// The lock is the advisory one of the operating system on the directory itself, which the system gives up
/// by itself when the process ends, however it ends. Where directories cannot be locked (other systems than
/// Unix, network file systems), it is that of a file in it, called `lock`.
///
/// Where the operating system cannot sync a directory (anywhere but on Unix),
/// [`sync_names`](Medium::sync_names) leaves that to the file system's own journal.
#[derive(Clone, Debug)]
pub struct Disk {
    path: PathBuf,
    directory: Directory,
}

impl Disk {
    /// The directory at `path`, which must exist.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] where there is nothing, [`io::ErrorKind::NotADirectory`] where there
    /// is something else; whatever the system says.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref().to_path_buf();
        let directory = Directory::open(&path)?;
        Ok(Self { path, directory })
    }

    /// The directory at `path`, which is made, with all above it, where it does not exist. A crash after
    /// this finds it.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotADirectory`] where there is something else; whatever the system says.
    pub fn create(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        if !path.exists() {
            create_durably(path)?;
            return Self::open(path);
        }
        let disk = Self::open(path)?;
        // Whoever made it, perhaps a moment ago, need not have synced its name.
        disk.directory.sync_parent().map_err(|error| named("sync the directory above", &error))?;
        Ok(disk)
    }

    /// Where it is, as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Locks the directory, or the file in it that stands for it.
    fn lock_as(&self, how: Lock) -> io::Result<LockGuard> {
        match self.directory.to_lock().and_then(|file| how.take(file)) {
            Ok(Some(guard)) => Ok(guard),
            Ok(None) => Err(self.in_use()),
            Err(error) if Directory::cannot_be_locked(&error) => self.lock_file(how),
            Err(error) => Err(named("lock the directory", &error)),
        }
    }

    fn lock_file(&self, how: Lock) -> io::Result<LockGuard> {
        let open = if how == Lock::Exclusive { Open::Create } else { Open::Read };
        let file = match self.directory.open_file(LOCK, open) {
            // Whoever reads alone leaves nothing behind, and where nobody ever wrote, nobody does now.
            Err(error) if how == Lock::Shared && error.kind() == io::ErrorKind::NotFound => {
                return Ok(LockGuard::new(()));
            }
            opened => opened.map_err(|error| named("open the file `lock`", &error))?,
        };
        how.take(file)?.ok_or_else(|| self.in_use())
    }

    fn in_use(&self) -> io::Error {
        let problem = format!("{} is in use by another process or store", self.describe());
        io::Error::new(io::ErrorKind::WouldBlock, problem)
    }
}

/// How a directory is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lock {
    Exclusive,
    Shared,
}

impl Lock {
    /// Locks `file`, or returns `None` where somebody else holds it.
    fn take(self, file: File) -> io::Result<Option<LockGuard>> {
        let taken = match self {
            Self::Exclusive => file.try_lock(),
            Self::Shared => file.try_lock_shared(),
        };
        match taken {
            Ok(()) => Ok(Some(LockGuard::new(Locked(file)))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// A locked file. Its lock is given back by word: a lock is only gone with the last descriptor of its file, and a process
/// that is just being started holds one of each until it runs its own program.
struct Locked(File);

impl Drop for Locked {
    fn drop(&mut self) {
        // Where the word is refused, it goes with the file.
        let _ = self.0.unlock();
    }
}

/// What the system says of a name is not much: this adds what was tried, and keeps the kind.
fn named(action: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{action}: {error}"))
}

impl Medium for Disk {
    fn open(&self, name: &str, how: Open) -> io::Result<Box<dyn MediumFile>> {
        check_name(name)?;
        let file = self.directory.open_file(name, how);
        let file = file.map_err(|error| named(&format!("open {name}"), &error))?;
        Ok(Box::new(DiskFile::new(file)))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let names = self.directory.names();
        let mut names = names.map_err(|error| named("list the directory", &error))?;
        names.retain(|name| name != LOCK);
        names.sort_unstable();
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_name(from)?;
        check_name(to)?;
        let renamed = self.directory.rename(from, to);
        renamed.map_err(|error| named(&format!("rename {from} to {to}"), &error))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        check_name(name)?;
        let removed = self.directory.remove(name);
        removed.map_err(|error| named(&format!("remove {name}"), &error))
    }

    fn sync_names(&self) -> io::Result<()> {
        self.directory.sync().map_err(|error| named("sync the directory", &error))
    }

    fn check_writable(&self) -> io::Result<()> {
        self.directory.check_writable()
    }

    fn lock(&self) -> io::Result<LockGuard> {
        self.lock_as(Lock::Exclusive)
    }

    fn lock_shared(&self) -> io::Result<LockGuard> {
        self.lock_as(Lock::Shared)
    }

    fn poison(&self, reason: &str) {
        let mut poisoned = POISONED.lock().unwrap_or_else(PoisonError::into_inner);
        if !poisoned.iter().any(|(directory, _)| directory.is_same(&self.directory)) {
            poisoned.push((self.directory.clone(), reason.to_owned()));
        }
    }

    fn poisoned(&self) -> Option<String> {
        let poisoned = POISONED.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = poisoned.iter().find(|(directory, _)| directory.is_same(&self.directory));
        mine.map(|(_, reason)| reason.clone())
    }

    fn describe(&self) -> String {
        self.path.display().to_string()
    }
}

/// The directories of which this process no longer knows what the disk holds.
static POISONED: Mutex<Vec<(Directory, String)>> = Mutex::new(Vec::new());

/// Makes a directory, and each missing one above it, so that a crash after this finds them.
fn create_durably(path: &Path) -> io::Result<()> {
    let above = match path.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    };
    if above.exists() {
        // A process that ended while it made several may have got as far as this one.
        Directory::open(above)?.sync_parent()?;
    } else {
        create_durably(above)?;
    }
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    Directory::open(above)?.sync()
}

/// An open file of the file system.
#[derive(Debug)]
struct DiskFile {
    #[cfg(unix)]
    file: File,
    /// Elsewhere a file has one position, so its users take turns.
    #[cfg(not(unix))]
    file: Mutex<File>,
}

#[cfg(unix)]
impl DiskFile {
    fn new(file: File) -> Self {
        Self { file }
    }

    fn with<T>(&self, work: impl FnOnce(&File) -> io::Result<T>) -> io::Result<T> {
        work(&self.file)
    }
}

#[cfg(not(unix))]
impl DiskFile {
    fn new(file: File) -> Self {
        Self { file: Mutex::new(file) }
    }

    fn with<T>(&self, work: impl FnOnce(&File) -> io::Result<T>) -> io::Result<T> {
        work(&self.file.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl MediumFile for DiskFile {
    fn len(&self) -> io::Result<u64> {
        self.with(|file| Ok(file.metadata()?.len()))
    }

    #[cfg(unix)]
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, into, offset)
    }

    #[cfg(unix)]
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.file, bytes, offset)
    }

    #[cfg(not(unix))]
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        use std::io::{Read, Seek, SeekFrom};
        self.with(|mut file| {
            file.seek(SeekFrom::Start(offset))?;
            file.read_exact(into)
        })
    }

    #[cfg(not(unix))]
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        use std::io::{Seek, SeekFrom, Write};
        self.with(|mut file| {
            file.seek(SeekFrom::Start(offset))?;
            file.write_all(bytes)
        })
    }

    /// A page at a time: what is written at once is kept in memory as one piece, and each later sync
    /// of a page in a large piece takes a fifth longer (Linux 6.18, ext4).
    fn write_zeros(&self, offset: u64, length: usize) -> io::Result<()> {
        const PAGE: usize = 4096;
        for begin in (0..length).step_by(PAGE) {
            let page = &[0; PAGE][..PAGE.min(length - begin)];
            self.write_at(offset + begin as u64, page)?;
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.with(|file| file.set_len(length))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(File::sync_data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where directories cannot be locked.
    #[test]
    fn a_file_that_stands_for_its_directory_has_one_owner_or_many_readers() {
        let path = std::env::temp_dir().join(format!("graft-lock-{}", std::process::id()));
        let disk = Disk::create(&path).unwrap();
        let reader = disk.lock_file(Lock::Shared).unwrap();
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0, "whoever reads leaves nothing behind");
        drop(reader);
        let owner = disk.lock_file(Lock::Exclusive).unwrap();
        for how in [Lock::Exclusive, Lock::Shared] {
            assert_eq!(disk.lock_file(how).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
        drop(owner);
        let readers = [(); 2].map(|()| disk.lock_file(Lock::Shared).unwrap());
        let refused = disk.lock_file(Lock::Exclusive).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        drop(readers);
        assert!(disk.list().unwrap().is_empty(), "it is not among the files");
        fs::remove_dir_all(path).unwrap();
    }

    /// The story: a store was closed and opened again while another thread started a process, which for a moment has all
    /// that is open in this one, and it was in use.
    #[test]
    fn a_lock_is_given_up_although_a_process_that_is_being_started_has_its_file() {
        let path = std::env::temp_dir().join(format!("graft-unlock-{}", std::process::id()));
        let disk = Disk::create(&path).unwrap();
        for how in [Lock::Exclusive, Lock::Shared] {
            let file = disk.directory.open_file(LOCK, Open::Create).unwrap();
            let of_the_other = file.try_clone().unwrap();
            let owner = how.take(file).unwrap();
            assert!(owner.is_some());
            drop(owner);
            assert!(disk.lock_file(Lock::Exclusive).is_ok(), "{how:?}");
            drop(of_the_other);
        }
        fs::remove_dir_all(path).unwrap();
    }
}
