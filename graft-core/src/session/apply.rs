//! From committed entries to outcomes: the session table around a machine.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

use bytes::Bytes;

use super::{
    Admission, Outcome, Payload, PayloadError, SessionTable,
    checksum::Checksum,
    codec::{parse_command, parse_plain},
};
use crate::{
    Checkpoint, Command, EntryKind, EntryRef, Index, LogId, LogTime, StateMachine, Undecodable,
    raft::{Mutant, Switch},
};

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
    pub(super) switch: Switch,
    /// Entries up to here had been applied before this server was started: a known bug is about them.
    pub(super) replayed: Index,
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

    /// The state before the first entry, with a known bug if one is switched on. `replayed` is how much of
    /// the log was applied in a former life.
    #[cfg(feature = "node")]
    pub(crate) fn with_switch(switch: Switch, replayed: Index) -> Self {
        Self { switch, replayed, ..Self::default() }
    }

    /// What a known bug does: ages sessions by the clock of a server.
    #[cfg(feature = "node")]
    pub(crate) fn age(&mut self, now: std::time::Duration) {
        let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.sessions.advance(LogTime(millis));
    }

    #[cfg(test)]
    pub(super) fn with_limits(limits: super::table::Limits) -> Self {
        Self { sessions: SessionTable::with_limits(limits), ..Self::default() }
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
    pub fn apply<'e, M: StateMachine + ?Sized>(
        &mut self,
        entry: impl Into<EntryRef<'e>>,
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
    pub fn apply_with<'e>(
        &mut self,
        entry: impl Into<EntryRef<'e>>,
        machine: impl FnOnce(&Command<'_>) -> Result<Bytes, Undecodable>,
    ) -> Result<Option<Outcome>, ApplyError> {
        let entry = entry.into();
        let index = entry.log_id.index;
        assert_eq!(index, self.last.index.next(), "an entry was skipped or applied twice");
        assert!(entry.log_id.term >= self.last.term, "a term fell");
        self.last = entry.log_id;
        self.sessions.advance(entry.time);
        let malformed = |source| ApplyError::Malformed { index, source };
        let (version, body, ticket) = match entry.kind {
            EntryKind::SessionCommand => {
                let (header, body) = parse_command(entry.payload).map_err(malformed)?;
                match self.sessions.admit(&header) {
                    Admission::Apply(ticket) => (header.version, body, Some(ticket)),
                    Admission::Answer(outcome) => return Ok(Some(self.ended(outcome))),
                }
            }
            EntryKind::Plain => {
                let (version, body) = parse_plain(entry.payload).map_err(malformed)?;
                (version, body, None)
            }
            _ => return self.apply_own(entry),
        };
        let time = self.sessions.now();
        let command = Command {
            log_id: entry.log_id,
            time,
            unix_millis: self.clock.tell(time),
            version,
            body,
        };
        // The outcome is looked at where it lies: moving it would cost a third of a plain command.
        let ended = run_caught(&command, machine);
        if let Ok(Some(outcome)) = &ended {
            if let Some(ticket) = ticket.filter(|_| !self.forgets(index, outcome)) {
                let latest = self.switch.is(Mutant::OnlyLatestReplyKept);
                self.sessions.keep(ticket, outcome);
                if latest {
                    self.sessions.keep_latest_alone();
                }
            }
            self.checksum.add(index, outcome);
        }
        ended
    }

    /// The checkpoint at the last applied entry, where its index is a multiple of
    /// [`Checkpoint::INTERVAL`], whatever the entry's kind.
    #[must_use]
    pub const fn checkpoint(&self) -> Option<Checkpoint> {
        let index = self.last.index;
        if index.0 == 0 || !index.0.is_multiple_of(Checkpoint::INTERVAL) {
            return None;
        }
        Some(Checkpoint { index, checksum: self.checksum.0 })
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

    /// Whether a known bug does not remember how the command at `index` ended.
    #[inline]
    fn forgets(&self, index: Index, outcome: &Outcome) -> bool {
        let panicked = matches!(outcome, Outcome::Panicked(_));
        self.switch.is(Mutant::ReapplyAfterRestart) && index <= self.replayed
            || self.switch.is(Mutant::PanicForgotten) && panicked
    }

    /// Applies an entry that is no command: it concerns the sessions or the clock, or neither.
    fn apply_own(&mut self, entry: EntryRef<'_>) -> Result<Option<Outcome>, ApplyError> {
        let index = entry.log_id.index;
        let payload = Payload::parse(entry.kind, entry.payload)
            .map_err(|source| ApplyError::Malformed { index, source })?;
        let time = self.sessions.now();
        let outcome = match payload {
            Payload::Blank { unix_millis } => {
                // What the leader before would have told by now is not undercut by the new one.
                self.clock.tell(time);
                self.clock.set(unix_millis, time);
                None
            }
            Payload::SessionOpen(settings) => {
                let session = self.sessions.open(index, settings);
                Some(Outcome::SessionOpened(session))
            }
            Payload::SessionKeepAlive { session, floor } => {
                Some(self.sessions.keep_alive(session, floor))
            }
            Payload::SessionClose { session } => Some(self.sessions.close(session)),
            Payload::Membership(_) | Payload::Plain { .. } | Payload::SessionCommand { .. } => None,
        };
        Ok(outcome.map(|outcome| self.ended(outcome)))
    }

    #[inline]
    fn ended(&mut self, outcome: Outcome) -> Outcome {
        self.checksum.add(self.last.index, &outcome);
        outcome
    }
}

#[inline]
fn run_caught(
    command: &Command<'_>,
    machine: impl FnOnce(&Command<'_>) -> Result<Bytes, Undecodable>,
) -> Result<Option<Outcome>, ApplyError> {
    // The machine is used again after a panic on purpose: what it had done until then is its state
    // on every server alike.
    match catch_unwind(AssertUnwindSafe(|| machine(command))) {
        Ok(Ok(reply)) => Ok(Some(Outcome::Applied(reply))),
        Ok(Err(Undecodable { version, reason })) => {
            Err(ApplyError::Undecodable { index: command.log_id.index, version, reason })
        }
        Err(panic) => Ok(Some(Outcome::Panicked(panic_message(panic)))),
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
    #[inline]
    fn set(&mut self, unix_millis: u64, at: LogTime) {
        if unix_millis != 0 {
            self.unix_millis = unix_millis;
            self.at = at;
        }
    }

    #[inline]
    fn tell(&mut self, time: LogTime) -> u64 {
        let since = time.0.saturating_sub(self.at.0);
        self.latest = self.latest.max(self.unix_millis.saturating_add(since));
        self.latest
    }
}

#[cfg(test)]
mod tests;
