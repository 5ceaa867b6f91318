//! A typed machine behind core's untyped seam.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use graft_core::{
    ApplyMode, Command, CommandCheck, InvalidCommand, SnapshotSource, SnapshotStream, StateMachine,
    Undecodable,
};

use crate::{
    Apply, At, Entry, Machine, RestoreError, SnapshotReader,
    encode::{Encoder, share},
    entry, panics, wire,
};

/// Gives a [`Machine`] bytes in and bytes out.
#[derive(Debug)]
pub(crate) struct Adaptor<M> {
    machine: M,
    encoder: Encoder,
    /// The last response, where it is small: machines often answer the same again, and a share of it
    /// costs no memory.
    last: Bytes,
}

impl<M: Machine> Adaptor<M> {
    pub(crate) fn new(machine: M) -> Self {
        Self { machine, encoder: Encoder::default(), last: Bytes::new() }
    }

    /// # Panics
    ///
    /// Where the response does not archive: the machine has already changed, so this is the entry's
    /// outcome, as a panic of the machine itself would be.
    fn encode(&mut self, response: &crate::Response<M>, index: u64) -> Bytes {
        /// Beyond this, comparing costs more than it saves.
        const SMALL: usize = 64;
        let archive = match self.encoder.encode(0, response) {
            Ok(archive) => archive,
            Err(error) => panic!(
                "the response to entry {index} cannot be archived: {}",
                entry::one_line(&error)
            ),
        };
        if archive.is_empty() {
            // Nothing lies anywhere, and comparing it is dear: vector instructions that read no byte of an
            // address that is not mapped take a detour through microcode.
            return Bytes::new();
        }
        if archive.len() > SMALL {
            return share(archive);
        }
        if self.last != archive {
            self.last = share(archive);
        }
        self.last.clone()
    }
}

impl<M: Machine> StateMachine for Adaptor<M> {
    fn check(&self) -> CommandCheck {
        check::<M::Entry>
    }

    fn apply(&mut self, command: &Command<'_>) -> Result<Bytes, Undecodable> {
        let index = command.log_id.index.0;
        let typed: M::Entry = entry::read(command.version, command.body).map_err(|error| {
            Undecodable { version: command.version, reason: numbered(index, &error.to_string()) }
        })?;
        let at = At {
            index,
            term: command.log_id.term.0,
            unix_millis: command.unix_millis,
            cluster_millis: command.time.0,
        };
        let response = self.machine.handle_entry_at(typed, &at);
        Ok(self.encode(&response, index))
    }

    fn query(&self, version: u16, body: &[u8]) -> Option<Bytes> {
        let typed = entry::read(version, body).ok()?;
        let response = self.machine.query(typed)?;
        Some(share(&wire::encode(&response).ok()?))
    }

    fn snapshot(&self) -> Option<SnapshotSource> {
        self.machine.snapshot().map(crate::Snapshot::into_source)
    }

    fn restore(&mut self, snapshot: SnapshotStream) -> Result<(), RestoreError> {
        self.machine.restore(SnapshotReader::new(snapshot))
    }

    fn apply_mode(&self) -> ApplyMode {
        match M::APPLY {
            Apply::Inline => ApplyMode::Inline,
            Apply::Thread => ApplyMode::Thread,
        }
    }
}

/// Reads a proposed command as it will be read when it is applied: whatever passes here can be applied.
fn check<E: Entry>(version: u16, body: &[u8]) -> Result<(), InvalidCommand> {
    // Upgrades and conversions are the user's code: a panic in them must cost a request, not the server.
    let outcome = catch_unwind(AssertUnwindSafe(|| entry::read::<E>(version, body).map(drop)));
    match outcome {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(InvalidCommand { reason: error.to_string() }),
        Err(panic) => Err(InvalidCommand {
            reason: format!("reading it panicked: {}", panics::message(&*panic)),
        }),
    }
}

/// "entry has version 2, ..." with the entry's number in it.
fn numbered(index: u64, reason: &str) -> String {
    match reason.strip_prefix("entry ") {
        Some(rest) => format!("entry {index} {rest}"),
        None => format!("entry {index}: {reason}"),
    }
}

