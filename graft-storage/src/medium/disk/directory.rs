//! An open directory: whatever is done in it goes through the handle that was opened once, so that neither a
//! change of the working directory nor a directory that is moved, or replaced by another, leads elsewhere.

#[cfg(unix)]
pub(super) use self::unix::Directory;

#[cfg(not(unix))]
pub(super) use self::other::Directory;

#[cfg(unix)]
mod unix {
    use std::{fs::File, io, path::Path, sync::Arc};

    use rustix::{
        fs::{self, Access, AtFlags, Dir, Mode, OFlags},
        io::{Errno, retry_on_intr},
    };

    use crate::medium::Open;

    /// What it takes to list a directory, to sync it, and to name others from it.
    const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

    /// An open directory.
    ///
    /// It is told from others by device and inode, which are its own while it is open, even where it is
    /// removed meanwhile: the list of the poisoned keeps its directories open for that.
    #[derive(Clone, Debug)]
    pub(in crate::medium::disk) struct Directory {
        file: Arc<File>,
        identity: (u64, u64),
    }

    impl Directory {
        pub(in crate::medium::disk) fn open(path: &Path) -> io::Result<Self> {
            use std::os::unix::fs::MetadataExt;
            let file = File::from(retry_on_intr(|| fs::open(path, DIRECTORY, Mode::empty()))?);
            let metadata = file.metadata()?;
            Ok(Self { identity: (metadata.dev(), metadata.ino()), file: Arc::new(file) })
        }

        pub(in crate::medium::disk) fn open_file(&self, name: &str, how: Open) -> io::Result<File> {
            let mut flags = OFlags::CLOEXEC;
            flags |= if how.is_writable() { OFlags::RDWR } else { OFlags::RDONLY };
            flags |= match how {
                Open::Create => OFlags::CREATE,
                Open::CreateNew => OFlags::CREATE | OFlags::EXCL,
                Open::Read | Open::Existing => OFlags::empty(),
            };
            // As far as the process's mask allows, like every file that std makes.
            let mode = Mode::from_raw_mode(0o666);
            Ok(retry_on_intr(|| fs::openat(&self.file, name, flags, mode))?.into())
        }

        /// All names, in any order.
        pub(in crate::medium::disk) fn names(&self) -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            // Through a handle of its own: the position in a directory is the handle's.
            for found in Dir::read_from(&self.file)? {
                // A name that is no Unicode is none of a store's own: shown, so that it is not overlooked.
                let name = found?.file_name().to_string_lossy().into_owned();
                if name != "." && name != ".." {
                    names.push(name);
                }
            }
            Ok(names)
        }

        pub(in crate::medium::disk) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            Ok(retry_on_intr(|| fs::renameat(&self.file, from, &self.file, to))?)
        }

        pub(in crate::medium::disk) fn remove(&self, name: &str) -> io::Result<()> {
            Ok(retry_on_intr(|| fs::unlinkat(&self.file, name, AtFlags::empty()))?)
        }

        pub(in crate::medium::disk) fn sync(&self) -> io::Result<()> {
            self.file.sync_all()
        }

        /// Makes the directory's own name durable, where whoever runs this may look at the directory that
        /// the name is in, and that can be synced: where not, nobody here has made the name.
        pub(in crate::medium::disk) fn sync_parent(&self) -> io::Result<()> {
            use io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem, Unsupported};
            let synced = retry_on_intr(|| fs::openat(&self.file, "..", DIRECTORY, Mode::empty()))
                .map_err(io::Error::from)
                .and_then(|above| File::from(above).sync_all());
            match synced {
                Err(error) => match error.kind() {
                    InvalidInput | PermissionDenied | ReadOnlyFilesystem | Unsupported => Ok(()),
                    _ => Err(error),
                },
                Ok(()) => Ok(()),
            }
        }

        /// An error where the system would not let this process make, rename and remove files in it.
        /// Nothing is changed to find that out.
        pub(in crate::medium::disk) fn check_writable(&self) -> io::Result<()> {
            let access = Access::WRITE_OK | Access::EXEC_OK;
            Ok(retry_on_intr(|| fs::accessat(&self.file, ".", access, AtFlags::EACCESS))?)
        }

        /// The directory as a file to be locked. A lock belongs to the handle, so each owner needs one of
        /// its own.
        pub(in crate::medium::disk) fn to_lock(&self) -> io::Result<File> {
            Ok(retry_on_intr(|| fs::openat(&self.file, ".", DIRECTORY, Mode::empty()))?.into())
        }

        /// Whether that is what a system says that cannot lock a directory at all. Network file systems
        /// make of such a lock one that wants a file to be writable.
        pub(in crate::medium::disk) fn cannot_be_locked(error: &io::Error) -> bool {
            let known = [Errno::BADF, Errno::INVAL, Errno::NOSYS, Errno::NOTSUP, Errno::OPNOTSUPP];
            let said = Errno::from_io_error(error);
            error.kind() == io::ErrorKind::Unsupported || said.is_some_and(|it| known.contains(&it))
        }

        pub(in crate::medium::disk) fn is_same(&self, other: &Self) -> bool {
            self.identity == other.identity
        }
    }
}

#[cfg(not(unix))]
mod other {
    use std::{
        fs::{self, File, OpenOptions},
        io,
        path::Path,
        sync::Arc,
    };

    use crate::medium::Open;

    /// A directory, told from others by its path, which is made absolute when it is opened.
    #[derive(Clone, Debug)]
    pub(in crate::medium::disk) struct Directory {
        canonical: Arc<Path>,
    }

    impl Directory {
        pub(in crate::medium::disk) fn open(path: &Path) -> io::Result<Self> {
            let canonical: Arc<Path> = fs::canonicalize(path)?.into();
            if !fs::metadata(&canonical)?.is_dir() {
                let problem = format!("{} is not a directory", path.display());
                return Err(io::Error::new(io::ErrorKind::NotADirectory, problem));
            }
            Ok(Self { canonical })
        }

        pub(in crate::medium::disk) fn open_file(&self, name: &str, how: Open) -> io::Result<File> {
            let mut options = OpenOptions::new();
            options.read(true).write(how.is_writable());
            options.create(how == Open::Create).create_new(how == Open::CreateNew);
            options.open(self.canonical.join(name))
        }

        pub(in crate::medium::disk) fn names(&self) -> io::Result<Vec<String>> {
            let found = fs::read_dir(&self.canonical)?;
            found.map(|found| Ok(found?.file_name().to_string_lossy().into_owned())).collect()
        }

        pub(in crate::medium::disk) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            fs::rename(self.canonical.join(from), self.canonical.join(to))
        }

        pub(in crate::medium::disk) fn remove(&self, name: &str) -> io::Result<()> {
            fs::remove_file(self.canonical.join(name))
        }

        /// Left to the file system's own journal: directories cannot be synced here.
        pub(in crate::medium::disk) fn sync(&self) -> io::Result<()> {
            Ok(())
        }

        pub(in crate::medium::disk) fn sync_parent(&self) -> io::Result<()> {
            Ok(())
        }

        /// The first file that is made says it: permissions cannot be asked for here.
        pub(in crate::medium::disk) fn check_writable(&self) -> io::Result<()> {
            Ok(())
        }

        /// Directories cannot be locked here.
        pub(in crate::medium::disk) fn to_lock(&self) -> io::Result<File> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(in crate::medium::disk) fn cannot_be_locked(error: &io::Error) -> bool {
            error.kind() == io::ErrorKind::Unsupported
        }

        pub(in crate::medium::disk) fn is_same(&self, other: &Self) -> bool {
            self.canonical == other.canonical
        }
    }
}
