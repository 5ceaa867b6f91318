//! Clients learn of all servers from any, and follow them.

use std::{
    collections::BTreeMap,
    net::UdpSocket,
    sync::{Arc, Mutex},
};

use graft_core::{Link, Membership, NodeId, NodeInfo, Replies, Reply, Term, Transport};
use graft_transport::quic::{LinkConfig, Members, Network, QuicLink};

use crate::common::{
    Client, PATIENCE, Server, bind, client_tls, eventually, loopback, runtime, until,
};

pub(crate) fn members(term: u64, servers: &[(&str, &Network)]) -> Members {
    let nodes = servers.iter().map(|(name, network)| {
        let info = NodeInfo {
            name: (*name).to_owned(),
            peer_address: network.local_addr().to_string(),
            client_address: String::new(),
            ..NodeInfo::default()
        };
        (network.node(), info)
    });
    let membership = Membership::of_voters(nodes);
    let leader = servers.first().map(|(_, network)| network.node());
    Members { term: Term(term), leader, membership: Arc::new(membership) }
}

#[tokio::test]
async fn a_client_that_knows_one_server_finds_all_of_them() {
    let servers = ["a", "b", "c"].map(Server::start);
    let [a, b, c] = &servers;
    let all = [("a", &a.network), ("b", &b.network), ("c", &c.network)];
    // What is known before a client connects, and what comes after.
    a.network.announce(&members(1, &all[..2]));
    let client = Client::start(&[a.network.local_addr()]);
    client.connects_to(b.node()).await;
    a.network.announce(&members(2, &all));
    client.connects_to(c.node()).await;
    let mut known = client.link.members();
    let found = known.wait_for(|known| known.as_ref().is_some_and(|known| known.term == Term(2)));
    assert_eq!(found.await.unwrap().as_ref().unwrap().leader, Some(a.node()));
    let mut sorted = all.map(|(_, network)| network.node());
    sorted.sort_unstable();
    assert_eq!(client.link.servers(), sorted, "in a stable order");
}

/// The leaders that a client was told of.
#[derive(Default)]
struct Leaders(Mutex<Vec<NodeId>>);

impl Replies for Leaders {
    fn on_reply(&self, _: NodeId, _: u64, _: Reply) {}

    fn on_server_gone(&self, _: NodeId) {}

    fn on_leader(&self, leader: NodeId) {
        self.0.lock().unwrap().push(leader);
    }
}

impl Leaders {
    /// A link that begins with these addresses and tells of leaders.
    fn of(addresses: &[&Network]) -> (QuicLink, Arc<Self>) {
        let addresses = addresses.iter().map(|network| network.local_addr().to_string());
        let config = LinkConfig::default();
        let link = QuicLink::connect(addresses, client_tls("shop"), config, runtime()).unwrap();
        let leaders = Arc::new(Self::default());
        link.attach(Arc::clone(&leaders) as Arc<dyn Replies>);
        (link, leaders)
    }

    /// Waits until it was told of just these.
    async fn are(&self, expected: &[NodeId]) {
        let are_told = || (*self.0.lock().unwrap() == expected).then_some(());
        eventually("the client hears of the leader", are_told).await;
    }
}

#[tokio::test]
async fn a_client_is_told_of_each_leader_once() {
    let servers = ["a", "b"].map(Server::start);
    let [a, b] = &servers;
    let [of_a, of_b] =
        [[("a", &a.network), ("b", &b.network)], [("b", &b.network), ("a", &a.network)]];
    a.network.announce(&members(1, &of_a));
    let (link, leaders) = Leaders::of(&[&a.network]);
    leaders.are(&[a.node()]).await;
    let reaches_both = || (link.servers().len() == 2).then_some(());
    eventually("the client reaches both", reaches_both).await;
    // The same leader again, an earlier one, none at all: nothing that a request should follow.
    a.network.announce(&members(3, &of_a));
    a.network.announce(&members(2, &of_b));
    a.network.announce(&Members { leader: None, ..members(4, &of_a) });
    a.network.announce(&members(5, &of_b));
    leaders.are(&[a.node(), b.node()]).await;
}

#[tokio::test]
async fn a_client_is_told_again_of_a_leader_that_it_could_not_reach_before() {
    let a = Server::start("a");
    let b = bind("b");
    a.network.announce(&members(1, &[("b", &b), ("a", &a.network)]));
    let (link, leaders) = Leaders::of(&[&a.network]);
    leaders.are(&[b.node()]).await;
    assert_eq!(link.servers(), [a.node()], "nobody runs there yet");
    let b = Server::of(b);
    leaders.are(&[b.node(), b.node()]).await;
    assert!(link.servers().contains(&b.node()), "it can be asked now");
}

