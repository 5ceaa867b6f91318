//! A client that floods the servers: their memory stays bounded, and one that behaves is served beside it.

use std::time::{Duration, Instant};

use graft::Client;

use crate::{
    PATIENCE,
    cluster::Cluster,
    flooder::{FLOOD, Flood},
    machine::Ask,
    process::Process,
    report, rounds, soon,
};

/// How much memory a flood may take of a server, in KiB.
const MOST_KIB: u64 = 64 << 10;

/// More than the end of the log that stays in memory, and than a store's cache.
const KEPT_BYTES: usize = 24 << 20;

/// How many tasks behave.
const TASKS: usize = 4;

/// The latencies of requests, in order.
struct Latencies(Vec<Duration>);

impl Latencies {
    fn percentile(&self, percent: usize) -> Duration {
        let at = (self.0.len() * percent).div_ceil(100).saturating_sub(1);
        self.0[at]
    }

    fn describe(&self) -> String {
        let (count, p50, p99) = (self.0.len(), self.percentile(50), self.percentile(99));
        format!("requests={count} p50={p50:.2?} p99={p99:.2?}")
    }
}

/// Asks for a while, one request after the other in each task, and all of them are answered.
async fn behave(client: &Client<Ask>, time: Duration) -> Latencies {
    let mut tasks = tokio::task::JoinSet::new();
    for key in 0..TASKS {
        let (client, key) = (client.clone(), u32::try_from(key).unwrap());
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            let began = Instant::now();
            for value in 0.. {
                let asked = Instant::now();
                client.request(Ask::Write { key, value }).deadline(PATIENCE).await.unwrap();
                latencies.push(asked.elapsed());
                if began.elapsed() > time {
                    break;
                }
            }
            latencies
        });
    }
    let mut all = Vec::new();
    while let Some(latencies) = soon(tasks.join_next()).await {
        all.extend(latencies.unwrap());
    }
    all.sort_unstable();
    Latencies(all)
}

/// How long requests of the flood's size take where there is no flood: no request behind one of them can take less.
async fn one_at_a_time(client: &Client<Ask>, bytes: usize) -> Latencies {
    let mut latencies = Vec::new();
    for _ in 0..30 {
        let asked = Instant::now();
        let request = client.request(Ask::Nothing { padding: "x".repeat(bytes) });
        request.deadline(PATIENCE).await.unwrap();
        latencies.push(asked.elapsed());
    }
    latencies.sort_unstable();
    Latencies(latencies)
}

/// Has the servers keep as much as they keep of any use: the end of the log, and pages of the store.
async fn warm_up(client: &Client<Ask>) {
    const BYTES: usize = 64 << 10;
    let mut open = tokio::task::JoinSet::new();
    for _ in 0..(KEPT_BYTES / BYTES) {
        let request = client.request(Ask::Nothing { padding: "x".repeat(BYTES) });
        open.spawn(request.deadline(PATIENCE));
    }
    while let Some(answer) = soon(open.join_next()).await {
        answer.unwrap().unwrap();
    }
}

/// How much more memory each server has had in use than before, in KiB.
fn growth(cluster: &Cluster, before: &[u64]) -> Vec<u64> {
    let most = cluster.running().into_iter().map(Process::most_resident_kib);
    most.zip(before).map(|(most, before)| most.saturating_sub(*before)).collect()
}

fn resident(cluster: &Cluster) -> Vec<u64> {
    cluster.running().into_iter().map(Process::resident_kib).collect()
}

/// The latest term, which says how many elections there were.
fn term(cluster: &Cluster) -> u64 {
    let terms = cluster.running().into_iter().map(|server| server.said().term);
    terms.max().unwrap_or_default()
}

async fn flood_of(bytes: usize) {
    // Of requests of 1 MiB no more may come than a log holds.
    let time = Duration::from_secs(u64::try_from(rounds(2, 20)).unwrap());
    let cluster = Cluster::started(3).await;
    let client = cluster.client(&[0]).await;
    let alone = behave(&client, time / 2).await;
    let unused = resident(&cluster);
    warm_up(&client).await;
    let one = one_at_a_time(&client, bytes).await.describe();
    let idle = resident(&cluster);
    let before = term(&cluster);
    let flood = Flood {
        certs: cluster.task(0).certs,
        addresses: (0..3).map(|server| cluster.address(server)).collect(),
        links: 4,
        bytes,
    };
    let mut flooder = Process::run("flooder", FLOOD, &flood.encode(), &[]);
    flooder.ready().await;
    let beside = behave(&client, time).await;
    flooder.tell("stop");
    let flooded = flooder.until("done", |said| said.flooded.is_some()).await.flooded.unwrap();
    let (alone, beside) = (alone.describe(), beside.describe());
    let elections = term(&cluster) - before;
    let [above_idle, above_unused] = [&idle, &unused].map(|before| growth(&cluster, before));
    report(&format!(
        "flood of {bytes} bytes: {flooded}; alone {alone}; beside it {beside}; such requests one at a time {one}; elections={elections}; KiB above idle {above_idle:?}, above unused \
         {above_unused:?}"
    ));
    assert!(above_idle.iter().all(|kib| *kib <= MOST_KIB), "memory above idle: {above_idle:?} KiB");
    // A server that was never asked anything has not touched the caches of its store, nor made the holes that an
    // allocator leaves: these are no cost of a flood, but here they are counted with it.
    let most = MOST_KIB + (16 << 10);
    assert!(above_unused.iter().all(|kib| *kib <= most), "above a new one: {above_unused:?} KiB");
}

/// One after the other: each is to have the machine for itself.
#[tokio::test]
async fn a_flood_of_requests_takes_bounded_memory_and_one_who_behaves_is_served_beside_it() {
    for bytes in [16, 64 << 10, (1 << 20) - 1024] {
        flood_of(bytes).await;
    }
}
