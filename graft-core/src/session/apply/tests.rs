//! The applier around machines that answer, panic and refuse.

use super::*;
use crate::{
    CommandCheck, Entry, RestoreError, SessionId, SnapshotSource, SnapshotStream,
    session::{
        CommandHeader, SessionSettings, encode_blank, encode_close, encode_command,
        encode_keep_alive, encode_plain,
    },
};

/// A machine that does as its commands say, and remembers what it was told.
#[derive(Default)]
struct Obedient {
    seen: Vec<(u64, u64, u64, u16, Vec<u8>)>,
}

impl StateMachine for Obedient {
    fn check(&self) -> CommandCheck {
        |_, _| Ok(())
    }

    fn apply(&mut self, command: &Command<'_>) -> Result<Bytes, Undecodable> {
        let Command { log_id, time, unix_millis, version, body } = *command;
        self.seen.push((log_id.index.0, time.0, unix_millis, version, body.to_vec()));
        match body {
            b"panic" => panic!("as {}", "told"),
            b"panic long" => panic!("{}", "é".repeat(1_000)),
            b"panic plainly" => panic!("plainly"),
            b"panic with a number" => std::panic::panic_any(5),
            b"panic twice" => std::panic::panic_any(PanicsAgain),
            b"refuse" => Err(Undecodable { version, reason: "upgrade this server first".into() }),
            _ => Ok(Bytes::copy_from_slice(body)),
        }
    }

    fn query(&self, _: u16, _: &[u8]) -> Option<Bytes> {
        None
    }

    fn snapshot(&self) -> Option<SnapshotSource> {
        None
    }

    fn restore(&mut self, _: SnapshotStream) -> Result<(), RestoreError> {
        Err(RestoreError::Unsupported)
    }
}

struct PanicsAgain;

impl Drop for PanicsAgain {
    fn drop(&mut self) {
        panic!("and again");
    }
}

/// A log as it grows, with an applier behind it.
#[derive(Default)]
struct Log {
    index: u64,
    time: u64,
    applier: Applier,
    machine: Obedient,
}

impl Log {
    fn next(&mut self, kind: EntryKind, payload: Bytes) -> Entry {
        self.index += 1;
        Entry { log_id: LogId::new(1, self.index), time: LogTime(self.time), kind, payload }
    }

    fn try_apply(
        &mut self,
        kind: EntryKind,
        payload: Bytes,
    ) -> Result<Option<Outcome>, ApplyError> {
        let entry = self.next(kind, payload);
        self.applier.apply(&entry, &mut self.machine)
    }

    fn apply(&mut self, kind: EntryKind, payload: Bytes) -> Option<Outcome> {
        self.try_apply(kind, payload).unwrap()
    }

    fn open(&mut self) -> SessionId {
        let opened = self.apply(EntryKind::SessionOpen, SessionSettings::default().encode());
        let Some(Outcome::SessionOpened(session)) = opened else { panic!("{opened:?}") };
        session
    }

    fn plain(&mut self, body: &[u8]) -> Option<Outcome> {
        self.apply(EntryKind::Plain, encode_plain(3, body))
    }

    fn command(&mut self, session: SessionId, sequence: u64, body: &[u8]) -> Option<Outcome> {
        let header = CommandHeader { session, sequence, floor: 0, version: 4 };
        self.apply(EntryKind::SessionCommand, encode_command(&header, body))
    }
}

fn applied(reply: &'static str) -> Option<Outcome> {
    Some(Outcome::Applied(reply.into()))
}

fn panicked(message: &str) -> Option<Outcome> {
    Some(Outcome::Panicked(message.to_owned().into()))
}

#[test]
fn a_command_reaches_the_machine_as_it_was_sent() {
    let mut log = Log { time: 70, ..Log::default() };
    let session = log.open();
    assert_eq!(log.plain(b"plain"), applied("plain"));
    assert_eq!(log.command(session, 0, b"once"), applied("once"));
    assert_eq!(
        log.machine.seen,
        [(2, 70, 70, 3, b"plain".to_vec()), (3, 70, 70, 4, b"once".to_vec())]
    );
}

#[test]
fn a_copy_does_not_reach_the_machine() {
    let mut log = Log::default();
    let session = log.open();
    log.command(session, 0, b"once");
    assert_eq!(log.command(session, 0, b"again"), applied("once"));
    assert_eq!(log.machine.seen.len(), 1);
}

#[test]
fn a_plain_command_is_applied_as_often_as_it_comes() {
    let mut log = Log::default();
    log.plain(b"again");
    log.plain(b"again");
    assert_eq!(log.machine.seen.len(), 2);
}

