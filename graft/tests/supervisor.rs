//! What a supervisor does with its servers, and what can be seen of them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is test code")]

mod common;

use common::{Note, Notes, SERVERS, add, soon, until};
use graft::{Config, Role, Status, SupervisorError};
use std::time::Duration;

#[tokio::test]
async fn a_leader_is_named_and_another_one_once_it_is_stopped() {
    let notes = graft::start(SERVERS, Notes::default).await.unwrap();
    let first = soon(notes.leader()).await.unwrap();
    notes.stop_server(&first).await.unwrap();
    let second = soon(notes.leader()).await.unwrap();
    assert_ne!(first, second);
    // Asked by the name of the server that is stopped, the others answer.
    assert_eq!(soon(graft::request(&first, add("a"))).await.unwrap(), ["a"]);
}

#[tokio::test]
async fn leadership_goes_where_it_is_handed() {
    let notes = graft::start(SERVERS, Notes::default).await.unwrap();
    for to in ["server2", "server3", "server3", "server1"] {
        soon(notes.transfer_leadership(to)).await.unwrap();
        assert_eq!(notes.leader().await.unwrap(), to);
        soon(notes.request("server1", add(to))).await.unwrap();
    }
    notes.stop_server("server2").await.unwrap();
    let error = notes.transfer_leadership("server2").await.unwrap_err();
    assert!(matches!(error, SupervisorError::NotRunning { .. }), "{error}");
}

#[tokio::test]
async fn without_a_leader_nobody_is_named_and_nothing_is_handed_over() {
    let config = Config::default().deadline(Duration::from_millis(200));
    let notes = graft::cluster(SERVERS).config(config).start(Notes::default).await.unwrap();
    for server in ["server1", "server2"] {
        notes.stop_server(server).await.unwrap();
    }
    until(&notes, "server3", |overview| overview.role != Some(Role::Leader)).await;
    let error = notes.leader().await.unwrap_err();
    assert!(matches!(error, graft::RequestError::NoLeader { .. }), "{error}");
    let error = notes.transfer_leadership("server3").await.unwrap_err();
    assert!(matches!(error, SupervisorError::NoLeader { .. }), "{error}");
}

#[tokio::test]
async fn stopping_and_restarting_is_seen_by_those_who_look() {
    let notes = graft::start(SERVERS, Notes::default).await.unwrap();
    soon(notes.request("server1", add("a"))).await.unwrap();
    let seen = until(&notes, "server2", |overview| overview.leader.is_some()).await;
    assert!(seen.term > 0 && seen.role.is_some());
    notes.stop_server("server2").await.unwrap();
    notes.stop_server("server2").await.unwrap();
    let running = |server: &str, status| (server.into(), status);
    assert_eq!(
        notes.servers(),
        [
            running("server1", Status::Running),
            running("server2", Status::Stopped),
            running("server3", Status::Running),
        ]
    );
    let data = graft::data("server2").await.unwrap();
    assert_eq!((data.status, data.state), (Status::Stopped, None));
    let overview = notes.watch("server2").unwrap().borrow().clone();
    assert_eq!((overview.role, overview.leader), (None, None));
    notes.restart_server("server2").await.unwrap();
    until(&notes, "server2", |overview| overview.leader.is_some()).await;
}

/// Two callers at once: each gets what it asked for, one after the other.
#[tokio::test]
async fn stops_and_restarts_of_one_server_do_not_mix() {
    let notes = graft::start(SERVERS, Notes::default).await.unwrap();
    for _ in 0..20 {
        let (stop, restart, again) = tokio::join!(
            notes.stop_server("server1"),
            notes.restart_server("server1"),
            notes.restart_server("server1"),
        );
        assert!(stop.is_ok() && restart.is_ok() && again.is_ok());
        assert_eq!(notes.servers()[0].1, Status::Running);
    }
    assert_eq!(soon(notes.request("server1", add("a"))).await.unwrap(), ["a"]);
}

#[tokio::test]
async fn data_shows_a_server_in_the_words_of_the_paper() {
    let notes = graft::start(SERVERS, Notes::default).await.unwrap();
    for number in 0..30 {
        let note = format!("note {number} {}", "long ".repeat(100));
        soon(notes.request("server1", Note::Add(note))).await.unwrap();
    }
    let leader = notes.leader().await.unwrap();
    let data = graft::data(&leader).await.unwrap();
    let state = data.state.clone().unwrap();
    assert_eq!((data.me.clone(), data.status.clone()), (leader.clone(), Status::Running));
    assert_eq!(data.servers, SERVERS);
    assert_eq!(data.machine, "Note version 0");
    assert_eq!((state.role, &state.leader), (Role::Leader, &Some(leader.clone())));
    assert_eq!(state.voted_for, Some(leader));
    assert_eq!((state.next_index.len(), state.match_index.len()), (2, 2));
    assert!(state.last_applied <= state.commit_index && state.commit_index <= state.last_index);
    assert_eq!(state.log.len(), 20);
    let last = state.log.last().unwrap();
    assert_eq!((last.index, last.term, last.kind), (state.last_index, state.term, "entry"));
    assert!(last.text.starts_with(r#"Add("note 29 long"#) && last.text.ends_with("..."));

    let text = data.to_string();
    for word in [
        "me: ",
        "status: running",
        "role: leader",
        "term: ",
        "voted_for: ",
        "leader: ",
        "servers: server1 server2 server3",
        "machine: ",
        "commit_index: ",
        "last_applied: ",
        "next_index: ",
        "match_index: ",
        "votes: -",
        "open requests: 0",
        "log: 1..=",
    ] {
        assert!(text.contains(word), "{word} is missing in\n{text}");
    }
    assert!(text.lines().all(|line| line.len() < 200), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_entries_are_shown_after_a_restart_too() {
    let notes = graft::start(["shown"], Notes::default).await.unwrap();
    for number in 0..30 {
        soon(notes.request("shown", add(&number.to_string()))).await.unwrap();
    }
    notes.restart_server("shown").await.unwrap();
    soon(notes.request("shown", Note::Read)).await.unwrap();
    let log = graft::data("shown").await.unwrap().state.unwrap().log;
    assert_eq!(log.len(), 20);
    assert!(log.windows(2).all(|pair| pair[1].index == pair[0].index + 1));
    assert!(log.iter().any(|line| line.text == r#"Add("29")"#));
    assert!(log.iter().any(|line| line.kind == "blank"));
}

/// A machine that blocks its thread for longer than an election timeout.
struct Sleepy;

#[derive(Debug, graft::Archive, graft::Serialize, graft::Deserialize)]
#[rkyv(crate = graft::rkyv)]
struct Nap(u64);

impl graft::Entry for Nap {
    type Response = ();
}

impl graft::Machine for Sleepy {
    type Entry = Nap;
    const APPLY: graft::Apply = graft::Apply::Thread;
    fn handle_entry(&mut self, Nap(millis): Nap) {
        std::thread::sleep(Duration::from_millis(millis));
    }
}

#[tokio::test]
async fn a_machine_on_a_thread_may_block_and_its_leader_leads_on() {
    let sleepy = graft::start(SERVERS, || Sleepy).await.unwrap();
    soon(sleepy.request("server1", Nap(0))).await.unwrap();
    let leader = sleepy.leader().await.unwrap();
    let before = sleepy.watch(&leader).unwrap().borrow().clone();
    soon(sleepy.request("server1", Nap(1500))).await.unwrap();
    assert_eq!(*sleepy.watch(&leader).unwrap().borrow(), before);
}
