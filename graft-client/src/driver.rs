//! The one task of a client: all that takes time or must be sent again happens here.

use std::{
    future::poll_fn,
    mem,
    sync::Arc,
    task::{Context, Poll},
};

use graft_core::{BoxFuture, ClientRequest, Link, NodeId};

use crate::{
    shared::{Shared, duration, nanos},
    slots::{NEVER, Phase, RequestId, Target, Ticket},
    state::{After, Life, MAX_HOPS, State},
    upkeep::{Lost, rehome},
};

/// How many requests are looked at or sent again under one lock.
const AT_ONCE: u32 = 64;

pub(crate) struct Driver {
    shared: Arc<Shared>,
    link: Arc<dyn Link>,
    rng: fastrand::Rng,
    due: Vec<Ticket>,
    outbox: Vec<(NodeId, ClientRequest)>,
}

/// What follows a turn.
enum Turn {
    /// Another one, after others had theirs.
    Again,
    /// Sleep, unless something happens.
    Sleep(u64),
    /// The client is gone.
    End,
}

impl Driver {
    pub(crate) fn new(shared: Arc<Shared>, link: Arc<dyn Link>) -> Self {
        let rng = fastrand::Rng::with_seed(shared.runtime.random());
        Self { shared, link, rng, due: Vec::new(), outbox: Vec::new() }
    }

    pub(crate) async fn run(mut self) {
        loop {
            match self.turn() {
                Turn::Again => yield_now().await,
                Turn::Sleep(until) => self.sleep(until).await,
                Turn::End => return,
            }
        }
    }

    fn turn(&mut self) -> Turn {
        let now = self.shared.now();
        if self.look_around(now) != Life::Running {
            return Turn::End;
        }
        self.resend(now);
        let mut state = self.shared.lock();
        if state.has_work() {
            return Turn::Again;
        }
        let until = state.next_wake();
        state.armed = until;
        state.poked = false;
        Turn::Sleep(until)
    }

    /// Finds out what must be done, and puts it into the list of what is ready.
    fn look_around(&mut self, now: u64) -> Life {
        let mut after = After::default();
        let mut state = self.shared.lock();
        let life = state.life;
        if life != Life::Running {
            let close = state.close(now);
            drop(state);
            if let Some((leader, request)) = close {
                // Nobody waits for the answer: a session that is not closed here expires.
                let _unsent = self.link.send(leader, request);
            }
            return life;
        }
        let lost = Lost { gone: mem::take(&mut state.gone), elected: state.elected.take() };
        let found = mem::take(&mut state.found);
        if state.slots.nearest() <= now {
            state.slots.take_due(now, &mut self.due);
        }
        state.care_for_session(now, &self.shared.config, &mut after);
        let slots = if found || lost.is_any() { state.slots.count() } else { 0 };
        drop(state);
        after.run();
        let mut from = 0;
        while from < slots {
            let until = slots.min(from + AT_ONCE);
            self.change(|state, after| {
                (from..until).for_each(|slot| state.sweep(slot, &lost, found, after));
            });
            from = until;
        }
        let mut due = mem::take(&mut self.due);
        for some in due.chunks(AT_ONCE as usize) {
            self.change(|state, after| {
                some.iter().for_each(|ticket| state.on_due(*ticket, now, after));
            });
        }
        due.clear();
        self.due = due;
        life
    }

    fn change(&self, change: impl FnOnce(&mut State, &mut After)) {
        let mut after = After::default();
        let mut state = self.shared.lock();
        change(&mut state, &mut after);
        drop(state);
        after.run();
    }

    /// Sends a batch of what is ready.
    fn resend(&mut self, now: u64) {
        if self.shared.lock().ready.is_empty() {
            return;
        }
        let servers = self.link.servers();
        let shared = Arc::clone(&self.shared);
        let mut after = After::default();
        let mut state = shared.lock();
        for _ in 0..AT_ONCE {
            let Some(ticket) = state.ready.pop_front() else {
                break;
            };
            let send = self.prepare(&mut state, ticket, &servers, now, &mut after);
            self.outbox.extend(send);
        }
        drop(state);
        after.run();
        for (to, request) in self.outbox.drain(..) {
            let (ticket, attempt) = RequestId(request.request_id).split();
            if let Err(error) = self.link.send(to, request) {
                shared.on_link_error(ticket, attempt, &error);
            }
        }
    }

    /// What to send for a slot that is ready, if it is not put off or ended instead.
    fn prepare(
        &mut self,
        state: &mut State,
        ticket: Ticket,
        servers: &[NodeId],
        now: u64,
        after: &mut After,
    ) -> Option<(NodeId, ClientRequest)> {
        let slot = state.slots.get_mut(ticket)?;
        let target = match slot.phase {
            Phase::Ready(target) => target,
            Phase::Granted if !slot.payload.is_empty() => {
                return rehome(state, ticket, now, after);
            }
            _ => return None,
        };
        if now >= slot.deadline {
            state.time_out(ticket.slot, now, after);
            return None;
        }
        if state.leaves_its_session(ticket, after) {
            return None;
        }
        let leader = state.leader();
        let slot = state.slots.at_mut(ticket.slot);
        let to = match target {
            Target::Server(server) => Some(server),
            Target::Seek => leader.or_else(|| slot.next_server(servers)),
            // Another request found the leader while this one was refused.
            Target::Pause { seeking: true } if slot.hops < MAX_HOPS => {
                slot.hops += 1;
                leader.filter(|leader| *leader != slot.server)
            }
            Target::Pause { .. } => None,
        };
        if let Some(to) = to {
            return Some((to, state.resend(ticket.slot, to, now, after)));
        }
        let seeking = !matches!(target, Target::Pause { seeking: false });
        let round = slot.round;
        let backoff = self.backoff(round);
        state.back_off(ticket.slot, now.saturating_add(backoff), seeking);
        None
    }

    /// How long to wait after the `round`-th refusal: exponential, half of it random, so that those
    /// who were refused together do not come back together.
    fn backoff(&mut self, round: u8) -> u64 {
        let config = &self.shared.config;
        let most = nanos(config.backoff_max);
        let full = nanos(config.backoff_min).saturating_mul(1 << round.min(32)).min(most);
        full / 2 + self.rng.u64(0..=full / 2)
    }

    /// Ends at `until`, or when the client has something to do.
    async fn sleep(&self, until: u64) {
        let mut timer: Option<BoxFuture> =
            (until != NEVER).then(|| self.shared.runtime.sleep_until(duration(until)));
        poll_fn(|context| {
            if self.poll_poked(context).is_ready() {
                return Poll::Ready(());
            }
            match &mut timer {
                Some(timer) => timer.as_mut().poll(context),
                None => Poll::Pending,
            }
        })
        .await;
    }

    fn poll_poked(&self, context: &mut Context<'_>) -> Poll<()> {
        let waker = context.waker().clone();
        let mut state = self.shared.lock();
        if state.poked {
            return Poll::Ready(());
        }
        let old = state.driver.replace(waker);
        drop(state);
        drop(old);
        Poll::Pending
    }
}

impl Drop for Driver {
    /// Where the runtime drops the task, nobody would look after the open requests any more.
    fn drop(&mut self) {
        let mut after = After::default();
        let mut state = self.shared.lock();
        state.shut_down(Life::Stopped, &mut after);
        drop(state);
        after.run();
    }
}

/// Lets other tasks run.
async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
