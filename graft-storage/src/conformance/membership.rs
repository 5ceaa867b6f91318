//! The list of memberships that recovery returns without a scan.

use bytes::Bytes;
use graft_core::{Entry, EntryKind, LogId, StoreError, Write};

use super::{
    Fixture, Verdict, ensure_eq, ensure_refused, list_checks,
    samples::{
        append, born, entry, entry_of, hard_state, membership, membership_entry, recovered, seen,
        write,
    },
};

list_checks![
    memberships_come_back_with_their_places,
    truncation_takes_memberships_along,
    an_unreadable_membership_is_refused,
];

async fn memberships_come_back_with_their_places(fixture: &dyn Fixture) -> Verdict {
    let store = born(fixture).await?;
    let (one, two) = (membership("one", &[1, 2, 3]), membership("two", &[1, 2, 4]));
    let founding: Vec<Write> = one.founding_writes();
    write(&*store, founding).await?;
    let list = vec![entry(2, 2), membership_entry(2, 3, &two), entry(2, 4)];
    write(&*store, [Write::Append(list.into())]).await?;
    let expected = vec![(LogId::new(1, 1), one), (LogId::new(2, 3), two)];
    let found = recovered(&*store).await?;
    ensure_eq(&found.memberships, &expected, "the memberships")?;
    ensure_eq(&found.hard_state.term.0, &1, "the founding term")?;
    drop(store);
    let found = recovered(&*fixture.reopen().await).await?;
    ensure_eq(&found.memberships, &expected, "they after a reopen")
}

async fn truncation_takes_memberships_along(fixture: &dyn Fixture) -> Verdict {
    let store = born(fixture).await?;
    let names = ["one", "two", "three"].map(|name| membership(name, &[1, 2, 3]));
    let places = [LogId::new(1, 2), LogId::new(1, 5), LogId::new(2, 8)];
    let list: Vec<Entry> = (1..10)
        .map(|index| match places.iter().position(|at| at.index.0 == index) {
            Some(at) => membership_entry(places[at].term.0, index, &names[at]),
            None => entry(if index < 6 { 1 } else { 2 }, index),
        })
        .collect();
    write(&*store, [Write::Append(list.into())]).await?;
    let all: Vec<_> = places.into_iter().zip(names.clone()).collect();
    ensure_eq(&recovered(&*store).await?.memberships, &all, "all of them")?;
    write(&*store, [append(2, 9..10)]).await?;
    let found = recovered(&*store).await?.memberships;
    ensure_eq(&found, &all, "those below a truncation")?;
    write(&*store, [append(3, 8..12)]).await?;
    let found = recovered(&*store).await?.memberships;
    ensure_eq(&found, &all[..2].to_vec(), "the one before comes back")?;
    let again = membership_entry(3, 5, &names[2]);
    write(&*store, [Write::Append(vec![again].into())]).await?;
    drop(store);
    let found = recovered(&*fixture.reopen().await).await?.memberships;
    let expected = vec![all[0].clone(), (LogId::new(3, 5), names[2].clone())];
    ensure_eq(&found, &expected, "one that replaces another")
}

async fn an_unreadable_membership_is_refused(fixture: &dyn Fixture) -> Verdict {
    let store = born(fixture).await?;
    let one = membership("one", &[1, 2, 3]);
    write(&*store, [Write::Append(vec![membership_entry(1, 1, &one)].into())]).await?;
    let before = seen(&*store).await?;
    let unreadable = Entry {
        kind: EntryKind::Membership,
        ..entry_of(1, 3, Bytes::from_static(b"from a newer build"))
    };
    let list = vec![entry(1, 2), unreadable, entry(1, 4)];
    let batch = vec![Write::HardState(hard_state(9, None, 1)), Write::Append(list.into())];
    let is_refused = |error: &StoreError| matches!(error, StoreError::BadWrite { .. });
    let promise =
        "a membership entry that does not decode is `BadWrite`, since recovery could not tell it";
    ensure_refused(store.write(batch).await, is_refused, promise)?;
    ensure_eq(&seen(&*store).await?, &before, "the store before and after a refusal")?;
    drop(store);
    ensure_eq(&seen(&*fixture.reopen().await).await?, &before, "it after a reopen")
}
