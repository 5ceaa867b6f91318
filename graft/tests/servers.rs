//! Servers that are started one by one, as across machines, over a network in memory.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is test code")]

mod common;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use common::{Disks, Note, Notes, SERVERS, add, soon};
use graft::{
    Role, Server, ServerBuilder, StartError,
    transport::{Memory, memory},
};

const MEMBERS: [(&str, &str); 3] = [("server1", "one"), ("server2", "two"), ("server3", "three")];

/// A place for servers: their disks and their network.
#[derive(Default)]
struct Place {
    disks: Disks,
    network: Memory,
}

impl Place {
    fn server(&self, name: &str) -> ServerBuilder {
        graft::server(name)
            .cluster("notes")
            .members(MEMBERS)
            .store(Box::new(self.disks.of(name)))
            .transport(self.network.clone())
    }

    async fn start(&self, name: &str) -> Server<Notes> {
        soon(self.server(name).start(Notes::default)).await.unwrap()
    }

    async fn start_all(&self) -> [Server<Notes>; 3] {
        let [one, two, three] = SERVERS.map(|name| self.start(name));
        tokio::join!(one, two, three).into()
    }
}

/// The error of a start, with everything behind it.
async fn refusal(server: ServerBuilder) -> (StartError, String) {
    let error = soon(server.start(Notes::default)).await.unwrap_err();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(behind) = cause {
        text = format!("{text}: {behind}");
        cause = behind.source();
    }
    (error, text)
}

#[tokio::test]
async fn servers_that_start_one_by_one_found_a_cluster_and_find_it_again() {
    let place = Place::default();
    let mut expected = Vec::new();
    for round in 0..2 {
        let servers = place.start_all().await;
        for server in &servers {
            let note = format!("{} in round {round}", server.name());
            expected.push(note.clone());
            assert_eq!(soon(server.request(add(&note))).await.unwrap(), expected);
        }
        let leader = soon(servers[0].leader()).await.unwrap();
        let data = soon(servers[1].data()).await.unwrap();
        assert_eq!(data.servers, SERVERS);
        assert_eq!(data.state.unwrap().leader, Some(leader));
        for server in servers {
            soon(server.shutdown()).await;
        }
    }
}

#[tokio::test]
async fn a_founder_waits_for_the_others_and_says_for_whom() {
    let place = Place::default();
    let told = Arc::<Mutex<Vec<String>>>::default();
    let tell = Arc::clone(&told);
    let first = place
        .server("server1")
        .patience(Duration::from_millis(500))
        .on_waiting(move |progress| tell.lock().unwrap().push(progress.to_string()));
    let (error, text) = refusal(first).await;
    assert!(matches!(error, StartError::Founding { .. }), "{text}");
    assert!(text.contains("server2, server3"), "{text}");
    assert_eq!(told.lock().unwrap()[0], "waiting to hear of server2, server3");
    // What was begun is gone on with.
    let servers = place.start_all().await;
    assert_eq!(soon(servers[2].request(add("a"))).await.unwrap(), ["a"]);
}

#[tokio::test]
async fn a_server_that_was_away_finds_what_the_others_have_done_meanwhile() {
    let place = Place::default();
    let [one, two, three] = place.start_all().await;
    soon(three.shutdown()).await;
    assert_eq!(soon(one.request(add("a"))).await.unwrap(), ["a"]);
    let three = place.start("server3").await;
    soon(two.shutdown()).await;
    assert_eq!(soon(three.request(add("b"))).await.unwrap(), ["a", "b"]);
}

#[tokio::test]
async fn a_server_that_lost_its_disk_is_refused_by_name_and_the_others_go_on() {
    let place = Place::default();
    let [one, two, three] = place.start_all().await;
    assert_eq!(soon(one.request(add("a"))).await.unwrap(), ["a"]);
    soon(three.shutdown()).await;
    place.disks.replace("server3", &graft::store::MemoryStore::new());
    let (error, text) = refusal(place.server("server3")).await;
    assert!(
        matches!(&error, StartError::Founding { server, .. } if *server == "server3"),
        "{text}"
    );
    assert!(text.contains("server1") || text.contains("server2"), "{text}");
    assert_eq!(soon(two.request(add("b"))).await.unwrap(), ["a", "b"]);
}

#[tokio::test]
async fn a_leader_that_shuts_down_hands_over_first() {
    let place = Place::default();
    let mut servers = Vec::from(place.start_all().await);
    soon(servers[0].request(add("a"))).await.unwrap();
    let leader = soon(servers[0].leader()).await.unwrap();
    let at = servers.iter().position(|server| *server.name() == leader).unwrap();
    let leaving = servers.remove(at);
    let term = leaving.watch().borrow().term;
    soon(leaving.shutdown()).await;
    let mut watch = servers[0].watch();
    let others =
        |overview: &graft::Overview| overview.leader.as_ref().is_some_and(|other| *other != leader);
    let overview = soon(watch.wait_for(others)).await.unwrap().clone();
    // An election by timeout would have had to wait for one; a transfer takes the next term at once.
    assert_eq!(overview.term, term + 1);
    assert_eq!(soon(servers[1].request(Note::Read)).await.unwrap(), ["a"]);
}

