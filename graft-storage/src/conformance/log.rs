//! Batches: what they change, in which order, and that they happen whole or not at all.

use bytes::Bytes;
use graft_core::{Entries, Entry, EntryKind, LogId, LogTime, StoreError, Write};

use super::{
    Fixture, Verdict, ensure, ensure_eq, ensure_refused, list_checks,
    samples::{
        Seen, append, born, entry, entry_of, hard_state, install, read, recovered, run, runs, seen,
        snapshot, time_of, write,
    },
};

list_checks![
    everything_written_is_there_after_a_reopen,
    entries_come_back_byte_for_byte,
    hard_state_and_entries_go_in_one_batch,
    orders_of_a_batch_happen_in_their_order,
    an_append_replaces_everything_at_and_above_its_first_index,
    terms_are_those_of_the_log_after_truncation,
    the_time_of_the_last_entry_comes_back_wherever_that_entry_is,
    an_append_that_leaves_a_gap_is_refused,
    an_append_of_a_lower_term_is_refused,
    an_index_that_cannot_be_counted_on_from_is_refused,
    a_batch_with_a_bad_order_changes_nothing,
    an_empty_append_and_an_empty_batch_change_nothing,
    the_buffer_comes_back_empty,
];

async fn everything_written_is_there_after_a_reopen(fixture: &dyn Fixture) -> Verdict {
    let store = born(fixture).await?;
    for term in 1..=20 {
        let first = (term - 1) * 50 + 1;
        write(
            &*store,
            [
                Write::HardState(hard_state(term, Some(term + 1), first)),
                append(term, first..first + 50),
            ],
        )
        .await?;
    }
    let before = seen(&*store).await?;
    drop(store);
    let after = seen(&*fixture.reopen().await).await?;
    let state = after.recovered.hard_state;
    ensure_eq(&state, &hard_state(20, Some(21), 951), "the hard state")?;
    ensure_eq(&after.recovered.last, &LogId::new(20, 1000), "the last")?;
    let expected: Vec<_> = (1..=20).map(|term| ((term - 1) * 50 + 1, term)).collect();
    ensure_eq(&after.recovered.terms, &runs(&expected), "the terms")?;
    ensure_eq(&after, &before, "the store before and after a reopen")
}

async fn entries_come_back_byte_for_byte(fixture: &dyn Fixture) -> Verdict {
    let store = born(fixture).await?;
    let kinds = [
        EntryKind::Blank,
        EntryKind::Plain,
        EntryKind::SessionOpen,
        EntryKind::SessionKeepAlive,
        EntryKind::SessionClose,
        EntryKind::SessionCommand,
    ];
    let sizes = [0, 1, 15, 16, 17, 4095, 4096, 65_537, 1 << 20];
    let mut list: Vec<Entry> = Vec::new();
    for size in sizes {
        for kind in kinds {
            let index = list.len() as u64 + 1;
            let payload: Bytes = (0..size).map(|at| (at * 7 + index).to_le_bytes()[0]).collect();
            list.push(Entry {
                kind,
                time: LogTime(u64::MAX - index),
                ..entry_of(3, index, payload)
            });
        }
    }
    let count = list.len() as u64;
    let entries: Entries = list.into();
    write(&*store, [Write::Append(entries.clone())]).await?;
    let found = read(&*store, 1..count + 1).await?;
    ensure(found == entries, "entries are read as they were written")?;
    drop(store);
    let store = fixture.reopen().await;
    recovered(&*store).await?;
    let found = read(&*store, 1..count + 1).await?;
    ensure(found == entries, "so they are after a reopen")
}

async fn hard_state_and_entries_go_in_one_batch(fixture: &dyn Fixture) -> Verdict {
    let store = born(fixture).await?;
    let state = hard_state(4, Some(2), 0);
    write(&*store, [append(4, 1..4), Write::HardState(state)]).await?;
    drop(store);
    let found = recovered(&*fixture.reopen().await).await?;
    ensure_eq(&found.hard_state, &state, "the hard state beside entries")?;
    ensure_eq(&found.last, &LogId::new(4, 3), "the entries beside it")?;
    let store = fixture.open().await;
    recovered(&*store).await?;
    let state = hard_state(5, None, 2);
    write(&*store, [Write::HardState(state)]).await?;
    let found = recovered(&*store).await?;
    ensure_eq(&found.hard_state, &state, "a vote taken back by a new term")
}

