//! The turn: what woke the node, what `Raft` makes of it, and the lanes it orders.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::sync::oneshot;

use super::{
    Detail, Observer, StopReason,
    apply::{ApplyLane, Slice, send_reply},
    clock::{Clock, Timer},
    desk::{DeskOwner, Order},
    events::Events,
    handle::within,
    lanes::Lanes,
    requests::{Admission, OWN_LINK, Rejected, reason_of},
};
use crate::{
    Arrivals, Entries, Envelope, InboxReceiver, Raft, RejectReason, Reply, Request, Runtime, Token,
    Transport,
    raft::{Effects, Input, LoadId, Proposal, Refusal, WriteId},
};

/// Everything a running node works with.
pub(super) struct Driver<'a> {
    pub(super) raft: Raft,
    pub(super) transport: &'a dyn Transport,
    pub(super) runtime: &'a Arc<dyn Runtime>,
    pub(super) observer: Option<Box<dyn Observer>>,
    pub(super) inbox: InboxReceiver,
    pub(super) desk: DeskOwner,
    pub(super) lanes: Lanes<'a>,
    pub(super) apply: ApplyLane,
    pub(super) admission: Admission,
    pub(super) events: Events,
    pub(super) clock: Clock,
    pub(super) timer: Timer,
    pub(super) arrivals: Arrivals,
    /// Requests that did not fit into the turn that took them from the inbox.
    pub(super) backlog: VecDeque<Request>,
    pub(super) woken: Woken,
    pub(super) asked: Asked,
    pub(super) effects: Effects,
    /// Whether the turn before left something to do that wakes nobody. True before the first turn.
    pub(super) unfinished: bool,
}

/// What woke the node, beside what is in `arrivals`. Gathered before the time is read, stepped after.
#[derive(Default)]
pub(super) struct Woken {
    persisted: Option<WriteId>,
    loaded: Vec<(LoadId, Entries)>,
    slice: Option<Slice>,
    orders: VecDeque<Order>,
}

impl Woken {
    fn is_empty(&self) -> bool {
        self.persisted.is_none()
            && self.loaded.is_empty()
            && self.slice.is_none()
            && self.orders.is_empty()
    }
}

/// Those who wait for this turn to end.
#[derive(Default)]
pub(super) struct Asked {
    details: Vec<oneshot::Sender<Detail>>,
    campaigns: Vec<oneshot::Sender<()>>,
    /// By the number of their token; whoever was refused is gone from here.
    transfers: Vec<Option<oneshot::Sender<Result<(), Refusal>>>>,
}

/// Whether the node goes on at once or may sleep until something wakes it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Again,
    Sleep,
}

