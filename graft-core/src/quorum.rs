//! Quorum mathematics: pure functions over sets of voters (Raft §6, thesis §4.3).
//!
//! A quorum is a majority of `voters` and, while a membership change is under way, also a majority of
//! `outgoing`. One order statistic answers every question of the kind "what does a quorum have at
//! least?": sort what each voter has, latest first, and take the entry at the majority's place.
//!
//! # Empty sets
//!
//! An empty half puts no constraint: a configuration that is not joint has an empty `outgoing`. Where
//! both halves are empty nobody can agree to anything, so the safe answers are given: nothing is
//! committed, no quorum was ever heard from, and a vote is [`VoteResult::Lost`].

use std::collections::BTreeSet;

use crate::{Index, NodeId};

/// Up to this many voters in a half are sorted on the stack.
const ON_STACK: usize = 16;

/// Where an election stands, from the worst for the candidate to the best.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum VoteResult {
    /// So many have said no that a quorum cannot say yes any more.
    Lost,
    /// The votes that are still out decide.
    Pending,
    /// A quorum has said yes.
    Won,
}

/// The highest index that a quorum holds, where `matched` says how far each voter's log is known to
/// match (Raft §5.3, the last rule for leaders in figure 2). Zero where there are no voters.
#[must_use]
pub fn committed_index(
    voters: &BTreeSet<NodeId>,
    outgoing: &BTreeSet<NodeId>,
    matched: impl Fn(NodeId) -> Index,
) -> Index {
    held_by_quorum(voters, outgoing, matched).unwrap_or_default()
}

/// Where an election stands, where `vote` says what each voter answered, if it has (Raft §5.2).
#[must_use]
pub fn vote_result(
    voters: &BTreeSet<NodeId>,
    outgoing: &BTreeSet<NodeId>,
    vote: impl Fn(NodeId) -> Option<bool>,
) -> VoteResult {
    // A missing answer lies between no and yes, so what a quorum has at least is the result itself.
    let worth = |node| match vote(node) {
        Some(false) => VoteResult::Lost,
        None => VoteResult::Pending,
        Some(true) => VoteResult::Won,
    };
    held_by_quorum(voters, outgoing, worth).unwrap_or(VoteResult::Lost)
}

/// The latest moment such that a quorum was heard from then or later, where `at` says when each voter
/// was last heard from. `None` where no quorum has been heard from at all.
///
/// This is check-quorum as a sliding window (thesis §6.2): a leader steps down when this is longer
/// ago than an election timeout.
#[must_use]
pub fn quorum_latest(
    voters: &BTreeSet<NodeId>,
    outgoing: &BTreeSet<NodeId>,
    at: impl Fn(NodeId) -> Option<u64>,
) -> Option<u64> {
    held_by_quorum(voters, outgoing, at).flatten()
}

