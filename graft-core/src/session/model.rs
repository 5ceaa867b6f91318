//! The applier against a table too simple to be wrong: random logs of many sessions, with copies,
//! reordering, moving floors, jumps in time, panics, and snapshots in between.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::{prelude::*, sample::Index as Pick};

use super::{
    Applier, CommandHeader, Outcome, SessionSettings, encode_blank, encode_close, encode_command,
    encode_keep_alive, encode_plain, table::Limits,
};
use crate::{Entry, EntryKind, LogId, LogTime, SessionId};

/// Small, so that random logs reach them.
const LIMITS: Limits = Limits { session_bytes: 200, total_bytes: 350 };
const LONGEST_REPLY: usize = 60;
/// One reply may pass the bound of a session, and then one more at its floor.
const LARGEST_SESSION: u64 = LIMITS.session_bytes + 2 * (32 + LONGEST_REPLY as u64);

/// What happens next. Sequences and floors are relative to the floor of the session they hit.
#[derive(Clone, Debug)]
enum Op {
    Open { settings: SessionSettings },
    Command { session: Pick, above: i64, raise: i64, reply: usize, panics: bool },
    KeepAlive { session: Pick, raise: i64 },
    Close { session: Pick },
    Plain,
    Blank,
    Membership,
}

#[derive(Clone, Debug)]
struct Turn {
    op: Op,
    millis: u64,
    /// Whether the applier goes through its bytes before this entry.
    restarts: bool,
}

fn op() -> impl Strategy<Value = Op> {
    let settings =
        (1_000..6_000_u64, 1..8_u32, 1..7_u32).prop_map(|(ttl_millis, window, max_sessions)| {
            SessionSettings { ttl_millis, window, max_sessions }
        });
    let command =
        (any::<Pick>(), -3..9_i64, -3..3_i64, 0..LONGEST_REPLY, prop::bool::weighted(0.1))
            .prop_map(|(session, above, raise, reply, panics)| Op::Command {
                session,
                above,
                raise,
                reply,
                panics,
            });
    prop_oneof![
        3 => settings.prop_map(|settings| Op::Open { settings }),
        20 => command,
        2 => (any::<Pick>(), -3..6_i64)
            .prop_map(|(session, raise)| Op::KeepAlive { session, raise }),
        1 => any::<Pick>().prop_map(|session| Op::Close { session }),
        1 => Just(Op::Plain),
        1 => Just(Op::Blank),
        1 => Just(Op::Membership),
    ]
}

fn turn() -> impl Strategy<Value = Turn> {
    let millis =
        prop_oneof![8 => Just(0), 1 => (0..8_u64).prop_map(|half_seconds| half_seconds * 500)];
    let restarts = prop::bool::weighted(0.05);
    (op(), millis, restarts).prop_map(|(op, millis, restarts)| Turn { op, millis, restarts })
}

/// The rules of the table, each by looking at everything.
#[derive(Default)]
struct Naive {
    now: u64,
    sessions: BTreeMap<u64, NaiveSession>,
}

#[derive(Clone)]
struct NaiveSession {
    floor: u64,
    /// When, and by which entry.
    active: (u64, u64),
    settings: SessionSettings,
    kept: BTreeMap<u64, Outcome>,
}

impl NaiveSession {
    fn bytes(&self) -> u64 {
        self.kept.values().map(|outcome| 32 + reply_of(outcome).len() as u64).sum()
    }
}

fn reply_of(outcome: &Outcome) -> &Bytes {
    match outcome {
        Outcome::Applied(reply) | Outcome::Panicked(reply) => reply,
        other => panic!("{other:?} carries no reply"),
    }
}

impl Naive {
    fn bytes(&self) -> u64 {
        self.sessions.values().map(NaiveSession::bytes).sum()
    }

    fn by_idleness(&self) -> Vec<u64> {
        let mut ids: Vec<u64> = self.sessions.keys().copied().collect();
        ids.sort_by_key(|id| self.sessions[id].active.1);
        ids
    }

    fn advance(&mut self, now: u64) {
        self.now = now;
        self.sessions.retain(|_, session| session.active.0 + session.settings.ttl_millis >= now);
    }