impl Driver<'_> {
    /// Requests a turn takes in at most: a flood must not hold up a heartbeat.
    const REQUESTS_A_TURN: usize = 8192;
    /// How long checking requests may hold up a turn.
    const ADMIT_A_TURN: Duration = Duration::from_millis(1);
    /// The clock is looked at after so many bytes of requests, or so many small ones.
    const LOOK_EVERY_BYTES: usize = 16 << 10;
    const LOOK_EVERY_REQUESTS: usize = 64;
    /// How often a turn drains at most before it lets the other tasks of its thread run.
    const DRAINS_A_TURN: usize = 32;
    /// How long the machine may hold up a turn.
    const APPLY_A_TURN: Duration = Duration::from_millis(1);
    /// How many entries are shown of the end of the log.
    const TAIL_SHOWN: usize = 20;

    /// One turn for each time the node is woken. Every source of wake-ups has been polled when this
    /// returns, so none is missed.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<StopReason> {
        match self.turn(context) {
            Err(stop) => Poll::Ready(stop),
            Ok(Next::Sleep) => Poll::Pending,
            Ok(Next::Again) => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn turn(&mut self, context: &mut Context<'_>) -> Result<Next, StopReason> {
        if !self.gather(context)? {
            return Ok(Next::Sleep);
        }
        let (now, unix_millis) = self.clock.read(&**self.runtime);
        self.raft.step(Input::Time { now, unix_millis });
        self.step_woken();
        for envelope in self.arrivals.peers.drain(..) {
            self.raft.step(Input::Message(envelope));
        }
        self.propose();
        let next = self.settle(context)?;
        self.events.after_turn(&self.raft, now);
        self.answer_orders();
        let deadline = self.raft.next_deadline();
        let overdue = self.timer.arm(deadline, now, &**self.runtime, context);
        self.unfinished = next == Next::Again || overdue;
        Ok(if self.unfinished || !self.backlog.is_empty() { Next::Again } else { Next::Sleep })
    }

    /// Looks at everything that may have woken the node, in a fixed order, and registers for all of
    /// it. Says whether there is anything to do.
    fn gather(&mut self, context: &mut Context<'_>) -> Result<bool, StopReason> {
        let with_requests = self.backlog.is_empty();
        self.inbox.take_and_register(context, &mut self.arrivals, with_requests);
        self.woken.persisted = self.lanes.poll_write(context)?;
        while let Some(loaded) = self.lanes.poll_load(context)? {
            self.woken.loaded.push(loaded);
        }
        if let Some(papers) = self.desk.0.take() {
            let returned = papers.returned.map(|returned| self.apply.on_returned(returned));
            self.woken.slice = returned.transpose()?;
            self.woken.orders = papers.orders;
            if papers.stop {
                return Err(StopReason::Asked);
            }
        }
        let busy = self.unfinished
            || !self.arrivals.is_empty()
            || !self.backlog.is_empty()
            || !self.woken.is_empty()
            || self.apply.is_ready();
        // A busy turn reads the time anyway, and the sleep knows whom to wake.
        let fired = (!busy || !self.timer.is_registered(context)) && self.timer.poll_fired(context);
        Ok(busy || fired)
    }

    fn step_woken(&mut self) {
        if let Some(id) = self.woken.persisted.take() {
            self.raft.step(Input::Persisted(id));
        }
        for (id, entries) in self.woken.loaded.drain(..) {
            self.raft.step(Input::Loaded { id, entries });
        }
        if let Some(slice) = self.woken.slice.take() {
            self.on_slice(slice);
        }
        while let Some(order) = self.woken.orders.pop_front() {
            self.step_order(order);
        }
    }

    fn step_order(&mut self, order: Order) {
        match order {
            Order::Detail(answer) => self.asked.details.push(answer),
            Order::Campaign(answer) => {
                self.raft.step(Input::Campaign);
                self.asked.campaigns.push(answer);
            }
            Order::Transfer { to, answer } => {
                let request_id = self.asked.transfers.len() as u64;
                let token = Token { link: OWN_LINK, request_id };
                self.raft.step(Input::Transfer { to, token });
                self.asked.transfers.push(Some(answer));
            }
        }
    }

    /// Proposes all valid requests at once.
    fn propose(&mut self) {
        let waiting = self.backlog.len() + self.arrivals.requests.len();
        if waiting == 0 {
            return;
        }
        self.admission.newest_version = self.transport.newest_version();
        let mut proposals = Vec::with_capacity(waiting.min(Self::REQUESTS_A_TURN));
        let until = self.clock.now() + Self::ADMIT_A_TURN;
        let mut looked = 0;
        let mut requests = std::mem::take(&mut self.arrivals.requests);
        let mut taken = requests.drain(..);
        while proposals.len() < Self::REQUESTS_A_TURN {
            let Some(request) = self.backlog.pop_front().or_else(|| taken.next()) else {
                break;
            };
            // Checking an entry may mean decoding it: a few large ones take as long as many small ones.
            looked += Self::LOOK_EVERY_BYTES / Self::LOOK_EVERY_REQUESTS + request.payload.len();
            self.admit(request, &mut proposals);
            if looked >= Self::LOOK_EVERY_BYTES {
                looked = 0;
                if self.runtime.now() >= until {
                    break;
                }
            }
        }
        self.backlog.extend(taken);
        // The inbox gets this buffer back with the next exchange.
        self.arrivals.requests = requests;
        if !proposals.is_empty() {
            self.raft.step(Input::Propose(proposals));
        }
    }

    fn admit(&mut self, request: Request, proposals: &mut Vec<Proposal>) {
        match self.admission.admit(request, self.clock.now()) {
            Ok(proposal) => proposals.push(proposal),
            Err(Rejected { token, reason }) => {
                if reason == RejectReason::Overloaded {
                    let what = "the log has reached its largest size";
                    self.events.on_overload(self.clock.now(), what);
                }
                send_reply(self.transport, token, Reply::Rejected(reason));
            }
        }
    }

    /// Drains and carries out until nothing more can be done without waiting.
    fn settle(&mut self, context: &mut Context<'_>) -> Result<Next, StopReason> {
        let mut now = self.clock.now();
        let until = now + Self::APPLY_A_TURN;
        for _ in 0..Self::DRAINS_A_TURN {
            self.raft.drain(&mut self.effects);
            if let Some(observer) = &mut self.observer {
                observer.turn(&self.raft);
            }
            if let Some(fatal) = self.effects.fatal.take() {
                return Err(StopReason::Fatal(fatal));
            }
            for envelope in self.effects.messages.drain(..) {
                self.transport.send(Envelope::Peer(envelope));
            }
            self.pass_on_answers();
            let stored = self.work_on_store(context)?;
            if let Some(apply) = self.effects.apply.take() {
                self.apply.begin(apply);
            }
            if stored {
                // What became durable is acknowledged before the machine takes its time.
                continue;
            }
            if now >= until && self.apply.is_ready() {
                return Ok(Next::Again);
            }
            match self.apply.run(now, until)? {
                None => return Ok(Next::Sleep),
                Some(slice) => {
                    now = slice.ended;
                    if !self.on_slice(slice) {
                        return Ok(Next::Again);
                    }
                }
            }
        }
        Ok(Next::Again)
    }

    fn pass_on_answers(&mut self) {
        for answer in self.effects.answers.drain(..) {
            if answer.token.link == OWN_LINK {
                let asker = usize::try_from(answer.token.request_id).ok();
                let asker = asker.and_then(|at| self.asked.transfers.get_mut(at)?.take());
                if let Some(asker) = asker {
                    // Whoever no longer waits for the answer needs none.
                    let _ = asker.send(Err(answer.refusal));
                }
                continue;
            }
            if answer.refusal == Refusal::Overloaded {
                let what = "too much is uncommitted or not applied";
                self.events.on_overload(self.clock.now(), what);
            }
            let reason = reason_of(answer.refusal, &self.raft);
            send_reply(self.transport, answer.token, Reply::Rejected(reason));
        }
    }

    /// Begins what `Raft` wants of the store. Says whether some of it is done already.
    fn work_on_store(&mut self, context: &mut Context<'_>) -> Result<bool, StopReason> {
        let mut done = false;
        if let Some(batch) = self.effects.write.take() {
            self.lanes.begin_write(batch);
            if let Some(id) = self.lanes.poll_write(context)? {
                self.raft.step(Input::Persisted(id));
                done = true;
            }
        }
        if !self.effects.loads.is_empty() {
            for load in self.effects.loads.drain(..) {
                self.lanes.begin_load(load);
            }
            while let Some((id, entries)) = self.lanes.poll_load(context)? {
                self.raft.step(Input::Loaded { id, entries });
                done = true;
            }
        }
        Ok(done)
    }

    /// Takes in what a slice did. Says whether it finished its batch.
    fn on_slice(&mut self, slice: Slice) -> bool {
        self.admission.on_applied(slice.bytes, &mut self.events);
        if let Some(slow) = slice.slow {
            self.events.on_slow(slice.ended, slow, self.apply.is_inline());
        }
        let Some(index) = slice.finished else {
            return false;
        };
        let checkpoints = slice.checkpoints;
        self.raft.step(Input::Applied { index, checkpoints });
        true
    }

    fn answer_orders(&mut self) {
        // Whoever no longer waits for an answer needs none: that is all a failed send says.
        for asker in self.asked.transfers.drain(..).flatten() {
            let _ = asker.send(Ok(()));
        }
        for asker in self.asked.campaigns.drain(..) {
            let _ = asker.send(());
        }
        for asker in self.asked.details.drain(..) {
            let _ = asker.send(Detail {
                raft: self.raft.status(),
                tail: self.raft.entries_tail(Self::TAIL_SHOWN),
                open_requests: self.raft.open_proposals().count() + self.apply.waiting().count(),
                log_bytes: self.admission.log_bytes,
            });
        }
    }

    /// Ends the node: nobody who waits is left without an answer, and the transport is closed.
    pub(super) async fn finish(&mut self, reason: &StopReason, timeout: Duration) {
        let runtime = self.runtime;
        let deadline = runtime.now().saturating_add(timeout);
        self.inbox.close();
        self.refuse_unproposed();
        if self.apply.is_away() {
            // Whoever starts this server again must not find its machine still at work.
            let back = poll_fn(|context| self.poll_machine_back(context));
            within(&**runtime, deadline, back).await;
        }
        // The turn that stopped may have been cut short behind its drain.
        self.pass_on_answers();
        let issued = self.effects.apply.iter().flat_map(|apply| &apply.waiting);
        let issued = issued.map(|(_, token)| *token);
        for token in self.apply.waiting().chain(issued).chain(self.raft.open_proposals()) {
            refuse(self.transport, token, true);
        }
        let closed = within(&**runtime, deadline, self.transport.close()).await;
        if closed.is_none() {
            self.events.on_slow_close(timeout);
        }
        self.events.on_stop(reason);
    }

    fn refuse_unproposed(&mut self) {
        let mut rest = Arrivals::default();
        self.inbox.take_now(&mut rest);
        let taken = self.backlog.drain(..).chain(self.arrivals.requests.drain(..));
        for request in taken.chain(rest.requests) {
            let token = Token { link: request.link, request_id: request.request_id };
            refuse(self.transport, token, false);
        }
        self.arrivals.peers.clear();
    }

    fn poll_machine_back(&mut self, context: &mut Context<'_>) -> Poll<()> {
        // The inbox is closed and empty; it still passes on wake-ups.
        self.inbox.take_and_register(context, &mut self.arrivals, true);
        match self.desk.0.take().and_then(|papers| papers.returned) {
            None => Poll::Pending,
            Some(returned) => {
                // The node stops already, whatever came of the slice.
                let _ = self.apply.on_returned(returned);
                Poll::Ready(())
            }
        }
    }
}

fn refuse(transport: &dyn Transport, token: Token, proposed: bool) {
    let reason = RejectReason::Stopping { proposed };
    send_reply(transport, token, Reply::Rejected(reason));
}
