//! Messages of every kind and size.

use std::sync::Arc;

use bytes::Bytes;
use graft_core::{
    AppendEntries, AppendEntriesResponse, AppendOutcome, Checkpoint, Class, ClusterId, Entries,
    Entry, EntryKind, Epoch, GroupId, Heartbeat, HeartbeatResponse, Incarnation, Index,
    InstallSnapshot, InstallSnapshotResponse, LeaderHint, LogId, LogTime, Membership, Message,
    NodeId, NodeInfo, PeerEnvelope, RejectReason, Reply, SessionId, SnapshotMeta, SnapshotOutcome,
    Term, VoteRequest, VoteResponse,
};

pub(super) fn envelope(from: NodeId, to: NodeId, message: Message) -> PeerEnvelope {
    PeerEnvelope {
        group: GroupId(0),
        from,
        to,
        from_incarnation: Incarnation(0xfeed_0000_0000_0001),
        to_incarnation: Incarnation(u64::MAX),
        message,
    }
}

/// A message by which the suite finds out whether two servers are connected. No check sends term 0.
pub(super) fn probe(from: NodeId, to: NodeId) -> PeerEnvelope {
    envelope(from, to, Message::TimeoutNow { term: Term(0) })
}

pub(super) fn is_probe(envelope: &PeerEnvelope) -> bool {
    envelope.message.term() == Term(0)
}

/// A message as a failure names it. Payloads are large, so only their size is shown.
pub(super) fn describe(envelope: &PeerEnvelope) -> String {
    let PeerEnvelope { from, to, message, .. } = envelope;
    let (class, size, term) = (message.class(), message.size(), message.term());
    format!("a message of class {class:?} and {size} bytes in term {term} from {from} to {to}")
}

/// Bytes that differ from their neighbours and from others of their length.
pub(super) fn bytes(length: usize, salt: usize) -> Bytes {
    // A block whose length is prime: no part repeats at the distances of buffers and chunks.
    let block: Vec<u8> =
        (0..length.min(8191)).map(|at| (at * 31 + at / 253 + salt * 7).to_le_bytes()[0]).collect();
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        let left = block.len().min(length - bytes.len());
        bytes.extend_from_slice(&block[..left]);
    }
    bytes.into()
}

fn entry(index: u64, kind: EntryKind, payload: Bytes) -> Entry {
    let log_id = LogId::new(3 + index / 10, index);
    Entry { log_id, time: LogTime(index << 33), kind, payload }
}

pub(super) fn append(number: u64, entries: Entries) -> Message {
    Message::AppendEntries(AppendEntries {
        term: Term(number),
        prev: LogId::new(2, 4),
        commit: Index(number << 40),
        round: u64::MAX - number,
        entries,
    })
}

/// An append of one entry.
pub(super) fn append_of(number: u64, payload: Bytes) -> Message {
    append(number, vec![entry(5, EntryKind::Plain, payload)].into())
}

pub(super) fn heartbeat(number: u64) -> Message {
    Message::Heartbeat(Heartbeat {
        term: Term(number),
        commit: Index(8),
        round: number,
        checksum: number
            .is_multiple_of(2)
            .then_some(Checkpoint { index: Index(1024), checksum: u64::MAX }),
    })
}

pub(super) fn membership() -> Membership {
    let node = |id: u64| {
        let info = NodeInfo {
            name: format!("server{id}"),
            peer_address: format!("[2001:db8::{id}]:4400"),
            client_address: format!("ünïcode-{id}.example:4401"),
            incarnation: Incarnation(id << 50),
            priority: u32::MAX,
        };
        (NodeId(id), info)
    };
    let mut membership = Membership::of_voters((1..8).map(node));
    membership.outgoing = [NodeId(1), NodeId(2)].into();
    membership.voters.remove(&NodeId(7));
    membership.learners = [NodeId(7)].into();
    membership.target = Some([NodeId(3)].into());
    membership
}

pub(super) fn install(number: u64, chunk: Bytes) -> Message {
    Message::InstallSnapshot(Box::new(InstallSnapshot {
        term: Term(number),
        meta: SnapshotMeta {
            id: number,
            cluster: ClusterId(77),
            epoch: Epoch(2),
            group: GroupId(0),
            last: LogId::new(5, 99),
            time: LogTime(123_456),
            membership: (LogId::new(1, 1), membership()),
            schema: u16::MAX,
            size: 1 << 40,
            digest: 0xdead_beef,
            format: 3,
        },
        offset: number << 20,
        chunk,
        last: number.is_multiple_of(2),
    }))
}

