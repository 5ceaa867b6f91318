//! The baseline over QUIC: a leader and two followers on sockets of their own, and a client on another.
//!
//! The leader has one connection with each follower and one with the client, each with one stream in both
//! directions that lives as long. Whatever has arrived when a task comes to look is taken down and sent on at
//! once, in one write. Answers are counts: they are given in the order in which commands came.

use std::{
    collections::VecDeque,
    future::pending,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        mpsc::{Sender, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use bytes::Bytes;
use graft::Tls;
use quinn::{Endpoint, RecvStream, SendStream, VarInt};
use tempfile::TempDir;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::timeout,
};

use super::{
    Batch, FILLED, MAX_BATCH, Quorum, command,
    endpoint::{self, Other},
    streams::{Commands, Counts, Outgoing, write_count},
    write,
};
use crate::{
    Caller, Deployment, Failure, Workload,
    contenders::Certificates,
    disk::{self, BareRedb, Error},
};

/// What is not done by then goes with its runtime.
const PATIENCE: Duration = Duration::from_secs(5);

const LEADER: usize = 0;
const NAMES: [&str; 3] = ["leader", "follower1", "follower2"];

/// A leader and two followers.
pub(in crate::contenders) struct QuicMinimal {
    address: SocketAddr,
    certificates: Certificates,
    tasks: JoinSet<()>,
    trouble: Trouble,
    disks: Vec<JoinHandle<()>>,
    payload: usize,
}

impl Deployment for QuicMinimal {
    const NAME: &'static str = "minimal loop over QUIC";

    type Caller = Asker;

    async fn found(work: Workload) -> Result<Self, Failure> {
        let logs = [const { Log::in_memory() }; 3];
        Self::found_on(logs, work.payload).await.map_err(failure)
    }

    async fn connect(&self) -> Result<Asker, Failure> {
        let tls = self.certificates.client().map_err(failure)?;
        let (trouble, command) = (Arc::clone(&self.trouble), command(self.payload));
        Asker::connect(self.address, &tls, command, trouble).await.map_err(failure)
    }

    async fn close(mut self) {
        // The leader leaves when its client has left, and the followers follow.
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        let _ = timeout(PATIENCE, ended).await;
        self.tasks.shutdown().await;
        let disks = self.disks;
        // A panic of a disk showed as requests without answers.
        let ended = move || disks.into_iter().for_each(|disk| drop(disk.join()));
        let _ = tokio::task::spawn_blocking(ended).await;
    }
}

impl QuicMinimal {
    async fn found_on(mut logs: [Log; 3], payload: usize) -> Result<Self, Error> {
        let certificates = Certificates::new()?;
        let disks = logs.iter_mut().filter_map(|log| log.thread.take()).collect();
        let [leaders, one, other] = logs;
        let tls = certificates.server(NAMES[LEADER])?;
        let socket = endpoint::listen(&tls, Other::Client)?;
        let address = socket.local_addr()?;
        let (mut tasks, trouble) = (JoinSet::new(), Trouble::default());
        let mut followers = Vec::new();
        for (name, log) in NAMES[1..].iter().zip([one, other]) {
            let own = endpoint::listen(&certificates.server(name)?, Other::Peer)?;
            let theirs = own.local_addr()?;
            tasks.spawn(until_it_ends(name, Arc::clone(&trouble), follow(own, log)));
            let connection = endpoint::call(&socket, &tls, theirs, Some(name)).await?;
            followers.push(connection.open_bi().await?);
        }
        let followers = followers.try_into().map_err(|_| "there are two followers")?;
        let leader = lead(socket, followers, leaders);
        tasks.spawn(until_it_ends(NAMES[LEADER], Arc::clone(&trouble), leader));
        Ok(Self { address, certificates, tasks, trouble, disks, payload })
    }
}

/// The same with every log on the disk.
pub(in crate::contenders) struct QuicMinimalOnDisk {
    minimal: QuicMinimal,
    directory: TempDir,
}

impl Deployment for QuicMinimalOnDisk {
    const NAME: &'static str = "minimal loop over QUIC, on redb";

    type Caller = Asker;

    async fn found(work: Workload) -> Result<Self, Failure> {
        let found = async {
            let directory = disk::scratch()?;
            let mut logs = [const { Log::in_memory() }; 3];
            for (log, name) in logs.iter_mut().zip(NAMES) {
                *log = Log::on_disk(&directory.path().join(name))?;
            }
            let minimal = QuicMinimal::found_on(logs, work.payload).await?;
            Ok(Self { minimal, directory })
        };
        found.await.map_err(|error: Error| failure(error))
    }

    async fn connect(&self) -> Result<Asker, Failure> {
        self.minimal.connect().await
    }

    async fn close(self) {
        self.minimal.close().await;
        drop(self.directory);
    }
}

fn failure(error: impl std::fmt::Display) -> Failure {
    Failure::of("minimal loop over QUIC", error)
}

/// The commands of one server, in memory or on the way to a thread that writes them.
struct Log {
    /// All commands where they are in memory.
    commands: Vec<Bytes>,
    /// Where they go if they are not.
    disk: Option<(Sender<Batch>, watch::Receiver<u64>)>,
    thread: Option<JoinHandle<()>>,
}

impl Log {
    const fn in_memory() -> Self {
        Self { commands: Vec::new(), disk: None, thread: None }
    }

    fn on_disk(path: &Path) -> Result<Self, Error> {
        let bare = BareRedb::filled(path, FILLED)?;
        let (orders, incoming) = channel();
        let (acknowledge, written) = watch::channel(0);
        let thread = thread::Builder::new()
            .name("minimal-disk".to_owned())
            .spawn(move || write(bare, &incoming, |upto| acknowledge.send(upto).is_ok()))?;
        Ok(Self { commands: Vec::new(), disk: Some((orders, written)), thread: Some(thread) })
    }

    /// Takes commands in. Says how many there are, if they are safe already.
    fn append(&mut self, mut commands: Vec<Bytes>) -> Result<Option<u64>, Error> {
        if let Some((orders, _)) = &self.disk {
            orders.send(Arc::new(commands)).map_err(|_| "the disk is gone")?;
            return Ok(None);
        }
        self.commands.append(&mut commands);
        Ok(Some(self.commands.len() as u64))
    }

    /// Waits until more are safe, and says how many.
    async fn written(&mut self) -> Result<u64, Error> {
        match &mut self.disk {
            Some((_, written)) => {
                written.changed().await?;
                Ok(*written.borrow_and_update())
            }
            None => pending().await,
        }
    }
}

/// What ended a task first, if it was not the end.
type Trouble = Arc<OnceLock<String>>;

async fn until_it_ends(
    name: &'static str,
    trouble: Trouble,
    task: impl Future<Output = Result<(), Error>>,
) {
    if let Err(error) = task.await {
        // What came first is the cause.
        let _ = trouble.set(format!("{name}: {error}"));
    }
}

/// Takes down what the leader sends, and says how much of it there is.
async fn follow(socket: Endpoint, mut log: Log) -> Result<(), Error> {
    let connection = endpoint::answer(&socket).await?;
    let (mut acknowledgements, commands) = connection.accept_bi().await?;
    let mut commands = Commands::new(commands);
    loop {
        let safe = tokio::select! {
            biased;
            written = log.written() => Some(written?),
            arrived = commands.next() => match arrived? {
                Some(arrived) if arrived.commands.is_empty() => None,
                Some(arrived) => log.append(arrived.commands)?,
                None => return Ok(()),
            },
        };
        if let Some(upto) = safe {
            write_count(&mut acknowledgements, upto).await?;
        }
    }
}

/// Takes commands of one client down, sends them on, and answers what it and a follower have.
async fn lead(
    socket: Endpoint,
    followers: [(SendStream, RecvStream); 2],
    mut log: Log,
) -> Result<(), Error> {
    let client = endpoint::answer(&socket).await?;
    let (mut answers, requests) = client.accept_bi().await?;
    let mut requests = Commands::new(requests);
    let [(mut to_one, from_one), (mut to_other, from_other)] = followers;
    let (mut from_one, mut from_other) = (Counts::new(from_one), Counts::new(from_other));
    let mut quorum = Quorum::default();
    loop {
        let (server, upto) = tokio::select! {
            biased;
            upto = from_one.next() => (1, upto?.ok_or("the first follower left")?),
            upto = from_other.next() => (2, upto?.ok_or("the second follower left")?),
            upto = log.written() => (LEADER, upto?),
            arrived = requests.next() => match arrived? {
                Some(arrived) if arrived.commands.is_empty() => continue,
                Some(arrived) => {
                    to_one.write_chunk(arrived.bytes.clone()).await?;
                    to_other.write_chunk(arrived.bytes).await?;
                    match log.append(arrived.commands)? {
                        Some(upto) => (LEADER, upto),
                        None => continue,
                    }
                }
                None => break,
            },
        };
        if quorum.acknowledge(server, upto) > 0 {
            write_count(&mut answers, quorum.answered).await?;
        }
    }
    socket.close(VarInt::from_u32(0), b"");
    socket.wait_idle().await;
    Ok(())
}

/// A command, and who waits for its answer.
type Request = (Bytes, oneshot::Sender<()>);

/// Those who wait, in the order in which their commands were sent.
type Waiting = Arc<Mutex<VecDeque<oneshot::Sender<()>>>>;

/// A task that asks by a connection it shares with all others.
#[derive(Clone)]
pub(in crate::contenders) struct Asker {
    requests: mpsc::Sender<Request>,
    command: Bytes,
    socket: Endpoint,
    trouble: Trouble,
}

impl Caller for Asker {
    async fn call(&mut self) -> Result<(), Failure> {
        let (answer, answered) = oneshot::channel();
        let request = (self.command.clone(), answer);
        if self.requests.send(request).await.is_ok() && answered.await.is_ok() {
            return Ok(());
        }
        Err(failure(self.trouble.get().map_or("the leader is gone", String::as_str)))
    }

    async fn leave(self) {
        let Self { requests, socket, .. } = self;
        drop(requests);
        let _ = timeout(PATIENCE, socket.wait_idle()).await;
    }
}

impl Asker {
    async fn connect(
        address: SocketAddr,
        tls: &Tls,
        command: Bytes,
        trouble: Trouble,
    ) -> Result<Self, Error> {
        let socket = endpoint::call_only()?;
        let connection = endpoint::call(&socket, tls, address, None).await?;
        let (stream, answers) = connection.open_bi().await?;
        let (requests, incoming) = mpsc::channel(2 * MAX_BATCH);
        let waiting = Waiting::default();
        let (hear, ask) = (hear(answers, Arc::clone(&waiting)), ask(stream, incoming, waiting));
        tokio::spawn(until_it_ends("client", Arc::clone(&trouble), hear));
        tokio::spawn(until_it_ends("client", Arc::clone(&trouble), ask));
        Ok(Self { requests, command, socket, trouble })
    }
}

/// Sends all that waits, at once.
async fn ask(
    mut stream: SendStream,
    mut requests: mpsc::Receiver<Request>,
    waiting: Waiting,
) -> Result<(), Error> {
    let mut arrived = Vec::with_capacity(MAX_BATCH);
    let mut outgoing = Outgoing::default();
    while requests.recv_many(&mut arrived, MAX_BATCH).await > 0 {
        note(&mut arrived, &waiting, &mut outgoing);
        outgoing.write(&mut stream).await?;
    }
    stream.finish()?;
    Ok(())
}

/// Who will be answered must wait before the command is on its way.
fn note(arrived: &mut Vec<Request>, waiting: &Waiting, outgoing: &mut Outgoing) {
    let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
    for (command, answer) in arrived.drain(..) {
        outgoing.push(command);
        waiting.push_back(answer);
    }
}

/// Tells everybody whose command is done.
async fn hear(answers: RecvStream, waiting: Waiting) -> Result<(), Error> {
    let mut answers = Counts::new(answers);
    let mut answered = 0;
    let mut done = Vec::new();
    while let Ok(Some(upto)) = answers.next().await {
        let count = usize::try_from(upto - answered)?;
        answered = upto;
        done.extend(waiting.lock().unwrap_or_else(PoisonError::into_inner).drain(..count));
        for request in done.drain(..) {
            // Whoever does not wait any more does not mind.
            let _ = request.send(());
        }
    }
    // Nobody is answered any more.
    waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
    Ok(())
}
