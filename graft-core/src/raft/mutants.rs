//! Known historical bugs, by name. In a default build none can be switched on, and the compiler
//! removes every trace of them.

#![cfg_attr(
    not(any(test, feature = "mutants")),
    allow(unreachable_pub, dead_code, reason = "only named here, never switched on")
)]

use super::Raft;

/// A bug that some implementation of Raft once had. Tests switch one on and must notice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Mutant {
    /// A vote is told before it is durable.
    VoteBeforeDurable,
    /// Entries are acknowledged before they are durable.
    AppendBeforeDurable,
    /// A leader counts its own copy before it is durable.
    LeaderCountsItselfEarly,
    /// Votes are asked for before the candidate's own vote is durable.
    RequestVoteBeforeDurable,
    /// A truncation does not clip the write that is under way.
    TruncationWithoutClipping,
    /// What matched with one leader is acknowledged to the next.
    StaleAcknowledgement,
    /// An answer states a term that is not durable.
    TermBeforeDurable,
    /// Entries of an older term are committed by counting (Raft Figure 8).
    CommitOldTerm,
    /// A vote that arrives twice counts twice.
    VoteCountedTwice,
    /// Votes are given without comparing logs.
    VoteWithoutLogCheck,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::VoteBeforeDurable,
        Self::AppendBeforeDurable,
        Self::LeaderCountsItselfEarly,
        Self::RequestVoteBeforeDurable,
        Self::TruncationWithoutClipping,
        Self::StaleAcknowledgement,
        Self::TermBeforeDurable,
        Self::CommitOldTerm,
        Self::VoteCountedTwice,
        Self::VoteWithoutLogCheck,
    ];
}

impl Raft {
    /// Whether this bug is switched on. Never, outside of tests.
    #[cfg(any(test, feature = "mutants"))]
    pub(super) fn is_mutant(&self, mutant: Mutant) -> bool {
        self.config.mutant == Some(mutant)
    }

    /// Whether this bug is switched on. Never, outside of tests.
    #[cfg(not(any(test, feature = "mutants")))]
    #[expect(clippy::unused_self, reason = "the same call must compile with mutants")]
    pub(super) const fn is_mutant(&self, _mutant: Mutant) -> bool {
        false
    }
}
