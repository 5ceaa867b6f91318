//! Processes of the kv example: a place for three servers, and clients that ask them.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use graft_transport::certs::Authority;
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const SERVERS: [&str; 3] = ["server1", "server2", "server3"];

/// How long a command may take: longer than any machine is busy with something else.
const DEADLINE: Duration = Duration::from_secs(20);

/// Only what is broken takes so long.
const PATIENCE: Duration = Duration::from_secs(40);

/// Certificates, a configuration and room for logs.
pub(crate) struct Place {
    directory: TempDir,
    pub(crate) authority: Authority,
    /// Of each of the servers.
    pub(crate) addresses: [String; 3],
}

impl Place {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let certs = directory.path().join("certs");
        let authority = Authority::open(&certs, "graft").unwrap();
        for server in SERVERS {
            authority.server(server).unwrap().write_to(&certs).unwrap();
        }
        authority.client("client").unwrap().write_to(&certs).unwrap();
        let addresses = SERVERS.map(|_| format!("127.0.0.1:{}", free_port()));
        let [one, two, three] = &addresses;
        let config = format!(
            "certs = \"certs\"\n[members]\nserver1 = \"{one}\"\nserver2 = \"{two}\"\nserver3 = \"{three}\"\n\
             [client]\ndeadline = \"{}s\"\n",
            DEADLINE.as_secs()
        );
        fs::write(directory.path().join("kv.toml"), config).unwrap();
        Self { directory, authority, addresses }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where the log of a server is.
    pub(crate) fn data(&self, server: &str) -> PathBuf {
        self.path("data").join(server)
    }

    pub(crate) fn address_of(&self, server: &str) -> &str {
        &self.addresses[SERVERS.iter().position(|other| *other == server).unwrap()]
    }

    /// Starts a server. Whether it comes to serve is another question.
    pub(crate) fn server(&self, name: &'static str) -> Server {
        let (config, data) = (self.path("kv.toml"), self.data(name));
        let arguments = ["--config", text(&config), "--name", name, "--data", text(&data)];
        let process = Process::start("kv_server", &arguments);
        Server { name, address: self.address_of(name).to_owned(), process }
    }

    /// Starts all servers, and waits until they serve.
    pub(crate) fn servers(&self) -> Vec<Server> {
        let servers = SERVERS.map(|name| self.server(name));
        servers.iter().for_each(Server::serves);
        servers.into()
    }

    /// Starts a client that knows the server at this address alone.
    pub(crate) fn client(&self, address: &str, arguments: &[&str]) -> Process {
        let config = self.path("kv.toml");
        let mut all = vec!["--config", text(&config), "--server", address];
        all.extend(arguments);
        Process::start("kv_client", &all)
    }

    /// Runs a client that knows the server at this address alone.
    pub(crate) fn ask(&self, address: &str, arguments: &[&str]) -> Ran {
        self.client(address, arguments).ends()
    }

    /// A client with one connection for many commands, that knows the server at this address alone.
    pub(crate) fn shell(&self, address: &str) -> Shell {
        Shell { process: self.client(address, &["--json", "shell", "--keep-going"]), answers: 0 }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A port of the loopback device that nobody has, and that nobody will be given who does not ask for it by its number:
/// the sockets of clients get theirs from a range above 32,000. So a server that is down finds its port free.
fn free_port() -> u16 {
    static LAST: Mutex<Option<u16>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap();
    loop {
        // Parallel tests of this process must not find the same one; other processes begin elsewhere.
        let port = last.map_or_else(|| fastrand::u16(10_000..30_000), |last| last + 1);
        *last = Some(port);
        if UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
        assert!(port < 32_000, "all ports are taken");
    }
}

/// One of the example programs, running. It is killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    seen: Arc<Seen>,
}

/// What a process has written so far.
#[derive(Default)]
struct Seen {
    texts: Mutex<Texts>,
    change: Condvar,
}

#[derive(Default)]
struct Texts {
    out: String,
    error: String,
    /// How many of the two have ended.
    ended: usize,
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) error: String,
}

impl Ran {
    #[track_caller]
    pub(crate) fn is(&self, code: i32, out: &str) {
        assert_eq!((self.code, self.out.as_str()), (Some(code), out), "{}", self.error);
    }

    #[track_caller]
    pub(crate) fn fails(&self, code: i32, words: &[&str]) {
        assert_eq!((self.code, self.out.as_str()), (Some(code), ""), "{}", self.error);
        for word in words {
            assert!(self.error.contains(word), "{word:?} is missing in: {}", self.error);
        }
    }
}

impl Process {
    pub(crate) fn start(program: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(built(program));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("GRAFT_KV_") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.args(arguments).spawn().unwrap();
        let seen = Arc::<Seen>::default();
        let out = child.stdout.take().unwrap();
        let error = child.stderr.take().unwrap();
        let (to_out, to_error) = (Arc::clone(&seen), Arc::clone(&seen));
        thread::spawn(move || to_out.read(out, |texts| &mut texts.out));
        thread::spawn(move || to_error.read(error, |texts| &mut texts.error));
        Self { child, seen }
    }

