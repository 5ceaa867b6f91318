//! Snapshots: staged out of sight, installed by a write, read in pieces.

use bytes::Bytes;
use graft_core::{LogId, LogStore, SnapshotChunk, SnapshotMeta, StoreError, Write};

use super::{
    Fixture, Verdict, ensure, ensure_eq, ensure_refused, list_checks,
    samples::{
        append, born, hard_state, install, read, recovered, run, runs, seen, snapshot, stage, write,
    },
};

list_checks![
    what_is_staged_is_invisible_until_it_is_installed,
    an_installed_snapshot_is_read_in_pieces_and_survives_a_reopen,
    a_chunk_that_does_not_continue_is_refused,
    staging_begins_anew_at_byte_zero_and_after_a_reopen,
    an_incomplete_snapshot_is_not_installed,
    a_log_that_holds_the_snapshots_end_keeps_its_suffix,
    a_log_that_does_not_hold_the_snapshots_end_goes_whole,
    a_snapshot_below_what_is_compacted_is_refused,
    install_and_compact_and_append_go_in_one_batch,
    a_later_snapshot_replaces_the_earlier,
    of_two_snapshots_in_one_batch_the_second_reaches_further,
];

fn is_unknown(error: &StoreError) -> bool {
    matches!(error, StoreError::NoSnapshot { .. })
}

fn is_bad_write(error: &StoreError) -> bool {
    matches!(error, StoreError::BadWrite { .. })
}

/// All bytes of the installed snapshot, read `piece` bytes at a time.
async fn bytes_of(store: &dyn LogStore, meta: &SnapshotMeta, piece: usize) -> Verdict<Bytes> {
    let mut all = Vec::new();
    loop {
        let bytes = store.read_snapshot(meta.id, all.len() as u64, piece).await?;
        ensure(bytes.len() <= piece, "no more bytes than asked for")?;
        if bytes.is_empty() {
            return Ok(all.into());
        }
        all.extend_from_slice(&bytes);
        let whole = all.len() as u64 <= meta.size;
        ensure(whole, "no more bytes than the snapshot has")?;
    }
}

async fn what_is_staged_is_invisible_until_it_is_installed(fixture: &dyn Fixture) -> Verdict {
    let store = born(fixture).await?;
    write(&*store, [append(1, 1..9)]).await?;
    let before = seen(&*store).await?;
    let (meta, bytes) = snapshot(7, LogId::new(1, 5), 1000);
    stage(&*store, &meta, &bytes, 100).await?;
    let outcome = store.read_snapshot(7, 0, 10).await;
    ensure_refused(outcome, is_unknown, "a staged snapshot is `NoSnapshot`")?;
    ensure_eq(&seen(&*store).await?, &before, "with a snapshot staged")
}

async fn an_installed_snapshot_is_read_in_pieces_and_survives_a_reopen(
    fixture: &dyn Fixture,
) -> Verdict {
    let store = born(fixture).await?;
    write(&*store, [append(1, 1..9)]).await?;
    let (meta, bytes) = snapshot(7, LogId::new(1, 5), 300_000);
    stage(&*store, &meta, &bytes, 65_536).await?;
    write(&*store, [Write::InstallSnapshot(meta.clone())]).await?;
    let found = recovered(&*store).await?;
    ensure_eq(&found.snapshot, &Some(meta.clone()), "its description")?;
    for piece in [1 << 20, 65_536, 1000] {
        let found = bytes_of(&*store, &meta, piece).await?;
        ensure(found == bytes, format_args!("its bytes, {piece} at a time"))?;
    }
    let found = store.read_snapshot(7, 123_456, 10).await?;
    let is_there = !found.is_empty() && bytes[123_456..].starts_with(&found);
    ensure(is_there, "bytes from the middle of a chunk")?;
    let outcome = store.read_snapshot(8, 0, 10).await;
    ensure_refused(outcome, is_unknown, "another snapshot is `NoSnapshot`")?;
    drop(store);
    let store = fixture.reopen().await;
    let found = recovered(&*store).await?;
    ensure_eq(&found.snapshot, &Some(meta.clone()), "after a reopen")?;
    let found = bytes_of(&*store, &meta, 40_000).await?;
    ensure(found == bytes, "its bytes after a reopen")
}

