//! A process that writes to a store and tells its parent what was acknowledged.
//!
//! The child is the test's own executable, asked to run one test that does nothing unless the
//! environment says what to do. It speaks through its standard output, a line each:
//!
//! * `found N`: the store was opened and is in state `N` of the workload.
//! * `ack N`: the write that leads to state `N` was acknowledged.
//! * `done`: there is nothing left to write.
//! * `poisoned`: a write failed, and the store refuses service as it must.

use std::{
    env,
    io::{self, BufRead, BufReader, Read, Write},
    ops::RangeInclusive,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use graft_core::{LogStore, StoreError};
use graft_storage::{
    RedbStore,
    conformance::{block_on, faults::Workload},
    redb::OpenError,
};

use super::sizes::{self, Sizes};

/// Its number, on every Unix.
const SIGKILL: i32 = 9;

/// Far above what any step takes.
const LIMIT: Duration = Duration::from_secs(60);

const TASK: &str = "GRAFT_TEST_CHILD";

/// How many batches a workload has.
pub const BATCHES: usize = 150;

/// What a child is asked to do.
#[derive(Clone, Debug)]
pub struct Task {
    /// Where the store is.
    pub directory: String,
    /// The work.
    pub seed: u64,
    /// The states in which the store may be.
    pub allowed: RangeInclusive<usize>,
}

impl Task {
    fn encode(&self) -> String {
        let (first, last) = (self.allowed.start(), self.allowed.end());
        format!("{} {first} {last} {}", self.seed, self.directory)
    }

    fn decode(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, ' ');
        let seed = parts.next()?.parse().ok()?;
        let allowed = parts.next()?.parse().ok()?..=parts.next()?.parse().ok()?;
        Some(Self { directory: parts.next()?.to_owned(), seed, allowed })
    }
}

/// Does the task that the environment gives; nothing where there is none.
pub fn run_if_asked() {
    let Ok(task) = env::var(TASK) else { return };
    let task = Task::decode(&task).expect("the task is encoded by the parent");
    let workload = Workload::generate(task.seed, BATCHES);
    let store = open(&task.directory);
    let mut state = find(&workload, &*store, task.allowed);
    say(&format!("found {state}"));
    while state < workload.batches() {
        match block_on(LIMIT, workload.perform(&*store, state)).expect("a write hangs") {
            Ok(()) => state += 1,
            Err(error) => {
                refuses_service(&workload, store, state, &task.directory, &error);
                return say("poisoned");
            }
        }
        say(&format!("ack {state}"));
    }
    drop(store);
    say("done");
}

fn open(directory: &str) -> Arc<dyn LogStore> {
    let store = RedbStore::open_with(directory, &sizes::options(Sizes::default()));
    Arc::new(store.unwrap_or_else(|error| panic!("{directory} does not open: {error}")))
}

fn find(workload: &Workload, store: &dyn LogStore, allowed: RangeInclusive<usize>) -> usize {
    let found = block_on(LIMIT, workload.find(store, allowed)).expect("recovery hangs");
    found.expect("the store reads").unwrap_or_else(|mismatch| panic!("{mismatch}"))
}

/// After a write has failed: nothing but `Poisoned`, from this handle and from a new store. Where it
/// was a read on the way that failed, nothing was changed yet that could be lost: then the store that
/// is open does no work any more, and the next change that fails poisons it.
fn refuses_service(
    workload: &Workload,
    store: Arc<dyn LogStore>,
    state: usize,
    directory: &str,
    error: &StoreError,
) {
    let written = block_on(LIMIT, workload.perform(&*store, state)).expect("a write hangs");
    let was_read = matches!(error, StoreError::Io { action: "read", .. });
    let is_refused = |outcome: Option<&StoreError>| match outcome {
        Some(StoreError::Poisoned { .. }) => true,
        Some(StoreError::Io { .. }) => was_read,
        _ => false,
    };
    assert!(is_refused(written.as_ref().err()), "{error}, then {written:?}");
    let recovered = block_on(LIMIT, store.recover()).expect("recovery hangs");
    assert!(is_refused(recovered.as_ref().err()), "{error}, then {recovered:?}");
    drop(store);
    let opened = RedbStore::open_with(directory, &sizes::options(Sizes::default()));
    // On a file system that is shut down the directory may not even be found any more.
    let is_refused =
        matches!(opened, Err(OpenError::Poisoned { .. } | OpenError::Inaccessible { .. }));
    assert!(is_refused, "{error}, then {opened:?}");
}