/// One message of each kind, with every field and every variant of its parts.
pub(super) fn messages() -> Vec<Message> {
    let request = VoteRequest { term: Term(9), last: LogId::new(8, 1 << 60), transfer: true };
    let response = VoteResponse { term: Term(9), granted: true };
    let outcomes = [
        AppendOutcome::Matched(Index(7)),
        AppendOutcome::Conflict { rejected: Index(9), index: Index(5), term: Term(2) },
        AppendOutcome::StaleTerm,
    ];
    let snapshot_outcomes =
        [SnapshotOutcome::Continue, SnapshotOutcome::Installed, SnapshotOutcome::Rejected];
    let mut messages = vec![
        Message::PreVote(request),
        Message::PreVote(VoteRequest { transfer: false, ..request }),
        Message::PreVoteResponse(response),
        Message::RequestVote(request),
        Message::RequestVoteResponse(response),
        Message::RequestVoteResponse(VoteResponse { granted: false, ..response }),
        heartbeat(10),
        heartbeat(11),
        Message::HeartbeatResponse(HeartbeatResponse {
            term: Term(4),
            round: 5,
            matched: Index(6),
            received: Index(7),
            applied: Index(8),
            stalled: true,
        }),
        Message::TimeoutNow { term: Term(1 << 61) },
        Message::ReadIndex { term: Term(4), id: u64::MAX },
        Message::ReadIndexResponse { term: Term(4), id: 3, index: Some(Index(12)) },
        Message::ReadIndexResponse { term: Term(4), id: 4, index: None },
    ];
    messages.extend(outcomes.map(|outcome| {
        let (term, round) = (Term(4), 17);
        Message::AppendEntriesResponse(AppendEntriesResponse { term, round, outcome })
    }));
    messages.extend(snapshot_outcomes.map(|outcome| {
        let (term, id, next_offset) = (Term(4), 17, u64::MAX);
        let response = InstallSnapshotResponse { term, id, next_offset, outcome };
        Message::InstallSnapshotResponse(response)
    }));
    messages
}

/// Appends and snapshot chunks from empty to several MiB.
pub(super) fn bulky_messages() -> Vec<Message> {
    let kinds = [
        EntryKind::Blank,
        EntryKind::Membership,
        EntryKind::Plain,
        EntryKind::SessionOpen,
        EntryKind::SessionKeepAlive,
        EntryKind::SessionClose,
        EntryKind::SessionCommand,
    ];
    let of_each_kind = (5_u64..).zip(kinds).map(|(index, kind)| match kind {
        EntryKind::Membership => entry(index, kind, membership().encode()),
        _ => entry(index, kind, bytes(33, 1)),
    });
    let many = (5..3005_u64).map(|index| {
        let length = usize::try_from(index).unwrap_or_default() % 70;
        entry(index, EntryKind::SessionCommand, bytes(length, 2))
    });
    let large = (5..11_u64).map(|index| entry(index, EntryKind::Plain, bytes(1 << 20, 3)));
    let mut in_segments: Entries = vec![entry(5, EntryKind::Plain, bytes(5, 4))].into();
    in_segments.append(vec![entry(6, EntryKind::Plain, bytes(6, 4))].into());
    let mut whole: Entries = (5..20).map(|i| entry(i, EntryKind::Plain, bytes(9, 5))).collect();
    whole.drop_below(Index(8));
    let mut messages = vec![
        append(20, Entries::new()),
        append(21, of_each_kind.collect()),
        append(22, many.collect()),
        append(23, large.collect()),
        append(24, in_segments),
        append(25, whole),
    ];
    for (number, length) in (30..).zip([0, 1, 15, 16, 17, 1000, 65_535, 65_536, 5 << 20]) {
        messages.push(append_of(number, bytes(length, 6)));
        messages.push(install(number, bytes(length, 7)));
    }
    messages
}

/// A small message of this class, told apart by its number. There is none of the class of requests.
pub(super) fn small(class: Class, number: u64) -> Message {
    match class {
        Class::Append => append_of(number, bytes(10, 1)),
        Class::Snapshot => install(number, bytes(10, 1)),
        Class::Control | Class::Request => heartbeat(number),
    }
}

/// One reply of each kind, with every variant of its parts.
pub(super) fn replies() -> Vec<Reply> {
    let nobody = LeaderHint::default();
    let hint = LeaderHint { leader: Some(NodeId(3)), members: Some(Arc::new(membership())) };
    let reasons = [
        RejectReason::NotLeader(nobody.clone()),
        RejectReason::NotLeader(hint.clone()),
        RejectReason::Overloaded,
        RejectReason::DeadlinePassed,
        RejectReason::LeadershipLost(hint),
        RejectReason::LeadershipLost(nobody),
        RejectReason::Invalid("it does not decode: ünïcode".into()),
        RejectReason::TooLarge { bytes: 5 << 20, limit: 1 << 20 },
        RejectReason::Stopping { proposed: true },
        RejectReason::Stopping { proposed: false },
    ];
    let mut replies = vec![
        Reply::Applied(Bytes::new()),
        Reply::Applied(bytes(100, 1)),
        Reply::Applied(bytes(2 << 20, 2)),
        Reply::Panicked(bytes(30, 3)),
        Reply::SessionOpened(SessionId(1 << 61)),
        Reply::SessionDone,
        Reply::SessionExpired,
        Reply::Forgotten,
        Reply::SessionFull,
        Reply::ResponseTooLarge { bytes: 20 << 20, limit: 16 << 20 },
    ];
    replies.extend(reasons.map(Reply::Rejected));
    replies
}
