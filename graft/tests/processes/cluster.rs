//! Several server processes with all they need: certificates, addresses, directories.

use std::{
    future::{Future, poll_fn},
    net::{Ipv4Addr, UdpSocket},
    path::{Path, PathBuf},
    process,
    task::Poll,
};

use graft::{Client, Tls};
use graft_transport::certs::Authority;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::{
    PATIENCE,
    child::{self, Task},
    machine::Ask,
    process::{Process, Said},
    soon,
};

/// The name by which clients show themselves.
const CLIENT: &str = "client";

/// Where a server is.
#[derive(Debug)]
pub(crate) struct Place {
    /// Where it listens.
    pub(crate) listen: String,
    /// Where others find it.
    pub(crate) address: String,
    /// The command by way of which it is started, like `ip netns exec NAME`; empty for none.
    pub(crate) prefix: Vec<String>,
    /// Keeps others away from the port while its server is down.
    _guard: Option<UdpSocket>,
}

impl Place {
    pub(crate) fn new(address: impl Into<String>, prefix: &[&str]) -> Self {
        let address = address.into();
        let prefix = prefix.iter().map(|word| (*word).to_owned()).collect();
        Self { listen: address.clone(), address, prefix, _guard: None }
    }

    /// A place on this machine, at a port that the system chose and that nobody else comes to have.
    ///
    /// A port is bound for as long as this lives, at an address of this process, and the server listens at the same
    /// port of another such address: so the system gives the port to none of the sockets that listen everywhere, and
    /// at these addresses nobody else listens.
    pub(crate) fn here() -> Self {
        let [_, a, b, c] = process::id().to_be_bytes();
        let guarding = Ipv4Addr::new(127, 64 | (a & 63), b, c);
        let own = Ipv4Addr::new(127, 128 | (a & 63), b, c);
        let guard = UdpSocket::bind((guarding, 0)).unwrap();
        let port = guard.local_addr().unwrap().port();
        Self { _guard: Some(guard), ..Self::new(format!("{own}:{port}"), &[]) }
    }
}

/// A cluster of processes, which end when this is dropped. Servers are named by their place in the list, from 0;
/// server 0 is called `server1`.
pub(crate) struct Cluster {
    directory: TempDir,
    certs: PathBuf,
    servers: Vec<Server>,
}

struct Server {
    task: Task,
    place: Place,
    process: Option<Process>,
}

impl Cluster {
    /// `count` servers on this machine, of which none is started yet.
    pub(crate) fn new(count: usize) -> Self {
        Self::at((0..count).map(|_| Place::here()).collect())
    }

    /// A server at each of these places, of which none is started yet.
    pub(crate) fn at(places: Vec<Place>) -> Self {
        let name = "registers";
        let directory = tempfile::tempdir().unwrap();
        let certs = directory.path().join("certs");
        let names: Vec<String> =
            (1..=places.len()).map(|number| format!("server{number}")).collect();
        certify(&certs, name, &names);
        let addresses = places.iter().map(|place| place.address.clone());
        let members: Vec<(String, String)> = names.iter().cloned().zip(addresses).collect();
        let servers = names.into_iter().zip(places).map(|(own, place)| {
            let task = Task {
                cluster: name.to_owned(),
                members: members.clone(),
                listen: place.listen.clone(),
                certs: certs.clone(),
                shows: own.clone(),
                store: directory.path().join(&own),
                other_machine: false,
                name: own,
            };
            Server { task, place, process: None }
        });
        let servers = servers.collect();
        Self { directory, certs, servers }
    }

    /// `count` servers that have founded their cluster.
    pub(crate) async fn started(count: usize) -> Self {
        let mut cluster = Self::new(count);
        cluster.start_all().await;
        cluster
    }

    pub(crate) fn count(&self) -> usize {
        self.servers.len()
    }

    /// A directory that goes with the cluster.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What `server` is told when it is started: to be changed, for one that does something wrong.
    pub(crate) fn task(&self, server: usize) -> Task {
        self.servers[server].task.clone()
    }

    pub(crate) fn name(&self, server: usize) -> &str {
        &self.servers[server].task.name
    }

    /// Where others find it.
    pub(crate) fn address(&self, server: usize) -> String {
        self.servers[server].place.address.clone()
    }

    /// Starts a process without waiting for anything.
    pub(crate) fn launch(&mut self, server: usize) {
        let Server { task, place, process } = &mut self.servers[server];
        assert!(process.is_none(), "{} runs already", task.name);
        *process = Some(Process::start(task, &place.prefix));
    }

    /// Starts all that do not run, and waits until they are ready.
    pub(crate) async fn start_all(&mut self) {
        let down: Vec<usize> = (0..self.count()).filter(|server| !self.runs(*server)).collect();
        down.iter().for_each(|server| self.launch(*server));
        for server in down {
            self.process(server).ready().await;
        }
    }

