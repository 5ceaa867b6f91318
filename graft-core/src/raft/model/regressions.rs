//! Faults that were found once, as stories.

use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;

use super::{
    disk::Disk,
    server::{Server, incarnation},
    swarm::Swarm,
    world::TICK,
};
use crate::{
    AppendEntries, Checkpoint, Entries, Entry, EntryKind, GroupId, Heartbeat, Index, LogId,
    LogTime, Message, NodeId, PeerEnvelope, Term, VoteResponse,
    raft::{Config, Effects, Input, Raft, RoleName, WriteBatch},
};

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);

/// A server of a cluster of three, newly founded.
fn founded(config: Config) -> Raft {
    let swarm = Swarm::draw(0, &mut Rng::with_seed(1), None);
    assert!(swarm.membership().voters.len() == 3, "the seed draws a cluster of three");
    let disk = Disk::founded(swarm.membership());
    Raft::recover(
        config,
        disk.recover(Server::new(ONE, Disk::founded(swarm.membership()), 3).identity()),
    )
}

fn at(tick: u32) -> Input {
    Input::Time { now: TICK * tick, unix_millis: 0 }
}

fn from_two(message: Message) -> Input {
    Input::Message(PeerEnvelope {
        group: GroupId(0),
        from: TWO,
        to: ONE,
        from_incarnation: incarnation(TWO),
        to_incarnation: incarnation(ONE),
        message,
    })
}

/// Entries of term 2 behind the founding one, up to this index.
fn entries(last: u64) -> Entries {
    let entry = |index| Entry {
        log_id: LogId::new(2, index),
        time: LogTime(0),
        kind: EntryKind::Plain,
        payload: Bytes::new(),
    };
    (2..=last).map(entry).collect()
}

fn append(commit: u64, entries: Entries) -> Input {
    let prev = LogId::new(1, 1);
    let commit = Index(commit);
    from_two(Message::AppendEntries(AppendEntries {
        term: Term(2),
        prev,
        commit,
        round: 1,
        entries,
    }))
}

fn step(raft: &mut Raft, input: Input) -> Effects {
    let mut effects = Effects::default();
    raft.step(input);
    raft.drain(&mut effects);
    effects
}

fn persisted(raft: &mut Raft, write: Option<WriteBatch>) -> Effects {
    step(raft, Input::Persisted(write.expect("something is to be written").id))
}

/// A supervisor keeps one clock for all its servers. One of them crashes after an hour and is started
/// again. Its election timer began at zero of that clock, so the first turn, an hour "later", made it
/// campaign at once, into a cluster with a healthy leader; without pre-vote that deposed the leader.
#[test]
fn a_server_that_starts_on_an_old_clock_waits_before_it_campaigns() {
    let hour = 360_000;
    let start = TICK * hour;
    assert_eq!(start, Duration::from_secs(3600));
    let mut raft = founded(Config { start, ..Config::new(ONE) });
    step(&mut raft, at(hour));
    assert_eq!(raft.role_name(), RoleName::Follower, "it has only just started");
    step(&mut raft, at(hour + 29));
    assert_eq!(raft.role_name(), RoleName::Follower, "the shortest timeout is 30 ticks");
    step(&mut raft, at(hour + 60));
    assert_eq!(raft.role_name(), RoleName::PreCandidate);
}

/// A candidate's vote is durable and its request is out. It has more of its log to write, but the disk
/// comes to a stand; that is noticed while it waits for votes. The votes made it leader, and since the
/// stall was known already, nothing made it step down: it heard from its quorum, committed by its
/// followers' disks, and answered no client, because it could not apply.
#[test]
fn a_candidate_whose_disk_came_to_a_stand_does_not_lead() {
    let small = Config { max_batch_bytes: 1, stalled_write_ticks: 10, ..Config::new(ONE) };
    let mut raft = founded(small);
    let first = step(&mut raft, append(0, entries(5))).write;
    let second = persisted(&mut raft, first).write;
    step(&mut raft, Input::Campaign);
    let vote = persisted(&mut raft, second).write;
    let effects = persisted(&mut raft, vote);
    assert!(matches!(effects.messages[0].message, Message::RequestVote(_)));
    assert!(effects.write.is_some(), "the rest of the log is on its way");
    step(&mut raft, at(10));
    assert!(raft.status().stalled);
    let vote = VoteResponse { term: raft.term(), granted: true };
    step(&mut raft, from_two(Message::RequestVoteResponse(vote)));
    assert_eq!(raft.role_name(), RoleName::Follower);
    assert_eq!(raft.leader(), None);
    let rest = persisted(&mut raft, effects.write);
    assert!(!raft.status().stalled && rest.write.is_none());
}

/// A server's machine applies its last entry, after the server had nothing else to do for a while, and
/// differs from the leader's. The server had already settled that such an apply leaves nothing to
/// drain, so nobody ever learned of it; and because it would step nothing any more, it stood there as
/// if it were alive.
#[test]
fn a_divergence_found_by_the_last_apply_is_told() {
    let mut raft = founded(Config::new(ONE));
    let mut effects = step(&mut raft, append(1, Entries::new()));
    persisted(&mut raft, effects.write.take());
    let load = effects.loads.pop().expect("the founding entry is on disk only");
    let founding = Entry {
        log_id: LogId::new(1, 1),
        time: LogTime(0),
        kind: EntryKind::Membership,
        payload: raft.membership().encode(),
    };
    let loaded = Input::Loaded { id: load.id, entries: vec![founding].into() };
    assert!(step(&mut raft, loaded).apply.is_some());
    let expected = Checkpoint { index: Index(1), checksum: 17 };
    let heartbeat = Heartbeat { checksum: Some(expected), ..Heartbeat::new(Term(2), 2) };
    step(&mut raft, from_two(Message::Heartbeat(heartbeat)));
    let mut idle = Effects::default();
    (0..3).for_each(|_| raft.drain(&mut idle));
    let found = Checkpoint { checksum: 18, ..expected };
    let effects = step(&mut raft, Input::Applied { index: Index(1), checkpoints: vec![found] });
    assert!(effects.fatal.is_some(), "a divergence was kept secret");
}
