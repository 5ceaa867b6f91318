//! The baseline of clusters on a disk in one process: channels, and a thread for each disk.
//!
//! Its files begin with the space that graft's begin with, and grow. A log cannot know how long it will
//! become, but it is told here what it costs not to: the other one has files with all the space that
//! a run needs before it begins.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        mpsc::{Sender, channel},
    },
    thread::{self, JoinHandle},
};

use bytes::Bytes;
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};

use super::{Batch, FILLED, MAX_BATCH, Quorum, all_of, command, write};
use crate::{
    Caller, Deployment, Failure, Workload,
    disk::{self, BareRedb},
};

/// A command, and who waits for it.
type Request = (Bytes, oneshot::Sender<()>);

/// A leader and two followers.
pub(in crate::contenders) struct Minimal {
    requests: mpsc::Sender<Request>,
    disks: Vec<JoinHandle<()>>,
    directory: TempDir,
    payload: usize,
}

impl Deployment for Minimal {
    const NAME: &'static str = "minimal loop on redb";

    type Caller = Asker;

    async fn found(work: Workload) -> Result<Self, Failure> {
        Self::found_on(FILLED, work.payload)
    }

    async fn connect(&self) -> Result<Asker, Failure> {
        Ok(Asker { requests: self.requests.clone(), command: command(self.payload) })
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

impl Minimal {
    /// The first `filled` bytes of each file are written ahead.
    fn found_on(filled: usize, payload: usize) -> Result<Self, Failure> {
        let failure = |error: disk::Error| Failure::of(Self::NAME, error);
        let directory = disk::scratch().map_err(|error| failure(error.into()))?;
        let (acknowledge, acknowledged) = mpsc::channel(MAX_BATCH);
        let (mut orders, mut disks) = (Vec::new(), Vec::new());
        for server in 0..3 {
            let path = directory.path().join(format!("server{server}"));
            let bare = BareRedb::filled(&path, filled);
            let bare = bare.map_err(|error| failure(error.into()))?;
            let (order, incoming) = channel();
            let acknowledge = acknowledge.clone();
            let disk = thread::Builder::new().name(format!("minimal-{server}")).spawn(move || {
                write(bare, &incoming, |upto| acknowledge.blocking_send((server, upto)).is_ok());
            });
            disks.push(disk.map_err(|error| failure(error.into()))?);
            orders.push(order);
        }
        let (requests, incoming) = mpsc::channel(2 * MAX_BATCH);
        tokio::spawn(lead(incoming, orders, acknowledged));
        Ok(Self { requests, disks, directory, payload })
    }
}

/// The same with files that never grow while it is measured.
pub(in crate::contenders) struct MinimalFilled(Minimal);

impl Deployment for MinimalFilled {
    const NAME: &'static str = "minimal loop on redb, filled ahead";

    type Caller = Asker;

    async fn found(work: Workload) -> Result<Self, Failure> {
        Minimal::found_on(all_of(work), work.payload).map(Self)
    }

    async fn connect(&self) -> Result<Asker, Failure> {
        self.0.connect().await
    }

    async fn close(self) {
        self.0.close().await;
    }
}

/// A client of the leader.
#[derive(Clone)]
pub(in crate::contenders) struct Asker {
    requests: mpsc::Sender<Request>,
    command: Bytes,
}

impl Caller for Asker {
    async fn call(&mut self) -> Result<(), Failure> {
        let gone = |_| Failure::of(Minimal::NAME, "the leader is gone");
        let (answer, answered) = oneshot::channel();
        self.requests
            .send((self.command.clone(), answer))
            .await
            .map_err(|_| Failure::of(Minimal::NAME, "no leader"))?;
        answered.await.map_err(gone)
    }
}

/// Numbers requests, has them written everywhere, and answers what two have.
async fn lead(
    mut requests: mpsc::Receiver<Request>,
    orders: Vec<Sender<Batch>>,
    mut acknowledged: mpsc::Receiver<(usize, u64)>,
) {
    let mut quorum = Quorum::default();
    let mut waiting: VecDeque<oneshot::Sender<()>> = VecDeque::new();
    let mut arrived = Vec::with_capacity(MAX_BATCH);
    loop {
        tokio::select! {
            biased;
            acknowledgement = acknowledged.recv() => {
                let Some((server, upto)) = acknowledgement else { return };
                for _ in 0..quorum.acknowledge(server, upto) {
                    // Whoever does not wait any more does not mind.
                    let _ = waiting.pop_front().map(|request| request.send(()));
                }
            }
            count = requests.recv_many(&mut arrived, MAX_BATCH) => {
                if count == 0 { return }
                let mut batch = Vec::with_capacity(count);
                for (command, answer) in arrived.drain(..) {
                    batch.push(command);
                    waiting.push_back(answer);
                }
                let batch = Arc::new(batch);
                for order in &orders {
                    if order.send(Arc::clone(&batch)).is_err() { return }
                }
            }
        }
    }
}