/// The greatest value that a quorum reaches or passes, or `None` where there are no voters.
fn held_by_quorum<T: Ord + Copy>(
    voters: &BTreeSet<NodeId>,
    outgoing: &BTreeSet<NodeId>,
    value: impl Fn(NodeId) -> T,
) -> Option<T> {
    let incoming = held_by_majority(voters, &value);
    let old = held_by_majority(outgoing, &value);
    match (incoming, old) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// The greatest value that a majority of `half` reaches or passes, or `None` where it is empty.
fn held_by_majority<T: Ord + Copy>(
    half: &BTreeSet<NodeId>,
    value: &impl Fn(NodeId) -> T,
) -> Option<T> {
    let first = *half.first()?;
    if half.len() <= ON_STACK {
        let mut values = [value(first); ON_STACK];
        for (slot, node) in values.iter_mut().zip(half).skip(1) {
            *slot = value(*node);
        }
        majority_of(&mut values[..half.len()])
    } else {
        let mut values: Vec<T> = half.iter().map(|node| value(*node)).collect();
        majority_of(&mut values)
    }
}

/// The value at the majority's place. In ascending order that is the first of the upper majority:
/// index 0 of 1, 0 of 2, 1 of 3, 1 of 4, 2 of 5.
fn majority_of<T: Ord + Copy>(values: &mut [T]) -> Option<T> {
    values.sort_unstable();
    let last = values.len().checked_sub(1)?;
    values.get(last / 2).copied()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn nodes(numbers: &[u64]) -> BTreeSet<NodeId> {
        numbers.iter().copied().map(NodeId).collect()
    }

    fn is_quorum(half: &BTreeSet<NodeId>, present: &BTreeSet<NodeId>) -> bool {
        half.is_empty() || half.intersection(present).count() * 2 > half.len()
    }

    /// Every set of servers that is a quorum of the configuration, by trying all of them.
    fn quorums(voters: &BTreeSet<NodeId>, outgoing: &BTreeSet<NodeId>) -> Vec<BTreeSet<NodeId>> {
        let all: Vec<NodeId> = voters.union(outgoing).copied().collect();
        (1_u32..1 << all.len())
            .map(|mask| {
                let chosen = all.iter().enumerate().filter(|(at, _)| mask >> at & 1 == 1);
                chosen.map(|(_, node)| *node).collect()
            })
            .filter(|set| is_quorum(voters, set) && is_quorum(outgoing, set))
            .collect()
    }

    /// What the quorum that reaches furthest reaches as a whole.
    fn naive<T: Ord>(quorums: &[BTreeSet<NodeId>], value: impl Fn(NodeId) -> T) -> Option<T> {
        let reached = |set: &BTreeSet<NodeId>| set.iter().map(|node| value(*node)).min();
        quorums.iter().filter_map(reached).max()
    }

    fn half() -> impl Strategy<Value = BTreeSet<NodeId>> {
        prop::collection::btree_set((1_u64..=9).prop_map(NodeId), 0..=7)
    }

    fn values<T: std::fmt::Debug>(
        value: impl Strategy<Value = T>,
    ) -> impl Strategy<Value = BTreeMap<NodeId, T>> {
        prop::collection::vec(value, 9)
            .prop_map(|list| (1..).map(NodeId).zip(list).collect::<BTreeMap<_, _>>())
    }

    proptest! {
        #[test]
        fn the_committed_index_is_what_the_best_quorum_holds(
            voters in half(), outgoing in half(), matched in values(0_u64..6),
        ) {
            let matched = |node: NodeId| Index(matched[&node]);
            let expected = naive(&quorums(&voters, &outgoing), matched);
            prop_assert_eq!(
                committed_index(&voters, &outgoing, matched),
                expected.unwrap_or_default()
            );
        }

        #[test]
        fn a_vote_is_won_by_a_quorum_of_yes_and_lost_when_none_is_left(
            voters in half(), outgoing in half(), votes in values(prop::option::of(any::<bool>())),
        ) {
            let quorums = quorums(&voters, &outgoing);
            let all = |wanted: &dyn Fn(Option<bool>) -> bool| {
                quorums.iter().any(|set| set.iter().all(|node| wanted(votes[node])))
            };
            let expected = if all(&|vote| vote == Some(true)) {
                VoteResult::Won
            } else if all(&|vote| vote != Some(false)) {
                VoteResult::Pending
            } else {
                VoteResult::Lost
            };
            prop_assert_eq!(vote_result(&voters, &outgoing, |node| votes[&node]), expected);
        }

        #[test]
        fn the_quorums_latest_moment_is_the_best_quorums_oldest(
            voters in half(), outgoing in half(), heard in values(prop::option::of(0_u64..6)),
        ) {
            let at = |node: NodeId| heard[&node];
            let expected = naive(&quorums(&voters, &outgoing), at).flatten();
            prop_assert_eq!(quorum_latest(&voters, &outgoing, at), expected);
        }

        #[test]
        fn any_number_of_voters_commits_what_more_than_half_of_them_hold(
            matched in prop::collection::vec(0_u64..20, 1..40),
        ) {
            let voters: BTreeSet<NodeId> = (0..matched.len() as u64).map(NodeId).collect();
            let holders = |index: u64| matched.iter().filter(|held| **held >= index).count();
            let expected = (0..20).rfind(|index| holders(*index) * 2 > matched.len());
            let found = committed_index(&voters, &BTreeSet::new(), |node| {
                Index(matched[usize::try_from(node.0).unwrap()])
            });
            prop_assert_eq!(Some(found.0), expected);
        }
    }

    #[test]
    fn nobody_commits_nothing_elects_nobody_and_was_never_heard_from() {
        let none = BTreeSet::new();
        assert_eq!(committed_index(&none, &none, |_| Index(9)), Index(0));
        assert_eq!(vote_result(&none, &none, |_| Some(true)), VoteResult::Lost);
        assert_eq!(quorum_latest(&none, &none, |_| Some(9)), None);
    }

    #[test]
    fn an_empty_half_leaves_the_decision_to_the_other() {
        let (none, three) = (BTreeSet::new(), nodes(&[1, 2, 3]));
        let matched = |node: NodeId| Index(node.0 * 10);
        assert_eq!(committed_index(&three, &none, matched), Index(20));
        assert_eq!(committed_index(&none, &three, matched), Index(20));
        let yes = |node: NodeId| (node.0 != 3).then_some(true);
        assert_eq!(vote_result(&three, &none, yes), VoteResult::Won);
        assert_eq!(vote_result(&none, &three, yes), VoteResult::Won);
    }

    #[test]
    fn a_joint_configuration_needs_both_majorities() {
        let (new, old) = (nodes(&[1, 2, 3]), nodes(&[3, 4, 5]));
        let only_new = |node: NodeId| Index(if node.0 <= 3 { 7 } else { 2 });
        assert_eq!(committed_index(&new, &old, only_new), Index(2));
        let new_says_yes = |node: NodeId| (node.0 <= 3).then_some(true);
        assert_eq!(vote_result(&new, &old, new_says_yes), VoteResult::Pending);
        let old_says_no = |node: NodeId| Some(node.0 <= 3);
        assert_eq!(vote_result(&new, &old, old_says_no), VoteResult::Lost);
        let heard_new = |node: NodeId| (node.0 <= 3).then_some(5);
        assert_eq!(quorum_latest(&new, &old, heard_new), None);
    }

    #[test]
    fn two_of_four_are_no_majority() {
        let four = nodes(&[1, 2, 3, 4]);
        let none = BTreeSet::new();
        let half = |node: NodeId| Index(if node.0 <= 2 { 5 } else { 1 });
        assert_eq!(committed_index(&four, &none, half), Index(1));
        assert_eq!(vote_result(&four, &none, |node| Some(node.0 <= 2)), VoteResult::Lost);
    }
}
