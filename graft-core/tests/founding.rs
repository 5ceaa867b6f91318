//! What a server with a log says to one that is newly born: rule 4 of `graft_core::founding`.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

use std::collections::BTreeMap;

use graft_core::{
    Birth, BirthReport, BirthStage, ClusterId, Epoch, GroupId, Identity, Incarnation, Index, LogId,
    Membership, Message, NodeId, NodeInfo, PeerEnvelope, Recovered, Term,
    raft::{Config, Effects, Input, Raft},
};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);

fn info(name: &str, birth: u64) -> NodeInfo {
    NodeInfo { name: name.into(), incarnation: Incarnation(birth), ..NodeInfo::default() }
}

fn founders() -> Membership {
    Membership::of_voters([(A, info("a", 1)), (B, info("b", 2)), (NodeId(3), info("c", 3))])
}

/// The server `a` with these memberships in its log, the first of them at index 1, and `committed` of it.
fn server(memberships: Vec<Membership>, committed: u64) -> Raft {
    let identity = Identity {
        cluster: ClusterId(1),
        epoch: Epoch(0),
        node: A,
        name: "a".into(),
        incarnation: Incarnation(1),
        birth: Birth::Founder,
        machine: "none".into(),
        format: 0,
    };
    let mut durable = Recovered::newborn(identity);
    durable.memberships = (1..).map(|index| LogId::new(1, index)).zip(memberships).collect();
    durable.last = durable.memberships.last().map_or(LogId::ZERO, |(log_id, _)| *log_id);
    if durable.last != LogId::ZERO {
        durable.terms = vec![(Index(1), Term(1))];
        durable.hard_state.term = Term(1);
        durable.hard_state.commit = Index(committed);
    }
    Raft::recover(Config { cluster: ClusterId(1), ..Config::new(A) }, durable)
}

fn report(life: u64, stage: BirthStage) -> Message {
    Message::Birth(Box::new(BirthReport { life, echo: 0, stage }))
}

fn newborn() -> BirthStage {
    let founders =
        BTreeMap::from([(A, info("a", 0)), (B, info("b", 2)), (NodeId(3), info("c", 0))]);
    BirthStage::Newborn { founders }
}

fn answers(raft: &mut Raft, from: NodeId, birth: u64, message: Message) -> Vec<PeerEnvelope> {
    raft.step(Input::Message(PeerEnvelope {
        group: GroupId(0),
        from,
        to: A,
        from_incarnation: Incarnation(birth),
        to_incarnation: Incarnation(0),
        message,
    }));
    let mut effects = Effects::default();
    raft.drain(&mut effects);
    assert!(effects.write.is_none(), "it changes nothing that is kept");
    effects.messages
}

/// What is said to `b`, born `birth` and in life 20.
fn said_to_b(raft: &mut Raft, birth: u64) -> BirthStage {
    let mut answers = answers(raft, B, birth, report(20, newborn()));
    assert_eq!(answers.len(), 1, "{answers:?}");
    let PeerEnvelope { from, to, from_incarnation, to_incarnation, message, .. } =
        answers.remove(0);
    assert_eq!((from, to, from_incarnation), (A, B, Incarnation(1)));
    assert_eq!(to_incarnation, Incarnation(birth));
    let Message::Birth(report) = message else { panic!("{message:?}") };
    assert_eq!((report.life, report.echo), (0, 20));
    report.stage
}

#[test]
fn a_founder_that_comes_late_is_shown_the_log_and_told_of_the_founding_once_it_is_committed() {
    let mut raft = server(vec![founders()], 0);
    let shown = BirthStage::Newborn { founders: founders().nodes };
    assert_eq!(said_to_b(&mut raft, 2), shown);
    let mut raft = server(vec![founders()], 1);
    assert_eq!(said_to_b(&mut raft, 2), BirthStage::Founded { membership: founders() });
    assert_eq!(raft.foreign_birth(), None);
    assert_eq!((raft.term(), raft.leader()), (Term(1), None));
}

#[test]
fn another_birth_is_refused_and_counted_committed_or_not() {
    for committed in [0, 1] {
        let mut raft = server(vec![founders()], committed);
        assert_eq!(said_to_b(&mut raft, 9), BirthStage::AlreadyFounded);
        let birth = raft.foreign_birth().unwrap();
        let (came, known) = (Incarnation(9), Incarnation(2));
        assert_eq!((birth.node, birth.came, birth.known), (B, came, known));
        assert_eq!(raft.status().counters.foreign_births, 1);
        assert_eq!(raft.status().counters.stale_incarnation, 0);
    }
}

#[test]
fn a_server_that_the_founding_does_not_name_is_refused() {
    let mut raft = server(vec![founders()], 1);
    let stranger = NodeId(9);
    let founders = BTreeMap::from([(stranger, info("z", 9))]);
    let asked = report(20, BirthStage::Newborn { founders });
    let answers = answers(&mut raft, stranger, 9, asked);
    let Message::Birth(report) = &answers[0].message else { panic!("{answers:?}") };
    assert_eq!(report.stage, BirthStage::AlreadyFounded);
}

#[test]
fn a_founder_whose_place_another_birth_has_taken_is_refused() {
    let mut later = founders();
    later.nodes.insert(B, info("b", 7));
    let mut raft = server(vec![founders(), later], 2);
    assert_eq!(said_to_b(&mut raft, 2), BirthStage::AlreadyFounded);
    assert_eq!(said_to_b(&mut raft, 7), BirthStage::AlreadyFounded, "it never was a founder");
}

#[test]
fn nobody_answers_an_answer_and_who_knows_nothing_says_nothing() {
    let mut raft = server(vec![founders()], 1);
    for message in [
        report(0, newborn()),
        report(20, BirthStage::AlreadyFounded),
        report(20, BirthStage::Founded { membership: founders() }),
    ] {
        assert_eq!(answers(&mut raft, B, 9, message), []);
    }
    assert_eq!(answers(&mut raft, B, 0, report(20, newborn())), [], "it has no birth");
    let mut empty = server(Vec::new(), 0);
    assert_eq!(answers(&mut empty, B, 2, report(20, newborn())), []);
}
