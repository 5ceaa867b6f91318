//! The memory store passes the suite, and the suite is worth passing: each store here that breaks one
//! promise is caught by the check that is named after it.

// Helpers of tests panic like tests.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{ops::Range, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use graft_core::{
    Entries, EntryKind, EntryRef, Identity, Index, Loaded, LogId, LogStore, LogTime, Membership,
    Recovered, SnapshotChunk, SnapshotMeta, StoreError, Write,
};
use graft_storage::{MemoryStore, conformance};

/// Far above what the suite takes; reached only where a store hangs.
const LIMIT: Duration = Duration::from_secs(120);

struct Memory(MemoryStore);

#[async_trait]
impl conformance::Fixture for Memory {
    async fn open(&self) -> Arc<dyn LogStore> {
        Arc::new(self.0.clone())
    }
}

#[test]
fn the_memory_store_keeps_every_promise() {
    let suite = conformance::run(|| Memory(MemoryStore::new()));
    let failures = conformance::block_on(LIMIT, suite).expect("the memory store hangs");
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn the_memory_store_tells_whose_it_is_without_being_recovered() {
    let store = MemoryStore::new();
    let told = conformance::block_on(LIMIT, async {
        store.create(&broken_identity()).await?;
        store.clone().identity().await
    });
    assert_eq!(told.unwrap().unwrap(), Some(broken_identity()));
}

#[test]
fn every_check_has_a_name_of_its_own() {
    let mut names: Vec<_> = conformance::checks().iter().map(conformance::Check::name).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
}

/// A way to break a promise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bug {
    ForgetsOnReopen,
    BornAgain,
    WritesBeforeBirth,
    KeepsEntriesThatAnAppendReplaces,
    DropsOnlyWhatAnAppendOverlaps,
    TakesAGapForAnEmptyWrite,
    DoesHalfABatch,
    DropsHardStateBesideEntries,
    DoesBatchesBackwards,
    GivesAnotherBuffer,
    ReadsZeroEntries,
    ReadsMoreThanFits,
    ReadsNothingForWhatIsCompacted,
    ReadsPastTheEndAsNothing,
    SpoilsPayloads,
    DoesNotFence,
    FencesWritesButNotChunks,
    TakesUnreadableMemberships,
    TakesAnyIndex,
    ForgetsTermsOfTruncations,
    ForgetsTheTime,
    RecoversTruncatedMemberships,
    CompactsAnything,
    ForgetsToCompact,
    KeepsTermsOfCompactedEntries,
    InstallsWithoutBytes,
    DropsTheSuffixOnInstall,
    KeepsALogThatTheSnapshotContradicts,
    ReadsAnySnapshot,
    TakesAnyChunk,
    RefusesToStageAgain,
    TellsAnotherIdentity,
    FencesWhenAskedForTheIdentity,
}

/// A memory store with a bug.
struct Broken {
    inner: MemoryStore,
    /// Stands in where handles should be apart.
    common: Arc<MemoryStore>,
    bug: Bug,
}

impl Broken {
    fn has(&self, bug: Bug) -> bool {
        self.bug == bug
    }

    fn inner(&self) -> &MemoryStore {
        if self.has(Bug::DoesNotFence) { &self.common } else { &self.inner }
    }

    fn state(&self) -> Recovered {
        let found = self.inner.peek().ok().flatten();
        found.unwrap_or_else(|| Recovered::newborn(broken_identity()))
    }

    async fn entries(&self, range: Range<Index>) -> Entries {
        match self.inner.read(range, usize::MAX).await {
            Ok(Loaded::Entries(entries)) => entries,
            _ => Entries::new(),
        }
    }

