//! A server process as its parent sees it.

use std::{
    collections::VecDeque,
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use crate::{
    PATIENCE,
    child::{TASK, Task},
};

/// How many lines of a process are kept, the last ones.
const LINES: usize = 20_000;
/// How many lines of its log a failure shows.
const SHOWN: usize = 60;

/// What a process has said so far.
#[derive(Clone, Default, Debug)]
pub(crate) struct Said {
    pub(crate) ready: bool,
    pub(crate) refused: Option<String>,
    pub(crate) waiting: Option<String>,
    /// Who leads, as far as it knows.
    pub(crate) leader: Option<String>,
    /// What it is, like `follower`; `-` while its server does not run.
    pub(crate) role: String,
    pub(crate) term: u64,
    pub(crate) status: String,
    pub(crate) stopped: bool,
    /// What came of the requests of a flooder.
    pub(crate) flooded: Option<String>,
    /// Its output is at its end, as it is once the process is.
    pub(crate) ended: bool,
}

impl Said {
    fn hear(&mut self, line: &str) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "ready" => self.ready = true,
            "refused" => self.refused = Some(rest.to_owned()),
            "waiting" => self.waiting = Some(rest.to_owned()),
            "leader" => self.leader = Some(rest.to_owned()).filter(|name| name != "-"),
            "view" => {
                let mut words = rest.splitn(3, ' ').map(str::to_owned);
                let mut word = || words.next().unwrap_or_default();
                self.role = word();
                self.term = word().parse().expect("a term");
                self.status = word();
            }
            "stopped" => self.stopped = true,
            "flooded" => self.flooded = Some(rest.to_owned()),
            // The test framework speaks, too.
            _ => {}
        }
    }
}

/// The lines of a stream, the last [`LINES`] of them.
type Log = watch::Receiver<VecDeque<String>>;

/// A server process. Killed when dropped, whatever becomes of the test.
pub(crate) struct Process {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    said: watch::Receiver<Said>,
    log: Log,
}

impl Process {
    /// Starts a server that does `task`, by way of the command `prefix` where there is one, like `ip netns exec
    /// NAME`. That command must become the process, as this one does.
    pub(crate) fn start(task: &Task, prefix: &[String]) -> Self {
        Self::run(&task.name, TASK, &task.encode(), prefix)
    }

