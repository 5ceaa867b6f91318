//! The seam to the user's state machine, without types: bytes in, bytes out.

use std::io;

use bytes::Bytes;

use crate::{LogId, LogTime};

/// A deterministic machine: the same commands in the same order make the same state and replies on
/// every server. `graft::Machine` is the typed face of it.
pub trait StateMachine: Send + 'static {
    /// The check a command must pass before it is proposed. It must not depend on the machine's state.
    fn check(&self) -> CommandCheck;

    /// Applies one committed command and says what to answer.
    ///
    /// A panic is caught and becomes the reply of this command; the machine keeps what it had done.
    ///
    /// # Errors
    ///
    /// [`Undecodable`] stops the server: skipping a command would let replicas drift apart.
    fn apply(&mut self, command: &Command<'_>) -> Result<Bytes, Undecodable>;

    /// Answers a read-only command from the state as it is, or `None` where it is no query.
    fn query(&self, version: u16, body: &[u8]) -> Option<Bytes>;

    /// A picture of the state as it is now, to be written out later, or `None` where the machine
    /// has no snapshots.
    fn snapshot(&self) -> Option<SnapshotSource>;

    /// Replaces the state by a snapshot's.
    ///
    /// # Errors
    ///
    /// [`RestoreError`] stops the server.
    fn restore(&mut self, snapshot: SnapshotStream) -> Result<(), RestoreError>;

    /// Where the machine wants to run.
    fn apply_mode(&self) -> ApplyMode {
        ApplyMode::Inline
    }
}

/// Where a machine runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum ApplyMode {
    /// In the server's own turn, in slices of at most 1 ms. The fastest, for machines that never block
    /// and whose entries each take far less than a heartbeat.
    #[default]
    Inline,
    /// On a thread where it may block: no entry, however slow, delays a heartbeat.
    Thread,
}

/// A check of a command's version and bytes before it enters the log.
pub type CommandCheck = fn(version: u16, body: &[u8]) -> Result<(), InvalidCommand>;

/// A committed command as a machine sees it.
#[derive(Clone, Copy, Debug)]
pub struct Command<'a> {
    /// Its entry.
    pub log_id: LogId,
    /// The cluster's time as it was proposed.
    pub time: LogTime,
    /// The leader's wall clock then, in milliseconds since the Unix epoch; never goes back in the log.
    pub unix_millis: u64,
    /// The version of the user's entry type that wrote it.
    pub version: u16,
    /// The user's bytes.
    pub body: &'a [u8],
}

/// A snapshot that still has to be written out: a closure over a cheap copy of the state.
pub type SnapshotSource = Box<dyn FnOnce(&mut dyn io::Write) -> io::Result<()> + Send>;

/// A snapshot to be read in.
pub type SnapshotStream = Box<dyn io::Read + Send>;

/// A command that must not enter the log.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the command does not decode: {reason}")]
pub struct InvalidCommand {
    /// What is wrong with it.
    pub reason: String,
}

/// A committed command that this build cannot read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Undecodable {
    /// Its version.
    pub version: u16,
    /// What is wrong and what to do.
    pub reason: String,
}

/// Why a snapshot could not be restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The machine has no `restore`.
    #[error("this machine restores no snapshots: implement `restore`")]
    Unsupported,
    /// Reading it failed.
    #[error("the snapshot could not be read")]
    Io(#[from] io::Error),
    /// Its bytes are not a state of this machine.
    #[error("the snapshot does not decode: {reason}")]
    Invalid {
        /// What is wrong with it.
        reason: String,
    },
}
