//! The limits that the QUIC library is given hold: for streams, windows, early data, addresses and silence.
//!
//! What takes time is shown on a clock that jumps to the next timer whenever nobody has anything to do. Datagrams to
//! this machine arrive as they are sent, so none is ever on its way then.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use graft_core::{ClientRequest, EntryKind, NodeId};
use graft_transport::{
    quic::{Network, tls::SERVER_NAME},
    wire::v1::{Limits, encode_requests},
};
use quinn::{Connection, SendStream};
use tokio::{
    net::UdpSocket,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::{
    authority,
    common::{Client, PATIENCE, Server, bind, config, introduce, loopback, place, until},
    raw::{self, Impostor, Raw, client_hello, frames, server_hello},
};

/// How many streams of one direction can be opened until no more are granted.
async fn granted(connection: &Connection, bidirectional: bool) -> Vec<SendStream> {
    let mut opened = Vec::new();
    loop {
        let open = async {
            if bidirectional {
                connection.open_bi().await.unwrap().0
            } else {
                connection.open_uni().await.unwrap()
            }
        };
        // What is granted at the beginning is known with the handshake: it takes no time.
        match timeout(Duration::from_millis(50), open).await {
            Ok(stream) => opened.push(stream),
            Err(_) => return opened,
        }
        assert!(opened.len() < 100, "there is no limit");
    }
}

#[tokio::test]
async fn nobody_is_granted_more_streams_than_are_due() {
    let server = Server::start("a");
    let mut client = Raw::client(server.network.local_addr()).await;
    client.hello(&client_hello()).await;
    until(&server.network, "the client connects", |stats| stats.clients == 1).await;
    assert_eq!(granted(&client.connection, true).await.len(), 0, "it has one already");
    let mut peer = Raw::server("b", server.network.local_addr()).await;
    peer.hello(&server_hello("b")).await;
    until(&server.network, "the peer connects", |stats| stats.peers == 1).await;
    assert_eq!(granted(&peer.connection, false).await.len(), 2, "it has the first already");
    assert!(granted(&peer.connection, true).await.len() <= 1, "of the handshake, and never read");
}

#[tokio::test]
async fn what_a_client_sends_on_streams_that_nobody_reads_is_bounded() {
    let server = Server::start("a");
    let mut client = Raw::client(server.network.local_addr()).await;
    client.hello(&client_hello()).await;
    until(&server.network, "the client connects", |stats| stats.clients == 1).await;
    let mut taken = 0;
    for mut stream in granted(&client.connection, false).await {
        let piece = [0_u8; 16 << 10];
        // Where there is room a write takes no time, and where there is none it takes for ever.
        while let Ok(written) = timeout(Duration::from_millis(200), stream.write(&piece)).await {
            taken += written.unwrap();
            assert!(taken <= 1 << 20, "the window of a client");
        }
    }
    assert!(taken > 0, "nothing was tried");
}

#[tokio::test]
async fn nobody_sends_before_the_handshake_is_over() {
    let server = Server::start("a");
    let (to, endpoint) = (server.network.local_addr(), raw::endpoint());
    // It remembers its sessions, and would use them.
    let dialer = raw::anything_goes(&authority::client("mallory"), b"graft-client/1");
    for round in 0..3 {
        let connecting = endpoint.connect_with(dialer.clone(), to, SERVER_NAME).unwrap();
        let Err(connecting) = connecting.into_0rtt() else {
            panic!("connection {round} begins with data")
        };
        let connection = timeout(PATIENCE, connecting).await.unwrap().unwrap();
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        let hello = frames(|outgoing| {
            graft_transport::wire::v1::encode_hello(&client_hello(), outgoing).unwrap();
        });
        send.write_all(&hello).await.unwrap();
        // A ticket would come before the first data.
        let heard = timeout(PATIENCE, receive.read_chunk(1, true)).await.unwrap().unwrap();
        assert!(heard.is_some());
    }
}

#[tokio::test]
async fn a_connection_does_not_move_to_another_address() {
    let mut server = Server::start("a");
    let mut client = Raw::client(server.network.local_addr()).await;
    client.hello(&client_hello()).await;
    until(&server.network, "the client connects", |stats| stats.clients == 1).await;
    let request = |request_id| {
        let (deadline, kind) = (Duration::from_secs(9), EntryKind::Plain);
        let payload = b"moved".as_slice().into();
        let request = ClientRequest { request_id, deadline, kind, payload };
        frames(|outgoing| {
            let cluster = config("a").cluster;
            encode_requests([&request], Duration::ZERO, cluster, &Limits::default(), outgoing);
        })
    };
    client.write(&request(1)).await;
    assert_eq!(server.request().await.request_id, 1);
    client.rebind();
    client.write(&request(2)).await;
    tokio::time::pause();
    until(&server.network, "the server takes it for dead", |stats| stats.clients == 0).await;
    assert!(server.take().requests.is_empty(), "what came from elsewhere was taken in");
}

/// Passes datagrams on between a server and who calls it, until it is told not to.
struct Relay {
    address: SocketAddr,
    is_open: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Relay {
    async fn to(server: SocketAddr) -> Self {
        let front = UdpSocket::bind(loopback()).await.unwrap();
        let back = UdpSocket::bind(loopback()).await.unwrap();
        back.connect(server).await.unwrap();
        let address = front.local_addr().unwrap();
        let is_open = Arc::new(AtomicBool::new(true));
        let open = Arc::clone(&is_open);
        let task = tokio::spawn(async move {
            let mut caller = None;
            let (mut there, mut here) = (vec![0; 64 << 10], vec![0; 64 << 10]);
            loop {
                tokio::select! {
                    biased;
                    found = front.recv_from(&mut there) => if let Ok((length, from)) = found {
                        caller = Some(from);
                        if open.load(Ordering::Relaxed) {
                            let _lost = back.send(&there[..length]).await;
                        }
                    },
                    found = back.recv(&mut here) => if let (Ok(length), Some(to)) = (found, caller)
                        && open.load(Ordering::Relaxed)
                    {
                        let _lost = front.send_to(&here[..length], to).await;
                    },
                }
            }
        });
        Self { address, is_open, task }
    }

    fn set_open(&self, open: bool) {
        self.is_open.store(open, Ordering::Relaxed);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Two peers with a relay between: first who calls.
async fn with_relay() -> (Network, Network, Relay) {
    let (a, b) = (bind("a"), bind("b"));
    let ((calls, _), (called, name)) =
        if a.node() < b.node() { ((a, "a"), (b, "b")) } else { ((b, "b"), (a, "a")) };
    let relay = Relay::to(called.local_addr()).await;
    calls.set_peers([(called.node(), place(name, relay.address))].into());
    for network in [&calls, &called] {
        until(network, "they connect", |stats| stats.peers == 1).await;
    }
    (calls, called, relay)
}

#[tokio::test]
async fn those_who_have_nothing_to_say_stay_connected() {
    let (a, b) = (Server::start("a"), bind("b"));
    introduce(&[("a", &a.network), ("b", &b)]);
    until(&a.network, "the peers connect", |stats| stats.peers == 1).await;
    let client = Client::start(&[a.network.local_addr()]);
    client.connects_to(a.node()).await;
    tokio::time::pause();
    sleep(Duration::from_secs(600)).await;
    let stats = a.network.stats();
    assert_eq!((stats.peers, stats.peers_connected), (1, 1));
    assert_eq!((stats.clients, stats.clients_connected), (1, 1));
    assert!(client.heard.gone.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_noticed_by_both_sides_and_found_again() {
    let (calls, called, relay) = with_relay().await;
    tokio::time::pause();
    relay.set_open(false);
    let began = Instant::now();
    for network in [&calls, &called] {
        until(network, "it is taken for dead", |stats| stats.peers == 0).await;
    }
    let took = began.elapsed();
    let idle_timeout = config("a").timing.idle_timeout;
    assert!(took <= idle_timeout * 2, "{took:?}");
    sleep(Duration::from_secs(60)).await;
    relay.set_open(true);
    let began = Instant::now();
    for network in [&calls, &called] {
        until(network, "it is back", |stats| stats.peers == 1).await;
    }
    // An attempt that began before, a pause, and one more.
    let timing = config("a").timing;
    let took = began.elapsed();
    assert!(took <= timing.dial + timing.backoff_max + Duration::from_secs(1), "{took:?}");
}

#[tokio::test]
async fn a_peer_that_does_not_come_is_called_again_and_again_but_not_without_pause() {
    // Nobody is there, so that an attempt takes as long as it may; or somebody else is, who is refused at once.
    let nobody = std::net::UdpSocket::bind(loopback()).unwrap();
    let impostor = Impostor::showing(&authority::client("mallory"));
    for (address, rate) in [(nobody.local_addr().unwrap(), 20..35), (impostor.address, 100..300)] {
        let network = bind("a");
        let peer = ["b", "c", "d", "e", "f", "g", "h"]
            .into_iter()
            .find(|name| NodeId::of_name(name) > network.node());
        let peer = peer.unwrap();
        network.set_peers([(NodeId::of_name(peer), place(peer, address))].into());
        until(&network, "it is called", |stats| stats.dials > 0).await;
        tokio::time::pause();
        let before = network.stats().dials;
        sleep(Duration::from_secs(60)).await;
        tokio::time::resume();
        let dials = network.stats().dials - before;
        assert!(rate.contains(&dials), "{dials} attempts in a minute, {rate:?} are due");
    }
}

#[tokio::test]
async fn a_server_takes_no_second_place_at_one_address() {
    let first = bind("a");
    let tls = crate::common::server_tls("b");
    let second =
        Network::bind(first.local_addr(), config("b"), tls, crate::common::runtime()).unwrap_err();
    assert!(second.to_string().contains(&first.local_addr().to_string()), "{second}");
}
