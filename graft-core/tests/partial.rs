//! Partial connectivity (PROTOCOL 2): "Where a server reaches a quorum and its log is as good as a
//! quorum's, a leader stands within 4 election timeouts, whatever else is cut."
//!
//! Each test runs many seeds of a cluster with random delays of messages and disks. At some moment
//! links are cut, some of them in one direction only, and stay cut. From then on it is measured how
//! long it takes until a leader stands that commits what was proposed after the cut, and asserted
//! that it stays.
//!
//! Half of the seeds cut a calm cluster with a leader; the other half cut one whose links have come
//! and gone at random, so that terms, votes and logs are in whatever state that leaves.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "helpers of tests; the worst cases are worth reading with --nocapture"
)]

mod common;
#[path = "partial/sim.rs"]
mod sim;

use common::*;
use graft_core::{LogId, NodeId, raft::Config};
use sim::{LIMIT, Sim, TIMEOUT};

/// How many seeds each test runs; many more with `GRAFT_LONG=1`.
fn seeds() -> u64 {
    if std::env::var_os("GRAFT_LONG").is_some() { 10_000 } else { 200 }
}

/// Runs `shape` over all seeds and asserts the bound wherever it must hold. Gives the worst case in
/// ticks.
fn every_seed(name: &str, nodes: &[NodeId], shape: impl Fn(&mut Sim)) -> u64 {
    let (mut worst, mut skipped) = (0, 0);
    for seed in 0..seeds() {
        let mut sim = Sim::new(nodes, seed);
        sim.run(2 * TIMEOUT);
        if seed % 2 == 1 {
            sim.chaos();
        }
        let settle = sim.rng.u64(0..2 * TIMEOUT);
        sim.run(if seed % 2 == 1 { settle % 20 } else { settle });
        for _ in 0..20 {
            sim.cuts.clear();
            shape(&mut sim);
            if sim.can_be_led() {
                break;
            }
        }
        match sim.settles(&format!("{name} of {}, seed {seed}", nodes.len())) {
            Some(waited) => worst = worst.max(waited),
            None => skipped += 1,
        }
    }
    println!("{name} of {}: at most {worst} ticks; nobody electable: {skipped}", nodes.len());
    assert!(skipped <= seeds() / 20, "{name}: the test must mean something: {skipped} skipped");
    worst
}

/// One server reaches all others, and these nobody else: only it can be elected where there are
/// five or seven.
#[test]
fn a_hub() {
    for nodes in [THREE, FIVE, SEVEN] {
        every_seed("hub", nodes, |sim| {
            let order = sim.shuffled();
            let spokes: Vec<_> = order[1..].iter().map(|spoke| (order[0], *spoke)).collect();
            sim.keep_only(&spokes);
        });
    }
}

/// The hub was a follower of one of the spokes, which can reach it and nobody else: the spoke must
/// give up first.
#[test]
fn a_hub_whose_leader_is_a_spoke() {
    for nodes in [FIVE, SEVEN] {
        every_seed("hub below a spoke", nodes, |sim| {
            let leader = sim.leader();
            let order = sim.shuffled();
            let hub = *order.iter().find(|node| Some(**node) != leader).expect("another one");
            let spokes: Vec<_> = order.iter().map(|spoke| (hub, *spoke)).collect();
            sim.keep_only(&spokes);
        });
    }
}

/// The barest of hubs: one server reaches just a quorum, the rest is alone.
#[test]
fn a_hub_of_a_bare_quorum() {
    for nodes in [THREE, FIVE, SEVEN] {
        every_seed("bare hub", nodes, |sim| {
            let order = sim.shuffled();
            let spokes: Vec<_> =
                order[1..=order.len() / 2].iter().map(|spoke| (order[0], *spoke)).collect();
            sim.keep_only(&spokes);
        });
    }
}

/// Each server reaches only its neighbours in a row.
#[test]
fn a_chain() {
    for nodes in [THREE, FIVE] {
        every_seed("chain", nodes, |sim| {
            let order = sim.shuffled();
            let links: Vec<_> = order.windows(2).map(|pair| (pair[0], pair[1])).collect();
            sim.keep_only(&links);
        });
    }
}

