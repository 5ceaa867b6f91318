//! What connections cost a server: a process of its own is flooded with them, and its memory looked at.
//!
//! The server is this very executable, asked to run the test `child`, which does nothing unless the environment says
//! whose certificate to show.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
};

use bytes::Bytes;
use graft_core::{GroupId, NodeId, Reply};
use graft_transport::{
    quic::{
        Network,
        tls::{Alpn, Tls},
    },
    wire::v1::{Header, Kind, Limits, RefusalCode, encode_hello},
};
use quinn::ConnectionError;
use tokio::{task::JoinSet, time::timeout};

use crate::{
    authority,
    common::{Client, PATIENCE, Server, client_tls, config, eventually, loopback, runtime},
    raw::{self, client_hello, frames},
};

/// The variables that hold the authority's certificate, the server's own, and its key.
const PEMS: [&str; 3] = ["GRAFT_TEST_CA", "GRAFT_TEST_CERTIFICATE", "GRAFT_TEST_KEY"];

/// No test: what the server runs.
#[test]
fn child() {
    let Ok(pems) = PEMS.map(env::var).into_iter().collect::<Result<Vec<_>, _>>() else { return };
    let [authority, certificate, key] = &pems[..] else { unreachable!("three are asked for") };
    let tls = Tls::from_pem(authority.as_bytes(), certificate.as_bytes(), key.as_bytes()).unwrap();
    let runtime_of_child = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let serving = async {
        let network = Network::bind(loopback(), config("a"), tls, runtime()).unwrap();
        let mut server = Server::of(network);
        say(&format!("address {}", server.network.local_addr()));
        loop {
            for request in server.arrivals().await.requests {
                server.answer(&request, Reply::SessionDone);
            }
        }
    };
    // It ends with its parent.
    std::thread::spawn(|| {
        let _end = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    runtime_of_child.unwrap().block_on(serving);
}

/// Past the test framework.
fn say(line: &str) {
    std::io::stdout().write_all(format!("\n{line}\n").as_bytes()).unwrap();
}

/// A server in a process of its own, which ends with this.
struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    fn start() -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["memory::child", "--exact", "--nocapture", "--test-threads=1"]);
        let pems = authority::server("a").pems(&authority::pem());
        for (name, pem) in PEMS.into_iter().zip(pems) {
            command.env(name, String::from_utf8(pem).unwrap());
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let address = lines.find_map(|line| line.strip_prefix("address ")?.parse().ok());
        Self { child, address: address.expect("it says where it is") }
    }

    fn kib(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Connections that are kept open, of many senders: more than may be connected.
struct Flood {
    connections: Vec<(quinn::Connection, quinn::SendStream)>,
    _endpoints: Vec<quinn::Endpoint>,
}

impl Flood {
    async fn with(to: SocketAddr, senders: u8, each: usize) -> Self {
        let senders = 2..senders + 2;
        let endpoints: Vec<_> =
            senders.map(|last| raw::endpoint_at(Ipv4Addr::new(127, 0, 0, last))).collect();
        let mut connections = Vec::new();
        for endpoint in &endpoints {
            let mut attempts = JoinSet::new();
            for _ in 0..each {
                let (endpoint, tls) = (endpoint.clone(), client_tls("mallory"));
                attempts.spawn(async move {
                    let connection = raw::connect(&endpoint, &tls, Alpn::Client, to).await.ok()?;
                    let (mut send, mut receive) = connection.open_bi().await.ok()?;
                    let hello = frames(|outgoing| encode_hello(&client_hello(), outgoing).unwrap());
                    send.write_all(&hello).await.ok()?;
                    // An answer, or the end of it.
                    receive.read_chunk(usize::MAX, true).await.ok()?;
                    Some((connection, send))
                });
            }
            connections.extend(attempts.join_all().await.into_iter().flatten());
        }
        Self { connections, _endpoints: endpoints }
    }

    fn connected(&self) -> usize {
        let is_open =
            |(connection, _): &&(quinn::Connection, _)| connection.close_reason().is_none();
        self.connections.iter().filter(is_open).count()
    }
}

/// A client that keeps the rules is served.
async fn serves(client: &Client, node: NodeId, number: u64) {
    client.send(node, number).unwrap();
    client.hears(&(node, number, Reply::SessionDone)).await;
}

/// A server with such a client, and how many KiB it has in use by then.
async fn served(node: NodeId) -> (Process, Client, u64) {
    let server = Process::start();
    let client = Client::start(&[server.address]);
    client.connects_to(node).await;
    serves(&client, node, 1).await;
    let idle = server.kib("VmRSS:");
    (server, client, idle)
}

/// How much memory a flood may take, in KiB.
const MOST_KIB: u64 = 64 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_connections_takes_bounded_memory_and_clients_are_served() {
    let node = NodeId::of_name("a");
    let (server, client, idle) = served(node).await;
    let flood = Flood::with(server.address, 24, 50).await;
    serves(&client, node, 2).await;
    let bound = config("a").bounds.clients;
    // Those beyond it have heard that they are, and are disconnected after that.
    let connected = || Some(flood.connected()).filter(|connected| *connected < bound);
    let connected = eventually("those beyond the bound are disconnected", connected).await;
    let most = server.kib("VmHWM:").saturating_sub(idle);
    println!("{connected} connections take {most} KiB above {idle} KiB");
    assert!(connected > bound / 2, "that is no flood: {connected} are connected");
    assert!(most <= MOST_KIB, "{connected} connections take {most} KiB");
}

/// All but the last bytes of the largest request, and how it goes on from a client that never ends it.
fn half_a_frame() -> Vec<u8> {
    let (limits, kind) = (Limits::default(), Kind::Requests);
    let (body_bytes, payload_bytes) = (limits.body(kind), limits.payload(kind));
    let (cluster, group) = (config("a").cluster, GroupId(0));
    let header = Header { kind, cluster, group, body_bytes, payload_bytes };
    let rest = (body_bytes as usize).next_multiple_of(16) + payload_bytes as usize;
    let mut bytes = header.encode().to_vec();
    bytes.resize(bytes.len() + rest - 16, 1);
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_never_end_take_bounded_memory_and_clients_are_served() {
    let node = NodeId::of_name("a");
    let (server, client, idle) = served(node).await;
    let flood = Flood::with(server.address, 8, 25).await;
    let connected = flood.connected();
    assert!(connected > 150, "that is no flood: {connected} are connected");
    let half = Bytes::from(half_a_frame());
    let mut sending = JoinSet::new();
    for (connection, mut send) in flood.connections {
        let half = half.clone();
        sending.spawn(async move {
            let _as_far_as_it_is_read = send.write_all_chunks(&mut [half]).await;
            connection.closed().await
        });
    }
    // As many as have room lose it, and the next ones get it, while the client is served.
    let mut number = 2;
    for _ in 0..20 {
        let ended = timeout(PATIENCE, async {
            loop {
                tokio::select! {
                    biased;
                    ended = sending.join_next() => break ended.unwrap().unwrap(),
                    () = serves(&client, node, number) => number += 1,
                }
            }
        });
        let ConnectionError::ApplicationClosed(close) = ended.await.expect("one ends in time")
        else {
            continue;
        };
        let code = u64::from(close.error_code);
        assert_eq!(code, u64::from(RefusalCode::TooSlow.number()), "{close}");
    }
    serves(&client, node, number + 1).await;
    let most = server.kib("VmHWM:").saturating_sub(idle);
    println!("{connected} frames that never end take {most} KiB above {idle} KiB");
    assert!(most <= MOST_KIB, "{connected} such frames take {most} KiB");
}
