//! What went wrong in the library that this one replaces, and must not go wrong here, a fault a
//! test or two. The one about an entry that makes the machine panic is tested where machines are,
//! with the face.

mod common;

use std::collections::BTreeSet;

use common::*;
use graft_core::{
    EntryKind, LogId,
    raft::{Config, RoleName},
};

/// The vote of a single server is a majority of its cluster, and its disk a quorum: it waits for
/// nobody.
#[test]
fn a_cluster_of_one_server_elects_itself_and_serves() {
    let mut cluster = Cluster::of(ONE);
    cluster.elapse(60);
    assert_eq!(cluster.leaders(), [A]);
    let tokens = cluster.propose(A, &["x", "y"]);
    cluster.settle();
    assert_eq!(cluster[A].replies, tokens);
    cluster.elapse(1000);
    assert_eq!((cluster.leaders(), cluster[A].term().0), (vec![A], 2), "and it leads on");
}

/// A majority is one of the members, whoever of them is up: two of five never elect and never
/// commit.
#[test]
fn two_of_five_never_elect() {
    for pre_vote in [true, false] {
        for seed in 0..50 {
            let mut cluster = Cluster::with(FIVE, |node| {
                let config = Config { seed: seed * 10 + node.0, pre_vote, ..Config::new(node) };
                (config, Disk::founded(node, FIVE))
            });
            for node in [C, D, E] {
                cluster.crash(node);
            }
            for _ in 0..60 {
                for node in [A, B] {
                    cluster.jump(node, 10);
                }
                cluster.settle();
                assert!(cluster.leaders().is_empty());
            }
            assert_eq!(cluster.audit().committed(), 0);
            cluster.restart(C);
            cluster.elapse(400);
            assert_eq!(cluster.leaders().len(), 1, "three of five do, seed {seed}");
        }
    }
}

/// Two of five that once were led keep nothing going either: what is taken in then does not commit.
#[test]
fn a_leader_left_with_one_follower_of_four_commits_nothing_and_steps_down() {
    let mut cluster = Cluster::led(FIVE);
    let before = cluster[A].commit();
    for node in [C, D, E] {
        cluster.crash(node);
    }
    cluster.propose(A, &["x"]);
    for _ in 0..70 {
        cluster.jump(A, 1);
        cluster.jump(B, 1);
        cluster.settle();
        assert_eq!(cluster[A].commit(), before);
    }
    assert!(cluster.leaders().is_empty());
}

/// A leader that is deposed becomes a follower. It keeps its log and its machine, follows, and
/// leads again another day.
#[test]
fn a_demoted_leader_lives_on_with_its_log() {
    let mut cluster = Cluster::led(THREE);
    cluster.propose(A, &["x", "y"]);
    cluster.settle();
    cluster.heartbeat(A);
    let terms = cluster[A].terms();
    cluster.transfer(A, B);
    cluster.settle();
    assert_eq!(cluster.leaders(), [B]);
    assert_eq!(cluster[A].role(), RoleName::Follower);
    assert!(cluster[A].terms().starts_with(&terms));
    assert_eq!(cluster[A].applied_commands(), ["x", "y"]);
    cluster.propose(B, &["z"]);
    cluster.settle();
    cluster.heartbeat(B);
    assert_eq!(cluster[A].applied_commands(), ["x", "y", "z"]);
    cluster.transfer(B, A);
    cluster.settle();
    assert_eq!(cluster.leaders(), [A]);
    cluster.propose(A, &["w"]);
    cluster.settle();
    assert_eq!(cluster[A].applied_commands(), ["x", "y", "z", "w"]);
}

/// A leader that was cut off comes back with entries that nobody else has. It lives on; only they
/// go.
#[test]
fn a_leader_that_was_cut_off_loses_nothing_but_what_was_never_committed() {
    let mut cluster = Cluster::led(FIVE);
    cluster.propose(A, &["kept"]);
    cluster.settle();
    cluster.isolate(A);
    cluster.propose(A, &["gone"]);
    cluster.elapse(240);
    let leader = cluster.leaders()[0];
    assert_ne!(leader, A);
    cluster.propose(leader, &["new"]);
    cluster.heal();
    cluster.elapse(30);
    for node in FIVE {
        assert_eq!(cluster[*node].applied_commands(), ["kept", "new"]);
    }
}

