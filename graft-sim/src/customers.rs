//! The clients: production code of `graft-client` on machines of their own, and customers who ask.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use graft::{Request, RequestError, Server};
use graft_client::Client;
use graft_core::Runtime;

use crate::{
    clock::Clock,
    executor::SimRuntime,
    faults::FaultKind,
    machine::{Placed, Tagged, Witness},
    oracle::{Checker, End, Oracle},
    workload::{EntryOf, ResponseOf, Workload},
    world::{Stage, World},
};

/// A machine with a client.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    runtime: Option<Arc<SimRuntime>>,
    client: Option<Client>,
}

/// By whom a request goes.
enum Way<'a, W: Workload> {
    Client(&'a Client),
    /// A server's own client, in the server's process.
    Server(&'a (dyn Fn(TaggedOf<W>) -> Request<TaggedOf<W>> + Sync)),
}

impl<W: Workload> Clone for Way<'_, W> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<W: Workload> Copy for Way<'_, W> {}

/// What a workload asks, as the oracle knows it.
type TaggedOf<W> = Tagged<EntryOf<W>>;

/// A request whose end the oracle has not heard of. Where nobody waits for it any more, it hears of that.
struct Pending<'a> {
    oracle: &'a Oracle,
    operation: Option<u64>,
}

impl Pending<'_> {
    fn end(mut self, end: &End) {
        if let Some(operation) = self.operation.take() {
            self.oracle.end_request(operation, end);
        }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(operation) = self.operation.take() {
            self.oracle.end_request(operation, &End::Abandoned);
        }
    }
}

impl<W: Workload> World<W> {
    /// Starts the client on machine `at`, with its customers.
    pub(crate) fn open_desk(self: &Arc<Self>, at: usize) {
        let clock = {
            let mut nemesis = self.nemesis();
            let drift = self.swarm.clocks.drift.min(0.01);
            let pace = 1.0 + drift * (nemesis.rng.f64() * 2.0 - 1.0);
            let shown = Duration::from_millis(nemesis.rng.u64(..100_000_000));
            Clock::new(self.kernel.now(), shown, pace, 0)
        };
        let runtime = self.kernel.process(clock);
        let link = Arc::new(self.network.of_client(at, Arc::clone(&runtime)));
        #[cfg_attr(not(feature = "mutants"), expect(unused_mut, reason = "only mutants tune"))]
        let mut config = self.swarm.client.clone();
        #[cfg(feature = "mutants")]
        {
            config.mutant = self.mutant;
        }
        let own = Arc::clone(&runtime) as Arc<dyn Runtime>;
        let client = match Client::new(link, own, config) {
            Ok(client) => client,
            Err(error) => {
                let what = format!("client {at} does not start: {error}");
                self.oracle.accuse(Checker::NothingUnexplained, what);
                return;
            }
        };
        for _ in 0..self.swarm.customers {
            let seed = self.nemesis().rng.u64(..);
            let customer =
                Arc::clone(self).ask_again_and_again(client.clone(), Arc::clone(&runtime), seed);
            runtime.spawn(Box::pin(customer));
        }
        let desk = Desk { runtime: Some(runtime), client: Some(client) };
        let before = std::mem::replace(&mut self.desks()[at], desk);
        drop(before);
    }

    /// The process of a client ends with all its requests, and another one begins.
    pub(crate) fn crash_client(self: &Arc<Self>, at: usize) {
        let desk = std::mem::take(&mut self.desks()[at]);
        if let Some(runtime) = &desk.runtime {
            self.kernel.kill(runtime.id());
        }
        drop(desk);
        self.open_desk(at);
    }

    /// Many requests at once by the client on machine `at`.
    pub(crate) fn burst(self: &Arc<Self>, at: usize, count: usize) {
        let (runtime, client) = {
            let desks = self.desks();
            (desks[at].runtime.clone(), desks[at].client.clone())
        };
        let (Some(runtime), Some(client)) = (runtime, client) else { return };
        for _ in 0..count {
            let seed = self.nemesis().rng.u64(..);
            let (world, client, clock) = (Arc::clone(self), client.clone(), Arc::clone(&runtime));
            runtime.spawn(Box::pin(async move {
                let mut rng = fastrand::Rng::with_seed(seed);
                world.ask(Way::Client(&client), &clock, &mut rng, world.swarm.deadline).await;
            }));
        }
    }