/// How an entry is shown to a reader of the log.
pub(crate) fn describe<E: Entry>(version: u16, body: &[u8]) -> String {
    let shown = catch_unwind(AssertUnwindSafe(|| {
        entry::read::<E>(version, body).map(|entry| format!("{entry:?}"))
    }));
    match shown {
        Ok(Ok(text)) => text,
        Ok(Err(error)) => format!("<{error}>"),
        Err(panic) => format!("<showing it panicked: {}>", panics::message(&*panic)),
    }
}

#[cfg(test)]
mod tests {
    use graft_core::{LogId, LogTime};

    use super::*;

    #[derive(Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
    enum Ask {
        Where,
        Long(String),
    }

    impl Entry for Ask {
        type Response = (u64, u64, u64, u64);
        const VERSION: u16 = 1;
        fn upgrade(_: u16, _: &[u8]) -> Result<Self, crate::EntryError> {
            panic!("no old version was ever written")
        }
    }

    struct Answer;

    impl Machine for Answer {
        type Entry = Ask;
        fn handle_entry(&mut self, _: Ask) -> (u64, u64, u64, u64) {
            unreachable!("the machine wants to know where it is")
        }
        fn handle_entry_at(&mut self, _: Ask, at: &At) -> (u64, u64, u64, u64) {
            (at.index, at.term, at.unix_millis, at.cluster_millis)
        }
        fn query(&self, entry: Ask) -> Option<(u64, u64, u64, u64)> {
            matches!(entry, Ask::Where).then_some((0, 0, 0, 0))
        }
    }

    fn apply(version: u16, body: &[u8]) -> Result<Bytes, Undecodable> {
        Adaptor::new(Answer).apply(&Command {
            log_id: LogId::new(3, 7),
            time: LogTime(11),
            unix_millis: 1_700_000_000_000,
            version,
            body,
        })
    }

    #[test]
    fn an_entry_is_applied_with_its_place_and_time() {
        let reply = apply(1, &wire::encode(&Ask::Where).unwrap()).unwrap();
        let response: (u64, u64, u64, u64) = wire::decode(&reply).unwrap();
        assert_eq!(response, (7, 3, 1_700_000_000_000, 11));
    }

    #[test]
    fn an_undecodable_entry_names_itself_and_what_to_do() {
        let body = wire::encode(&Ask::Where).unwrap();
        let error = apply(2, &body).unwrap_err();
        assert_eq!(
            error.to_string(),
            "entry 7 has version 2, this build knows 1: upgrade this server first"
        );
        let error = apply(1, &[]).unwrap_err().to_string();
        assert!(error.starts_with("entry 7 does not decode as `"), "{error}");
    }

    #[test]
    fn the_check_refuses_whatever_could_not_be_applied() {
        let check = Adaptor::new(Answer).check();
        let body = wire::encode(&Ask::Long("a".repeat(100))).unwrap();
        assert!(check(1, &body).is_ok());
        assert!(check(1, &body[..body.len() - 4]).is_err());
        assert!(check(2, &body).is_err());
        let panicked = check(0, &body).unwrap_err().to_string();
        assert!(panicked.contains("no old version was ever written"), "{panicked}");
    }

    #[test]
    fn a_query_is_answered_only_where_the_machine_calls_it_one() {
        let adaptor = Adaptor::new(Answer);
        assert!(adaptor.query(1, &wire::encode(&Ask::Where).unwrap()).is_some());
        let long = wire::encode(&Ask::Long("text".into())).unwrap();
        assert!(adaptor.query(1, &long).is_none());
        assert!(adaptor.query(1, &[1]).is_none());
    }

    #[test]
    fn an_entry_is_shown_or_the_reason_why_not() {
        assert_eq!(describe::<Ask>(1, &wire::encode(&Ask::Where).unwrap()), "Where");
        assert!(describe::<Ask>(5, &[]).contains("version 5"));
        assert!(describe::<Ask>(0, &[]).contains("panicked"));
    }
}
