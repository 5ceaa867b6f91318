//! What one founder makes of what it hears.

use std::collections::BTreeMap;

use super::*;

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);

fn info(name: &str, birth: u64) -> NodeInfo {
    let incarnation = Incarnation(birth);
    NodeInfo { name: name.into(), incarnation, ..NodeInfo::default() }
}

fn list(names: &[&str]) -> Vec<(NodeId, String)> {
    (1..).zip(names).map(|(node, name)| (NodeId(node), (*name).to_owned())).collect()
}

/// The founder `a`, born 1, in life 10.
fn founding(names: &[&str]) -> Founding {
    Founding::new(GroupId(0), A, info("a", 1), &list(names), 10).unwrap()
}

/// A report of `b`, born 2, in life 20, with these births.
fn from_b(echo: u64, births: &[(&str, u64)]) -> PeerEnvelope {
    let founders =
        (1..).zip(births).map(|(node, (name, birth))| (NodeId(node), info(name, *birth)));
    let founders: BTreeMap<_, _> = founders.collect();
    let birth = founders.get(&B).map_or(Incarnation(2), |info| info.incarnation);
    with_stage(20, echo, birth, BirthStage::Newborn { founders })
}

fn with_stage(life: u64, echo: u64, birth: Incarnation, stage: BirthStage) -> PeerEnvelope {
    PeerEnvelope {
        group: GroupId(0),
        from: B,
        to: A,
        from_incarnation: birth,
        to_incarnation: Incarnation(0),
        message: Message::Birth(Box::new(BirthReport { life, echo, stage })),
    }
}

fn said(founding: &mut Founding) -> Vec<(NodeId, BirthReport)> {
    let mut messages = Vec::new();
    founding.drain(&mut messages);
    let report = |envelope: PeerEnvelope| match envelope.message {
        Message::Birth(report) => (envelope.to, *report),
        other => panic!("{other:?} has no place here"),
    };
    messages.into_iter().map(report).collect()
}

#[test]
fn a_server_alone_founds_at_once() {
    let founding = founding(&["a"]);
    let membership = Membership::of_voters([(A, info("a", 1))]);
    assert_eq!(founding.outcome(), Some(&Ok(membership)));
    assert_eq!(founding.progress().to_string(), "all 1 founders agree");
}

#[test]
fn two_servers_found_once_each_has_shown_the_births_of_both() {
    let mut founding = founding(&["a", "b"]);
    assert_eq!(founding.progress().to_string(), "waiting to hear of b");
    founding.step(&from_b(0, &[("a", 0), ("b", 2)]));
    assert_eq!(founding.progress().unheard(), ["b"], "this was not sent to this life");
    assert_eq!(said(&mut founding)[0].1.echo, 20, "it hears at once what to echo");
    founding.step(&from_b(10, &[("a", 0), ("b", 2)]));
    assert_eq!(founding.progress().to_string(), "waiting for b to agree");
    assert_eq!(founding.outcome(), None);
    founding.step(&from_b(10, &[("a", 1), ("b", 2)]));
    let membership = Membership::of_voters([(A, info("a", 1)), (B, info("b", 2))]);
    assert_eq!(founding.outcome(), Some(&Ok(membership)));
}

#[test]
fn a_founder_that_comes_with_another_birth_is_named_on_both_sides() {
    let mut founding = founding(&["a", "b", "c"]);
    founding.step(&from_b(10, &[("a", 0), ("b", 2), ("c", 0)]));
    said(&mut founding);
    founding.step(&from_b(10, &[("a", 0), ("b", 3), ("c", 0)]));
    let refusal = founding.outcome().cloned().unwrap().unwrap_err();
    let (noted, came) = (Incarnation(2), Incarnation(3));
    assert_eq!(refusal, FoundingRefusal::AnotherBirth { server: "b".into(), noted, came });
    assert!(refusal.to_string().contains("b was noted with birth 2 and came again with birth 3"));
    // The other end learns of it by what it is told.
    let (to, report) = said(&mut founding).remove(0);
    let BirthStage::Newborn { founders } = report.stage else { panic!("{report:?}") };
    assert_eq!((to, report.echo, founders[&B].incarnation), (B, 20, Incarnation(2)));
}

#[test]
fn whoever_was_noted_with_another_birth_says_so() {
    let mut founding = founding(&["a", "b", "c"]);
    founding.step(&from_b(10, &[("a", 9), ("b", 2), ("c", 0)]));
    let refusal = founding.outcome().cloned().unwrap().unwrap_err();
    let (known, own) = (Incarnation(9), Incarnation(1));
    assert_eq!(refusal, FoundingRefusal::KnownOtherwise { by: "b".into(), known, own });
}

