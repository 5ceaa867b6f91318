//! The apply lane: committed entries go through the session table into the machine, in slices, either
//! in the node's turn or on a thread of the machine's own.

use std::{
    any::Any,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use super::{
    StopReason,
    desk::Desk,
    pace::{Pace, Slow},
};
use crate::{
    ApplyMode, Checkpoint, Entries, Envelope, Index, Reply, ReplyEnvelope, Runtime, StateMachine,
    Token, Transport,
    raft::{self, Mutant, Switch},
    session::{Applier, ApplyError},
};

/// Runs one batch of committed entries at a time.
pub(super) struct ApplyLane {
    mode: ApplyMode,
    desk: Arc<Desk>,
    runtime: Arc<dyn Runtime>,
    place: Place,
    /// What is being applied; it goes to the thread with the machine.
    batch: Option<Batch>,
    /// Who waits for entries that are on the thread.
    away: Vec<Token>,
}

/// Where the machine is.
enum Place {
    Here(Box<Works>),
    /// On its thread.
    Away,
    /// Its thread ended without giving it back.
    Lost,
}

/// The machine with its session table, and what an entry's outcome needs on its way out.
pub(super) struct Works {
    pub(super) machine: Box<dyn StateMachine>,
    pub(super) applier: Applier,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) pace: Pace,
    /// Replies that have not left yet, between two of which nothing else happens.
    pub(super) replies: Vec<ReplyEnvelope>,
    pub(super) switch: Switch,
}

/// Entries that are being applied, and who waits for them.
struct Batch {
    entries: Entries,
    waiting: Vec<(Index, Token)>,
    /// How many of `waiting` have their answer.
    answered: usize,
    /// Checkpoints passed so far.
    checkpoints: Vec<Checkpoint>,
}

/// What one slice did.
#[derive(Debug, Default)]
pub(super) struct Slice {
    /// Set when the batch is finished: its last entry.
    pub(super) finished: Option<Index>,
    /// The checkpoints passed in the whole batch, once it is finished.
    pub(super) checkpoints: Vec<Checkpoint>,
    /// The size of the entries that were applied.
    pub(super) bytes: u64,
    /// The slowest stretch that took longer than a heartbeat.
    pub(super) slow: Option<Slow>,
    /// When it ended.
    pub(super) ended: Duration,
}

/// What came back from the machine's thread.
pub(super) enum Returned {
    Slice(Box<Job>, Result<Slice, StopReason>),
    Lost { reason: String },
}

/// What goes to the machine's thread.
pub(super) struct Job {
    works: Box<Works>,
    batch: Batch,
}

impl ApplyLane {
    /// How long a thread keeps the machine before it reports: long against the cost of a hand-over.
    const THREAD_BUDGET: Duration = Duration::from_millis(5);

    pub(super) fn new(works: Works, desk: Arc<Desk>) -> Self {
        Self {
            mode: works.machine.apply_mode(),
            desk,
            runtime: Arc::clone(&works.runtime),
            place: Place::Here(Box::new(works)),
            batch: None,
            away: Vec::new(),
        }
    }

    /// Takes in the next batch. There is at most one at a time: that is `Raft`'s promise.
    pub(super) fn begin(&mut self, apply: raft::Apply) {
        assert!(self.batch.is_none() && !self.is_away(), "the batch before was not finished");
        self.batch = Some(Batch {
            entries: apply.entries,
            waiting: apply.waiting,
            answered: 0,
            checkpoints: Vec::new(),
        });
    }

    /// Whether there is something to apply and the machine is here to do it.
    pub(super) const fn is_ready(&self) -> bool {
        self.batch.is_some() && matches!(self.place, Place::Here(_))
    }

    /// Whether the machine is on its thread.
    pub(super) const fn is_away(&self) -> bool {
        matches!(self.place, Place::Away)
    }

    /// Whether the machine runs in the node's turn.
    pub(super) fn is_inline(&self) -> bool {
        self.mode == ApplyMode::Inline
    }

    /// Runs a slice in the turn, from `now` to about `until`, or hands one to the machine's thread.
    /// `None` where nothing more can be done here now.
    ///
    /// # Errors
    ///
    /// The node must stop: an entry does not decode.
    pub(super) fn run(
        &mut self,
        now: Duration,
        until: Duration,
    ) -> Result<Option<Slice>, StopReason> {
        if !self.is_inline() {
            self.hand_over();
            return Ok(None);
        }
        let (Place::Here(works), Some(batch)) = (&mut self.place, &mut self.batch) else {
            return Ok(None);
        };
        let slice = works.apply(batch, now, until)?;
        if slice.finished.is_some() {
            self.batch = None;
        }
        Ok(Some(slice))
    }

    fn hand_over(&mut self) {
        if !self.is_ready() {
            return;
        }
        let Some(batch) = self.batch.take() else {
            return;
        };
        let Place::Here(works) = mem::replace(&mut self.place, Place::Away) else {
            return;
        };
        let open = &batch.waiting[batch.answered..];
        self.away.extend(open.iter().map(|(_, token)| *token));
        self.desk.on_departure();
        let mut delivery =
            Delivery { desk: Arc::clone(&self.desk), job: Some(Box::new(Job { works, batch })) };
        self.runtime.spawn_blocking(Box::new(move || delivery.run()));
    }