#[tokio::test]
async fn what_an_outdated_server_says_of_the_members_is_not_believed() {
    let servers = ["a", "b"].map(Server::start);
    let [a, b] = &servers;
    a.network.announce(&members(5, &[("a", &a.network)]));
    b.network.announce(&members(4, &[("b", &b.network)]));
    let client = Client::start(&[a.network.local_addr(), b.network.local_addr()]);
    client.connects_to(a.node()).await;
    client.connects_to(b.node()).await;
    let mut known = client.link.members();
    let newest = known.wait_for(|known| known.as_ref().is_some_and(|known| known.term == Term(5)));
    drop(newest.await.unwrap());
    // The same again, so that it certainly arrives after the newer one.
    b.network.announce(&members(4, &[("b", &b.network)]));
    b.network.announce(&members(6, &[("b", &b.network)]));
    let newest = known.wait_for(|known| {
        let term = known.as_ref().map(|known| known.term);
        assert_ne!(term, Some(Term(4)));
        term == Some(Term(6))
    });
    drop(newest.await.unwrap());
}

#[tokio::test]
async fn a_client_comes_back_to_a_server_that_runs_again() {
    let first = Server::start("a");
    let node = first.node();
    let client = Client::start(&[first.network.local_addr()]);
    client.connects_to(node).await;
    first.transport.close().await;
    let is_gone = || client.heard.gone.lock().unwrap().contains(&node).then_some(());
    eventually("the client hears that it is gone", is_gone).await;
    assert_eq!(client.link.servers(), []);
    assert!(client.send(node, 1).is_err());
    // Nobody runs behind the address: clients are told so, and try again.
    until(&first.network, "it is refused", |stats| stats.clients == 0).await;
    let mut second = Server::of(first.network.clone());
    client.connects_to(node).await;
    client.send(node, 2).unwrap();
    assert_eq!(second.request().await.request_id, 2);
}

#[tokio::test]
async fn a_newer_run_ends_the_one_before() {
    let mut first = Server::start("a");
    let client = Client::start(&[first.network.local_addr()]);
    client.connects_to(first.node()).await;
    client.send(first.node(), 1).unwrap();
    let request = first.request().await;
    let mut second = Server::of(first.network.clone());
    let is_gone = || (!client.heard.gone.lock().unwrap().is_empty()).then_some(());
    eventually("clients of the earlier run are told", is_gone).await;
    first.answer(&request, Reply::SessionDone);
    client.connects_to(second.node()).await;
    client.send(second.node(), 2).unwrap();
    let request = second.request().await;
    assert_eq!(request.request_id, 2);
    assert!(first.take().is_empty());
    assert!(client.heard.replies.lock().unwrap().is_empty(), "the earlier run answers nobody");
    // The end of the earlier one is nothing to its successor.
    drop(first.transport);
    client.send(second.node(), 3).unwrap();
    assert_eq!(second.request().await.request_id, 3);
}

#[tokio::test]
async fn the_last_requests_of_a_link_that_is_dropped_are_sent() {
    let mut server = Server::start("a");
    let client = Client::start(&[server.network.local_addr()]);
    client.connects_to(server.node()).await;
    for number in 0..100 {
        client.send(server.node(), number).unwrap();
    }
    let heard = Arc::downgrade(&client.heard);
    drop(client);
    assert!(heard.upgrade().is_none(), "nobody holds whom it told");
    let mut taken = 0;
    while taken < 100 {
        taken += server.arrivals().await.requests.len();
    }
    until(&server.network, "the link is gone", |stats| stats.clients == 0).await;
}

#[tokio::test]
async fn a_client_hears_what_is_in_the_way() {
    let server = bind("a");
    // Nobody runs there.
    let client = Client::start(&[server.local_addr()]);
    let error = client.link.ready(PATIENCE / 20).await.unwrap_err().to_string();
    let wanted = "the server behind this address is not running now";
    assert!(error.contains(wanted) && error.contains("closing"), "{error}");
}

#[tokio::test]
async fn each_address_that_is_tried_is_named_once() {
    let stopped = bind("a");
    // A socket that nobody reads from.
    let silent = UdpSocket::bind(loopback()).unwrap();
    let addresses = [stopped.local_addr(), silent.local_addr().unwrap()];
    let client = Client::start(&addresses);
    let error = client.link.ready(PATIENCE / 100).await.unwrap_err().to_string();
    for address in addresses {
        assert_eq!(error.matches(&address.to_string()).count(), 1, "{address}: {error}");
    }
    assert!(error.contains("answer"), "{error}");
}

#[tokio::test]
async fn two_addresses_of_one_server_are_one_server() {
    let server = Server::start("a");
    let port = server.network.local_addr().port();
    let names = [format!("127.0.0.1:{port}"), format!("localhost:{port}")];
    let runtime = runtime();
    let tls = client_tls("shop");
    let link = QuicLink::connect(names, tls, Default::default(), runtime);
    let link = link.unwrap();
    link.ready(PATIENCE).await.unwrap();
    assert_eq!(link.servers(), [server.node()]);
    let peers: BTreeMap<NodeId, _> = server.network.peers();
    assert!(peers.is_empty());
}
