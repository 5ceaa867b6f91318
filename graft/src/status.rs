//! How servers are doing.

use std::fmt;

use graft_core::{
    node,
    raft::{Fatal, RoleName},
};

use crate::ServerName;

/// Whether a server runs, and if not, why not.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Status {
    /// It runs.
    Running,
    /// Its driver panicked, and its supervisor is starting it again.
    Restarting {
        /// What the panic said.
        reason: StopReason,
        /// How many times it has been started again within the last 5 s, this time included.
        restarts: u32,
    },
    /// It was stopped on request, or its runtime has ended.
    Stopped,
    /// It has stopped by itself and stays so until it is told to restart.
    Failed {
        /// Why.
        reason: StopReason,
        /// How many times it had been started again within the 5 s before.
        restarts: u32,
    },
}

impl Status {
    /// Whether it runs or is about to run again.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        matches!(self, Self::Running | Self::Restarting { .. })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times = |restarts: u32| match restarts {
            1 => "1 restart".to_owned(),
            _ => format!("{restarts} restarts"),
        };
        match self {
            Self::Running => f.write_str("running"),
            Self::Restarting { reason, restarts } => {
                write!(f, "restarting ({}): {reason}", times(*restarts))
            }
            Self::Stopped => f.write_str("stopped"),
            Self::Failed { reason, restarts } => {
                write!(f, "failed after {}: {reason}", times(*restarts))
            }
        }
    }
}

/// Why a server stopped by itself.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StopReason {
    /// Its machine answered otherwise than the leader's. See "What breaks replicas" in [`Machine`](crate::Machine).
    #[error(
        "its machine differs from the leader's at entry {index} or one of the {} before it: compare the \
         servers before restarting any, because the leader may be the one that is wrong, and find what is \
         not deterministic in the machine (clock, randomness, hash-map order)",
        graft_core::Checkpoint::INTERVAL - 1
    )]
    Diverged {
        /// Where it was noticed.
        index: u64,
    },
    /// A committed entry that this build cannot read. Skipping it would let replicas drift apart.
    #[error("{reason}")]
    Undecodable {
        /// Which entry.
        index: u64,
        /// The version of the entry type that wrote it.
        version: u16,
        /// What is wrong and what to do.
        reason: String,
    },
    /// Going on would have broken a promise of the protocol.
    #[error("{reason}")]
    Unsafe {
        /// The proof, and what to do.
        reason: String,
    },
    /// Its store failed. Nothing is tried again on a store that failed.
    #[error("{reason}")]
    Store {
        /// What the store said.
        reason: String,
    },
    /// Its driver panicked, more often than a supervisor starts it again.
    #[error("its driver panicked: {message}; please report this with the message")]
    Panicked {
        /// What the panic said.
        message: String,
    },
    /// The thread of its machine failed outside of an entry.
    #[error("its machine's thread failed: {reason}")]
    MachineFailed {
        /// What it said.
        reason: String,
    },
    /// It could not be started again after a panic.
    #[error("it could not be started again: {reason}")]
    NotRestarted {
        /// Why not.
        reason: String,
    },
}

impl StopReason {
    /// What a node said as it stopped: `None` where it was asked to.
    pub(crate) fn of_node(reason: node::StopReason) -> Option<Self> {
        Some(match reason {
            node::StopReason::Asked => return None,
            node::StopReason::Fatal(Fatal::Diverged { index }) => Self::Diverged { index: index.0 },
            node::StopReason::Undecodable { index, version, reason } => {
                Self::Undecodable { index: index.0, version, reason }
            }
            node::StopReason::MachineFailed { reason } => Self::MachineFailed { reason },
            node::StopReason::Store { .. } => Self::Store { reason: reason.to_string() },
            other => Self::Unsafe { reason: other.to_string() },
        })
    }
}

/// What a server is in its term (Raft §5.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Role {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether it would be elected.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

impl Role {
    pub(crate) const fn of(name: RoleName) -> Self {
        match name {
            RoleName::PreCandidate => Self::PreCandidate,
            RoleName::Candidate => Self::Candidate,
            RoleName::Leader => Self::Leader,
            _ => Self::Follower,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Follower => "follower",
            Self::PreCandidate => "pre-candidate",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
        })
    }
}

/// What changes rarely about a server: what [`Supervisor::watch`](crate::Supervisor::watch) shows.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Overview {
    /// Whether it runs.
    pub status: Status,
    /// What it is in its term; `None` while it does not run.
    pub role: Option<Role>,
    /// Its term as last known.
    pub term: u64,
    /// The leader it knows, itself included.
    pub leader: Option<ServerName>,
}
