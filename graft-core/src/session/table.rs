//! The table of sessions (thesis §6.3, PROTOCOL's sessions): who has had what applied.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    hash::{BuildHasherDefault, Hasher},
};

use super::{
    CommandHeader, Outcome, SessionSettings,
    idle::{IdleOrder, Slot},
    replies::Replies,
};
use crate::{Index, LogTime, SessionId, types::mix};

/// All sessions of a cluster, the same on every server at the same index.
///
/// # Rules
///
/// - A session's id is the index of the entry that opened it, so no session can come back.
/// - A command whose session is not here is not applied: [`Outcome::SessionExpired`].
/// - The floor of a session only rises. A sequence below it is not applied: [`Outcome::Forgotten`].
///   Replies below it are dropped.
/// - A sequence that was applied is answered with the reply that was kept.
/// - A sequence at `floor + window` or above is not applied: [`Outcome::SessionFull`].
/// - A session whose kept replies have reached [`SessionTable::SESSION_BYTES`] applies nothing but the
///   sequence at its floor: [`Outcome::SessionFull`]. The floor is exempt because without its answer
///   the client cannot move on. So a session is over its bound by two replies at most.
/// - Any other sequence is applied, in whatever order they come, and its reply is kept.
/// - Every entry that names a session makes it the one that was active last. A session that was idle
///   for longer than its time to live ends before the next entry of any kind.
/// - An open entry ends the sessions idle for longest where the table holds as many as that entry
///   allows, two at most: so the table follows a smaller limit a session at a time, and a client that
///   states a small one by mistake does not empty it.
/// - Where all kept replies together pass [`SessionTable::TOTAL_BYTES`], sessions that keep any, beside
///   the one just served, end, the one idle for longest first, until an eighth of the bound is free.
///
/// A session ends as a whole, never a reply of it: what was applied is never forgotten while its
/// session lives and its floor is not above it. That makes a second application impossible.
///
/// # Cost
///
/// A command costs a lookup and a few writes, whatever the number of sessions; opening, closing and
/// expiring costs their logarithm. A session takes some 150 bytes beside its replies.
#[derive(Clone)]
pub struct SessionTable {
    /// Sessions by slot; a free slot has the id zero.
    pub(super) slots: Vec<Session>,
    free: Vec<Slot>,
    /// Never iterated: its order means nothing.
    by_id: HashMap<SessionId, Slot, BuildHasherDefault<IdHasher>>,
    /// Where the last command found its session.
    last_found: Slot,
    /// Every session, in the order of its last activity.
    pub(super) idle: IdleOrder,
    /// Every session at a moment not after its deadline, where it is looked at again.
    checks: BTreeSet<(u64, Slot)>,
    /// Before this moment no session is looked at.
    next_check: u64,
    /// The latest time any entry had.
    pub(super) now: LogTime,
    /// What all kept replies cost.
    bytes: u64,
    limits: Limits,
}

#[derive(Clone, Default)]
pub(super) struct Session {
    pub(super) id: SessionId,
    /// Below it, nothing is applied and nothing kept.
    pub(super) floor: u64,
    pub(super) last_active: LogTime,
    pub(super) ttl_millis: u64,
    pub(super) window: u32,
    /// The moment under which it stands in `checks`.
    pub(super) check: u64,
    /// All at or above `floor`, and below `floor + window`.
    pub(super) replies: Replies,
}

impl Session {
    pub(super) const fn deadline(&self) -> u64 {
        self.last_active.0.saturating_add(self.ttl_millis)
    }
}

/// The bounds of [`SessionTable`] in bytes. Constants but for tests: replicas must agree on them.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) session_bytes: u64,
    pub(super) total_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { session_bytes: SessionTable::SESSION_BYTES, total_bytes: SessionTable::TOTAL_BYTES }
    }
}

/// What to do with a command.
#[derive(PartialEq, Eq, Debug)]
#[must_use]
pub enum Admission {
    /// Apply it, and hand the outcome to [`SessionTable::keep`] before anything else.
    Apply(Ticket),
    /// Do not apply it: this is the answer.
    Answer(Outcome),
}

/// A command that the table has let through, and whose outcome it expects.
#[derive(PartialEq, Eq, Debug)]
#[must_use]
pub struct Ticket {
    session: SessionId,
    sequence: u64,
}