async fn orders_of_a_batch_happen_in_their_order(fixture: &dyn Fixture) -> Verdict {
    let store = born(fixture).await?;
    let orders = [
        append(1, 1..10),
        Write::HardState(hard_state(1, None, 0)),
        append(2, 4..6),
        Write::HardState(hard_state(3, Some(1), 0)),
        append(3, 6..8),
        append(3, 8..9),
    ];
    write(&*store, orders).await?;
    let Seen { recovered, entries } = seen(&*store).await?;
    ensure_eq(&recovered.hard_state.term.0, &3, "the later hard state")?;
    ensure_eq(&recovered.terms, &runs(&[(1, 1), (4, 2), (6, 3)]), "the terms")?;
    let mut expected = run(1, 1..4);
    expected.append(run(2, 4..6));
    expected.append(run(3, 6..9));
    ensure_eq(&entries, &expected, "the log")
}

async fn an_append_replaces_everything_at_and_above_its_first_index(
    fixture: &dyn Fixture,
) -> Verdict {
    let store = born(fixture).await?;
    write(&*store, [append(1, 1..11)]).await?;
    write(&*store, [append(2, 6..8)]).await?;
    let mut expected = run(1, 1..6);
    expected.append(run(2, 6..8));
    let found = seen(&*store).await?;
    ensure_eq(&found.recovered.last, &LogId::new(2, 7), "the new end")?;
    ensure_eq(&found.entries, &expected, "the log after an overlap")?;
    // The same entries once more, but fewer: what was behind them goes all the same.
    write(&*store, [append(1, 3..4)]).await?;
    let found = seen(&*store).await?;
    ensure_eq(&found.entries, &run(1, 1..4), "the log after a repetition")?;
    write(&*store, [append(7, 1..2)]).await?;
    drop(store);
    let found = seen(&*fixture.reopen().await).await?;
    ensure_eq(&found.entries, &run(7, 1..2), "a log replaced from 1")
}

async fn terms_are_those_of_the_log_after_truncation(fixture: &dyn Fixture) -> Verdict {
    let store = born(fixture).await?;
    let mut mixed: Vec<Entry> = (1..4).map(|index| entry(1, index)).collect();
    mixed.extend((4..6).map(|index| entry(2, index)));
    mixed.push(entry(5, 6));
    write(&*store, [Write::Append(mixed.into()), append(5, 7..9)]).await?;
    let found = recovered(&*store).await?;
    let expected = runs(&[(1, 1), (4, 2), (6, 5)]);
    ensure_eq(&found.terms, &expected, "the terms of a mixed append")?;
    write(&*store, [append(6, 6..7)]).await?;
    let found = recovered(&*store).await?;
    let expected = runs(&[(1, 1), (4, 2), (6, 6)]);
    ensure_eq(&found.terms, &expected, "a run replaced from its start")?;
    write(&*store, [append(6, 5..8)]).await?;
    let found = recovered(&*store).await?;
    let expected = runs(&[(1, 1), (4, 2), (5, 6)]);
    ensure_eq(&found.terms, &expected, "a run cut short")?;
    write(&*store, [append(1, 3..4)]).await?;
    drop(store);
    let found = recovered(&*fixture.reopen().await).await?;
    ensure_eq(&found.terms, &runs(&[(1, 1)]), "a run that goes on")
}

async fn the_time_of_the_last_entry_comes_back_wherever_that_entry_is(
    fixture: &dyn Fixture,
) -> Verdict {
    let store = born(fixture).await?;
    let written = [(append(1, 1..9), LogId::new(1, 8)), (append(2, 3..5), LogId::new(2, 4))];
    for (order, last) in written {
        write(&*store, [order]).await?;
        let found = recovered(&*store).await?.last_time;
        ensure_eq(&found, &time_of(last), "the time of the last entry")?;
    }
    let end = LogId::new(2, 4);
    install(&*store, 1, end).await?;
    write(&*store, [Write::Compact(end)]).await?;
    let found = recovered(&*store).await?.last_time;
    ensure_eq(&found, &time_of(end), "the same once it is compacted")?;
    let end = LogId::new(7, 70);
    install(&*store, 2, end).await?;
    drop(store);
    let found = recovered(&*fixture.reopen().await).await?.last_time;
    ensure_eq(&found, &time_of(end), "the time that a snapshot ends at")
}

fn is_bad_write(error: &StoreError) -> bool {
    matches!(error, StoreError::BadWrite { .. })
}

async fn an_append_that_leaves_a_gap_is_refused(fixture: &dyn Fixture) -> Verdict {
    let store = born(fixture).await?;
    let promise = "an append that leaves a gap is `BadWrite`";
    ensure_refused(write(&*store, [append(1, 2..3)]).await, is_bad_write, promise)?;
    write(&*store, [append(1, 1..4)]).await?;
    let before = seen(&*store).await?;
    ensure_refused(write(&*store, [append(1, 5..9)]).await, is_bad_write, promise)?;
    // A shorter log makes a gap of what followed before.
    let orders = [append(2, 2..3), append(2, 4..5)];
    ensure_refused(write(&*store, orders).await, is_bad_write, promise)?;
    ensure_eq(&seen(&*store).await?, &before, "after refused gaps")
}