    /// Waits until what it has written is as it should be.
    #[track_caller]
    fn until<T>(&self, what: &str, mut find: impl FnMut(&Texts) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut texts = self.seen.texts.lock().unwrap();
        loop {
            if let Some(found) = find(&texts) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let has_ended = texts.ended == 2;
            if left.is_zero() || has_ended {
                let when = if has_ended { "before it ended" } else { "in time" };
                let Texts { out, error, .. } = &*texts;
                panic!(
                    "not {when}: {what}\n-- standard output:\n{out}\n-- standard error:\n{error}"
                );
            }
            texts = self.seen.change.wait_timeout(texts, left).unwrap().0;
        }
    }

    /// Waits until it says this on standard error.
    #[track_caller]
    pub(crate) fn says(&self, words: &str) {
        self.until(words, |texts| texts.error.contains(words).then_some(()));
    }

    /// What it has said on standard error so far.
    pub(crate) fn said(&self) -> String {
        self.seen.texts.lock().unwrap().error.clone()
    }

    pub(crate) fn signal(&self, signal: &str) {
        let kill = format!("kill -s {signal} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success(), "{kill}");
    }

    pub(crate) fn write_line(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().unwrap();
        input.write_all(format!("{line}\n").as_bytes()).unwrap();
        input.flush().unwrap();
    }

    /// Closes its standard input, and waits until it has ended.
    #[track_caller]
    pub(crate) fn ends(mut self) -> Ran {
        drop(self.child.stdin.take());
        // A process that has closed both is ending; nothing else here closes them.
        self.until("it ends", |texts| (texts.ended == 2).then_some(()));
        let status: ExitStatus = self.child.wait().unwrap();
        let texts = self.seen.texts.lock().unwrap();
        Ran { code: status.code(), out: texts.out.clone(), error: texts.error.clone() }
    }

    /// Ends it as the loss of its machine would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Seen {
    fn read(&self, source: impl Read, of: impl Fn(&mut Texts) -> &mut String) {
        let mut source = BufReader::new(source);
        let mut line = Vec::new();
        while source.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
            of(&mut self.texts.lock().unwrap()).push_str(&String::from_utf8_lossy(&line));
            self.change.notify_all();
            line.clear();
        }
        self.texts.lock().unwrap().ended += 1;
        self.change.notify_all();
    }
}

/// Examples lie beside the tests that cargo has built with them.
fn built(program: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().unwrap().with_file_name("examples").join(program);
    assert!(
        path.exists(),
        "{} is missing: build it with `cargo build -p graft-examples --examples`, as `cargo test -p graft-examples` does",
        path.display()
    );
    path
}

/// A server, running.
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) address: String,
    pub(crate) process: Process,
}

impl Server {
    /// Waits until it serves.
    #[track_caller]
    pub(crate) fn serves(&self) {
        let ready = format!("ready {} {}\n", self.name, self.address);
        self.process.until(&ready, |texts| (texts.out == ready).then_some(()));
    }

    /// Whether it has said by now that it serves.
    pub(crate) fn is_ready(&self) -> bool {
        !self.process.seen.texts.lock().unwrap().out.is_empty()
    }

    /// The term in which it leads, by what its log says last of its role.
    pub(crate) fn leads(&self) -> Option<u64> {
        leads(&self.process.said())
    }
}

/// In which term a server leads after it has logged this.
pub(crate) fn leads(log: &str) -> Option<u64> {
    let of_role = ["won the election and leads", "changed its role", "follows a leader"];
    let last = log.lines().rfind(|line| of_role.iter().any(|words| line.contains(words)))?;
    let (_, term) = last.split_once(" term=").filter(|_| last.contains(of_role[0]))?;
    term.split(' ').next()?.parse().ok()
}

/// Where among `servers` the leader is. One stands or will soon.
#[track_caller]
pub(crate) fn leader_of(servers: &[Server]) -> usize {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let leading = servers.iter().enumerate().filter_map(|(at, server)| {
            let term = server.leads()?;
            Some((term, at))
        });
        if let Some((_, at)) = leading.max() {
            return at;
        }
        assert!(Instant::now() < deadline, "nobody leads");
        // Logs are looked at again and again: no event of theirs says who leads.
        thread::sleep(Duration::from_millis(2));
    }
}

/// A client that is given commands one by one.
pub(crate) struct Shell {
    process: Process,
    answers: usize,
}

impl Shell {
    /// What the next command is answered.
    #[track_caller]
    pub(crate) fn ask(&mut self, command: &str) -> Value {
        self.process.write_line(command);
        let number = self.answers;
        self.answers += 1;
        let line = self.process.until(command, |texts| {
            let whole = texts.out.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            whole.map(str::to_owned).nth(number)
        });
        serde_json::from_str(&line).unwrap()
    }

    /// Ends it, and returns the code it exits with.
    #[track_caller]
    pub(crate) fn ends(self) -> Option<i32> {
        self.process.ends().code
    }
}