    fn open(&mut self, index: u64, settings: SessionSettings) {
        for oldest in self.by_idleness().into_iter().take(2) {
            if self.sessions.len() >= settings.max_sessions as usize {
                self.sessions.remove(&oldest);
            }
        }
        let session =
            NaiveSession { floor: 0, active: (self.now, index), settings, kept: BTreeMap::new() };
        self.sessions.insert(index, session);
    }

    fn touch(&mut self, index: u64, id: u64, floor: u64) -> Option<&NaiveSession> {
        let session = self.sessions.get_mut(&id)?;
        session.active = (self.now, index);
        session.floor = session.floor.max(floor);
        let floor = session.floor;
        session.kept.retain(|sequence, _| *sequence >= floor);
        Some(session)
    }

    /// The answer to a command, or `None` where it must be applied.
    fn admit(&mut self, index: u64, id: u64, sequence: u64, floor: u64) -> Option<Outcome> {
        let Some(session) = self.touch(index, id, floor) else {
            return Some(Outcome::SessionExpired);
        };
        if sequence < session.floor {
            Some(Outcome::Forgotten)
        } else if let Some(kept) = session.kept.get(&sequence) {
            Some(kept.clone())
        } else if sequence >= session.floor + u64::from(session.settings.window)
            || session.bytes() >= LIMITS.session_bytes && sequence > session.floor
        {
            Some(Outcome::SessionFull)
        } else {
            None
        }
    }

    fn keep(&mut self, id: u64, sequence: u64, outcome: Outcome) {
        self.sessions.get_mut(&id).unwrap().kept.insert(sequence, outcome);
        if self.bytes() > LIMITS.total_bytes {
            for other in self.by_idleness() {
                let enough = self.bytes() <= LIMITS.total_bytes - LIMITS.total_bytes / 8;
                if !enough && other != id && !self.sessions[&other].kept.is_empty() {
                    self.sessions.remove(&other);
                }
            }
        }
    }
}

/// A run of the log through the applier and the model side by side.
struct Run {
    applier: Applier,
    naive: Naive,
    time: u64,
    index: u64,
    opened: Vec<u64>,
    /// How many commands the machine has seen; every reply names it, so no two are equal.
    machine: u64,
    /// The first answer to everything that was ever applied.
    ever: BTreeMap<(u64, u64), Outcome>,
}

impl Run {
    fn new() -> Self {
        Self {
            applier: Applier::with_limits(LIMITS),
            naive: Naive::default(),
            time: 0,
            index: 0,
            opened: Vec::new(),
            machine: 0,
            ever: BTreeMap::new(),
        }
    }

    /// Mostly a session that was opened once, sometimes one that never was.
    fn pick(&self, session: &Pick) -> u64 {
        let at = session.index(self.opened.len() + 1);
        self.opened.get(at).copied().unwrap_or(self.index + 1_000)
    }

    fn floor_of(&self, id: u64, raise: i64) -> u64 {
        let floor = self.naive.sessions.get(&id).map_or(5, |session| session.floor);
        floor.saturating_add_signed(raise)
    }

    /// Applies an entry; says how it ended and whether the machine saw it.
    fn apply(
        &mut self,
        kind: EntryKind,
        payload: Bytes,
        reply: usize,
        panics: bool,
    ) -> (Option<Outcome>, bool) {
        let log_id = LogId::new(1, self.index);
        let entry = Entry { log_id, time: LogTime(self.time), kind, payload };
        let before = self.machine;
        let outcome = self.applier.apply_with(&entry, |_| {
            self.machine += 1;
            let text = format!("{:0reply$}", self.machine);
            // Unlike `panic!` this does not print.
            if panics {
                std::panic::resume_unwind(Box::new(text));
            }
            Ok(text.into())
        });
        (outcome.unwrap(), self.machine > before)
    }

