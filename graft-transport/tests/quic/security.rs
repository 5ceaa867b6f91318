//! Whatever the other side sends, or does not send: it is refused by name, counted, and harms nobody else.

use std::time::Duration;

use graft_core::{ClientRequest, EntryKind, InboxLimits, Link, NodeId, Reply};
use graft_transport::{
    quic::{LinkConfig, NetworkConfig, Schema, Stats, tls::SERVER_NAME},
    wire::v1::{Hello, Kind, Limits, Protocol, RefusalCode, Role, encode_peer, encode_requests},
};
use tokio::time::timeout;

use crate::{
    common::{
        Client, PATIENCE, Server, bind, bind_with, config, eventually, heartbeat, introduce, place,
        until,
    },
    frames::header,
    raw::{self, Raw, client_hello, frames, server_hello},
};

/// A server that waits only for moments.
pub(crate) fn hasty(name: &str) -> NetworkConfig {
    let mut config = config(name);
    config.timing.agreement = Duration::from_millis(200);
    config.timing.handshake = Duration::from_millis(500);
    config
}

/// Checks that a client which keeps the rules is served.
pub(crate) async fn serves(server: &mut Server) {
    let client = Client::start(&[server.network.local_addr()]);
    client.connects_to(server.node()).await;
    client.send(server.node(), 77).unwrap();
    let request = server.request().await;
    server.answer(&request, Reply::SessionDone);
    client.hears(&(server.node(), 77, Reply::SessionDone)).await;
}

#[tokio::test]
async fn what_comes_instead_of_a_hello_is_refused() {
    let mut server = Server::of(bind_with(hasty("a")));
    let address = server.network.local_addr();
    let mut garbage = Raw::client(address).await;
    garbage.write(&[0x5a; 100]).await;
    garbage.ends_with(RefusalCode::Malformed).await;
    let mut early = Raw::client(address).await;
    early.write(&header(Kind::Requests).encode()).await;
    early.ends_with(RefusalCode::UnknownKind).await;
    let mut wrong = Raw::client(address).await;
    wrong.hello(&Hello { role: Role::Server, ..client_hello() }).await;
    wrong.ends_with(RefusalCode::WrongRole).await;
    let mut newer = Raw::client(address).await;
    newer.hello(&Hello { protocol: Protocol { min: 9, max: 9 }, ..client_hello() }).await;
    newer.ends_with(RefusalCode::UnknownVersion).await;
    serves(&mut server).await;
}

#[tokio::test]
async fn who_says_nothing_or_only_a_part_is_refused_in_time() {
    let mut server = Server::of(bind_with(hasty("a")));
    let address = server.network.local_addr();
    let silent_client = Raw::client(address).await;
    let silent_server = Raw::server("b", address).await;
    let mut slow = Raw::client(address).await;
    slow.write(b"GRFT").await;
    for raw in [&silent_client, &silent_server, &slow] {
        raw.ends_with(RefusalCode::TooSlow).await;
    }
    until(&server.network, "they are counted", |stats| stats.refused.get("too slow") == Some(&3))
        .await;
    serves(&mut server).await;
}

#[tokio::test]
async fn a_peer_that_speaks_in_anothers_name_is_refused() {
    let mut server = Server::start("a");
    let mut raw = Raw::server("b", server.network.local_addr()).await;
    raw.hello(&server_hello("b")).await;
    until(&server.network, "it is taken in", |stats| stats.peers == 1).await;
    let say = |from: &str, to: NodeId, number| {
        frames(|outgoing| {
            let envelope = heartbeat(NodeId::of_name(from), to, number);
            encode_peer(&envelope, config("a").cluster, &Limits::default(), outgoing).unwrap();
        })
    };
    raw.write(&say("b", NodeId::of_name("c"), 1)).await;
    raw.write(&say("b", server.node(), 2)).await;
    let first = server.message().await;
    assert_eq!(first.message.term().0, 2, "what is for another does not arrive");
    raw.write(&say("c", server.node(), 3)).await;
    raw.ends_with(RefusalCode::WrongServer).await;
    assert!(server.take().is_empty());
    assert_eq!(server.network.stats().misaddressed, 2);
}

