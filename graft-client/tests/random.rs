//! The client against a cluster that does its worst, over many seeds: each command is applied once at
//! most, each answer is the right one, and what is called not applied never was.

#![allow(clippy::unwrap_used, reason = "this is test code")]

mod common;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use common::{
    body,
    cluster::{Cluster, Faults},
    ms,
    runtime::{Running, TestRuntime},
};
use graft_client::{Client, ClientConfig, Outcome, RequestError, RequestOptions, Stats};
use graft_core::{Reply, Runtime};

/// One request of a run.
struct Issued {
    running: Option<Running>,
    idempotent: bool,
    deadline: Duration,
}

struct World {
    runtime: Arc<TestRuntime>,
    cluster: Arc<Cluster>,
    client: Client,
    rng: fastrand::Rng,
    issued: BTreeMap<u64, Issued>,
    dropped: u64,
}

/// How the requests of a run ended, by name.
#[derive(Default)]
struct Tally {
    ends: BTreeMap<&'static str, u64>,
    trace: u64,
    stats: Stats,
}

fn faults(rng: &mut fastrand::Rng) -> Faults {
    let mut percent = |most: u32| if rng.bool() { rng.u32(0..=most) } else { 0 };
    Faults {
        lose: percent(30),
        duplicate_replies: percent(40),
        duplicate_requests: percent(20) * u32::from(percent(1) > 0),
        unreachable: percent(40),
        overloaded: percent(40),
        panics: percent(10),
        max_delay: ms(u64::from(percent(3000)) + 1),
        reign: ms(u64::from(percent(5000)) + 50),
        session_life: ms(u64::from(percent(4000)) * 3),
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let runtime = TestRuntime::new(rng.u64(..));
        let cluster = Cluster::new(Arc::clone(&runtime), rng.u64(..), faults(&mut rng));
        let config = ClientConfig {
            deadline: ms(2000),
            attempt_timeout: ms(rng.u64(50..1500)),
            session_window: rng.u32(1..=40),
            session_ttl: ms(rng.u64(1000..5000)),
            max_waiting: rng.usize(1..=400),
            ..ClientConfig::default()
        };
        let client = Client::new(Arc::clone(&cluster) as _, Arc::clone(&runtime) as _, config);
        Self { runtime, cluster, client: client.unwrap(), rng, issued: BTreeMap::new(), dropped: 0 }
    }

    /// Runs until `end`, event by event.
    fn run_until(&mut self, end: Duration) {
        self.runtime.settle();
        loop {
            let next = [self.runtime.next_timer(), self.cluster.next_event()];
            let Some(at) = next.into_iter().flatten().min().filter(|at| *at <= end) else {
                break;
            };
            // Which of two things that are due together comes first is left to chance.
            if self.rng.bool() {
                self.runtime.set_now(at.max(self.runtime.now()));
                self.cluster.run();
            }
            self.runtime.advance(at.saturating_sub(self.runtime.now()));
            self.cluster.run();
            self.runtime.settle();
            self.check_nothing_wanted_is_forgotten();
        }
        self.runtime.set_now(end.max(self.runtime.now()));
    }

    fn issue(&mut self) {
        let number = self.issued.len() as u64;
        let mut options = RequestOptions::new(1);
        let idempotent = self.rng.u32(0..5) == 0;
        if idempotent {
            options = options.idempotent();
        }
        let mut deadline = ms(2000);
        if self.rng.bool() {
            deadline = ms(self.rng.u64(0..4000));
            options = options.deadline(deadline);
        }
        let request = self.client.request(body(&number.to_string()), options);
        let running = Some(self.runtime.start(request));
        let deadline = self.runtime.now() + deadline;
        self.issued.insert(number, Issued { running, idempotent, deadline });
    }

    fn drop_one(&mut self) {
        let at = self.rng.usize(..self.issued.len().max(1));
        if let Some(issued) = self.issued.values_mut().nth(at)
            && let Some(running) = issued.running.take_if(|running| running.result().is_none())
        {
            running.cancel();
            self.dropped += 1;
        }
    }

    fn check_nothing_wanted_is_forgotten(&self) {
        for number in std::mem::take(&mut self.cluster.model().forgotten) {
            let issued = &self.issued[&number];
            let wanted = issued.running.as_ref().is_some_and(|running| running.result().is_none());
            assert!(!wanted, "the answer to {number} is wanted, and the floor is above it");
        }
    }

    /// Requests come, some are dropped, some wait long; then all is quiet.
    fn live(&mut self) {
        let requests = self.rng.usize(20..300);
        while self.issued.len() < requests {
            for _ in 0..self.rng.usize(1..40) {
                self.issue();
            }
            let pause = if self.rng.u32(0..20) == 0 { 4000 } else { 100 };
            let end = self.runtime.now() + ms(self.rng.u64(0..pause));
            self.run_until(end);
            for _ in 0..self.rng.usize(..4) {
                self.drop_one();
            }
        }
        // Every deadline is below 4 s; the last duplicates are 3 s late.
        self.run_until(self.runtime.now() + ms(4020));
        for (number, issued) in &self.issued {
            let ended = issued.running.as_ref().is_none_or(|running| running.result().is_some());
            assert!(ended, "{number} should have ended at {:?}", issued.deadline);
        }
        self.cluster.model().heal();
        self.run_until(self.runtime.now() + ms(4000));
        self.issue_one_that_must_succeed();
    }

    fn issue_one_that_must_succeed(&mut self) {
        let number = self.issued.len() as u64;
        let request = self.client.request(body(&number.to_string()), RequestOptions::new(1));
        let running = self.runtime.start(request);
        self.run_until(self.runtime.now() + ms(1999));
        let result = running.result();
        // A session that was ended behind the client's back costs the first command after it.
        let expired = matches!(result, Some(Err(RequestError::SessionExpired)));
        assert!(expired || matches!(result, Some(Ok(_))), "{result:?} after all is well");
        let deadline = self.runtime.now();
        self.issued.insert(number, Issued { running: Some(running), idempotent: false, deadline });
    }

    fn check(&self) -> Tally {
        let model = self.cluster.model();
        let mut tally =
            Tally { trace: model.trace, stats: self.client.stats(), ..Tally::default() };
        for (number, issued) in &self.issued {
            let applied = model.applied.get(number).map_or(&[][..], |replies| replies);
            if !issued.idempotent {
                assert!(applied.len() <= 1, "{number} was applied {} times", applied.len());
            }
            let places = model.handed.get(number).map_or(0, std::collections::BTreeSet::len);
            assert!(places <= 1, "{number} was sent in {places} places");
            let Some(running) = &issued.running else {
                *tally.ends.entry("dropped").or_default() += 1;
                continue;
            };
            let result = running.result().unwrap();
            let end = match &result {
                Ok(answer) => {
                    assert!(applied.contains(&Reply::Applied(answer.clone())), "{number}");
                    "ok"
                }
                Err(error) => {
                    let doubled = model.duplicated.contains(number);
                    match error.outcome() {
                        Outcome::NotApplied if doubled => {}
                        Outcome::NotApplied => {
                            assert!(applied.is_empty(), "{number} was applied, despite `{error}`");
                        }
                        Outcome::Applied => assert!(!applied.is_empty(), "{number}: {error}"),
                        Outcome::Unknown => {}
                    }
                    name(error)
                }
            };
            *tally.ends.entry(end).or_default() += 1;
        }
        tally
    }
}

