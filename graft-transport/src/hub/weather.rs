//! Which faults are set, and what becomes of each message.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use fastrand::Rng;
use graft_core::{Class, stable_hash};

use super::{Fault, FaultCounts, Place, Shared};

/// The faults of a hub, behind a lock that is taken only while some are set.
pub(super) struct Forecast {
    weather: Mutex<Weather>,
}

/// The faults that are set.
pub(super) struct Weather {
    seed: u64,
    pub(super) everywhere: Fault,
    pub(super) isolated: BTreeSet<Place>,
    pub(super) lanes: BTreeMap<(Place, Place), Lane>,
    counts: FaultCounts,
}

/// One direction. It has its own chance, so what happens in it depends on its own messages alone.
pub(super) struct Lane {
    pub(super) cut: bool,
    pub(super) faults: Option<[Fault; Class::ALL.len()]>,
    rng: Rng,
}

/// What becomes of a message: when it comes and when its copy does, each after a delay or never.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Fall {
    pub(super) first: Option<Duration>,
    pub(super) second: Option<Duration>,
}

impl Forecast {
    pub(super) fn new(seed: u64) -> Self {
        let weather = Weather {
            seed,
            everywhere: Fault::NONE,
            isolated: BTreeSet::new(),
            lanes: BTreeMap::new(),
            counts: FaultCounts::default(),
        };
        Self { weather: Mutex::new(weather) }
    }

    pub(super) fn fall(&self, from: Place, to: Place, class: Class, may_repeat: bool) -> Fall {
        self.lock().fall(from, to, class, may_repeat)
    }

    pub(super) fn counts(&self) -> FaultCounts {
        self.lock().counts
    }

    pub(super) fn count_overflow(&self) {
        self.lock().counts.overflowed += 1;
    }

    fn lock(&self) -> MutexGuard<'_, Weather> {
        self.weather.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    pub(super) fn change_faults(&self, change: impl FnOnce(&mut Weather)) {
        let mut weather = self.forecast.lock();
        change(&mut weather);
        self.has_faults.store(!weather.is_fair(), Ordering::Relaxed);
    }
}

impl Weather {
    pub(super) fn lane(&mut self, from: Place, to: Place) -> &mut Lane {
        let seed = self.seed;
        self.lanes.entry((from, to)).or_insert_with(|| Lane {
            cut: false,
            faults: None,
            rng: Rng::with_seed(direction_seed(seed, from, to)),
        })
    }

    /// Forgets a place that never comes back.
    pub(super) fn forget(&mut self, place: Place) {
        self.isolated.remove(&place);
        self.lanes.retain(|(from, to), _| *from != place && *to != place);
    }

    fn is_fair(&self) -> bool {
        self.isolated.is_empty()
            && self.everywhere.is_none()
            && self.lanes.values().all(Lane::is_fair)
    }

    fn fall(&mut self, from: Place, to: Place, class: Class, may_repeat: bool) -> Fall {
        let isolated = self.isolated.contains(&from) || self.isolated.contains(&to);
        let everywhere = self.everywhere;
        let lane = self.lane(from, to);
        if isolated || lane.cut {
            self.counts.cut += 1;
            return Fall::default();
        }
        let fault = lane.faults.map_or(everywhere, |faults| faults[class as usize]);
        let fall = lane.draw(&fault, may_repeat);
        let counts = &mut self.counts;
        counts.lost += u64::from(fall.first.is_none());
        counts.duplicated += u64::from(fall.second.is_some());
        for delay in [fall.first, fall.second].into_iter().flatten() {
            counts.delayed += u64::from(!delay.is_zero());
        }
        fall
    }
}

impl Lane {
    pub(super) fn heal(&mut self) {
        self.cut = false;
        self.faults = None;
    }

    fn is_fair(&self) -> bool {
        let fair = |faults: &[Fault]| faults.iter().all(Fault::is_none);
        !self.cut && self.faults.as_ref().is_none_or(|faults| fair(faults))
    }

    fn draw(&mut self, fault: &Fault, may_repeat: bool) -> Fall {
        // A fault that is off draws nothing, so switching one on does not change the others.
        if self.strikes(fault.loss) {
            return Fall::default();
        }
        let repeats = may_repeat && self.strikes(fault.duplicate);
        Fall { first: Some(self.delay(fault)), second: repeats.then(|| self.delay(fault)) }
    }

    fn strikes(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.rng.f64() < probability
    }

    fn delay(&mut self, fault: &Fault) -> Duration {
        let span = fault.delay_max.saturating_sub(fault.delay_min);
        if span.is_zero() {
            return fault.delay_min;
        }
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        fault.delay_min + Duration::from_nanos(self.rng.u64(0..=nanos))
    }
}

fn direction_seed(seed: u64, from: Place, to: Place) -> u64 {
    let number = |place: Place| match place {
        Place::Server(node) => [0, node.0],
        Place::Link(link) => [1, link.0],
    };
    let parts = [[2, seed], number(from), number(to)];
    let bytes: Vec<u8> = parts.as_flattened().iter().flat_map(|part| part.to_le_bytes()).collect();
    stable_hash(&bytes)
}
