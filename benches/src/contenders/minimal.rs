//! The baseline of clusters on a disk: a leader and two followers that write every batch, and no
//! consensus at all.
//!
//! No terms, no elections, no checks, no sessions, no flow control: requests are numbered, gathered,
//! written by all three, and answered once two have them. It is about the most that tokio and redb
//! can give to a replicated log.

use std::{
    collections::VecDeque,
    sync::mpsc::{Receiver, Sender, channel},
    thread::{self, JoinHandle},
};

use bytes::Bytes;
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};

use crate::{
    Caller, Deployment, Failure,
    disk::{self, BareRedb},
};

/// How many requests the leader takes into one batch.
const MAX_BATCH: usize = 4096;

/// A command as graft's clients send it: a header and nothing behind it.
const COMMAND: &[u8] = &[0; 32];

/// How much of each file is written ahead: more than a run needs.
const FILLED: usize = 64 << 20;

type Request = oneshot::Sender<()>;

/// A leader and two followers.
pub(super) struct Minimal {
    requests: mpsc::Sender<Request>,
    disks: Vec<JoinHandle<()>>,
    directory: TempDir,
}

impl Deployment for Minimal {
    const NAME: &'static str = "minimal loop on redb";

    type Caller = Asker;

    async fn found() -> Result<Self, Failure> {
        let failure = |error: disk::Error| Failure::of(Self::NAME, error);
        let directory = disk::scratch().map_err(|error| failure(error.into()))?;
        let (acknowledge, acknowledged) = mpsc::channel(MAX_BATCH);
        let (mut orders, mut disks) = (Vec::new(), Vec::new());
        for server in 0..3 {
            let bare = BareRedb::filled(&directory.path().join(format!("server{server}")), FILLED);
            let bare = bare.map_err(|error| failure(error.into()))?;
            let (order, incoming) = channel();
            let acknowledge = acknowledge.clone();
            let disk = thread::Builder::new()
                .name(format!("minimal-{server}"))
                .spawn(move || write(server, bare, &incoming, &acknowledge));
            disks.push(disk.map_err(|error| failure(error.into()))?);
            orders.push(order);
        }
        let (requests, incoming) = mpsc::channel(2 * MAX_BATCH);
        tokio::spawn(lead(incoming, orders, acknowledged));
        Ok(Self { requests, disks, directory })
    }

    fn caller(&self) -> Asker {
        Asker(self.requests.clone())
    }

    async fn close(self) {
        drop(self.requests);
        let ended = tokio::task::spawn_blocking(move || {
            for disk in self.disks {
                // A panic of a disk showed as requests without answers.
                let _ = disk.join();
            }
            drop(self.directory);
        });
        // The same.
        let _ = ended.await;
    }
}

/// A client of the leader.
pub(super) struct Asker(mpsc::Sender<Request>);

impl Caller for Asker {
    async fn call(&mut self) -> Result<(), Failure> {
        let gone = |_| Failure::of(Minimal::NAME, "the leader is gone");
        let (answer, answered) = oneshot::channel();
        self.0.send(answer).await.map_err(|_| Failure::of(Minimal::NAME, "no leader"))?;
        answered.await.map_err(gone)
    }
}

/// Numbers requests, has them written everywhere, and answers what two have.
async fn lead(
    mut requests: mpsc::Receiver<Request>,
    orders: Vec<Sender<Vec<Bytes>>>,
    mut acknowledged: mpsc::Receiver<(usize, u64)>,
) {
    let mut written = [0; 3];
    let mut waiting: VecDeque<Request> = VecDeque::new();
    let mut answered = 0;
    let mut arrived = Vec::with_capacity(MAX_BATCH);
    loop {
        tokio::select! {
            biased;
            acknowledgement = acknowledged.recv() => {
                let Some((server, upto)) = acknowledgement else { return };
                written[server] = upto;
                let mut sorted = written;
                sorted.sort_unstable();
                while answered < sorted[1] {
                    answered += 1;
                    // Whoever does not wait any more does not mind.
                    let _ = waiting.pop_front().map(|request| request.send(()));
                }
            }
            count = requests.recv_many(&mut arrived, MAX_BATCH) => {
                if count == 0 { return }
                waiting.extend(arrived.drain(..));
                let batch = vec![Bytes::from_static(COMMAND); count];
                for order in &orders {
                    if order.send(batch.clone()).is_err() { return }
                }
            }
        }
    }
}

/// Writes what comes, all that waits in one transaction, and says how much it has.
fn write(
    server: usize,
    mut bare: BareRedb,
    orders: &Receiver<Vec<Bytes>>,
    acknowledge: &mpsc::Sender<(usize, u64)>,
) {
    let mut upto = 0;
    while let Ok(mut batch) = orders.recv() {
        while let Ok(more) = orders.try_recv() {
            batch.extend(more);
        }
        upto += batch.len() as u64;
        if bare.append(&batch).is_err() || acknowledge.blocking_send((server, upto)).is_err() {
            return;
        }
    }
}
