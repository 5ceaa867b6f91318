//! From committed entries to outcomes: the session table around a machine.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

use bytes::Bytes;

use super::{
    Admission, CommandHeader, Outcome, Payload, PayloadError, SessionTable, checksum::Checksum,
};
use crate::{Checkpoint, Command, Entry, Index, LogId, LogTime, StateMachine, Undecodable};

/// Applies the log to a machine, each command under a session once at most.
///
/// It takes every committed entry in order, from the first on or from where its state was
/// [decoded](Self::decode); same entries, same machine, same outcomes, on every server.
///
/// # The wall clock
///
/// The entry that opens a term carries the leader's wall clock. What a machine is told is that, plus the
/// log time since, and never less than what was told before. A leader that does not know the time
/// leaves the clock as its predecessors set it.
#[derive(Clone, Debug, Default)]
pub struct Applier {
    /// The last entry that was applied.
    pub(super) last: LogId,
    pub(super) checksum: Checksum,
    pub(super) clock: WallClock,
    pub(super) sessions: SessionTable,
}

/// Why a committed entry cannot be applied. The server must stop: skipping the entry would let it
/// drift apart from the others. The applier and the machine are in no defined state any more.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The machine cannot read the command.
    #[error("entry {index} of version {version} cannot be applied: {reason}")]
    Undecodable {
        /// Which entry.
        index: Index,
        /// The version of the entry type that wrote it.
        version: u16,
        /// What is wrong and what to do, in the machine's words.
        reason: String,
    },
    /// The payload is not what its kind defines. Nothing of the kind passes the door of this build.
    #[error("entry {index} cannot be applied")]
    Malformed {
        /// Which entry.
        index: Index,
        /// What is wrong with it.
        #[source]
        source: PayloadError,
    },
}

impl Applier {
    /// The state before the first entry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies the next committed entry, and says how it ended where it is of a kind that a client can
    /// propose. After each entry, [`checkpoint`](Self::checkpoint) may have something to say.
    ///
    /// A panic of the machine is caught and is the command's outcome; the machine keeps what it had
    /// done until then. With `panic = "abort"` that cannot be: the process ends.
    ///
    /// # Errors
    ///
    /// [`ApplyError`]: the server must stop.
    ///
    /// # Panics
    ///
    /// Where `entry` is not the one after the last.
    pub fn apply<M: StateMachine + ?Sized>(
        &mut self,
        entry: &Entry,
        machine: &mut M,
    ) -> Result<Option<Outcome>, ApplyError> {
        self.apply_with(entry, |command| machine.apply(command))
    }

