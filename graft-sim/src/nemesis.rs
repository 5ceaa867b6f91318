//! Who does all this to the servers.

use std::{sync::Arc, time::Duration};

use crate::{
    clock::nanos,
    faults::FaultKind,
    hosts::Phase,
    workload::Workload,
    world::{Stage, World},
};

/// What it draws from.
#[derive(Debug)]
pub(crate) struct Nemesis {
    pub(crate) rng: fastrand::Rng,
    /// How many disks were emptied.
    wiped: usize,
}

impl Nemesis {
    pub(crate) fn new(seed: u64) -> Self {
        Self { rng: fastrand::Rng::with_seed(seed), wiped: 0 }
    }
}

impl<W: Workload> World<W> {
    /// Strikes now and then until the faults are over.
    pub(crate) fn let_loose(self: &Arc<Self>) {
        let pause = self.draw_time(self.swarm.calm);
        let world = Arc::clone(self);
        self.kernel.call_at(self.kernel.now() + pause, move || {
            if world.stage() == Stage::Faults {
                world.strike();
                world.let_loose();
            }
        });
    }

    fn strike(self: &Arc<Self>) {
        let kind = {
            let total: u32 = self.swarm.menu.iter().map(|(_, weight)| weight).sum();
            let mut drawn = self.nemesis().rng.u32(..total);
            let mut menu = self.swarm.menu.iter();
            let chosen = menu.find(|(_, weight)| {
                let here = drawn < *weight;
                drawn = drawn.saturating_sub(*weight);
                here
            });
            chosen.map_or(FaultKind::Crash, |(kind, _)| *kind)
        };
        match kind {
            FaultKind::Clogging
            | FaultKind::OneWayCut
            | FaultKind::Partition
            | FaultKind::Bridge
            | FaultKind::Chain
            | FaultKind::IsolatedLeader
            | FaultKind::Flapping
            | FaultKind::ClientCut => self.strike_network(kind),
            FaultKind::ClockUneven | FaultKind::ClockJump | FaultKind::WallClockStep => {
                self.strike_clock(kind);
            }
            FaultKind::SyncError
            | FaultKind::FullDisk
            | FaultKind::ReadError
            | FaultKind::BitRot
            | FaultKind::SlowDisk
            | FaultKind::StalledDisk
            | FaultKind::WipedDisk => self.strike_disk(kind),
            other => self.strike_process(other),
        }
    }

    /// A victim: mostly anybody, often a leader, because that hurts more.
    fn victim(&self) -> usize {
        let leader = self.leader().filter(|_| self.nemesis().rng.u32(..3) == 0);
        leader.unwrap_or_else(|| self.nemesis().rng.usize(..self.hosts.len()))
    }

    /// Somebody who leads, by the own account.
    pub(crate) fn leader(&self) -> Option<usize> {
        let judge = self.oracle.lock();
        let leaders = (0..self.hosts.len()).filter(|at| judge.views[*at].leads());
        leaders.max_by_key(|at| judge.views[*at].term())
    }

    fn after(self: &Arc<Self>, delay: u64, then: impl FnOnce(&Arc<Self>) + Send + 'static) {
        let world = Arc::clone(self);
        self.kernel.call_at(self.kernel.now() + delay, move || then(&world));
    }

    fn lasting(&self) -> u64 {
        self.draw_time(self.swarm.lasting)
    }

    // -- The network -------------------------------------------------------------------------------

