//! Connections that are begun and not gone on with, too many of them, and in the names of others.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use graft_core::Reply;
use graft_transport::quic::{
    LinkConfig, Stats,
    tls::{Alpn, SERVER_NAME},
};
use quinn::ConnectionError;
use tokio::{net::UdpSocket, time::timeout};

use crate::{
    common::{Client, PATIENCE, Server, bind_with, client_tls, config, until},
    raw::{self, client_hello, frames},
    security::{hasty, serves},
};

/// Passes the first packet of a connection on to `server`, and nothing more.
async fn begin_handshake(server: SocketAddr) {
    let way = UdpSocket::bind(crate::common::loopback()).await.unwrap();
    let endpoint = raw::endpoint();
    let crypto = client_tls("mallory").client_crypto(Alpn::Client, None).unwrap();
    let config = quinn::ClientConfig::new(crypto);
    let to = way.local_addr().unwrap();
    let _connecting = endpoint.connect_with(config, to, SERVER_NAME).unwrap();
    let mut packet = [0; 2048];
    let length = timeout(PATIENCE, way.recv(&mut packet)).await.unwrap().unwrap();
    way.send_to(&packet[..length], server).await.unwrap();
}

#[tokio::test]
async fn a_handshake_that_does_not_go_on_is_given_up() {
    let mut config = config("a");
    config.bounds.handshakes = 2;
    config.timing.handshake = Duration::from_secs(1);
    // It is not its silence that ends it.
    config.timing.idle_timeout = PATIENCE * 10;
    let mut server = Server::of(bind_with(config));
    let address = server.network.local_addr();
    for begun in 1..=2 {
        begin_handshake(address).await;
        until(&server.network, "it arrives", |stats| stats.handshakes == begun).await;
    }
    // Meanwhile there is no room for more.
    begin_handshake(address).await;
    until(&server.network, "there is no room", |stats| stats.handshakes_limited == 1).await;
    until(&server.network, "both are given up", |stats| stats.handshakes_failed == 2).await;
    serves(&mut server).await;
}

#[tokio::test]
async fn an_address_begins_no_more_handshakes_than_it_may_and_others_are_not_held_to_it() {
    let mut config = config("a");
    config.bounds.handshake_burst = 6;
    config.bounds.handshakes_per_second = 0;
    let server = Server::of(bind_with(config));
    let to = server.network.local_addr();
    let connect = async |endpoint: &quinn::Endpoint| {
        raw::connect(endpoint, &client_tls("mallory"), Alpn::Client, to).await
    };
    let endpoint = raw::endpoint();
    for _ in 0..6 {
        connect(&endpoint).await.unwrap();
    }
    assert_eq!(server.network.stats().retries, 3, "the second half had to prove its address");
    // Another port is no other sender.
    for endpoint in [endpoint, raw::endpoint()] {
        let error = connect(&endpoint).await.unwrap_err();
        assert!(matches!(&error, ConnectionError::ConnectionClosed(_)), "{error}");
    }
    let stats = server.network.stats();
    assert_eq!((stats.handshakes, stats.handshakes_limited), (6, 2));
    connect(&raw::endpoint_at(Ipv4Addr::new(127, 0, 0, 2))).await.unwrap();
}

#[tokio::test]
async fn whoever_sends_in_the_name_of_an_address_takes_nothing_from_who_has_it() {
    let mut config = config("a");
    config.bounds.handshake_burst = 4;
    config.bounds.handshakes_per_second = 0;
    let server = Server::of(bind_with(config));
    for begun in 1..=20 {
        // Nobody answers what comes back.
        begin_handshake(server.network.local_addr()).await;
        let arrived = |stats: &Stats| stats.handshakes + stats.retries == begun;
        until(&server.network, "it arrives", arrived).await;
    }
    assert_eq!(server.network.stats().handshakes, 2);
    let client = Client::start(&[server.network.local_addr()]);
    client.connects_to(server.node()).await;
}

#[tokio::test]
async fn a_flood_of_connections_leaves_those_who_are_there_alone() {
    let mut config = hasty("a");
    config.bounds.clients = 20;
    config.bounds.handshakes = 16;
    config.bounds.unproven_handshakes = 4;
    config.bounds.handshakes_per_second = 40;
    config.bounds.handshake_burst = 60;
    // The flood is made on this very thread: nobody may be taken for dead because that took a while.
    config.timing.idle_timeout = PATIENCE;
    let timing = config.timing;
    let mut server = Server::of(bind_with(config));
    let address = server.network.local_addr();
    let client = Client::with_config(&[address], LinkConfig { timing, ..LinkConfig::default() });
    client.connects_to(server.node()).await;

    let flood = tokio::spawn(async move {
        let endpoint = raw::endpoint();
        let tls = client_tls("mallory");
        let mut attempts = tokio::task::JoinSet::new();
        for _ in 0..300 {
            let (endpoint, tls) = (endpoint.clone(), tls.clone());
            attempts.spawn(async move {
                let attempt = raw::connect(&endpoint, &tls, Alpn::Client, address);
                let connection = timeout(PATIENCE, attempt).await.ok()?.ok()?;
                let (mut send, _receive) = connection.open_bi().await.ok()?;
                let hello = frames(|outgoing| {
                    graft_transport::wire::v1::encode_hello(&client_hello(), outgoing).unwrap();
                });
                send.write_all(&hello).await.ok()?;
                connection.closed().await;
                Some(())
            });
        }
        attempts.join_all().await
    });
    let began = Instant::now();
    for number in 0..50 {
        client.send(server.node(), number).unwrap();
        let request = server.request().await;
        server.answer(&request, Reply::SessionDone);
        client.hears(&(server.node(), number, Reply::SessionDone)).await;
    }
    println!("50 requests took {:?} in the flood", began.elapsed());
    let stats = until(&server.network, "the flood is limited", |stats| {
        stats.handshakes_limited > 100 && stats.retries > 0
    });
    assert!(stats.await.clients <= 20);
    assert!(client.heard.gone.lock().unwrap().is_empty());
    flood.abort();
}

#[tokio::test]
async fn senders_prove_their_address_where_many_come() {
    let mut config = config("a");
    config.bounds.unproven_handshakes = 0;
    let mut server = Server::of(bind_with(config));
    serves(&mut server).await;
    assert!(server.network.stats().retries > 0);
}
