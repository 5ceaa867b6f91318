//! Any value comes out as it went in.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use graft_core::{
    AppendEntries, AppendEntriesResponse, AppendOutcome, BirthReport, BirthStage, Checkpoint,
    ClientRequest, Entries, Entry, EntryKind, Epoch, GroupId, Heartbeat, HeartbeatResponse,
    Incarnation, Index, InstallSnapshot, InstallSnapshotResponse, LeaderHint, LogId, LogTime,
    Membership, Message, NodeId, NodeInfo, PeerEnvelope, RejectReason, Reply, SessionId,
    SnapshotMeta, SnapshotOutcome, Term, VoteRequest, VoteResponse,
};
use graft_transport::wire::v1::{
    Hello, Members, Outgoing, Protocol, Refusal, RefusalCode, Role, Schema,
};
use proptest::{collection::vec, option, prelude::*, string::string_regex};

use crate::{
    samples::{CLUSTER, all, command, fixed, frame, frames, written},
    targets::Value,
};

fn term() -> impl Strategy<Value = Term> {
    any::<u64>().prop_map(Term)
}

fn index() -> impl Strategy<Value = Index> {
    any::<u64>().prop_map(Index)
}

fn log_id() -> impl Strategy<Value = LogId> {
    (any::<u64>(), any::<u64>()).prop_map(|(term, index)| LogId::new(term, index))
}

/// Mostly short, sometimes long enough to be shared instead of copied.
fn payload() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        8 => vec(any::<u8>(), 0..200).prop_map(Bytes::from),
        8 => (1..3_u64, 0..4_u64, 0..2_u64, vec(any::<u8>(), 0..100))
            .prop_map(|(session, sequence, floor, body)| command(session, sequence, floor, &body)),
        1 => (any::<u8>(), 4000..9000_usize).prop_map(|(byte, len)| vec![byte; len].into()),
    ]
}

fn text() -> impl Strategy<Value = String> {
    string_regex("[a-zµ€😀]{0,20}").unwrap()
}

fn entry_kind() -> impl Strategy<Value = EntryKind> {
    (0..=6_u8).prop_map(|number| EntryKind::from_u8(number).unwrap())
}

fn entries() -> impl Strategy<Value = Entries> {
    let time = prop_oneof![Just(7), any::<u64>()];
    let kind = prop_oneof![Just(EntryKind::SessionCommand), entry_kind()];
    let later = prop_oneof![8 => Just(0), 1 => 0..3_u64];
    let entry = (later, time, kind, payload());
    (1..1_u64 << 62, 0..1_u64 << 62, vec(entry, 0..40)).prop_map(|(first, mut term, list)| {
        let list = (first..).zip(list).map(|(index, (later, time, kind, payload))| {
            term += later;
            Entry { log_id: LogId::new(term, index), time: LogTime(time), kind, payload }
        });
        Entries::from(list.collect::<Vec<_>>())
    })
}

fn node_info() -> impl Strategy<Value = NodeInfo> {
    (text(), text(), text(), any::<u64>(), any::<u32>()).prop_map(
        |(name, peer_address, client_address, incarnation, priority)| NodeInfo {
            name,
            peer_address,
            client_address,
            incarnation: Incarnation(incarnation),
            priority,
        },
    )
}

fn membership() -> impl Strategy<Value = Membership> {
    (vec((any::<u64>(), node_info()), 1..8), any::<u8>(), any::<bool>()).prop_map(
        |(nodes, learners, change)| {
            let nodes = nodes.into_iter().map(|(id, info)| (NodeId(id), info));
            let mut membership = Membership::of_voters(nodes);
            let first = *membership.voters.first().unwrap();
            for (bit, node) in membership.voters.clone().into_iter().skip(1).enumerate() {
                if learners >> bit & 1 == 1 {
                    membership.voters.remove(&node);
                    membership.learners.insert(node);
                }
            }
            if change {
                membership.outgoing = BTreeSet::from([first]);
                membership.target = Some(membership.voters.clone());
            }
            membership
        },
    )
}

