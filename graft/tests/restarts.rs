//! Exactly once, on the disk: neither a stop of all servers nor the death of their process lets an entry be
//! applied twice.

#![cfg(feature = "redb")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is test code")]

mod common;

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use common::{SERVERS, directory::Directory, soon};
use graft::{Config, LogStore, Supervisor};
use graft_core::{Entries, Entry, EntryKind, EntryRef, HardState, Index, Loaded, LogId};
use tokio::{sync::Notify, task::JoinSet};

/// How often each value was applied.
#[derive(Default)]
struct Counts(BTreeMap<u32, u32>);

#[derive(Debug, graft::Archive, graft::Serialize, graft::Deserialize)]
#[rkyv(crate = graft::rkyv)]
enum Ask {
    Apply(u32),
    Report,
}

impl graft::Entry for Ask {
    /// Values, and how often each was applied so far.
    type Response = Vec<(u32, u32)>;
}

impl graft::Machine for Counts {
    type Entry = Ask;
    fn handle_entry(&mut self, ask: Ask) -> Vec<(u32, u32)> {
        match ask {
            Ask::Apply(value) => {
                let count = self.0.entry(value).or_default();
                *count += 1;
                vec![(value, *count)]
            }
            Ask::Report => self.0.iter().map(|(value, count)| (*value, *count)).collect(),
        }
    }
}

fn once(values: std::ops::Range<u32>) -> Vec<(u32, u32)> {
    values.map(|value| (value, 1)).collect()
}

const TASKS: u32 = 16;
const REQUESTS_A_TASK: u32 = 40;
const STOPS: u32 = 4;

async fn stop_and_start_all(counts: &Supervisor<Counts>) {
    let stops = SERVERS.map(|server| counts.stop_server(server));
    let [one, two, three] = stops;
    let (one, two, three) = tokio::join!(soon(one), soon(two), soon(three));
    one.and(two).and(three).unwrap();
    for server in SERVERS {
        soon(counts.restart_server(server)).await.unwrap();
    }
}

/// The client does not know what became of what it had sent, and sends it again under its session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_under_way_while_all_servers_stop_and_start_are_applied_once() {
    let disk = Directory::new();
    let ms = Duration::from_millis;
    let config = Config::default()
        .heartbeat(ms(20))
        .election_timeout(ms(100)..=ms(200))
        .deadline(Duration::from_secs(50));
    let counts = disk.cluster().config(config).start(Counts::default).await.unwrap();

    let (ended, stage) = (Arc::<AtomicUsize>::default(), Arc::<Notify>::default());
    let each_stage = (TASKS * REQUESTS_A_TASK / (STOPS + 1)) as usize;
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (ended, stage) = (Arc::clone(&ended), Arc::clone(&stage));
        tasks.spawn(async move {
            for value in task * REQUESTS_A_TASK..(task + 1) * REQUESTS_A_TASK {
                let server = SERVERS[value as usize % SERVERS.len()];
                assert_eq!(graft::request(server, Ask::Apply(value)).await, Ok(vec![(value, 1)]));
                if (ended.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(each_stage) {
                    stage.notify_one();
                }
            }
        });
    }
    for _ in 0..STOPS {
        soon(stage.notified()).await;
        stop_and_start_all(&counts).await;
    }
    while let Some(task) = soon(tasks.join_next()).await {
        task.unwrap();
    }
    let report = soon(counts.request("server1", Ask::Report)).await.unwrap();
    assert_eq!(report, once(0..TASKS * REQUESTS_A_TASK));
    counts.shutdown().await;
}

// -- The death of the process ----------------------------------------------------------------------

/// Where a child of this test is to serve.
const PLACE: &str = "GRAFT_TEST_SERVE_AT";