/// One system call, past the test framework: what is said is said before the process can die.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    // A parent that is gone needs no answer.
    let _ = out.write_all(format!("\n{line}\n").as_bytes());
    let _ = out.flush();
}

static STARTING: RwLock<()> = RwLock::new(());

/// Works with files that no other process may have open: until it is another program, a process that
/// is being started has all those open that this one has, and keeps a file system busy with them.
pub fn alone<T>(work: impl FnOnce() -> T) -> T {
    let _held = STARTING.write().unwrap_or_else(PoisonError::into_inner);
    work()
}

/// Starts a process while nobody is [`alone`].
pub fn start(command: &mut Command) -> io::Result<Child> {
    let _held = STARTING.read().unwrap_or_else(PoisonError::into_inner);
    command.spawn()
}

/// A child at work. Killed when dropped.
pub struct Worker {
    child: Child,
    lines: BufReader<ChildStdout>,
    workload: Workload,
    task: Task,
    /// It said that there is nothing left.
    pub is_done: bool,
    /// It said that the store refuses service.
    pub is_poisoned: bool,
}

impl Worker {
    /// Starts the test called `test` of this executable as a child.
    pub fn start(test: &str, task: Task, workload: &Workload) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args([test, "--exact", "--nocapture", "--test-threads=1"]);
        command.env(TASK, task.encode()).stdout(Stdio::piped()).stdin(Stdio::null());
        let mut child = start(&mut command).unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let workload = workload.clone();
        Self { child, lines, workload, task, is_done: false, is_poisoned: false }
    }

    /// Takes in what the child says until it has acknowledged `count` writes more, or ends.
    pub fn follow(&mut self, count: usize) {
        let mut count = count;
        while count > 0 {
            let Some(line) = self.line() else { return };
            count -= usize::from(line.starts_with("ack"));
        }
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let length = self.lines.read_line(&mut line).unwrap();
        if length == 0 || !line.ends_with('\n') {
            return None;
        }
        self.hear(line.trim());
        Some(line)
    }

    fn hear(&mut self, line: &str) {
        let number = |text: &str| text.parse::<usize>().expect("a state");
        if let Some(state) = line.strip_prefix("found ") {
            let state = number(state);
            assert!(self.task.allowed.contains(&state), "{state} in {:?}", self.task.allowed);
            self.knows(state);
        } else if let Some(state) = line.strip_prefix("ack ") {
            assert_eq!(number(state), self.task.allowed.start() + 1, "in order");
            self.knows(number(state));
        } else if line == "done" {
            self.is_done = true;
        } else if line == "poisoned" {
            self.is_poisoned = true;
        }
    }

    /// The store is in this state, or, as the child goes on at once, in the next.
    fn knows(&mut self, state: usize) {
        self.task.allowed = state..=(state + 1).min(self.workload.batches());
    }

    /// SIGKILL, unless it has ended in order. Then the states in which the store may be.
    pub fn kill(mut self) -> RangeInclusive<usize> {
        self.child.kill().unwrap();
        self.finish();
        let status = self.child.wait().unwrap();
        let was_killed = status.signal() == Some(SIGKILL);
        assert!(was_killed || status.success(), "the child failed by itself: {status}");
        self.task.allowed.clone()
    }

    /// Waits for it to end by itself. Then the states in which the store may be.
    pub fn wait(&mut self) -> RangeInclusive<usize> {
        self.finish();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "the child failed: {status}");
        self.task.allowed.clone()
    }

    /// What it had said before it ended counts.
    fn finish(&mut self) {
        while self.line().is_some() {}
        let mut rest = Vec::new();
        self.lines.read_to_end(&mut rest).unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Opens the store in this process, says in which of the allowed states it is, and closes it.
pub fn look(workload: &Workload, directory: &Path, allowed: RangeInclusive<usize>) -> usize {
    let store = open(directory.to_str().unwrap());
    find(workload, &*store, allowed)
}
