//! Embed the pure machine: three `Raft`s in a plain loop, with no runtime, no threads and no network.
//!
//! `cargo run -p graft-core --no-default-features --example embed_raft`
//!
//! A `Raft` only says what must happen. This loop carries it out: a disk is a `Vec`, the network a
//! queue, the clock a number. Halfway the leader is switched off, and the other two go on.

#![allow(clippy::print_stdout)]

use std::{collections::VecDeque, time::Duration};

use graft_core::{
    Birth, ClusterId, Entry, EntryKind, EntryRef, Epoch, HardState, Identity, Incarnation, Index,
    LogId, Membership, NodeId, NodeInfo, PeerEnvelope, Recovered, Token, Write,
    raft::{Config, Effects, Input, Proposal, Raft},
};

const NAMES: [&str; 3] = ["server1", "server2", "server3"];

/// One server: the machine, what its disk holds, and the sum its state machine keeps.
struct Server {
    raft: Raft,
    hard_state: HardState,
    log: Vec<Entry>,
    sum: u64,
    running: bool,
}

impl Server {
    /// A newborn server whose disk holds the founding membership.
    fn found(name: &str, membership: &Membership) -> Self {
        let node = NodeId::of_name(name);
        let cluster = ClusterId::of("sum", &NAMES);
        let identity = Identity {
            cluster,
            epoch: Epoch(0),
            node,
            name: name.into(),
            incarnation: Incarnation(1),
            birth: Birth::Founder,
            machine: "sum".into(),
            format: 0,
        };
        let (mut hard_state, mut log) = (HardState::default(), Vec::new());
        store(&mut hard_state, &mut log, membership.founding_writes());
        let durable = Recovered {
            hard_state,
            last: LogId::new(1, 1),
            terms: vec![(Index(1), hard_state.term)],
            memberships: vec![(LogId::new(1, 1), membership.clone())],
            ..Recovered::newborn(identity)
        };
        let config = Config { cluster, ..Config::new(node) };
        Self { raft: Raft::recover(config, durable), hard_state, log, sum: 0, running: true }
    }

    /// Carries out everything the machine wants now; messages go into `network`.
    fn turn(&mut self, effects: &mut Effects, network: &mut VecDeque<PeerEnvelope>) {
        loop {
            self.raft.drain(effects);
            if effects.is_empty() {
                return;
            }
            network.extend(effects.messages.drain(..));
            if let Some(batch) = effects.write.take() {
                store(&mut self.hard_state, &mut self.log, batch.writes);
                self.raft.step(Input::Persisted(batch.id));
            }
            for load in std::mem::take(&mut effects.loads) {
                let wanted =
                    self.log.iter().filter(|entry| load.range.contains(&entry.log_id.index));
                let entries = wanted.cloned().collect();
                self.raft.step(Input::Loaded { id: load.id, entries });
            }
            if let Some(apply) = effects.apply.take() {
                for entry in apply.entries.iter().filter(|entry| entry.kind == EntryKind::Plain) {
                    self.sum += u64::from(entry.payload[0]);
                }
                if let Some(last) = apply.entries.last_log_id() {
                    self.raft.step(Input::Applied { index: last.index, checkpoints: Vec::new() });
                }
            }
            effects.answers.clear();
            assert!(effects.fatal.is_none(), "{:?}", effects.fatal);
        }
    }
}

/// What a disk does with an order: an append replaces whatever is at and above its first index.
fn store(hard_state: &mut HardState, log: &mut Vec<Entry>, writes: Vec<Write>) {
    for write in writes {
        match write {
            Write::HardState(new) => *hard_state = new,
            Write::Append(entries) => {
                let first = entries.first_index();
                log.retain(|entry| first.is_none_or(|first| entry.log_id.index < first));
                log.extend(entries.iter().map(EntryRef::to_entry));
            }
            other => unreachable!("this loop takes no snapshots: {other:?}"),
        }
    }
}

fn main() {
    let nodes = NAMES.map(|name| {
        let info =
            NodeInfo { name: name.into(), incarnation: Incarnation(1), ..NodeInfo::default() };
        (NodeId::of_name(name), info)
    });
    let membership = Membership::of_voters(nodes);
    let mut servers = NAMES.map(|name| Server::found(name, &membership));
    let (mut effects, mut network) = (Effects::default(), VecDeque::new());

    let mut proposed = 0_u64;
    for millis in (0..10_000).step_by(10) {
        let now = Duration::from_millis(millis);
        for server in servers.iter_mut().filter(|server| server.running) {
            server.raft.step(Input::Time { now, unix_millis: 0 });
            if server.raft.is_leader() && proposed < 100 {
                proposed += 1;
                let token = Token { request_id: proposed, ..Token::default() };
                let proposal = Proposal { token, kind: EntryKind::Plain, payload: vec![1].into() };
                server.raft.step(Input::Propose(vec![proposal]));
            }
            server.turn(&mut effects, &mut network);
        }
        while let Some(envelope) = network.pop_front() {
            let to = servers.iter_mut().find(|server| server.raft.status().node == envelope.to);
            if let Some(server) = to.filter(|server| server.running) {
                server.raft.step(Input::Message(envelope));
                server.turn(&mut effects, &mut network);
            }
        }
        if proposed == 50 && servers.iter().all(|server| server.running) {
            let leader = servers.iter_mut().find(|server| server.raft.is_leader());
            if let Some(leader) = leader.filter(|leader| leader.sum == 50) {
                println!(
                    "after {millis} ms the leader of term {} is switched off",
                    leader.raft.term()
                );
                leader.running = false;
            }
        }
    }

    for (name, server) in NAMES.iter().zip(&servers) {
        let (status, state) = (server.raft.status(), if server.running { "up" } else { "down" });
        println!(
            "{name} ({state}): {:?} of term {}, {} entries, sum {}",
            status.role, status.term, status.last.index, server.sum
        );
        assert!(!server.running || server.sum == 100, "every command is applied once");
    }
}
