//! The machines that servers run on, and their operator, who starts them again.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use graft::{ServerName, StartError, Status, StopReason};
use graft_core::{
    BoxFuture, NodeId, Raft, Runtime,
    founding::{FoundingError, FoundingRefusal},
    node::Observer,
};

use crate::{
    clock::{Clock, nanos},
    disk::Disk,
    executor::SimRuntime,
    faults::FaultKind,
    machine::Witness,
    oracle::{Checker, Oracle},
    workload::Workload,
    world::World,
};

/// A machine with a disk and a clock, on which one server runs, or not.
pub(crate) struct Host {
    pub(crate) name: ServerName,
    pub(crate) node: NodeId,
    pub(crate) disk: Disk,
    state: Mutex<State>,
}

struct State {
    rng: fastrand::Rng,
    phase: Phase,
    /// Counts what happened to its process, so that what is planned for one is not done to another.
    chapter: u64,
    runtime: Option<Arc<SimRuntime>>,
    server: Option<Arc<dyn Running>>,
    pace: f64,
    wall_error: i64,
    /// Its disk was emptied, so it must not come back.
    wiped: bool,
    /// It is out of reach for good.
    silent: bool,
    /// Panics of its driver that were ordered and have not been seen.
    panics: u32,
}

/// Where a host's process is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    Down,
    Starting,
    Up,
    /// Its server has stopped for good, and its operator has not come yet.
    Failed,
    /// Its disk was lost: it is not let in any more.
    Expelled,
}

/// A running server, whatever its machine.
pub(crate) trait Running: Send + Sync {
    fn restart(self: Arc<Self>) -> BoxFuture<Result<(), String>>;
    fn transfer(self: Arc<Self>, to: String) -> BoxFuture<Result<(), String>>;
}

impl<M: graft::Machine> Running for graft::Server<M> {
    fn restart(self: Arc<Self>) -> BoxFuture<Result<(), String>> {
        Box::pin(async move { Self::restart(&self).await.map_err(|error| with_causes(&error)) })
    }

    fn transfer(self: Arc<Self>, to: String) -> BoxFuture<Result<(), String>> {
        Box::pin(async move {
            let done = self.transfer_leadership(&to).await;
            done.map_err(|error| with_causes(&error))
        })
    }
}

