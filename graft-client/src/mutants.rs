//! Known historical bugs of clients. In a default build none can be switched on, and the compiler removes
//! every trace of them.

#![cfg_attr(
    not(feature = "mutants"),
    allow(dead_code, reason = "only named here, never switched on")
)]

use crate::config::ClientConfig;

/// A bug of some client, by what it does: the names are those of `graft_core::raft::Mutant`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bug {
    RetryWithoutSession,
    ExpiredCommandSentAgain,
    TimeoutCalledNotApplied,
    SilentLeaderAskedForEver,
    SilenceCalledNoLeader,
}

/// The bug that is switched on, if any: of no size in a default build.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Switch {
    #[cfg(feature = "mutants")]
    bug: Option<Bug>,
}

#[cfg(feature = "mutants")]
impl Switch {
    /// What `config` switches on.
    pub(crate) const fn of(config: &ClientConfig) -> Self {
        use graft_core::raft::Mutant;
        let bug = match config.mutant {
            Some(Mutant::RetryWithoutSession) => Some(Bug::RetryWithoutSession),
            Some(Mutant::ExpiredCommandSentAgain) => Some(Bug::ExpiredCommandSentAgain),
            Some(Mutant::TimeoutCalledNotApplied) => Some(Bug::TimeoutCalledNotApplied),
            Some(Mutant::SilentLeaderAskedForEver) => Some(Bug::SilentLeaderAskedForEver),
            Some(Mutant::SilenceCalledNoLeader) => Some(Bug::SilenceCalledNoLeader),
            _ => None,
        };
        Self { bug }
    }

    /// Whether this bug is switched on. Never, outside of tests.
    pub(crate) fn is(self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }
}

#[cfg(not(feature = "mutants"))]
impl Switch {
    /// Nothing can be switched on.
    pub(crate) const fn of(_: &ClientConfig) -> Self {
        Self {}
    }

    /// Whether this bug is switched on. Never, outside of tests.
    #[expect(clippy::unused_self, reason = "the same call must compile with mutants")]
    pub(crate) const fn is(self, _: Bug) -> bool {
        false
    }
}
