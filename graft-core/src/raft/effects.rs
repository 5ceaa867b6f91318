//! What goes into [`Raft`](super::Raft) and what comes out: the whole of its contract with a driver.

use std::{ops::Range, time::Duration};

use bytes::Bytes;

use crate::{Checkpoint, Entries, EntryKind, Index, LogId, NodeId, PeerEnvelope, Write};

/// Something that happened. [`Raft::step`](super::Raft::step) takes it in; it cannot fail.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Input {
    /// The time. Every turn begins with it, read after waking.
    Time {
        /// Monotonic time since any fixed moment.
        now: Duration,
        /// The wall clock, in milliseconds since the Unix epoch. It decides nothing here; a leader
        /// writes it into the entry that opens its term.
        unix_millis: u64,
    },
    /// A peer said something.
    Message(PeerEnvelope),
    /// Clients want these in the log. Each is either refused by an [`Answer`] or travels with the
    /// [`Apply`] of its entry; where leadership is lost before that, an answer says so.
    Propose(Vec<Proposal>),
    /// The write with this number is durable.
    Persisted(WriteId),
    /// The machine has applied everything up to here.
    Applied {
        /// The last entry applied.
        index: Index,
        /// The machine's checksums at the multiples of [`Checkpoint::INTERVAL`] passed on the way.
        checkpoints: Vec<Checkpoint>,
    },
    /// The entries asked for by a [`Load`]. Fewer than asked for are fine; none where the range has
    /// been truncated or compacted since it was asked for.
    Loaded {
        /// The load's number.
        id: LoadId,
        /// A run from the start of the range.
        entries: Entries,
    },
    /// Hand leadership to this voter (thesis §3.10).
    Transfer {
        /// Who is to lead.
        to: NodeId,
        /// Who asks: answered by a [`Refusal`] where it cannot be tried. There is no answer to a
        /// transfer that is under way: watch the leader.
        token: Token,
    },
    /// Campaign now, without a pre-vote, whatever the election timer says.
    Campaign,
}

/// What must now happen, in lanes. No lane waits for another: a driver may run all of them at once.
/// Only writes are first-in first-out among themselves, and so are applies.
#[derive(Debug, Default)]
pub struct Effects {
    /// At most one write at a time: the next one comes only after [`Input::Persisted`].
    pub write: Option<WriteBatch>,
    /// Messages for peers. They may be lost.
    pub messages: Vec<PeerEnvelope>,
    /// At most one apply at a time: the next one comes only after [`Input::Applied`].
    pub apply: Option<Apply>,
    /// Proposals that will not be applied under their token here, and refused administration.
    pub answers: Vec<Answer>,
    /// Runs of the log to read from the store; each ends in [`Input::Loaded`].
    pub loads: Vec<Load>,
    /// The server must stop: going on would break a promise.
    pub fatal: Option<Fatal>,
}

impl Effects {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.write.is_none()
            && self.messages.is_empty()
            && self.apply.is_none()
            && self.answers.is_empty()
            && self.loads.is_empty()
            && self.fatal.is_none()
    }
}

/// The number of a write; they rise by one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct WriteId(pub u64);

/// One write for the store: all of it becomes durable, or nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WriteBatch {
    /// To be handed back in [`Input::Persisted`].
    pub id: WriteId,
    /// The orders, in order.
    pub writes: Vec<Write>,
}

/// The number of a load.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct LoadId(pub u64);

/// A part of the log that is no longer in memory and is wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Load {
    /// To be handed back in [`Input::Loaded`].
    pub id: LoadId,
    /// The entries wanted.
    pub range: Range<Index>,
    /// About how many bytes to give at most; at least one entry in any case.
    pub max_bytes: usize,
}

/// Committed entries for the machine, each exactly once and in order.
#[derive(Clone, Debug)]
pub struct Apply {
    /// The entries.
    pub entries: Entries,
    /// Who waits for which of them on this server, in the order of the entries.
    pub waiting: Vec<(Index, Token)>,
}

/// Who waits for a proposal: the link it came by, and the link's number for it. `Raft` only hands it back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Token {
    /// The link.
    pub link: LinkId,
    /// The number of the request on that link.
    pub request_id: u64,
}

/// A way back to a client. The transport that made it knows where it leads.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct LinkId(pub u64);

/// A command on its way into the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proposal {
    /// Who waits for it.
    pub token: Token,
    /// What it is; one of the kinds a client may propose.
    pub kind: EntryKind,
    /// What it carries.
    pub payload: Bytes,
}

/// The end of a proposal that is not applied under its token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Whose.
    pub token: Token,
    /// Why.
    pub refusal: Refusal,
}

/// Why `Raft` did not see a proposal through. All but [`Refusal::LeadershipLost`] mean that it never
/// entered the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Refusal {
    /// This server does not lead; where it knows who does, it says so.
    NotLeader {
        /// The leader, if known.
        leader: Option<NodeId>,
    },
    /// Too much is uncommitted or unapplied. Try again in a moment.
    Overloaded,
    /// Leadership is being handed over. Try again in a moment.
    Transferring,
    /// It was in the log when this server lost its leadership: it may be committed, or not.
    LeadershipLost {
        /// The new leader, if known.
        leader: Option<NodeId>,
    },
    /// The target of a transfer is no voter, is this server, or its disk is stalled.
    BadTransferTarget,
}

/// Proof that safety is at stake: the server must stop and say so.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fatal {
    /// A leader's entry conflicts with one that is committed here: acknowledged data was lost somewhere.
    #[error(
        "a leader of term {term} sent an entry {index} that contradicts a committed one: acknowledged \
         data has been lost on some server; keep this one's disk and compare before restarting anything"
    )]
    CommittedConflict {
        /// Where.
        index: Index,
        /// The leader's term.
        term: crate::Term,
    },
    /// The machine here differs from the leader's.
    #[error(
        "the machine differs from the leader's at entry {index}: it is not deterministic, or a bug or a \
         bad disk changed it; compare the servers before restarting any, because the leader may be the one \
         that is wrong"
    )]
    Diverged {
        /// Where it was noticed.
        index: Index,
    },
    /// Two leaders in one term.
    #[error(
        "servers {one} and {other} both lead term {term}: a vote was given twice, most likely by a \
         server that lost its disk; find out which before restarting anything"
    )]
    TwoLeaders {
        /// The term.
        term: crate::Term,
        /// The leader known here.
        one: NodeId,
        /// The other one.
        other: NodeId,
    },
    /// A membership entry that this build cannot read.
    #[error("the membership entry {at} cannot be read: upgrade this server first")]
    UnreadableMembership {
        /// Which entry.
        at: LogId,
    },
}