    /// Starts a server that has taken part before, and waits until it is ready.
    pub(crate) async fn start(&mut self, server: usize) {
        self.launch(server);
        self.process(server).ready().await;
    }

    pub(crate) fn runs(&self, server: usize) -> bool {
        self.servers[server].process.is_some()
    }

    /// The process of a server that runs.
    pub(crate) fn process(&self, server: usize) -> &Process {
        self.servers[server].process.as_ref().expect("it runs")
    }

    fn take(&mut self, server: usize) -> Process {
        self.servers[server].process.take().expect("it runs")
    }

    /// SIGKILL, and the end of the process.
    pub(crate) fn kill(&mut self, server: usize) {
        self.take(server).kill();
    }

    /// Has it shut down in order.
    pub(crate) async fn shut_down(&mut self, server: usize) {
        self.take(server).shut_down().await;
    }

    /// The server that leads, as a majority sees it.
    pub(crate) async fn leader(&self) -> usize {
        let all: Vec<usize> = (0..self.count()).filter(|server| self.runs(*server)).collect();
        self.leader_among(&all).await
    }

    /// The server of these that leads, as a majority of the cluster among them sees it. What a paused or cut off server
    /// says is what it knew last: a test that does that to servers asks among the others.
    pub(crate) async fn leader_among(&self, servers: &[usize]) -> usize {
        let mut watches: Vec<_> =
            servers.iter().map(|server| self.process(*server).watch()).collect();
        let search = async {
            loop {
                let said: Vec<Said> =
                    watches.iter_mut().map(|watch| watch.borrow_and_update().clone()).collect();
                if let Some(leader) = self.leader_by(servers, &said) {
                    return leader;
                }
                any_change(&mut watches).await;
            }
        };
        match tokio::time::timeout(PATIENCE, search).await {
            Ok(leader) => leader,
            Err(_) => {
                let said = servers.iter().map(|server| self.process(*server).said());
                panic!("nobody leads: {:?}", said.collect::<Vec<_>>());
            }
        }
    }

    /// The server that says that it leads in the highest term, and of which a majority says so.
    fn leader_by(&self, servers: &[usize], said: &[Said]) -> Option<usize> {
        let term = said.iter().map(|said| said.term).max()?;
        let leads = |said: &Said| said.role == "leader" && said.term == term;
        let leader = servers[said.iter().position(leads)?];
        let name = Some(self.name(leader));
        let agree = said.iter().filter(|said| said.leader.as_deref() == name && said.term == term);
        (agree.count() > self.count() / 2).then_some(leader)
    }

    /// Waits until one of the running has logged a line with all of these texts, and gives the line.
    pub(crate) async fn logged_by_any(&self, texts: &[impl AsRef<str>]) -> String {
        let running = self.running();
        let mut waits: Vec<_> =
            running.iter().map(|process| Box::pin(process.logged(texts))).collect();
        poll_fn(|context| {
            let mut polls = waits.iter_mut().map(|wait| wait.as_mut().poll(context));
            polls.find(Poll::is_ready).unwrap_or(Poll::Pending)
        })
        .await
    }

    /// The processes of all that run.
    pub(crate) fn running(&self) -> Vec<&Process> {
        self.servers.iter().filter_map(|server| server.process.as_ref()).collect()
    }

    /// The identity of a client.
    pub(crate) fn client_tls(&self) -> Tls {
        child::tls(&self.certs, CLIENT).unwrap()
    }

    /// A client in this process that is told these servers' addresses and no others.
    pub(crate) async fn client(&self, servers: &[usize]) -> Client<Ask> {
        let addresses: Vec<String> = servers.iter().map(|server| self.address(*server)).collect();
        soon(Client::builder().patience(PATIENCE).connect(addresses, self.client_tls()))
            .await
            .unwrap()
    }
}

/// Waits until one of these has changed.
async fn any_change(watches: &mut [watch::Receiver<Said>]) {
    let mut changes: Vec<_> = watches.iter_mut().map(|watch| Box::pin(watch.changed())).collect();
    poll_fn(|context| {
        let changed = changes.iter_mut().any(|change| change.as_mut().poll(context).is_ready());
        if changed { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Writes the certificates of a new authority, of these servers and of a client into a directory.
pub(crate) fn certify(directory: &Path, cluster: &str, servers: &[String]) {
    let authority = Authority::open(directory, cluster).unwrap();
    for server in servers {
        authority.server(server).unwrap().write_to(directory).unwrap();
    }
    authority.client(CLIENT).unwrap().write_to(directory).unwrap();
}
