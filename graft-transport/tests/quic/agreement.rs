//! What the two sides of a connection tell each other of themselves, and what comes of it.

use std::time::Duration;

use graft_core::{Link, Reply, Transport};
use graft_transport::quic::{FrameLimits, LinkConfig, NetworkConfig, Schema};

use crate::common::{Client, PATIENCE, Server, bind_with, config, eventually, introduce, until};

fn of_stacks(name: &str) -> NetworkConfig {
    let mut config = config(name);
    config.machine = "Stack".into();
    config.format = 7;
    config.schema = Schema { lowest: 0, highest: 2 };
    config
}

#[tokio::test]
async fn a_client_that_states_no_entries_learns_which_the_servers_take() {
    let older = NetworkConfig { schema: Schema { lowest: 0, highest: 1 }, ..of_stacks("b") };
    let a = Server::of(bind_with(of_stacks("a")));
    let b = Server::of(bind_with(older));
    let client = Client::start(&[a.network.local_addr()]);
    assert_eq!(client.link.served(), None);
    client.link.ready(PATIENCE).await.unwrap();
    let served = client.link.served().unwrap();
    assert_eq!((&*served.machine, served.format), ("Stack", 7));
    assert_eq!((served.lowest, served.highest), (0, 2));

    let client = Client::start(&[a.network.local_addr(), b.network.local_addr()]);
    client.connects_to(a.node()).await;
    client.connects_to(b.node()).await;
    let served = client.link.served().unwrap();
    assert_eq!((served.lowest, served.highest), (0, 1), "what every server reads");
}

#[tokio::test]
async fn a_client_of_another_entry_type_is_refused_by_name() {
    let server = Server::of(bind_with(of_stacks("a")));
    let config = LinkConfig { machine: "Queue".into(), ..LinkConfig::default() };
    let client = Client::with_config(&[server.network.local_addr()], config);
    until(&server.network, "it is refused", |stats| stats.refused.contains_key("wrong entry"))
        .await;
    let error = client.link.ready(PATIENCE / 20).await.unwrap_err().to_string();
    for words in ["wrong entry", "type Stack here", "type Queue there"] {
        assert!(error.contains(words), "{error}");
    }
}

#[tokio::test]
async fn a_server_of_other_entries_than_the_first_is_not_connected_to() {
    let a = Server::of(bind_with(of_stacks("a")));
    let b = Server::of(bind_with(NetworkConfig { machine: "Queue".into(), ..of_stacks("b") }));
    let client = Client::start(&[a.network.local_addr()]);
    client.connects_to(a.node()).await;
    let members = crate::members::members(1, &[("a", &a.network), ("b", &b.network)]);
    a.network.announce(&members);
    let refused =
        |stats: &graft_transport::quic::Stats| stats.refused_by_others.contains_key("wrong entry");
    until(&b.network, "it is refused", refused).await;
    assert_eq!(client.link.servers(), [a.node()]);
    assert_eq!(client.link.served().unwrap().machine, "Stack");
}

#[tokio::test]
async fn a_server_knows_which_versions_its_members_read_also_while_they_are_away() {
    let older = NetworkConfig { schema: Schema { lowest: 0, highest: 1 }, ..of_stacks("b") };
    let a = Server::of(bind_with(of_stacks("a")));
    let b = bind_with(older);
    let newest = || a.transport.newest_version();
    assert_eq!(newest(), None);
    introduce(&[("a", &a.network), ("b", &b)]);
    until(&a.network, "they connect", |stats| stats.peers == 1).await;
    eventually("it is noted", || newest().filter(|newest| *newest == 1)).await;
    assert!(b.shutdown(PATIENCE).await);
    until(&a.network, "it is gone", |stats| stats.peers == 0).await;
    assert_eq!(newest(), Some(1));
    let b = bind_with(of_stacks("b"));
    introduce(&[("a", &a.network), ("b", &b)]);
    eventually("it is upgraded", || newest().filter(|newest| *newest == 2)).await;
}

#[tokio::test]
async fn peers_of_other_settings_are_warned_of_once_each_and_stay() {
    let longer = NetworkConfig { election_timeout: Duration::from_millis(301), ..config("b") };
    let (a, b) = (bind_with(config("a")), bind_with(longer));
    let c = bind_with(config("c"));
    introduce(&[("a", &a), ("b", &b), ("c", &c)]);
    for (network, differing) in [(&a, 1), (&b, 2), (&c, 1)] {
        let stats = until(network, "both peers connect", |stats| stats.peers == 2).await;
        assert_eq!(stats.differing_peers, differing);
    }
    // The same again is not said again.
    let connected = a.stats().peers_connected;
    assert!(b.shutdown(PATIENCE).await);
    until(&a, "it is gone", |stats| stats.peers == 1).await;
    let b =
        bind_with(NetworkConfig { election_timeout: Duration::from_millis(301), ..config("b") });
    introduce(&[("a", &a), ("b", &b), ("c", &c)]);
    until(&a, "it is back", |stats| stats.peers_connected > connected).await;
    until(&b, "it sees both", |stats| stats.differing_peers == 2).await;
    assert_eq!(a.stats().differing_peers, 1);
}

/// The largest reply of the server, and of the client: the smaller of the two counts.
#[tokio::test]
async fn an_answer_that_is_too_large_is_said_to_be_and_others_pass() {
    const MIB: usize = 1 << 20;
    for (of_server, of_client) in [(2 * MIB, 4 * MIB), (4 * MIB, 2 * MIB)] {
        let frames = |reply| FrameLimits::new(MIB, MIB, reply);
        let served = NetworkConfig { frames: frames(of_server), ..config("a") };
        let mut server = Server::of(bind_with(served));
        let link = LinkConfig { frames: frames(of_client), ..LinkConfig::default() };
        let client = Client::with_config(&[server.network.local_addr()], link);
        client.connects_to(server.node()).await;
        let node = server.node();
        let answer = |bytes| Reply::Applied(vec![1; bytes].into());
        let limit = 2 * MIB;
        let answers = [
            (1, answer(10), answer(10)),
            (2, answer(limit + 1), Reply::ResponseTooLarge { bytes: limit + 1, limit }),
            (3, answer(limit), answer(limit)),
            (
                4,
                Reply::Panicked(vec![1; 3 * MIB].into()),
                Reply::ResponseTooLarge { bytes: 3 * MIB, limit },
            ),
            (5, answer(11), answer(11)),
        ];
        for (id, said, heard) in answers {
            client.send(node, id).unwrap();
            let request = server.request().await;
            assert_eq!(request.request_id, id);
            server.answer(&request, said);
            client.hears(&(node, id, heard)).await;
        }
        assert_eq!(client.heard.gone.lock().unwrap().len(), 0, "the connection stays");
        assert_eq!(server.network.stats().oversized_replies, 2);
    }
}