    /// How many requests in a row a client may need until one is answered, once everything has healed: some
    /// go to servers that are silent, and one without an answer is no reason yet to leave a server. Where a deadline
    /// leaves time for many attempts, a client must have found the leader by its second request: with more, one that
    /// stays with a silent server until each deadline would pass.
    pub(crate) fn most_tries(&self) -> u32 {
        /// From so many attempts on a deadline is a long one.
        const MANY_ATTEMPTS: u32 = 5;
        if self.swarm.deadline > self.swarm.client.attempt_timeout * MANY_ATTEMPTS {
            return 2;
        }
        u32::try_from(self.hosts.len()).unwrap_or(u32::MAX).saturating_mul(2) + 4
    }

    /// Each client asks as it always does until it is answered, which must not take many requests.
    pub(crate) fn probe(self: &Arc<Self>) {
        for at in 0..self.swarm.clients {
            let (runtime, client) = {
                let desks = self.desks();
                (desks[at].runtime.clone(), desks[at].client.clone())
            };
            let (Some(runtime), Some(client)) = (runtime, client) else { continue };
            let (world, clock) = (Arc::clone(self), Arc::clone(&runtime));
            let seed = self.nemesis().rng.u64(..);
            runtime.spawn(Box::pin(world.ask_until_answered(at, client, clock, seed)));
        }
    }