    /// The order as this store understands it.
    async fn twist(&self, order: Write) -> Vec<Write> {
        let last = self.state().last.index;
        match (self.bug, order) {
            (Bug::KeepsEntriesThatAnAppendReplaces, Write::Append(entries)) => {
                let new = entries.slice(last.next()..Index(u64::MAX));
                vec![Write::Append(new)]
            }
            (Bug::DropsOnlyWhatAnAppendOverlaps, Write::Append(mut entries)) => {
                let end = entries.last_log_id().unwrap_or(LogId::ZERO);
                if end.index != Index(0) && end.index < last {
                    let behind = self.entries(end.index.next()..last.next()).await;
                    // Only where the mixture is still a log; elsewhere the bug does not show.
                    if behind.first().is_some_and(|e| e.log_id.term >= end.term) {
                        entries.append(behind);
                    }
                }
                vec![Write::Append(entries)]
            }
            (Bug::TakesAGapForAnEmptyWrite, Write::Append(entries))
                if entries.first_index() > Some(last.next()) =>
            {
                vec![]
            }
            (Bug::SpoilsPayloads, Write::Append(entries)) => {
                let spoilt = entries.iter().map(EntryRef::to_entry).map(|mut entry| {
                    if entry.kind != EntryKind::Membership && entry.payload.len() > 4096 {
                        entry.payload = entry.payload.slice(..4096);
                    }
                    entry
                });
                vec![Write::Append(spoilt.collect())]
            }
            (Bug::CompactsAnything, Write::Compact(upto)) => {
                let covered = self.state().snapshot.map_or(Index(0), |meta| meta.last.index);
                if upto.index > covered && upto.index <= last {
                    return vec![];
                }
                vec![Write::Compact(upto)]
            }
            (Bug::ForgetsToCompact, Write::Compact(_)) => vec![],
            (Bug::DropsTheSuffixOnInstall, Write::InstallSnapshot(meta)) => {
                let mut orders = vec![Write::InstallSnapshot(meta.clone())];
                if last > meta.last.index {
                    let kept = self.entries(Index(1)..meta.last.index.next()).await;
                    orders.push(Write::Append(kept));
                }
                orders
            }
            (_, order) => vec![order],
        }
    }
}

#[async_trait]
impl LogStore for Broken {
    async fn identity(&self) -> Result<Option<Identity>, StoreError> {
        let identity = self.inner().identity().await?;
        match self.bug {
            Bug::TellsAnotherIdentity => return Ok(identity.map(|_| broken_identity())),
            Bug::FencesWhenAskedForTheIdentity => drop(self.inner().recover().await?),
            _ => {}
        }
        Ok(identity)
    }

    async fn create(&self, identity: &Identity) -> Result<(), StoreError> {
        match self.inner().create(identity).await {
            Err(StoreError::AlreadyBorn { .. }) if self.has(Bug::BornAgain) => Ok(()),
            outcome => outcome,
        }
    }

    async fn recover(&self) -> Result<Option<Recovered>, StoreError> {
        let outcome = self.inner().recover().await;
        let Some(mut found) = outcome? else {
            return Ok(None);
        };
        match self.bug {
            Bug::ForgetsTermsOfTruncations => {
                found.terms = found.terms.into_iter().take(1).collect();
            }
            Bug::ForgetsTheTime if found.last == found.compacted => {
                found.last_time = LogTime(0);
            }
            Bug::RecoversTruncatedMemberships if found.memberships.len() == 2 => {
                let (mut at, membership) = found.memberships[1].clone();
                at.index = at.index.next();
                found.memberships.push((at, membership));
            }
            Bug::KeepsTermsOfCompactedEntries => {
                if let Some(first) = found.terms.first_mut() {
                    first.0 = Index(1);
                }
            }
            _ => {}
        }
        Ok(Some(found))
    }

    async fn write(&self, writes: Vec<Write>) -> Result<Vec<Write>, StoreError> {
        if self.inner.peek().is_ok_and(|found| found.is_none()) {
            let outcome = self.inner().write(writes).await;
            return if self.has(Bug::WritesBeforeBirth) { Ok(Vec::new()) } else { outcome };
        }
        match self.bug {
            Bug::DoesHalfABatch => {
                let mut writes = writes;
                for order in writes.drain(..) {
                    self.inner().write(vec![order]).await?;
                }
                Ok(writes)
            }
            Bug::DoesBatchesBackwards => {
                let mut writes = writes;
                if writes.len() > 4 {
                    writes.swap(1, 3);
                }
                self.inner().write(writes).await
            }
            Bug::DropsHardStateBesideEntries => {
                let mut writes = writes;
                if writes.len() == 2 {
                    writes.retain(|order| !matches!(order, Write::HardState(_)));
                }
                self.inner().write(writes).await
            }
            Bug::GivesAnotherBuffer => {
                self.inner().write(writes).await?;
                Ok(Vec::new())
            }
            Bug::TakesUnreadableMemberships => {
                self.taking(writes, |entry| {
                    entry.kind == EntryKind::Membership
                        && Membership::decode(entry.payload).is_err()
                })
                .await
            }
            Bug::TakesAnyIndex => {
                self.taking(writes, |entry| entry.log_id.index >= Index(1 << 62)).await
            }
            Bug::InstallsWithoutBytes => {
                for order in &writes {
                    if let Write::InstallSnapshot(meta) = order {
                        self.fill(meta).await?;
                    }
                }
                self.inner().write(writes).await
            }
            Bug::KeepsALogThatTheSnapshotContradicts => {
                let last = self.state().last;
                let mut writes = writes;
                writes.retain(|order| match order {
                    Write::InstallSnapshot(meta) => meta.last.index > last.index,
                    _ => true,
                });
                self.inner().write(writes).await
            }
            _ if writes.len() == 1 => {
                let mut writes = writes;
                let order = writes.remove(0);
                writes.extend(self.twist(order).await);
                self.inner().write(writes).await
            }
            _ => self.inner().write(writes).await,
        }
    }