fn small_message() -> impl Strategy<Value = Message> {
    let vote = || {
        (term(), log_id(), any::<bool>()).prop_map(|(term, last, transfer)| VoteRequest {
            term,
            last,
            transfer,
        })
    };
    let answer =
        || (term(), any::<bool>()).prop_map(|(term, granted)| VoteResponse { term, granted });
    let outcome = prop_oneof![
        index().prop_map(AppendOutcome::Matched),
        (index(), index(), term()).prop_map(|(rejected, index, term)| {
            AppendOutcome::Conflict { rejected, index, term }
        }),
        Just(AppendOutcome::StaleTerm),
    ];
    let installed = prop_oneof![
        Just(SnapshotOutcome::Continue),
        Just(SnapshotOutcome::Installed),
        Just(SnapshotOutcome::Rejected),
    ];
    let checkpoint =
        (index(), any::<u64>()).prop_map(|(index, checksum)| Checkpoint { index, checksum });
    prop_oneof![
        vote().prop_map(Message::PreVote),
        answer().prop_map(Message::PreVoteResponse),
        vote().prop_map(Message::RequestVote),
        answer().prop_map(Message::RequestVoteResponse),
        (term(), any::<u64>(), outcome).prop_map(|(term, round, outcome)| {
            Message::AppendEntriesResponse(AppendEntriesResponse { term, round, outcome })
        }),
        (term(), index(), any::<u64>(), option::of(checkpoint)).prop_map(
            |(term, commit, round, checksum)| {
                Message::Heartbeat(Heartbeat { term, commit, round, checksum })
            }
        ),
        (term(), any::<u64>(), index(), index(), index(), any::<bool>()).prop_map(
            |(term, round, matched, received, applied, stalled)| {
                let answer = HeartbeatResponse { term, round, matched, received, applied, stalled };
                Message::HeartbeatResponse(answer)
            }
        ),
        (term(), any::<u64>(), any::<u64>(), installed).prop_map(
            |(term, id, next_offset, outcome)| {
                let answer = InstallSnapshotResponse { term, id, next_offset, outcome };
                Message::InstallSnapshotResponse(answer)
            }
        ),
        term().prop_map(|term| Message::TimeoutNow { term }),
        (term(), any::<u64>()).prop_map(|(term, id)| Message::ReadIndex { term, id }),
        (term(), any::<u64>(), option::of(index()))
            .prop_map(|(term, id, index)| Message::ReadIndexResponse { term, id, index }),
    ]
}

fn large_message() -> impl Strategy<Value = Message> {
    let append = (term(), log_id(), index(), any::<u64>(), entries()).prop_map(
        |(term, prev, commit, round, entries)| {
            Message::AppendEntries(AppendEntries { term, prev, commit, round, entries })
        },
    );
    let meta = (any::<[u64; 8]>(), log_id(), log_id(), membership(), any::<u16>()).prop_map(
        |([id, cluster, epoch, group, time, size, digest, format], last, at, members, schema)| {
            SnapshotMeta {
                id,
                cluster: graft_core::ClusterId(cluster),
                epoch: Epoch(epoch),
                group: GroupId(group),
                last,
                time: LogTime(time),
                membership: (at, members),
                schema,
                size,
                digest,
                format,
            }
        },
    );
    let install = (term(), meta, any::<u64>(), payload(), any::<bool>()).prop_map(
        |(term, meta, offset, chunk, last)| {
            Message::InstallSnapshot(Box::new(InstallSnapshot { term, meta, offset, chunk, last }))
        },
    );
    let stage = prop_oneof![
        membership().prop_map(|members| BirthStage::Newborn { founders: members.nodes }),
        membership().prop_map(|membership| BirthStage::Founded { membership }),
        Just(BirthStage::AlreadyFounded),
    ];
    let birth = (any::<u64>(), any::<u64>(), stage).prop_map(|(life, echo, stage)| {
        Message::Birth(Box::new(BirthReport { life, echo, stage }))
    });
    prop_oneof![append, install, birth]
}

fn peer() -> impl Strategy<Value = Value> {
    (any::<[u64; 5]>(), prop_oneof![small_message(), large_message()]).prop_map(
        |([group, from, to, from_incarnation, to_incarnation], message)| {
            Value::Peer(PeerEnvelope {
                group: GroupId(group),
                from: NodeId(from),
                to: NodeId(to),
                from_incarnation: Incarnation(from_incarnation),
                to_incarnation: Incarnation(to_incarnation),
                message,
            })
        },
    )
}

fn requests() -> impl Strategy<Value = Value> {
    let kind = entry_kind().prop_filter("a client's", |kind| kind.is_clients());
    let kind = prop_oneof![Just(EntryKind::SessionCommand), kind];
    let remaining = prop_oneof![Just(5000), any::<u32>()];
    let request = (any::<u64>(), remaining, kind, payload()).prop_map(
        |(request_id, remaining_ms, kind, payload)| ClientRequest {
            request_id,
            deadline: Duration::from_millis(remaining_ms.into()),
            kind,
            payload,
        },
    );
    vec(request, 1..20).prop_map(Value::Requests)
}

