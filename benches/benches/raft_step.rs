//! The pure machine alone: three `Raft`s, disks that are ready at once, a network that is a queue.
//!
//! One iteration proposes a batch and turns the servers until nobody wants anything more, so the time is
//! that of consensus without any task, lock or copy around it.

use std::{collections::VecDeque, hint::black_box};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use graft_benches::samples;
use graft_core::{
    EntryKind, Incarnation, Index, LogId, Membership, NodeId, NodeInfo, PeerEnvelope, Recovered,
    Term, Token,
    raft::{Config, Effects, Input, Proposal, Raft},
};

const NAMES: [&str; 3] = ["server1", "server2", "server3"];

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("raft_step");
    for batch in [1, 64, 1024] {
        group.throughput(Throughput::Elements(batch));
        group.bench_with_input(BenchmarkId::from_parameter(batch), &batch, |bencher, batch| {
            let mut trio = Trio::elected();
            bencher.iter(|| trio.commit(*batch));
        });
    }
    group.finish();
}

/// Three servers, of which the first leads.
struct Trio {
    rafts: Vec<Raft>,
    network: VecDeque<PeerEnvelope>,
    effects: Effects,
    /// How far each has applied.
    applied: [Index; 3],
}

impl Trio {
    fn elected() -> Self {
        let membership = Membership::of_voters(NAMES.map(|name| {
            let (name, incarnation) = (name.to_owned(), Incarnation(1));
            (NodeId::of_name(&name), NodeInfo { name, incarnation, ..NodeInfo::default() })
        }));
        let rafts = NAMES.iter().map(|name| recover(name, &membership)).collect();
        let mut trio = Self {
            rafts,
            network: VecDeque::new(),
            effects: Effects::default(),
            applied: [Index(0); 3],
        };
        trio.rafts[0].step(Input::Campaign);
        trio.settle();
        assert!(trio.rafts[0].is_leader(), "nobody stands against the first server");
        trio
    }

    /// Proposes a batch and turns the servers until the leader has applied it.
    fn commit(&mut self, batch: u64) {
        let proposal = |request_id| Proposal {
            token: Token { request_id, ..Token::default() },
            kind: EntryKind::Plain,
            payload: Bytes::from_static(&[0; 16]),
        };
        let before = self.applied[0];
        self.rafts[0].step(Input::Propose((0..batch).map(proposal).collect()));
        self.settle();
        // The followers apply with the next batch, which brings them word of the commit.
        assert_eq!(self.applied[0], Index(before.0 + batch), "nothing holds a commit back");
    }

    /// Carries out what anyone wants until nobody wants anything.
    fn settle(&mut self) {
        for server in 0..self.rafts.len() {
            self.turn(server);
        }
        while let Some(envelope) = self.network.pop_front() {
            let to = NAMES.iter().position(|name| NodeId::of_name(name) == envelope.to);
            if let Some(server) = to {
                self.rafts[server].step(Input::Message(envelope));
                self.turn(server);
            }
        }
    }

    fn turn(&mut self, server: usize) {
        let (raft, effects) = (&mut self.rafts[server], &mut self.effects);
        loop {
            raft.drain(effects);
            assert!(effects.fatal.is_none() && effects.answers.is_empty(), "{effects:?}");
            if effects.is_empty() {
                return;
            }
            self.network.extend(effects.messages.drain(..));
            if let Some(batch) = effects.write.take() {
                raft.step(Input::Persisted(batch.id));
            }
            for load in effects.loads.drain(..) {
                // Only the founding membership was never in memory.
                assert_eq!(load.range.start, Index(1), "the tail in memory is long enough");
                let founding = raft.membership().encode();
                let entries = samples::entry(1, EntryKind::Membership, founding);
                raft.step(Input::Loaded { id: load.id, entries: vec![entries].into() });
            }
            if let Some(apply) = effects.apply.take()
                && let Some(last) = black_box(apply).entries.last_log_id()
            {
                self.applied[server] = last.index;
                raft.step(Input::Applied { index: last.index, checkpoints: Vec::new() });
            }
        }
    }
}

/// A server whose store holds the founding membership and nothing else.
fn recover(name: &str, membership: &Membership) -> Raft {
    let mut durable = Recovered::newborn(samples::identity(name));
    durable.last = LogId::new(1, 1);
    durable.hard_state.term = Term(1);
    durable.terms = vec![(Index(1), Term(1))];
    durable.memberships = vec![(durable.last, membership.clone())];
    let node = NodeId::of_name(name);
    Raft::recover(Config { cluster: samples::CLUSTER, ..Config::new(node) }, durable)
}
