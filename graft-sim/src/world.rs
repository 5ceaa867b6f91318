//! One run: a cluster, its clients and its nemesis, from the founding until everything has healed.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use graft_core::NodeId;

use crate::{
    clock::nanos,
    customers::Desk,
    disk::Disk,
    executor::{Executor, Kernel},
    faults::{FaultCounts, FaultKind},
    hosts::Host,
    journal::Journal,
    nemesis::Nemesis,
    network::Network,
    oracle::{Checker, Oracle, Violation},
    swarm::Swarm,
    workload::{Rng, Workload},
};

/// What a run is made of beside its seed.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Options {
    /// How long it lasts, in simulated time. Default 5 minutes.
    pub length: Duration,
    /// Whether to keep a trace in words. Default no: it takes time.
    pub trace: bool,
    /// How many servers there are, where the seed is not to draw it.
    pub servers: Option<usize>,
    /// How many requests a second all clients send together, about, where the seed is not to draw it.
    pub rate: Option<f64>,
    /// A known bug to switch on.
    #[cfg(feature = "mutants")]
    pub mutant: Option<graft_core::raft::Mutant>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            length: Duration::from_secs(300),
            trace: false,
            servers: None,
            rate: None,
            #[cfg(feature = "mutants")]
            mutant: None,
        }
    }
}

impl Options {
    /// Sets the length in simulated time.
    #[must_use]
    pub const fn length(self, length: Duration) -> Self {
        Self { length, ..self }
    }

    /// Sets how many servers there are: one to seven.
    #[must_use]
    pub const fn servers(self, servers: usize) -> Self {
        Self { servers: Some(servers), ..self }
    }

    /// Sets how many requests a second all clients send together, about.
    #[must_use]
    pub const fn rate(self, rate: f64) -> Self {
        Self { rate: Some(rate), ..self }
    }

    /// Switches a known bug on.
    #[cfg(feature = "mutants")]
    #[must_use]
    pub const fn mutant(self, mutant: Option<graft_core::raft::Mutant>) -> Self {
        Self { mutant, ..self }
    }

    /// Keeps a trace in words.
    #[must_use]
    pub const fn trace(self, trace: bool) -> Self {
        Self { trace, ..self }
    }
}

/// What came of a run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// The seed it was made of.
    pub seed: u64,
    /// How long it lasted, in simulated time.
    pub simulated: Duration,
    /// A hash of everything that happened in it: equal hashes are equal runs.
    pub hash: u64,
    /// How many turns of tasks and arrivals of messages there were.
    pub events: u64,
    /// How many requests were sent.
    pub requests: u64,
    /// How many of these were answered.
    pub answered: u64,
    /// How often each kind of fault struck.
    pub faults: FaultCounts,
    /// What did not hold.
    pub violation: Option<Violation>,
    /// The trace, a line an event, where it was asked for.
    pub trace: Vec<String>,
}

/// How far a run is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Stage {
    Faults = 0,
    Healed = 1,
}

/// Everything in a run.
pub(crate) struct World<W: Workload> {
    pub(crate) swarm: Swarm,
    pub(crate) kernel: Kernel,
    pub(crate) oracle: Oracle,
    pub(crate) network: Network,
    pub(crate) hosts: Vec<Host>,
    #[cfg(feature = "mutants")]
    pub(crate) mutant: Option<graft_core::raft::Mutant>,
    desks: Mutex<Vec<Desk>>,
    nemesis: Mutex<Nemesis>,
    workload: Mutex<W>,
    stage: AtomicU8,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the cluster that `seed` draws, with the workload that `make` makes, and says what came of it. The same
/// seed, options and workload give the same run.
pub fn simulate<W: Workload>(
    seed: u64,
    options: &Options,
    make: impl FnOnce(&mut Rng) -> W,
) -> Outcome {
    let mut rng = Rng::with_seed(graft_core::stable_hash(&seed.to_le_bytes()));
    let swarm = Swarm::draw(&mut rng, options);
    let executor = Executor::new(rng.u64(..));
    let world = World::new(swarm, make(&mut rng), &mut rng, &executor, options);
    world.run(&executor, options.length);
    let outcome = world.outcome(seed);
    world.dismantle();
    outcome
}

impl<W: Workload> World<W> {
    fn new(
        swarm: Swarm,
        workload: W,
        rng: &mut Rng,
        executor: &Executor,
        options: &Options,
    ) -> Arc<Self> {
        let kernel = executor.kernel();
        kernel.set_blocking_delay(swarm.blocking_delay);
        let names = (0..swarm.servers).map(|at| format!("server{at}"));
        let nodes: Vec<NodeId> = names.map(|name| NodeId::of_name(&name)).collect();
        let journal = Journal::new(options.trace);
        let oracle = Oracle::new(kernel.clone(), nodes.clone(), swarm.bounds(), journal);
        let network = Network::new(
            nodes,
            swarm.clients,
            swarm.weather,
            rng.u64(..),
            kernel.clone(),
            oracle.clone(),
        );
        let hosts =
            (0..swarm.servers).map(|at| new_host(at, &swarm, rng, &kernel, &oracle)).collect();
        Arc::new(Self {
            hosts,
            network,
            oracle,
            kernel,
            #[cfg(feature = "mutants")]
            mutant: options.mutant,
            desks: Mutex::new((0..swarm.clients).map(|_| Desk::default()).collect()),
            nemesis: Mutex::new(Nemesis::new(rng.u64(..))),
            workload: Mutex::new(workload),
            stage: AtomicU8::new(Stage::Faults as u8),
            swarm,
        })
    }

