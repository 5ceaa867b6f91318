//! A deployment under a runtime: the one way in which everything here is run.

use std::{
    fmt::{self, Display},
    marker::PhantomData,
    time::Duration,
};

use tokio::runtime::{Builder, Runtime};

use crate::{Caller as _, Deployment, Measurement, Workload};

/// Something that can be measured beside others.
pub trait Contender {
    /// What it is called in reports.
    fn name(&self) -> &'static str;

    /// Starts three servers, warms them up, measures one workload and stops them.
    ///
    /// # Errors
    ///
    /// Whatever kept it from finishing.
    fn run(&self, flavour: Flavour, workload: Workload) -> Result<Measurement, Failure>;

    /// Starts three servers and measures what a request costs as their log grows.
    ///
    /// # Errors
    ///
    /// Whatever kept it from finishing.
    fn grow(&self, flavour: Flavour, plan: &GrowthPlan) -> Result<Growth, Failure>;
}

/// How servers and clients share the machine's processors.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Flavour {
    /// One thread runs servers and clients.
    Single,
    /// A runtime of so many worker threads runs servers and clients.
    Shared {
        /// How many workers.
        workers: usize,
    },
    /// A runtime of so many worker threads runs the servers, a thread of its own the clients.
    Split {
        /// How many workers the servers have.
        workers: usize,
    },
}

impl Flavour {
    /// All that make sense on a machine with `processors`.
    #[must_use]
    pub fn all(processors: usize) -> [Self; 3] {
        let workers = processors.max(2);
        [Self::Single, Self::Shared { workers }, Self::Split { workers: workers - 1 }]
    }
}

impl Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Single => f.write_str("single"),
            Self::Shared { workers } => write!(f, "shared({workers})"),
            Self::Split { workers } => write!(f, "split({workers}+1)"),
        }
    }
}

/// How to watch a log grow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GrowthPlan {
    /// How many clients.
    pub clients: usize,
    /// At which lengths of the log to look, in rising order.
    pub entries: Vec<usize>,
    /// How many requests a window of measurement has.
    pub window: usize,
    /// How many windows to measure at each length.
    pub windows: usize,
}

/// What a request cost at each length of the log, in the order of the plan.
#[derive(Clone, PartialEq, Debug)]
pub struct Growth {
    /// At each length, the windows measured from there on.
    pub windows: Vec<Vec<Measurement>>,
}

/// Why a contender could not be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// Something failed in its own words.
    #[error("{contender}: {reason}")]
    Broken {
        /// Whose.
        contender: &'static str,
        /// What it said.
        reason: String,
    },
    /// It neither answered nor failed.
    #[error("{contender} was not done after {deadline:?} with {clients} clients")]
    Stuck {
        /// Who.
        contender: &'static str,
        /// How many clients there were.
        clients: usize,
        /// How long it was given.
        deadline: Duration,
    },
    /// The system gave no runtime.
    #[error("no runtime could be built; are threads limited here?")]
    Runtime(#[source] std::io::Error),
}

impl Failure {
    /// What `contender` said.
    pub fn of(contender: &'static str, reason: impl Display) -> Self {
        Self::Broken { contender, reason: reason.to_string() }
    }
}

/// Makes a contender of a deployment.
#[derive(Debug)]
pub struct Bench<D>(PhantomData<fn() -> D>);

impl<D> Bench<D> {
    /// The contender.
    #[must_use]
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<D> Default for Bench<D> {
    fn default() -> Self {
        Self::new()
    }
}

impl<D: Deployment> Contender for Bench<D> {
    fn name(&self) -> &'static str {
        D::NAME
    }

    fn run(&self, flavour: Flavour, workload: Workload) -> Result<Measurement, Failure> {
        let stage = Stage::<D>::set(flavour, workload.in_all())?;
        stage.drive(workload.warm_up())?;
        let measurement = stage.drive(workload)?;
        stage.clear()?;
        Ok(measurement)
    }

    fn grow(&self, flavour: Flavour, plan: &GrowthPlan) -> Result<Growth, Failure> {
        let of = |operations| Workload { clients: plan.clients, operations, payload: 0 };
        let last = plan.entries.last().copied().unwrap_or_default();
        let stage = Stage::<D>::set(flavour, of(last + plan.window * plan.windows))?;
        let mut length = 0;
        let mut windows = Vec::with_capacity(plan.entries.len());
        for &mark in &plan.entries {
            if mark > length {
                stage.drive(of(mark - length))?;
                length = mark;
            }
            let measured: Result<Vec<_>, _> =
                (0..plan.windows).map(|_| stage.drive(of(plan.window))).collect();
            windows.push(measured?);
            length += plan.window * plan.windows;
        }
        stage.clear()?;
        Ok(Growth { windows })
    }
}