    /// The thread gave the machine back.
    ///
    /// # Errors
    ///
    /// The node must stop: an entry does not decode, or the machine is lost.
    pub(super) fn on_returned(&mut self, returned: Returned) -> Result<Slice, StopReason> {
        match returned {
            Returned::Lost { reason } => {
                self.place = Place::Lost;
                Err(StopReason::MachineFailed { reason })
            }
            Returned::Slice(job, outcome) => {
                self.away.clear();
                let Job { works, batch } = *job;
                self.place = Place::Here(works);
                let finished = matches!(&outcome, Ok(slice) if slice.finished.is_some());
                self.batch = (!finished).then_some(batch);
                outcome
            }
        }
    }

    /// Who waits for entries that are not applied, as far as is known here.
    pub(super) fn waiting(&self) -> impl Iterator<Item = Token> {
        let here = self.batch.iter().flat_map(|batch| {
            let open = &batch.waiting[batch.answered..];
            open.iter().map(|(_, token)| *token)
        });
        self.away.iter().copied().chain(here)
    }
}

/// Carries a job to the thread and sees to it that the node hears of its end, whatever that is.
///
/// A machine that is lost is dropped before anybody hears of it: its drop is its user's code, which
/// may take its time or panic, and the machine is not at rest before that is over.
struct Delivery {
    desk: Arc<Desk>,
    job: Option<Box<Job>>,
}

impl Delivery {
    fn run(&mut self) {
        let Some(mut job) = self.job.take() else {
            return;
        };
        // What the machine panics over is caught further in. A panic here leaves machine and table
        // in an unknown state, and neither is looked at again.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let Job { works, batch } = &mut *job;
            let start = works.runtime.now();
            works.apply(batch, start, start.saturating_add(ApplyLane::THREAD_BUDGET))
        }));
        match outcome {
            Ok(outcome) => self.desk.give_back(Returned::Slice(job, outcome)),
            Err(panic) => self.lose(job, panic_text(&*panic)),
        }
    }

    fn lose(&self, job: Box<Job>, mut reason: String) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(job))) {
            reason = format!("{reason}; dropping it panicked: {}", panic_text(&*panic));
        }
        self.desk.give_back(Returned::Lost { reason });
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(job) = self.job.take() {
            self.lose(job, "its runtime dropped the work before running it".into());
        }
    }
}

impl Works {
    /// Replies that leave together: enough to share the price, and few enough that the first of them
    /// does not wait long.
    const REPLIES: usize = 64;

    /// The same where the machine is on a thread because it may block: then no reply waits for the entry
    /// behind it.
    const REPLIES_OF_A_THREAD: usize = 1;

    /// Applies entries from the front of `batch` until it is finished or it is about `until`.
    fn apply(
        &mut self,
        batch: &mut Batch,
        start: Duration,
        until: Duration,
    ) -> Result<Slice, StopReason> {
        let applied = self.apply_entries(batch, start, until);
        // What was answered before an entry that stops the node is answered.
        self.transport.send_replies(&mut self.replies);
        applied
    }

    fn apply_entries(
        &mut self,
        batch: &mut Batch,
        start: Duration,
        until: Duration,
    ) -> Result<Slice, StopReason> {
        let mut slice = Slice::default();
        let mut reached = Index(0);
        let together = match self.machine.apply_mode() {
            ApplyMode::Inline => Self::REPLIES,
            ApplyMode::Thread => Self::REPLIES_OF_A_THREAD,
        };
        self.pace.begin(start, batch.entries.first_index());
        'runs: for run in batch.entries.runs() {
            for entry in run.iter() {
                reached = entry.log_id.index;
                if self.switch.is(Mutant::ExpiryByOwnClock) {
                    self.applier.age(self.runtime.now());
                }
                let outcome = self.applier.apply(entry, &mut *self.machine)?;
                let by_position = self.switch.is(Mutant::AnswersByPosition);
                match (batch.waiting.get(batch.answered), outcome) {
                    (Some((index, token)), Some(outcome)) if *index == reached || by_position => {
                        batch.answered += 1;
                        self.replies.push(reply_to(*token, outcome.into()));
                        if self.replies.len() >= together {
                            self.transport.send_replies(&mut self.replies);
                        }
                    }
                    _ => {}
                }
                if let Some(checkpoint) = self.applier.checkpoint() {
                    batch.checkpoints.push(checkpoint);
                }
                if self.pace.is_due() && self.pace.look(self.runtime.now(), reached) >= until {
                    break 'runs;
                }
            }
        }
        if !self.pace.has_just_looked() {
            self.pace.look(self.runtime.now(), reached);
        }
        slice.ended = self.pace.since;
        slice.slow = self.pace.slowest.take();
        let all = batch.entries.size();
        if batch.entries.last_log_id().is_none_or(|last| last.index == reached) {
            slice.bytes = all as u64;
            slice.finished = Some(reached);
            slice.checkpoints = mem::take(&mut batch.checkpoints);
        } else {
            batch.entries.drop_below(reached.next());
            slice.bytes = (all - batch.entries.size()) as u64;
        }
        Ok(slice)
    }
}

impl From<ApplyError> for StopReason {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Undecodable { index, version, reason } => {
                Self::Undecodable { index, version, reason }
            }
            ApplyError::Malformed { index, source } => {
                Self::Malformed { index, reason: source.to_string() }
            }
        }
    }
}

/// Sends what came of a request.
pub(super) fn send_reply(transport: &dyn Transport, token: Token, reply: Reply) {
    transport.send(Envelope::Reply(reply_to(token, reply)));
}

const fn reply_to(token: Token, reply: Reply) -> ReplyEnvelope {
    ReplyEnvelope { link: token.link, request_id: token.request_id, reply }
}

/// The words of a panic.
fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without words").to_owned()
}
