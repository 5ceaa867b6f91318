//! The rules of founding, broken one at a time. In a default build none can be, and the compiler
//! removes every trace of it.

#![cfg_attr(
    not(any(test, feature = "mutants")),
    allow(unreachable_pub, dead_code, reason = "only named here, never switched on")
)]

use super::Founding;

/// A rule of founding that is not kept. The model test switches one on and must notice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Mutant {
    /// A founder that comes with another birth takes the place of the one in the map (rule 1).
    RewritesTheMap,
    /// Reports count whatever life they were sent to (rule 2).
    CountsWithoutEcho,
    /// A complete map is enough, whatever the others have shown (rule 3).
    FoundsUnseen,
    /// A server with an emptied disk is let in as if it were the one before (rule 4).
    TakesBackTheEmptied,
    /// A founded membership is taken over although the map says otherwise (rule 4).
    AdoptsAgainstItsMap,
    /// Who has a log calls it founded before it is committed (rule 4).
    FoundedBeforeCommit,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::RewritesTheMap,
        Self::CountsWithoutEcho,
        Self::FoundsUnseen,
        Self::TakesBackTheEmptied,
        Self::AdoptsAgainstItsMap,
        Self::FoundedBeforeCommit,
    ];
}

impl Founding {
    /// Switches a mutant on.
    #[cfg(any(test, feature = "mutants"))]
    pub const fn set_mutant(&mut self, mutant: Option<Mutant>) {
        self.mutant = mutant;
    }

    /// Whether this one is switched on. Never, outside of tests.
    #[cfg(any(test, feature = "mutants"))]
    pub(super) fn is_mutant(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Whether this one is switched on. Never, outside of tests.
    #[cfg(not(any(test, feature = "mutants")))]
    #[expect(clippy::unused_self, reason = "the same call must compile with mutants")]
    pub(super) const fn is_mutant(&self, _mutant: Mutant) -> bool {
        false
    }
}
