//! What a server lets in of its clients' requests before it has answered them.

use std::time::Duration;

use graft_core::{
    ClientRequest, EntryKind, GroupId, LeaderHint, Link, RejectReason, Reply, Request,
};
use graft_transport::{
    quic::{NetworkConfig, Stats},
    wire::v1::{Header, Kind, RefusalCode},
};

use crate::{
    common::{Client, PATIENCE, Server, bind_with, config, eventually, runtime, until},
    raw::{Raw, client_hello},
};

/// A small request counts for this many bytes.
const SMALL: usize = 1 << 10;

/// A server that lets so many small requests in, of one client and of all.
fn limited(one: usize, all: usize) -> NetworkConfig {
    let mut config = config("a");
    config.bounds.client_request_bytes = one * SMALL;
    config.bounds.request_bytes = all * SMALL;
    config
}

async fn client(server: &Server) -> Client {
    let client = Client::start(&[server.network.local_addr()]);
    client.connects_to(server.node()).await;
    client
}

fn flood(client: &Client, server: &Server, numbers: std::ops::Range<u64>) {
    for number in numbers {
        client.send(server.node(), number).unwrap();
    }
}

/// Waits until so many requests have arrived.
async fn arrived(server: &mut Server, count: usize) -> Vec<Request> {
    let mut all = Vec::new();
    eventually("the requests arrive", || {
        all.append(&mut server.take().requests);
        (all.len() >= count).then_some(())
    })
    .await;
    all
}

/// Waits until somebody has to wait.
async fn until_waits(server: &Server, times: u64) {
    until(&server.network, "somebody waits", |stats| stats.waits_of_clients >= times).await;
}

const DONE: Reply = Reply::SessionDone;

#[tokio::test]
async fn who_has_too_much_under_way_is_heard_again_as_it_is_answered() {
    let mut server = Server::of(bind_with(limited(64, 1024)));
    let client = client(&server).await;
    flood(&client, &server, 0..1000);
    let mut numbers = Vec::new();
    while numbers.len() < 1000 {
        let waiting = arrived(&mut server, 1).await;
        assert!(waiting.len() <= 64, "{} are under way", waiting.len());
        for request in waiting {
            server.answer(&request, DONE);
            numbers.push(request.request_id);
        }
    }
    assert!(numbers.into_iter().eq(0..1000), "each arrives once, in order");
    assert!(server.network.stats().waits_of_clients > 0);
    client.hears(&(server.node(), 999, DONE)).await;
}

#[tokio::test]
async fn who_floods_keeps_nobody_else_from_being_heard() {
    let mut server = Server::of(bind_with(limited(64, 1024)));
    let greedy = client(&server).await;
    flood(&greedy, &server, 0..1000);
    until_waits(&server, 1).await;
    let other = client(&server).await;
    flood(&other, &server, 5000..5001);
    // Of the first one nothing was answered, so no more than a share of it comes.
    let arrived = arrived(&mut server, 65).await;
    let found = arrived.into_iter().find(|request| request.request_id == 5000).unwrap();
    server.answer(&found, DONE);
    other.hears(&(server.node(), 5000, DONE)).await;
}

/// It could be as fast as it likes otherwise: a refusal never makes it wait.
#[tokio::test]
async fn who_is_refused_again_and_again_is_listened_to_more_slowly_and_others_are_not() {
    const ALL: usize = 220;
    let refused = Reply::Rejected(RejectReason::NotLeader(LeaderHint::default()));
    let mut server = Server::of(bind_with(limited(64, 1024)));
    let (greedy, other) = (client(&server).await, client(&server).await);
    flood(&greedy, &server, 0..ALL as u64);
    let mut numbers = Vec::new();
    let mut refuse = async |server: &mut Server, until: &dyn Fn(&Stats, &[u64]) -> bool| {
        eventually("enough is refused", || {
            for request in server.take().requests {
                server.answer(&request, refused.clone());
                numbers.push(request.request_id);
            }
            until(&server.network.stats(), &numbers).then(|| numbers.clone())
        })
        .await
    };
    let before = refuse(&mut server, &|stats, _| stats.rests_of_clients >= 1).await;
    assert!(before.len() > 128, "two shares are refused at once");
    flood(&other, &server, 5000..5001);
    let before = refuse(&mut server, &|_, numbers| numbers.contains(&5000)).await;
    assert!(before.len() <= ALL, "the other one waited until all were refused");
    let mut numbers = refuse(&mut server, &|_, numbers| numbers.len() > ALL).await;
    other.hears(&(server.node(), 5000, refused.clone())).await;
    greedy.hears(&(server.node(), ALL as u64 - 1, refused)).await;
    numbers.retain(|number| *number < 5000);
    assert!(numbers.into_iter().eq(0..ALL as u64), "each arrives once, in order");
}