async fn a_chunk_that_does_not_continue_is_refused(fixture: &dyn Fixture) -> Verdict {
    let store = born(fixture).await?;
    let (meta, bytes) = snapshot(7, LogId::new(1, 5), 1000);
    let chunk = |offset: usize, end: usize| SnapshotChunk {
        meta: meta.clone(),
        offset: offset as u64,
        bytes: bytes.slice(offset..end),
    };
    let expects = |wanted: u64| {
        move |error: &StoreError| match error {
            StoreError::BadChunk { expected, .. } => *expected == wanted,
            _ => false,
        }
    };
    let promise = "a chunk that does not continue is `BadChunk` and says what is next";
    ensure_refused(store.stage(chunk(100, 200)).await, expects(0), promise)?;
    store.stage(chunk(0, 100)).await?;
    ensure_refused(store.stage(chunk(200, 300)).await, expects(100), promise)?;
    ensure_refused(store.stage(chunk(50, 150)).await, expects(100), promise)?;
    store.stage(chunk(100, 900)).await?;
    let mut long = chunk(900, 1000);
    long.bytes = Bytes::from(vec![0; 101]);
    let outcome = store.stage(long).await;
    ensure(outcome.is_err(), "a chunk beyond the snapshot's size is refused")?;
    store.stage(chunk(900, 1000)).await?;
    write(&*store, [Write::InstallSnapshot(meta.clone())]).await?;
    let found = bytes_of(&*store, &meta, 4096).await?;
    ensure(found == bytes, "the refused chunks left no trace")
}

async fn staging_begins_anew_at_byte_zero_and_after_a_reopen(fixture: &dyn Fixture) -> Verdict {
    let store = born(fixture).await?;
    let (meta, bytes) = snapshot(7, LogId::new(1, 5), 1000);
    stage(&*store, &meta, &bytes.slice(..600), 200).await?;
    stage(&*store, &meta, &bytes.slice(..400), 200).await?;
    drop(store);
    let store = fixture.reopen().await;
    recovered(&*store).await?;
    stage(&*store, &meta, &bytes, 250).await?;
    // Another snapshot with the same number is another snapshot.
    let (other, other_bytes) = snapshot(7, LogId::new(2, 9), 500);
    stage(&*store, &other, &other_bytes, 250).await?;
    write(&*store, [Write::InstallSnapshot(meta.clone())]).await?;
    let found = bytes_of(&*store, &meta, 4096).await?;
    ensure(found == bytes, "a snapshot that was begun three times")?;
    write(&*store, [Write::InstallSnapshot(other.clone())]).await?;
    let found = bytes_of(&*store, &other, 4096).await?;
    ensure(found == other_bytes, "one that was staged beside it")
}

async fn an_incomplete_snapshot_is_not_installed(fixture: &dyn Fixture) -> Verdict {
    let store = born(fixture).await?;
    write(&*store, [append(1, 1..9)]).await?;
    let before = seen(&*store).await?;
    let (meta, bytes) = snapshot(7, LogId::new(1, 5), 1000);
    let promise = "a snapshot without all its bytes is `BadWrite`";
    let order = || [Write::InstallSnapshot(meta.clone())];
    ensure_refused(write(&*store, order()).await, is_bad_write, promise)?;
    stage(&*store, &meta, &bytes.slice(..999), 333).await?;
    ensure_refused(write(&*store, order()).await, is_bad_write, promise)?;
    let (other, _) = snapshot(7, LogId::new(1, 6), 999);
    let order = [Write::InstallSnapshot(other)];
    let promise = "the bytes of one snapshot are not another's";
    ensure_refused(write(&*store, order).await, is_bad_write, promise)?;
    ensure_eq(&seen(&*store).await?, &before, "after refused installs")
}

async fn a_log_that_holds_the_snapshots_end_keeps_its_suffix(fixture: &dyn Fixture) -> Verdict {
    let store = born(fixture).await?;
    write(&*store, [append(1, 1..4), append(2, 4..9)]).await?;
    let state = hard_state(2, Some(3), 6);
    write(&*store, [Write::HardState(state)]).await?;
    let meta = install(&*store, 1, LogId::new(2, 6)).await?;
    let found = recovered(&*store).await?;
    ensure_eq(&found.last, &LogId::new(2, 8), "the end stays")?;
    ensure(found.compacted.index <= meta.last.index, "nothing above the snapshot is compacted")?;
    ensure_eq(&read(&*store, 7..9).await?, &run(2, 7..9), "the suffix")?;
    ensure_eq(&found.hard_state, &state, "the hard state")?;
    // The end of the log itself is held too: the suffix is empty.
    install(&*store, 2, LogId::new(2, 8)).await?;
    let found = recovered(&*store).await?;
    ensure_eq(&found.last, &LogId::new(2, 8), "the end still stays")?;
    write(&*store, [append(2, 9..11)]).await?;
    ensure_eq(&read(&*store, 9..11).await?, &run(2, 9..11), "what follows")
}

