//! The baseline of clusters on a disk: a leader and two followers that write every batch, and no
//! consensus at all.
//!
//! No terms, no elections, no checks, no sessions, no flow control: commands are numbered, gathered,
//! written by all three, and answered once the leader and one more have them on their disks, as graft
//! answers. It is about the most that tokio and redb can give to a replicated log. Its files have all
//! the space that a run needs before it begins; graft's stores begin new ones on the way.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
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

/// A command, and who waits for it.
type Request = (Bytes, oneshot::Sender<()>);

/// What the leader took in at once, shared by all three.
type Batch = Arc<Vec<Bytes>>;

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
        self.0
            .send((Bytes::copy_from_slice(COMMAND), answer))
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
    let mut written = [0; 3];
    let mut waiting: VecDeque<oneshot::Sender<()>> = VecDeque::new();
    let mut answered = 0;
    let mut arrived = Vec::with_capacity(MAX_BATCH);
    loop {
        tokio::select! {
            biased;
            acknowledgement = acknowledged.recv() => {
                let Some((server, upto)) = acknowledgement else { return };
                written[server] = upto;
                // The leader applies what it holds itself: two followers are not enough.
                let [leader, one, other] = written;
                while answered < leader.min(one.max(other)) {
                    answered += 1;
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

/// Writes what comes, all that waits in one transaction, and says how much it has.
fn write(
    server: usize,
    mut bare: BareRedb,
    orders: &Receiver<Batch>,
    acknowledge: &mpsc::Sender<(usize, u64)>,
) {
    let mut upto = 0;
    while let Ok(first) = orders.recv() {
        let batches: Vec<Batch> = std::iter::once(first).chain(orders.try_iter()).collect();
        let commands: Vec<&Bytes> = batches.iter().flat_map(|batch| batch.iter()).collect();
        upto += commands.len() as u64;
        if bare.append(&commands).is_err() || acknowledge.blocking_send((server, upto)).is_err() {
            return;
        }
    }
}