    fn strike_network(self: &Arc<Self>, kind: FaultKind) {
        let (victim, count) = (self.victim(), self.hosts.len());
        let order: Vec<usize> = {
            let mut order: Vec<usize> = (0..count).collect();
            self.nemesis().rng.shuffle(&mut order);
            // A leader among few goes on for a while, and comes back with what it has taken in.
            let leader = self.leader().filter(|_| self.nemesis().rng.bool());
            if let Some(at) = order.iter().position(|at| Some(*at) == leader) {
                order.swap(0, at);
            }
            order
        };
        let place = |at: usize| order.iter().position(|other| *other == at).unwrap_or(0);
        let ways = match kind {
            FaultKind::Clogging => return self.clog(victim),
            FaultKind::Flapping => return self.flap(victim, 8),
            FaultKind::ClientCut => self.client_ways(),
            FaultKind::OneWayCut => {
                let inward = self.nemesis().rng.bool();
                let some = self.nemesis().rng.usize(..count);
                let all = self.nemesis().rng.bool();
                self.network.change(|lanes| {
                    lanes.ways_between_servers(|from, to| {
                        let (near, far) = if inward { (to, from) } else { (from, to) };
                        near == victim && (all || far == some)
                    })
                })
            }
            FaultKind::IsolatedLeader => {
                let Some(leader) = self.leader() else { return };
                self.network.change(|lanes| {
                    lanes.ways_between_servers(|from, to| from == leader || to == leader)
                })
            }
            FaultKind::Partition => {
                let side = self.nemesis().rng.usize(1..=count.max(2) / 2);
                self.network.change(|lanes| {
                    lanes
                        .ways_between_servers(|from, to| (place(from) < side) != (place(to) < side))
                })
            }
            FaultKind::Bridge => self.network.change(|lanes| {
                lanes.ways_between_servers(|from, to| {
                    let (from, to) = (place(from), place(to));
                    from != 0 && to != 0 && (from * 2 <= count) != (to * 2 <= count)
                })
            }),
            _ => self.network.change(|lanes| {
                lanes.ways_between_servers(|from, to| place(from).abs_diff(place(to)) > 1)
            }),
        };
        if ways.is_empty() {
            return;
        }
        self.oracle.strike(kind);
        self.oracle.note(|| format!("{kind:?}: {ways:?} are cut"));
        self.cut_for(ways, self.lasting());
    }

    fn cut_for(self: &Arc<Self>, ways: Vec<(usize, usize)>, length: u64) {
        self.network.change(|lanes| ways.iter().for_each(|way| lanes.cut(*way)));
        self.after(length, move |world| {
            world.network.change(|lanes| ways.iter().for_each(|way| lanes.heal(*way)));
        });
    }

    fn client_ways(&self) -> Vec<(usize, usize)> {
        let client = self.hosts.len() + self.nemesis().rng.usize(..self.swarm.clients);
        let mut ways = Vec::new();
        for server in 0..self.hosts.len() {
            let drawn = self.nemesis().rng.u32(..4);
            if drawn & 1 == 0 {
                ways.push((client, server));
            }
            if drawn & 2 == 0 {
                ways.push((server, client));
            }
        }
        ways
    }

    fn clog(&self, victim: usize) {
        let until = self.kernel.now() + self.lasting();
        let inward = self.nemesis().rng.bool();
        self.network.change(|lanes| {
            let near = |from, to| if inward { to } else { from };
            let ways = lanes.ways_between_servers(|from, to| near(from, to) == victim);
            ways.iter().for_each(|way| lanes.clog(*way, until));
        });
        self.oracle.strike(FaultKind::Clogging);
        self.oracle.note(|| {
            format!("Clogging: the ways {} s{victim}", if inward { "to" } else { "from" })
        });
    }

    fn flap(self: &Arc<Self>, victim: usize, left: u32) {
        if left == 0 || self.stage() != Stage::Faults || self.hosts.len() < 2 {
            return;
        }
        self.oracle.strike(FaultKind::Flapping);
        let ways = self
            .network
            .change(|lanes| lanes.ways_between_servers(|from, to| from == victim || to == victim));
        let timeout = self.swarm.election_timeout();
        let (cut, next) = (self.draw_time(timeout / 2), self.draw_time(timeout));
        self.oracle
            .note(|| format!("Flapping: s{victim} is cut for {:?}", Duration::from_nanos(cut)));
        self.cut_for(ways, cut);
        self.after(cut + next, move |world| world.flap(victim, left - 1));
    }

    // -- Processes ---------------------------------------------------------------------------------