async fn an_append_of_a_lower_term_is_refused(fixture: &dyn Fixture) -> Verdict {
    let store = born(fixture).await?;
    write(&*store, [append(3, 1..4)]).await?;
    let before = seen(&*store).await?;
    let outcome = write(&*store, [append(2, 4..5)]).await;
    let promise = "an append whose term is below that of the entry before it is `BadWrite`";
    ensure_refused(outcome, is_bad_write, promise)?;
    ensure_eq(&seen(&*store).await?, &before, "after it was refused")
}

async fn an_index_that_cannot_be_counted_on_from_is_refused(fixture: &dyn Fixture) -> Verdict {
    const END: u64 = 1 << 62;
    let store = born(fixture).await?;
    let is_refused = |error: &StoreError| matches!(error, StoreError::BadWrite { .. });
    for last in [END, u64::MAX] {
        let (meta, _) = snapshot(1, LogId::new(2, last), 0);
        let promise = "a snapshot that ends at index 2^62 or above is `BadWrite`";
        let installed = store.write(vec![Write::InstallSnapshot(meta)]).await;
        ensure_refused(installed, is_refused, promise)?;
    }
    install(&*store, 1, LogId::new(2, END - 3)).await?;
    write(&*store, [append(2, END - 2..END - 1)]).await?;
    let before = seen(&*store).await?;
    for indexes in [END - 1..END + 1, END - 2..END + 9] {
        let promise = "an append that reaches index 2^62 is `BadWrite`";
        ensure_refused(store.write(vec![append(2, indexes)]).await, is_refused, promise)?;
    }
    ensure_eq(&seen(&*store).await?, &before, "the store before and after a refusal")?;
    write(&*store, [append(2, END - 1..END)]).await?;
    let last = recovered(&*store).await?.last;
    ensure_eq(&last, &LogId::new(2, END - 1), "the last index that there can be")?;
    ensure_eq(&read(&*store, END - 2..END).await?, &run(2, END - 2..END), "the last entries")
}

async fn a_batch_with_a_bad_order_changes_nothing(fixture: &dyn Fixture) -> Verdict {
    let store = born(fixture).await?;
    write(&*store, [append(1, 1..6)]).await?;
    let before = seen(&*store).await?;
    let (meta, _) = snapshot(1, LogId::new(1, 3), 10);
    let bad = [append(2, 99..100), Write::Compact(LogId::new(1, 77)), Write::InstallSnapshot(meta)];
    let good = [Write::HardState(hard_state(9, Some(1), 5)), append(2, 4..9), append(2, 9..12)];
    for order in bad {
        for place in 0..=good.len() {
            let mut orders = good.to_vec();
            orders.insert(place, order.clone());
            let outcome = store.write(orders).await;
            let promise = format!("a batch with {order:?} at place {place} is `BadWrite`");
            ensure_refused(outcome, is_bad_write, promise)?;
            let promise = format!("nothing of a batch with {order:?} at place {place} happens");
            ensure_eq(&seen(&*store).await?, &before, promise)?;
        }
    }
    write(&*store, good).await?;
    drop(store);
    let found = recovered(&*fixture.reopen().await).await?;
    ensure_eq(&found.last, &LogId::new(2, 11), "the good orders alone")
}

async fn an_empty_append_and_an_empty_batch_change_nothing(fixture: &dyn Fixture) -> Verdict {
    let store = born(fixture).await?;
    write(&*store, [append(1, 1..4)]).await?;
    let before = seen(&*store).await?;
    write(&*store, []).await?;
    write(&*store, [Write::Append(Entries::new())]).await?;
    ensure_eq(&seen(&*store).await?, &before, "after writes of nothing")
}

async fn the_buffer_comes_back_empty(fixture: &dyn Fixture) -> Verdict {
    let store = born(fixture).await?;
    let mut buffer = Vec::with_capacity(64);
    for turn in 0..3 {
        buffer.push(Write::HardState(hard_state(1, None, 0)));
        buffer.push(append(1, turn * 3 + 1..turn * 3 + 4));
        buffer = store.write(buffer).await?;
        ensure(buffer.is_empty(), "the buffer comes back empty")?;
        ensure(buffer.capacity() >= 64, "it is the buffer that was given")?;
    }
    Ok(())
}
