//! What a server is, and what it knows only because it is that.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::{Progress, Token};
use crate::{Checkpoint, Index, LogTime, NodeId};

/// The roles of Raft §5.1, with the pre-candidate of thesis §9.6. Each holds what only it needs, so
/// nothing of an old role outlives it.
#[derive(Debug)]
pub(super) enum Role {
    Follower(Follower),
    PreCandidate(Candidate),
    Candidate(Candidate),
    Leader(Box<Leader>),
}

/// Follows a leader, or waits for one.
#[derive(Debug, Default)]
pub(super) struct Follower {
    pub(super) leader: Option<NodeId>,
    /// When the leader was last heard, in ticks.
    pub(super) heard: u64,
    /// When to campaign, in ticks.
    pub(super) election_deadline: u64,
    /// Our log equals this leader's up to here. Zero until the leader has shown it.
    pub(super) matched: Index,
    /// The last acknowledgement that was sent to this leader.
    pub(super) acknowledged: Index,
    /// An append that waits for its answer.
    pub(super) append_owed: bool,
    /// A heartbeat round that waits for its answer.
    pub(super) heartbeat_owed: Option<u64>,
    /// The leader's latest round.
    pub(super) round: u64,
    /// A checksum of the leader's to compare with once that much is applied here.
    pub(super) expected: Option<Checkpoint>,
}

/// Asks for votes, or asks whether it would get them.
#[derive(Debug)]
pub(super) struct Candidate {
    /// The answers so far.
    pub(super) votes: BTreeMap<NodeId, bool>,
    /// When to give up and try again, in ticks.
    pub(super) election_deadline: u64,
    /// Whether a leader asked for this campaign.
    pub(super) transfer: bool,
    /// Whether the votes have been asked for. A candidate waits for its own vote to be durable.
    pub(super) asked: bool,
    /// Votes counted with repetitions: what a known bug did.
    pub(super) grants: usize,
}

impl Candidate {
    pub(super) fn new(election_deadline: u64, transfer: bool) -> Self {
        Self { votes: BTreeMap::new(), election_deadline, transfer, asked: false, grants: 0 }
    }
}

/// Replicates its log to all others.
#[derive(Debug)]
pub(super) struct Leader {
    /// Every other member, in order.
    pub(super) peers: Vec<(NodeId, Progress)>,
    /// The blank entry that opened this term. Nothing below it is committed by counting (Raft §5.4.2).
    pub(super) term_start: Index,
    /// The number of the last round of heartbeats.
    pub(super) round: u64,
    /// When the next round is due, in ticks.
    pub(super) heartbeat_deadline: u64,
    /// Who waits for which entry, in the order of the entries.
    pub(super) open: VecDeque<(Index, Token)>,
    pub(super) transfer: Option<Transfer>,
    /// Log time goes on from here: (the last entry's time at election, the clock then).
    pub(super) clock: (LogTime, Duration),
}

/// A transfer of leadership under way (thesis §3.10).
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    pub(super) to: NodeId,
    /// When it is given up, in ticks.
    pub(super) deadline: u64,
    /// Whether the target has been told to campaign.
    pub(super) told: bool,
}

impl Leader {
    pub(super) fn progress(&self, node: NodeId) -> Option<&Progress> {
        self.peers.iter().find(|(peer, _)| *peer == node).map(|(_, progress)| progress)
    }

    pub(super) fn progress_mut(&mut self, node: NodeId) -> Option<&mut Progress> {
        self.peers.iter_mut().find(|(peer, _)| *peer == node).map(|(_, progress)| progress)
    }
}
