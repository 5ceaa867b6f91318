//! The process of a server: what it is told, and what it says.
//!
//! It is told what to do by one variable of its environment. It speaks through its standard output, a line each:
//!
//! * `waiting TEXT`: it founds its cluster, and for whom it waits.
//! * `ready`: it has started.
//! * `refused TEXT`: it could not start, and why. It then ends.
//! * `leader NAME`: who leads as far as it knows, whenever that changes; `leader -` for nobody.
//! * `view ROLE TERM STATUS`: what it is itself, whenever that changes.
//! * `stopped`: it has shut down in order. It then ends.
//!
//! It listens to its standard input: `stop` has it shut down in order. At the end of the input it ends at once, so
//! that no server outlives its test. What it logs goes to its standard error.

use std::{
    env,
    error::Error,
    io::{self, BufRead, Write},
    path::{Path, PathBuf},
    process, thread,
};

use graft::{Machine, Overview, Server, ServerBuilder, StartError, Tls};
use tokio::sync::{mpsc, watch};

use crate::machine::{Counter, Registers};

/// The variable that says what to do.
pub(crate) const TASK: &str = "GRAFT_TEST_SERVER";

/// What is logged: reasons, never requests.
const LOGGED: &str = "info,quinn=warn,quinn_proto=warn";

/// What a server process is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Task {
    pub(crate) name: String,
    pub(crate) cluster: String,
    /// All founders, and where each is reached.
    pub(crate) members: Vec<(String, String)>,
    /// Where it listens.
    pub(crate) listen: String,
    /// The certificates: `ca.pem`, and those of the name that it shows.
    pub(crate) certs: PathBuf,
    /// The name whose certificate it shows.
    pub(crate) shows: String,
    /// The directory of its store.
    pub(crate) store: PathBuf,
    /// Whether it runs a machine that is not that of the others.
    pub(crate) other_machine: bool,
}

impl Task {
    /// A field a line.
    pub(crate) fn encode(&self) -> String {
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let mut lines = vec![
            self.name.clone(),
            self.cluster.clone(),
            self.listen.clone(),
            path(&self.certs),
            self.shows.clone(),
            path(&self.store),
            self.other_machine.to_string(),
        ];
        lines.extend(self.members.iter().map(|(name, address)| format!("{name}={address}")));
        lines.join("\n")
    }

    fn decode(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut next = || lines.next().map(str::to_owned);
        let (name, cluster, listen) = (next()?, next()?, next()?);
        let (certs, shows, store) = (next()?.into(), next()?, next()?.into());
        let other_machine = next()?.parse().ok()?;
        let member = |line: &str| {
            line.split_once('=').map(|(name, address)| (name.to_owned(), address.to_owned()))
        };
        let members = lines.map(member).collect::<Option<_>>()?;
        Some(Self { name, cluster, members, listen, certs, shows, store, other_machine })
    }

    fn builder(&self) -> Result<ServerBuilder, Box<dyn Error>> {
        let tls = tls(&self.certs, &self.shows)?;
        Ok(graft::server(self.name.as_str())
            .cluster(self.cluster.as_str())
            .members(self.members.iter().map(|(name, address)| (name.as_str(), address.as_str())))
            .store(graft::store::redb(&self.store)?)
            .transport(graft::transport::quic(self.listen.as_str(), tls)?)
            .on_waiting(|progress| say(&format!("waiting {progress}"))))
    }
}

/// The identity `name` in a directory as `graft certs` fills it.
pub(crate) fn tls(directory: &Path, name: &str) -> Result<Tls, Box<dyn Error>> {
    let file = |name: &str| directory.join(format!("{name}.pem"));
    Ok(Tls::from_files(file("ca"), file(name), file(&format!("{name}-key")))?)
}

/// Runs the server that the environment describes, and ends the process with it; returns where there is none.
pub(crate) fn run_if_asked() {
    let Ok(task) = env::var(TASK) else { return };
    let task = Task::decode(&task).expect("the task is encoded by the parent");
    run(2, async move |orders| {
        if task.other_machine {
            serve(&task, Counter::default, orders).await;
        } else {
            serve(&task, Registers::default, orders).await;
        }
    });
}

/// Runs `work`, which hears the lines of the standard input, and ends the process.
pub(crate) fn run(threads: usize, work: impl AsyncFnOnce(mpsc::Receiver<String>)) {
    tracing_subscriber::fmt()
        .with_env_filter(LOGGED)
        .with_ansi(false)
        .with_writer(io::stderr)
        .init();
    let orders = listen();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    runtime.unwrap().block_on(work(orders));
    process::exit(0);
}

async fn serve<M: Machine>(
    task: &Task,
    machine: impl Fn() -> M + Send + Sync + 'static,
    mut orders: mpsc::Receiver<String>,
) {
    let server = match start(task, machine).await {
        Ok(server) => server,
        Err(error) => return say(&format!("refused {}", with_causes(&*error))),
    };
    say("ready");
    tokio::spawn(tell(server.watch()));
    while let Some(order) = orders.recv().await {
        if order == "stop" {
            server.shutdown().await;
            return say("stopped");
        }
    }
}

async fn start<M: Machine>(
    task: &Task,
    machine: impl Fn() -> M + Send + Sync + 'static,
) -> Result<Server<M>, Box<dyn Error>> {
    let started: Result<_, StartError> = task.builder()?.start(machine).await;
    Ok(started?)
}

/// Says what changes about the server.
async fn tell(mut watch: watch::Receiver<Overview>) {
    loop {
        let Overview { status, role, term, leader, .. } = watch.borrow_and_update().clone();
        let role = role.map_or_else(|| "-".to_owned(), |role| role.to_string());
        say(&format!("view {role} {term} {status}"));
        say(&format!("leader {}", leader.as_ref().map_or("-", |name| name.as_str())));
        if watch.changed().await.is_err() {
            return;
        }
    }
}

/// The lines of the standard input; at its end the process ends.
fn listen() -> mpsc::Receiver<String> {
    let (orders, receiver) = mpsc::channel(16);
    thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if orders.blocking_send(line).is_err() {
                break;
            }
        }
        process::exit(0);
    });
    receiver
}

/// One system call, past the test framework.
pub(crate) fn say(line: &str) {
    let line = line.replace('\n', " ");
    let mut out = io::stdout().lock();
    // A parent that is gone needs no answer.
    let _ = out.write_all(format!("\n{line}\n").as_bytes());
    let _ = out.flush();
}

fn with_causes(error: &dyn Error) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