    /// [`apply`](Self::apply) for a machine that is just a function.
    ///
    /// # Errors
    ///
    /// [`ApplyError`]: the server must stop.
    ///
    /// # Panics
    ///
    /// Where `entry` is not the one after the last.
    pub fn apply_with(
        &mut self,
        entry: &Entry,
        machine: impl FnOnce(&Command<'_>) -> Result<Bytes, Undecodable>,
    ) -> Result<Option<Outcome>, ApplyError> {
        let index = entry.log_id.index;
        assert_eq!(
            index,
            self.last.index.next(),
            "an entry was skipped or applied twice"
        );
        assert!(entry.log_id.term >= self.last.term, "a term fell");
        self.last = entry.log_id;
        self.sessions.advance(entry.time);
        let time = self.sessions.now();
        let payload = Payload::parse(entry.kind, &entry.payload)
            .map_err(|source| ApplyError::Malformed { index, source })?;
        if let Payload::Blank { unix_millis } = payload {
            self.clock.set(unix_millis, time);
        }
        let unix_millis = self.clock.tell(time);
        let run = |version, body| {
            let command = Command {
                log_id: entry.log_id,
                time,
                unix_millis,
                version,
                body,
            };
            run_caught(&command, machine)
        };
        let outcome = match payload {
            Payload::Blank { .. } | Payload::Membership(_) => return Ok(None),
            Payload::Plain { version, body } => run(version, body)?,
            Payload::SessionOpen(settings) => {
                Outcome::SessionOpened(self.sessions.open(index, settings))
            }
            Payload::SessionKeepAlive { session, floor } => {
                self.sessions.keep_alive(session, floor)
            }
            Payload::SessionClose { session } => self.sessions.close(session),
            Payload::SessionCommand { header, body } => {
                self.under_session(&header, || run(header.version, body))?
            }
        };
        self.checksum.add(index, &outcome);
        Ok(Some(outcome))
    }

    /// The checkpoint at the last applied entry, where its index is a multiple of
    /// [`Checkpoint::INTERVAL`], whatever the entry's kind.
    #[must_use]
    pub const fn checkpoint(&self) -> Option<Checkpoint> {
        let index = self.last.index;
        if index.0 == 0 || !index.0.is_multiple_of(Checkpoint::INTERVAL) {
            return None;
        }
        Some(Checkpoint {
            index,
            checksum: self.checksum.0,
        })
    }

    /// The last entry that was applied; [`LogId::ZERO`] before the first.
    #[must_use]
    pub const fn last_applied(&self) -> LogId {
        self.last
    }

    /// The running checksum over how every entry ended until here.
    #[must_use]
    pub const fn checksum(&self) -> u64 {
        self.checksum.0
    }

    /// The time of the last applied entry.
    #[must_use]
    pub const fn time(&self) -> LogTime {
        self.sessions.now()
    }

    /// The sessions, to be looked at.
    #[must_use]
    pub const fn sessions(&self) -> &SessionTable {
        &self.sessions
    }

    fn under_session(
        &mut self,
        header: &CommandHeader,
        run: impl FnOnce() -> Result<Outcome, ApplyError>,
    ) -> Result<Outcome, ApplyError> {
        match self.sessions.admit(header) {
            Admission::Answer(outcome) => Ok(outcome),
            Admission::Apply(ticket) => {
                let outcome = run()?;
                self.sessions.keep(ticket, &outcome);
                Ok(outcome)
            }
        }
    }
}

fn run_caught(
    command: &Command<'_>,
    machine: impl FnOnce(&Command<'_>) -> Result<Bytes, Undecodable>,
) -> Result<Outcome, ApplyError> {
    // The machine is used again after a panic on purpose: what it had done until then is its state
    // on every server alike.
    match catch_unwind(AssertUnwindSafe(|| machine(command))) {
        Ok(Ok(reply)) => Ok(Outcome::Applied(reply)),
        Ok(Err(Undecodable { version, reason })) => Err(ApplyError::Undecodable {
            index: command.log_id.index,
            version,
            reason,
        }),
        Err(panic) => Ok(Outcome::Panicked(panic_message(panic))),
    }
}

/// What a panic said, cut to [`Outcome::MAX_PANIC_MESSAGE`] bytes between two characters.
fn panic_message(panic: Box<dyn Any + Send>) -> Bytes {
    let text = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => *text,
        (_, Some(text)) => text.as_str(),
        _ => "the panic carried no text",
    };
    let mut end = text.len().min(Outcome::MAX_PANIC_MESSAGE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let message = Bytes::copy_from_slice(&text.as_bytes()[..end]);
    // What the machine panicked with may panic again as it is dropped; then it is left alone.
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(again);
    }
    message
}

/// The leader's wall clock as the log tells it, which never goes back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct WallClock {
    /// What the last leader that knew the time said.
    pub(super) unix_millis: u64,
    /// When it said so.
    pub(super) at: LogTime,
    /// The latest time that was told.
    pub(super) latest: u64,
}

impl WallClock {
    fn set(&mut self, unix_millis: u64, at: LogTime) {
        if unix_millis != 0 {
            self.unix_millis = unix_millis;
            self.at = at;
        }
    }

    fn tell(&mut self, time: LogTime) -> u64 {
        let since = time.0.saturating_sub(self.at.0);
        self.latest = self.latest.max(self.unix_millis.saturating_add(since));
        self.latest
    }
}
