//! Exactly once: whatever happens to leaders and to the futures that wait, no entry is applied twice, and every
//! answer that is awaited is the right one.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is test code")]

mod common;

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use common::{SERVERS, Trap, soon};
use graft::{Config, LogStore, ServerName, StoreError, Supervisor};
use graft_core::{Index, Loaded, session::Applier};
use graft_storage::MemoryStore;
use tokio::{sync::Notify, task::JoinSet};

const TASKS: usize = 64;
const REQUESTS_A_TASK: usize = 10_000;
const KILLS: usize = 5;

/// How often each value was applied.
struct Counts(Vec<u8>);

#[derive(Debug, graft::Archive, graft::Serialize, graft::Deserialize)]
#[rkyv(crate = graft::rkyv)]
enum Ask {
    Apply(u32),
    Report,
}

#[derive(Debug, PartialEq, graft::Archive, graft::Serialize, graft::Deserialize)]
#[rkyv(crate = graft::rkyv)]
enum Told {
    /// The value, and how often it has been applied.
    Applied(u32, u8),
    Counts(Vec<u8>),
}

impl graft::Entry for Ask {
    type Response = Told;
}

impl graft::Machine for Counts {
    type Entry = Ask;
    fn handle_entry(&mut self, ask: Ask) -> Told {
        match ask {
            Ask::Apply(value) => {
                let count = &mut self.0[value as usize];
                *count = count.saturating_add(1);
                Told::Applied(value, *count)
            }
            Ask::Report => Told::Counts(self.0.clone()),
        }
    }
}

/// The servers, their disks, and the traps in them.
struct Rig {
    cluster: Supervisor<Counts>,
    disks: [MemoryStore; 3],
    traps: [Arc<AtomicUsize>; 3],
}

async fn rig(values: usize) -> Rig {
    let disks: [MemoryStore; 3] = Default::default();
    let traps: [Arc<AtomicUsize>; 3] = Default::default();
    let stores = disks.clone().map(Arc::new);
    let set = traps.clone();
    let open = move |name: &ServerName| -> Result<Box<dyn LogStore>, StoreError> {
        let at = position(name);
        Ok(Box::new(Trap::new((*stores[at]).clone(), Arc::clone(&set[at]))))
    };
    // Short timeouts, so that most of the time somebody leads.
    let ms = Duration::from_millis;
    let config = Config::default()
        .heartbeat(ms(20))
        .election_timeout(ms(100)..=ms(200))
        .deadline(Duration::from_secs(50));
    let builder = graft::cluster(SERVERS).stores(open).config(config);
    let cluster = builder.start(move || Counts(vec![0; values])).await.unwrap();
    Rig { cluster, disks, traps }
}

fn position(name: &ServerName) -> usize {
    SERVERS.into_iter().position(|server| *name == server).unwrap()
}

/// How far all tasks are, and who wants to know.
#[derive(Default)]
struct Progress {
    ended: AtomicUsize,
    stage: Notify,
}

/// Makes the requests `values`, drops about half of them at some point, and says which it saw applied.
async fn work(
    values: std::ops::Range<u32>,
    seed: u64,
    progress: Arc<Progress>,
    stage: usize,
) -> Vec<u32> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut seen = Vec::new();
    for value in values {
        let request = graft::request(SERVERS[random.usize(..3)], Ask::Apply(value));
        if random.bool() {
            // Polled once at least, so it is sent, or waits to be.
            let polls = random.usize(1..6);
            give_up_after(request, polls).await;
        } else {
            assert_eq!(request.await, Ok(Told::Applied(value, 1)));
            seen.push(value);
        }
        if (progress.ended.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(stage) {
            progress.stage.notify_one();
        }
    }
    seen
}

/// Polls a request a few times, and drops it.
async fn give_up_after(request: impl Future, polls: usize) {
    let mut request = pin!(request);
    for _ in 0..polls {
        let ended = poll_fn(|context| Poll::Ready(request.as_mut().poll(context).is_ready())).await;
        if ended {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// Stops the leader as an operator does, or by a panic in the midst of a write, and brings it back.
async fn kill_leader(rig: &Rig, kill: usize) {
    let leader = rig.cluster.leader().await.unwrap();
    if kill.is_multiple_of(2) {
        rig.cluster.stop_server(&leader).await.unwrap();
        rig.cluster.leader().await.unwrap();
        rig.cluster.restart_server(&leader).await.unwrap();
    } else {
        let mut watch = rig.cluster.watch(&leader).unwrap();
        rig.traps[position(&leader)].store(1, Ordering::Relaxed);
        watch.wait_for(|overview| overview.role != Some(graft::Role::Leader)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_of_the_futures_dropped_and_five_leaders_killed_apply_each_entry_at_most_once() {
    let each = REQUESTS_A_TASK;
    let values = TASKS * each;
    let rig = rig(values).await;
    let (progress, stage) = (Arc::<Progress>::default(), values / (KILLS + 1));
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let first = u32::try_from(task * each).unwrap();
        let mine = first..first + u32::try_from(each).unwrap();
        tasks.spawn(work(mine, task as u64, Arc::clone(&progress), stage));
    }
    for kill in 0..KILLS {
        soon(progress.stage.notified()).await;
        soon(kill_leader(&rig, kill)).await;
    }
    let mut seen = Vec::new();
    while let Some(task) = soon(tasks.join_next()).await {
        seen.extend(task.unwrap());
    }
    let report = soon(rig.cluster.request("server1", Ask::Report)).await.unwrap();
    let Told::Counts(counts) = report else { panic!("not a report") };
    assert!(counts.iter().all(|count| *count <= 1), "an entry was applied twice");
    assert!(seen.iter().all(|value| counts[*value as usize] == 1), "an answered entry was lost");
    assert!(seen.len() > values / 3, "about half of the requests are awaited");
    let Rig { cluster, disks, .. } = rig;
    soon(cluster.shutdown()).await;
    let mut agree = 0;
    for disk in &disks {
        let replayed = replay(disk, counts.len()).await;
        assert!(replayed.iter().all(|count| *count <= 1), "a log applies an entry twice");
        // One that was behind may lack the last entries, and what came after the report is not in it.
        agree += usize::from(replayed.iter().zip(&counts).all(|(log, report)| log >= report));
    }
    assert!(agree >= 2, "a majority has what was reported");
}

/// What a log applies, entry by entry. The session table stays small all along.
async fn replay(disk: &MemoryStore, values: usize) -> Vec<u8> {
    /// One window of replies, and a little for the sessions before it.
    const MOST_REPLY_BYTES: u64 = 2 * 4096 * (32 + 64) + (2 << 20);
    let last = disk.peek().unwrap().unwrap().last.index;
    let mut replayed = vec![0_u8; values];
    let mut applier = Applier::new();
    let mut next = Index(1);
    while next <= last {
        let loaded = disk.read(next..last.next(), 1 << 20).await.unwrap();
        let Loaded::Entries(entries) = loaded else { panic!("nothing was compacted") };
        for entry in entries.iter() {
            let outcome = applier.apply_with(entry, |command| {
                let ask = graft::decode::<Ask>(command.body).unwrap();
                if let Ask::Apply(value) = ask {
                    replayed[value as usize] += 1;
                }
                Ok(Bytes::from_static(&[0; 16]))
            });
            outcome.unwrap();
            assert!(applier.sessions().len() <= 3, "one client has one session at a time");
            assert!(applier.sessions().reply_bytes() <= MOST_REPLY_BYTES);
        }
        next = entries.last_log_id().unwrap().index.next();
    }
    replayed
}