impl Host {
    pub(crate) fn new(at: usize, disk: Disk, pace: f64, wall_error: i64, seed: u64) -> Self {
        let name = ServerName::from(format!("server{at}"));
        let state = State {
            rng: fastrand::Rng::with_seed(seed),
            phase: Phase::Down,
            chapter: 0,
            runtime: None,
            server: None,
            pace,
            wall_error,
            wiped: false,
            silent: false,
            panics: 0,
        };
        Self { node: NodeId::of_name(name.as_str()), name, disk, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn phase(&self) -> Phase {
        self.lock().phase
    }

    pub(crate) fn is_wiped(&self) -> bool {
        self.lock().wiped
    }

    /// Whether the others must do without it for good.
    pub(crate) fn is_lost(&self) -> bool {
        let state = self.lock();
        state.wiped || state.silent
    }

    pub(crate) fn fall_silent(&self) {
        self.lock().silent = true;
    }

    pub(crate) fn runtime(&self) -> Option<Arc<SimRuntime>> {
        self.lock().runtime.clone()
    }

    /// The server, if it is up, with the runtime that tasks about it belong to.
    pub(crate) fn server(&self) -> Option<(Arc<SimRuntime>, Arc<dyn Running>)> {
        let state = self.lock();
        Some((state.runtime.clone()?, state.server.clone()?))
    }

    pub(crate) fn order_panic(&self) {
        self.lock().panics += 1;
    }

    pub(crate) fn set_wall_error(&self, by: i64) {
        self.lock().wall_error += by;
    }

    /// Lets go of its server, which holds the world.
    pub(crate) fn dismantle(&self) {
        let server = self.lock().server.take();
        drop(server);
    }

    fn new_chapter(&self, phase: Phase) -> u64 {
        let mut state = self.lock();
        state.chapter += 1;
        state.phase = phase;
        state.chapter
    }

    fn is_in(&self, chapter: u64) -> bool {
        self.lock().chapter == chapter
    }
}

impl<W: Workload> World<W> {
    /// Starts the process of host `at`, which must be down.
    pub(crate) fn boot(self: &Arc<Self>, at: usize) {
        let host = &self.hosts[at];
        let chapter = host.new_chapter(Phase::Starting);
        let clock = {
            let mut state = host.lock();
            let uptime = Duration::from_millis(state.rng.u64(..100_000_000));
            state.panics = 0;
            Clock::new(self.kernel.now(), uptime, state.pace, state.wall_error)
        };
        let runtime = self.kernel.process(clock);
        host.lock().runtime = Some(Arc::clone(&runtime));
        self.oracle.note(|| format!("s{at} boots"));
        let task: BoxFuture = if self.swarm.threaded {
            Box::pin(Arc::clone(self).live::<true>(at, chapter, Arc::clone(&runtime)))
        } else {
            Box::pin(Arc::clone(self).live::<false>(at, chapter, Arc::clone(&runtime)))
        };
        runtime.spawn(task);
    }

    /// The life of one process: it starts its server, and watches it.
    async fn live<const THREAD: bool>(
        self: Arc<Self>,
        at: usize,
        chapter: u64,
        runtime: Arc<SimRuntime>,
    ) {
        let host = &self.hosts[at];
        let members = self.hosts.iter().map(|other| (other.name.clone(), other.name.to_string()));
        let (oracle, world) = (self.oracle.clone(), Arc::clone(&self));
        let own = Arc::clone(&runtime);
        let init = move || {
            let machine = world.workload().machine();
            Witness::<W, THREAD>::new(machine, world.oracle.clone(), at)
        };
        #[cfg_attr(not(feature = "mutants"), expect(unused_mut, reason = "only mutants tune"))]
        let mut builder = graft::server(host.name.clone())
            .cluster("simulated")
            .members(members)
            .store(Box::new(host.disk.open()))
            .transport(self.network.of_server(at, Arc::clone(&runtime)))
            .config(self.swarm.config.clone())
            .runtime(runtime)
            .observer(move || Box::new(Watch::new(oracle.clone(), at)));
        #[cfg(feature = "mutants")]
        if let Some(mutant) = self.mutant {
            builder = builder.tune(move |config| config.raft.mutant = Some(mutant));
        }
        let server = match builder.start(init).await {
            Ok(server) => Arc::new(server),
            Err(error) => return self.on_start_failed(at, chapter, &error),
        };
        host.lock().server = Some(Arc::clone(&server) as Arc<dyn Running>);
        host.lock().phase = Phase::Up;
        self.oracle.note(|| format!("s{at} is up"));
        for _ in 0..self.swarm.residents {
            let seed = self.nemesis().rng.u64(..);
            let (world, server) = (Arc::clone(&self), Arc::clone(&server));
            own.spawn(Box::pin(world.reside(server, Arc::clone(&own), seed)));
        }
        let mut watch = server.watch();
        let mut status = None;
        loop {
            let seen = watch.borrow_and_update().status.clone();
            if status.as_ref() != Some(&seen) {
                self.on_status(at, chapter, &seen);
                status = Some(seen);
            }
            if watch.changed().await.is_err() {
                return;
            }
        }
    }

    pub(crate) fn on_status(self: &Arc<Self>, at: usize, chapter: u64, status: &Status) {
        let host = &self.hosts[at];
        self.oracle.note(|| format!("s{at} says: {status:?}"));
        let blame = |checker, what: String| self.oracle.accuse(checker, format!("s{at} {what}"));
        let reason = match status {
            Status::Restarting { reason, .. } => {
                let ordered = host.lock().panics;
                host.lock().panics = ordered.saturating_sub(1);
                if ordered == 0 {
                    blame(Checker::NothingUnexplained, format!("starts again: {reason}"));
                } else {
                    self.oracle.strike(FaultKind::DriverPanic);
                }
                return;
            }
            Status::Failed { reason, .. } => reason,
            _ => return,
        };
        let explained = match reason {
            StopReason::Store { .. } | StopReason::NotRestarted { .. } => host.disk.is_wounded(),
            StopReason::Panicked { .. } => host.lock().panics > 0,
            StopReason::Diverged { .. } | StopReason::Unsafe { .. } => {
                blame(Checker::NeverUnsafe, format!("stops: {reason}"));
                return;
            }
            _ => false,
        };
        if !explained {
            blame(Checker::NothingUnexplained, format!("stops: {reason}"));
        }
        host.lock().phase = Phase::Failed;
        self.call_operator(at, chapter);
    }

    fn on_start_failed(self: &Arc<Self>, at: usize, chapter: u64, error: &StartError) {
        let host = &self.hosts[at];
        self.oracle.note(|| format!("s{at} does not start: {}", with_causes(error)));
        if host.is_wiped() && is_refused(error) {
            host.new_chapter(Phase::Expelled);
            return;
        }
        if !host.disk.is_wounded() {
            let what = format!("s{at} does not start: {}", with_causes(error));
            self.oracle.accuse(Checker::NothingUnexplained, what);
        }
        host.lock().phase = Phase::Failed;
        self.call_operator(at, chapter);
    }

    /// A server that was told to restart did not.
    pub(crate) fn on_restart_failed(self: &Arc<Self>, at: usize, error: &str) {
        let host = &self.hosts[at];
        if !host.disk.is_wounded() {
            let what = format!("s{at} does not restart: {error}");
            self.oracle.accuse(Checker::NothingUnexplained, what);
        }
        let chapter = {
            let mut state = host.lock();
            state.phase = Phase::Failed;
            state.chapter
        };
        self.call_operator(at, chapter);
    }

    /// Somebody will see to a server that has stopped: mend its disk and start it again.
    fn call_operator(self: &Arc<Self>, at: usize, chapter: u64) {
        let delay = self.draw_time(self.swarm.downtime);
        let world = Arc::clone(self);
        self.kernel.call_at(self.kernel.now() + delay, move || {
            if world.hosts[at].is_in(chapter) {
                world.take_down(at);
                world.hosts[at].disk.mend();
                world.boot(at);
            }
        });
    }

    /// Ends the process of host `at` without a word, and keeps what its disk keeps.
    pub(crate) fn take_down(self: &Arc<Self>, at: usize) {
        let host = &self.hosts[at];
        let (runtime, server) = {
            let mut state = host.lock();
            (state.runtime.take(), state.server.take())
        };
        let Some(runtime) = runtime else { return };
        let chapter = host.new_chapter(Phase::Down);
        self.network.detach(at);
        self.kernel.kill(runtime.id());
        drop(server);
        host.disk.crash();
        self.oracle.on_end_of_life(at);
        // Whoever talks to it learns of it after a while.
        let delay = self.draw_time(Duration::from_millis(500));
        let world = Arc::clone(self);
        self.kernel.call_at(self.kernel.now() + delay, move || {
            if world.hosts[at].is_in(chapter) {
                world.network.tell_gone(at);
            }
        });
    }

    /// A server ends, and is started again after a while.
    pub(crate) fn crash(self: &Arc<Self>, at: usize) {
        let host = &self.hosts[at];
        if matches!(host.phase(), Phase::Down | Phase::Expelled) {
            return;
        }
        if host.phase() == Phase::Starting {
            self.oracle.strike(FaultKind::CrashInRecovery);
        }
        self.oracle.strike(FaultKind::Crash);
        self.oracle.note(|| format!("s{at} crashes"));
        self.take_down(at);
        let chapter = host.lock().chapter;
        let delay = self.draw_time(self.swarm.downtime);
        let world = Arc::clone(self);
        self.kernel.call_at(self.kernel.now() + delay, move || {
            if world.hosts[at].is_in(chapter) {
                world.boot(at);
            }
        });
    }

    /// A server ends, and comes back with an empty disk under its old name.
    pub(crate) fn wipe(self: &Arc<Self>, at: usize) {
        let host = &self.hosts[at];
        self.oracle.note(|| format!("s{at} loses its disk"));
        self.oracle.strike(FaultKind::WipedDisk);
        self.take_down(at);
        host.disk.wipe(self.restores_identities());
        host.lock().wiped = true;
        self.boot(at);
    }

    /// Whether the operator gives a lost disk its old identity back, which is a known bug of operators.
    #[cfg(feature = "mutants")]
    fn restores_identities(&self) -> bool {
        self.mutant == Some(graft_core::raft::Mutant::WipedDiskVotes)
    }

    /// Whether the operator gives a lost disk its old identity back. It never does.
    #[cfg(not(feature = "mutants"))]
    #[expect(clippy::unused_self, reason = "the same call must compile with mutants")]
    const fn restores_identities(&self) -> bool {
        false
    }

    /// Ends all that is wrong with host `at`, and sees that it runs.
    pub(crate) fn restore(self: &Arc<Self>, at: usize) {
        let host = &self.hosts[at];
        host.disk.heal();
        if let Some(runtime) = host.runtime() {
            self.kernel.resume(runtime.id());
            let pace = host.lock().pace;
            self.kernel.turn_clock(runtime.id(), |clock, now| clock.set_pace(now, pace));
        }
        match host.phase() {
            Phase::Up | Phase::Starting | Phase::Expelled => {}
            Phase::Failed => {
                self.take_down(at);
                self.boot(at);
            }
            Phase::Down => self.boot(at),
        }
    }

    /// A length of time around `average`, in nanoseconds: mostly shorter, sometimes several times as long.
    pub(crate) fn draw_time(&self, average: Duration) -> u64 {
        let chance = self.nemesis().rng.f64().max(1e-6);
        nanos(average.mul_f64((-chance.ln()).min(8.0)))
    }
}

/// Whether a server was told that its cluster is founded, and not with its store.
fn is_refused(error: &StartError) -> bool {
    let StartError::Founding { source, .. } = error else { return false };
    matches!(&**source, FoundingError::Refused(FoundingRefusal::AlreadyFounded { .. }))
}

/// The observer of one run of a server.
struct Watch {
    oracle: Oracle,
    server: usize,
}

impl Watch {
    fn new(oracle: Oracle, server: usize) -> Self {
        oracle.on_end_of_life(server);
        Self { oracle, server }
    }
}

impl Observer for Watch {
    fn turn(&mut self, raft: &Raft) {
        if self.oracle.on_turn(self.server, raft) {
            // Without the hook that tells the user of a panic: this one is meant.
            std::panic::resume_unwind(Box::new("the simulator wants a panic of the driver"));
        }
    }
}

/// An error and everything behind it, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(behind) = cause {
        text = format!("{text}: {behind}");
        cause = behind.source();
    }
    text
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("name", &self.name)
            .field("phase", &self.phase())
            .finish_non_exhaustive()
    }
}