#[tokio::test]
async fn who_leaves_and_comes_again_has_no_more_under_way_than_before() {
    let mut server = Server::of(bind_with(limited(64, 64)));
    let first = client(&server).await;
    flood(&first, &server, 0..64);
    let waiting = arrived(&mut server, 64).await;
    drop(first);
    until(&server.network, "it has left", |stats| stats.clients == 0).await;
    let second = client(&server).await;
    flood(&second, &server, 100..164);
    until_waits(&server, 1).await;
    let early = server.take().requests.len();
    assert!(early <= 1, "all is used up but for little, and {early} came");
    for request in &waiting {
        server.answer(request, DONE);
    }
    let mut numbers = early;
    while numbers < 64 {
        for request in arrived(&mut server, 1).await {
            server.answer(&request, DONE);
            numbers += 1;
        }
    }
}

#[tokio::test]
async fn what_a_run_left_unanswered_does_not_weigh_on_the_next() {
    let mut server = Server::of(bind_with(limited(64, 64)));
    let before = client(&server).await;
    flood(&before, &server, 0..64);
    arrived(&mut server, 64).await;
    let Server { network, transport, .. } = server;
    drop(transport);
    let mut server = Server::of(network);
    let after = client(&server).await;
    flood(&after, &server, 100..164);
    arrived(&mut server, 64).await;
}

#[tokio::test]
async fn large_requests_of_many_clients_all_come_although_there_is_room_for_one_at_a_time() {
    const CLIENTS: usize = 12;
    const EACH: u64 = 4;
    let mut config = config("a");
    config.bounds.begun_bytes = 1;
    let mut server = Server::of(bind_with(config));
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(client(&server).await);
    }
    let deadline = runtime().now() + PATIENCE * 2;
    let payload = bytes::Bytes::from(vec![7; 300 << 10]);
    for request_id in 0..EACH {
        for client in &clients {
            let (kind, payload) = (EntryKind::Plain, payload.clone());
            let request = ClientRequest { request_id, deadline, kind, payload };
            client.link.send(server.node(), request).unwrap();
        }
    }
    let mut left = CLIENTS * usize::try_from(EACH).unwrap();
    while left > 0 {
        for request in arrived(&mut server, 1).await {
            assert_eq!(request.payload, payload);
            server.answer(&request, DONE);
            left -= 1;
        }
    }
    for client in &clients {
        client.hears(&(server.node(), EACH - 1, DONE)).await;
    }
    assert_eq!(server.network.stats().clients_connected, CLIENTS as u64, "nobody came twice");
}

/// The story: those who waited held all of the room that frames have before they are let in.
#[tokio::test]
async fn frames_of_those_who_wait_do_not_hold_up_one_who_asks_for_little() {
    const CLIENTS: usize = 20;
    let mut server = Server::of(bind_with(config("a")));
    let node = server.node();
    let deadline = runtime().now() + PATIENCE * 2;
    let send = |client: &Client, request_id: u64, kib: usize| {
        let (kind, payload) = (EntryKind::Plain, bytes::Bytes::from(vec![7; kib << 10]));
        let request = ClientRequest { request_id, deadline, kind, payload };
        client.link.send(node, request).unwrap();
    };
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(client(&server).await);
    }
    // Nothing is answered, so of what they ask next little comes in, and the rest lies there.
    for request_id in [1, 2] {
        clients.iter().for_each(|client| send(client, request_id, 60));
        if request_id == 1 {
            arrived(&mut server, CLIENTS).await;
        }
    }
    until_waits(&server, CLIENTS as u64 / 2).await;
    let modest = client(&server).await;
    send(&modest, 100, 20);
    eventually("it is heard", || {
        server.take().requests.into_iter().find(|request| request.request_id == 100)
    })
    .await;
}

#[tokio::test]
async fn who_sends_a_large_frame_byte_by_byte_is_refused_by_name() {
    let mut config = config("a");
    config.timing.agreement = Duration::from_secs(1);
    let cluster = config.cluster;
    let server = Server::of(bind_with(config));
    let mut slow = Raw::client(server.network.local_addr()).await;
    slow.hello(&client_hello()).await;
    until(&server.network, "it is connected", |stats| stats.clients == 1).await;
    let (kind, group) = (Kind::Requests, GroupId(0));
    let header = Header { kind, cluster, group, body_bytes: 64, payload_bytes: 64 << 10 };
    slow.write(&header.encode()).await;
    let trickles = async {
        while slow.send.write_all(&[0]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, trickles).await.expect("it is refused in time");
    slow.ends_with(RefusalCode::TooSlow).await;
    let is_counted = |stats: &Stats| stats.refused.get("too slow") == Some(&1);
    until(&server.network, "it is counted", is_counted).await;
}
