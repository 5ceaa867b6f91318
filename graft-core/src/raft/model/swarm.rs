//! What differs between two seeds: the size of the cluster, its numbers, and which faults there are
//! how often. A fault that is switched off in one seed lets the others reach further.

use std::time::Duration;

use fastrand::Rng;

use super::{network::Weather, server::incarnation};
use crate::{
    Membership, NodeId, NodeInfo,
    raft::{Config, Mutant},
};

/// The sizes of clusters, in the shares in which the seeds have them.
const SIZES: [usize; 16] = [3, 5, 4, 3, 5, 7, 3, 5, 4, 3, 5, 7, 3, 1, 4, 3];

/// What may happen next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Event {
    Deliver,
    Tick,
    Write,
    Apply,
    Load,
    Drain,
    Propose,
    Transfer,
    Campaign,
    Crash,
    CrashAll,
    Restart,
    Cut,
    Stick,
    Divide,
    DelayVotes,
    Usurp,
    SpeakOut,
}

/// The choices of one seed.
#[derive(Clone, Debug)]
pub(super) struct Swarm {
    pub(super) size: usize,
    membership: Membership,
    pub(super) steps: u64,
    pub(super) weather: Weather,
    /// Each event with the upper end of its share.
    shares: Vec<(u32, Event)>,
    /// All clocks go on together, or each by itself.
    pub(super) lockstep: bool,
    /// A server sleeps until the deadline it named, like a driver with one timer.
    pub(super) sleeps: bool,
    /// The clock of a server begins anew with each start.
    pub(super) clock_restarts: bool,
    /// The chance of 1024 that a step is not drained at once.
    pub(super) batching: u32,
    /// The chance of 1024 that a membership comes before a proposal.
    pub(super) memberships: u32,
    /// How many bytes a command has at most beside its number.
    pub(super) padding: usize,
    /// Machines are compared at multiples of this index.
    pub(super) checkpoint_every: u64,
    config: Config,
    /// Each server draws its own windows and batches.
    uneven: bool,
}

impl Swarm {
    pub(super) fn draw(seed: u64, rng: &mut Rng, mutant: Option<Mutant>) -> Self {
        let size = SIZES[usize::try_from(seed % SIZES.len() as u64).expect("small")];
        let mut config = draw_timing(rng);
        config.mutant = mutant;
        draw_bounds(rng, &mut config);
        let weather = Weather {
            loss: pick(rng, &[0, 0, 10, 50, 200]),
            duplication: pick(rng, &[0, 0, 30, 150]),
            reordering: pick(rng, &[0, 0, 100, 400, 900]),
        };
        let lockstep = rng.u32(..4) > 0;
        Self {
            size,
            membership: draw_membership(rng, size),
            steps: pick(rng, &[1000, 2000, 4000, 6000]),
            weather,
            shares: draw_shares(rng, size, lockstep),
            lockstep,
            sleeps: rng.bool(),
            clock_restarts: rng.bool(),
            batching: pick(rng, &[0, 0, 100, 400, 800]),
            memberships: pick(rng, &[0, 0, 50]),
            padding: pick(rng, &[0, 8, 40]),
            checkpoint_every: pick(rng, &[1, 4, 16]),
            config,
            uneven: rng.bool(),
        }
    }

    /// The configuration of one server for one life.
    pub(super) fn config(&self, node: NodeId, start: Duration, rng: &mut Rng) -> Config {
        let mut config = Config { node, start, seed: rng.u64(..), ..self.config.clone() };
        if self.uneven {
            draw_bounds(rng, &mut config);
        }
        config
    }

    pub(super) fn next_event(&self, rng: &mut Rng) -> Event {
        let total = self.shares.last().map_or(1, |(end, _)| *end);
        let drawn = rng.u32(..total);
        let found = self.shares.iter().find(|(end, _)| drawn < *end);
        found.expect("the last share ends at the total").1
    }

    /// The founders and their parts.
    pub(super) const fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Whether a leader stands wherever one can.
    pub(super) const fn elects_in_any_weather(&self) -> bool {
        self.config.pre_vote && self.config.check_quorum
    }

    /// The shortest and the longest election timeout, in ticks.
    pub(super) const fn election_timeouts(&self) -> (u64, u64) {
        (self.config.election_timeout_min_ticks, self.config.election_timeout_max_ticks)
    }

    /// After how many ticks a write counts as stalled.
    pub(super) const fn stall_limit(&self) -> u64 {
        self.config.stalled_write_ticks
    }

    /// One election timeout, in ticks.
    pub(super) fn election_timeout(&self) -> u64 {
        self.config.election_timeout_max_ticks
    }
}

