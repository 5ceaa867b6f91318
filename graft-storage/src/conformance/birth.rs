//! A store is born once and remembers as whom.

use graft_core::{Identity, LogId, LogStore, Recovered, StoreError};

use super::{
    Fixture, Verdict, ensure, ensure_eq, ensure_refused, list_checks,
    samples::{append, born, identity, range, recovered, write},
};

list_checks![
    a_store_never_born_recovers_as_none_and_takes_no_writes,
    a_newborn_store_is_empty_and_knows_its_identity,
    a_second_birth_is_refused_and_changes_nothing,
    whoever_only_asks_for_the_identity_is_told_the_true_one_and_fences_nobody,
];

async fn a_store_never_born_recovers_as_none_and_takes_no_writes(fixture: &dyn Fixture) -> Verdict {
    let store = fixture.open().await;
    ensure_eq(&store.recover().await?, &None, "what was never born")?;
    let is_unborn = |error: &StoreError| matches!(error, StoreError::NotBorn);
    let outcome = store.write(vec![append(1, 1..2)]).await;
    ensure_refused(outcome, is_unborn, "a write before birth is `NotBorn`")?;
    let outcome = store.read(range(1..2), 1).await;
    ensure_refused(outcome, is_unborn, "a read before birth is `NotBorn`")?;
    ensure_eq(&store.recover().await?, &None, "what was still never born")
}

async fn a_newborn_store_is_empty_and_knows_its_identity(fixture: &dyn Fixture) -> Verdict {
    let store = born(fixture).await?;
    let newborn = Recovered::newborn(identity());
    ensure_eq(&recovered(&*store).await?, &newborn, "a newborn store")?;
    drop(store);
    let store = fixture.reopen().await;
    ensure_eq(&recovered(&*store).await?, &newborn, "after a reopen")
}

async fn a_second_birth_is_refused_and_changes_nothing(fixture: &dyn Fixture) -> Verdict {
    let store = born(fixture).await?;
    write(&*store, [append(1, 1..3)]).await?;
    let before = recovered(&*store).await?;
    let other = Identity { name: "server2".into(), ..identity() };
    let is_refusal = |error: &StoreError| match error {
        StoreError::AlreadyBorn { name } => *name == identity().name,
        _ => false,
    };
    let promise = "a second birth is `AlreadyBorn` and names the first";
    ensure_refused(store.create(&other).await, is_refusal, promise)?;
    drop(store);
    let store = fixture.reopen().await;
    ensure_refused(store.create(&other).await, is_refusal, promise)?;
    ensure_eq(&recovered(&*store).await?, &before, "after a refused birth")
}

async fn whoever_only_asks_for_the_identity_is_told_the_true_one_and_fences_nobody(
    fixture: &dyn Fixture,
) -> Verdict {
    let stranger = fixture.open().await;
    ensure_eq(&stranger.identity().await?, &None, "the identity of what was never born")?;
    let owner = born(fixture).await?;
    write(&*owner, [append(1, 1..3)]).await?;
    tells_the_truth(&*stranger).await?;
    tells_the_truth(&*fixture.open().await).await?;
    write(&*owner, [append(1, 3..4)]).await?;
    drop((stranger, owner));
    let store = fixture.reopen().await;
    tells_the_truth(&*store).await?;
    let found = recovered(&*store).await?;
    ensure_eq(&found.identity, &identity(), "the identity that is recovered")?;
    ensure_eq(&found.last, &LogId::new(1, 3), "the log after its identity was asked for")
}

/// A store that can tell only when it is recovered says nothing.
async fn tells_the_truth(store: &dyn LogStore) -> Verdict {
    let told = store.identity().await?;
    ensure(
        told.is_none() || told == Some(identity()),
        format_args!("the identity is told as it is or not at all: found {told:?}"),
    )
}
