#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is test code")]

use bytes::Bytes;
use graft::{RequestError, Status, StopReason};
use graft_core::{
    AppendEntries, Birth, ClusterId, Entries, Entry, EntryKind, Epoch, GroupId, HardState,
    Heartbeat, Identity, Incarnation, Index, LogId, LogTime, Message, NodeInfo, VoteRequest,
    VoteResponse,
    raft::{Config, Effects, Input, RoleName, Vitals},
};

use super::*;
use crate::{Executor, Options, Registers, Rng, Workload, simulate, world::World};

/// What is wrong, and what it comes to.
type Case = (Checker, &'static str, fn() -> Option<Violation>);

/// Every checker that no known bug shows to fire, with something that it must not let pass: the last event behind a
/// history in which all is well, told as the simulator tells it. Where production code has no way to do what is wrong,
/// what the oracle remembers of it is changed instead.
const CASES: &[Case] = &[
    (Checker::VoteOnce, "voted for s1 and for s2 in term 9", || {
        after_an_election(|bench| {
            bench.becomes_durable(0, 9, Some(1));
            bench.becomes_durable(0, 9, Some(2));
        })
    }),
    (Checker::VoteOnce, "s0 changes its vote in term 2", || {
        after_an_election(|bench| {
            bench.was(|vitals| vitals.hard_state.voted_for = Some(node(1)));
            bench.turn();
        })
    }),
    (Checker::TermMonotonic, "the disk of s0 goes from term 9 back to 8", || {
        after_an_election(|bench| {
            bench.becomes_durable(0, 9, None);
            bench.becomes_durable(0, 8, None);
        })
    }),
    (Checker::TermMonotonic, "s0 goes from term 9 to 2", || {
        after_an_election(|bench| {
            bench.was(|vitals| vitals.hard_state.term = Term(9));
            bench.turn();
        })
    }),
    (Checker::CommitMonotonic, "the commit index of s0 falls from 9 to 2", || {
        after_an_election(|bench| {
            bench.was(|vitals| vitals.commit_index = Index(9));
            bench.turn();
        })
    }),
    (Checker::CommitMonotonic, "s0 drops what it knows to be committed, from 3 on", || {
        after_an_election(|bench| {
            bench.had_one_more_entry();
            bench.was(|vitals| (vitals.role, vitals.commit_index) = (RoleName::Follower, Index(3)));
            bench.turn();
        })
    }),
    (Checker::CommitMonotonic, "s1 holds 2@1 to be committed, others another entry", || {
        after_an_election(|bench| {
            // It comes back with another second entry, and calls that committed.
            let raft = bench.recovers(1, &[1, 1], 2);
            bench.oracle.on_turn(1, &raft);
        })
    }),
    (Checker::LeaderAppendOnly, "s0 leads and drops 3 of 3", || {
        after_an_election(|bench| {
            bench.had_one_more_entry();
            bench.turn();
        })
    }),
    (Checker::VoteDurable, "s0 tells s1 of a vote in term 2", || {
        after_an_election(|bench| {
            let response = VoteResponse { term: Term(2), granted: true };
            bench.says(0, 1, Message::RequestVoteResponse(response));
        })
    }),
    (Checker::VoteDurable, "s1 asks for votes in term 9 before its own is on disk", || {
        after_an_election(|bench| {
            bench.becomes_durable(1, 9, Some(2));
            let request = VoteRequest { term: Term(9), last: LogId::ZERO, transfer: false };
            bench.says(1, 2, Message::RequestVote(request));
        })
    }),
    (Checker::AppliedIsCommitted, "s0 applies 2.3, committed is term None", || {
        after_an_election(|bench| bench.applies(&[(3, 2, 0)]))
    }),
    (Checker::AppliedIsCommitted, "s0 applies 1.2, committed is term Some", || {
        after_an_election(|bench| bench.applies(&[(2, 1, 0)]))
    }),
    (Checker::ElectedByQuorum, "s0 leads term 2 without a quorum", || {
        after_an_election(|bench| {
            bench.oracle.lock().logs.votes.clear();
            bench.was(|vitals| vitals.role = RoleName::Candidate);
            bench.turn();
        })
    }),
    (Checker::QuorumsIntersect, "3@2 leaves no server in common with", || {
        after_an_election(|bench| bench.learns_membership(&[1, 2]))
    }),
    (Checker::MembershipIsLatest, "s0 goes by Membership", || {
        after_an_election(|bench| {
            bench.learns_membership(&[0, 1]);
            {
                let view = &mut bench.oracle.lock().views[0];
                view.memberships.push(LogId { term: Term(2), index: Index(3) });
                view.in_force = None;
            }
            bench.was(|vitals| vitals.stalled = true);
            bench.turn();
        })
    }),
    (Checker::Linearizable, "request 0 took effect as number 0, before Some(4)", || {
        after_an_election(|bench| {
            bench.oracle.lock().requests.told = Some(4);
            bench.applies(&[(2, 2, 0)]);
            bench.oracle.end_request(0, &End::Answered { index: 2, response: RESPONSE });
        })
    }),
    (
        Checker::AppliedIsTrue,
        "request 0 was not applied and ended as: the machine panicked",
        || {
            after_an_election(|bench| {
                let operation = bench.oracle.begin_request();
                let error = RequestError::MachinePanicked { message: "five".into() };
                bench.oracle.end_request(operation, &End::Failed(error));
            })
        },
    ),
    (Checker::WallClockMonotonic, "machines are shown 999 after 1000", || {
        after_an_election(|bench| bench.applies(&[(1, 1, 1000), (2, 2, 999)]))
    }),
    (Checker::AppendFromLog, "s1 sends appends in term 2 and does not lead it", || {
        after_an_election(|bench| {
            bench.becomes_durable(1, 2, None);
            bench.says(1, 2, append((0, 0), &[], 0));
        })
    }),
    (Checker::AppendFromLog, "s0 sends entries behind 2@1, which it does not hold", || {
        after_an_election(|bench| bench.says(0, 1, append((1, 2), &[], 0)))
    }),
    (Checker::AppendFromLog, "s0 sends entries up to 3@2 that are not in its log", || {
        after_an_election(|bench| bench.says(0, 1, append((2, 2), &[(2, 3)], 0)))
    }),
    (Checker::AppendFromLog, "s0 sends entries up to 2@2 that are not in its log", || {
        after_an_election(|bench| bench.says(0, 1, append((0, 0), &[(2, 2)], 0)))
    }),
    (Checker::AppendFromLog, "s0 calls 3 committed, it knows of 2", || {
        after_an_election(|bench| bench.says(0, 1, append((1, 1), &[], 3)))
    }),
    (Checker::AppendFromLog, "s1 sends heartbeats in term 2 and does not lead it", || {
        after_an_election(|bench| {
            bench.becomes_durable(1, 2, None);
            bench.says(1, 2, Message::Heartbeat(Heartbeat::new(Term(2), 1)));
        })
    }),
    (Checker::AppendFromLog, "s0 calls 3 committed, it knows of 2", || {
        after_an_election(|bench| {
            let heartbeat = Heartbeat { commit: Index(3), ..Heartbeat::new(Term(2), 1) };
            bench.says(0, 1, Message::Heartbeat(heartbeat));
        })
    }),
    (Checker::NeverUnsafe, "s1 stops: two leaders", || {
        in_an_idle_world(|world, _| {
            world.on_status(1, 0, &stopped(StopReason::Unsafe { reason: "two leaders".into() }));
        })
    }),
    (Checker::NothingUnexplained, "s1 stops: the disk is full", || {
        in_an_idle_world(|world, _| {
            world.on_status(
                1,
                0,
                &stopped(StopReason::Store { reason: "the disk is full".into() }),
            );
        })
    }),
    (Checker::DeadlineKept, "request 7 ended after 1.5s, its deadline was 1s", || {
        in_an_idle_world(|world, _| {
            let second = Duration::from_secs(1);
            world.check_deadline(7, second, second);
            assert_eq!(world.oracle.violation(), None, "it is in time");
            world.check_deadline(7, second * 3 / 2, second);
        })
    }),
    (Checker::ReplicasConverge, "after everything healed: s0 is ", || {
        in_an_idle_world(World::await_convergence)
    }),
    (Checker::ResponseFits, "the client does not believe it", || {
        let options = Options::default().length(Duration::from_secs(10));
        simulate(0, &options, |rng: &mut Rng| Doubting(Registers::new(rng))).violation
    }),
];

#[test]
fn each_checker_that_no_known_bug_shows_fires_over_what_it_must_not_let_pass() {
    for (checker, words, case) in CASES {
        let violation = case().unwrap_or_else(|| panic!("{checker:?} lets pass: {words}"));
        assert_eq!(violation.checker, *checker, "{words}: {violation}");
        assert!(violation.what.contains(words), "{words}: {violation}");
    }
}

#[test]
fn a_history_in_which_all_is_well_is_no_violation() {
    let violation = after_an_election(|bench| {
        bench.turn();
        bench.applies(&[(1, 1, 7), (2, 2, 7)]);
        bench.oracle.end_request(1, &End::Answered { index: 2, response: RESPONSE });
        bench.says(0, 1, append((1, 1), &[(2, 2)], 2));
        bench.becomes_durable(0, 3, Some(1));
        bench.becomes_durable(0, 3, Some(1));
    });
    assert_eq!(violation, None);
}

#[test]
fn every_checker_is_shown_to_fire_by_a_known_bug_or_by_a_case() {
    let page = include_str!("../../mutants.md");
    let shown = |checker: &Checker| {
        page.contains(&format!("(Checker::{checker:?})"))
            || CASES.iter().any(|(shown, ..)| shown == checker)
    };
    let never: Vec<&Checker> = Checker::ALL.iter().filter(|checker| !shown(checker)).collect();
    assert!(never.is_empty(), "nothing shows that these fire: {never:?}");
}

const RESPONSE: u64 = 5;

fn node(server: usize) -> NodeId {
    NodeId::of_name(&format!("server{server}"))
}

fn members(servers: &[usize]) -> Membership {
    Membership::of_voters(servers.iter().map(|server| (node(*server), NodeInfo::default())))
}

fn entry(term: u64, index: u64, kind: EntryKind, payload: Bytes) -> Entry {
    let log_id = LogId { term: Term(term), index: Index(index) };
    // No entry comes before it.
    Entry { log_id, time: LogTime(u64::MAX), kind, payload }
}

fn append(prev: (u64, u64), entries: &[(u64, u64)], commit: u64) -> Message {
    let blank = |(term, index): &(u64, u64)| entry(*term, *index, EntryKind::Blank, Bytes::new());
    let entries: Vec<Entry> = entries.iter().map(blank).collect();
    Message::AppendEntries(AppendEntries {
        term: Term(2),
        prev: LogId { term: Term(prev.0), index: Index(prev.1) },
        commit: Index(commit),
        round: 1,
        entries: Entries::from(entries),
    })
}

/// An oracle of three servers, of which the first is the only voter and leads term 2. Its log is 1@1, the founding,
/// and 2@2, which opens the term; both are committed.
struct Bench {
    oracle: Oracle,
    raft: Raft,
    _executor: Executor,
}

/// What the oracle says after `event`, behind a history in which all is well.
fn after_an_election(event: fn(&mut Bench)) -> Option<Violation> {
    let mut bench = Bench::new();
    assert_eq!(bench.oracle.violation(), None, "the history is not well");
    event(&mut bench);
    bench.oracle.violation()
}

impl Bench {
    fn new() -> Self {
        let executor = Executor::new(1);
        let nodes = (0..3).map(node).collect();
        let kernel = executor.kernel();
        let oracle = Oracle::new(kernel, nodes, Bounds::default(), Journal::new(false));
        let raft = recover(&oracle, 0, &[1], 0);
        let mut bench = Self { oracle, raft, _executor: executor };
        bench.turn();
        bench.raft.step(Input::Campaign);
        let mut effects = Effects::default();
        loop {
            bench.raft.drain(&mut effects);
            bench.turn();
            if let Some(batch) = effects.write.take() {
                bench.oracle.on_durable(0, &batch.writes);
                bench.raft.step(Input::Persisted(batch.id));
            } else if let Some(apply) = effects.apply.take() {
                let index = apply.entries.last_log_id().unwrap().index;
                bench.raft.step(Input::Applied { index, checkpoints: Vec::new() });
            } else {
                break;
            }
        }
        let vitals = bench.raft.vitals();
        let seen = (vitals.role, vitals.hard_state.term, vitals.commit_index);
        assert_eq!(seen, (RoleName::Leader, Term(2), Index(2)));
        bench
    }

    fn turn(&self) {
        self.oracle.on_turn(0, &self.raft);
    }

    /// The leader was something else after its last turn than it is now.
    fn was(&self, change: fn(&mut Vitals)) {
        change(self.oracle.lock().views[0].vitals.as_mut().unwrap());
    }

    /// The leader's log had a third entry after its last turn.
    fn had_one_more_entry(&self) {
        self.oracle.lock().views[0].log.push(Term(2));
        self.was(|vitals| vitals.last.index = Index(3));
    }

    fn becomes_durable(&self, server: usize, term: u64, voted_for: Option<usize>) {
        let voted_for = voted_for.map(node);
        let state = HardState { term: Term(term), voted_for, commit: Index(0) };
        self.oracle.on_durable(server, &[Write::HardState(state)]);
    }

    fn recovers(&self, server: usize, terms: &[u64], commit: u64) -> Raft {
        recover(&self.oracle, server, terms, commit)
    }

    fn says(&self, from: usize, to: usize, message: Message) {
        let envelope = PeerEnvelope {
            group: GroupId(0),
            from: node(from),
            to: node(to),
            from_incarnation: Incarnation(1),
            to_incarnation: Incarnation(1),
            message,
        };
        self.oracle.on_message(from, &envelope);
    }

    /// A new machine of the leader carries out a request for each of these: index, term and wall clock.
    fn applies(&self, places: &[(u64, u64, u64)]) {
        let life = self.oracle.on_new_machine(0);
        for (index, term, unix_millis) in places {
            let application = Application {
                index: *index,
                term: *term,
                operation: self.oracle.begin_request(),
                unix_millis: *unix_millis,
                response: Some(RESPONSE),
                state: 0,
            };
            self.oracle.on_applied(0, life, &application);
        }
    }

    /// A membership shows up as the third entry of the leader's log.
    fn learns_membership(&self, servers: &[usize]) {
        let entry = entry(2, 3, EntryKind::Membership, members(servers).encode());
        let mut judge = self.oracle.lock();
        let checked = judge.learn(0, Term(2), (&entry).into());
        judge.judge(checked);
    }
}

/// A server comes back with a log of these terms, of which the first is the founding, and a commit index.
fn recover(oracle: &Oracle, server: usize, terms: &[u64], commit: u64) -> Raft {
    let founding = members(&[0]);
    let mut writes = founding.founding_writes();
    for (index, term) in (1..).zip(terms).skip(1) {
        let plain = entry(*term, index, EntryKind::Plain, Bytes::new());
        writes.push(Write::Append(vec![plain].into()));
    }
    let hard_state = HardState { term: Term(1), voted_for: None, commit: Index(commit) };
    writes.push(Write::HardState(hard_state));
    oracle.on_durable(server, &writes);
    let name = format!("server{server}");
    let identity = Identity {
        cluster: ClusterId(0),
        epoch: Epoch(0),
        node: node(server),
        name,
        incarnation: Incarnation(1),
        birth: Birth::Founder,
        machine: "test".into(),
        format: 0,
    };
    let first = LogId { term: Term(1), index: Index(1) };
    let recovered = Recovered {
        hard_state,
        last: LogId { term: Term(1), index: Index(terms.len() as u64) },
        terms: vec![(first.index, first.term)],
        memberships: vec![(first, founding)],
        ..Recovered::newborn(identity)
    };
    oracle.on_recovered(server, &recovered);
    Raft::recover(Config::new(node(server)), recovered)
}

/// What the oracle of a world says after `event`, in which no server was started.
fn in_an_idle_world(event: fn(&Arc<World<Registers>>, &Executor)) -> Option<Violation> {
    let executor = Executor::new(1);
    let world = World::idle(&executor, Registers::new(&mut Rng::with_seed(1)));
    event(&world, &executor);
    world.oracle.violation()
}

fn stopped(reason: StopReason) -> Status {
    Status::Failed { reason, restarts: 0 }
}

/// A workload that takes every answer for a wrong one.
struct Doubting(Registers);

impl Workload for Doubting {
    type Machine = <Registers as Workload>::Machine;
    type Open = <Registers as Workload>::Open;

    fn machine(&self) -> Self::Machine {
        self.0.machine()
    }

    fn request(&mut self, rng: &mut Rng) -> (crate::workload::EntryOf<Self>, Self::Open) {
        self.0.request(rng)
    }

    fn response(
        &mut self,
        _: Self::Open,
        response: &crate::workload::ResponseOf<Self>,
    ) -> Result<(), String> {
        Err(format!("the client does not believe it: {response:?}"))
    }
}
