//! Values of every kind: fixed ones for the stored frames, and any for the properties.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use graft_core::{
    AppendEntries, AppendEntriesResponse, AppendOutcome, BirthReport, BirthStage, Checkpoint,
    ClientRequest, ClusterId, Entries, Entry, EntryKind, EntryRef, Epoch, GroupId, Heartbeat,
    HeartbeatResponse, Incarnation, Index, InstallSnapshot, InstallSnapshotResponse, LeaderHint,
    LogId, LogTime, Membership, Message, NodeId, NodeInfo, PeerEnvelope, RejectReason, Reply,
    SessionId, SnapshotMeta, SnapshotOutcome, Term, VoteRequest, VoteResponse,
    session::{CommandHeader, encode_command},
};
use graft_transport::wire::v1::{
    Frame, FrameReader, Hello, Limits, Members, Outgoing, Protocol, Refusal, RefusalCode, Role,
    Schema,
};

use crate::targets::Value;

pub(crate) const CLUSTER: ClusterId = ClusterId(0x0123_4567_89ab_cdef);

/// The bytes that a value goes out as.
pub(crate) fn written(value: &Value) -> Vec<u8> {
    let mut out = Outgoing::new();
    value.encode(CLUSTER, &mut out);
    all(&mut out)
}

pub(crate) fn all(out: &mut Outgoing) -> Vec<u8> {
    let length = out.len();
    let bytes = out.chunks().concat();
    assert_eq!(bytes.len(), length, "the length must be that of the chunks");
    out.clear();
    bytes
}

pub(crate) fn reader() -> FrameReader {
    FrameReader::new(Limits::default(), Some(CLUSTER))
}

/// All frames in `bytes`, which must be whole.
pub(crate) fn frames(bytes: &[u8]) -> Vec<Frame> {
    let mut reader = reader();
    reader.feed(Bytes::copy_from_slice(bytes));
    let frames = std::iter::from_fn(|| reader.next().unwrap()).collect();
    reader.finish().unwrap();
    frames
}

/// The one frame in `bytes`.
pub(crate) fn frame(bytes: &[u8]) -> Frame {
    let mut frames = frames(bytes);
    assert_eq!(frames.len(), 1);
    frames.remove(0)
}

pub(crate) fn membership() -> Membership {
    let info = |name: &str| NodeInfo {
        name: name.into(),
        peer_address: format!("{name}.example:4400"),
        client_address: format!("{name}.example:4401"),
        incarnation: Incarnation(NodeId::of_name(name).0 ^ 1),
        priority: 1,
    };
    let of = |name| (NodeId::of_name(name), info(name));
    let mut membership = Membership::of_voters(["server1", "server2", "server3"].map(of));
    membership.outgoing = membership.voters.iter().take(2).copied().collect();
    membership.target = Some(BTreeSet::from([NodeId::of_name("server1")]));
    let (node, learner) = of("server4");
    membership.learners.insert(node);
    membership.nodes.insert(node, learner);
    membership
}

pub(crate) fn entry(term: u64, index: u64, kind: EntryKind, payload: impl Into<Bytes>) -> Entry {
    let log_id = LogId::new(term, index);
    Entry { log_id, time: LogTime(1000 + index), kind, payload: payload.into() }
}

pub(crate) fn entries() -> Entries {
    let long: Vec<u8> = (0..=255).cycle().take(5000).collect();
    Entries::from(vec![
        entry(3, 11, EntryKind::SessionCommand, &b"sixteen bytes it"[..]),
        entry(3, 12, EntryKind::Plain, Bytes::new()),
        entry(4, 13, EntryKind::Blank, &[7; 8][..]),
        entry(4, 14, EntryKind::Membership, membership().encode()),
        entry(4, 15, EntryKind::SessionOpen, long),
        entry(4, 16, EntryKind::SessionKeepAlive, &b"x"[..]),
        entry(5, 17, EntryKind::SessionClose, &b"the last one of the frame"[..]),
    ])
}

pub(crate) fn command(session: u64, sequence: u64, floor: u64, body: &[u8]) -> Bytes {
    let session = SessionId(session);
    encode_command(&CommandHeader { session, sequence, floor, version: 3 }, body)
}

/// Commands of which some are chains: the second to the fourth, and the last two.
fn chained_entries() -> Entries {
    let payloads = [
        command(70, 8, 1, b""),
        command(70, 1000, 900, b"first"),
        command(70, 1001, 900, b""),
        command(70, 1002, 900, b"seventeen bytes !"),
        command(70, 1003, 901, b"another floor"),
        command(70, 1004, 901, &[9; 5000]),
        command(71, u64::MAX, u64::MAX, b"x"),
        command(71, 0, u64::MAX, b"y"),
    ];
    let list = (11..).zip(payloads).map(|(index, payload)| {
        let entry = entry(4, index, EntryKind::SessionCommand, payload);
        Entry { time: LogTime(1000), ..entry }
    });
    list.collect()
}

