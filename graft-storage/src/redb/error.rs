//! Why a store cannot be opened.

use std::io;

use graft_core::StoreError;

use super::pages::Pages;

/// Why a store cannot be opened. Its files are as they were.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is something at the path, or at one above it, that is not a directory.
    #[error(
        "{part} is not a directory{}: a store is a directory of its own, give the path of one",
        below(part, path)
    )]
    NotADirectory {
        /// The path that was given.
        path: String,
        /// The part of it, from its beginning on, that is something else.
        part: String,
    },
    /// The directory cannot be created, or not be written.
    #[error("the store at {path} cannot be used for writing: check owner and permissions")]
    Inaccessible {
        /// The path that was given.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is nothing that could be verified.
    #[error("there is no store at {path}: give the path of one; if it is lost, {}", LEAVE_STOPPED)]
    NoStore {
        /// The path that was given.
        path: String,
    },
    /// Somebody has the store open.
    #[error("the store at {path} is in use by another server or process: stop that one first")]
    InUse {
        /// The path that was given.
        path: String,
    },
    /// A change of its files failed earlier in this process; what the disk holds is not known.
    #[error(
        "the store at {path} failed earlier in this process ({reason}), so what its disk holds is not \
         known: restart the process after checking the disk"
    )]
    Poisoned {
        /// The path that was given.
        path: String,
        /// What failed, and what the system said.
        reason: String,
    },
    /// The store was written by a newer build.
    #[error(
        "{file} has format {found}, this build knows formats up to {known}: upgrade this server first"
    )]
    NewerFormat {
        /// The file.
        file: String,
        /// The version of its format.
        found: u32,
        /// The newest version that this build knows.
        known: u32,
    },
    /// The store was written by a build that lays its files out differently under the same version.
    #[error(
        "{file} has format {version} with fingerprint {found:016x}, this build's is {known:016x}: use \
         the build that wrote it"
    )]
    OtherFormat {
        /// The file.
        file: String,
        /// The version of its format, which this build shares.
        version: u32,
        /// The fingerprint of its layout.
        found: u64,
        /// That of this build's layout.
        known: u64,
    },
    /// The directory or a file in it was not written by a store.
    #[error(
        "{file} was not written by a store of graft ({reason}): give the path of another directory"
    )]
    Foreign {
        /// The file.
        file: String,
        /// How that shows.
        reason: String,
    },
    /// A file is shorter than it was.
    #[error(
        "{file} has {length} bytes where at least {expected} were written: it was truncated; {}",
        LEAVE_STOPPED
    )]
    Truncated {
        /// The file.
        file: String,
        /// How long it is.
        length: u64,
        /// How long it was when a commit was last acknowledged.
        expected: u64,
    },
    /// The store is not what was written.
    #[error("the store is corrupt at {location}: {reason}; {}", LEAVE_STOPPED)]
    Corrupt {
        /// Which file, table and record.
        location: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The disk failed.
    #[error("the store at {path} failed to {action}")]
    Io {
        /// The path that was given.
        path: String,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Anything else.
    #[error("the store failed: {reason}")]
    Backend {
        /// In the words of what failed.
        reason: String,
    },
}

impl OpenError {
    pub(super) fn of(path: &str, error: StoreError) -> Self {
        let within = path.to_owned();
        match error {
            StoreError::Corrupt { location, reason } => {
                Self::Corrupt { location: format!("{location} in {path}"), reason }
            }
            StoreError::Io { action, source } => Self::Io { path: within, action, source },
            StoreError::Poisoned { reason } => Self::Poisoned { path: within, reason },
            other => Self::Backend { reason: other.to_string() },
        }
    }
}

/// What to do where a store is lost, for the end of a sentence.
const LEAVE_STOPPED: &str = "leave this server stopped: the others go on as long as they are a majority, and \
                             nothing takes a server in anew yet";

/// What follows for `path` from `part` of it being no directory, for the middle of a sentence.
fn below(part: &str, path: &str) -> String {
    if part == path { String::new() } else { format!(", so there can be no {path}") }
}

/// Why a directory that holds something else is refused: nothing in it is damaged.
pub(super) const NOT_EMPTY: &str = "a new store needs an empty directory";

impl From<OpenError> for StoreError {
    /// Damage to the files of a store is [`StoreError::Corrupt`], whether it shows as the store is opened or
    /// as a sealed segment is. What is wrong with the directory or its use stays as it is said here.
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Corrupt { location, reason } => Self::Corrupt { location, reason },
            // These have no field for where that is, and whoever opens many stores must know.
            OpenError::Io { path, action, source } => {
                let source = io::Error::new(source.kind(), format!("{path}: {source}"));
                Self::Io { action, source }
            }
            OpenError::Poisoned { path, reason } => {
                Self::Poisoned { reason: format!("{path}: {reason}") }
            }
            OpenError::Foreign { file, reason } if reason != NOT_EMPTY => Self::Corrupt {
                location: format!("{file}, {}", Pages::Own),
                reason: format!("it was not written by a store of graft ({reason})"),
            },
            OpenError::Truncated { file, length, expected } => Self::Corrupt {
                location: format!("{file}, {}", Pages::Own),
                reason: format!("it has {length} bytes where at least {expected} were written"),
            },
            OpenError::Backend { reason } => Self::Backend { reason },
            other => Self::Open(Box::new(other)),
        }
    }
}