#[tokio::test]
async fn a_peer_that_is_not_who_it_says_is_refused() {
    let server = Server::start("a");
    let address = server.network.local_addr();
    let cases: [(Hello, RefusalCode); 5] = [
        (server_hello("c"), RefusalCode::WrongServer),
        (
            Hello { cluster: graft_core::ClusterId(9), ..server_hello("b") },
            RefusalCode::WrongCluster,
        ),
        (Hello { epoch: graft_core::Epoch(4), ..server_hello("b") }, RefusalCode::WrongEpoch),
        (Hello { role: Role::Client, ..server_hello("b") }, RefusalCode::WrongRole),
        (
            Hello { protocol: Protocol { min: 7, max: 8 }, ..server_hello("b") },
            RefusalCode::UnknownVersion,
        ),
    ];
    for (hello, code) in cases {
        let mut raw = Raw::server("b", address).await;
        raw.hello(&hello).await;
        raw.ends_with(code).await;
    }
    let mut requests = Raw::server("b", address).await;
    requests.hello(&server_hello("b")).await;
    requests.write(&header(Kind::Requests).encode()).await;
    requests.ends_with(RefusalCode::UnknownKind).await;
}

#[tokio::test]
async fn servers_that_differ_in_what_matters_refuse_each_other_by_name() {
    type Change = fn(&mut NetworkConfig);
    let cases: [(Change, &str); 5] = [
        (|config| config.cluster.0 += 1, "wrong cluster"),
        (|config| config.epoch.0 += 1, "wrong epoch"),
        (|config| config.machine = "Queue".into(), "wrong entry"),
        (|config| config.schema = Schema { lowest: 1, highest: 1 }, "wrong entry"),
        (|config| config.format = 2, "wrong format"),
    ];
    for (change, cause) in cases {
        let with = |name: &str| {
            let mut config = config(name);
            config.machine = "Stack".into();
            config.format = 1;
            config
        };
        let a = bind_with(with("a"));
        let mut other = with("b");
        change(&mut other);
        let b = bind_with(other);
        introduce(&[("a", &a), ("b", &b)]);
        // The one that was called refuses, and the caller hears why; which is which is up to the names.
        let (caller, called) = if a.node() < b.node() { (&a, &b) } else { (&b, &a) };
        until(called, "it is refused", |stats| stats.refused.contains_key(cause)).await;
        until(caller, "it hears why", |stats| stats.refused_by_others.contains_key(cause)).await;
        assert_eq!((a.stats().peers_connected, b.stats().peers_connected), (0, 0));
    }
}

#[tokio::test]
async fn who_answers_at_an_address_must_be_who_was_called() {
    let (a, b) = (bind("a"), bind("b"));
    let (caller, called) = if a.node() < b.node() { (&a, &b) } else { (&b, &a) };
    // Somebody whose number is above the caller's is called where another one is.
    let absent = ["c", "d", "e", "f", "g", "h"]
        .into_iter()
        .find(|name| NodeId::of_name(name) > caller.node())
        .unwrap();
    let wrong = place(absent, called.local_addr());
    caller.set_peers([(NodeId::of_name(absent), wrong)].into());
    until(caller, "it tries again and again", |stats| stats.dials >= 3).await;
    assert_eq!((caller.stats().peers_connected, called.stats().peers_connected), (0, 0));
}

#[tokio::test]
async fn too_many_clients_are_told_so() {
    let mut config = config("a");
    config.bounds.clients = 1;
    let server = Server::of(bind_with(config));
    let client = Client::start(&[server.network.local_addr()]);
    client.connects_to(server.node()).await;
    let mut second = Raw::client(server.network.local_addr()).await;
    second.hello(&client_hello()).await;
    second.ends_with(RefusalCode::TooMany).await;
}

#[tokio::test]
async fn too_many_peers_are_told_so_and_those_who_are_there_may_come_again() {
    let mut config = config("a");
    config.bounds.peers = 1;
    let server = Server::of(bind_with(config));
    let mut first = Raw::server("b", server.network.local_addr()).await;
    first.hello(&server_hello("b")).await;
    until(&server.network, "it is taken in", |stats| stats.peers == 1).await;
    let mut second = Raw::server("c", server.network.local_addr()).await;
    second.hello(&server_hello("c")).await;
    second.ends_with(RefusalCode::TooMany).await;
    let mut again = Raw::server("b", server.network.local_addr()).await;
    again.hello(&server_hello("b")).await;
    first.ends_with(RefusalCode::Replaced).await;
    assert_eq!(server.network.stats().peers, 1);
}

