//! The real medium: a directory of the file system.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use super::{LockGuard, Medium, MediumFile, Open, check_name};

/// The file whose lock stands for that of the directory. It is never written and never removed:
/// removing it would let two owners each hold a lock of their own.
const LOCK: &str = "lock";

/// A directory of the file system.
///
/// The lock is the advisory one of the operating system on a file of its own, which the system gives up
/// by itself when the process ends, however it ends.
///
/// Where the operating system cannot sync a directory through the standard library (anywhere but on
/// Unix), [`sync_names`](Medium::sync_names) leaves that to the file system's own journal.
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
        if !fs::metadata(&path)?.is_dir() {
            let problem = format!("{} is not a directory", path.display());
            return Err(io::Error::new(io::ErrorKind::NotADirectory, problem));
        }
        let directory = Directory::open(&path)?;
        Ok(Self { path, directory })
    }

    /// The directory at `path`, which is made, durably and with all above it, where it does not exist.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotADirectory`] where there is something else; whatever the system says.
    pub fn create(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        if !path.exists() {
            create_durably(path)?;
        }
        Self::open(path)
    }

    /// Where it is, as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn at(&self, name: &str) -> io::Result<PathBuf> {
        check_name(name)?;
        Ok(self.path.join(name))
    }
}

impl Medium for Disk {
    fn open(&self, name: &str, how: Open) -> io::Result<Box<dyn MediumFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(how.is_writable());
        options.create(how == Open::Create).create_new(how == Open::CreateNew);
        let file = options.open(self.at(name)?)?;
        Ok(Box::new(DiskFile::new(file)))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for found in fs::read_dir(&self.path)? {
            // A name that is no Unicode is none of a store's own: shown, so that it is not overlooked.
            let name = found?.file_name().to_string_lossy().into_owned();
            if name != LOCK {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.at(from)?, self.at(to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.at(name)?)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.directory.sync()
    }

    fn lock(&self) -> io::Result<LockGuard> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(self.path.join(LOCK))?;
        match file.try_lock() {
            Ok(()) => Ok(LockGuard::new(file)),
            Err(TryLockError::Error(error)) => Err(error),
            Err(TryLockError::WouldBlock) => {
                let problem = format!("{} is in use by another process or store", self.describe());
                Err(io::Error::new(io::ErrorKind::WouldBlock, problem))
            }
        }
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
    if !above.exists() {
        create_durably(above)?;
    }
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    Directory::open(above)?.sync()
}

/// An open directory.
///
/// It is told from others by device and inode, which are its own while it is open, even where it is
/// removed meanwhile: the list of the poisoned keeps its directories open for that.
#[cfg(unix)]
#[derive(Clone, Debug)]
struct Directory {
    file: Arc<File>,
    identity: (u64, u64),
}

#[cfg(unix)]
impl Directory {
    fn open(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        Ok(Self { identity: (metadata.dev(), metadata.ino()), file: Arc::new(file) })
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn is_same(&self, other: &Self) -> bool {
        self.identity == other.identity
    }
}

/// A directory, told from others by its path.
#[cfg(not(unix))]
#[derive(Clone, Debug)]
struct Directory {
    canonical: Arc<Path>,
}

#[cfg(not(unix))]
impl Directory {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { canonical: fs::canonicalize(path)?.into() })
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn is_same(&self, other: &Self) -> bool {
        self.canonical == other.canonical
    }
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