#[test]
fn the_whole_life_of_a_session_goes_through_the_log() {
    let mut log = Log::default();
    let session = log.open();
    assert_eq!(session, SessionId(1));
    let kept = log.apply(EntryKind::SessionKeepAlive, encode_keep_alive(session, 1));
    assert_eq!(kept, Some(Outcome::SessionDone));
    assert_eq!(log.command(session, 0, b"late"), Some(Outcome::Forgotten));
    assert_eq!(log.command(session, 5_000, b"far"), Some(Outcome::SessionFull));
    let closed = log.apply(EntryKind::SessionClose, encode_close(session));
    assert_eq!(closed, Some(Outcome::SessionDone));
    assert_eq!(log.command(session, 1, b"gone"), Some(Outcome::SessionExpired));
    assert_eq!(log.machine.seen, []);
}

#[test]
fn sessions_expire_before_the_entry_whose_time_passes_theirs_whatever_its_kind() {
    let kinds = [
        (EntryKind::Blank, encode_blank(1)),
        (EntryKind::Membership, Bytes::new()),
        (EntryKind::Plain, encode_plain(0, b"")),
        (EntryKind::SessionOpen, SessionSettings::default().encode()),
    ];
    for (kind, payload) in kinds {
        let mut log = Log::default();
        let session = log.open();
        log.time = SessionSettings::default().ttl_millis + 1;
        log.apply(kind, payload);
        assert!(!log.applier.sessions().contains(session), "{kind:?}");
    }
}

#[test]
fn a_command_that_comes_after_its_sessions_time_is_not_applied() {
    let mut log = Log::default();
    let session = log.open();
    log.time = SessionSettings::default().ttl_millis + 1;
    assert_eq!(log.command(session, 0, b"late"), Some(Outcome::SessionExpired));
    assert_eq!(log.machine.seen, []);
}

#[test]
fn a_panic_is_the_commands_outcome_and_is_repeated() {
    let mut log = Log::default();
    let session = log.open();
    assert_eq!(log.command(session, 0, b"panic"), panicked("as told"));
    assert_eq!(log.command(session, 0, b"panic"), panicked("as told"));
    assert_eq!(log.machine.seen.len(), 1);
    assert_eq!(log.plain(b"panic plainly"), panicked("plainly"));
    assert_eq!(log.plain(b"and goes on"), applied("and goes on"));
}

#[test]
fn a_panics_message_is_cut_between_two_characters() {
    let mut log = Log::default();
    assert_eq!(log.plain(b"panic long"), panicked(&"é".repeat(128)));
}

#[test]
fn a_panic_without_text_and_one_that_panics_again_are_caught() {
    let mut log = Log::default();
    let message = panicked("the panic carried no text");
    assert_eq!(log.plain(b"panic with a number"), message);
    assert_eq!(log.plain(b"panic twice"), message);
}

#[test]
fn a_command_the_machine_cannot_read_stops_the_server_by_name() {
    for kind in [EntryKind::Plain, EntryKind::SessionCommand] {
        let mut log = Log::default();
        let session = log.open();
        let header = CommandHeader { session, sequence: 0, floor: 0, version: 9 };
        let payload = match kind {
            EntryKind::Plain => encode_plain(9, b"refuse"),
            _ => encode_command(&header, b"refuse"),
        };
        let error = log.try_apply(kind, payload).unwrap_err();
        assert_eq!(
            error.to_string(),
            "entry 2 of version 9 cannot be applied: upgrade this server first"
        );
    }
}

#[test]
fn a_committed_payload_that_is_malformed_stops_the_server_and_is_never_skipped() {
    for kind in [
        EntryKind::Plain,
        EntryKind::SessionOpen,
        EntryKind::SessionKeepAlive,
        EntryKind::SessionClose,
        EntryKind::SessionCommand,
    ] {
        let error = Log::default().try_apply(kind, Bytes::from_static(&[1; 3])).unwrap_err();
        assert!(
            matches!(error, ApplyError::Malformed { index: Index(1), .. }),
            "{kind:?}: {error:?}"
        );
    }
}

#[test]
fn the_clusters_own_entries_have_no_outcome_and_change_no_sum() {
    let mut log = Log::default();
    let before = log.applier.checksum();
    assert_eq!(log.apply(EntryKind::Blank, encode_blank(1)), None);
    assert_eq!(log.apply(EntryKind::Membership, Bytes::new()), None);
    assert_eq!(log.applier.checksum(), before);
    assert_eq!(log.applier.last_applied(), LogId::new(1, 2));
}