    fn strike_process(self: &Arc<Self>, kind: FaultKind) {
        let victim = self.victim();
        let host = &self.hosts[victim];
        match kind {
            FaultKind::CrashOfAll => {
                self.oracle.strike(kind);
                (0..self.hosts.len()).for_each(|at| self.crash(at));
            }
            FaultKind::CrashInRecovery => self.crash_in_recovery(victim, 3),
            FaultKind::Pause => {
                let Some(runtime) = host.runtime() else { return };
                let length = Duration::from_nanos(self.lasting());
                self.oracle.strike(kind);
                self.oracle.note(|| format!("s{victim} stands still for {length:?}"));
                self.kernel.pause(runtime.id(), length);
            }
            FaultKind::DriverPanic => {
                let mut judge = self.oracle.lock();
                let view = &mut judge.views[victim];
                if view.vitals.is_some() && !view.panic_ordered {
                    view.panic_ordered = true;
                    host.order_panic();
                }
            }
            FaultKind::ClientCrash => {
                let at = self.nemesis().rng.usize(..self.swarm.clients);
                self.oracle.strike(kind);
                self.oracle.note(|| format!("client {at} crashes"));
                self.crash_client(at);
            }
            FaultKind::Transfer => self.transfer(),
            FaultKind::StopRestart => {
                let Some((runtime, server)) = host.server() else { return };
                self.oracle.strike(kind);
                self.oracle.note(|| format!("s{victim} is told to restart"));
                let world = Arc::clone(self);
                graft_core::Runtime::spawn(
                    &*runtime,
                    Box::pin(async move {
                        let done = server.restart().await;
                        world.oracle.note(|| format!("the restart of s{victim}: {done:?}"));
                        if let Err(error) = done {
                            world.on_restart_failed(victim, &error);
                        }
                    }),
                );
            }
            FaultKind::Overload => {
                let at = self.nemesis().rng.usize(..self.swarm.clients);
                let burst = self.swarm.burst;
                self.oracle.note(|| format!("client {at} sends {burst} requests at once"));
                self.burst(at, burst);
            }
            _ if self.nemesis().rng.bool() => self.crash(victim),
            _ => {
                // In the middle of a write it hurts most.
                let world = Arc::clone(self);
                host.disk.ambush(move || {
                    if world.stage() == Stage::Faults {
                        world.crash(victim);
                    }
                });
            }
        }
    }

    fn transfer(self: &Arc<Self>) {
        let Some(leader) = self.leader() else { return };
        let Some((runtime, server)) = self.hosts[leader].server() else { return };
        let to = self.nemesis().rng.usize(..self.hosts.len());
        self.oracle.strike(FaultKind::Transfer);
        self.oracle.note(|| format!("s{leader} is told to hand over to s{to}"));
        let (world, name) = (Arc::clone(self), self.hosts[to].name.to_string());
        graft_core::Runtime::spawn(
            &*runtime,
            Box::pin(async move {
                let done = server.transfer(name).await;
                world.oracle.note(|| format!("the transfer from s{leader} to s{to}: {done:?}"));
            }),
        );
    }

    /// A server crashes, and again as soon as it is starting.
    fn crash_in_recovery(self: &Arc<Self>, victim: usize, left: u32) {
        self.take_down_if_up(victim);
        if self.hosts[victim].phase() != Phase::Down || left == 0 {
            return;
        }
        self.boot(victim);
        let soon = self.draw_time(Duration::from_millis(4));
        self.after(soon, move |world| {
            if world.stage() != Stage::Faults {
                return;
            }
            let host = &world.hosts[victim];
            // A server that replays its log is starting still, although it is up.
            let replays =
                host.phase() == Phase::Up && !world.oracle.lock().all_applied([victim].into_iter());
            if host.phase() == Phase::Starting || replays {
                world.oracle.strike(FaultKind::CrashInRecovery);
                world.take_down(victim);
                world.crash_in_recovery(victim, left - 1);
            }
            if world.hosts[victim].phase() == Phase::Down {
                world.boot(victim);
            }
        });
    }

    fn take_down_if_up(self: &Arc<Self>, victim: usize) {
        if self.hosts[victim].phase() == Phase::Up {
            self.oracle.note(|| format!("s{victim} crashes and will crash while it starts"));
            self.oracle.strike(FaultKind::Crash);
            self.take_down(victim);
        }
    }