/// Each server reaches only its neighbours in a circle.
#[test]
fn a_ring() {
    every_seed("ring", FIVE, |sim| {
        let order = sim.shuffled();
        let mut links: Vec<_> = order.windows(2).map(|pair| (pair[0], pair[1])).collect();
        links.push((order[4], order[0]));
        sim.keep_only(&links);
    });
}

/// Two halves that do not reach each other, and one server that reaches both.
#[test]
fn a_bridge() {
    for nodes in [THREE, FIVE, SEVEN] {
        every_seed("bridge", nodes, |sim| {
            let order = sim.shuffled();
            let half = order.len() / 2;
            for one in &order[1..=half] {
                for other in &order[half + 1..] {
                    sim.cut_both(*one, *other);
                }
            }
        });
    }
}

/// The leader's messages arrive, and nothing arrives at the leader.
#[test]
fn a_leader_that_sends_but_does_not_hear() {
    for nodes in [THREE, FIVE, SEVEN] {
        every_seed("deaf leader", nodes, |sim| {
            let deaf = sim.leader().unwrap_or(A);
            for other in sim.nodes().into_iter().filter(|other| *other != deaf) {
                sim.cut(other, deaf);
            }
        });
    }
}

/// Everything arrives at the leader, and nothing of what it says anywhere.
#[test]
fn a_leader_that_hears_but_does_not_send() {
    for nodes in [THREE, FIVE, SEVEN] {
        every_seed("mute leader", nodes, |sim| {
            let mute = sim.leader().unwrap_or(A);
            for other in sim.nodes().into_iter().filter(|other| *other != mute) {
                sim.cut(mute, other);
            }
        });
    }
}

/// The leader still reaches one follower, which therefore does not miss it; all the others reach
/// each other.
#[test]
fn a_leader_that_reaches_one_follower() {
    for nodes in [THREE, FIVE, SEVEN] {
        every_seed("leader and one", nodes, |sim| {
            let leader = sim.leader().unwrap_or(A);
            let order: Vec<_> = sim.shuffled().into_iter().filter(|one| *one != leader).collect();
            for other in &order[1..] {
                sim.cut_both(leader, *other);
            }
        });
    }
}

/// The leader is alone.
#[test]
fn a_leader_that_is_cut_off() {
    for nodes in [THREE, FIVE, SEVEN] {
        every_seed("lost leader", nodes, |sim| {
            let leader = sim.leader().unwrap_or(A);
            for other in sim.nodes().into_iter().filter(|other| *other != leader) {
                sim.cut_both(leader, other);
            }
        });
    }
}

/// A follower that hears nothing but is heard, or the reverse, unseats no leader.
#[test]
fn a_follower_that_is_deaf_or_mute() {
    for nodes in [THREE, FIVE] {
        for deaf in [true, false] {
            every_seed("deaf or mute follower", nodes, |sim| {
                let leader = sim.leader();
                let order = sim.shuffled();
                let one = *order.iter().find(|node| Some(**node) != leader).expect("another one");
                for other in order.into_iter().filter(|other| *other != one) {
                    if deaf { sim.cut(other, one) } else { sim.cut(one, other) }
                }
            });
        }
    }
}

/// Any links at all are cut, in any direction, as long as some server reaches a quorum.
#[test]
fn any_cut_that_leaves_a_server_with_a_quorum() {
    for (nodes, density) in [(THREE, 2), (FIVE, 3), (SEVEN, 4)] {
        every_seed("any cut", nodes, |sim| {
            let order = sim.shuffled();
            for one in &order {
                for other in &order {
                    if one != other && sim.rng.u8(0..10) < density {
                        sim.cut(*one, *other);
                    }
                }
            }
            // One server keeps a bare quorum.
            for other in &order[1..=order.len() / 2] {
                sim.cuts.remove(&(order[0], *other));
                sim.cuts.remove(&(*other, order[0]));
            }
        });
    }
}

