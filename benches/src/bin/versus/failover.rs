//! From the death of a leader to the next answer: three server processes over QUIC with every log on a disk, a
//! client in this process that asks all the time, and a leader that is killed again and again.

mod serve;
mod servers;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use clap::Args;
use graft::{Client, Config};
use graft_benches::{
    disk::{Error, Latencies},
    median,
};
use serde::Serialize;
use tokio::{
    runtime::Builder,
    sync::oneshot,
    task::JoinSet,
    time::{sleep, timeout},
};

use serve::Mark;
pub(crate) use serve::{Serve, serve};
use servers::{NAMES, Servers};

use crate::{progress, report::Table};

/// Who is not answered by then waits in vain.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// How often a leader is killed, for each number of tasks.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    kills: u32,
    /// Kill two: shows that everything works, not how fast.
    #[arg(long)]
    quick: bool,
    /// How many tasks ask at the same time, each one request after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64])]
    tasks: Vec<usize>,
}

/// Everything that was found out.
#[derive(Serialize, Debug)]
struct Report {
    /// The shortest time without a leader before a server campaigns.
    election_timeout_millis: f64,
    failovers: Vec<Summary>,
}

/// What so many kills cost those who ask.
#[derive(Serialize, Debug)]
struct Summary {
    tasks: usize,
    kills: usize,
    median_millis: f64,
    p90_millis: f64,
    max_millis: f64,
    /// The same in election timeouts.
    median_timeouts: f64,
    p90_timeouts: f64,
    max_timeouts: f64,
    answered: u64,
    /// Requests that ended without an answer.
    failed: u64,
}

pub(crate) fn run(options: &Options) -> Result<String, Error> {
    let kills = if options.quick { options.kills.min(2) } else { options.kills };
    let timeout = *Config::default().election_timeout.start();
    let mut failovers = Vec::new();
    for &tasks in &options.tasks {
        if tasks == 0 {
            return Err("--tasks: somebody must ask".into());
        }
        let runtime = Builder::new_multi_thread().enable_all().build()?;
        let (latencies, board) = runtime.block_on(measure(tasks, kills))?;
        failovers.push(Summary::new(tasks, timeout, &latencies, &board));
    }
    let report = Report { election_timeout_millis: millis(timeout), failovers };
    if options.json { Ok(serde_json::to_string_pretty(&report)?) } else { Ok(report.text()) }
}

/// Kills so many leaders, one after the other, while so many tasks ask.
async fn measure(tasks: usize, kills: u32) -> Result<(Latencies, Arc<Board>), Error> {
    let mut servers = Servers::found().await?;
    let addresses = servers.addresses.map(|address| address.to_string());
    let client = Client::connect(addresses, servers.client_tls()?).await?;
    let board = Arc::new(Board::default());
    let mut asking = JoinSet::new();
    for _ in 0..tasks {
        asking.spawn(ask(client.clone(), Arc::clone(&board)));
    }
    let mut latencies = Latencies::new();
    for kill in 1..=kills {
        // Whoever is elected next has to have caught up, too.
        servers.reach(client.request(Mark).await?).await?;
        let leader = servers.leader().await?;
        let [begin, dead] = servers.kill(leader)?;
        let answered = timeout(PATIENCE, board.next_since(dead)).await;
        let answered = answered.map_err(|_| format!("nothing was answered for {PATIENCE:?}"))?;
        let took = answered? - begin;
        latencies.push(took);
        progress(&format!(
            "{tasks} tasks, kill {kill} of {kills}: {} led; {:.0} ms",
            NAMES[leader],
            millis(took)
        ));
        servers.start(leader)?;
        servers.ready(leader).await?;
    }
    board.is_over.store(true, Ordering::Relaxed);
    while let Some(ended) = asking.join_next().await {
        ended?;
    }
    client.shutdown().await;
    Ok((latencies, board))
}

/// Asks, again and again, until all is over.
async fn ask(client: Client<Mark>, board: Arc<Board>) {
    while !board.is_over.load(Ordering::Relaxed) {
        let sent = Instant::now();
        match client.request(Mark).await {
            Ok(_) => board.on_answer(sent),
            Err(error) => {
                board.failed.fetch_add(1, Ordering::Relaxed);
                progress(&format!("a request failed: {error}"));
                // What fails at once must not fail a million times.
                sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// Where those who ask say what they were answered.
#[derive(Default)]
struct Board {
    answered: AtomicU64,
    failed: AtomicU64,
    is_over: AtomicBool,
    /// Who wants to know of the next answer to a request that was sent after a moment.
    waiting: Mutex<Option<(Instant, oneshot::Sender<Instant>)>>,
}

impl Board {
    fn on_answer(&self, sent: Instant) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = waiting.take_if(|(since, _)| sent > *since);
        drop(waiting);
        if let Some((_, tell)) = wanted {
            // Who does not wait any more has given up.
            let _ = tell.send(Instant::now());
        }
    }

    /// When a request was answered that was sent after `since`.
    async fn next_since(&self, since: Instant) -> Result<Instant, Error> {
        let (tell, told) = oneshot::channel();
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some((since, tell));
        Ok(told.await?)
    }
}

impl Summary {
    fn new(tasks: usize, timeout: Duration, latencies: &Latencies, board: &Board) -> Self {
        let median_millis = median(latencies.iter().map(millis));
        let [p90_millis, max_millis] = [900, 1000].map(|share| millis(latencies.per_mille(share)));
        let in_timeouts = |of: f64| of / millis(timeout);
        Self {
            tasks,
            kills: latencies.len(),
            median_millis,
            p90_millis,
            max_millis,
            median_timeouts: in_timeouts(median_millis),
            p90_timeouts: in_timeouts(p90_millis),
            max_timeouts: in_timeouts(max_millis),
            answered: board.answered.load(Ordering::Relaxed),
            failed: board.failed.load(Ordering::Relaxed),
        }
    }
}

impl Report {
    fn text(&self) -> String {
        let head = ["asking", "kills", "median ms", "p90 ms", "max ms", "median", "p90", "max"];
        let mut table = Table::new(&[&head[..], &["answered", "failed"]].concat());
        for failover in &self.failovers {
            let mut row = vec![format!("{} tasks", failover.tasks), failover.kills.to_string()];
            let millis = [failover.median_millis, failover.p90_millis, failover.max_millis];
            row.extend(millis.map(|millis| format!("{millis:.0}")));
            let timeouts = [failover.median_timeouts, failover.p90_timeouts, failover.max_timeouts];
            row.extend(timeouts.map(|timeouts| format!("{timeouts:.2}")));
            row.extend([failover.answered, failover.failed].map(|count| count.to_string()));
            table.push(row);
        }
        format!(
            "from the death of a leader to the next answer to a request that was sent after it; also in election\n\
             timeouts of {:.0} ms, the shortest time without a leader before a server campaigns\n\n{}",
            self.election_timeout_millis,
            table.render()
        )
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
