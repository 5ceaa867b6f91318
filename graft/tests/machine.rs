//! What a machine is told, and what its entries may ask for.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is test code")]

mod common;

use std::time::{SystemTime, UNIX_EPOCH};

use common::{SERVERS, soon};
use graft::{At, Machine};
use tokio::task::JoinSet;

#[derive(Debug, graft::Archive, graft::Serialize, graft::Deserialize)]
#[rkyv(crate = graft::rkyv)]
struct When;

#[derive(Clone, Copy, Debug, graft::Archive, graft::Serialize, graft::Deserialize)]
#[rkyv(crate = graft::rkyv)]
struct Told {
    index: u64,
    term: u64,
    unix_millis: u64,
    cluster_millis: u64,
    /// How many entries the machine had before.
    count: u64,
}

impl graft::Entry for When {
    type Response = Told;
}

/// Answers where and when it is.
#[derive(Default)]
struct Calendar(u64);

impl Machine for Calendar {
    type Entry = When;

    fn handle_entry(&mut self, _: When) -> Told {
        unreachable!("a machine that wants to know the time is told it")
    }

    fn handle_entry_at(&mut self, _: When, at: &At) -> Told {
        self.0 += 1;
        let At { index, term, unix_millis, cluster_millis, .. } = *at;
        Told { index, term, unix_millis, cluster_millis, count: self.0 }
    }
}

fn unix_millis() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

#[tokio::test]
async fn the_time_of_entries_never_goes_back_not_even_with_the_leader() {
    let begun = unix_millis();
    let calendar = graft::start(SERVERS, Calendar::default).await.unwrap();
    let mut told: Vec<Told> = Vec::new();
    for round in 0..3 {
        for _ in 0..20 {
            told.push(soon(calendar.request("server1", When)).await.unwrap());
        }
        let leader = calendar.leader().await.unwrap();
        calendar.stop_server(&leader).await.unwrap();
        calendar.restart_server(&leader).await.unwrap();
        assert_eq!(told.len(), 20 * (round + 1));
    }
    for pair in told.windows(2) {
        let [before, after] = pair else { unreachable!() };
        assert!(before.index < after.index && before.term <= after.term);
        assert!(before.unix_millis <= after.unix_millis);
        assert!(before.cluster_millis <= after.cluster_millis);
        assert_eq!(before.count + 1, after.count);
    }
    assert!(told[0].term < told[59].term, "leaders changed");
    // Clocks of one machine agree to a few milliseconds, so it is the time of day.
    let (first, last) = (told[0].unix_millis, told[59].unix_millis);
    assert!(begun <= first + 1000 && last <= unix_millis() + 1000, "{begun} {first} {last}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idempotent_requests_are_answered_like_any_other() {
    let calendar = graft::start(SERVERS, Calendar::default).await.unwrap();
    let mut open = JoinSet::new();
    for number in 0..200 {
        let request = calendar.request(SERVERS[number % 3], When);
        open.spawn(if number % 2 == 0 { request.idempotent() } else { request });
    }
    let mut counts = Vec::new();
    while let Some(told) = soon(open.join_next()).await {
        counts.push(told.unwrap().unwrap().count);
    }
    counts.sort_unstable();
    counts.dedup();
    assert_eq!(counts.len(), 200, "each had a place of its own");
}
