//! Reading ranges of the log.

use graft_core::{Entries, Entry, Loaded, StoreError, Write};

use super::{
    Fixture, Verdict, ensure, ensure_eq, ensure_refused, list_checks,
    samples::{append, born, entry_of, range, read, run, write},
};

list_checks![
    a_read_gives_the_entries_of_its_range,
    a_read_gives_at_least_one_entry_and_no_more_than_fit,
    a_read_outside_the_log_is_an_error,
];

async fn a_read_gives_the_entries_of_its_range(fixture: &dyn Fixture) -> Verdict {
    let store = born(fixture).await?;
    // Batches of different lengths, so that ranges begin and end inside of them.
    let mut next = 1;
    for length in [1, 2, 3, 7, 20, 1, 1, 30] {
        write(&*store, [append(1, next..next + length)]).await?;
        next += length;
    }
    for start in 1..next {
        for end in (start + 1..=next).step_by(5).chain([next]) {
            let found = read(&*store, start..end).await?;
            let promise = format_args!("what {start}..{end} holds");
            ensure_eq(&found, &run(1, start..end), promise)?;
        }
    }
    let loaded = store.read(range(60..u64::MAX), usize::MAX).await?;
    let expected = Loaded::Entries(run(1, 60..next));
    ensure_eq(&loaded, &expected, "a range that ends behind the log")
}

async fn a_read_gives_at_least_one_entry_and_no_more_than_fit(fixture: &dyn Fixture) -> Verdict {
    let store = born(fixture).await?;
    let large = 100_000;
    let entries: Entries = (1..41)
        .map(|index| entry_of(1, index, vec![0; if index == 9 { large } else { 100 }]))
        .collect();
    write(&*store, [Write::Append(entries.clone())]).await?;
    let one = 100 + Entry::OVERHEAD;
    for (start, max_bytes) in [
        (1, 0),
        (1, 1),
        (1, one),
        (1, one * 2),
        (1, one * 4 - 1),
        (9, 10),
        (8, one + 1),
        (5, large),
        (10, one * 31),
        (10, usize::MAX),
    ] {
        let Loaded::Entries(found) = store.read(range(start..41), max_bytes).await? else {
            return ensure(false, "nothing is compacted");
        };
        let what = format!("{max_bytes} bytes from {start} gave {} entries", found.len());
        ensure(!found.is_empty(), format_args!("at least one entry: {what}"))?;
        let fits = found.size() <= max_bytes || found.len() == 1;
        ensure(fits, format_args!("no more than fit: {what}"))?;
        let end = start + found.len() as u64;
        let expected = entries.slice(range(start..end));
        ensure_eq(&found, &expected, format_args!("the first ones: {what}"))?;
    }
    Ok(())
}

async fn a_read_outside_the_log_is_an_error(fixture: &dyn Fixture) -> Verdict {
    let store = born(fixture).await?;
    let is_outside = |error: &StoreError| matches!(error, StoreError::OutOfRange { .. });
    let outcome = store.read(range(1..2), 100).await;
    ensure_refused(outcome, is_outside, "an empty log is `OutOfRange`")?;
    write(&*store, [append(1, 1..6)]).await?;
    for (start, end) in [(6, 7), (7, 9), (3, 3), (5, 2)] {
        let outcome = store.read(range(start..end), 100).await;
        let promise = format_args!("{start}..{end} of a log that ends at 5 is `OutOfRange`");
        ensure_refused(outcome, is_outside, promise)?;
    }
    // The same once a truncation has made the log shorter.
    write(&*store, [append(2, 2..3)]).await?;
    let outcome = store.read(range(3..4), 100).await;
    ensure_refused(outcome, is_outside, "what was truncated is `OutOfRange`")
}