/// What a new leader has inherited uncommitted is committed with its own blank entry: it needs no
/// client to come along.
#[test]
fn an_inherited_uncommitted_entry_commits() {
    let mut cluster = Cluster::led(THREE);
    cluster.hold_wire(B, A);
    cluster.hold_wire(C, A);
    cluster.propose(A, &["x"]);
    cluster.settle();
    assert!(cluster[B].disk.holds(LogId::new(2, 3)) && cluster[A].commit() == 2);
    cluster.crash(A);
    cluster.release_wires();
    cluster.elapse(240);
    for node in [B, C] {
        assert_eq!(cluster[node].applied_commands(), ["x"], "nobody proposed anything since");
        assert_eq!(cluster[node].applied.last().map(|entry| entry.kind), Some(EntryKind::Blank));
    }
}

/// An acknowledgement says how far a server's log matches. Saying it twice changes nothing, least
/// of all what is committed.
#[test]
fn duplicate_acknowledgements_are_harmless() {
    let mut leader = Server::settled_leader(Config::new(A), FIVE, &[1]);
    leader.propose("x");
    leader.settle();
    for _ in 0..10 {
        leader.receive(B, matched(2, 3));
    }
    assert_eq!(leader.commit(), 2, "two of five have it, however often one says so");
    leader.receive(C, matched(2, 3));
    assert_eq!(leader.commit(), 3);
    leader.settle();
    for peer in [B, C, D] {
        for index in [3, 2, 1] {
            leader.receive(peer, matched(2, index));
        }
    }
    leader.settle();
    assert_eq!((leader.commit(), leader.applied.len(), leader.replies.len()), (3, 3, 1));
    assert_eq!(leader.peer(B).match_index.0, 3);
}

/// A command travels and commits at once, one by one or many together: no clock moves between the
/// proposal and its answer.
#[test]
fn no_request_waits_for_the_next_heartbeat() {
    for nodes in [ONE, TWO, THREE, FOUR, FIVE, SEVEN] {
        let mut cluster = Cluster::led(nodes);
        let clock = cluster[A].now();
        for round in 0..20 {
            let token = cluster.propose(A, &[&format!("command {round}")])[0];
            cluster.settle();
            assert_eq!(cluster[A].replies.last(), Some(&token));
        }
        let many: Vec<String> = (0..200).map(|number| number.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let tokens = cluster.propose(A, &many);
        cluster.settle();
        assert!(cluster[A].replies.ends_with(&tokens));
        assert_eq!(cluster[A].now(), clock, "no time passed");
    }
}

/// A request right after an election waits for no heartbeat either.
#[test]
fn a_request_right_after_the_election_commits_without_time_passing() {
    let mut cluster = Cluster::of(THREE);
    cluster.campaign(A);
    while !cluster[A].is_leader() {
        cluster.persist(A);
        cluster.deliver_all();
        for node in THREE {
            cluster.persist(*node);
        }
    }
    let clock = cluster[A].now();
    let token = cluster.propose(A, &["x"])[0];
    cluster.settle();
    assert_eq!((cluster[A].replies.last(), cluster[A].now()), (Some(&token), clock));
}

/// A restarted server has the term and the log that it wrote, and applies it all again in the same
/// order.
#[test]
fn restart_keeps_the_log() {
    let mut cluster = Cluster::led(THREE);
    let commands: Vec<String> = (0..50).map(|number| format!("command {number}")).collect();
    for command in &commands {
        cluster.propose(A, &[command]);
        cluster.settle();
    }
    cluster.heartbeat(A);
    for node in THREE {
        cluster.crash(*node);
    }
    for node in THREE {
        let before = cluster[*node].disk.terms();
        cluster.restart(*node);
        assert_eq!(cluster[*node].terms(), before);
        assert_eq!(cluster[*node].term().0, 2);
    }
    cluster.elapse(240);
    let leader = cluster.leaders()[0];
    for node in THREE {
        assert_eq!(cluster[*node].applied_commands(), commands, "{node}");
    }
    cluster.propose(leader, &["one more"]);
    cluster.settle();
    assert_eq!(cluster[leader].applied_commands().len(), 51);
}

/// Restarting one server after another, leader or not, loses nothing and doubles nothing.
#[test]
fn a_rolling_restart_keeps_everything() {
    let mut cluster = Cluster::led(FIVE);
    let mut proposed = BTreeSet::new();
    for round in 0..25 {
        let leader = cluster.leaders()[0];
        let command = format!("command {round}");
        let token = cluster.propose(leader, &[&command])[0];
        cluster.settle();
        assert!(cluster[leader].replies.contains(&token));
        proposed.insert(command);
        cluster.crash(FIVE[round % 5]);
        cluster.elapse(150);
        cluster.restart(FIVE[round % 5]);
        cluster.elapse(100);
    }
    for node in FIVE {
        let applied = cluster[*node].applied_commands();
        assert_eq!(applied.len(), proposed.len());
        assert_eq!(applied.into_iter().collect::<BTreeSet<_>>(), proposed);
    }
}
