//! Connections come, go and come back.

use graft_core::{Link, RejectReason, Reply, Transport};
use graft_transport::quic::{Network, NetworkConfig, Stats};

use crate::common::{
    Client, PATIENCE, Server, bind, bind_with, config, eventually, introduce, server_tls, until,
};

#[tokio::test]
async fn servers_exchange_messages_and_a_client_gets_replies() {
    let (mut a, mut b) = (Server::start("a"), Server::start("b"));
    introduce(&[("a", &a.network), ("b", &b.network)]);
    for server in [&a, &b] {
        until(&server.network, "the peers connect", |stats| stats.peers == 1).await;
    }
    a.send(b.node(), 7);
    assert_eq!(b.message().await.message.term().0, 7);
    b.send(a.node(), 8);
    assert_eq!(a.message().await.message.term().0, 8);

    let client = Client::start(&[a.network.local_addr()]);
    client.connects_to(a.node()).await;
    client.send(a.node(), 5).unwrap();
    let request = a.request().await;
    assert_eq!((request.request_id, &request.payload[..]), (5, b"command".as_slice()));
    let reply = Reply::Rejected(RejectReason::Overloaded);
    a.answer(&request, reply.clone());
    client.hears(&(a.node(), 5, reply)).await;
    assert_eq!(client.link.servers(), [a.node()], "it knows of no other");
    assert!(client.send(b.node(), 6).is_err());
}

#[tokio::test]
async fn what_waits_is_sent_before_a_network_is_shut_down_and_its_port_is_free() {
    let (a, mut b) = (Server::start("a"), Server::start("b"));
    introduce(&[("a", &a.network), ("b", &b.network)]);
    for network in [&a.network, &b.network] {
        until(network, "the peers connect", |stats| stats.peers == 1).await;
    }
    for number in 1..=1000 {
        a.send(b.node(), number);
    }
    let address = a.network.local_addr();
    assert!(a.network.shutdown(PATIENCE).await);
    let mut last = 0;
    while last < 1000 {
        last = b.arrivals().await.peers.iter().map(|found| found.message.term().0).max().unwrap();
    }
    let _free = std::net::UdpSocket::bind(address).expect("the port is free");
    let is_told = |stats: &Stats| stats.peers == 0 && !stats.refused_by_others.is_empty();
    let refused = until(&b.network, "b hears why", is_told).await;
    assert_eq!(refused.refused_by_others.keys().collect::<Vec<_>>(), ["closing"]);
}

#[tokio::test]
async fn replies_that_wait_are_sent_before_a_transport_closes_its_clients() {
    let mut a = Server::start("a");
    let client = Client::start(&[a.network.local_addr()]);
    client.connects_to(a.node()).await;
    client.send(a.node(), 1).unwrap();
    let request = a.request().await;
    for _ in 0..1000 {
        a.answer(&request, Reply::SessionDone);
    }
    a.transport.close().await;
    let is_gone = || (!client.heard.gone.lock().unwrap().is_empty()).then_some(());
    eventually("the client hears that the server is gone", is_gone).await;
    assert_eq!(client.heard.replies.lock().unwrap().len(), 1000);
}

#[tokio::test]
async fn a_peer_that_starts_late_or_comes_back_elsewhere_is_found() {
    let a = Server::start("a");
    let first = bind("b");
    introduce(&[("a", &a.network), ("b", &first)]);
    until(&a.network, "the peers connect", |stats| stats.peers == 1).await;
    assert!(first.shutdown(PATIENCE).await);
    until(&a.network, "it is gone", |stats| stats.peers == 0).await;
    let mut second = Server::start("b");
    introduce(&[("a", &a.network), ("b", &second.network)]);
    until(&a.network, "the peers connect again", |stats| stats.peers == 1).await;
    a.send(second.node(), 3);
    assert_eq!(second.message().await.message.term().0, 3);
}

/// A server that takes nobody for dead in the time of a test.
fn patient(name: &str) -> NetworkConfig {
    let mut config = config(name);
    config.timing.idle_timeout = PATIENCE * 10;
    config
}

#[tokio::test]
async fn a_peer_that_is_killed_and_comes_back_is_noticed_long_before_the_idle_timeout() {
    for (name, killed) in [("a", "b"), ("b", "a")] {
        let survivor = Server::of(bind_with(patient(name)));
        let victim = tokio::task::spawn_blocking({
            let killed = killed.to_owned();
            move || {
                let runtime = tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(1)
                    .enable_all()
                    .build()
                    .unwrap();
                let network = runtime.block_on(async { bind_with(patient(&killed)) });
                (runtime, network)
            }
        });
        let (runtime, network) = victim.await.unwrap();
        let address = network.local_addr();
        introduce(&[(name, &survivor.network), (killed, &network)]);
        until(&survivor.network, "the peers connect", |stats| stats.peers == 1).await;
        // Nothing is said: its tasks are gone, and its socket.
        runtime.shutdown_background();
        drop(network);
        let back = eventually("the port is free", || {
            let tls = server_tls(killed);
            Network::bind(address, patient(killed), tls, crate::common::runtime()).ok()
        });
        let back = Server::of(back.await);
        introduce(&[(name, &survivor.network), (killed, &back.network)]);
        let node = back.node();
        let connected = eventually("it is connected again", || {
            // A heartbeat is what a leader would send now.
            survivor.send(node, 1);
            (survivor.network.stats().peers_connected >= 2).then_some(())
        });
        connected.await;
    }
}