#[test]
fn a_list_that_differs_is_shown_with_both() {
    let cases = [
        (vec![("a", 0), ("b", 2)], "b lacks c"),
        (vec![("a", 0), ("b", 2), ("c", 0), ("d", 0)], "only b names d"),
        (vec![("a", 0), ("b", 2), ("d", 0)], "only b names d, and it lacks c"),
    ];
    for (births, difference) in cases {
        let mut founding = founding(&["a", "b", "c"]);
        founding.step(&from_b(10, &births));
        let refusal = founding.outcome().cloned().unwrap().unwrap_err().to_string();
        assert!(refusal.contains(difference), "{refusal}");
        assert!(refusal.contains("this server has [a, b, c]"), "{refusal}");
    }
}

#[test]
fn a_stranger_is_answered_so_that_both_can_tell() {
    let mut founding = founding(&["a"; 1]);
    assert!(founding.outcome().is_some(), "alone it needs nobody");
    founding = Founding::new(GroupId(0), A, info("a", 1), &list3(), 10).unwrap();
    let before = founding.progress();
    founding.step(&from_b(0, &[("a", 0), ("b", 2)]));
    assert_eq!(founding.progress(), before);
    assert_eq!(said(&mut founding)[0].0, B);
    founding.step(&from_b(10, &[("a", 1), ("b", 2)]));
    let refusal = founding.outcome().cloned().unwrap().unwrap_err().to_string();
    assert!(refusal.contains("only b names b, and it lacks z"), "{refusal}");
}

/// A list without `b`.
fn list3() -> Vec<(NodeId, String)> {
    vec![(A, "a".to_owned()), (NodeId(26), "z".to_owned())]
}

#[test]
fn a_list_that_is_no_list_is_refused_by_name() {
    let with = |founders: &[(NodeId, String)]| {
        let founding = Founding::new(GroupId(0), A, info("a", 1), founders, 10);
        founding.map(|_| ()).unwrap_err().to_string()
    };
    let collision = with(&[(A, "a".into()), (A, "b".into())]);
    assert!(collision.contains("`a` and `b` have the same number n1"), "{collision}");
    let absent = with(&[(B, "b".into())]);
    assert!(absent.contains("a is not among the founders [b]"), "{absent}");
}

#[test]
fn a_founded_membership_counts_only_where_it_names_this_birth() {
    let founded = |birth| {
        let membership = Membership::of_voters([(A, info("a", birth)), (B, info("b", 2))]);
        with_stage(0, 10, Incarnation(2), BirthStage::Founded { membership })
    };
    let mut founding = founding(&["a", "b"]);
    founding.step(&founded(7));
    assert_eq!(founding.outcome(), None);
    founding.step(&founded(1));
    assert!(matches!(founding.outcome(), Some(Ok(_))));
}

#[test]
fn already_founded_counts_only_where_it_was_said_to_this_life() {
    let word = |echo| with_stage(0, echo, Incarnation(2), BirthStage::AlreadyFounded);
    let mut founding = founding(&["a", "b"]);
    founding.step(&word(9));
    assert_eq!(founding.outcome(), None);
    founding.step(&word(10));
    let refusal = FoundingRefusal::AlreadyFounded { by: "b".into() };
    assert_eq!(founding.outcome(), Some(&Err(refusal)));
}

#[test]
fn what_is_for_another_group_or_server_or_is_malformed_changes_nothing() {
    let mut founding = founding(&["a", "b"]);
    let good = from_b(10, &[("a", 1), ("b", 2)]);
    let bad = [
        PeerEnvelope { group: GroupId(1), ..good.clone() },
        PeerEnvelope { to: B, ..good.clone() },
        PeerEnvelope { from: A, ..good.clone() },
        PeerEnvelope { from_incarnation: Incarnation(5), ..good.clone() },
        PeerEnvelope { message: Message::TimeoutNow { term: crate::Term(1) }, ..good.clone() },
        from_b(10, &[("a", 1)]),
        from_b(10, &[("a", 1), ("b", 0)]),
    ];
    for envelope in bad {
        founding.step(&envelope);
        assert_eq!(founding.outcome(), None, "{envelope:?}");
        assert_eq!(founding.progress().unheard(), ["b"], "{envelope:?}");
    }
    founding.step(&good);
    assert!(matches!(founding.outcome(), Some(Ok(_))));
}
