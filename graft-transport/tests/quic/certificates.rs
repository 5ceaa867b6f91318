//! Certificates change, and run out, while servers and clients are connected.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use graft_core::Link;
use graft_transport::quic::{
    LinkConfig, Network, QuicLink,
    tls::{CertifiedName, Tls},
};
use rustls::time_provider::TimeProvider;
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::{
    authority::{self, CLUSTER},
    common::{
        Client, Server, client_tls, config, eventually, introduce, loopback, runtime, server_tls,
        until,
    },
    raw::{self, Raw, client_hello},
};

const NAMES: [&str; 3] = ["a", "b", "c"];

fn certified(name: &str) -> CertifiedName {
    CertifiedName::server(name, CLUSTER).unwrap()
}

/// Three servers that are connected, and how each can be given other certificates.
async fn three() -> [(Server, Tls); 3] {
    let servers = NAMES.map(|name| {
        let tls = server_tls(name);
        let network = Network::bind(loopback(), config(name), tls.clone(), runtime()).unwrap();
        (Server::of(network), tls)
    });
    let places: Vec<_> =
        NAMES.into_iter().zip(servers.iter().map(|(server, _)| &server.network)).collect();
    introduce(&places);
    for (server, _) in &servers {
        until(&server.network, "both peers connect", |stats| stats.peers == 2).await;
    }
    servers
}

/// Everybody still hears everybody.
async fn all_hear_each_other(servers: &mut [(Server, Tls); 3], number: u64) {
    for (from, to) in [(0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)] {
        let node = servers[to].0.node();
        let number = number * 10 + from as u64;
        servers[from].0.send(node, number);
        while servers[to].0.message().await.message.term().0 != number {}
    }
}

/// The certificate that is shown to whoever connects now.
async fn shown_by(server: &Server) -> CertificateDer<'static> {
    let (endpoint, tls) = (raw::endpoint(), client_tls("shop"));
    let to = server.network.local_addr();
    let alpn = graft_transport::quic::tls::Alpn::Client;
    let connection = raw::connect(&endpoint, &tls, alpn, to).await.unwrap();
    let chain = connection.peer_identity().unwrap();
    chain.downcast::<Vec<CertificateDer<'static>>>().unwrap().swap_remove(0)
}

#[tokio::test]
async fn certificates_are_renewed_on_all_servers_and_no_connection_ends() {
    let mut servers = three().await;
    let addresses = servers.each_ref().map(|(server, _)| server.network.local_addr());
    let client = Client::start(&addresses);
    for (server, _) in &servers {
        client.connects_to(server.node()).await;
    }
    for (at, name) in NAMES.into_iter().enumerate() {
        let renewed = authority::another(&certified(name));
        let (server, tls) = &servers[at];
        assert_ne!(shown_by(server).await, *renewed.certificate.der());
        renewed.replace_in(tls, &authority::pem());
        assert_eq!(shown_by(server).await, *renewed.certificate.der());
        all_hear_each_other(&mut servers, at as u64 + 1).await;
    }
    for (server, _) in &servers {
        let stats = server.network.stats();
        assert_eq!((stats.peers, stats.peers_connected), (2, 2), "nobody had to connect again");
        assert_eq!(stats.clients_connected, 1);
    }
    assert!(client.heard.gone.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_authority_is_replaced_by_way_of_both_while_servers_stay_connected() {
    let mut servers = three().await;
    let (old, next) = (authority::pem(), authority::next_pem());
    let both = format!("{old}{next}");
    for (at, name) in NAMES.into_iter().enumerate() {
        authority::server(name).replace_in(&servers[at].1, &both);
    }
    for (at, name) in NAMES.into_iter().enumerate() {
        authority::by_next(&certified(name)).replace_in(&servers[at].1, &both);
        all_hear_each_other(&mut servers, at as u64 + 1).await;
    }
    for (server, _) in &servers {
        assert_eq!(server.network.stats().peers_connected, 2, "nobody had to connect again");
    }
    // Now that all have new ones, the old authority goes, and with it the connections that rest on it.
    for (at, name) in NAMES.into_iter().enumerate() {
        authority::by_next(&certified(name)).replace_in(&servers[at].1, &next);
    }
    for (server, _) in &servers {
        until(&server.network, "they connect again", |stats| {
            stats.peers == 2 && stats.peers_connected >= 4
        })
        .await;
    }
    all_hear_each_other(&mut servers, 9).await;
    let runtime = runtime();
    let addresses = [servers[0].0.network.local_addr().to_string()];
    let outdated = QuicLink::connect(addresses, client_tls("shop"), LinkConfig::default(), runtime);
    let outdated = outdated.unwrap();
    let before = servers[0].0.network.stats().handshakes_failed;
    until(&servers[0].0.network, "it tries", |stats| stats.handshakes_failed > before).await;
    assert!(outdated.servers().is_empty());
}

/// The clock by which a server judges certificates.
#[derive(Debug, Default)]
struct Clock(AtomicU64);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.load(Ordering::Relaxed))))
    }
}

/// The beginning of a year, in seconds since 1970.
fn year(year: u64) -> u64 {
    (year - 1970) * 31_556_952
}

#[tokio::test]
async fn a_certificate_that_runs_out_ends_its_connections_within_a_minute() {
    let clock = Arc::new(Clock::default());
    clock.0.store(year(2030), Ordering::Relaxed);
    let judging = authority::server("a").builder().clock(clock.clone()).build().unwrap();
    let network = Network::bind(loopback(), config("a"), judging, runtime()).unwrap();
    let server = Server::of(network);
    let until_2040 = authority::dated(&certified("b"), 2020..2040);
    let peer = Network::bind(loopback(), config("b"), until_2040.tls(), runtime()).unwrap();
    let longer = Server::start("c");
    introduce(&[("a", &server.network), ("b", &peer), ("c", &longer.network)]);
    until(&server.network, "both peers connect", |stats| stats.peers == 2).await;
    let mut client = Raw::client(server.network.local_addr()).await;
    client.hello(&client_hello()).await;
    until(&server.network, "the client connects", |stats| stats.clients == 1).await;
    let connected = server.network.peers();

    clock.0.store(year(2041), Ordering::Relaxed);
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    while server.network.stats().peers == 2 {
        assert!(began.elapsed() < Duration::from_secs(65), "it is still connected");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::resume();
    let left: Vec<_> = server.network.peers().into_keys().collect();
    assert_eq!(left, [longer.node()], "of {:?} the one is gone", connected.keys());
    assert_eq!(server.network.stats().clients, 1, "the others stay");
    // Whoever tries again is refused at the handshake, whichever of the two dials.
    let tries = || server.network.stats().handshakes_failed + peer.stats().handshakes_failed;
    let before = tries();
    eventually("it is tried again", || (tries() > before).then_some(())).await;
    assert_eq!(server.network.stats().peers, 1);
    assert_eq!(server.network.stats().peers_connected, 2);
}