/// The same as requests.
pub(crate) fn chained_requests() -> Vec<ClientRequest> {
    let entries = chained_entries();
    let request = |(request_id, entry): (u64, EntryRef<'_>)| ClientRequest {
        request_id,
        deadline: Duration::from_secs(5),
        kind: entry.kind,
        payload: entry.shared_payload(),
    };
    (1..).zip(entries.iter()).map(request).collect()
}

pub(crate) fn snapshot() -> InstallSnapshot {
    InstallSnapshot {
        term: Term(5),
        meta: SnapshotMeta {
            id: 77,
            cluster: CLUSTER,
            epoch: Epoch(2),
            group: GroupId(0),
            last: LogId::new(4, 1_000_000),
            time: LogTime(86_400_000),
            membership: (LogId::new(2, 900), membership()),
            schema: 3,
            size: 1 << 33,
            digest: 0xfeed_beef_fade_cafe,
            format: 0x1122_3344_5566_7788,
        },
        offset: 1 << 32,
        chunk: Bytes::from_static(b"a piece of a snapshot"),
        last: true,
    }
}

pub(crate) fn peer(message: Message) -> PeerEnvelope {
    PeerEnvelope {
        group: GroupId(0),
        from: NodeId::of_name("server1"),
        to: NodeId::of_name("server2"),
        from_incarnation: Incarnation(0xaaaa_bbbb),
        to_incarnation: Incarnation(0),
        message,
    }
}

pub(crate) fn messages() -> Vec<(&'static str, Message)> {
    let vote = |transfer| VoteRequest { term: Term(9), last: LogId::new(8, 1234), transfer };
    let answer = |granted| VoteResponse { term: Term(9), granted };
    let appended = |outcome| AppendEntriesResponse { term: Term(9), round: 41, outcome };
    let conflict = AppendOutcome::Conflict { rejected: Index(30), index: Index(20), term: Term(7) };
    let installed = |outcome| {
        let (term, id, next_offset) = (Term(9), 77, 4096);
        Message::InstallSnapshotResponse(InstallSnapshotResponse { term, id, next_offset, outcome })
    };
    let beat = |checksum| {
        let (term, commit, round) = (Term(9), Index(1200), 42);
        Message::Heartbeat(Heartbeat { term, commit, round, checksum })
    };
    let append = |prev, entries| {
        let (term, commit, round) = (Term(5), Index(10), 40);
        Message::AppendEntries(AppendEntries { term, prev, commit, round, entries })
    };
    let checkpoint = Checkpoint { index: Index(1024), checksum: 0xdead_beef };
    let born = |stage| Message::Birth(Box::new(BirthReport { life: 5, echo: 6, stage }));
    vec![
        ("pre-vote", Message::PreVote(vote(false))),
        ("pre-vote-response", Message::PreVoteResponse(answer(true))),
        ("request-vote", Message::RequestVote(vote(true))),
        ("request-vote-response", Message::RequestVoteResponse(answer(false))),
        ("append-entries", append(LogId::new(3, 10), entries())),
        ("append-chains", append(LogId::new(3, 10), chained_entries())),
        ("append-probe", append(LogId::ZERO, Entries::new())),
        (
            "append-matched",
            Message::AppendEntriesResponse(appended(AppendOutcome::Matched(Index(17)))),
        ),
        ("append-conflict", Message::AppendEntriesResponse(appended(conflict))),
        ("append-stale", Message::AppendEntriesResponse(appended(AppendOutcome::StaleTerm))),
        ("heartbeat", beat(None)),
        ("heartbeat-checksum", beat(Some(checkpoint))),
        (
            "heartbeat-response",
            Message::HeartbeatResponse(HeartbeatResponse {
                term: Term(9),
                round: 42,
                matched: Index(1200),
                received: Index(1300),
                applied: Index(1100),
                stalled: true,
            }),
        ),
        ("install-snapshot", Message::InstallSnapshot(Box::new(snapshot()))),
        ("install-continue", installed(SnapshotOutcome::Continue)),
        ("install-installed", installed(SnapshotOutcome::Installed)),
        ("install-rejected", installed(SnapshotOutcome::Rejected)),
        ("timeout-now", Message::TimeoutNow { term: Term(9) }),
        ("read-index", Message::ReadIndex { term: Term(9), id: 3 }),
        (
            "read-index-response",
            Message::ReadIndexResponse { term: Term(9), id: 3, index: Some(Index(1200)) },
        ),
        ("read-index-refused", Message::ReadIndexResponse { term: Term(9), id: 4, index: None }),
        ("birth-newborn", born(BirthStage::Newborn { founders: membership().nodes })),
        ("birth-founded", born(BirthStage::Founded { membership: membership() })),
        ("birth-already-founded", born(BirthStage::AlreadyFounded)),
    ]
}

