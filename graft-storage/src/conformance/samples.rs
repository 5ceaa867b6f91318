//! Identities, entries and shorthands that the checks share.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use graft_core::{
    Birth, ClusterId, Entries, Entry, EntryKind, Epoch, GroupId, HardState, Identity, Incarnation,
    Index, Loaded, LogId, LogStore, LogTime, Membership, NodeId, NodeInfo, Recovered,
    SnapshotChunk, SnapshotMeta, StoreError, Term, Write,
};

use super::{Broken, Fixture, Verdict};

pub(crate) fn identity() -> Identity {
    Identity {
        cluster: ClusterId::of("conformance", &["server1", "server2", "server3"]),
        epoch: Epoch(3),
        node: NodeId::of_name("server1"),
        name: "server1".into(),
        incarnation: Incarnation(0x1234_5678_9abc_def0),
        birth: Birth::Joiner,
        machine: "conformance::Machine".into(),
        format: u64::MAX,
    }
}

pub(super) fn hard_state(term: u64, vote: Option<u64>, commit: u64) -> HardState {
    HardState { term: Term(term), voted_for: vote.map(NodeId), commit: Index(commit) }
}

/// The time of the sample entry of this place.
pub(super) fn time_of(at: LogId) -> LogTime {
    LogTime(at.index.0.wrapping_mul(1000).wrapping_add(at.term.0))
}

/// An entry whose every part depends on its term and index, so that none can stand in for another.
pub(super) fn entry(term: u64, index: u64) -> Entry {
    entry_of(term, index, format!("payload of {index} in {term}"))
}

pub(super) fn entry_of(term: u64, index: u64, payload: impl Into<Bytes>) -> Entry {
    Entry {
        log_id: LogId::new(term, index),
        time: time_of(LogId::new(term, index)),
        kind: EntryKind::Plain,
        payload: payload.into(),
    }
}

pub(super) fn run(term: u64, indexes: Range<u64>) -> Entries {
    indexes.map(|index| entry(term, index)).collect()
}

pub(super) fn append(term: u64, indexes: Range<u64>) -> Write {
    Write::Append(run(term, indexes))
}

pub(super) fn membership(name: &str, voters: &[u64]) -> Membership {
    let info = |id: u64| NodeInfo {
        name: format!("{name}-{id}"),
        peer_address: format!("10.0.0.{id}:4400"),
        client_address: String::new(),
        incarnation: Incarnation(id << 32),
        priority: 7,
    };
    Membership::of_voters(voters.iter().map(|id| (NodeId(*id), info(*id))))
}

pub(super) fn membership_entry(term: u64, index: u64, membership: &Membership) -> Entry {
    Entry { kind: EntryKind::Membership, ..entry_of(term, index, membership.encode()) }
}

pub(super) fn runs(pairs: &[(u64, u64)]) -> Vec<(Index, Term)> {
    pairs.iter().map(|(i, t)| (Index(*i), Term(*t))).collect()
}

pub(super) fn range(indexes: Range<u64>) -> Range<Index> {
    Index(indexes.start)..Index(indexes.end)
}

/// A snapshot of `size` bytes up to `last`.
pub(super) fn snapshot(id: u64, last: LogId, size: usize) -> (SnapshotMeta, Bytes) {
    let bytes: Vec<u8> = (0..size).map(|at| (at * 31 + at / 251).to_le_bytes()[0]).collect();
    let own = identity();
    let meta = SnapshotMeta {
        id,
        cluster: own.cluster,
        epoch: own.epoch,
        group: GroupId(0),
        last,
        time: time_of(last),
        membership: (LogId::new(1, 1), membership("snapshot", &[1, 2, 3])),
        schema: 9,
        size: size as u64,
        digest: 0xfeed,
        format: 5,
    };
    (meta, bytes.into())
}

/// Stages `bytes` in chunks of `chunk` bytes.
pub(super) async fn stage(
    store: &dyn LogStore,
    meta: &SnapshotMeta,
    bytes: &Bytes,
    chunk: usize,
) -> Result<(), StoreError> {
    for offset in (0..bytes.len()).step_by(chunk) {
        let end = bytes.len().min(offset + chunk);
        store
            .stage(SnapshotChunk {
                meta: meta.clone(),
                offset: offset as u64,
                bytes: bytes.slice(offset..end),
            })
            .await?;
    }
    Ok(())
}

/// Stages and installs a snapshot up to `last`.
pub(super) async fn install(store: &dyn LogStore, id: u64, last: LogId) -> Verdict<SnapshotMeta> {
    let (meta, bytes) = snapshot(id, last, 1000);
    stage(store, &meta, &bytes, 300).await?;
    write(store, [Write::InstallSnapshot(meta.clone())]).await?;
    Ok(meta)
}

/// A handle on a store that was just born.
pub(super) async fn born(fixture: &dyn Fixture) -> Verdict<Arc<dyn LogStore>> {
    let store = fixture.open().await;
    store.recover().await?;
    store.create(&identity()).await?;
    store.recover().await?;
    Ok(store)
}

pub(super) async fn write(
    store: &dyn LogStore,
    writes: impl Into<Vec<Write>>,
) -> Result<(), StoreError> {
    store.write(writes.into()).await.map(drop)
}

pub(super) async fn recovered(store: &dyn LogStore) -> Verdict<Recovered> {
    let found = store.recover().await?;
    found.ok_or_else(|| Broken("a store that was born recovers as one that never was".into()))
}

/// The entries of `indexes` as the store gives them, however many reads it takes.
pub(super) async fn read(store: &dyn LogStore, indexes: Range<u64>) -> Verdict<Entries> {
    let mut all = Entries::new();
    let mut next = indexes.start;
    while next < indexes.end {
        let loaded = store.read(range(next..indexes.end), usize::MAX).await?;
        let Loaded::Entries(piece) = loaded else {
            return Err(Broken(format!("entry {next} was read: found {loaded:?}")));
        };
        if piece.first_index() != Some(Index(next)) {
            return Err(Broken(format!("entry {next} was read: found {piece:?}")));
        }
        next += piece.len() as u64;
        all.append(piece);
    }
    Ok(all)
}

/// Everything that can be seen of a store: what it recovers, and its log.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Seen {
    pub(super) recovered: Recovered,
    pub(super) entries: Entries,
}

pub(super) async fn seen(store: &dyn LogStore) -> Verdict<Seen> {
    let recovered = recovered(store).await?;
    let first = recovered.compacted.index.next().0;
    let entries = read(store, first..recovered.last.index.next().0).await?;
    Ok(Seen { recovered, entries })
}
