//! Who calls whom, which of two connections stays, and what becomes of another process of a peer's name.

use std::time::Duration;

use graft_core::{Envelope, Incarnation, NodeId, PeerEnvelope, Transport};
use graft_transport::{
    quic::{Network, Stats},
    wire::v1::Hello,
};
use quinn::{ConnectionError, VarInt};
use tokio::time::timeout;

use crate::{
    common::{PATIENCE, Server, bind_with, config, eventually, heartbeat, introduce, place, until},
    log::Log,
    raw::{Raw, server_hello},
};

/// Two names, that of the lower number first.
fn low_and_high() -> [&'static str; 2] {
    let mut names = ["a", "b"];
    names.sort_by_key(|name| NodeId::of_name(name));
    names
}

/// A server that is told of nobody yet, with this birth.
fn server(name: &str, birth: u64, await_call: Duration) -> Server {
    let mut config = config(name);
    config.incarnation = Some(Incarnation(birth));
    config.timing.await_call = await_call;
    // Nothing that stands still for the time of a test is lost.
    config.timing.idle_timeout = PATIENCE * 10;
    Server::of(bind_with(config))
}

/// Tells `one` alone where the other is.
fn tell(one: &Network, (name, other): (&str, &Network)) {
    one.set_peers([(other.node(), place(name, other.local_addr()))].into());
}

fn hello(name: &str, birth: u64) -> Hello {
    Hello { incarnation: Incarnation(birth), ..server_hello(name) }
}

/// Sends a message that is meant for one birth alone.
fn send(from: &Server, to: NodeId, birth: u64, number: u64) {
    let envelope = heartbeat(from.node(), to, number);
    let envelope = PeerEnvelope { to_incarnation: Incarnation(birth), ..envelope };
    from.transport.send(Envelope::Peer(envelope));
}

async fn hears(server: &mut Server, number: u64) {
    assert_eq!(server.message().await.message.term().0, number);
}

/// The pair of servers, of which the lower one has called. Nobody else calls.
async fn connected() -> [Server; 2] {
    let [low, high] = low_and_high();
    let servers = [server(low, 1, PATIENCE), server(high, 2, PATIENCE)];
    tell(&servers[0].network, (high, &servers[1].network));
    for server in &servers {
        until(&server.network, "the peers connect", |stats| stats.peers == 1).await;
    }
    servers
}

#[tokio::test]
async fn a_peer_of_a_lower_number_that_does_not_call_is_called() {
    let [low, high] = low_and_high();
    let mut one = server(low, 1, PATIENCE);
    let mut other = server(high, 2, Duration::from_millis(50));
    tell(&other.network, (low, &one.network));
    for server in [&one, &other] {
        until(&server.network, "the peers connect", |stats| stats.peers == 1).await;
    }
    assert_eq!(one.network.stats().dials, 0);
    send(&one, other.node(), 2, 7);
    hears(&mut other, 7).await;
    send(&other, one.node(), 1, 8);
    hears(&mut one, 8).await;
}

#[tokio::test]
async fn a_peer_of_a_lower_number_that_calls_in_time_is_not_called() {
    let [one, mut other] = connected().await;
    assert_eq!((one.network.stats().dials, other.network.stats().dials), (1, 0));
    tell(&other.network, (low_and_high()[0], &one.network));
    tokio::time::pause();
    tokio::time::sleep(PATIENCE * 2).await;
    tokio::time::resume();
    send(&one, other.node(), 2, 7);
    hears(&mut other, 7).await;
    assert_eq!(other.network.stats().dials, 0, "it has waited long enough, and is connected");
}