    // -- Disks -------------------------------------------------------------------------------------

    fn strike_disk(self: &Arc<Self>, kind: FaultKind) {
        let victim = self.victim();
        let host = &self.hosts[victim];
        let until = self.kernel.now() + self.lasting();
        self.oracle.note(|| format!("{kind:?} at s{victim}"));
        match kind {
            FaultKind::SyncError => host.disk.fail_next_sync(),
            FaultKind::FullDisk => host.disk.fill(),
            FaultKind::ReadError | FaultKind::BitRot => {
                let there = if kind == FaultKind::BitRot {
                    host.disk.rot()
                } else {
                    host.disk.fail_next_read();
                    true
                };
                // Whoever starts again reads.
                if there && self.nemesis().rng.bool() {
                    self.crash(victim);
                }
            }
            FaultKind::SlowDisk => {
                self.oracle.strike(kind);
                let factor = self.nemesis().rng.u32(5..100);
                host.disk.slow_down(until, factor);
            }
            FaultKind::StalledDisk => {
                self.oracle.strike(kind);
                host.disk.stall(until);
            }
            _ => self.wipe_within_reason(victim),
        }
    }

    fn wipe_within_reason(self: &Arc<Self>, victim: usize) {
        let host = &self.hosts[victim];
        if !self.can_lose(victim) || host.phase() == Phase::Down {
            return;
        }
        self.nemesis().wiped += 1;
        self.wipe(victim);
    }

    /// So many may be lost that the others are a quorum, and none before the cluster serves.
    fn can_lose(&self, victim: usize) -> bool {
        /// A server that founds may not know yet that the others have.
        const FOUNDED: u64 = 3;
        let most = self.hosts.len().saturating_sub(1) / 2;
        let served = self.oracle.lock().committed() > FOUNDED;
        served && self.nemesis().wiped < most && !self.hosts[victim].is_wiped()
    }

    /// Now and then not everything heals: one server stays out of reach, nobody is told, and the others must do
    /// without it.
    pub(crate) fn leave_one_silent(self: &Arc<Self>) {
        let victim = self.victim();
        if self.nemesis().rng.u32(..3) > 0 || !self.can_lose(victim) {
            return;
        }
        self.oracle.strike(FaultKind::SilentForGood);
        self.oracle.note(|| format!("s{victim} is silent for good"));
        self.hosts[victim].fall_silent();
        self.network.change(|lanes| lanes.sever(victim));
    }

    // -- Clocks ------------------------------------------------------------------------------------

    fn strike_clock(self: &Arc<Self>, kind: FaultKind) {
        let victim = self.victim();
        let Some(runtime) = self.hosts[victim].runtime() else { return };
        self.oracle.strike(kind);
        match kind {
            FaultKind::ClockUneven => {
                let range = self.swarm.clocks.uneven;
                let pace = 1.0 + range * (self.nemesis().rng.f64() * 2.0 - 1.0);
                self.oracle.note(|| format!("the clock of s{victim} runs at {pace:.3}"));
                self.kernel.turn_clock(runtime.id(), |clock, now| clock.set_pace(now, pace));
            }
            FaultKind::ClockJump => {
                let by = Duration::from_nanos(self.draw_time(Duration::from_secs(2)));
                self.oracle.note(|| format!("the clock of s{victim} jumps by {by:?}"));
                self.kernel.turn_clock(runtime.id(), |clock, now| clock.jump(now, by));
            }
            _ => {
                let by = self.nemesis().rng.i64(-100_000..100_000);
                self.oracle.note(|| format!("the wall clock of s{victim} is set by {by} ms"));
                self.hosts[victim].set_wall_error(by);
                self.kernel.turn_clock(runtime.id(), |clock, _| clock.step_wall(by));
            }
        }
    }

    /// The time a healthy system may take for `timeouts` election timeouts.
    pub(crate) fn timeouts(&self, timeouts: u32) -> u64 {
        nanos(self.swarm.election_timeout() * timeouts)
    }
}
