//! Dropping the beginning of the log once a snapshot covers it.

use graft_core::{Entry, Loaded, LogId, StoreError, Write};

use super::{
    Fixture, Verdict, ensure_eq, ensure_refused, list_checks,
    samples::{
        Seen, append, born, entry, install, membership, membership_entry, range, read, recovered,
        run, runs, seen, write,
    },
};

list_checks![
    compaction_drops_the_beginning_and_nothing_else,
    a_log_that_is_compacted_whole_goes_on_where_it_ended,
    compaction_below_what_is_compacted_changes_nothing,
    compaction_beyond_log_or_snapshot_is_refused,
    an_append_into_the_compacted_part_is_refused,
];

async fn compaction_drops_the_beginning_and_nothing_else(fixture: &dyn Fixture) -> Verdict {
    let store = born(fixture).await?;
    let voters = membership("voters", &[1, 2]);
    let mut list: Vec<Entry> = vec![membership_entry(1, 1, &voters)];
    list.extend((2..6).map(|index| entry(1, index)));
    list.push(membership_entry(2, 6, &voters));
    list.extend((7..11).map(|index| entry(2, index)));
    write(&*store, [Write::Append(list.clone().into())]).await?;
    write(&*store, [append(4, 11..15)]).await?;
    let state = recovered(&*store).await?.hard_state;
    install(&*store, 1, LogId::new(4, 12)).await?;

    write(&*store, [Write::Compact(LogId::new(1, 3))]).await?;
    let found = recovered(&*store).await?;
    ensure_eq(&found.compacted, &LogId::new(1, 3), "what is compacted")?;
    let expected = runs(&[(4, 1), (6, 2), (11, 4)]);
    ensure_eq(&found.terms, &expected, "the terms from inside a run")?;
    let expected = vec![(LogId::new(2, 6), voters)];
    ensure_eq(&found.memberships, &expected, "the memberships that stay")?;

    write(&*store, [Write::Compact(LogId::new(2, 10))]).await?;
    let expected = Loaded::Compacted(LogId::new(2, 10));
    for start in [1, 3, 10] {
        let found = store.read(range(start..12), usize::MAX).await?;
        let promise = format_args!("a read from {start}, which is compacted");
        ensure_eq(&found, &expected, promise)?;
    }
    drop(store);
    let Seen { recovered, entries } = seen(&*fixture.reopen().await).await?;
    ensure_eq(&entries, &run(4, 11..15), "the entries that stay")?;
    ensure_eq(&recovered.terms, &runs(&[(11, 4)]), "the terms that stay")?;
    ensure_eq(&recovered.memberships, &Vec::new(), "no memberships")?;
    ensure_eq(&recovered.last, &LogId::new(4, 14), "the end")?;
    ensure_eq(&recovered.hard_state, &state, "the hard state")
}

async fn a_log_that_is_compacted_whole_goes_on_where_it_ended(fixture: &dyn Fixture) -> Verdict {
    let store = born(fixture).await?;
    let end = LogId::new(3, 5);
    write(&*store, [append(1, 1..3), append(3, 3..6)]).await?;
    install(&*store, 1, end).await?;
    write(&*store, [Write::Compact(end)]).await?;
    drop(store);
    let store = fixture.reopen().await;
    let found = recovered(&*store).await?;
    ensure_eq(&(found.compacted, found.last), &(end, end), "the ends")?;
    ensure_eq(&found.terms, &Vec::new(), "the terms of no entries")?;
    let is_outside = |error: &StoreError| matches!(error, StoreError::OutOfRange { .. });
    let outcome = store.read(range(6..7), 10).await;
    ensure_refused(outcome, is_outside, "behind the end is `OutOfRange`")?;
    write(&*store, [append(3, 6..8)]).await?;
    ensure_eq(&read(&*store, 6..8).await?, &run(3, 6..8), "what follows")?;
    let found = recovered(&*store).await?;
    ensure_eq(&found.terms, &runs(&[(6, 3)]), "the terms of what follows")
}

async fn compaction_below_what_is_compacted_changes_nothing(fixture: &dyn Fixture) -> Verdict {
    let store = born(fixture).await?;
    write(&*store, [append(1, 1..9)]).await?;
    install(&*store, 1, LogId::new(1, 6)).await?;
    write(&*store, [Write::Compact(LogId::new(1, 5))]).await?;
    let before = seen(&*store).await?;
    for upto in [5, 4, 1] {
        write(&*store, [Write::Compact(LogId::new(1, upto))]).await?;
        ensure_eq(&seen(&*store).await?, &before, "after it was repeated")?;
    }
    Ok(())
}

fn is_bad_write(error: &StoreError) -> bool {
    matches!(error, StoreError::BadWrite { .. })
}

async fn compaction_beyond_log_or_snapshot_is_refused(fixture: &dyn Fixture) -> Verdict {
    let store = born(fixture).await?;
    write(&*store, [append(2, 1..9)]).await?;
    let outcome = write(&*store, [Write::Compact(LogId::new(2, 3))]).await;
    let promise = "without a snapshot compaction is `BadWrite`";
    ensure_refused(outcome, is_bad_write, promise)?;
    install(&*store, 1, LogId::new(2, 6)).await?;
    let before = seen(&*store).await?;
    for (upto, what) in [
        (LogId::new(2, 7), "above the snapshot"),
        (LogId::new(2, 9), "above the log"),
        (LogId::new(1, 4), "of another term than the log's"),
    ] {
        let outcome = write(&*store, [Write::Compact(upto)]).await;
        let promise = format_args!("compaction {what} is `BadWrite`");
        ensure_refused(outcome, is_bad_write, promise)?;
    }
    ensure_eq(&seen(&*store).await?, &before, "after refused compactions")
}

async fn an_append_into_the_compacted_part_is_refused(fixture: &dyn Fixture) -> Verdict {
    let store = born(fixture).await?;
    write(&*store, [append(1, 1..9)]).await?;
    install(&*store, 1, LogId::new(1, 5)).await?;
    write(&*store, [Write::Compact(LogId::new(1, 5))]).await?;
    let before = seen(&*store).await?;
    for first in [1, 4, 5] {
        let outcome = write(&*store, [append(2, first..12)]).await;
        let promise = format_args!("an append from {first}, which is compacted, is `BadWrite`");
        ensure_refused(outcome, is_bad_write, promise)?;
    }
    ensure_eq(&seen(&*store).await?, &before, "after refused appends")?;
    write(&*store, [append(2, 6..7)]).await?;
    let found = recovered(&*store).await?;
    ensure_eq(&found.last, &LogId::new(2, 6), "right behind it is fine")
}
