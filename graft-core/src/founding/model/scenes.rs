//! What chance finds seldom, played by hand: for each rule a story in which all goes well, and two
//! foundings stand beside each other where the rule is broken.

use std::collections::BTreeMap;

use super::super::{Founding, FoundingRefusal, Mutant, answer};
use crate::{
    BirthReport, BirthStage, GroupId, Incarnation, Membership, Message, NodeId, NodeInfo,
    PeerEnvelope,
};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);

fn info(node: NodeId, birth: u64) -> NodeInfo {
    let incarnation = Incarnation(birth);
    NodeInfo { name: node.to_string(), incarnation, ..NodeInfo::default() }
}

/// The membership of the first servers, each with this birth.
fn membership(births: &[u64]) -> Membership {
    let nodes = (1..).map(NodeId).zip(births);
    Membership::of_voters(nodes.map(|(node, birth)| (node, info(node, *birth))))
}

fn newborn(size: u64, node: NodeId, birth: u64, life: u64, mutant: Option<Mutant>) -> Founding {
    let founders: Vec<_> =
        (1..=size).map(|node| (NodeId(node), NodeId(node).to_string())).collect();
    let mut founding =
        Founding::new(GroupId(0), node, info(node, birth), &founders, life).expect("a good list");
    founding.set_mutant(mutant);
    founding
}

/// What one has to say to another now.
fn letter(from: &mut Founding, to: NodeId) -> PeerEnvelope {
    let mut said = Vec::new();
    from.drain(&mut said);
    said.clear();
    from.tick();
    from.drain(&mut said);
    said.into_iter().find(|envelope| envelope.to == to).expect("it speaks to all others")
}

/// Two servers note each other. The first has not heard yet that it was noted.
fn introduce(one: &mut Founding, two: &mut Founding) {
    two.step(&letter(one, two.node));
    one.step(&letter(two, one.node));
    two.step(&letter(one, two.node));
}

/// Two servers note each other, and both know it.
fn acquaint(one: &mut Founding, two: &mut Founding) {
    introduce(one, two);
    one.step(&letter(two, one.node));
}

/// What the node of a server with this log says to a newborn.
fn node_says(
    log: &Membership,
    from: NodeId,
    knows_commit: bool,
    asked: &PeerEnvelope,
) -> PeerEnvelope {
    let Message::Birth(report) = &asked.message else { panic!("{asked:?} is no question") };
    let birth = asked.from_incarnation;
    let report = answer(Some(log), log, knows_commit, asked.from, birth, report);
    envelope(from, asked.from, log.incarnation(from), report.expect("it has a log"))
}

fn envelope(from: NodeId, to: NodeId, birth: Incarnation, report: BirthReport) -> PeerEnvelope {
    PeerEnvelope {
        group: GroupId(0),
        from,
        to,
        from_incarnation: birth,
        to_incarnation: Incarnation(0),
        message: Message::Birth(Box::new(report)),
    }
}

/// A process of the name C shows a map with these births.
fn c_shows(births: &[u64; 3], to: &Founding) -> PeerEnvelope {
    let founders: BTreeMap<_, _> = membership(births).nodes;
    let report = BirthReport { life: 30, echo: to.life, stage: BirthStage::Newborn { founders } };
    envelope(C, to.node, Incarnation(births[2]), report)
}

fn founded(founding: &Founding) -> Option<Membership> {
    founding.outcome().and_then(|outcome| outcome.clone().ok())
}

/// Rule 1. Two processes of the name C come to both others in turn. Gives what these found.
fn the_map_is_written_once(mutant: Option<Mutant>) -> [Option<Membership>; 2] {
    let (mut a, mut b) = (newborn(3, A, 1, 10, mutant), newborn(3, B, 1, 20, mutant));
    acquaint(&mut a, &mut b);
    a.step(&c_shows(&[0, 0, 1], &a));
    b.step(&c_shows(&[0, 0, 1], &b));
    a.step(&letter(&mut b, A));
    a.step(&c_shows(&[0, 0, 2], &a));
    b.step(&c_shows(&[0, 0, 2], &b));
    b.step(&letter(&mut a, B));
    a.step(&c_shows(&[1, 1, 1], &a));
    b.step(&c_shows(&[1, 1, 2], &b));
    [founded(&a), founded(&b)]
}

