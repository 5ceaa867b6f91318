//! The driver among doors of the tests' own: what it promises to clients, to its operator, to its
//! machine and to the protocol.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cluster;
mod doors;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use graft_core::{
    ApplyMode, EntryKind, LogStore, NodeId, RejectReason, Reply, Request, Runtime,
    node::{HandleError, Node, OpenError, StopReason},
    raft::RoleName,
};

use cluster::{Cluster, identity, reply};
use doors::{
    BLOCK, CHECK_PANIC, CHECKING, Disk, Farewell, HARD, INVALID, PANIC, SLOW, Seen, UNDECODABLE,
};

/// Heartbeats go out every 50 ms; a tick and a slice of applying may be added.
const LONGEST_SILENCE: Duration = Duration::from_millis(65);

fn applied(body: &[u8]) -> Reply {
    Reply::Applied(Bytes::copy_from_slice(body))
}

fn longest_silence(heartbeats: &[Duration], from: Duration, to: Duration) -> Duration {
    let ends = std::iter::once(&from).chain(heartbeats);
    let gaps = ends.zip(heartbeats.iter().chain([&to])).map(|(a, b)| b.saturating_sub(*a));
    gaps.max().unwrap()
}

#[tokio::test(start_paused = true)]
async fn three_servers_elect_a_leader_and_apply_a_request_everywhere() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    assert_eq!(cluster.request(leader, b"one").await, applied(b"one"));
    for at in 0..3 {
        assert_eq!(cluster.applied(at, 1).await, [&b"one"[..]]);
        let status = cluster.servers[at].handle.status();
        assert_eq!(status.leader, Some(cluster.servers[leader].id));
        assert_eq!(status.role == RoleName::Leader, at == leader);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_alone_leads_and_applies() {
    let cluster = Cluster::start(1).await;
    let leader = cluster.leader().await;
    assert_eq!(cluster.request(leader, b"one").await, applied(b"one"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_run_on_several_threads_and_in_real_time() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let waiting: Vec<_> = (0..1000).map(|_| cluster.send(leader, b"one")).collect();
    for waiting in waiting {
        assert_eq!(reply(waiting).await, applied(b"one"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stopped_leader_is_replaced_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    cluster.request(leader, b"one").await;
    assert_eq!(cluster.stop(leader).await, StopReason::Asked);
    let old = cluster.servers[leader].id;
    let next = cluster.leader_of((leader + 1) % 3, &[old]).await;
    assert_eq!(cluster.request(next, b"two").await, applied(b"two"));
    cluster.restart(leader).await;
    for at in 0..3 {
        assert_eq!(cluster.applied(at, 2).await, [&b"one"[..], b"two"]);
    }
}

#[tokio::test(start_paused = true)]
async fn servers_that_all_restart_have_their_log_again() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    for body in [b"one", b"two"] {
        cluster.request(leader, body).await;
    }
    for at in 0..3 {
        cluster.stop(at).await;
    }
    for at in 0..3 {
        cluster.restart(at).await;
    }
    let leader = cluster.leader().await;
    assert_eq!(cluster.request(leader, b"six").await, applied(b"six"));
    for at in 0..3 {
        assert_eq!(cluster.applied(at, 3).await, [&b"one"[..], b"two", b"six"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_log_is_replayed_without_waiting_for_any_timer() {
    let mut cluster = Cluster::start_with(1, ApplyMode::Inline, |config| {
        config.raft.max_batch_bytes = 200;
    })
    .await;
    cluster.leader().await;
    let waiting: Vec<_> = (0..1000).map(|_| cluster.send(0, b"one")).collect();
    for waiting in waiting {
        assert_eq!(reply(waiting).await, applied(b"one"));
    }
    cluster.stop(0).await;
    cluster.restart(0).await;
    cluster.leader().await;
    let from = cluster.runtime.now();
    cluster.applied(0, 1000).await;
    let took = cluster.runtime.now() - from;
    assert!(took < Duration::from_millis(10), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_stalls_delays_no_heartbeat() {
    let cluster = Cluster::start(3).await;
    let at = cluster.leader().await;
    cluster.request(at, b"one").await;
    let leader = &cluster.servers[at];
    leader.disk.stalled.send_replace(true);
    let waiting = cluster.send(at, b"two");
    let from = cluster.runtime.now();
    // The passing of time itself is what is tested: below the limit at which a leader steps down.
    tokio::time::sleep(Duration::from_millis(400)).await;
    let heartbeats = cluster.network.heartbeats(leader.id, from);
    let silence = longest_silence(&heartbeats, from, cluster.runtime.now());
    assert!(silence <= LONGEST_SILENCE, "{silence:?} without a heartbeat");
    leader.disk.stalled.send_replace(false);
    assert_eq!(reply(waiting).await, applied(b"two"));
    assert_eq!(leader.handle.status().role, RoleName::Leader);
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_disk_stays_stalled_is_replaced() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    cluster.servers[leader].disk.stalled.send_replace(true);
    let waiting = cluster.send(leader, b"one");
    let old = cluster.servers[leader].id;
    let next = cluster.leader_of((leader + 1) % 3, &[old]).await;
    assert!(matches!(reply(waiting).await, Reply::Rejected(RejectReason::LeadershipLost(_))));
    assert_eq!(cluster.request(next, b"two").await, applied(b"two"));
}

#[tokio::test(start_paused = true)]
async fn what_must_not_enter_the_log_is_refused_with_its_reason() {
    let cluster = Cluster::start_with(3, ApplyMode::Inline, |config| {
        config.max_entry_bytes = 100;
    })
    .await;
    let leader = cluster.leader().await;
    let refused = async |adjust: fn(&mut Request)| {
        let mut request = cluster.command(b"one");
        adjust(&mut request);
        let waiting = cluster.network.request(cluster.servers[leader].id, request);
        match reply(waiting).await {
            Reply::Rejected(reason) => reason,
            other => panic!("{other:?} is no refusal"),
        }
    };
    let too_large = refused(|request| request.payload = vec![0; 101].into()).await;
    assert_eq!(too_large, RejectReason::TooLarge { bytes: 101, limit: 100 });
    let late = refused(|request| request.deadline = Duration::ZERO).await;
    assert_eq!(late, RejectReason::DeadlinePassed);
    for kind in [EntryKind::Blank, EntryKind::Membership] {
        let own = match kind {
            EntryKind::Blank => refused(|request| request.kind = EntryKind::Blank).await,
            _ => refused(|request| request.kind = EntryKind::Membership).await,
        };
        assert!(matches!(own, RejectReason::Invalid(_)), "{own:?}");
    }
    let short = refused(|request| request.payload = Bytes::from_static(b"short")).await;
    assert!(matches!(short, RejectReason::Invalid(_)), "{short:?}");
    let invalid = cluster.request(leader, INVALID).await;
    let reason = RejectReason::Invalid("it says so itself".into());
    assert_eq!(invalid, Reply::Rejected(reason));

    let before = cluster.servers[leader].handle.detail().await.unwrap();
    assert_eq!(before.raft.last.index.0, 2, "the founding and the leader's own entry");
    assert_eq!(cluster.request(leader, b"one").await, applied(b"one"));
}

#[tokio::test(start_paused = true)]
async fn a_version_that_a_member_does_not_read_is_not_proposed() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    // The cluster's commands are of version 3.
    cluster.network.set_newest_version(Some(2));
    let Reply::Rejected(RejectReason::Invalid(reason)) = cluster.request(leader, b"one").await
    else {
        panic!("it is refused");
    };
    assert!(reason.contains("version 3") && reason.contains("at most 2"), "{reason}");
    cluster.network.set_newest_version(Some(3));
    assert_eq!(cluster.request(leader, b"two").await, applied(b"two"));
    assert_eq!(cluster.applied(leader, 1).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_follower_says_who_leads_and_who_else_there_is() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let follower = (leader + 1) % 3;
    cluster.leader_of(follower, &[]).await;
    let Reply::Rejected(RejectReason::NotLeader(hint)) = cluster.request(follower, b"one").await
    else {
        panic!("a follower takes no requests");
    };
    assert_eq!(hint.leader, Some(cluster.servers[leader].id));
    assert_eq!(hint.members.unwrap().voters.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_panic_over_an_entry_is_its_answer_and_the_server_goes_on() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let panicked = cluster.request(leader, PANIC).await;
    assert_eq!(panicked, Reply::Panicked(Bytes::from_static(b"the test asked for it")));
    assert_eq!(cluster.request(leader, b"one").await, applied(b"one"));
}

#[tokio::test(start_paused = true)]
async fn stopping_answers_everyone_and_says_what_was_proposed() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    cluster.network.cut(cluster.servers[leader].id);
    let proposed: Vec<_> = (0..10).map(|_| cluster.send(leader, b"one")).collect();
    // An answered order means that the turn with those requests is over.
    let detail = cluster.servers[leader].handle.detail().await.unwrap();
    assert_eq!((detail.open_requests, detail.raft.open_proposals), (10, 10));
    // Both are waiting when the node next looks: the order to stop goes first.
    let not_proposed = cluster.send(leader, b"two");
    assert_eq!(cluster.stop(leader).await, StopReason::Asked);
    for waiting in proposed {
        let reason = RejectReason::Stopping { proposed: true };
        assert_eq!(reply(waiting).await, Reply::Rejected(reason));
    }
    let reason = RejectReason::Stopping { proposed: false };
    assert_eq!(reply(not_proposed).await, Reply::Rejected(reason));

    let handle = &cluster.servers[leader].handle;
    let stopped = handle.stopped(cluster::PATIENCE).await.unwrap();
    assert_eq!(stopped, Some(StopReason::Asked));
    assert_eq!(handle.detail().await.unwrap_err(), HandleError::Stopped);
    assert_eq!(handle.campaign().await.unwrap_err(), HandleError::Stopped);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_blocks_on_its_thread_delays_no_heartbeat() {
    let cluster = Cluster::start_with(3, ApplyMode::Thread, |_| {}).await;
    let at = cluster.leader().await;
    let leader = &cluster.servers[at];
    let term = leader.handle.status().term;
    assert_eq!(cluster.request(at, b"one").await, applied(b"one"));
    let blocked = cluster.send(at, BLOCK);
    let behind = cluster.send(at, b"two");
    let from = cluster.runtime.now();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let heartbeats = cluster.network.heartbeats(leader.id, from);
    let silence = longest_silence(&heartbeats, from, cluster.runtime.now());
    assert!(silence <= LONGEST_SILENCE, "{silence:?} without a heartbeat");
    assert_eq!(leader.handle.status().term, term);
    for server in &cluster.servers {
        server.seen.gate.send_replace(true);
    }
    assert_eq!(blocked.await.unwrap(), applied(BLOCK));
    assert_eq!(behind.await.unwrap(), applied(b"two"));
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_the_machines_thread_only_so_long_and_answers_in_any_case() {
    let mut cluster = Cluster::start_with(1, ApplyMode::Thread, |_| {}).await;
    let leader = cluster.leader().await;
    let blocked = cluster.send(leader, BLOCK);
    cluster.servers[leader].handle.detail().await.unwrap();
    let from = cluster.runtime.now();
    assert_eq!(cluster.stop(leader).await, StopReason::Asked);
    let took = cluster.runtime.now() - from;
    assert!(took <= Duration::from_millis(5100), "{took:?}");
    let reason = RejectReason::Stopping { proposed: true };
    assert_eq!(reply(blocked).await, Reply::Rejected(reason));
    cluster.servers[leader].seen.gate.send_replace(true);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_is_lost_with_its_thread_stops_its_server() {
    let mut cluster = Cluster::start_with(1, ApplyMode::Thread, |_| {}).await;
    let leader = cluster.leader().await;
    cluster.request(leader, b"one").await;
    cluster.runtime.full.store(true, Ordering::Relaxed);
    let waiting = cluster.send(leader, b"two");
    let reason = cluster.stopped(leader).await;
    assert!(matches!(reason, StopReason::MachineFailed { .. }), "{reason}");
    let reason = RejectReason::Stopping { proposed: true };
    assert_eq!(reply(waiting).await, Reply::Rejected(reason));
}

/// Whoever waits for the machine's rest, to make another one, waits on where nobody tells of it.
#[tokio::test(start_paused = true)]
async fn a_machine_that_panics_as_it_is_lost_is_at_rest_and_stops_its_server() {
    let mut cluster = Cluster::start_with(1, ApplyMode::Thread, |_| {}).await;
    let leader = cluster.leader().await;
    cluster.request(leader, b"one").await;
    *cluster.servers[leader].seen.farewell.lock().unwrap() = Farewell::Panics;
    cluster.runtime.full.store(true, Ordering::Relaxed);
    let waiting = cluster.send(leader, b"two");
    let reason = cluster.stopped(leader).await;
    let StopReason::MachineFailed { reason } = &reason else { panic!("{reason}") };
    assert!(reason.contains("dropping it panicked: the test asked for it, too"), "{reason}");
    let reason = RejectReason::Stopping { proposed: true };
    assert_eq!(reply(waiting).await, Reply::Rejected(reason));
    cluster.servers[leader].handle.machine_rests(Duration::from_secs(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_is_lost_is_not_at_rest_before_it_is_dropped() {
    let mut cluster = Cluster::start_with(1, ApplyMode::Thread, |_| {}).await;
    let leader = cluster.leader().await;
    cluster.request(leader, b"one").await;
    let seen = Arc::clone(&cluster.servers[leader].seen);
    *seen.farewell.lock().unwrap() = Farewell::Blocks;
    seen.broken.store(true, Ordering::Relaxed);
    let waiting = cluster.send(leader, b"two");
    let mut leaving = seen.is_leaving.subscribe();
    leaving.wait_for(|is_leaving| *is_leaving).await.unwrap();
    let rests = cluster.servers[leader].handle.machine_rests(Duration::from_secs(1)).await;
    assert!(matches!(rests, Err(HandleError::NoAnswer { .. })), "{rests:?}");
    seen.gate.send_replace(true);
    // Without a deadline: time goes on until the thread has seen the gate.
    let reason = RejectReason::Stopping { proposed: true };
    assert_eq!(waiting.await.unwrap(), Reply::Rejected(reason));
    cluster.servers[leader].handle.machine_rests(Duration::from_secs(1)).await.unwrap();
    let reason = cluster.stopped(leader).await;
    let StopReason::MachineFailed { reason } = &reason else { panic!("{reason}") };
    assert_eq!(reason, "the test broke it");
}

#[tokio::test(start_paused = true)]
async fn a_long_backlog_of_entries_delays_no_heartbeat() {
    let cluster = Cluster::start(3).await;
    let at = cluster.leader().await;
    let leader = &cluster.servers[at];
    cluster.request(at, b"one").await;
    let from = cluster.runtime.now();
    // 0.6 s of applying on the leader.
    leader.seen.slow.store(true, Ordering::Relaxed);
    let waiting: Vec<_> = (0..2000).map(|_| cluster.send(at, SLOW)).collect();
    for waiting in waiting {
        assert_eq!(reply(waiting).await, applied(SLOW));
    }
    let to = cluster.runtime.now();
    assert!(to - from >= Duration::from_millis(600), "the entries took their time");
    let silence = longest_silence(&cluster.network.heartbeats(leader.id, from), from, to);
    assert!(silence <= LONGEST_SILENCE, "{silence:?} without a heartbeat");
    assert_eq!(leader.handle.status().role, RoleName::Leader);
}

/// A burst of large entries, each of which takes long to decode, once deposed leader after leader: the
/// whole burst was checked in one turn.
#[tokio::test(start_paused = true)]
async fn a_burst_of_entries_that_are_hard_to_check_delays_no_heartbeat() {
    let cluster = Cluster::start(3).await;
    let at = cluster.leader().await;
    let leader = &cluster.servers[at];
    cluster.request(at, b"one").await;
    CHECKING.set(Some(Arc::clone(&cluster.runtime)));
    let from = cluster.runtime.now();
    // More bytes than are checked between two looks at the clock, 0.6 s of checking in all.
    let waiting: Vec<_> = (0..600).map(|_| cluster.send(at, HARD)).collect();
    for waiting in waiting {
        assert_eq!(reply(waiting).await, applied(HARD));
    }
    let to = cluster.runtime.now();
    assert!(to - from >= Duration::from_millis(600), "the checks took their time");
    // So many small requests are checked between two looks.
    let stretch = Duration::from_millis(64);
    let silence = longest_silence(&cluster.network.heartbeats(leader.id, from), from, to);
    assert!(silence <= LONGEST_SILENCE + stretch, "{silence:?} without a heartbeat");
    assert_eq!(leader.handle.status().role, RoleName::Leader);
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_check_refuses_its_request_and_the_server_goes_on() {
    let cluster = Cluster::start(1).await;
    let leader = cluster.leader().await;
    let refused = cluster.request(leader, CHECK_PANIC).await;
    assert!(matches!(refused, Reply::Rejected(RejectReason::Invalid(_))), "{refused:?}");
    assert_eq!(cluster.request(leader, b"one").await, applied(b"one"));
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_cannot_be_read_stops_the_server_each_time_and_is_named() {
    for mode in [ApplyMode::Inline, ApplyMode::Thread] {
        let mut cluster = Cluster::start_with(1, mode, |_| {}).await;
        let leader = cluster.leader().await;
        let before = cluster.send(leader, b"one");
        let waiting = cluster.send(leader, UNDECODABLE);
        let behind = cluster.send(leader, b"two");
        let reason = cluster.stopped(leader).await;
        let StopReason::Undecodable { index, version, .. } = &reason else {
            panic!("it stops for another reason: {reason}");
        };
        assert_eq!((index.0, *version), (4, 3));
        assert_eq!(reply(before).await, applied(b"one"));
        for waiting in [waiting, behind] {
            let reason = RejectReason::Stopping { proposed: true };
            assert_eq!(reply(waiting).await, Reply::Rejected(reason));
        }
        cluster.restart(leader).await;
        assert_eq!(cluster.stopped(leader).await, reason);
        let seen = cluster.servers[leader].seen.applied.borrow().clone();
        assert_eq!(seen, [&b"one"[..]], "nothing behind it was applied");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_stops_its_server_and_no_other() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    cluster.servers[leader].disk.broken.store(true, Ordering::Relaxed);
    let waiting = cluster.send(leader, b"one");
    let reason = RejectReason::Stopping { proposed: true };
    assert_eq!(reply(waiting).await, Reply::Rejected(reason));
    let reason = cluster.stopped(leader).await;
    assert!(matches!(reason, StopReason::Store { action: "write", .. }), "{reason}");
    let old = cluster.servers[leader].id;
    let next = cluster.leader_of((leader + 1) % 3, &[old]).await;
    assert_eq!(cluster.request(next, b"two").await, applied(b"two"));
}

#[tokio::test(start_paused = true)]
async fn a_log_at_its_largest_takes_no_more_requests() {
    let cluster = Cluster::start_with(1, ApplyMode::Inline, |config| {
        config.max_log_bytes = 1000;
    })
    .await;
    let leader = cluster.leader().await;
    let mut taken = 0;
    while cluster.request(leader, b"one").await == applied(b"one") {
        taken += 1;
        assert!(taken < 100, "the log grows past its limit");
    }
    assert!(taken > 5, "only {taken} were taken");
    let refused = cluster.request(leader, b"one").await;
    assert_eq!(refused, Reply::Rejected(RejectReason::Overloaded));
    let detail = cluster.servers[leader].handle.detail().await.unwrap();
    assert!(detail.log_bytes >= 1000 && detail.log_bytes < 1100, "{}", detail.log_bytes);
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_taken_in_turn_by_turn_and_answered_whole() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let flood: Vec<_> = (0..20_000).map(|_| cluster.send(leader, b"one")).collect();
    for waiting in flood {
        assert_eq!(reply(waiting).await, applied(b"one"));
    }
}

#[tokio::test(start_paused = true)]
async fn proposals_beyond_the_bound_are_refused_as_overloaded() {
    let cluster = Cluster::start_with(3, ApplyMode::Inline, |config| {
        config.max_entry_bytes = 1000;
        config.raft.max_uncommitted_bytes = 1032;
    })
    .await;
    let leader = cluster.leader().await;
    let waiting: Vec<_> = (0..100).map(|_| cluster.send(leader, b"one")).collect();
    let mut outcomes = [0, 0];
    for waiting in waiting {
        match reply(waiting).await {
            Reply::Applied(_) => outcomes[0] += 1,
            Reply::Rejected(RejectReason::Overloaded) => outcomes[1] += 1,
            other => panic!("{other:?} is neither"),
        }
    }
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
    let detail = cluster.servers[leader].handle.detail().await.unwrap();
    assert_eq!(detail.open_requests, 0);
    assert_eq!(cluster.request(leader, b"two").await, applied(b"two"));
}

#[tokio::test(start_paused = true)]
async fn leadership_goes_where_it_is_sent_and_bad_orders_say_why_not() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    cluster.request(leader, b"one").await;
    let (here, to) = (&cluster.servers[leader], &cluster.servers[(leader + 1) % 3]);
    let nobody = here.handle.transfer(NodeId(9)).await;
    assert_eq!(nobody, Err(HandleError::BadTransferTarget));
    let elsewhere = to.handle.transfer(here.id).await;
    assert_eq!(elsewhere, Err(HandleError::NotLeader { leader: Some(here.id) }));
    assert_eq!(here.handle.transfer(to.id).await, Ok(()));
    let next = cluster.leader_of(leader, &[here.id]).await;
    assert_eq!(cluster.servers[next].id, to.id);
    cluster.request(next, b"two").await;
    assert_eq!(here.handle.campaign().await, Ok(()));
    assert_eq!(cluster.leader_of(next, &[to.id]).await, leader);
}

#[tokio::test(start_paused = true)]
async fn a_detail_shows_the_state_between_two_turns() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    for _ in 0..30 {
        cluster.request(leader, b"one").await;
    }
    let detail = cluster.servers[leader].handle.detail().await.unwrap();
    assert_eq!(detail.tail.len(), 20);
    assert_eq!(detail.tail.last_log_id(), Some(detail.raft.last));
    assert_eq!(detail.raft.last_applied.0, 32);
    assert_eq!(detail.raft.peers.len(), 2);
    assert_eq!(detail.open_requests, 0);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_dropped_leaves_nobody_waiting() {
    let cluster = Cluster::start(1).await;
    let server = &cluster.servers[0];
    server.task.abort();
    assert_eq!(server.handle.stopped(cluster::PATIENCE).await, Ok(None));
    assert_eq!(server.handle.detail().await.unwrap_err(), HandleError::Stopped);
}

#[tokio::test(start_paused = true)]
async fn a_node_does_not_open_on_what_is_not_its_own() {
    let cluster = Cluster::start(1).await;
    let id = cluster.servers[0].id;
    let seen = Arc::new(Seen::default());
    let disk = Arc::new(Disk::default());
    let open = async |disk: &Arc<Disk>, epoch| {
        let mut parts = cluster.parts(id, disk, &seen);
        parts.config.raft.epoch.0 = epoch;
        Node::open(parts).await.map(|_| ()).unwrap_err()
    };
    assert!(matches!(open(&disk, 0).await, OpenError::NotBorn));
    disk.create(&identity("server2")).await.unwrap();
    let wrong = open(&disk, 0).await;
    assert!(matches!(wrong, OpenError::WrongIdentity { field: "server", .. }), "{wrong}");
    let wrong = open(&cluster.servers[0].disk, 1).await;
    assert!(matches!(wrong, OpenError::WrongIdentity { field: "epoch", .. }), "{wrong}");

    // A store that can tell whose it is is refused before it is recovered, which would change it.
    let recoveries = disk.recoveries.load(Ordering::Relaxed);
    disk.tells.store(true, Ordering::Relaxed);
    let wrong = open(&disk, 0).await;
    assert!(matches!(wrong, OpenError::WrongIdentity { field: "server", .. }), "{wrong}");
    assert_eq!(disk.recoveries.load(Ordering::Relaxed), recoveries);
    let mut parts = cluster.parts(id, &disk, &seen);
    parts.config.max_entry_bytes = 0;
    let wrong = Node::open(parts).await.map(|_| ()).unwrap_err();
    assert!(wrong.to_string().contains("max_entry_bytes"), "{wrong}");
}
