//! A machine that is not deterministic is found and stopped, before its replicas can tell their callers different things for long.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is test code")]

mod common;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use common::{SERVERS, soon, until, until_failed};
use graft::{Machine, Role, Status, StopReason, Supervisor};
use graft_core::Checkpoint;

#[derive(Debug, graft::Archive, graft::Serialize, graft::Deserialize)]
#[rkyv(crate = graft::rkyv)]
struct Tick(u64);

impl graft::Entry for Tick {
    type Response = u128;
}

/// Sends entries until `enough` says so. Responses do not matter here, and there may be no majority any more.
async fn tick_until<M: Machine<Entry = Tick>>(cluster: &Supervisor<M>, enough: impl Future) {
    let ticks = async {
        for number in 0.. {
            let tick = cluster.request("server1", Tick(number));
            let _ = tick.deadline(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        _ = enough => {}
        () = ticks => {}
    }
}

fn assert_diverged(status: &Status) {
    let Status::Failed { reason: StopReason::Diverged { index }, restarts: 0 } = status else {
        panic!("{status}")
    };
    assert_eq!(index % Checkpoint::INTERVAL, 0, "checksums are compared at checkpoints");
    let told = status.to_string();
    assert!(told.contains("its machine differs from the leader's at entry"), "{told}");
}

/// Answers with its own clock.
#[derive(Default)]
struct Clock;

impl Machine for Clock {
    type Entry = Tick;
    fn handle_entry(&mut self, _: Tick) -> u128 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()
    }
}

#[tokio::test]
async fn a_machine_that_reads_the_clock_is_stopped_as_diverged() {
    let clock = graft::start(SERVERS, Clock::default).await.unwrap();
    let leader = clock.leader().await.unwrap();
    let followers: Vec<&str> = SERVERS.into_iter().filter(|name| leader != *name).collect();
    soon(tick_until(&clock, until_failed(&clock, followers[0]))).await;
    assert_diverged(&until_failed(&clock, followers[0]).await);
    // It says so where it is looked at, and the other follower had its own clock as well.
    let data = clock.data(followers[0]).await.unwrap();
    assert!(data.to_string().contains("status: failed"), "{data}");
    assert_diverged(&until_failed(&clock, followers[1]).await);
    // Nobody contradicted the leader, as far as it knows; alone it can answer nothing.
    assert_eq!(clock.watch(&leader).unwrap().borrow().status, Status::Running);
    assert!(clock.request("server1", Tick(0)).deadline(Duration::from_millis(100)).await.is_err());
}

/// Counts, but one copy of it panics over an entry that the others take.
struct Brittle {
    count: u128,
    breaks: bool,
}

impl Machine for Brittle {
    type Entry = Tick;
    fn handle_entry(&mut self, Tick(number): Tick) -> u128 {
        assert!(!(self.breaks && number == 100), "only this copy of the machine panics");
        self.count += 1;
        self.count
    }
}

#[tokio::test]
async fn a_machine_that_panics_on_one_server_only_is_stopped_as_diverged() {
    let made = AtomicUsize::new(0);
    // Machines are made in the order of the servers, so this is the third one's.
    let init = move || {
        let number = made.fetch_add(1, Ordering::Relaxed);
        Brittle { count: 0, breaks: number == 2 }
    };
    let brittle = graft::start(SERVERS, init).await.unwrap();
    if brittle.leader().await.unwrap() == "server3" {
        brittle.transfer_leadership("server1").await.unwrap();
    }
    soon(tick_until(&brittle, until_failed(&brittle, "server3"))).await;
    assert_diverged(&until_failed(&brittle, "server3").await);
    // The others agree with each other, and go on.
    let leads = until(&brittle, "server1", |overview| overview.leader.is_some()).await;
    assert!(leads.role == Some(Role::Leader) || leads.leader.unwrap() == "server2");
    assert!(soon(brittle.request("server1", Tick(0))).await.unwrap() > 100);
    for server in ["server1", "server2"] {
        assert_eq!(brittle.watch(server).unwrap().borrow().status, Status::Running);
    }
}
