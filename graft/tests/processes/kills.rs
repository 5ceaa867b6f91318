//! Servers that are killed while a client asks, and come back.

use std::time::Duration;

use crate::{
    PATIENCE,
    cluster::Cluster,
    load::{Load, Verdict},
    report, rounds,
};

/// How many tasks ask at once.
const TASKS: usize = 64;

/// Far above an election, even on a busy machine: nobody has to fail because a server was killed.
const LONG_ENOUGH: Duration = Duration::from_secs(40);

/// Whether every request was answered, although servers were killed meanwhile: they are sent again, and each of them
/// is applied once.
fn check_all_answered(what: &str, verdict: &Verdict) {
    let Verdict { tally, failures, longest } = verdict;
    report(&format!("{what}: {tally} longest={longest:?}"));
    assert!(failures.is_empty(), "{failures:?}");
    assert_eq!((tally.not_applied, tally.unknown), (0, 0));
}

#[tokio::test]
async fn servers_killed_at_random_under_load_lose_and_double_nothing() {
    let mut random = fastrand::Rng::with_seed(4);
    let mut cluster = Cluster::started(3).await;
    let load = Load::start(&[cluster.client(&[0]).await], TASKS, LONG_ENOUGH);
    for _ in 0..rounds(6, 300) {
        load.answers(random.u64(1..400), &cluster.running()).await;
        let server = random.usize(..3);
        cluster.kill(server);
        // Some come back before the others have noticed, some after they have gone on without it.
        if random.bool() {
            load.answers(random.u64(1..400), &cluster.running()).await;
        }
        cluster.start(server).await;
    }
    load.answers(400, &cluster.running()).await;
    check_all_answered("random kills", &load.judged().await);
}

#[tokio::test]
async fn a_leader_killed_under_64_tasks_fails_none_of_their_requests() {
    let mut cluster = Cluster::started(3).await;
    let load = Load::start(&[cluster.client(&[1]).await], TASKS, LONG_ENOUGH);
    for _ in 0..rounds(2, 100) {
        load.answers(500, &cluster.running()).await;
        let leader = cluster.leader().await;
        cluster.kill(leader);
        load.answers(500, &cluster.running()).await;
        cluster.start(leader).await;
    }
    check_all_answered("leader killed", &load.judged().await);
}

#[tokio::test]
async fn requests_with_no_time_for_an_election_end_and_what_they_say_of_themselves_is_true() {
    let mut cluster = Cluster::started(3).await;
    // Less than the shortest election timeout.
    let load = Load::start(&[cluster.client(&[2]).await], TASKS, Duration::from_millis(200));
    for _ in 0..rounds(2, 50) {
        load.answers(500, &cluster.running()).await;
        let leader = cluster.leader().await;
        cluster.kill(leader);
        load.answers(200, &cluster.running()).await;
        cluster.start(leader).await;
    }
    let Verdict { tally, longest, .. } = load.judged().await;
    report(&format!("no time: {tally} longest={longest:?}"));
    assert!(
        tally.not_applied + tally.unknown >= TASKS,
        "some had no leader in their time: {tally}"
    );
    // No timer is that late: a request that takes so long has forgotten its deadline.
    assert!(longest < PATIENCE / 2, "a request took {longest:?}");
}

#[tokio::test]
async fn all_servers_killed_at_once_come_back_with_all_that_was_acknowledged() {
    let mut cluster = Cluster::started(3).await;
    let load = Load::start(&[cluster.client(&[0]).await], TASKS, LONG_ENOUGH);
    for _ in 0..rounds(2, 50) {
        load.answers(500, &cluster.running()).await;
        for server in 0..3 {
            cluster.kill(server);
        }
        cluster.start_all().await;
    }
    load.answers(500, &cluster.running()).await;
    check_all_answered("all killed", &load.judged().await);
}

#[tokio::test]
async fn a_leader_that_shuts_down_under_load_hands_over_and_fails_no_request() {
    let mut cluster = Cluster::started(3).await;
    let load = Load::start(&[cluster.client(&[1]).await], TASKS, LONG_ENOUGH);
    for _ in 0..rounds(2, 100) {
        load.answers(500, &cluster.running()).await;
        let leader = cluster.leader().await;
        let term = cluster.process(leader).said().term;
        cluster.shut_down(leader).await;
        // Whoever is told to campaign does so in the next term at once, and nobody waits for an election timeout.
        let told = ["told to campaign", &format!("term={} ", term + 1)];
        cluster.logged_by_any(&told).await;
        load.answers(500, &cluster.running()).await;
        cluster.start(leader).await;
    }
    check_all_answered("leader shut down", &load.judged().await);
}
