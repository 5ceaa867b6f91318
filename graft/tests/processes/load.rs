//! Many clients' tasks that ask for as long as a test wants, and the judgement of what they were told.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use graft::{Client, RequestError};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    PATIENCE,
    history::{Recorder, Tally, judge},
    machine::{Ask, Told},
    process::Process,
    soon,
};

/// How many registers, and how many lists, are asked at a time: enough tasks meet at each.
const KEYS: u64 = 4;
/// After so many calls other keys take their turn: judging one takes longer the more calls it has.
const CALLS_A_KEY: u64 = 250;

/// Tasks that ask.
pub(crate) struct Load {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    answered: watch::Receiver<u64>,
    clients: Vec<Client<Ask>>,
}

struct Shared {
    recorder: Recorder,
    stop: AtomicBool,
    /// Numbers the calls, and so the values.
    next: AtomicU64,
    deadline: Duration,
    /// The longest that a call took, in milliseconds.
    longest: AtomicU64,
    /// What requests failed with.
    failures: std::sync::Mutex<Vec<RequestError>>,
}

/// What came of a load that can be true.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) tally: Tally,
    /// What requests failed with.
    pub(crate) failures: Vec<RequestError>,
    /// The longest that a request took.
    pub(crate) longest: Duration,
}

impl Load {
    /// `tasks` tasks, which share these clients evenly. Each request may take as long as `deadline`.
    pub(crate) fn start(clients: &[Client<Ask>], tasks: usize, deadline: Duration) -> Self {
        let recorder = Recorder::new();
        let answered = recorder.answered();
        let shared = Arc::new(Shared {
            recorder,
            stop: AtomicBool::new(false),
            next: AtomicU64::new(0),
            deadline,
            longest: AtomicU64::new(0),
            failures: std::sync::Mutex::default(),
        });
        let clients = clients.to_vec();
        let mut set = JoinSet::new();
        for task in 0..tasks {
            let client = clients[task % clients.len()].clone();
            set.spawn(work(Arc::clone(&shared), client, task as u64));
        }
        Self { shared, tasks: set, answered, clients }
    }

    /// How many requests were answered so far.
    pub(crate) fn answered(&self) -> u64 {
        *self.answered.borrow()
    }

    /// Waits until `count` more requests were answered; fails with the logs of these processes where they are not.
    pub(crate) async fn answers(&self, count: u64, processes: &[&Process]) {
        let goal = self.answered() + count;
        let mut answered = self.answered.clone();
        let reached = tokio::time::timeout(PATIENCE, answered.wait_for(|now| *now >= goal)).await;
        if reached.is_err() {
            let logs: String = processes.iter().map(|process| process.last_words()).collect();
            let failures = self.shared.failures.lock().unwrap();
            panic!("of {goal} answers {} came; failures: {failures:?}{logs}", self.answered());
        }
    }

    /// Ends the tasks, reads all lists once more, and judges everything.
    pub(crate) async fn judged(mut self) -> Verdict {
        self.shared.stop.store(true, Ordering::SeqCst);
        while let Some(task) = soon(self.tasks.join_next()).await {
            task.unwrap();
        }
        let asked = self.shared.next.load(Ordering::SeqCst);
        let keys = (0..asked).map(key_of).max().map_or(0, |key| key + 1);
        for key in 0..keys {
            let list = self.shared.recorder.ask(&self.clients[0], Ask::List { key }, PATIENCE);
            soon(list).await.unwrap();
        }
        let tally = match judge(&self.shared.recorder.calls()) {
            Ok(tally) => tally,
            Err(wrong) => panic!("{wrong}"),
        };
        let failures = std::mem::take(&mut *self.shared.failures.lock().unwrap());
        let longest = Duration::from_millis(self.shared.longest.load(Ordering::SeqCst));
        Verdict { tally, failures, longest }
    }
}

/// The register and the list that call number `number` is about.
fn key_of(number: u64) -> u32 {
    let generation = number / (KEYS * CALLS_A_KEY);
    u32::try_from(generation * KEYS + number % KEYS).unwrap()
}

async fn work(shared: Arc<Shared>, client: Client<Ask>, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    // What this task believes of the registers of the moment.
    let mut known: (u32, Option<u64>) = (0, None);
    while !shared.stop.load(Ordering::SeqCst) {
        let number = shared.next.fetch_add(1, Ordering::SeqCst);
        let key = key_of(number);
        if known.0 != key && random.u8(..4) > 0 {
            known = (key, None);
        }
        let ask = match random.u8(..10) {
            0..2 => Ask::Read { key },
            2 => Ask::Write { key, value: number },
            3..6 => Ask::Swap { key, expected: known.1.filter(|_| known.0 == key), value: number },
            6..9 => Ask::Append { key, value: number },
            _ => Ask::List { key },
        };
        let began = Instant::now();
        let told = shared.recorder.ask(&client, ask, shared.deadline).await;
        let took = u64::try_from(began.elapsed().as_millis()).unwrap();
        shared.longest.fetch_max(took, Ordering::SeqCst);
        match told {
            Ok(Told::Swapped { swapped: true, .. }) => known = (key, Some(number)),
            Ok(Told::Value(value) | Told::Swapped { found: value, .. }) => known = (key, value),
            Ok(_) => {}
            Err(error) => shared.failures.lock().unwrap().push(error),
        }
        // A refusal can come at once, and a task that asked again at once would starve those who wait.
        tokio::task::yield_now().await;
    }
}