#[tokio::test]
async fn each_request_of_a_flood_is_answered_once() {
    const COUNT: u64 = 20_000;
    let limits = InboxLimits { request_bytes: 64 << 10, ..InboxLimits::default() };
    let mut server = Server::with_inbox(bind("a"), limits);
    let client = Client::start(&[server.network.local_addr()]);
    client.connects_to(server.node()).await;
    for number in 1..=COUNT {
        client.send(server.node(), number).unwrap();
    }
    let all = eventually("each is answered", || {
        for request in server.take().requests {
            server.answer(&request, Reply::SessionDone);
        }
        let replies = client.heard.replies.lock().unwrap();
        (replies.len() == usize::try_from(COUNT).unwrap()).then(|| replies.clone())
    });
    let mut all = all.await;
    all.sort_unstable_by_key(|(_, number, _)| *number);
    assert!(all.iter().map(|(_, number, _)| *number).eq(1..=COUNT), "each once");
    let overloaded = Reply::Rejected(graft_core::RejectReason::Overloaded);
    let is_refused = |reply: &Reply| *reply == overloaded;
    assert!(all.iter().all(|(_, _, reply)| *reply == Reply::SessionDone || is_refused(reply)));
    assert!(all.iter().any(|(_, _, reply)| is_refused(reply)), "some are refused");
    let refused = server.network.stats().refused_by_inbox;
    assert!(refused[graft_core::Class::Request as usize] > 0);
}

#[tokio::test]
async fn a_client_that_does_not_read_its_replies_is_disconnected() {
    let mut config = config("a");
    config.bounds.reply_bytes = 1 << 20;
    let mut server = Server::of(bind_with(config));
    let mut raw = Raw::client(server.network.local_addr()).await;
    raw.hello(&client_hello()).await;
    let cluster = crate::common::config("a").cluster;
    let request = frames(|outgoing| {
        let request = ClientRequest {
            request_id: 1,
            deadline: Duration::from_secs(5),
            kind: EntryKind::Plain,
            payload: b"again".as_slice().into(),
        };
        encode_requests([&request], Duration::ZERO, cluster, &Limits::default(), outgoing);
    });
    raw.write(&request).await;
    let request = server.request().await;
    let answer = Reply::Applied(vec![7; 64 << 10].into());
    let cut_off = eventually("it is disconnected", || {
        server.answer(&request, answer.clone());
        (server.network.stats().slow_clients > 0).then_some(())
    });
    cut_off.await;
    raw.ends_with(RefusalCode::TooSlow).await;
    until(&server.network, "it is gone", |stats| stats.clients == 0).await;
    serves(&mut server).await;
}

#[tokio::test]
async fn a_client_whose_replies_wait_is_not_listened_to_until_it_reads_them() {
    let mut config = config("a");
    config.bounds.reply_bytes = 4 << 20;
    let mut server = Server::of(bind_with(config));
    let mut raw = Raw::client(server.network.local_addr()).await;
    raw.hello(&client_hello()).await;
    let cluster = crate::common::config("a").cluster;
    let numbered = |request_id| {
        let (deadline, kind) = (Duration::from_secs(5), EntryKind::Plain);
        let payload = b"again".as_slice().into();
        let request = ClientRequest { request_id, deadline, kind, payload };
        frames(|outgoing| {
            encode_requests([&request], Duration::ZERO, cluster, &Limits::default(), outgoing);
        })
    };
    raw.write(&numbered(1)).await;
    let request = server.request().await;
    // More than half of what may wait, and less than all of it.
    for _ in 0..48 {
        server.answer(&request, Reply::Applied(vec![7; 64 << 10].into()));
    }
    // It was being listened to when these came to wait.
    raw.write(&numbered(2)).await;
    assert_eq!(server.request().await.request_id, 2);
    raw.write(&numbered(3)).await;
    // Whoever listened would have heard it by then.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(server.take().requests.is_empty(), "it is listened to");
    let mut reading = raw.read_all();
    assert_eq!(server.request().await.request_id, 3);
    reading.abort_all();
    assert_eq!(server.network.stats().slow_clients, 0);
}