    /// A world of `workload` in which nobody was started, for tests of what is said of it.
    #[cfg(test)]
    pub(crate) fn idle(executor: &Executor, workload: W) -> Arc<Self> {
        let (mut rng, options) = (Rng::with_seed(1), Options::default());
        let swarm = Swarm::draw(&mut rng, &options);
        Self::new(swarm, workload, &mut rng, executor, &options)
    }

    pub(crate) fn nemesis(&self) -> MutexGuard<'_, Nemesis> {
        lock(&self.nemesis)
    }

    pub(crate) fn workload(&self) -> MutexGuard<'_, W> {
        lock(&self.workload)
    }

    pub(crate) fn desks(&self) -> MutexGuard<'_, Vec<Desk>> {
        lock(&self.desks)
    }

    pub(crate) fn stage(&self) -> Stage {
        if self.stage.load(Ordering::Relaxed) == Stage::Faults as u8 {
            Stage::Faults
        } else {
            Stage::Healed
        }
    }

    fn run(self: &Arc<Self>, executor: &Executor, length: Duration) {
        /// How much of the length is left for healing.
        const HEALING: Duration = Duration::from_secs(10);
        self.oracle.note(|| format!("{:?}", self.swarm));
        (0..self.hosts.len()).for_each(|at| self.boot(at));
        (0..self.swarm.clients).for_each(|at| self.open_desk(at));
        self.let_loose();
        executor.run_until(length.saturating_sub(HEALING).max(length / 2));
        self.heal();
        self.await_within(executor, self.timeouts(20), Checker::LeaderInTime, Self::has_leader);
        // Before more is asked, what was asked ends by its own deadline, by whatever clock, and what was taken in is
        // carried out.
        self.await_requests(executor, self.swarm.deadline * 5 / 4);
        self.await_convergence(executor);
        self.probe();
        self.await_requests(executor, self.swarm.deadline * self.most_tries());
        self.await_convergence(executor);
        self.await_within(executor, self.timeouts(10), Checker::AnsweredOnce, |world| {
            let (at, many) = world.oracle.lock().owes()?;
            Some(format!("s{at} owes {many} answers"))
        });
        executor.run_until(length);
    }

    /// Ends all faults, and sees that all run who may.
    fn heal(self: &Arc<Self>) {
        self.stage.store(Stage::Healed as u8, Ordering::Relaxed);
        self.oracle.note(|| "everything heals".to_owned());
        self.network.calm();
        (0..self.hosts.len()).for_each(|at| self.restore(at));
        self.leave_one_silent();
    }

    /// Lets time pass until `missing` has nothing to say any more.
    fn await_within(
        self: &Arc<Self>,
        executor: &Executor,
        patience: u64,
        checker: Checker,
        missing: impl Fn(&Self) -> Option<String>,
    ) {
        const STEP: Duration = Duration::from_millis(20);
        let begun = self.kernel.now();
        while let Some(what) = missing(self) {
            if self.oracle.violation().is_some() {
                return;
            }
            let now = self.kernel.now();
            if now > begun + patience {
                let waited = Duration::from_nanos(now - begun);
                self.oracle.accuse(checker, format!("{waited:?} after everything healed: {what}"));
                return;
            }
            executor.run_until(Duration::from_nanos(now) + STEP);
        }
    }

    fn await_requests(self: &Arc<Self>, executor: &Executor, longest: Duration) {
        let patience = nanos(longest + self.swarm.client.attempt_timeout);
        self.await_within(executor, patience, Checker::RequestsResolve, |world| {
            match world.oracle.lock().requests.open() {
                0 => None,
                open => Some(format!("{open} requests are open")),
            }
        });
    }

    pub(crate) fn await_convergence(self: &Arc<Self>, executor: &Executor) {
        let patience = self.timeouts(5) + nanos(self.replay_time());
        self.await_within(executor, patience, Checker::ReplicasConverge, Self::has_converged);
    }

    /// How long it may take to replay a log, where each entry costs a read and a wait for a thread, and to
    /// bring all logs to the length of the longest, where what goes together costs a round trip and a sync.
    fn replay_time(&self) -> Duration {
        let lasts: Vec<u64> = {
            let judge = self.oracle.lock();
            let last = |at: usize| judge.views[at].vitals.map_or(0, |vitals| vitals.commit_index.0);
            let longest = self.expected().filter_map(|at| judge.views[at].vitals);
            let longest = longest.map(|vitals| vitals.last.index.0).max();
            self.expected().map(last).chain(longest).collect()
        };
        let (shortest, longest) = (lasts.iter().min(), lasts.iter().max());
        let count = |entries: u64| u32::try_from(entries).unwrap_or(u32::MAX);
        let (shortest, longest) = (*shortest.unwrap_or(&0), *longest.unwrap_or(&0));
        let (pace, weather) = (self.swarm.pace, self.swarm.weather);
        let round = pace.sync + pace.jitter + (weather.delay_min + weather.delay_more) * 2;
        let behind = count(longest - shortest).div_ceil(self.swarm.least_together());
        (pace.read + self.swarm.blocking_delay / 8) / 2 * count(longest) + round * behind
    }

    /// Those who must be there once everything has healed: never fewer than a quorum.
    fn expected(&self) -> impl Iterator<Item = usize> {
        (0..self.hosts.len()).filter(|at| !self.hosts[*at].is_lost())
    }

    /// One leads, and all others follow.
    fn has_leader(&self) -> Option<String> {
        let leader = self.leader().filter(|leader| !self.hosts[*leader].is_lost());
        let Some(leader) = leader else { return Some("nobody leads".into()) };
        let judge = self.oracle.lock();
        let term = judge.views[leader].term();
        let follows = |at: usize| {
            let vitals = judge.views[at].vitals;
            vitals.is_some_and(|vitals| {
                vitals.leader == Some(self.hosts[leader].node) && vitals.hard_state.term == term
            })
        };
        let lacks = self.expected().find(|at| !follows(*at))?;
        Some(format!("s{lacks} does not follow s{leader} ({:?})", self.hosts[lacks].phase()))
    }

    /// All logs are one, and all of it is committed and applied everywhere.
    fn has_converged(&self) -> Option<String> {
        let judge = self.oracle.lock();
        let committed = judge.committed();
        for at in self.expected() {
            let Some(vitals) = judge.views[at].vitals else {
                return Some(format!("s{at} is {:?}", self.hosts[at].phase()));
            };
            let reached = (vitals.last.index.0, vitals.commit_index.0, vitals.last_applied.0);
            if reached != (committed, committed, committed) {
                return Some(format!("s{at} has {reached:?} of {committed}"));
            }
        }
        let applied = judge.all_applied(self.expected());
        (!applied).then(|| "a machine has not carried out everything".into())
    }

    /// Lets go of what holds the world in turn.
    fn dismantle(&self) {
        self.hosts.iter().for_each(Host::dismantle);
        let desks = std::mem::take(&mut *self.desks());
        drop(desks);
    }

    fn outcome(&self, seed: u64) -> Outcome {
        let simulated = Duration::from_nanos(self.kernel.now());
        let (events, order) = self.kernel.tally();
        let mut judge = self.oracle.lock();
        let violation = judge.violation_of_run();
        judge.journal.mix(&[order, events]);
        Outcome {
            seed,
            simulated,
            hash: judge.journal.hash(),
            events,
            requests: judge.requests.total(),
            answered: judge.requests.answered(),
            faults: judge.faults.clone(),
            violation,
            trace: judge.journal.take(),
        }
    }
}

fn new_host(at: usize, swarm: &Swarm, rng: &mut Rng, kernel: &Kernel, oracle: &Oracle) -> Host {
    let disk = Disk::new(at, swarm.pace, rng.u64(..), kernel.clone(), oracle.clone());
    let pace = 1.0 + swarm.clocks.drift * (rng.f64() * 2.0 - 1.0);
    let skew = swarm.clocks.skew_millis;
    let wall_error = if skew == 0 { 0 } else { rng.i64(-skew..=skew) };
    if swarm.clocks.drift > 0.0 {
        oracle.strike(FaultKind::ClockDrift);
    }
    if wall_error != 0 {
        oracle.strike(FaultKind::ClockSkew);
    }
    Host::new(at, disk, pace, wall_error, rng.u64(..))
}