#[tokio::test]
async fn where_two_calls_cross_both_sides_keep_the_same_one() {
    let [low, high] = low_and_high();
    for round in 0..20 {
        let mut servers = [low, high].map(|name| server(name, 1, Duration::ZERO));
        let mut places = [(low, &servers[0].network), (high, &servers[1].network)];
        // One of both begins by a hair.
        places.rotate_left(round % 2);
        introduce(&places);
        for server in &servers {
            until(&server.network, "the peers connect", |stats| stats.peers == 1).await;
        }
        // Whatever was closed is gone once both have heard each other on what is left.
        let nodes = servers.each_ref().map(Server::node);
        for (from, to) in [(0, 1), (1, 0), (0, 1)] {
            let mut number = 0;
            let heard = async {
                loop {
                    number += 1;
                    send(&servers[from], nodes[to], 1, number);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    let arrived = servers[to].take().peers;
                    if arrived.iter().any(|found| found.message.term().0 == number) {
                        return;
                    }
                }
            };
            timeout(PATIENCE, heard).await.expect("a message arrives");
        }
        for server in &servers {
            let stats = server.network.stats();
            assert_eq!(stats.peers, 1);
            assert!(stats.peers_connected <= 2, "they took turns: {stats:?}");
            let refused: Vec<_> = stats.refused.keys().collect();
            assert!(refused.is_empty(), "{refused:?}");
        }
    }
}

#[tokio::test]
async fn a_call_that_crosses_is_given_up_by_the_one_who_has_called() {
    let [mut one, mut other] = connected().await;
    let high = low_and_high()[1];
    let mut late = Raw::server(high, one.network.local_addr()).await;
    late.hello(&hello(high, 2)).await;
    let end = timeout(PATIENCE, late.connection.closed()).await.unwrap();
    let ConnectionError::ApplicationClosed(close) = &end else { panic!("ended by {end}") };
    assert_eq!(close.error_code, VarInt::from_u32(0), "nothing is wrong");
    send(&one, other.node(), 2, 7);
    hears(&mut other, 7).await;
    send(&other, one.node(), 1, 8);
    hears(&mut one, 8).await;
    let stats = one.network.stats();
    assert_eq!((stats.peers_connected, stats.refused.len()), (1, 0));
}

#[tokio::test]
async fn the_call_of_the_lower_number_takes_the_place_of_the_others() {
    let [low, high] = low_and_high();
    let one = server(low, 1, PATIENCE);
    let other = server(high, 2, Duration::from_millis(1));
    tell(&other.network, (low, &one.network));
    until(&one.network, "it is called", |stats| stats.peers == 1).await;
    let mut late = Raw::server(low, other.network.local_addr()).await;
    late.hello(&hello(low, 1)).await;
    until(&other.network, "it is taken in", |stats| stats.peers_connected == 2).await;
    let replaced = |stats: &Stats| stats.refused_by_others.contains_key("replaced");
    until(&one.network, "the earlier one ends", replaced).await;
    assert_eq!(other.network.stats().peers, 1);
}

#[tokio::test]
async fn a_copy_of_a_store_is_refused_while_the_other_answers_and_both_sides_say_so() {
    let [low, high] = low_and_high();
    for (name, birth, peer) in [(high, 2, low), (low, 1, high)] {
        let log = Log::begin();
        let [one, other] = connected().await;
        let (mut asked, mut first) = if name == high { (one, other) } else { (other, one) };
        let copy = server(name, birth, Duration::from_millis(1));
        tell(&copy.network, (peer, &asked.network));
        // It tries again and again, and takes nobody's place.
        let is_refused =
            |stats: &Stats| stats.refused_by_others.get("wrong server").is_some_and(|n| *n >= 3);
        let stats = until(&copy.network, "it is refused", is_refused).await;
        assert_eq!(stats.peers_connected, 0, "the copy of {name}");
        for (server, peer) in [(peer, name), (name, peer)] {
            let words = [
                &format!("node={server:?}"),
                &format!("{peer}: wrong server"),
                "WARN",
                "a copy of its store",
                &first.network.local_addr().to_string(),
            ];
            let said = eventually("it is said", || log.lines_with(&words).pop()).await;
            assert!(said.contains("refused"), "{said}");
        }
        send(&asked, first.node(), birth, 7);
        hears(&mut first, 7).await;
        send(&first, asked.node(), 3 - birth, 8);
        hears(&mut asked, 8).await;
        assert_eq!(first.network.stats().peers_connected, 1, "{name} was not disturbed");
        assert_eq!(asked.network.stats().peers_connected, 1);
    }
}

