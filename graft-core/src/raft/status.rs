//! A picture of a server, for people and programs that watch it.

use std::sync::Arc;

use super::{Counters, Raft, Role, progress::ProgressState};
use crate::{HardState, Index, LogId, Membership, NodeId, Term};

/// What a server is and knows, at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Status {
    /// The server.
    pub node: NodeId,
    /// What it is.
    pub role: RoleName,
    /// Its term.
    pub term: Term,
    /// Whom it voted for in that term.
    pub voted_for: Option<NodeId>,
    /// The leader, if known.
    pub leader: Option<NodeId>,
    /// The entry before the first one it still has.
    pub compacted: LogId,
    /// The last entry of its log.
    pub last: LogId,
    /// How much of its log is durable.
    pub durable: Index,
    /// How much it knows to be committed.
    pub commit_index: Index,
    /// How much its machine has applied.
    pub last_applied: Index,
    /// Whether its disk has stopped answering.
    pub stalled: bool,
    /// The answers to its campaign, if it campaigns.
    pub votes: Vec<(NodeId, bool)>,
    /// What it knows of the others, if it leads.
    pub peers: Vec<PeerStatus>,
    /// How many proposals wait for their entries to be applied, if it leads.
    pub open_proposals: usize,
    /// To whom it is handing over, if it leads and is.
    pub transfer: Option<NodeId>,
    /// The membership in force.
    pub membership: Arc<Membership>,
    /// What was dropped at the door.
    pub counters: Counters,
}

/// The part of [`Status`] that costs nothing to look at, for whoever looks after every turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Vitals {
    /// What the server is.
    pub role: RoleName,
    /// Its term and vote, durable or not. `commit` is what its store was told last.
    pub hard_state: HardState,
    /// What of that is durable.
    pub durable_hard_state: HardState,
    /// The leader, if known.
    pub leader: Option<NodeId>,
    /// The last entry of its log.
    pub last: LogId,
    /// How much of its log is durable.
    pub durable: Index,
    /// How much it knows to be committed.
    pub commit_index: Index,
    /// How much its machine has been given.
    pub apply_issued: Index,
    /// How much its machine has applied.
    pub last_applied: Index,
    /// Whether its disk has stopped answering.
    pub stalled: bool,
    /// How many proposals wait for their entries to be applied, if it leads.
    pub open_proposals: usize,
    /// How many bytes of its log are not committed.
    pub uncommitted_bytes: usize,
    /// How many bytes of its log are committed and not applied.
    pub unapplied_bytes: usize,
}

/// A role, without what it holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum RoleName {
    /// Follows, or waits for a leader.
    Follower,
    /// Asks whether it would be elected.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

/// What a leader knows of a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PeerStatus {
    /// The peer.
    pub node: NodeId,
    /// Raft's `nextIndex`.
    pub next_index: Index,
    /// Raft's `matchIndex`.
    pub match_index: Index,
    /// Entries on their way unanswered.
    pub in_flight: usize,
    /// Whether it is still being found out where the logs agree.
    pub probing: bool,
    /// How far the peer has applied, as it last said.
    pub applied: Index,
    /// Whether the peer says that its disk has stopped answering.
    pub stalled: bool,
}

impl Raft {
    /// A picture of this server as it is now.
    #[must_use]
    pub fn status(&self) -> Status {
        let votes = match &self.role {
            Role::PreCandidate(candidate) | Role::Candidate(candidate) => {
                candidate.votes.iter().map(|(node, granted)| (*node, *granted)).collect()
            }
            Role::Follower(_) | Role::Leader(_) => Vec::new(),
        };
        let leading = match &self.role {
            Role::Leader(leader) => Some(leader),
            _ => None,
        };
        let peers = leading.iter().flat_map(|leader| &leader.peers);
        Status {
            node: self.config.node,
            role: self.role_name(),
            term: self.hard_state.term,
            voted_for: self.hard_state.voted_for,
            leader: self.leader(),
            compacted: self.log.compacted(),
            last: self.log.last(),
            durable: self.durability.durable,
            commit_index: self.commit_index,
            last_applied: self.applied,
            stalled: self.stalled,
            votes,
            peers: peers
                .map(|(node, progress)| PeerStatus {
                    node: *node,
                    next_index: progress.next_index,
                    match_index: progress.match_index,
                    in_flight: progress.in_flight(),
                    probing: matches!(progress.state, ProgressState::Probe { .. }),
                    applied: progress.applied,
                    stalled: progress.stalled,
                })
                .collect(),
            open_proposals: leading.map_or(0, |leader| leader.open.len()),
            transfer: leading.and_then(|leader| leader.transfer).map(|transfer| transfer.to),
            membership: Arc::clone(self.membership()),
            counters: self.counters,
        }
    }

    /// The numbers of this server as they are now.
    #[must_use]
    pub fn vitals(&self) -> Vitals {
        let open = match &self.role {
            Role::Leader(leader) => leader.open.len(),
            _ => 0,
        };
        Vitals {
            role: self.role_name(),
            hard_state: self.hard_state,
            durable_hard_state: self.durability.hard_state,
            leader: self.leader(),
            last: self.log.last(),
            durable: self.durability.durable,
            commit_index: self.commit_index,
            apply_issued: self.apply_issued,
            last_applied: self.applied,
            stalled: self.stalled,
            open_proposals: open,
            uncommitted_bytes: self.uncommitted_bytes(),
            unapplied_bytes: self.unapplied_bytes(),
        }
    }

    /// What was dropped at the door.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// What this server is.
    #[must_use]
    pub const fn role_name(&self) -> RoleName {
        match &self.role {
            Role::Follower(_) => RoleName::Follower,
            Role::PreCandidate(_) => RoleName::PreCandidate,
            Role::Candidate(_) => RoleName::Candidate,
            Role::Leader(_) => RoleName::Leader,
        }
    }
}