impl SessionTable {
    /// How many bytes of replies a session may keep before it must move its floor. Every reply counts
    /// 32 bytes beside its own.
    pub const SESSION_BYTES: u64 = 16 << 20;
    /// How many bytes of replies all sessions may keep.
    pub const TOTAL_BYTES: u64 = 256 << 20;
    /// How many sessions an open entry ends at most.
    const EVICTIONS_PER_OPEN: usize = 2;

    /// No sessions, at time zero.
    #[must_use]
    pub fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    pub(super) fn with_limits(limits: Limits) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_id: HashMap::default(),
            last_found: 0,
            idle: IdleOrder::default(),
            checks: BTreeSet::new(),
            next_check: u64::MAX,
            now: LogTime(0),
            bytes: 0,
            limits,
        }
    }

    /// How many sessions are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether no session is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Whether `session` is open.
    #[must_use]
    pub fn contains(&self, session: SessionId) -> bool {
        self.by_id.contains_key(&session)
    }

    /// What the kept replies cost in all, in bytes.
    #[must_use]
    pub const fn reply_bytes(&self) -> u64 {
        self.bytes
    }

    /// The latest time the table was told.
    #[must_use]
    pub const fn now(&self) -> LogTime {
        self.now
    }

    /// Takes in the time of the entry that comes next, and ends the sessions whose time it passes. A
    /// time before the latest counts as the latest.
    #[inline]
    pub fn advance(&mut self, time: LogTime) {
        self.now = self.now.max(time);
        if self.now.0 > self.next_check {
            self.expire();
        }
    }

    /// Opens a session with `settings`, moved into their ranges. Its id is `index`, that of its entry.
    ///
    /// # Panics
    ///
    /// Where a session with that id is open: an entry is applied once.
    pub fn open(&mut self, index: Index, settings: SessionSettings) -> SessionId {
        let id = SessionId(index.0);
        assert!(!self.by_id.contains_key(&id), "session {id} was opened before");
        let settings = settings.clamped();
        for _ in 0..Self::EVICTIONS_PER_OPEN {
            if self.len() < settings.max_sessions as usize {
                break;
            }
            if let Some(oldest) = self.idle.oldest() {
                self.remove(oldest);
            }
        }
        self.insert(Session {
            id,
            floor: 0,
            last_active: self.now,
            ttl_millis: settings.ttl_millis,
            window: settings.window,
            check: 0,
            replies: Replies::default(),
        });
        id
    }

    /// Keeps a session from expiring and raises its floor.
    pub fn keep_alive(&mut self, session: SessionId, floor: u64) -> Outcome {
        match self.find(session) {
            Some(slot) => {
                self.touch(slot, floor);
                Outcome::SessionDone
            }
            None => Outcome::SessionExpired,
        }
    }

    /// Ends a session. One that is not there has been ended: that is an answer to the same question.
    pub fn close(&mut self, session: SessionId) -> Outcome {
        if let Some(slot) = self.find(session) {
            self.remove(slot);
        }
        Outcome::SessionDone
    }

    /// Says whether a command is to be applied.
    #[inline]
    pub fn admit(&mut self, command: &CommandHeader) -> Admission {
        let Some(slot) = self.find(command.session) else {
            return Admission::Answer(Outcome::SessionExpired);
        };
        self.touch(slot, command.floor);
        let session = &self.slots[slot as usize];
        let sequence = command.sequence;
        let Some(above) = sequence.checked_sub(session.floor) else {
            return Admission::Answer(Outcome::Forgotten);
        };
        if let Some(reply) = session.replies.find(sequence) {
            return Admission::Answer(reply.to_outcome());
        }
        let is_full = above > 0 && session.replies.bytes() >= self.limits.session_bytes;
        if is_full || above >= u64::from(session.window) {
            return Admission::Answer(Outcome::SessionFull);
        }
        Admission::Apply(Ticket { session: command.session, sequence })
    }

    /// Keeps the outcome of a command that [`admit`](Self::admit) let through.
    ///
    /// # Panics
    ///
    /// Where the session was ended between the two, or the outcome is none of a command that was
    /// applied.
    #[expect(clippy::needless_pass_by_value, reason = "a ticket is good for one outcome")]
    #[inline]
    pub fn keep(&mut self, ticket: Ticket, outcome: &Outcome) {
        let Ticket { session, sequence } = ticket;
        let slot = self.find(session);
        assert!(slot.is_some(), "session {session} went before its reply came");
        let slot = slot.unwrap_or_default();
        let replies = &mut self.slots[slot as usize].replies;
        let before = replies.bytes();
        match outcome {
            Outcome::Applied(reply) => replies.keep(sequence, reply),
            Outcome::Panicked(message) => replies.keep_panic(sequence, message),
            other => panic!("{other:?} is no outcome of a command that was applied"),
        }
        self.bytes += replies.bytes() - before;
        if self.bytes > self.limits.total_bytes {
            self.shed(slot);
        }
    }

    /// What a known bug did: of the session that was served last only the latest reply stays.
    pub(super) fn keep_latest_alone(&mut self) {
        let replies = &mut self.slots[self.last_found as usize].replies;
        let before = replies.bytes();
        replies.forget_all_but_last();
        self.bytes -= before - replies.bytes();
    }

    #[inline]
    fn find(&mut self, session: SessionId) -> Option<Slot> {
        // Requests of one client often follow each other.
        let last = self.slots.get(self.last_found as usize);
        if last.is_some_and(|last| last.id == session) && session != SessionId(0) {
            return Some(self.last_found);
        }
        let slot = *self.by_id.get(&session)?;
        self.last_found = slot;
        Some(slot)
    }

    /// Notes that a session was active and wants no answers below `floor` any more.
    #[inline]
    fn touch(&mut self, slot: Slot, floor: u64) {
        self.idle.touch(slot);
        let session = &mut self.slots[slot as usize];
        session.last_active = self.now;
        if floor > session.floor {
            session.floor = floor;
            let before = session.replies.bytes();
            session.replies.forget_below(floor);
            self.bytes -= before - session.replies.bytes();
        }
    }

    /// Puts a session in, as the one that was active last.
    pub(super) fn insert(&mut self, mut session: Session) {
        session.check = session.deadline();
        let (id, check) = (session.id, session.check);
        self.bytes += session.replies.bytes();
        let slot = if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = session;
            slot
        } else {
            self.slots.push(session);
            last_slot(&self.slots)
        };
        self.by_id.insert(id, slot);
        self.idle.push(slot);
        self.checks.insert((check, slot));
        self.next_check = self.next_check.min(check);
    }

    fn remove(&mut self, slot: Slot) {
        let session = std::mem::take(&mut self.slots[slot as usize]);
        self.bytes -= session.replies.bytes();
        self.by_id.remove(&session.id);
        self.idle.remove(slot);
        self.checks.remove(&(session.check, slot));
        self.free.push(slot);
    }

    /// Looks at every session whose check has passed. One that was active since gets a new check, so
    /// activity itself costs nothing here, and a session is looked at once in its time to live.
    fn expire(&mut self) {
        while let Some((check, slot)) = self.checks.first().copied()
            && self.now.0 > check
        {
            let session = &mut self.slots[slot as usize];
            let deadline = session.deadline();
            if self.now.0 > deadline {
                self.remove(slot);
            } else {
                session.check = deadline;
                self.checks.remove(&(check, slot));
                self.checks.insert((deadline, slot));
            }
        }
        self.next_check = self.checks.first().map_or(u64::MAX, |(check, _)| *check);
    }

    /// Ends sessions that keep replies until there is room again. That an eighth is freed at once
    /// makes the walk past those that keep none rare.
    fn shed(&mut self, served: Slot) {
        let enough = self.limits.total_bytes - self.limits.total_bytes / 8;
        let mut next = self.idle.oldest();
        while let Some(slot) = next
            && self.bytes > enough
        {
            next = self.idle.newer(slot);
            if slot != served && self.slots[slot as usize].replies.bytes() > 0 {
                self.remove(slot);
            }
        }
    }
}

impl Default for SessionTable {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SessionTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionTable")
            .field("sessions", &self.len())
            .field("reply_bytes", &self.bytes)
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "there are at most SessionSettings::MAX_SESSIONS slots"
)]
fn last_slot(slots: &[Session]) -> Slot {
    (slots.len() - 1) as Slot
}

/// Spreads session ids, which are log indexes, over a hash table: the same in every process.
#[derive(Clone, Copy, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = mix(self.0 ^ value);
    }
}

#[cfg(test)]
mod tests;