    async fn read(&self, range: Range<Index>, max_bytes: usize) -> Result<Loaded, StoreError> {
        let max_bytes = match self.bug {
            Bug::ReadsMoreThanFits => max_bytes.saturating_add(200),
            _ => max_bytes,
        };
        let loaded = self.inner().read(range, max_bytes).await;
        match (self.bug, loaded) {
            (Bug::ReadsZeroEntries, Ok(Loaded::Entries(found))) if found.size() > max_bytes => {
                Ok(Loaded::Entries(Entries::new()))
            }
            (Bug::ReadsNothingForWhatIsCompacted, Ok(Loaded::Compacted(upto))) => {
                Err(StoreError::OutOfRange { range: Index(0)..Index(0), last: upto.index })
            }
            (Bug::ReadsPastTheEndAsNothing, Err(StoreError::OutOfRange { .. })) => {
                Ok(Loaded::Entries(Entries::new()))
            }
            (_, loaded) => loaded,
        }
    }

    async fn stage(&self, chunk: SnapshotChunk) -> Result<(), StoreError> {
        let offset = chunk.offset;
        match self.inner().stage(chunk).await {
            Err(StoreError::Fenced) if self.has(Bug::FencesWritesButNotChunks) => Ok(()),
            Err(StoreError::BadChunk { .. }) if self.has(Bug::TakesAnyChunk) => Ok(()),
            Ok(()) if self.has(Bug::RefusesToStageAgain) && offset == 0 => {
                if self.common.peek().is_ok_and(|found| found.is_none()) {
                    self.common.create(&broken_identity()).await
                } else {
                    let (id, expected) = (0, 1);
                    Err(StoreError::BadChunk { id, offset, expected })
                }
            }
            outcome => outcome,
        }
    }

    async fn read_snapshot(
        &self,
        id: u64,
        offset: u64,
        max_bytes: usize,
    ) -> Result<Bytes, StoreError> {
        match self.inner().read_snapshot(id, offset, max_bytes).await {
            Err(StoreError::NoSnapshot { .. }) if self.has(Bug::ReadsAnySnapshot) => {
                Ok(Bytes::new())
            }
            outcome => outcome,
        }
    }
}

impl Broken {
    /// Says that a write is done which the inner store refuses for an entry of this kind.
    async fn taking(
        &self,
        writes: Vec<Write>,
        is_bad: impl Fn(EntryRef<'_>) -> bool,
    ) -> Result<Vec<Write>, StoreError> {
        let has_bad = writes.iter().any(|order| match order {
            Write::Append(entries) => entries.iter().any(&is_bad),
            _ => false,
        });
        match self.inner().write(writes).await {
            Err(StoreError::BadWrite { .. }) if has_bad => Ok(Vec::new()),
            outcome => outcome,
        }
    }

    async fn fill(&self, meta: &SnapshotMeta) -> Result<(), StoreError> {
        let size = usize::try_from(meta.size).unwrap();
        self.inner()
            .stage(SnapshotChunk { meta: meta.clone(), offset: 0, bytes: vec![0; size].into() })
            .await
    }
}

fn broken_identity() -> Identity {
    use graft_core::{Birth, ClusterId, Epoch, Incarnation, NodeId};
    Identity {
        cluster: ClusterId(0),
        epoch: Epoch(0),
        node: NodeId(1),
        name: "broken".into(),
        incarnation: Incarnation(0),
        birth: Birth::Founder,
        machine: String::new(),
        format: 0,
    }
}

struct BrokenMemory {
    store: MemoryStore,
    common: Arc<MemoryStore>,
    bug: Bug,
}

#[async_trait]
impl conformance::Fixture for BrokenMemory {
    async fn open(&self) -> Arc<dyn LogStore> {
        Arc::new(Broken {
            inner: self.store.clone(),
            common: Arc::clone(&self.common),
            bug: self.bug,
        })
    }