#[tokio::test]
async fn a_server_that_was_started_again_takes_the_place_of_its_silent_process() {
    let [low, high] = low_and_high();
    let mut asked = server(high, 2, PATIENCE);
    let mut before = Raw::server(low, asked.network.local_addr()).await;
    before.hello(&Hello { client: 7, ..hello(low, 1) }).await;
    until(&asked.network, "the first is taken in", |stats| stats.peers == 1).await;
    // Whatever is sent to where it was reaches nobody any more.
    before.rebind();
    let after = server(low, 1, PATIENCE);
    tell(&after.network, (high, &asked.network));
    until(&after.network, "the second is taken in", |stats| stats.peers == 1).await;
    send(&after, asked.node(), 2, 7);
    hears(&mut asked, 7).await;
    let stats = asked.network.stats();
    assert_eq!((stats.peers, stats.peers_connected, stats.refused.len()), (1, 2, 0));
}

#[tokio::test]
async fn another_birth_of_a_peer_is_heard_beside_it_and_each_gets_what_is_meant_for_it() {
    let log = Log::begin();
    let [mut one, mut other] = connected().await;
    let [low, high] = low_and_high();
    let node = other.node();
    let mut second = server(high, 3, Duration::from_millis(1));
    tell(&second.network, (low, &one.network));
    until(&one.network, "both are there", |stats| stats.peers_connected == 2).await;
    for (birth, number) in [(2, 7), (3, 8), (2, 9), (3, 10)] {
        send(&one, node, birth, number);
        hears(if birth == 2 { &mut other } else { &mut second }, number).await;
        send(if birth == 2 { &other } else { &second }, one.node(), 1, number);
        hears(&mut one, number).await;
    }
    let words =
        ["WARN", "a peer is there twice", &format!("of={high:?}"), &format!("node={low:?}")];
    let said = log.lines_with(&words);
    assert!(said[0].contains("another process uses its name"), "{said:?}");
    // A third takes the place of the second, and the first is not disturbed by any of them.
    let third = server(high, 4, Duration::from_millis(1));
    tell(&third.network, (low, &one.network));
    let replaced = |stats: &Stats| stats.refused_by_others.contains_key("replaced");
    until(&second.network, "its place is taken", replaced).await;
    for network in [second.network, third.network] {
        assert!(network.shutdown(PATIENCE).await);
    }
    send(&one, node, 2, 11);
    hears(&mut other, 11).await;
    let stats = other.network.stats();
    assert_eq!((stats.peers_connected, stats.peers, one.network.stats().peers), (1, 1, 1));
}

/// The story: a server was connected before its store was born, and all that was meant for any birth went to it; a second
/// process of its name was never answered, and so nobody noticed that there were two.
#[tokio::test]
async fn where_one_has_not_said_its_birth_the_other_is_told_what_is_meant_for_any() {
    let [low, high] = low_and_high();
    let one = server(low, 1, PATIENCE);
    let mut first = server(high, 0, PATIENCE);
    tell(&one.network, (high, &first.network));
    until(&one.network, "the first is there", |stats| stats.peers_connected == 1).await;
    let mut second = server(high, 3, Duration::from_millis(1));
    tell(&second.network, (low, &one.network));
    until(&one.network, "both are there", |stats| stats.peers_connected == 2).await;
    let node = first.node();
    for (birth, number) in [(0, 7), (2, 8), (3, 9), (0, 10), (2, 11)] {
        send(&one, node, birth, number);
        hears(if birth == 2 { &mut first } else { &mut second }, number).await;
    }
}

#[tokio::test]
async fn a_peer_of_another_birth_is_told_what_is_meant_for_any() {
    let [one, mut other] = connected().await;
    send(&one, other.node(), 0, 7);
    hears(&mut other, 7).await;
    send(&one, other.node(), 99, 8);
    hears(&mut other, 8).await;
}