/// A deployment on its runtimes, and a client of it.
struct Stage<D: Deployment> {
    servers: Runtime,
    /// Where clients run; `None`: with the servers.
    clients: Option<Runtime>,
    deployment: D,
    caller: D::Caller,
}

impl<D: Deployment> Stage<D> {
    fn set(flavour: Flavour, work: Workload) -> Result<Self, Failure> {
        let single = || Builder::new_current_thread().enable_all().build();
        let multi =
            |workers| Builder::new_multi_thread().worker_threads(workers).enable_all().build();
        let (servers, clients) = match flavour {
            Flavour::Single => (single(), None),
            Flavour::Shared { workers } => (multi(workers), None),
            Flavour::Split { workers } => (multi(workers), Some(single())),
        };
        let servers = servers.map_err(Failure::Runtime)?;
        let clients = clients.transpose().map_err(Failure::Runtime)?;
        let founding = servers.spawn(D::found(work));
        let deployment =
            servers.block_on(founding).map_err(|error| Failure::of(D::NAME, error))??;
        let connecting = deployment.connect();
        let caller = clients.as_ref().unwrap_or(&servers).block_on(connecting)?;
        Ok(Self { servers, clients, deployment, caller })
    }

    fn drive(&self, workload: Workload) -> Result<Measurement, Failure> {
        let runtime = self.clients.as_ref().unwrap_or(&self.servers);
        runtime.block_on(workload.drive::<D>(&self.caller))
    }

    fn clear(self) -> Result<(), Failure> {
        self.clients.as_ref().unwrap_or(&self.servers).block_on(self.caller.leave());
        let closing = self.servers.spawn(self.deployment.close());
        self.servers.block_on(closing).map_err(|error| Failure::of(D::NAME, error))?;
        // A task that does not end must not hold up the next contender.
        self.servers.shutdown_timeout(Duration::from_secs(5));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contenders::{Field, Network, Store};

    /// Small enough for a debug build, large enough that every client has work.
    const WORKLOAD: Workload = Workload { clients: 16, operations: 500, payload: 0 };

    fn field(store: Store, network: Network) -> Vec<Box<dyn Contender>> {
        let field = Field { store, network, filled: false };
        field.graft().into_iter().chain(field.others()).collect()
    }

    #[test]
    fn every_contender_finishes_under_every_flavour() {
        for network in [Network::Memory, Network::Quic] {
            for contender in field(Store::Memory, network) {
                for flavour in Flavour::all(2) {
                    let measurement = contender.run(flavour, WORKLOAD).unwrap();
                    assert_eq!(measurement.workload, WORKLOAD);
                    assert!(measurement.p50 > Duration::ZERO && measurement.p50 <= measurement.p99);
                }
            }
        }
    }

    #[test]
    fn every_contender_on_a_disk_finishes() {
        for network in [Network::Memory, Network::Quic] {
            for contender in field(Store::Redb, network) {
                let measurement = contender.run(Flavour::Shared { workers: 2 }, WORKLOAD).unwrap();
                assert_eq!(measurement.workload, WORKLOAD);
            }
        }
    }

    #[test]
    fn commands_may_be_filled() {
        for field in Field::all().into_iter().filter(|field| field.filled) {
            for payload in [1024, 64 << 10] {
                let workload = Workload { clients: 8, operations: 64, payload };
                for contender in field.graft().into_iter().chain(field.others()) {
                    let measurement = contender.run(Flavour::Single, workload).unwrap();
                    assert_eq!(measurement.workload, workload);
                }
            }
        }
    }

    #[test]
    fn growth_measures_every_length_that_was_asked_for() {
        let plan = GrowthPlan { clients: 4, entries: vec![100, 300], window: 50, windows: 3 };
        for contender in field(Store::Memory, Network::Memory) {
            let growth = contender.grow(Flavour::Single, &plan).unwrap();
            let counts: Vec<usize> = growth.windows.iter().map(Vec::len).collect();
            assert_eq!(counts, [3, 3]);
        }
    }
}