fn replies() -> impl Strategy<Value = Value> {
    let hint = || {
        let members = option::of(membership().prop_map(Arc::new));
        (option::of(any::<u64>().prop_map(NodeId)), members)
            .prop_map(|(leader, members)| LeaderHint { leader, members })
    };
    let reason = prop_oneof![
        hint().prop_map(RejectReason::NotLeader),
        hint().prop_map(RejectReason::LeadershipLost),
        Just(RejectReason::Overloaded),
        Just(RejectReason::DeadlinePassed),
        text().prop_map(RejectReason::Invalid),
        any::<(usize, usize)>().prop_map(|(bytes, limit)| RejectReason::TooLarge { bytes, limit }),
        any::<bool>().prop_map(|proposed| RejectReason::Stopping { proposed }),
    ];
    let reply = prop_oneof![
        6 => payload().prop_map(Reply::Applied),
        1 => payload().prop_map(Reply::Panicked),
        1 => any::<u64>().prop_map(|session| Reply::SessionOpened(SessionId(session))),
        1 => Just(Reply::SessionDone),
        1 => Just(Reply::SessionExpired),
        1 => Just(Reply::Forgotten),
        1 => Just(Reply::SessionFull),
        1 => any::<(usize, usize)>()
            .prop_map(|(bytes, limit)| Reply::ResponseTooLarge { bytes, limit }),
        3 => reason.prop_map(Reply::Rejected),
    ];
    // No more hints than a frame has room for.
    vec((any::<u64>(), reply), 1..5).prop_map(Value::Replies)
}

fn members() -> impl Strategy<Value = Value> {
    (term(), option::of(any::<u64>().prop_map(NodeId)), membership()).prop_map(
        |(term, leader, membership)| {
            Value::Members(Members { term, leader, membership: Arc::new(membership) })
        },
    )
}

fn hello() -> impl Strategy<Value = Value> {
    let role = prop_oneof![Just(Role::Server), Just(Role::Client)];
    let protocol = (1..=u8::MAX)
        .prop_flat_map(|min| (Just(min), min..=u8::MAX))
        .prop_map(|(min, max)| Protocol { min, max });
    let schema =
        any::<(u16, u16)>().prop_map(|(a, b)| Schema { lowest: a.min(b), highest: a.max(b) });
    (any::<[u64; 5]>(), any::<[u32; 4]>(), protocol, role, text(), text(), schema).prop_map(
        |(
            [epoch, node, incarnation, client, format],
            [entry, frame, reply, timeout],
            protocol,
            role,
            name,
            machine,
            schema,
        )| {
            Value::Hello(Hello {
                cluster: CLUSTER,
                protocol,
                role,
                epoch: Epoch(epoch),
                node: NodeId(node),
                name,
                incarnation: Incarnation(incarnation),
                client,
                machine,
                format,
                schema,
                max_entry_bytes: entry,
                max_frame_bytes: frame,
                max_reply_bytes: reply,
                election_timeout: Duration::from_millis(timeout.into()),
            })
        },
    )
}

fn refusal() -> impl Strategy<Value = Value> {
    (any::<u16>(), text()).prop_map(|(code, text)| {
        Value::Refusal(Refusal { code: RefusalCode::from_number(code), text })
    })
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![8 => peer(), 3 => requests(), 3 => replies(), 1 => members(), 1 => hello(), 1 => refusal()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_value_is_read_as_it_was_written(value in value()) {
        prop_assert_eq!(Value::decode(&frame(&written(&value))).unwrap(), value);
    }

    #[test]
    fn equal_values_are_written_as_equal_bytes_whatever_was_written_before(
        before in value(),
        value in value(),
    ) {
        let mut out = Outgoing::new();
        before.encode(CLUSTER, &mut out);
        let first = out.len();
        value.encode(CLUSTER, &mut out);
        prop_assert!(all(&mut out)[first..] == written(&value)[..]);
        value.encode(CLUSTER, &mut out);
        prop_assert!(all(&mut out) == written(&value));
    }
}

#[test]
fn every_fixed_value_is_read_as_it_was_written() {
    let mut out = Outgoing::new();
    for (_, value) in fixed() {
        value.encode(CLUSTER, &mut out);
    }
    let values = frames(&all(&mut out))
        .iter()
        .map(|frame| Value::decode(frame).unwrap())
        .collect::<Vec<_>>();
    assert!(values.into_iter().eq(fixed().into_iter().map(|(_, value)| value)));
}

#[test]
fn an_append_of_any_size_up_to_a_batch_comes_through() {
    for count in [0, 1, 2, 100, 1000, 8192] {
        let list = (1..=count).map(|index| Entry {
            log_id: LogId::new(1, index),
            time: LogTime(index),
            kind: EntryKind::SessionCommand,
            payload: vec![1; usize::try_from(index % 97).unwrap()].into(),
        });
        let entries = Entries::from(list.collect::<Vec<_>>());
        let append =
            AppendEntries { term: Term(1), prev: LogId::ZERO, commit: Index(0), round: 0, entries };
        let value = Value::Peer(crate::samples::peer(Message::AppendEntries(append)));
        assert_eq!(Value::decode(&frame(&written(&value))).unwrap(), value);
    }
}
