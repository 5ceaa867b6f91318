//! What is measured: so many clients, each with one request under way, until so many are answered.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use cpu_time::ProcessTime;
use tokio::{task::JoinSet, time::timeout};

use crate::{Failure, Measurement};

/// Three servers of one kind in this process, ready to take requests.
pub trait Deployment: Send + Sync + Sized + 'static {
    /// What it is called in reports.
    const NAME: &'static str;

    /// Its clients.
    type Caller: Caller;

    /// Starts the servers on the current runtime and waits for a leader. About so much will be asked of
    /// them.
    fn found(work: Workload) -> impl Future<Output = Result<Self, Failure>> + Send;

    /// A client on the current runtime.
    fn connect(&self) -> impl Future<Output = Result<Self::Caller, Failure>> + Send;

    /// Stops the servers.
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// A client. Its clones share whatever it takes to reach the servers, as the tasks of a program do.
pub trait Caller: Clone + Send + 'static {
    /// Sends one command and waits for its answer: applied, on a quorum.
    fn call(&mut self) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Lets go of what it shared with its clones, which are gone already.
    fn leave(self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// How much to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Workload {
    /// How many clients, each of which waits for its answer before it sends the next request.
    pub clients: usize,
    /// How many requests all of them send together.
    pub operations: usize,
    /// How many bytes each of these carries beside its header.
    pub payload: usize,
}

impl Workload {
    /// A client times one request in so many, so that reading the clock does not weigh on a
    /// contender that answers in less than a microsecond.
    const SAMPLE_EVERY: usize = 8;
    /// Nothing measured here takes nearly as long; what does is stuck.
    const DEADLINE: Duration = Duration::from_secs(120);

    /// With its warm-up.
    #[must_use]
    pub fn in_all(self) -> Self {
        Self { operations: self.operations + self.warm_up().operations, ..self }
    }

    /// Enough to fill pools, queues and caches before anything is measured, and never more than a
    /// quarter of that.
    #[must_use]
    pub fn warm_up(self) -> Self {
        let enough = 2_000 + 2 * self.clients;
        Self { operations: enough.min(self.operations.div_ceil(4)), ..self }
    }

    /// Drives clones of `caller`, a client of the deployment `D`, in tasks of the current runtime.
    ///
    /// # Errors
    ///
    /// The first failure of a client, or that the work is not done within two minutes.
    pub async fn drive<D: Deployment>(self, caller: &D::Caller) -> Result<Measurement, Failure> {
        match timeout(Self::DEADLINE, self.drive_unbounded::<D>(caller)).await {
            Ok(result) => result,
            Err(_) => Err(Failure::Stuck {
                contender: D::NAME,
                clients: self.clients,
                deadline: Self::DEADLINE,
            }),
        }
    }

    async fn drive_unbounded<D: Deployment>(
        self,
        caller: &D::Caller,
    ) -> Result<Measurement, Failure> {
        let callers: Vec<_> = (0..self.clients).map(|_| caller.clone()).collect();
        let mut tasks = JoinSet::new();
        let cpu = ProcessTime::now();
        let start = Instant::now();
        for (client, caller) in callers.into_iter().enumerate() {
            tasks.spawn(run_client(client, caller, self.share_of(client)));
        }
        let mut samples = Vec::with_capacity(self.operations / Self::SAMPLE_EVERY + self.clients);
        while let Some(ended) = tasks.join_next().await {
            samples.append(&mut ended.map_err(|error| Failure::of(D::NAME, error))??);
        }
        let wall = start.elapsed();
        let cpu = cpu.elapsed();
        Measurement::new(D::NAME, self, wall, cpu, &samples)
    }

    /// The operations are spread evenly; the first clients take what is left over.
    const fn share_of(self, client: usize) -> usize {
        let extra = client < self.operations % self.clients;
        self.operations / self.clients + extra as usize
    }
}

/// Sends `operations` requests one after the other and returns the latencies of a sample of them.
async fn run_client<C: Caller>(
    client: usize,
    mut caller: C,
    operations: usize,
) -> Result<Vec<Duration>, Failure> {
    let mut samples = Vec::with_capacity(operations / Workload::SAMPLE_EVERY + 1);
    for operation in 0..operations {
        // Clients sample in different phases, or every sample would fall into the same batches.
        if (client + operation).is_multiple_of(Workload::SAMPLE_EVERY) {
            let start = Instant::now();
            caller.call().await?;
            samples.push(start.elapsed());
        } else {
            caller.call().await?;
        }
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_all_clients_add_up() {
        for (clients, operations) in [(1, 7), (3, 7), (64, 1000), (1024, 100)] {
            let workload = Workload { clients, operations, payload: 0 };
            let total: usize = (0..clients).map(|client| workload.share_of(client)).sum();
            assert_eq!(total, operations);
        }
    }
}
