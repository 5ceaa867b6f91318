//! Messages between servers: the envelope, and all messages that are but a few numbers.

use graft_core::{
    AppendEntriesResponse, AppendOutcome, Checkpoint, ClusterId, Heartbeat, HeartbeatResponse,
    Incarnation, Index, InstallSnapshotResponse, LogId, Message, NodeId, PeerEnvelope,
    SnapshotOutcome, Term, VoteRequest, VoteResponse,
};
use rkyv::{Archive, Serialize};

use super::{Frame, Kind, Limits, Outgoing, WireError, append, birth, outgoing::Payload, snapshot};

/// Appends a message to what goes out.
///
/// # Errors
///
/// [`WireError::TooLarge`] where the receiver would refuse it by `limits`; then nothing is appended.
pub fn encode_peer(
    envelope: &PeerEnvelope,
    cluster: ClusterId,
    limits: &Limits,
    out: &mut Outgoing,
) -> Result<(), WireError> {
    let header = |kind| (kind, cluster, envelope.group);
    match &envelope.message {
        Message::AppendEntries(append) => {
            append::encode(envelope, append, header(Kind::Append), limits, out)
        }
        Message::InstallSnapshot(install) => {
            snapshot::encode(envelope, install, header(Kind::Snapshot), limits, out)
        }
        Message::Birth(report) => birth::encode(envelope, report, header(Kind::Birth), limits, out),
        message => {
            let said = Said::of(message)
                .ok_or(WireError::Unwritable { what: "it is newer than the format" })?;
            let body = MessageBody { address: envelope.into(), said };
            out.frame(header(Kind::Message), &body, std::iter::empty::<Payload<'_>>(), limits)
        }
    }
}

/// The message in a frame. Payloads share the frame's memory.
///
/// # Errors
///
/// [`WireError`] says what is wrong with it. Whether the message makes sense is for `Raft` to judge.
pub fn decode_peer(frame: &Frame) -> Result<PeerEnvelope, WireError> {
    match frame.kind() {
        Kind::Append => append::decode(frame),
        Kind::Snapshot => snapshot::decode(frame),
        Kind::Birth => birth::decode(frame),
        _ => {
            let body = frame.access::<ArchivedMessageBody>(Kind::Message)?;
            frame.payloads().finish()?;
            Ok(body.address.envelope(frame, body.said.message()))
        }
    }
}

/// An envelope but for its group, which the header has.
#[derive(Archive, Serialize)]
pub(super) struct Address {
    from: u64,
    to: u64,
    from_incarnation: u64,
    to_incarnation: u64,
}

impl From<&PeerEnvelope> for Address {
    fn from(envelope: &PeerEnvelope) -> Self {
        Self {
            from: envelope.from.0,
            to: envelope.to.0,
            from_incarnation: envelope.from_incarnation.0,
            to_incarnation: envelope.to_incarnation.0,
        }
    }
}

impl ArchivedAddress {
    pub(super) fn envelope(&self, frame: &Frame, message: Message) -> PeerEnvelope {
        PeerEnvelope {
            group: frame.header().group,
            from: NodeId(self.from.to_native()),
            to: NodeId(self.to.to_native()),
            from_incarnation: Incarnation(self.from_incarnation.to_native()),
            to_incarnation: Incarnation(self.to_incarnation.to_native()),
            message,
        }
    }
}

/// A `LogId`.
#[derive(Archive, Serialize)]
pub(super) struct LogPlace {
    term: u64,
    index: u64,
}

impl From<LogId> for LogPlace {
    fn from(log_id: LogId) -> Self {
        Self { term: log_id.term.0, index: log_id.index.0 }
    }
}

impl From<&ArchivedLogPlace> for LogId {
    fn from(place: &ArchivedLogPlace) -> Self {
        Self::new(place.term.to_native(), place.index.to_native())
    }
}

#[derive(Archive, Serialize)]
struct MessageBody {
    address: Address,
    said: Said,
}

/// A message that is but a few numbers. The order of the variants is part of the format.
#[derive(Archive, Serialize)]
enum Said {
    PreVote {
        term: u64,
        last: LogPlace,
        transfer: bool,
    },
    PreVoteResponse {
        term: u64,
        granted: bool,
    },
    RequestVote {
        term: u64,
        last: LogPlace,
        transfer: bool,
    },
    RequestVoteResponse {
        term: u64,
        granted: bool,
    },
    Matched {
        term: u64,
        round: u64,
        index: u64,
    },
    Conflict {
        term: u64,
        round: u64,
        rejected: u64,
        index: u64,
        at: u64,
    },
    StaleTerm {
        term: u64,
        round: u64,
    },
    Heartbeat {
        term: u64,
        commit: u64,
        round: u64,
        checksum: Option<(u64, u64)>,
    },
    HeartbeatResponse {
        term: u64,
        round: u64,
        matched: u64,
        received: u64,
        applied: u64,
        stalled: bool,
    },
    SnapshotContinue {
        term: u64,
        id: u64,
        next_offset: u64,
    },
    SnapshotInstalled {
        term: u64,
        id: u64,
        next_offset: u64,
    },
    SnapshotRejected {
        term: u64,
        id: u64,
        next_offset: u64,
    },
    TimeoutNow {
        term: u64,
    },
    ReadIndex {
        term: u64,
        id: u64,
    },
    ReadIndexResponse {
        term: u64,
        id: u64,
        index: Option<u64>,
    },
}

impl Said {
    /// `None` where the message has a kind of its own, or is of a later version.
    fn of(message: &Message) -> Option<Self> {
        Some(match message {
            Message::PreVote(vote) => {
                Self::PreVote { term: vote.term.0, last: vote.last.into(), transfer: vote.transfer }
            }
            Message::PreVoteResponse(vote) => {
                Self::PreVoteResponse { term: vote.term.0, granted: vote.granted }
            }
            Message::RequestVote(vote) => Self::RequestVote {
                term: vote.term.0,
                last: vote.last.into(),
                transfer: vote.transfer,
            },
            Message::RequestVoteResponse(vote) => {
                Self::RequestVoteResponse { term: vote.term.0, granted: vote.granted }
            }
            Message::AppendEntriesResponse(answer) => Self::of_append(*answer),
            Message::Heartbeat(heartbeat) => Self::Heartbeat {
                term: heartbeat.term.0,
                commit: heartbeat.commit.0,
                round: heartbeat.round,
                checksum: heartbeat.checksum.map(|at| (at.index.0, at.checksum)),
            },
            Message::HeartbeatResponse(answer) => Self::HeartbeatResponse {
                term: answer.term.0,
                round: answer.round,
                matched: answer.matched.0,
                received: answer.received.0,
                applied: answer.applied.0,
                stalled: answer.stalled,
            },
            Message::InstallSnapshotResponse(answer) => return Self::of_install(*answer),
            Message::TimeoutNow { term } => Self::TimeoutNow { term: term.0 },
            Message::ReadIndex { term, id } => Self::ReadIndex { term: term.0, id: *id },
            Message::ReadIndexResponse { term, id, index } => {
                Self::ReadIndexResponse { term: term.0, id: *id, index: index.map(|index| index.0) }
            }
            _ => return None,
        })
    }

    const fn of_append(answer: AppendEntriesResponse) -> Self {
        let (term, round) = (answer.term.0, answer.round);
        match answer.outcome {
            AppendOutcome::Matched(index) => Self::Matched { term, round, index: index.0 },
            AppendOutcome::Conflict { rejected, index, term: at } => {
                Self::Conflict { term, round, rejected: rejected.0, index: index.0, at: at.0 }
            }
            AppendOutcome::StaleTerm => Self::StaleTerm { term, round },
        }
    }

    const fn of_install(answer: InstallSnapshotResponse) -> Option<Self> {
        let InstallSnapshotResponse { term: Term(term), id, next_offset, outcome } = answer;
        Some(match outcome {
            SnapshotOutcome::Continue => Self::SnapshotContinue { term, id, next_offset },
            SnapshotOutcome::Installed => Self::SnapshotInstalled { term, id, next_offset },
            SnapshotOutcome::Rejected => Self::SnapshotRejected { term, id, next_offset },
            _ => return None,
        })
    }
}

impl ArchivedSaid {
    fn message(&self) -> Message {
        match self {
            Self::PreVote { term, last, transfer } => Message::PreVote(vote(term, last, *transfer)),
            Self::PreVoteResponse { term, granted } => {
                Message::PreVoteResponse(VoteResponse { term: term_of(term), granted: *granted })
            }
            Self::RequestVote { term, last, transfer } => {
                Message::RequestVote(vote(term, last, *transfer))
            }
            Self::RequestVoteResponse { term, granted } => {
                Message::RequestVoteResponse(VoteResponse {
                    term: term_of(term),
                    granted: *granted,
                })
            }
            Self::Matched { term, round, index } => {
                append_answer(term, round, AppendOutcome::Matched(index_of(index)))
            }
            Self::Conflict { term, round, rejected, index, at } => {
                let (rejected, index) = (index_of(rejected), index_of(index));
                let outcome = AppendOutcome::Conflict { rejected, index, term: term_of(at) };
                append_answer(term, round, outcome)
            }
            Self::StaleTerm { term, round } => append_answer(term, round, AppendOutcome::StaleTerm),
            Self::Heartbeat { term, commit, round, checksum } => Message::Heartbeat(Heartbeat {
                term: term_of(term),
                commit: index_of(commit),
                round: round.to_native(),
                checksum: checksum
                    .as_ref()
                    .map(|at| Checkpoint { index: index_of(&at.0), checksum: at.1.to_native() }),
            }),
            Self::HeartbeatResponse { term, round, matched, received, applied, stalled } => {
                Message::HeartbeatResponse(HeartbeatResponse {
                    term: term_of(term),
                    round: round.to_native(),
                    matched: index_of(matched),
                    received: index_of(received),
                    applied: index_of(applied),
                    stalled: *stalled,
                })
            }
            Self::SnapshotContinue { term, id, next_offset } => {
                install_answer(term, id, next_offset, SnapshotOutcome::Continue)
            }
            Self::SnapshotInstalled { term, id, next_offset } => {
                install_answer(term, id, next_offset, SnapshotOutcome::Installed)
            }
            Self::SnapshotRejected { term, id, next_offset } => {
                install_answer(term, id, next_offset, SnapshotOutcome::Rejected)
            }
            Self::TimeoutNow { term } => Message::TimeoutNow { term: term_of(term) },
            Self::ReadIndex { term, id } => {
                Message::ReadIndex { term: term_of(term), id: id.to_native() }
            }
            Self::ReadIndexResponse { term, id, index } => Message::ReadIndexResponse {
                term: term_of(term),
                id: id.to_native(),
                index: index.as_ref().map(index_of),
            },
        }
    }
}

type Number = rkyv::Archived<u64>;

fn term_of(number: &Number) -> Term {
    Term(number.to_native())
}

fn index_of(number: &Number) -> Index {
    Index(number.to_native())
}

fn vote(term: &Number, last: &ArchivedLogPlace, transfer: bool) -> VoteRequest {
    VoteRequest { term: term_of(term), last: last.into(), transfer }
}

fn append_answer(term: &Number, round: &Number, outcome: AppendOutcome) -> Message {
    let (term, round) = (term_of(term), round.to_native());
    Message::AppendEntriesResponse(AppendEntriesResponse { term, round, outcome })
}

fn install_answer(
    term: &Number,
    id: &Number,
    next_offset: &Number,
    outcome: SnapshotOutcome,
) -> Message {
    Message::InstallSnapshotResponse(InstallSnapshotResponse {
        term: term_of(term),
        id: id.to_native(),
        next_offset: next_offset.to_native(),
        outcome,
    })
}