#[tokio::test]
async fn a_link_says_no_where_too_much_waits_and_what_is_too_large_is_answered() {
    let mut server = Server::start("a");
    let config = LinkConfig { request_bytes: 3 << 20, ..LinkConfig::default() };
    let client = Client::with_config(&[server.network.local_addr()], config);
    client.connects_to(server.node()).await;
    let send = |request_id, bytes: usize| {
        let deadline = Duration::from_secs(3600);
        let payload = vec![1; bytes].into();
        let kind = EntryKind::Plain;
        client.link.send(server.node(), ClientRequest { request_id, deadline, kind, payload })
    };
    // Nothing else runs meanwhile on this one thread.
    assert_eq!(send(1, 2 << 20), Ok(()));
    assert_eq!(send(2, 1 << 20), Err(graft_core::LinkError::Full(server.node())));
    assert_eq!(send(3, 100), Ok(()));
    let request = server.request().await;
    assert_eq!(request.request_id, 3, "what is larger than an entry may be does not leave");
    let heard = client.heard.replies.lock().unwrap().clone();
    let [(from, 1, Reply::Rejected(graft_core::RejectReason::TooLarge { bytes, .. }))] = &heard[..]
    else {
        panic!("heard {heard:?}");
    };
    assert_eq!((*from, *bytes), (server.node(), 2 << 20));
    assert_eq!(client.link.servers(), [server.node()]);
}

#[tokio::test]
async fn a_clients_certificate_is_refused_on_the_protocol_of_peers() {
    let mut server = Server::start("a");
    let endpoint = raw::endpoint();
    let to = server.network.local_addr();
    let config = raw::anything_goes(&crate::authority::client("mallory"), b"graft-peer/1");
    let connecting = endpoint.connect_with(config, to, SERVER_NAME).unwrap();
    let end = match timeout(PATIENCE, connecting).await.expect("it ends in time") {
        Ok(connection) => timeout(PATIENCE, connection.closed()).await.expect("it is ended"),
        Err(error) => error,
    };
    let text = end.to_string();
    assert!(text.contains("mallory"), "it says whose certificate it is: {text}");
    until(&server.network, "it is counted", |stats| {
        stats.refused.get("wrong role") == Some(&1) || stats.handshakes_failed == 1
    })
    .await;
    assert_eq!(server.network.stats().peers_connected, 0);
    serves(&mut server).await;
}

#[tokio::test]
async fn connections_of_a_revoked_certificate_end_and_none_follows() {
    let tls = crate::common::server_tls("a");
    let address = crate::common::loopback();
    let network = graft_transport::quic::Network::bind(
        address,
        config("a"),
        tls.clone(),
        crate::common::runtime(),
    );
    let server = Server::of(network.unwrap());
    let peer = bind("b");
    introduce(&[("a", &server.network), ("b", &peer)]);
    until(&server.network, "the peers connect", |stats| stats.peers == 1).await;
    let mut client = Raw::client(server.network.local_addr()).await;
    client.hello(&client_hello()).await;
    until(&server.network, "the client connects", |stats| stats.clients == 1).await;

    let lists = [crate::authority::client("mallory"), crate::authority::server("b")]
        .map(|issued| crate::authority::revocation_of(&issued));
    tls.revoke(lists[0].as_bytes()).unwrap();
    client.ends_with(RefusalCode::Revoked).await;
    assert_eq!(server.network.stats().peers, 1, "nobody else is concerned");
    tls.revoke(lists[1].as_bytes()).unwrap();
    until(&server.network, "the peer is gone", |stats| stats.peers == 0).await;
    let dials = |stats: &Stats| stats.dials + stats.handshakes_failed;
    let before = dials(&server.network.stats());
    until(&server.network, "it is tried again", |stats| dials(stats) >= before + 2).await;
    assert_eq!(server.network.stats().peers_connected, 1);
    tls.revoke(b"").unwrap();
    until(&server.network, "it is trusted again", |stats| stats.peers == 1).await;
}
