//! Recovery fences: one writer at a time, and nothing of an earlier one happens later.

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};

use graft_core::{LogId, SnapshotChunk, StoreError, Write};

use super::{
    Fixture, Verdict, ensure, ensure_eq, ensure_refused, list_checks,
    samples::{append, born, hard_state, recovered, seen, snapshot, write},
};

list_checks![
    recovery_fences_earlier_handles,
    a_fenced_handle_recovers_and_fences_in_turn,
    a_write_whose_caller_is_gone_happens_whole_or_never,
];

fn is_fenced(error: &StoreError) -> bool {
    matches!(error, StoreError::Fenced)
}

async fn recovery_fences_earlier_handles(fixture: &dyn Fixture) -> Verdict {
    let older = born(fixture).await?;
    write(&*older, [append(1, 1..4)]).await?;
    let newer = fixture.open().await;
    let before = seen(&*newer).await?;
    let orders = vec![Write::HardState(hard_state(9, Some(9), 0)), append(9, 2..9)];
    let outcome = older.write(orders).await;
    ensure_refused(outcome, is_fenced, "an earlier handle's write is `Fenced`")?;
    let (meta, bytes) = snapshot(1, LogId::new(1, 3), 10);
    let offset = 0;
    let chunk = SnapshotChunk { meta, offset, bytes };
    let outcome = older.stage(chunk).await;
    ensure_refused(outcome, is_fenced, "an earlier handle's chunk is `Fenced`")?;
    ensure_eq(&seen(&*newer).await?, &before, "after fenced writes")?;
    write(&*newer, [append(2, 4..5)]).await?;
    let last = recovered(&*newer).await?.last;
    ensure_eq(&last, &LogId::new(2, 4), "the newer handle writes")
}

async fn a_fenced_handle_recovers_and_fences_in_turn(fixture: &dyn Fixture) -> Verdict {
    let first = born(fixture).await?;
    let second = fixture.open().await;
    recovered(&*second).await?;
    write(&*second, [append(1, 1..3)]).await?;
    let found = recovered(&*first).await?;
    ensure_eq(&found.last, &LogId::new(1, 2), "what the other one wrote")?;
    write(&*first, [append(1, 3..4)]).await?;
    let outcome = write(&*second, [append(1, 4..5)]).await;
    ensure_refused(outcome, is_fenced, "the one recovered before is `Fenced`")?;
    let last = recovered(&*first).await?.last;
    ensure_eq(&last, &LogId::new(1, 3), "the log in the end")
}

async fn a_write_whose_caller_is_gone_happens_whole_or_never(fixture: &dyn Fixture) -> Verdict {
    let older = born(fixture).await?;
    write(&*older, [append(1, 1..4)]).await?;
    let before = seen(&*older).await?;
    {
        let orders = vec![Write::HardState(hard_state(5, Some(2), 3)), append(2, 3..50)];
        let mut given_up = pin!(older.write(orders));
        let _: Poll<_> = given_up.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }
    let newer = fixture.open().await;
    let after = seen(&*newer).await?;
    let happened = after.recovered.last == LogId::new(2, 49)
        && after.recovered.hard_state == hard_state(5, Some(2), 3);
    ensure(
        happened || after == before,
        format_args!("all of a write or nothing: {:?}", after.recovered),
    )?;
    // What recovery did not show may not appear afterwards.
    write(&*newer, [Write::HardState(hard_state(6, None, 0))]).await?;
    let later = seen(&*newer).await?;
    ensure_eq(&later.entries, &after.entries, "the log at a later look")?;
    ensure_eq(
        &later.recovered.hard_state,
        &hard_state(6, None, 0),
        "the hard state at a later look",
    )
}