    async fn reopen(&self) -> Arc<dyn LogStore> {
        if self.bug != Bug::ForgetsOnReopen {
            return self.open().await;
        }
        Arc::new(Broken {
            inner: MemoryStore::new(),
            common: Arc::clone(&self.common),
            bug: self.bug,
        })
    }
}

/// Every bug with the check that must find it. Others may find it too.
const BUGS: &[(Bug, &str)] = &[
    (Bug::ForgetsOnReopen, "everything_written_is_there_after_a_reopen"),
    (Bug::BornAgain, "a_second_birth_is_refused_and_changes_nothing"),
    (Bug::WritesBeforeBirth, "a_store_never_born_recovers_as_none_and_takes_no_writes"),
    (
        Bug::KeepsEntriesThatAnAppendReplaces,
        "an_append_replaces_everything_at_and_above_its_first_index",
    ),
    (
        Bug::DropsOnlyWhatAnAppendOverlaps,
        "an_append_replaces_everything_at_and_above_its_first_index",
    ),
    (Bug::TakesAGapForAnEmptyWrite, "an_append_that_leaves_a_gap_is_refused"),
    (Bug::DoesHalfABatch, "a_batch_with_a_bad_order_changes_nothing"),
    (Bug::DropsHardStateBesideEntries, "hard_state_and_entries_go_in_one_batch"),
    (Bug::DoesBatchesBackwards, "orders_of_a_batch_happen_in_their_order"),
    (Bug::GivesAnotherBuffer, "the_buffer_comes_back_empty"),
    (Bug::ReadsZeroEntries, "a_read_gives_at_least_one_entry_and_no_more_than_fit"),
    (Bug::ReadsMoreThanFits, "a_read_gives_at_least_one_entry_and_no_more_than_fit"),
    (Bug::ReadsNothingForWhatIsCompacted, "compaction_drops_the_beginning_and_nothing_else"),
    (Bug::ReadsPastTheEndAsNothing, "a_read_outside_the_log_is_an_error"),
    (Bug::SpoilsPayloads, "entries_come_back_byte_for_byte"),
    (Bug::DoesNotFence, "recovery_fences_earlier_handles"),
    (Bug::FencesWritesButNotChunks, "recovery_fences_earlier_handles"),
    (Bug::TakesUnreadableMemberships, "an_unreadable_membership_is_refused"),
    (Bug::TakesAnyIndex, "an_index_that_cannot_be_counted_on_from_is_refused"),
    (Bug::ForgetsTermsOfTruncations, "terms_are_those_of_the_log_after_truncation"),
    (Bug::ForgetsTheTime, "the_time_of_the_last_entry_comes_back_wherever_that_entry_is"),
    (Bug::RecoversTruncatedMemberships, "truncation_takes_memberships_along"),
    (Bug::CompactsAnything, "compaction_beyond_log_or_snapshot_is_refused"),
    (Bug::ForgetsToCompact, "compaction_drops_the_beginning_and_nothing_else"),
    (Bug::KeepsTermsOfCompactedEntries, "compaction_drops_the_beginning_and_nothing_else"),
    (Bug::InstallsWithoutBytes, "an_incomplete_snapshot_is_not_installed"),
    (Bug::DropsTheSuffixOnInstall, "a_log_that_holds_the_snapshots_end_keeps_its_suffix"),
    (
        Bug::KeepsALogThatTheSnapshotContradicts,
        "a_log_that_does_not_hold_the_snapshots_end_goes_whole",
    ),
    (Bug::ReadsAnySnapshot, "what_is_staged_is_invisible_until_it_is_installed"),
    (Bug::TakesAnyChunk, "a_chunk_that_does_not_continue_is_refused"),
    (Bug::RefusesToStageAgain, "staging_begins_anew_at_byte_zero_and_after_a_reopen"),
    (
        Bug::TellsAnotherIdentity,
        "whoever_only_asks_for_the_identity_is_told_the_true_one_and_fences_nobody",
    ),
    (
        Bug::FencesWhenAskedForTheIdentity,
        "whoever_only_asks_for_the_identity_is_told_the_true_one_and_fences_nobody",
    ),
];

/// The check called `name`, run on a store with `bug`.
fn verdict(bug: Bug, name: &str) -> Result<(), conformance::Failure> {
    let checks = conformance::checks();
    let check = checks.iter().find(|check| check.name() == name);
    let fixture =
        BrokenMemory { store: MemoryStore::new(), common: Arc::new(MemoryStore::new()), bug };
    let check = check.expect("the check is called something else").run(&fixture);
    conformance::block_on(LIMIT, check).expect("a broken store hangs")
}

#[test]
fn every_broken_store_is_caught_by_the_check_of_its_promise() {
    let missed: Vec<_> = BUGS.iter().filter(|(bug, name)| verdict(*bug, name).is_ok()).collect();
    assert!(missed.is_empty(), "not caught: {missed:?}");
}

#[test]
fn a_failure_says_what_was_promised_and_what_came() {
    let name = "an_append_that_leaves_a_gap_is_refused";
    let failure = verdict(Bug::TakesAGapForAnEmptyWrite, name).unwrap_err();
    assert_eq!(
        failure.to_string(),
        "an_append_that_leaves_a_gap_is_refused: an append that leaves a gap is `BadWrite`: \
         found Ok(())"
    );
}