/// No test: serves in the directory that [`PLACE`] names until it is killed.
#[tokio::test]
async fn child() {
    let Ok(place) = env::var(PLACE) else { return };
    let disk = Directory::existing(place);
    let counts = disk.cluster().start(Counts::default).await.unwrap();
    for value in 0..3 {
        let applied = soon(counts.request("server1", Ask::Apply(value))).await.unwrap();
        assert_eq!(applied, [(value, 1)]);
    }
    writeln!(std::io::stdout().lock(), "\nchild: served").unwrap();
    // The parent kills this process, or is gone.
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

/// Lets a child serve in `disk`, and kills it, so that it closes neither its session nor its stores.
fn serve_and_die(disk: &Directory) {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["child", "--exact", "--nocapture", "--test-threads=1"]);
    command.env(PLACE, disk.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let served = lines.map_while(Result::ok).any(|line| line == "child: served");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(served, "the child ended before it had served");
}

/// What a server left behind.
struct Left {
    last: LogId,
    hard_state: HardState,
    entries: Vec<Entry>,
}

async fn look(path: &Path) -> (Box<dyn LogStore>, Left) {
    let store = graft::store::redb(path).unwrap();
    let found = store.recover().await.unwrap().unwrap();
    let mut entries: Vec<Entry> = Vec::new();
    while (entries.len() as u64) < found.last.index.0 {
        let next = Index(entries.len() as u64 + 1);
        let loaded = store.read(next..found.last.index.next(), 1 << 20).await.unwrap();
        let Loaded::Entries(some) = loaded else { panic!("nothing was compacted") };
        entries.extend(some.iter().map(EntryRef::to_entry));
    }
    (store, Left { last: found.last, hard_state: found.hard_state, entries })
}

/// Puts all commands of the log behind it once more, on every server: what a client's copies look like
/// that arrive after the answer was given and the servers died. Says how many there are.
async fn send_again(disk: &Directory) -> usize {
    let mut stores = Vec::new();
    for server in SERVERS {
        stores.push(look(&disk.of(server)).await);
    }
    // What some lack of the longest log was under way to them.
    let most = |(_, left): &&(Box<dyn LogStore>, Left)| (left.last.term, left.last.index);
    let (_, longest) = stores.iter().max_by_key(most).unwrap();
    let mut log = longest.entries.clone();
    let is_command = |entry: &&Entry| entry.kind == EntryKind::SessionCommand;
    let commands: Vec<Entry> = log.iter().filter(is_command).cloned().collect();
    let (last, time) = (longest.last, log.last().unwrap().time);
    for (index, command) in (last.index.0 + 1..).zip(&commands) {
        log.push(Entry { log_id: LogId::new(last.term.0, index), time, ..command.clone() });
    }
    for (store, left) in &stores {
        let term = left.hard_state.term.max(last.term);
        let hard_state = HardState { term, ..left.hard_state };
        let entries: Entries = log.iter().cloned().collect();
        let writes =
            vec![graft_core::Write::HardState(hard_state), graft_core::Write::Append(entries)];
        store.write(writes).await.unwrap();
    }
    commands.len()
}

/// A retry names its session and sequence, which all servers find again on their disks.
#[tokio::test]
async fn copies_of_requests_that_arrive_after_all_servers_died_are_not_applied() {
    let disk = Directory::new();
    serve_and_die(&disk);
    assert_eq!(send_again(&disk).await, 3);
    for run in 0..2 {
        let counts = disk.cluster().start(Counts::default).await.unwrap();
        let report = soon(counts.request("server2", Ask::Report)).await.unwrap();
        assert_eq!(report, once(0..3 + run));
        // Another client's requests are its own, and are counted.
        let applied = soon(counts.request("server3", Ask::Apply(3 + run))).await.unwrap();
        assert_eq!(applied, [(3 + run, 1)]);
        counts.shutdown().await;
    }
    // The copies are in the log all the same.
    let (_, left) = look(&disk.of("server1")).await;
    let all = left.entries.iter().filter(|entry| entry.kind == EntryKind::SessionCommand);
    let mut copies = BTreeMap::<_, usize>::new();
    all.for_each(|entry| *copies.entry(entry.payload.clone()).or_default() += 1);
    assert_eq!(copies.values().filter(|count| **count == 2).count(), 3, "{copies:?}");
}