fn pick<T: Copy>(rng: &mut Rng, choices: &[T]) -> T {
    choices[rng.usize(..choices.len())]
}

/// Mostly all are voters. Some clusters have learners, and some are founded in the middle of a change,
/// for the quorums of a joint membership.
fn draw_membership(rng: &mut Rng, size: usize) -> Membership {
    let nodes = (1..=size as u64).map(NodeId);
    let info = |node| NodeInfo { incarnation: incarnation(node), ..NodeInfo::default() };
    let mut membership = Membership::of_voters(nodes.map(|node| (node, info(node))));
    if size < 3 {
        return membership;
    }
    let all = membership.voters.clone();
    let some = |rng: &mut Rng| {
        let mut some = all.clone();
        some.retain(|_| rng.u32(..3) > 0);
        if some.is_empty() { all.clone() } else { some }
    };
    match rng.u32(..8) {
        0 => membership.voters = some(rng),
        1 => {
            membership.voters = some(rng);
            membership.outgoing = some(rng);
        }
        _ => {}
    }
    membership.learners = all.iter().copied().filter(|node| !membership.is_voter(*node)).collect();
    membership
}

/// Short timeouts: an election should cost few steps. Two heartbeats are not quite enough: servers tick
/// one after the other, so what one sends another may only see a tick later.
fn draw_timing(rng: &mut Rng) -> Config {
    let heartbeat_ticks = rng.u64(1..=2);
    let election_timeout_min_ticks = heartbeat_ticks * 2 + rng.u64(1..=5);
    Config {
        heartbeat_ticks,
        election_timeout_min_ticks,
        election_timeout_max_ticks: election_timeout_min_ticks + rng.u64(3..=10),
        stalled_write_ticks: rng.u64(2..=14),
        pre_vote: rng.u32(..4) > 0,
        check_quorum: rng.u32(..4) > 0,
        ..Config::new(NodeId(1))
    }
}

/// Bounds so small that a handful of entries reaches them, or so large that nothing does.
fn draw_bounds(rng: &mut Rng, config: &mut Config) {
    config.max_batch_bytes = pick(rng, &[1, 50, 100, 300, 1 << 20, 1 << 20]);
    config.window_entries = pick(rng, &[1, 2, 4, 16, 8192, 8192]);
    config.window_bytes = pick(rng, &[1, 64, 200, 1000, 4 << 20, 4 << 20]);
    config.max_uncommitted_bytes = pick(rng, &[100, 400, 2000, 64 << 20, 64 << 20]);
    config.max_unapplied_bytes = pick(rng, &[1, 200, 2000, 64 << 20, 64 << 20]);
    config.tail_bytes = pick(rng, &[0, 100, 500, 64 << 20]);
}

/// How often each event comes. The measure is a tick of all clocks, which has 40 shares: faults are to
/// outlast elections, and larger clusters send and write more a tick.
fn draw_shares(rng: &mut Rng, size: usize, lockstep: bool) -> Vec<(u32, Event)> {
    let size = u32::try_from(size).expect("small");
    let weights = [
        (Event::Tick, if lockstep { 40 } else { 30 * size }),
        (Event::Deliver, pick(rng, &[120, 300, 600]) * size),
        (Event::Write, pick(rng, &[20, 60, 200]) * size),
        (Event::Apply, pick(rng, &[8, 40, 80]) * size),
        (Event::Load, pick(rng, &[2, 20, 80]) * size),
        (Event::Drain, 4 * size),
        (Event::Propose, pick(rng, &[10, 40, 100])),
        (Event::Transfer, pick(rng, &[0, 1, 4])),
        (Event::Campaign, pick(rng, &[0, 0, 1, 3])),
        (Event::Crash, pick(rng, &[0, 1, 3, 6])),
        (Event::CrashAll, pick(rng, &[0, 0, 0, 1])),
        (Event::Restart, pick(rng, &[5, 20, 60])),
        (Event::Cut, pick(rng, &[0, 2, 4, 8])),
        (Event::Stick, pick(rng, &[0, 1, 3, 8])),
        (Event::Divide, pick(rng, &[0, 1, 3])),
        (Event::DelayVotes, pick(rng, &[0, 0, 1])),
        (Event::Usurp, pick(rng, &[0, 0, 1])),
        (Event::SpeakOut, pick(rng, &[0, 4, 20])),
    ];
    let mut total = 0;
    let shares = weights.iter().map(|(event, weight)| {
        total += weight;
        (total, *event)
    });
    shares.collect()
}
