//! What can go wrong between the ends of a hub, and the control of it.

use std::{fmt, sync::Arc, time::Duration};

use graft_core::{Class, LinkId, NodeId};

use super::Shared;

/// One end of a hub.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Place {
    /// A server.
    Server(NodeId),
    /// A client, by the number of its link.
    Link(LinkId),
}

impl From<NodeId> for Place {
    fn from(node: NodeId) -> Self {
        Self::Server(node)
    }
}

impl From<LinkId> for Place {
    fn from(link: LinkId) -> Self {
        Self::Link(link)
    }
}

/// What happens to messages of one class in one direction. The default is nothing.
///
/// A probability is a number from 0 to 1. Each message draws anew, and so does each copy of it.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Fault {
    /// How likely a message is lost.
    pub loss: f64,
    /// How likely a message that is not lost comes twice. Requests of clients never do: the
    /// [`Link`](graft_core::Link) promises it.
    pub duplicate: f64,
    /// How late a message comes at least.
    pub delay_min: Duration,
    /// How late it comes at most. Messages with different delays overtake each other.
    pub delay_max: Duration,
}

impl Fault {
    /// Nothing goes wrong.
    pub const NONE: Self =
        Self { loss: 0.0, duplicate: 0.0, delay_min: Duration::ZERO, delay_max: Duration::ZERO };

    /// Messages are lost with this probability.
    #[must_use]
    pub const fn lossy(loss: f64) -> Self {
        Self { loss, ..Self::NONE }
    }

    /// Messages come late by between `min` and `max`.
    #[must_use]
    pub const fn slow(min: Duration, max: Duration) -> Self {
        Self { delay_min: min, delay_max: max, ..Self::NONE }
    }

    pub(super) fn is_none(&self) -> bool {
        *self == Self::NONE
    }
}

/// How often faults have struck.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FaultCounts {
    /// Messages stopped by a cut or an isolation.
    pub cut: u64,
    /// Messages lost by chance.
    pub lost: u64,
    /// Messages that were sent on twice.
    pub duplicated: u64,
    /// Messages, and second copies, that were made late.
    pub delayed: u64,
    /// Messages dropped because too much was on its way already.
    pub overflowed: u64,
}

/// The control of a hub's faults. Clones control the same hub. All is well until it is told otherwise.
///
/// Places are servers ([`NodeId`]) and clients ([`LinkId`]); they need not be connected yet, and what is
/// set for a server outlives its transport. What is under way when a fault is set or healed is not
/// changed by it. A cut says nothing to either end: it is silence, not an error.
#[derive(Clone)]
pub struct HubFaults {
    shared: Arc<Shared>,
}

impl HubFaults {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Nothing passes between `a` and `b`, either way.
    pub fn cut(&self, a: impl Into<Place>, b: impl Into<Place>) {
        let (a, b) = (a.into(), b.into());
        self.shared.change_faults(|weather| {
            weather.lane(a, b).cut = true;
            weather.lane(b, a).cut = true;
        });
    }

    /// Nothing passes from `from` to `to`; the other way stays as it is.
    pub fn cut_one_way(&self, from: impl Into<Place>, to: impl Into<Place>) {
        let (from, to) = (from.into(), to.into());
        self.shared.change_faults(|weather| weather.lane(from, to).cut = true);
    }

    /// Nothing passes from or to `place`, until [`rejoin`](Self::rejoin).
    pub fn isolate(&self, place: impl Into<Place>) {
        let place = place.into();
        self.shared.change_faults(|weather| {
            weather.isolated.insert(place);
        });
    }

    /// Ends [`isolate`](Self::isolate). Other cuts and faults stay.
    pub fn rejoin(&self, place: impl Into<Place>) {
        let place = place.into();
        self.shared.change_faults(|weather| {
            weather.isolated.remove(&place);
        });
    }

    /// From now on `fault` strikes all classes from `from` to `to`.
    pub fn set(&self, from: impl Into<Place>, to: impl Into<Place>, fault: Fault) {
        let (from, to) = (from.into(), to.into());
        let faults = Some([fault; Class::ALL.len()]);
        self.shared.change_faults(|weather| weather.lane(from, to).faults = faults);
    }

    /// From now on `fault` strikes one class from `from` to `to`; the other classes stay as they are.
    /// Replies are of the class of requests.
    pub fn set_class(
        &self,
        from: impl Into<Place>,
        to: impl Into<Place>,
        class: Class,
        fault: Fault,
    ) {
        let (from, to) = (from.into(), to.into());
        self.shared.change_faults(|weather| {
            let everywhere = weather.everywhere;
            let faults = &mut weather.lane(from, to).faults;
            faults.get_or_insert([everywhere; Class::ALL.len()])[class as usize] = fault;
        });
    }

    /// From now on `fault` strikes in every direction that has none set for itself.
    pub fn set_everywhere(&self, fault: Fault) {
        self.shared.change_faults(|weather| weather.everywhere = fault);
    }

    /// Ends cuts and faults set between `a` and `b`, either way. What strikes everywhere, and isolations,
    /// stay.
    pub fn heal(&self, a: impl Into<Place>, b: impl Into<Place>) {
        let (a, b) = (a.into(), b.into());
        self.shared.change_faults(|weather| {
            weather.lane(a, b).heal();
            weather.lane(b, a).heal();
        });
    }

    /// Ends all cuts, isolations and faults.
    pub fn heal_all(&self) {
        self.shared.change_faults(|weather| {
            weather.isolated.clear();
            weather.everywhere = Fault::NONE;
            weather.lanes.values_mut().for_each(super::weather::Lane::heal);
        });
    }

    /// How often faults have struck.
    #[must_use]
    pub fn counts(&self) -> FaultCounts {
        self.shared.forecast.counts()
    }
}

impl fmt::Debug for HubFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubFaults").field("counts", &self.counts()).finish_non_exhaustive()
    }
}
