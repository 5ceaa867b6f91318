//! Ways from one place to another, and what happens on them.

use std::time::Duration;

use graft_core::Class;

use crate::{clock::nanos, faults::FaultKind};

/// What happens by chance on every way.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Weather {
    pub(crate) delay_min: Duration,
    /// By how much a message takes longer on average.
    pub(crate) delay_more: Duration,
    pub(crate) loss: f64,
    pub(crate) duplication: f64,
    /// Whether messages of a class overtake each other.
    pub(crate) reorders: bool,
    /// How likely a message takes up to `spike` longer.
    pub(crate) spikes: f64,
    pub(crate) spike: Duration,
    /// How likely a second copy comes up to half a minute later.
    pub(crate) ghosts: f64,
}

/// How late a second copy is at most.
const GHOSTS_COME_WITHIN: Duration = Duration::from_secs(30);

impl Weather {
    /// Nothing goes wrong.
    pub(crate) const fn calm(self) -> Self {
        Self { loss: 0.0, duplication: 0.0, spikes: 0.0, ghosts: 0.0, ..self }
    }
}

/// What becomes of a message: when it comes, and when again.
#[derive(Debug, Default)]
pub(super) struct Fall {
    pub(super) first: Option<u64>,
    pub(super) second: Option<u64>,
    /// What struck it.
    pub(super) kinds: [Option<FaultKind>; 3],
}

/// All ways between servers and machines with clients.
#[derive(Debug)]
pub(crate) struct Lanes {
    servers: usize,
    places: usize,
    lanes: Vec<Lane>,
    weather: Weather,
    rng: fastrand::Rng,
}

#[derive(Clone, Debug, Default)]
struct Lane {
    /// Counts the cuts that are on it.
    cuts: u32,
    clogged_until: u64,
    /// Whether it is cut for good.
    is_severed: bool,
    /// Messages on their way.
    under_way: usize,
    /// When the latest of each class comes.
    latest: [u64; Class::ALL.len()],
}

impl Lanes {
    /// More are never on one way: the queues of a network are bounded.
    const MOST: usize = 4096;

    pub(super) fn new(servers: usize, clients: usize, weather: Weather, seed: u64) -> Self {
        let places = servers + clients;
        let rng = fastrand::Rng::with_seed(seed);
        Self { servers, places, lanes: vec![Lane::default(); places * places], weather, rng }
    }

    fn lane(&mut self, (from, to): (usize, usize)) -> &mut Lane {
        &mut self.lanes[from * self.places + to]
    }

    /// A message is there. Says whether its way still is.
    pub(super) fn arrived(&mut self, way: (usize, usize)) -> bool {
        let lane = self.lane(way);
        lane.under_way -= 1;
        !lane.is_severed
    }

    /// Decides about a message.
    pub(super) fn fall(
        &mut self,
        way: (usize, usize),
        class: Class,
        now: u64,
        may_repeat: bool,
    ) -> Fall {
        let weather = self.weather;
        let mut fall = Fall::default();
        let lane = self.lane(way);
        if lane.cuts > 0 || lane.is_severed || lane.under_way >= Self::MOST {
            return fall;
        }
        if way.0 == way.1 {
            // On the same machine nothing is in between.
            lane.under_way += 1;
            fall.first = Some(now + 1_000);
            return fall;
        }
        // One draw decides for nearly all messages that nothing happens.
        let chance = self.rng.f64();
        let mut below = weather.loss;
        if chance < below {
            fall.kinds[0] = Some(FaultKind::Loss);
            return fall;
        }
        let mut extra = 0;
        below += weather.spikes;
        if chance < below {
            fall.kinds[0] = Some(FaultKind::DelaySpike);
            extra = self.rng.u64(..=nanos(weather.spike));
        } else if chance < below + weather.duplication {
            if may_repeat {
                fall.kinds[0] = Some(FaultKind::Duplication);
                fall.second = Some(now + self.delay());
            }
        } else if chance < below + weather.duplication + weather.ghosts && may_repeat {
            fall.kinds[0] = Some(FaultKind::Duplication);
            // Mostly soon: a leader of then may lead again.
            let late = self.rng.f64();
            fall.second = Some(now + nanos(GHOSTS_COME_WITHIN.mul_f64(late * late)));
        }
        let mut due = now + self.delay() + extra;
        let lane = self.lane(way);
        due = due.max(lane.clogged_until);
        let latest = &mut lane.latest[class as usize];
        if due < *latest {
            if weather.reorders {
                fall.kinds[1] = Some(FaultKind::Reordering);
            } else {
                due = *latest + 1;
            }
        }
        *latest = (*latest).max(due);
        lane.under_way += 1 + usize::from(fall.second.is_some());
        fall.first = Some(due);
        fall
    }

    fn delay(&mut self) -> u64 {
        let more = nanos(self.weather.delay_more);
        let least = nanos(self.weather.delay_min);
        if more == 0 {
            return least;
        }
        // Most are quick, and a few take several times the average.
        let (one, other) = (self.rng.u64(..more), self.rng.u64(1..=8));
        least + if other == 1 { one * 4 } else { one }
    }

    // -- What lasts --------------------------------------------------------------------------------

    /// Nothing goes this way any more, until as many heals have come as cuts.
    pub(crate) fn cut(&mut self, way: (usize, usize)) {
        self.lane(way).cuts += 1;
    }

    pub(crate) fn heal(&mut self, way: (usize, usize)) {
        let lane = self.lane(way);
        lane.cuts = lane.cuts.saturating_sub(1);
    }

    /// Nothing reaches this place or comes from it any more, what is under way included, and nobody is told.
    pub(crate) fn sever(&mut self, place: usize) {
        for other in (0..self.places).filter(|other| *other != place) {
            self.lane((place, other)).is_severed = true;
            self.lane((other, place)).is_severed = true;
        }
    }

    /// The ways between servers for which `cut` says so.
    pub(crate) fn ways_between_servers(
        &self,
        cut: impl Fn(usize, usize) -> bool,
    ) -> Vec<(usize, usize)> {
        let all = (0..self.servers).flat_map(|from| (0..self.servers).map(move |to| (from, to)));
        all.filter(|(from, to)| from != to && cut(*from, *to)).collect()
    }

    /// From now until `until` what goes this way waits.
    pub(crate) fn clog(&mut self, way: (usize, usize), until: u64) {
        self.lane(way).clogged_until = until;
    }

    /// Ends everything, and from now on the weather is calm.
    pub(crate) fn calm(&mut self) {
        for lane in &mut self.lanes {
            // What is late already comes late, and nothing waits behind it.
            (lane.cuts, lane.clogged_until, lane.latest) = (0, 0, [0; Class::ALL.len()]);
        }
        self.weather = self.weather.calm();
    }
}