pub(crate) fn requests() -> Vec<ClientRequest> {
    let request = |request_id, seconds, kind, payload: &[u8]| ClientRequest {
        request_id,
        deadline: Duration::from_secs(seconds),
        kind,
        payload: Bytes::copy_from_slice(payload),
    };
    vec![
        request(1, 5, EntryKind::SessionOpen, &[1; 16]),
        request(2, 5, EntryKind::SessionCommand, &[2; 100]),
        request(3, 0, EntryKind::Plain, b""),
        request(u64::MAX, 1000, EntryKind::SessionClose, &[3; 5000]),
    ]
}

pub(crate) fn replies() -> Vec<(u64, Reply)> {
    let hint = |leader, members| LeaderHint { leader, members };
    let members = Some(Arc::new(membership()));
    let leader = Some(NodeId::of_name("server3"));
    let rejected = [
        RejectReason::NotLeader(hint(leader, members.clone())),
        RejectReason::NotLeader(hint(None, members)),
        RejectReason::NotLeader(hint(None, None)),
        RejectReason::Overloaded,
        RejectReason::DeadlinePassed,
        RejectReason::LeadershipLost(hint(leader, None)),
        RejectReason::Invalid("byte 3 is no number: “x”".into()),
        RejectReason::TooLarge { bytes: 2_000_000, limit: 1_048_576 },
        RejectReason::Stopping { proposed: true },
        RejectReason::Stopping { proposed: false },
    ];
    let others = [
        Reply::Applied(Bytes::from_static(b"an answer")),
        Reply::Applied(Bytes::new()),
        Reply::Applied(vec![9; 4096].into()),
        Reply::Panicked(Bytes::from_static(b"index out of bounds")),
        Reply::SessionOpened(SessionId(4711)),
        Reply::SessionDone,
        Reply::SessionExpired,
        Reply::Forgotten,
        Reply::SessionFull,
        Reply::ResponseTooLarge { bytes: 20_000_000, limit: 16_777_216 },
    ];
    (100..).zip(others.into_iter().chain(rejected.map(Reply::Rejected))).collect()
}

pub(crate) fn hello(role: Role) -> Hello {
    let server = role == Role::Server;
    let if_server = |number| if server { number } else { 0 };
    Hello {
        cluster: CLUSTER,
        protocol: Protocol::OWN,
        role,
        epoch: Epoch(if_server(2)),
        node: NodeId(if_server(NodeId::of_name("server1").0)),
        name: "server1".into(),
        incarnation: Incarnation(if_server(0xaaaa_bbbb)),
        client: if server { 0 } else { 0x5555_6666 },
        machine: "stack::StackEntry".into(),
        format: 0x212c_2e1c_55dd_6a2c,
        schema: Schema { lowest: 1, highest: 3 },
        max_entry_bytes: 1 << 20,
        max_frame_bytes: 4 << 20,
        max_reply_bytes: 3 << 20,
        election_timeout: Duration::from_millis(if_server(600)),
    }
}

/// The values of the stored frames. What is here once stays as it is; more may be added.
pub(crate) fn fixed() -> Vec<(String, Value)> {
    let peers = messages().into_iter().map(|(name, message)| (name, Value::Peer(peer(message))));
    let refusal = |code, text: &str| Value::Refusal(Refusal { code, text: text.into() });
    let members = |leader| {
        let membership = Arc::new(membership());
        Value::Members(Members { term: Term(9), leader, membership })
    };
    let others = [
        ("hello-server", Value::Hello(hello(Role::Server))),
        ("hello-client", Value::Hello(hello(Role::Client))),
        ("refusal", refusal(RefusalCode::WrongCluster, "this is cluster stack, not queue")),
        ("refusal-unknown", refusal(RefusalCode::Other(999), "of a later version")),
        ("requests", Value::Requests(requests())),
        ("requests-chains", Value::Requests(chained_requests())),
        ("replies", Value::Replies(replies())),
        ("members", members(Some(NodeId::of_name("server3")))),
        ("members-no-leader", members(None)),
    ];
    peers.chain(others).map(|(name, value)| (name.to_owned(), value)).collect()
}