/// Links that come and go: a follower that is there and gone, at any rhythm, unseats no leader, and
/// the leader of a calm cluster stays the leader throughout.
#[test]
fn a_flapping_follower_unseats_nobody() {
    for nodes in [THREE, FIVE] {
        for seed in 0..seeds() {
            let mut sim = Sim::new(nodes, seed);
            sim.run(2 * TIMEOUT);
            let leader = sim.leader().expect("a calm cluster has a leader");
            let term = sim.servers[&leader].term();
            let order = sim.shuffled();
            let flapping = *order.iter().find(|node| **node != leader).expect("another one");
            for _ in 0..20 {
                let one_way = sim.rng.u8(0..3);
                for other in order.iter().filter(|other| **other != flapping) {
                    if one_way != 1 {
                        sim.cut(flapping, *other);
                    }
                    if one_way != 2 {
                        sim.cut(*other, flapping);
                    }
                }
                let gone = sim.rng.u64(1..2 * TIMEOUT);
                sim.run(gone);
                sim.cuts.clear();
                let back = sim.rng.u64(1..TIMEOUT);
                sim.run(back);
                assert_eq!(sim.leader(), Some(leader), "seed {seed}");
                assert_eq!(sim.servers[&leader].term(), term, "seed {seed}");
            }
        }
    }
}

/// Whoever leads flaps: there are never four election timeouts without something being committed.
#[test]
fn a_flapping_leader_holds_up_the_cluster_for_a_bounded_time() {
    for nodes in [THREE, FIVE] {
        let mut worst = 0;
        for seed in 0..seeds() {
            let mut sim = Sim::new(nodes, seed);
            sim.run(2 * TIMEOUT);
            let flapping = sim.leader().expect("a calm cluster has a leader");
            let (mut committed, mut since) = (sim.audit.committed(), sim.tick);
            for _ in 0..20 {
                for other in sim.nodes().into_iter().filter(|other| *other != flapping) {
                    sim.cut_both(flapping, other);
                }
                for _ in 0..sim.rng.u64(1..2 * TIMEOUT) {
                    sim.tick();
                    if sim.audit.committed() > committed {
                        worst = worst.max(sim.tick - since);
                        (committed, since) = (sim.audit.committed(), sim.tick);
                    }
                    assert!(sim.tick - since <= LIMIT, "seed {seed}: {}", sim.picture());
                }
                sim.cuts.clear();
                for _ in 0..sim.rng.u64(1..TIMEOUT) {
                    sim.tick();
                    if sim.audit.committed() > committed {
                        worst = worst.max(sim.tick - since);
                        (committed, since) = (sim.audit.committed(), sim.tick);
                    }
                }
            }
        }
        println!("flapping leader of {}: at most {worst} ticks without a commit", nodes.len());
    }
}

/// Once the links that came and went stand still again, whichever they are, the bound holds from
/// then on.
#[test]
fn after_flapping_a_leader_stands_in_time() {
    for nodes in [THREE, FIVE] {
        every_seed("after flapping", nodes, |sim| {
            for _ in 0..10 {
                sim.chaos();
            }
        });
    }
}

/// Where Raft cannot elect: the only server that reaches a quorum lacks entries that the others
/// have, and those cannot reach a quorum. No leader stands, nothing is lost, and once one more link
/// is there it is over.
#[test]
fn a_hub_that_lacks_entries_cannot_be_elected_until_it_gets_them() {
    let full = LogId::new(2, 40);
    let terms: Vec<u64> = std::iter::once(1).chain(std::iter::repeat_n(2, 39)).collect();
    for seed in 0..20 {
        let mut sim = Sim::new(FIVE, seed);
        for node in FIVE {
            let disk = Disk::founded(*node, FIVE);
            let disk = if *node == A { disk.in_term(2, None) } else { disk.with_terms(&terms) };
            let config = Config { seed: seed * 100 + node.0, ..Config::new(*node) };
            sim.servers.insert(*node, Server::start(config, disk));
        }
        sim.keep_only(&[(A, B), (A, C), (A, D), (A, E)]);
        assert!(!sim.can_be_led());
        for _ in 0..2 * LIMIT {
            sim.tick();
            assert!(sim.leaders().is_empty());
        }
        // Three spokes that reach each other: one of them can lead, and brings the hub up to date.
        for (one, other) in [(B, C), (B, D)] {
            sim.cuts.remove(&(one, other));
            sim.cuts.remove(&(other, one));
        }
        assert!(sim.can_be_led());
        assert!(sim.settles("once a spoke reaches two more").is_some());
        assert!(sim.servers[&A].raft().term_at(full.index) == Some(full.term));
    }
}