fn name(error: &RequestError) -> &'static str {
    match (error, error.outcome()) {
        (RequestError::NoLeader { .. }, _) => "no leader",
        (RequestError::Overloaded, _) => "overloaded",
        (RequestError::Timeout { .. }, Outcome::Unknown) => "timeout, unknown",
        (RequestError::Timeout { .. }, _) => "timeout, not applied",
        (RequestError::SessionExpired, _) => "session expired",
        (RequestError::MachinePanicked { .. }, _) => "panicked",
        (other, _) => panic!("{other} has no place here"),
    }
}

fn run(seed: u64) -> Tally {
    let mut world = World::new(seed);
    world.live();
    let tally = world.check();
    let World { runtime, cluster, client, issued, .. } = world;
    drop((client, issued));
    runtime.settle();
    assert_eq!(runtime.tasks(), 0, "the client ends with its last handle");
    drop(cluster);
    tally
}

#[test]
fn whatever_the_cluster_does_each_command_is_applied_once_at_most_and_answered_truly() {
    let long = std::env::var_os("GRAFT_LONG").is_some();
    let (seeds, limit) = if long { (1_000_000, 600) } else { (2_000, 20) };
    let began = Instant::now();
    let mut ends: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut sessions_expired = 0;
    let mut done = 0;
    for seed in 0..seeds {
        let tally = std::panic::catch_unwind(|| run(seed))
            .unwrap_or_else(|_| panic!("seed {seed} fails: run `run({seed})`"));
        for (end, count) in tally.ends {
            *ends.entry(end).or_default() += count;
        }
        sessions_expired += tally.stats.sessions_expired;
        done = seed + 1;
        // A slow machine does fewer; a hundred are enough to have seen everything.
        if done >= 100 && began.elapsed() > Duration::from_secs(limit) {
            break;
        }
    }
    println!("{done} seeds, {sessions_expired} sessions expired: {ends:?}");
    // The test is worth nothing if something never happens.
    for end in [
        "ok",
        "dropped",
        "no leader",
        "overloaded",
        "timeout, unknown",
        "timeout, not applied",
        "session expired",
        "panicked",
    ] {
        assert!(ends.contains_key(end), "no request ended as `{end}`: {ends:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_messages_at_the_same_times() {
    for seed in 0..20 {
        assert_eq!(run(seed).trace, run(seed).trace);
    }
    assert_ne!(run(1).trace, run(2).trace);
}
