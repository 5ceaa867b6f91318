//! What servers say to each other: one type a message of Raft's RPCs, request and answer apart.

use bytes::Bytes;

use crate::{BirthReport, Entries, GroupId, Incarnation, Index, LogId, NodeId, SnapshotMeta, Term};

/// A message between two servers, with everything needed to tell whether it is meant for this one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerEnvelope {
    /// The group it belongs to; 0 today.
    pub group: GroupId,
    /// Who says it.
    pub from: NodeId,
    /// Who is meant.
    pub to: NodeId,
    /// The birth of the sender's store.
    pub from_incarnation: Incarnation,
    /// The birth of the receiver's store as the sender's membership names it; zero where it does not know.
    pub to_incarnation: Incarnation,
    /// What is said.
    pub message: Message,
}

/// The messages of the protocol. Every one but [`Birth`](Self::Birth) states the sender's term; a
/// pre-vote states the term it would campaign in.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Message {
    /// "Would you vote for me?" (thesis §9.6). Changes no state anywhere.
    PreVote(VoteRequest),
    /// The answer to a pre-vote.
    PreVoteResponse(VoteResponse),
    /// A candidate asks for a vote (Raft §5.2).
    RequestVote(VoteRequest),
    /// The answer to a vote request.
    RequestVoteResponse(VoteResponse),
    /// A leader replicates entries (Raft §5.3).
    AppendEntries(AppendEntries),
    /// The answer to an append.
    AppendEntriesResponse(AppendEntriesResponse),
    /// A leader is alive. Not an empty append: on a stream of its own it may overtake one.
    Heartbeat(Heartbeat),
    /// The answer to a heartbeat.
    HeartbeatResponse(HeartbeatResponse),
    /// A leader sends a chunk of a snapshot (Raft §7). Boxed: it is rare and would make every other
    /// message three times as large.
    InstallSnapshot(Box<InstallSnapshot>),
    /// The answer to a chunk.
    InstallSnapshotResponse(InstallSnapshotResponse),
    /// A leader hands over: campaign now (thesis §3.10).
    TimeoutNow {
        /// The leader's term.
        term: Term,
    },
    /// A follower asks the leader for a read index (thesis §6.4).
    ReadIndex {
        /// The sender's term.
        term: Term,
        /// The sender's number for this question.
        id: u64,
    },
    /// The answer to a read index question.
    ReadIndexResponse {
        /// The sender's term.
        term: Term,
        /// The number of the question.
        id: u64,
        /// The index from which the read is linearizable, or `None`: not the leader, or not yet.
        index: Option<Index>,
    },
    /// Founders get to know each other. It belongs to no term. Boxed: it is rarer than a snapshot.
    Birth(Box<BirthReport>),
}

/// `PreVote` and `RequestVote`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VoteRequest {
    /// The term of the campaign.
    pub term: Term,
    /// The last entry of the candidate's log.
    pub last: LogId,
    /// Whether a leader asked for this campaign: then having a leader is no reason to refuse.
    pub transfer: bool,
}

/// The answer to `PreVote` and `RequestVote`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VoteResponse {
    /// A granted pre-vote repeats the campaign's term; every other answer states the voter's own.
    pub term: Term,
    /// Whether the vote is given.
    pub granted: bool,
}

/// `AppendEntries` (Raft §5.3).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AppendEntries {
    /// The leader's term.
    pub term: Term,
    /// The entry right before the first of `entries`.
    pub prev: LogId,
    /// How far the leader has committed.
    pub commit: Index,
    /// The leader's latest heartbeat round; the answer repeats it.
    pub round: u64,
    /// The entries; empty for a probe.
    pub entries: Entries,
}

/// The answer to `AppendEntries`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AppendEntriesResponse {
    /// The follower's term.
    pub term: Term,
    /// The round of the append that is answered.
    pub round: u64,
    /// What came of it.
    pub outcome: AppendOutcome,
}

/// What came of an append.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AppendOutcome {
    /// The follower's log equals the leader's up to here, durably.
    Matched(Index),
    /// `prev` did not match.
    Conflict {
        /// The `prev.index` that was refused.
        rejected: Index,
        /// The highest index at which the logs may still agree, as far as the follower can tell.
        index: Index,
        /// The follower's term at `index`: the leader skips a whole term at a time (Raft §5.3).
        term: Term,
    },
    /// The append was of a lower term; only the answer's term matters.
    StaleTerm,
}