    async fn ask_until_answered(
        self: Arc<Self>,
        at: usize,
        client: Client,
        clock: Arc<SimRuntime>,
        seed: u64,
    ) {
        /// So often a session may expire under a request that goes through all the same in the end.
        const MOST_EXPIRIES: u32 = 20;
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut expiries, mut tries) = (0, 0);
        while expiries < MOST_EXPIRIES {
            let reign = self.reign();
            let ask = self.ask(Way::Client(&client), &clock, &mut rng, self.swarm.deadline);
            let Some(error) = ask.await else { return };
            match error {
                // Where the table of sessions is small, clients put each other out.
                RequestError::SessionExpired => expiries += 1,
                RequestError::Timeout { .. } if tries + 1 < self.most_tries() => tries += 1,
                RequestError::NoLeader { .. } if reign.is_some() && reign == self.reign() => {
                    let reign = reign.unwrap_or_default();
                    let what = format!("while {reign}, client {at} is told: {error}");
                    self.oracle.accuse(Checker::NoLeaderIsTrue, what);
                    return;
                }
                _ => {
                    let what = format!(
                        "after everything had healed, request {} of client {at} ended as: {error}",
                        tries + 1
                    );
                    self.oracle.accuse(Checker::RequestsResolve, what);
                    return;
                }
            }
        }
    }

    /// Who leads, and in which term: of those who are within reach, because one that fell silent for good may think
    /// that it leads for as long as nobody tells it otherwise.
    fn reign(&self) -> Option<String> {
        let leader = self.leader().filter(|leader| !self.hosts[*leader].is_lost())?;
        let term = self.oracle.lock().views[leader].term();
        Some(format!("s{leader} leads term {term}"))
    }

    async fn ask_again_and_again(
        self: Arc<Self>,
        client: Client,
        clock: Arc<SimRuntime>,
        seed: u64,
    ) {
        let mut rng = fastrand::Rng::with_seed(seed);
        while self.think(&clock, &mut rng).await {
            self.ask(Way::Client(&client), &clock, &mut rng, self.swarm.deadline).await;
        }
    }

    /// Somebody who asks in the process of a server, by its own client.
    pub(crate) async fn reside<const THREAD: bool>(
        self: Arc<Self>,
        server: Arc<Server<Witness<W, THREAD>>>,
        clock: Arc<SimRuntime>,
        seed: u64,
    ) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let ask = |tagged| server.request(tagged);
        while self.think(&clock, &mut rng).await {
            self.ask(Way::Server(&ask), &clock, &mut rng, self.swarm.deadline).await;
        }
    }

    /// Lets some time pass between two requests. Says whether there is to be another one.
    async fn think(&self, clock: &Arc<SimRuntime>, rng: &mut fastrand::Rng) -> bool {
        let chance = rng.f64().max(1e-6);
        let pause = self.swarm.think.mul_f64((-chance.ln()).min(6.0));
        clock.sleep_until(clock.now() + pause).await;
        self.stage() == Stage::Faults
    }

    /// One request, from its sending to its end. Gives the error it ended with, if it did with one that is
    /// not meant.
    async fn ask(
        &self,
        way: Way<'_, W>,
        clock: &Arc<SimRuntime>,
        rng: &mut fastrand::Rng,
        deadline: Duration,
    ) -> Option<RequestError> {
        let (entry, open) = self.workload().request(rng);
        let faults = self.stage() == Stage::Faults;
        let panics = faults && rng.f64() < self.swarm.panics;
        let cancels = faults && rng.f64() < self.swarm.cancels;
        let operation = self.oracle.begin_request();
        let pending = Pending { oracle: &self.oracle, operation: Some(operation) };
        let tagged = Tagged::new(operation, panics, entry);
        let limit = self.swarm.config.max_entry_bytes;
        let request = match way {
            Way::Client(client) => Request::by(client, limit, &tagged),
            Way::Server(ask) => ask(tagged),
        };
        let request = request.deadline(deadline);
        let began = clock.now();
        let ended = if cancels {
            let patience = self.swarm.think.mul_f64(rng.f64());
            match within(&**clock, began + patience, request).await {
                Some(ended) => ended,
                None => {
                    self.oracle.strike(FaultKind::Cancellation);
                    return None;
                }
            }
        } else {
            request.await
        };
        if matches!(way, Way::Client(_)) {
            // A server's machine may stand still, and its clock may jump.
            self.check_deadline(operation, clock.now().saturating_sub(began), deadline);
        }
        self.conclude(pending, open, ended)
    }

    pub(crate) fn check_deadline(&self, operation: u64, took: Duration, deadline: Duration) {
        /// A client looks at its deadlines every 10 ms.
        const SLACK: Duration = Duration::from_millis(12);
        if took > deadline + SLACK {
            let what =
                format!("request {operation} ended after {took:?}, its deadline was {deadline:?}");
            self.oracle.accuse(Checker::DeadlineKept, what);
        }
    }

    fn conclude(
        &self,
        pending: Pending<'_>,
        open: W::Open,
        ended: Result<Placed<ResponseOf<W>>, RequestError>,
    ) -> Option<RequestError> {
        match ended {
            Ok(Placed { index, response }) => {
                let hash = W::response_hash(&response);
                pending.end(&End::Answered { index, response: hash });
                let fits = self.workload().response(open, &response);
                if let Err(why) = fits {
                    self.oracle.accuse(Checker::ResponseFits, why);
                }
                None
            }
            Err(error) => {
                if matches!(error, RequestError::MachinePanicked { .. }) {
                    self.oracle.strike(FaultKind::MachinePanic);
                }
                pending.end(&End::Failed(error.clone()));
                Some(error)
            }
        }
    }
}

/// What `future` gives, or `None` where that takes until `deadline`.
async fn within<E: graft::Entry>(
    clock: &dyn Runtime,
    deadline: Duration,
    request: Request<E>,
) -> Option<Result<E::Response, RequestError>> {
    let mut request = pin!(request);
    let mut alarm = clock.sleep_until(deadline);
    poll_fn(|context| {
        if let Poll::Ready(ended) = request.as_mut().poll(context) {
            return Poll::Ready(Some(ended));
        }
        Pin::as_mut(&mut alarm).poll(context).map(|()| None)
    })
    .await
}
