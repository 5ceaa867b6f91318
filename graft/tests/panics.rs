//! Panics: of a machine over an entry, and of a server's driver.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is test code")]

mod common;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use common::{Note, Notes, SERVERS, Trap, add, soon, until, until_failed};
use graft::{LogStore, Outcome, RequestError, Status, StopReason, StoreError};
use graft_storage::MemoryStore;

/// The story: in the library this one follows, an entry over which the machine panicked killed the
/// leader, was replayed by the next one, and killed that too, until nobody was left.
#[tokio::test]
async fn a_panicking_entry_does_not_kill_leader_after_leader() {
    let notes = graft::start(SERVERS, Notes::default).await.unwrap();
    soon(notes.request("server1", add("a"))).await.unwrap();
    let leader = notes.leader().await.unwrap();
    let term = notes.watch(&leader).unwrap().borrow().term;

    let error = soon(notes.request("server1", Note::Panic("b".into()))).await.unwrap_err();
    let RequestError::MachinePanicked { message } = &error else { panic!("{error}") };
    assert_eq!(message, "this machine was told to panic");
    assert_eq!((error.outcome(), error.is_retryable()), (Outcome::Applied, false));

    // The machine keeps what it had done, the same server leads, and nobody was started again.
    assert_eq!(soon(notes.request("server2", add("c"))).await.unwrap(), ["a", "b", "c"]);
    let overview = notes.watch(&leader).unwrap().borrow().clone();
    assert_eq!((overview.role, overview.term), (Some(graft::Role::Leader), term));
    assert!(notes.servers().iter().all(|(_, status)| *status == Status::Running));

    // Neither does replaying it kill anybody.
    for server in SERVERS {
        notes.restart_server(server).await.unwrap();
    }
    assert_eq!(soon(notes.request("server3", Note::Read)).await.unwrap(), ["a", "b", "c"]);
    assert!(notes.servers().iter().all(|(_, status)| *status == Status::Running));
}

/// A cluster whose `server3` has a trap for a store.
struct Trapped {
    notes: graft::Supervisor<Notes>,
    /// How often the trap is still to go off.
    panics: Arc<AtomicUsize>,
    /// How many machines were made.
    made: Arc<AtomicUsize>,
}

async fn trapped() -> Trapped {
    let (panics, made) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let set = Arc::clone(&panics);
    let open = move |name: &graft::ServerName| -> Result<Box<dyn LogStore>, StoreError> {
        let store = MemoryStore::new();
        if *name == "server3" {
            return Ok(Box::new(Trap::new(store, Arc::clone(&set))));
        }
        Ok(Box::new(store))
    };
    let count = Arc::clone(&made);
    let init = move || {
        count.fetch_add(1, Ordering::Relaxed);
        Notes::default()
    };
    let notes = graft::cluster(SERVERS).stores(open).start(init).await.unwrap();
    soon(notes.request("server1", add("a"))).await.unwrap();
    Trapped { notes, panics, made }
}

#[tokio::test]
async fn a_server_is_started_again_after_a_panic_of_its_driver() {
    let Trapped { notes, panics, made } = trapped().await;
    let mut watch = notes.watch("server3").unwrap();
    panics.store(1, Ordering::Relaxed);
    soon(notes.request("server1", add("b"))).await.unwrap();
    while made.load(Ordering::Relaxed) == 3 {
        soon(watch.changed()).await.unwrap();
    }
    assert_eq!(panics.load(Ordering::Relaxed), 0);
    // It takes part again: with it and one other there is a majority.
    notes.stop_server("server2").await.unwrap();
    assert_eq!(soon(notes.request("server3", add("c"))).await.unwrap(), ["a", "b", "c"]);
    assert_eq!(watch.borrow().status, Status::Running);
    assert_eq!(made.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn a_driver_that_panics_again_and_again_is_left_alone_after_three_restarts() {
    let Trapped { notes, panics, made } = trapped().await;
    panics.store(usize::MAX, Ordering::Relaxed);
    soon(notes.request("server1", add("b"))).await.unwrap();
    let status = until_failed(&notes, "server3").await;
    let Status::Failed { reason: StopReason::Panicked { .. }, restarts: 3 } = &status else {
        panic!("{status}")
    };
    assert_eq!(made.load(Ordering::Relaxed), 6, "three at first, and one a restart");
    let data = notes.data("server3").await.unwrap();
    assert_eq!((&data.status, &data.state), (&status, &None));
    assert_eq!(soon(notes.request("server3", add("c"))).await.unwrap(), ["a", "b", "c"]);
    // Whoever has mended it may start it by hand.
    panics.store(0, Ordering::Relaxed);
    notes.restart_server("server3").await.unwrap();
    until(&notes, "server3", |overview| overview.leader.is_some()).await;
    notes.stop_server("server1").await.unwrap();
    assert_eq!(soon(notes.request("server2", Note::Read)).await.unwrap(), ["a", "b", "c"]);
}