#[test]
#[should_panic(expected = "skipped or applied twice")]
fn an_entry_that_is_not_the_next_is_a_bug_of_the_driver() {
    let mut log = Log { index: 1, ..Log::default() };
    log.plain(b"the second");
}

/// What the machine was told of the wall clock.
fn told(log: &Log) -> Vec<u64> {
    log.machine.seen.iter().map(|seen| seen.2).collect()
}

#[test]
fn the_wall_clock_is_the_leaders_plus_the_log_time_since() {
    let mut log = Log { time: 500, ..Log::default() };
    log.apply(EntryKind::Blank, encode_blank(1_000_000));
    log.plain(b"at once");
    log.time = 530;
    let session = log.open();
    log.command(session, 0, b"later");
    assert_eq!(told(&log), [1_000_000, 1_000_030]);
}

#[test]
fn the_wall_clock_stands_still_rather_than_going_back() {
    let mut log = Log::default();
    log.apply(EntryKind::Blank, encode_blank(1_000_000));
    log.time = 100;
    // A leader whose clock is behind by more than what was told: also where no command was told yet.
    log.apply(EntryKind::Blank, encode_blank(999_000));
    log.plain(b"behind");
    log.time = 1_050;
    log.plain(b"still behind");
    log.time = 1_200;
    log.plain(b"caught up");
    assert_eq!(told(&log), [1_000_100, 1_000_100, 1_000_100]);
    log.time = 1_300;
    log.plain(b"ahead");
    assert_eq!(told(&log)[3], 1_000_200);
}

#[test]
fn a_leader_that_does_not_know_the_time_leaves_the_clock_running() {
    let mut log = Log::default();
    log.apply(EntryKind::Blank, encode_blank(1_000_000));
    for (time, unknown) in
        [(10, Bytes::new()), (20, encode_blank(0)), (30, Bytes::from_static(b"odd"))]
    {
        log.time = time;
        log.apply(EntryKind::Blank, unknown);
        log.plain(b"");
    }
    assert_eq!(told(&log), [1_000_010, 1_000_020, 1_000_030]);
}

#[test]
fn checkpoints_come_at_multiples_whatever_stands_there() {
    let mut log = Log::default();
    let mut seen = Vec::new();
    for index in 1..=3 * Checkpoint::INTERVAL {
        if index == Checkpoint::INTERVAL {
            log.apply(EntryKind::Blank, encode_blank(1));
        } else if index == 2 * Checkpoint::INTERVAL {
            log.apply(EntryKind::Membership, Bytes::new());
        } else {
            log.plain(b"reply");
        }
        if let Some(checkpoint) = log.applier.checkpoint() {
            assert_eq!(checkpoint.checksum, log.applier.checksum());
            seen.push(checkpoint.index.0);
        }
    }
    assert_eq!(seen, [1, 2, 3].map(|nth| nth * Checkpoint::INTERVAL));
    assert_eq!(Applier::new().checkpoint(), None);
}

#[test]
fn every_kind_of_outcome_counts_in_the_sum_a_repeated_one_too() {
    let mut log = Log::default();
    let mut sums = vec![log.applier.checksum()];
    let session = log.open();
    let mut note = |log: &Log| sums.push(log.applier.checksum());
    note(&log);
    for (sequence, body) in [(0, &b"x"[..]), (0, b"x"), (1, b"panic"), (9_999, b"x")] {
        log.command(session, sequence, body);
        note(&log);
    }
    log.command(SessionId(77), 0, b"x");
    note(&log);
    log.apply(EntryKind::SessionClose, encode_close(session));
    note(&log);
    let distinct: std::collections::BTreeSet<_> = sums.iter().collect();
    assert_eq!(distinct.len(), sums.len());
}

#[test]
fn a_replica_that_answers_otherwise_differs_in_every_checkpoint_after() {
    let run = |odd: u64| {
        let mut applier = Applier::new();
        let mut checkpoints = Vec::new();
        for index in 1..=4 * Checkpoint::INTERVAL {
            let entry = Entry {
                log_id: LogId::new(1, index),
                time: LogTime(0),
                kind: EntryKind::Plain,
                payload: encode_plain(0, b""),
            };
            let reply = if index == odd { &b"odd"[..] } else { b"" };
            applier.apply_with(&entry, |_| Ok(Bytes::from_static(reply))).unwrap();
            checkpoints.extend(applier.checkpoint());
        }
        checkpoints
    };
    let (one, other) = (run(0), run(1_500));
    assert_eq!(one[0], other[0]);
    for (one, other) in one.iter().zip(&other).skip(1) {
        assert_ne!(one.checksum, other.checksum, "at {}", one.index);
    }
}