/// Rule 2. What A said to an earlier life of B arrives after A was emptied and has founded anew. Gives
/// what A wrote, and what B comes to by the late letter.
fn late_letters_do_not_count(mutant: Option<Mutant>) -> [Option<Membership>; 2] {
    let (mut a, mut b) = (newborn(2, A, 1, 10, mutant), newborn(2, B, 5, 20, mutant));
    acquaint(&mut b, &mut a);
    b.step(&letter(&mut a, B));
    let late = letter(&mut a, B);
    let (mut a, mut b) = (newborn(2, A, 2, 11, mutant), newborn(2, B, 5, 21, mutant));
    introduce(&mut a, &mut b);
    a.step(&letter(&mut b, A));
    let written = founded(&a).expect("B has shown the births of both");
    // B starts again before it heard of that.
    let mut b = newborn(2, B, 5, 22, mutant);
    b.step(&late);
    if founded(&b).is_none() {
        let asked = letter(&mut b, A);
        b.step(&node_says(&written, A, false, &asked));
    }
    [Some(written), founded(&b)]
}

/// Rule 4. A and B committed, and A answered C; then both are emptied, and C agrees with their new
/// births. Then the answer arrives. Gives what A wrote in its new life, and what C comes to.
fn a_complete_map_binds(mutant: Option<Mutant>) -> ([Option<Membership>; 2], Founding) {
    let first = membership(&[1, 1, 1]);
    let mut c = newborn(3, C, 1, 30, mutant);
    let late = node_says(&first, A, true, &letter(&mut c, A));
    let (mut a, mut b) = (newborn(3, A, 2, 10, mutant), newborn(3, B, 2, 20, mutant));
    acquaint(&mut a, &mut b);
    introduce(&mut c, &mut a);
    introduce(&mut c, &mut b);
    a.step(&letter(&mut b, A));
    a.step(&letter(&mut c, A));
    let written = founded(&a).expect("B and C have shown the births of all");
    c.step(&late);
    ([Some(written), founded(&c)], c)
}

/// Rule 4. Two processes of the name A. One has the word of B's last life and C's first, the other of
/// C's last and B's first. Both found, and tell one of the others. Gives what B and C come to.
fn one_word_is_not_enough_before_the_commit(mutant: Option<Mutant>) -> [Option<Membership>; 2] {
    let early = mutant == Some(Mutant::FoundedBeforeCommit);
    let (mut one, mut two) = (newborn(3, A, 1, 10, mutant), newborn(3, A, 2, 11, mutant));
    let (mut b, mut c) = (newborn(3, B, 1, 20, mutant), newborn(3, C, 1, 30, mutant));
    acquaint(&mut b, &mut c);
    acquaint(&mut b, &mut two);
    acquaint(&mut c, &mut one);
    two.step(&letter(&mut b, A));
    one.step(&letter(&mut c, A));
    let (mut b, mut c) = (newborn(3, B, 1, 21, mutant), newborn(3, C, 1, 31, mutant));
    acquaint(&mut b, &mut c);
    acquaint(&mut b, &mut one);
    acquaint(&mut c, &mut two);
    one.step(&letter(&mut b, A));
    two.step(&letter(&mut c, A));
    let logs = [&one, &two].map(|process| founded(process).expect("both others have agreed once"));
    for (asking, log) in [&mut b, &mut c].into_iter().zip(&logs) {
        let asked = letter(asking, A);
        asking.step(&node_says(log, A, early, &asked));
    }
    [founded(&b), founded(&c)]
}

fn differ(found: &[Option<Membership>; 2]) -> bool {
    matches!(found, [Some(one), Some(two)] if one != two)
}

#[test]
fn a_map_that_is_rewritten_founds_twice() {
    assert_eq!(the_map_is_written_once(None), [None, None]);
    assert!(differ(&the_map_is_written_once(Some(Mutant::RewritesTheMap))));
}

#[test]
fn a_letter_to_an_earlier_life_that_counts_founds_twice() {
    let [one, two] = late_letters_do_not_count(None);
    assert_eq!(one, Some(membership(&[2, 5])));
    assert_eq!(two, one, "what was written is all that there is");
    assert!(differ(&late_letters_do_not_count(Some(Mutant::CountsWithoutEcho))));
}

#[test]
fn taking_over_what_contradicts_the_own_map_founds_twice() {
    let ([_, two], c) = a_complete_map_binds(None);
    assert_eq!(two, None);
    assert!(matches!(c.outcome(), Some(Err(FoundingRefusal::Contradicted { .. }))), "{c:?}");
    assert!(differ(&a_complete_map_binds(Some(Mutant::AdoptsAgainstItsMap)).0));
}

#[test]
fn taking_one_word_before_the_commit_founds_twice() {
    assert_eq!(one_word_is_not_enough_before_the_commit(None), [None, None]);
    let mutant = Some(Mutant::FoundedBeforeCommit);
    assert!(differ(&one_word_is_not_enough_before_the_commit(mutant)));
}