    fn turn(&mut self, turn: &Turn) {
        self.index += 1;
        self.time += turn.millis;
        self.naive.advance(self.time);
        match &turn.op {
            Op::Open { settings } => {
                self.naive.open(self.index, *settings);
                let outcome = self.apply(EntryKind::SessionOpen, settings.encode(), 0, false);
                let opened = Outcome::SessionOpened(SessionId(self.index));
                assert_eq!(outcome, (Some(opened), false));
                self.opened.push(self.index);
            }
            Op::Command { session, above, raise, reply, panics } => {
                let id = self.pick(session);
                let sequence = self.floor_of(id, *above);
                self.command(id, sequence, self.floor_of(id, *raise), *reply, *panics);
            }
            Op::KeepAlive { session, raise } => {
                let id = self.pick(session);
                let floor = self.floor_of(id, *raise);
                let expected = match self.naive.touch(self.index, id, floor) {
                    Some(_) => Outcome::SessionDone,
                    None => Outcome::SessionExpired,
                };
                let payload = encode_keep_alive(SessionId(id), floor);
                let outcome = self.apply(EntryKind::SessionKeepAlive, payload, 0, false);
                assert_eq!(outcome, (Some(expected), false));
            }
            Op::Close { session } => {
                let id = self.pick(session);
                self.naive.sessions.remove(&id);
                let payload = encode_close(SessionId(id));
                let outcome = self.apply(EntryKind::SessionClose, payload, 0, false);
                assert_eq!(outcome, (Some(Outcome::SessionDone), false));
            }
            Op::Plain => {
                let (outcome, seen) = self.apply(EntryKind::Plain, encode_plain(0, b""), 3, false);
                assert!(seen && matches!(outcome, Some(Outcome::Applied(_))));
            }
            Op::Blank => {
                let payload = encode_blank(self.time);
                assert_eq!(self.apply(EntryKind::Blank, payload, 0, false), (None, false));
            }
            Op::Membership => {
                let outcome = self.apply(EntryKind::Membership, Bytes::new(), 0, false);
                assert_eq!(outcome, (None, false));
            }
        }
    }

    fn command(&mut self, id: u64, sequence: u64, floor: u64, reply: usize, panics: bool) {
        let expected = self.naive.admit(self.index, id, sequence, floor);
        let header = CommandHeader { session: SessionId(id), sequence, floor, version: 0 };
        let payload = encode_command(&header, b"");
        let (outcome, seen) = self.apply(EntryKind::SessionCommand, payload, reply, panics);
        let outcome = outcome.unwrap();
        match expected {
            Some(expected) => assert_eq!((&outcome, seen), (&expected, false)),
            None => {
                assert!(seen, "session {id} sequence {sequence} was not applied");
                let first = self.ever.insert((id, sequence), outcome.clone());
                assert_eq!(first, None, "session {id} sequence {sequence} was applied twice");
                self.naive.keep(id, sequence, outcome.clone());
            }
        }
        match &outcome {
            Outcome::Applied(_) | Outcome::Panicked(_) => {
                assert_eq!(self.ever.get(&(id, sequence)), Some(&outcome), "another answer");
            }
            Outcome::SessionFull => {
                assert!(!self.ever.contains_key(&(id, sequence)), "refused, but it was applied");
            }
            _ => {}
        }
    }

    /// What must hold between any two entries.
    fn check(&self) {
        let table = self.applier.sessions();
        assert_eq!(table.len(), self.naive.sessions.len());
        for (id, session) in &self.naive.sessions {
            assert!(table.contains(SessionId(*id)), "session {id} is missing");
            assert!(session.kept.len() <= session.settings.window as usize);
            assert!(session.bytes() < LARGEST_SESSION);
        }
        assert_eq!(table.reply_bytes(), self.naive.bytes());
        assert!(table.reply_bytes() <= LIMITS.total_bytes.max(LARGEST_SESSION));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn any_log_is_applied_as_the_simplest_table_would(
        turns in prop::collection::vec(turn(), 1..300),
    ) {
        // One run goes through snapshots, the other never does: they must not differ in a byte.
        let (mut run, mut straight) = (Run::new(), Run::new());
        for turn in &turns {
            if turn.restarts {
                let bytes = run.applier.encode();
                run.applier = Applier::decode_with(&bytes, LIMITS).unwrap();
                prop_assert_eq!(run.applier.encode(), bytes);
            }
            run.turn(turn);
            straight.turn(turn);
            run.check();
            prop_assert_eq!(run.applier.checksum(), straight.applier.checksum());
        }
        prop_assert_eq!(run.applier.encode(), straight.applier.encode());
    }
}