#[tokio::test]
async fn a_server_asks_for_what_it_was_not_given() {
    let place = Place::default();
    let (error, text) = refusal(graft::server("server1").members(MEMBERS)).await;
    assert!(matches!(error, StartError::NoStore { .. }), "{text}");
    let without = graft::server("server1").members(MEMBERS).store(graft::store::memory());
    let (error, text) = refusal(without).await;
    assert!(matches!(error, StartError::NoTransport { .. }), "{text}");
    let (error, text) = refusal(place.server("server4")).await;
    assert!(matches!(error, StartError::NotAMember { .. }), "{text}");
    assert!(text.contains("`server4`") && text.contains("server1, server2, server3"), "{text}");
}

#[tokio::test]
async fn a_server_is_not_started_on_the_store_of_another() {
    let place = Place::default();
    for server in place.start_all().await {
        soon(server.shutdown()).await;
    }
    let wrong = place.server("server1").store(Box::new(place.disks.of("server2")));
    let (error, text) = refusal(wrong).await;
    assert!(matches!(error, StartError::WrongServer { .. }), "{text}");
    let elsewhere = place.server("server1").cluster("other notes");
    let (error, text) = refusal(elsewhere).await;
    assert!(matches!(error, StartError::WrongCluster { .. }), "{text}");
}

#[tokio::test]
async fn servers_of_two_networks_do_not_meet() {
    let place = Place::default();
    let apart = place.server("server2").transport(memory()).patience(Duration::from_millis(300));
    let here = place.server("server1").patience(Duration::from_millis(300));
    let ((_, one), (_, two)) = tokio::join!(refusal(here), refusal(apart));
    assert!(one.contains("waiting to hear of server2, server3"), "{one}");
    assert!(two.contains("waiting to hear of server1, server3"), "{two}");
}

#[tokio::test]
async fn what_a_server_leads_it_says() {
    let place = Place::default();
    let servers = place.start_all().await;
    let leader = soon(servers[2].leader()).await.unwrap();
    let leading = servers.iter().find(|server| *server.name() == leader).unwrap();
    assert_eq!(leading.watch().borrow().role, Some(Role::Leader));
    soon(leading.restart()).await.unwrap();
    assert_eq!(soon(leading.request(add("a"))).await.unwrap(), ["a"]);
}

/// Far longer than a server that may campaign waits for a leader.
const LONG: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn a_joiner_passes_requests_on_and_neither_votes_nor_campaigns() {
    let place = Place::default();
    let founders = place.start_all().await;
    assert_eq!(soon(founders[0].request(add("a"))).await.unwrap(), ["a"]);
    let term = founders[0].watch().borrow().term;
    let join = || place.server("server4").join("four");
    let joiner = soon(join().start(Notes::default)).await.unwrap();
    assert_eq!(soon(joiner.request(add("b"))).await.unwrap(), ["a", "b"]);
    tokio::time::sleep(LONG).await;
    let idle =
        |overview: &graft::Overview| (overview.role, overview.term) == (Some(Role::Follower), 0);
    assert!(idle(&joiner.watch().borrow()), "{:?}", joiner.watch().borrow());
    assert_eq!(founders[0].watch().borrow().term, term, "nobody was disturbed");
    // It is one of two that are left, and its vote would make a quorum of nobody's.
    let [one, two, three] = founders;
    soon(two.shutdown()).await;
    soon(three.shutdown()).await;
    tokio::time::sleep(LONG).await;
    assert!(idle(&joiner.watch().borrow()), "{:?}", joiner.watch().borrow());
    assert_eq!(one.watch().borrow().leader, None);
    // Its store stays a joiner's.
    soon(joiner.shutdown()).await;
    let joiner = soon(join().start(Notes::default)).await.unwrap();
    tokio::time::sleep(LONG).await;
    assert!(idle(&joiner.watch().borrow()), "{:?}", joiner.watch().borrow());
}

#[tokio::test]
async fn who_founds_does_not_join_and_who_joins_does_not_found() {
    let place = Place::default();
    let (error, text) = refusal(place.server("server1").join("one")).await;
    assert!(matches!(error, StartError::FounderJoins { .. }), "{text}");
    assert!(text.contains("`server1`") && text.contains("founders"), "{text}");
    let joiner = soon(place.server("server4").join("four").start(Notes::default)).await.unwrap();
    soon(joiner.shutdown()).await;
    let members = MEMBERS.into_iter().chain([("server4", "four")]);
    // Another founding list is another cluster already.
    let (error, text) = refusal(place.server("server4").members(members)).await;
    assert!(matches!(error, StartError::WrongCluster { .. }), "{text}");
}

#[tokio::test]
async fn two_servers_at_one_address_are_refused() {
    let place = Place::default();
    let alike = [("server1", "one"), ("server2", "two"), ("server3", "one")];
    let founder = place.server("server2").members(alike);
    // Its own address counts as well.
    let joiner = place.server("server4").join("one");
    for (server, other) in [(founder, "server3"), (joiner, "server4")] {
        let (error, text) = refusal(server).await;
        let StartError::DuplicateAddress { one, other: found, address } = error else {
            panic!("{text}")
        };
        assert_eq!((one.as_str(), found.as_str(), address.as_str()), ("server1", other, "one"));
        assert!(text.contains(&format!("`server1` and `{other}`")), "{text}");
        assert!(text.contains("the address one: give each server the address"), "{text}");
    }
    // Nothing is left of them.
    let servers = place.start_all().await;
    assert_eq!(soon(servers[0].request(add("a"))).await.unwrap(), ["a"]);
}
