//! Servers that stand still for longer than an election timeout and go on: SIGSTOP and SIGCONT.

use std::time::{Duration, Instant};

use crate::{
    cluster::Cluster,
    load::{Load, Verdict},
    report, rounds,
};

const TASKS: usize = 64;

/// Far above an election, even on a busy machine.
const LONG_ENOUGH: Duration = Duration::from_secs(40);

/// Longer than the longest election timeout, which is 600 ms.
const PAUSE: Duration = Duration::from_millis(900);

fn check_all_answered(what: &str, verdict: &Verdict) {
    let Verdict { tally, failures, longest } = verdict;
    report(&format!("{what}: {tally} longest={longest:?}"));
    assert!(failures.is_empty(), "{failures:?}");
}

/// All servers but this one.
fn others(cluster: &Cluster, server: usize) -> Vec<usize> {
    (0..cluster.count()).filter(|other| *other != server).collect()
}

/// Lets the load go on, answer by answer, for at least as long as [`PAUSE`].
async fn go_on(load: &Load, cluster: &Cluster) {
    let began = Instant::now();
    while began.elapsed() < PAUSE {
        load.answers(1, &cluster.running()).await;
    }
}

#[tokio::test]
async fn a_leader_that_stood_still_serves_nothing_stale_when_it_goes_on() {
    let cluster = Cluster::started(3).await;
    // Clients that know different servers first, so that some of them ask the one that stood still.
    let clients =
        [cluster.client(&[0]).await, cluster.client(&[1]).await, cluster.client(&[2]).await];
    let load = Load::start(&clients, TASKS, LONG_ENOUGH);
    for _ in 0..rounds(2, 100) {
        load.answers(300, &cluster.running()).await;
        let leader = cluster.leader().await;
        cluster.process(leader).pause();
        let next = cluster.leader_among(&others(&cluster, leader)).await;
        // It has done what the paused one knows nothing of.
        load.answers(300, &cluster.running()).await;
        cluster.process(leader).resume();
        // It believed that it leads, and had requests and votes of its past waiting.
        cluster.process(leader).until("a follower again", |said| said.role != "leader").await;
        assert_ne!(next, leader);
    }
    load.answers(300, &cluster.running()).await;
    check_all_answered("leader paused", &load.judged().await);
}

#[tokio::test]
async fn a_follower_that_stood_still_is_missed_by_nobody_and_comes_back() {
    let mut cluster = Cluster::started(3).await;
    let load = Load::start(&[cluster.client(&[0]).await], TASKS, LONG_ENOUGH);
    for _ in 0..rounds(2, 100) {
        load.answers(200, &cluster.running()).await;
        let leader = cluster.leader().await;
        let [follower, third] = others(&cluster, leader)[..] else { unreachable!("three servers") };
        cluster.process(follower).pause();
        go_on(&load, &cluster).await;
        cluster.process(follower).resume();
        // From now on a quorum needs the one that stood still.
        cluster.kill(third);
        load.answers(200, &cluster.running()).await;
        cluster.start(third).await;
    }
    check_all_answered("follower paused", &load.judged().await);
}

#[tokio::test]
async fn a_majority_that_stood_still_has_lost_nothing_when_it_goes_on() {
    let cluster = Cluster::started(3).await;
    let load = Load::start(&[cluster.client(&[1]).await], TASKS, LONG_ENOUGH);
    for _ in 0..rounds(1, 50) {
        load.answers(300, &cluster.running()).await;
        let leader = cluster.leader().await;
        let paused = others(&cluster, leader);
        paused.iter().for_each(|server| cluster.process(*server).pause());
        // Nobody answers it, so it knows that others may lead by now.
        let gave_up = |said: &crate::process::Said| said.role != "leader";
        cluster.process(leader).until("a leader no more", gave_up).await;
        paused.iter().for_each(|server| cluster.process(*server).resume());
        load.answers(300, &cluster.running()).await;
    }
    check_all_answered("majority paused", &load.judged().await);
}
