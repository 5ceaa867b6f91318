//! Names of servers: unique within a runtime, found from elsewhere where only one runtime has them, and free as soon as
//! their servers are gone.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is test code")]

mod common;

use std::{
    future::poll_fn,
    sync::{Arc, Barrier},
    task::{Context, Poll, Waker},
    thread,
};

use common::{Note, Notes, SERVERS, add, soon, until};
use graft::{Outcome, RequestError, StartError};
use tokio::runtime::{Builder, Runtime};

/// Fills the machine behind `server1..3` and finds nothing of anybody else's in it.
async fn fill_and_read(own: &str) {
    let notes = graft::start(SERVERS, Notes::default).await.unwrap();
    fill_started(own).await;
    notes.shutdown().await;
}

async fn fill_started(own: &str) {
    let mut expected = Vec::new();
    for number in 0..100 {
        let note = format!("{own} {number}");
        let reply = graft::request(SERVERS[number % 3], Note::Add(note.clone())).await.unwrap();
        expected.push(note);
        assert_eq!(reply, expected);
    }
}

// These four run at the same time: the test runner gives each a thread.

#[tokio::test]
async fn one_of_four_parallel_tests_has_its_names_to_itself() {
    soon(fill_and_read("one")).await;
}

#[tokio::test]
async fn two_of_four_parallel_tests_has_its_names_to_itself() {
    soon(fill_and_read("two")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_of_four_parallel_tests_has_its_names_to_itself() {
    soon(fill_and_read("three")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_of_four_parallel_tests_has_its_names_to_itself() {
    soon(fill_and_read("four")).await;
}

/// The test runner may run the four one after another; these stand at the same time for certain.
#[test]
fn four_runtimes_have_servers_of_the_same_names_at_the_same_time() {
    let all_started = Arc::new(Barrier::new(4));
    let threads = ["one", "two", "three", "four"].map(|own| {
        let all_started = Arc::clone(&all_started);
        thread::spawn(move || {
            single().block_on(soon(async {
                let notes = graft::start(SERVERS, Notes::default).await.unwrap();
                all_started.wait();
                fill_started(own).await;
                notes.shutdown().await;
            }));
        })
    });
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

fn single() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

fn threaded() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap()
}

#[test]
fn a_name_is_found_from_elsewhere_where_only_one_runtime_has_it() {
    let (home, elsewhere) = (threaded(), single());
    let _notes = home.block_on(graft::start(["lonely"], Notes::default)).unwrap();
    let reply = elsewhere.block_on(soon(graft::request("lonely", add("a"))));
    assert_eq!(reply, Ok(vec!["a".to_owned()]));
    let data = elsewhere.block_on(soon(graft::data("lonely"))).unwrap();
    assert_eq!(data.me, "lonely");
}

#[test]
fn a_name_of_two_runtimes_is_each_ones_own_and_ambiguous_elsewhere() {
    let (one, other, elsewhere) = (threaded(), threaded(), single());
    let _first = one.block_on(graft::start(["twin"], Notes::default)).unwrap();
    let second = other.block_on(graft::start(["twin"], Notes::default)).unwrap();
    for (runtime, note) in [(&one, "one"), (&other, "other")] {
        let own = runtime.block_on(soon(async { graft::request("twin", add(note)).await }));
        assert_eq!(own, Ok(vec![note.to_owned()]));
    }
    let ask = || elsewhere.block_on(soon(async { graft::request("twin", Note::Read).await }));
    assert_eq!(ask(), Err(RequestError::AmbiguousServer { name: "twin".into() }));
    let seen = elsewhere.block_on(graft::data("twin")).unwrap_err();
    assert_eq!(seen, RequestError::AmbiguousServer { name: "twin".into() });
    // A supervisor knows its own servers, from wherever it is asked.
    let own = elsewhere.block_on(soon(second.request("twin", Note::Read)));
    assert_eq!(own, Ok(vec!["other".to_owned()]));
    drop(second);
    assert_eq!(ask(), Ok(vec!["one".to_owned()]));
}

#[tokio::test]
async fn a_name_that_is_taken_is_refused_and_the_other_names_stay_free() {
    let first = graft::start(["taken"], Notes::default).await.unwrap();
    let refused = graft::start(["free", "taken"], Notes::default).await.unwrap_err();
    assert!(matches!(&refused, StartError::NameInUse { name } if *name == "taken"), "{refused}");
    let second = graft::start(["free"], Notes::default).await.unwrap();
    assert_eq!(soon(first.request("taken", add("a"))).await, Ok(vec!["a".to_owned()]));
    assert_eq!(soon(second.request("free", Note::Read)).await, Ok(vec![]));
}

#[test]
fn starting_outside_of_a_runtime_is_an_error_and_no_panic() {
    let mut start = Box::pin(graft::start(SERVERS, Notes::default));
    let ready = start.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    let Poll::Ready(Err(error)) = ready else { panic!("it should fail at once") };
    assert!(matches!(error, StartError::NoRuntime), "{error}");
}

#[test]
fn a_runtime_without_timers_is_an_error_and_no_panic_of_a_server() {
    let runtime = Builder::new_current_thread().build().unwrap();
    let error = runtime.block_on(graft::start(["timeless"], Notes::default)).unwrap_err();
    assert!(matches!(error, StartError::NoTimers), "{error}");
}

/// A request that cannot be answered: of three servers only the first runs.
async fn waiting_request(
    notes: &graft::Supervisor<Notes>,
    servers: [&'static str; 3],
) -> tokio::task::JoinHandle<Result<Vec<String>, RequestError>> {
    graft::request(servers[0], add("before")).await.unwrap();
    notes.stop_server(servers[1]).await.unwrap();
    notes.stop_server(servers[2]).await.unwrap();
    let sent = tokio::spawn(graft::request(servers[0], add("waits")));
    // On this one thread the request is sent, and looked at by the server, before this goes on.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert!(!sent.is_finished());
    sent
}

#[tokio::test]
async fn dropping_the_supervisor_frees_the_names_at_once_and_ends_what_waits() {
    let servers = ["drop1", "drop2", "drop3"];
    let notes = graft::start(servers, Notes::default).await.unwrap();
    let waiting = waiting_request(&notes, servers).await;
    drop(notes);
    let gone = graft::request("drop1", Note::Read).await.unwrap_err();
    assert_eq!(gone, RequestError::UnknownServer { name: "drop1".into() });
    assert_eq!(gone.outcome(), Outcome::NotApplied);
    assert!(graft::data("drop1").await.is_err());
    let again = graft::start(servers, Notes::default).await.unwrap();
    assert_eq!(soon(again.request("drop2", Note::Read)).await, Ok(vec![]));
    let ended = soon(waiting).await.unwrap().unwrap_err();
    assert_eq!(ended, RequestError::Shutdown { outcome: Outcome::Unknown });
}

#[tokio::test]
async fn shutdown_waits_for_the_servers_and_ends_what_waits() {
    let servers = ["shut1", "shut2", "shut3"];
    let notes = graft::start(servers, Notes::default).await.unwrap();
    let not_polled = graft::request("shut1", Note::Read);
    let waiting = waiting_request(&notes, servers).await;
    let watch = notes.watch("shut1").unwrap();
    soon(notes.shutdown()).await;
    assert!(!watch.borrow().status.is_up(), "it has stopped when shutdown returns");
    let gone = graft::request("shut1", Note::Read).await.unwrap_err();
    assert_eq!(gone, RequestError::UnknownServer { name: "shut1".into() });
    let ended = soon(waiting).await.unwrap().unwrap_err();
    assert_eq!(ended, RequestError::Shutdown { outcome: Outcome::Unknown });
    let late = soon(not_polled).await.unwrap_err();
    assert_eq!(late, RequestError::Shutdown { outcome: Outcome::NotApplied });
}

#[test]
fn a_detached_cluster_lives_as_long_as_its_runtime_and_no_longer() {
    let (home, elsewhere) = (threaded(), single());
    let servers = ["far1", "far2", "far3"];
    home.block_on(async {
        graft::start(servers, Notes::default).await.unwrap().detach();
        graft::request("far2", add("a")).await.unwrap();
        let taken = graft::start(["far3"], Notes::default).await.unwrap_err();
        assert!(matches!(taken, StartError::NameInUse { .. }), "{taken}");
    });
    let ask = || elsewhere.block_on(soon(async { graft::request("far1", Note::Read).await }));
    assert_eq!(ask(), Ok(vec!["a".to_owned()]));
    drop(home);
    assert_eq!(ask(), Err(RequestError::UnknownServer { name: "far1".into() }));
}

/// Whoever waits on another runtime is told, by no panic of a timer that is gone.
#[test]
fn waiting_for_a_leader_ends_with_the_runtime_of_the_servers() {
    let (home, elsewhere) = (threaded(), single());
    let servers = ["orphan1", "orphan2", "orphan3"];
    let notes = home.block_on(async {
        let notes = graft::start(servers, Notes::default).await.unwrap();
        notes.stop_server("orphan1").await.unwrap();
        notes.stop_server("orphan2").await.unwrap();
        until(&notes, "orphan3", |overview| overview.role != Some(graft::Role::Leader)).await;
        notes
    });
    let mut leader = Box::pin(notes.leader());
    let waits = elsewhere
        .block_on(poll_fn(|context| Poll::Ready(leader.as_mut().poll(context).is_pending())));
    assert!(waits);
    drop(home);
    let ended = elsewhere.block_on(soon(leader));
    assert_eq!(ended, Err(RequestError::Shutdown { outcome: Outcome::NotApplied }));
}

#[test]
fn a_supervisor_that_outlives_its_runtime_shadows_no_name() {
    let (home, next) = (threaded(), single());
    let notes = home.block_on(graft::start(["ghost"], Notes::default)).unwrap();
    let watch = notes.watch("ghost").unwrap();
    let waiting = notes.request("ghost", add("late"));
    drop(home);
    assert!(!watch.borrow().status.is_up(), "it went with its runtime");
    next.block_on(async {
        let gone = graft::request("ghost", Note::Read).await.unwrap_err();
        assert_eq!(gone, RequestError::UnknownServer { name: "ghost".into() });
        let ended = soon(waiting).await.unwrap_err();
        assert_eq!(ended, RequestError::Shutdown { outcome: Outcome::NotApplied });
        let lost = soon(notes.leader()).await.unwrap_err();
        assert_eq!(lost, RequestError::Shutdown { outcome: Outcome::NotApplied });
        assert!(notes.stop_server("ghost").await.is_err());
        assert!(notes.restart_server("ghost").await.is_err());
        let again = graft::start(["ghost"], Notes::default).await.unwrap();
        assert_eq!(soon(again.request("ghost", Note::Read)).await, Ok(vec![]));
    });
}