/// A leader's heartbeat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heartbeat {
    /// The leader's term.
    pub term: Term,
    /// `min(commit, match of the receiver)`: never more than the receiver is known to have.
    pub commit: Index,
    /// The leader's number for this round of heartbeats.
    pub round: u64,
    /// The leader's machine at some index, for comparison.
    pub checksum: Option<Checkpoint>,
}

/// The answer to a heartbeat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeartbeatResponse {
    /// The follower's term.
    pub term: Term,
    /// The round that is answered.
    pub round: u64,
    /// The follower's log equals the leader's up to here, durably: an acknowledgement.
    pub matched: Index,
    /// The follower holds the leader's entries up to here, durable or not: no acknowledgement, but
    /// what the leader sent beyond it a round ago is lost.
    pub received: Index,
    /// How far the follower has applied.
    pub applied: Index,
    /// Whether the follower's disk has stopped answering.
    pub stalled: bool,
}

/// `InstallSnapshot` (Raft §7), a chunk at a time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InstallSnapshot {
    /// The leader's term.
    pub term: Term,
    /// Which snapshot.
    pub meta: SnapshotMeta,
    /// Where in it the chunk belongs, in bytes.
    pub offset: u64,
    /// The bytes.
    pub chunk: Bytes,
    /// Whether this is the last chunk.
    pub last: bool,
}

/// The answer to a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InstallSnapshotResponse {
    /// The follower's term.
    pub term: Term,
    /// The snapshot's id.
    pub id: u64,
    /// The next byte the follower wants.
    pub next_offset: u64,
    /// What came of it.
    pub outcome: SnapshotOutcome,
}

/// What came of a snapshot chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SnapshotOutcome {
    /// Staged; send the next.
    Continue,
    /// All of it is durable and installed.
    Installed,
    /// Not wanted: the follower has as much already, or the chunk does not fit.
    Rejected,
}

/// The state of a machine at an index, as a number: replicas that differ have diverged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// After this entry was applied.
    pub index: Index,
    /// The running checksum of outcomes and replies.
    pub checksum: u64,
}

impl Checkpoint {
    /// Checkpoints are taken at multiples of this many entries.
    pub const INTERVAL: u64 = 1024;
}

impl Message {
    /// The term the message states; zero where it belongs to none.
    #[must_use]
    pub const fn term(&self) -> Term {
        match self {
            Self::PreVote(message) | Self::RequestVote(message) => message.term,
            Self::PreVoteResponse(message) | Self::RequestVoteResponse(message) => message.term,
            Self::AppendEntries(message) => message.term,
            Self::AppendEntriesResponse(message) => message.term,
            Self::Heartbeat(message) => message.term,
            Self::HeartbeatResponse(message) => message.term,
            Self::InstallSnapshot(message) => message.term,
            Self::InstallSnapshotResponse(message) => message.term,
            Self::TimeoutNow { term }
            | Self::ReadIndex { term, .. }
            | Self::ReadIndexResponse { term, .. } => *term,
            Self::Birth(_) => Term(0),
        }
    }

    /// The class of traffic it travels in.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::AppendEntries(_) | Self::AppendEntriesResponse(_) => Class::Append,
            Self::InstallSnapshot(_) => Class::Snapshot,
            _ => Class::Control,
        }
    }

    /// About how many bytes it takes in memory and on the wire; queues are bounded by it.
    #[must_use]
    pub fn size(&self) -> usize {
        const HEADER: usize = 96;
        HEADER
            + match self {
                Self::AppendEntries(append) => append.entries.size(),
                Self::InstallSnapshot(install) => install.chunk.len(),
                Self::Birth(report) => report.size(),
                _ => 0,
            }
    }
}

/// Classes of traffic have queues and streams of their own: a snapshot never delays a vote.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Class {
    /// Votes, heartbeats, transfers, reads: small and urgent.
    Control,
    /// Entries and their acknowledgements.
    Append,
    /// Snapshot chunks.
    Snapshot,
    /// Requests of clients.
    Request,
}

impl Class {
    /// All classes, the most urgent first.
    pub const ALL: [Self; 4] = [Self::Control, Self::Append, Self::Snapshot, Self::Request];
}