async fn a_log_that_does_not_hold_the_snapshots_end_goes_whole(fixture: &dyn Fixture) -> Verdict {
    for (end, what) in
        [(LogId::new(5, 6), "of another term"), (LogId::new(2, 20), "beyond the log")]
    {
        let store = fixture.open().await;
        let born_now = store.recover().await?.is_none();
        if born_now {
            store.create(&super::samples::identity()).await?;
            store.recover().await?;
            write(&*store, [append(1, 1..4), append(2, 4..9)]).await?;
        }
        let meta = install(&*store, end.index.0, end).await?;
        drop(store);
        let store = fixture.reopen().await;
        let found = recovered(&*store).await?;
        let ends = (found.compacted, found.last);
        ensure_eq(&ends, &(end, end), format_args!("a snapshot {what}"))?;
        ensure_eq(&found.terms, &Vec::new(), "the terms of no entries")?;
        ensure_eq(&found.memberships, &Vec::new(), "and no memberships")?;
        ensure_eq(&found.snapshot, &Some(meta), "the snapshot")?;
        let next = end.index.next().0;
        write(&*store, [append(6, next..next + 3)]).await?;
        let found = read(&*store, next..next + 3).await?;
        ensure_eq(&found, &run(6, next..next + 3), "the log goes on behind it")?;
        let found = recovered(&*store).await?;
        ensure_eq(&found.terms, &runs(&[(next, 6)]), "with its terms")?;
    }
    Ok(())
}

async fn a_snapshot_below_what_is_compacted_is_refused(fixture: &dyn Fixture) -> Verdict {
    let store = born(fixture).await?;
    write(&*store, [append(1, 1..9)]).await?;
    install(&*store, 1, LogId::new(1, 7)).await?;
    write(&*store, [Write::Compact(LogId::new(1, 7))]).await?;
    let before = seen(&*store).await?;
    let (meta, bytes) = snapshot(2, LogId::new(1, 4), 100);
    stage(&*store, &meta, &bytes, 100).await?;
    let outcome = write(&*store, [Write::InstallSnapshot(meta)]).await;
    let promise = "a snapshot that ends below what is compacted is `BadWrite`";
    ensure_refused(outcome, is_bad_write, promise)?;
    ensure_eq(&seen(&*store).await?, &before, "after it was refused")
}

async fn install_and_compact_and_append_go_in_one_batch(fixture: &dyn Fixture) -> Verdict {
    let store = born(fixture).await?;
    write(&*store, [append(1, 1..9)]).await?;
    let end = LogId::new(4, 30);
    let (meta, bytes) = snapshot(2, end, 100);
    stage(&*store, &meta, &bytes, 50).await?;
    let orders = [
        append(2, 9..12),
        Write::InstallSnapshot(meta.clone()),
        append(4, 31..36),
        Write::HardState(hard_state(4, None, 30)),
        Write::Compact(end),
    ];
    write(&*store, orders).await?;
    drop(store);
    let found = seen(&*fixture.reopen().await).await?;
    ensure_eq(&found.recovered.compacted, &end, "what is compacted")?;
    ensure_eq(&found.recovered.snapshot, &Some(meta), "the snapshot")?;
    ensure_eq(&found.entries, &run(4, 31..36), "the log behind it")
}

async fn a_later_snapshot_replaces_the_earlier(fixture: &dyn Fixture) -> Verdict {
    let store = born(fixture).await?;
    write(&*store, [append(1, 1..9)]).await?;
    install(&*store, 1, LogId::new(1, 3)).await?;
    let (meta, bytes) = snapshot(2, LogId::new(1, 6), 4321);
    stage(&*store, &meta, &bytes, 1000).await?;
    write(&*store, [Write::InstallSnapshot(meta.clone())]).await?;
    let outcome = store.read_snapshot(1, 0, 10).await;
    ensure_refused(outcome, is_unknown, "the earlier one is `NoSnapshot`")?;
    let found = bytes_of(&*store, &meta, 2000).await?;
    ensure(found == bytes, "the bytes of the later one")?;
    let found = recovered(&*store).await?;
    ensure_eq(&found.snapshot, &Some(meta), "its description")
}

async fn of_two_snapshots_in_one_batch_the_second_reaches_further(
    fixture: &dyn Fixture,
) -> Verdict {
    let store = born(fixture).await?;
    write(&*store, [append(1, 1..31)]).await?;
    let before = seen(&*store).await?;
    let (first, first_bytes) = snapshot(7, LogId::new(1, 20), 1000);
    for (id, index) in [(8, 20), (9, 10)] {
        let (other, bytes) = snapshot(id, LogId::new(1, index), 500);
        stage(&*store, &first, &first_bytes, 333).await?;
        stage(&*store, &other, &bytes, 333).await?;
        let order = [Write::InstallSnapshot(first.clone()), Write::InstallSnapshot(other)];
        let promise = "what was staged goes with an installation that reaches as far";
        ensure_refused(write(&*store, order).await, is_bad_write, promise)?;
        // It looks by a recovery, which forgets what was staged.
        ensure_eq(&seen(&*store).await?, &before, "after two snapshots in one batch")?;
    }
    let (further, bytes) = snapshot(10, LogId::new(1, 25), 500);
    stage(&*store, &first, &first_bytes, 333).await?;
    stage(&*store, &further, &bytes, 333).await?;
    let order = [Write::InstallSnapshot(first), Write::InstallSnapshot(further.clone())];
    write(&*store, order).await?;
    let found = bytes_of(&*store, &further, 4096).await?;
    ensure(found == bytes, "the second of two snapshots in one batch")
}
