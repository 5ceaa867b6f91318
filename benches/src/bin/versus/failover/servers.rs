//! Three server processes, and what they said of themselves.

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use graft::Tls;
use graft_benches::{
    contenders::{Certificates, addresses},
    disk::{Error, scratch},
};
use tempfile::TempDir;
use tokio::{
    sync::mpsc::{Receiver, Sender, channel},
    time::timeout,
};

pub(super) const NAMES: [&str; 3] = ["server1", "server2", "server3"];

/// Nothing here takes nearly as long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Three servers. They end when this is dropped.
pub(super) struct Servers {
    servers: Vec<Server>,
    members: String,
    pub(super) addresses: [SocketAddr; 3],
    certificates: Certificates,
    said: Receiver<(usize, u32, Option<String>)>,
    say: Sender<(usize, u32, Option<String>)>,
    directory: TempDir,
}

/// One process after the other.
#[derive(Default)]
struct Server {
    process: Option<Child>,
    /// The number of the process, so that what an earlier one said is not taken for its word.
    run: u32,
    ready: bool,
    /// In which term it leads.
    leads: Option<u64>,
    reached: u64,
}

impl Servers {
    /// Starts three servers that found a cluster.
    pub(super) async fn found() -> Result<Self, Error> {
        let directory = scratch()?;
        let certificates = Certificates::new()?;
        let addresses = addresses()?;
        let members = NAMES.iter().zip(addresses);
        let members: Vec<_> = members.map(|(name, at)| format!("{name}={at}")).collect();
        let (say, said) = channel(64);
        let servers = NAMES.map(|_| Server::default()).into();
        let members = members.join(",");
        let mut all = Self { servers, members, addresses, certificates, said, say, directory };
        for (at, name) in NAMES.iter().enumerate() {
            all.certificates.write_server(name, &all.directory.path().join("certificates"))?;
            all.start(at)?;
        }
        all.until("the servers start", |servers| servers.iter().all(|server| server.ready)).await?;
        Ok(all)
    }

    pub(super) fn client_tls(&self) -> Result<Tls, Error> {
        self.certificates.client()
    }

    /// Starts the process of a server.
    pub(super) fn start(&mut self, at: usize) -> Result<(), Error> {
        let path = |part: &str| self.directory.path().join(part);
        let mut process = Command::new(env::current_exe()?)
            .args(["serve", NAMES[at], "--members", &self.members])
            .arg("--store")
            .arg(path(NAMES[at]))
            .arg("--certificates")
            .arg(path("certificates"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = process.stdout.take().ok_or("a server has no output")?;
        let run = self.servers[at].run + 1;
        self.servers[at] = Server { process: Some(process), run, ..Server::default() };
        let say = self.say.clone();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if say.blocking_send((at, run, Some(line))).is_err() {
                    return;
                }
            }
            // Where nobody listens any more, nobody minds.
            let _ = say.blocking_send((at, run, None));
        });
        Ok(())
    }

    /// Waits until a server has started.
    pub(super) async fn ready(&mut self, at: usize) -> Result<(), Error> {
        self.until("a server starts", |servers| servers[at].ready).await
    }

    /// Waits until all have applied the entry at `index`.
    pub(super) async fn reach(&mut self, index: u64) -> Result<(), Error> {
        for server in &mut self.servers {
            let input = server.process.as_mut().and_then(|process| process.stdin.as_mut());
            writeln!(input.ok_or("a server has no input")?, "reached {index}")?;
        }
        let reached = |servers: &[Server]| servers.iter().all(|server| server.reached >= index);
        self.until("the servers catch up", reached).await
    }

    /// Waits for a leader: the one of the highest term.
    pub(super) async fn leader(&mut self) -> Result<usize, Error> {
        let is_led = |servers: &[Server]| servers.iter().any(|server| server.leads.is_some());
        self.until("a server leads", is_led).await?;
        let leader = (0..NAMES.len()).max_by_key(|at| self.servers[*at].leads);
        leader.ok_or_else(|| "there are no servers".into())
    }

    /// Kills a server. Returns when it was told to die, and when it was dead.
    pub(super) fn kill(&mut self, at: usize) -> Result<[Instant; 2], Error> {
        let server = &mut self.servers[at];
        let mut process = server.process.take().ok_or("the server is dead already")?;
        // Whatever it said that was not read yet is of no interest.
        server.run += 1;
        (server.ready, server.leads, server.reached) = (false, None, 0);
        let begin = Instant::now();
        process.kill()?;
        process.wait()?;
        Ok([begin, Instant::now()])
    }

    /// Listens until what they said makes `done` true.
    async fn until(&mut self, what: &str, done: impl Fn(&[Server]) -> bool) -> Result<(), Error> {
        let listen = async {
            while !done(&self.servers) {
                let Some((at, run, line)) = self.said.recv().await else { break };
                let server = &mut self.servers[at];
                if run != server.run {
                    continue;
                }
                let line = line.ok_or_else(|| format!("{} ended by itself", NAMES[at]))?;
                server.note(&line);
            }
            Ok(())
        };
        match timeout(PATIENCE, listen).await {
            Ok(heard) => heard,
            Err(_) => Err(format!("waited {PATIENCE:?} in vain until {what}").into()),
        }
    }
}

impl Server {
    fn note(&mut self, line: &str) {
        let (word, number) = line.split_once(' ').unwrap_or((line, ""));
        let number: Option<u64> = number.parse().ok();
        match word {
            "ready" => self.ready = true,
            "leads" => self.leads = number,
            "follows" => self.leads = None,
            "reached" => self.reached = self.reached.max(number.unwrap_or_default()),
            _ => {}
        }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for server in &mut self.servers {
            if let Some(process) = &mut server.process {
                // One that is dead already is as good.
                let _ = process.kill();
                let _ = process.wait();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_what_it_said_last() {
        let mut server = Server::default();
        for line in ["ready", "follows 1", "leads 2", "reached 7", "reached 5", "nonsense 3"] {
            server.note(line);
        }
        assert_eq!((server.ready, server.leads, server.reached), (true, Some(2), 7));
        server.note("follows 3");
        assert_eq!(server.leads, None);
    }
}