    /// Starts a process that does what `variable` of its environment says.
    pub(crate) fn run(name: &str, variable: &str, value: &str, prefix: &[String]) -> Self {
        let own = env::current_exe().unwrap();
        let mut command = match prefix.split_first() {
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(own);
                command
            }
            None => Command::new(own),
        };
        command.args(["child", "--exact", "--nocapture", "--test-threads=1"]);
        command.env(variable, value);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let said = watch_lines(child.stdout.take().unwrap(), Said::default(), Said::hear, |said| {
            said.ended = true;
        });
        let keep = |log: &mut VecDeque<String>, line: &str| {
            if log.len() == LINES {
                log.pop_front();
            }
            log.push_back(line.to_owned());
        };
        let log = watch_lines(child.stderr.take().unwrap(), VecDeque::new(), keep, |_| {});
        let input = child.stdin.take();
        Self { name: name.to_owned(), child, input, said, log }
    }

    /// What it has said so far.
    pub(crate) fn said(&self) -> Said {
        self.said.borrow().clone()
    }

    /// A way to wait for what it says.
    pub(crate) fn watch(&self) -> watch::Receiver<Said> {
        self.said.clone()
    }

    /// Waits until it has said what is wanted; fails, with its log, where it does not or ends before.
    pub(crate) async fn until(&self, what: &str, mut wanted: impl FnMut(&Said) -> bool) -> Said {
        let mut said = self.said.clone();
        let seen = said.wait_for(|said| said.ended || wanted(said));
        let seen = tokio::time::timeout(PATIENCE, seen).await;
        let Ok(seen) = seen else {
            panic!("{} is not {what}: {:?}{}", self.name, self.said(), self.last_words());
        };
        let seen = seen.map_or_else(|_| self.said(), |seen| seen.clone());
        assert!(
            wanted(&seen),
            "{} ended before it was {what}: {seen:?}{}",
            self.name,
            self.last_words()
        );
        seen
    }

    /// Waits until it has started.
    pub(crate) async fn ready(&self) {
        self.until("ready", |said| said.ready).await;
    }

    /// Waits until it was refused, and says why.
    pub(crate) async fn refused(&self) -> String {
        let said = self.until("refused", |said| said.ready || said.refused.is_some()).await;
        said.refused.unwrap_or_else(|| panic!("{} was not refused{}", self.name, self.last_words()))
    }

    /// Waits until it has logged a line with all of these texts, and gives it.
    pub(crate) async fn logged(&self, texts: &[impl AsRef<str>]) -> String {
        let mut log = self.log.clone();
        let find = |log: &VecDeque<String>| {
            log.iter().find(|line| texts.iter().all(|text| line.contains(text.as_ref()))).cloned()
        };
        let wait = log.wait_for(|log| find(log).is_some());
        let found = tokio::time::timeout(PATIENCE, wait).await;
        let found = found.ok().and_then(|found| find(&*found.ok()?));
        found.unwrap_or_else(|| {
            let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
            panic!("{} logged no {texts:?}{}", self.name, self.last_words())
        })
    }

    /// The end of its log, for the message of a failure.
    pub(crate) fn last_words(&self) -> String {
        let log = self.log.borrow();
        let shown = log.iter().skip(log.len().saturating_sub(SHOWN));
        shown
            .fold(format!("\n-- the log of {}:", self.name), |text, line| format!("{text}\n{line}"))
    }

    /// SIGKILL, and the end of the process.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGSTOP: when this returns, it stands still.
    pub(crate) fn pause(&self) {
        self.signal("STOP");
        let deadline = Instant::now() + PATIENCE;
        while !self.threads_all_in('T') {
            assert!(Instant::now() < deadline, "{} does not stand still", self.name);
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// SIGCONT.
    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    /// Sends it a signal by name, like `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap();
        assert!(sent.success(), "kill -{name} of {} failed: {sent}", self.name);
    }

    fn threads_all_in(&self, state: char) -> bool {
        let threads = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        threads.map(|thread| thread.unwrap().path().join("stat")).all(|path| {
            // One that has ended meanwhile runs no more.
            let Ok(stat) = fs::read_to_string(path) else { return true };
            // The name of the program, in parentheses, may have any letters.
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(state))
        })
    }

    /// Tells it to shut down in order, and waits until it has.
    pub(crate) async fn shut_down(mut self) {
        self.tell("stop");
        self.until("stopped", |said| said.stopped).await;
        let status = self.end().await;
        assert!(status.success(), "{} ended with {status}{}", self.name, self.last_words());
    }

    /// Gives it a line of input.
    pub(crate) fn tell(&mut self, order: &str) {
        let input = self.input.as_mut().unwrap();
        input.write_all(format!("{order}\n").as_bytes()).unwrap();
    }

    /// Waits until the process has ended.
    async fn end(&mut self) -> ExitStatus {
        // The output is at its end first.
        self.until("at its end", |said| said.ended).await;
        self.child.wait().unwrap()
    }

    /// How many KiB of memory it has in use.
    pub(crate) fn resident_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    /// The most KiB of memory that it has had in use at once.
    pub(crate) fn most_resident_kib(&self) -> u64 {
        self.status_kib("VmHWM:")
    }

    fn status_kib(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let mut err = std::io::stderr().lock();
            let _ = writeln!(err, "{}", self.last_words());
        }
    }
}

/// Hears the lines of a stream, on a thread that ends with it.
fn watch_lines<T: Send + Sync + 'static>(
    stream: impl Read + Send + 'static,
    start: T,
    hear: fn(&mut T, &str),
    end: fn(&mut T),
) -> watch::Receiver<T> {
    let (sender, receiver) = watch::channel(start);
    thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n') {
            let Ok(line) = line else { break };
            let line = String::from_utf8_lossy(&line);
            sender.send_modify(|state| hear(state, &line));
        }
        sender.send_modify(end);
    });
    receiver
}
