//! What an operator reads: names instead of numbers, dates instead of seconds, and warnings only where something is wrong.

use graft_core::ClusterId;
use graft_transport::{
    quic::{Network, Stats, tls::CertifiedName},
    wire::v1::{Refusal, RefusalCode, encode_refusal},
};
use quinn::VarInt;

use crate::{
    authority::{self, CLUSTER},
    common::{
        PATIENCE, Server, bind, bind_with, config, eventually, introduce, loopback, runtime, until,
    },
    log::Log,
    raw::{Raw, client_hello, frames, server_hello},
};

#[tokio::test]
async fn a_peer_that_stops_in_order_is_news_and_no_warning_and_all_are_called_by_name() {
    for (stays, goes) in [("a", "b"), ("b", "a")] {
        let log = Log::begin();
        let (one, other) = (Server::start(stays), bind(goes));
        introduce(&[(stays, &one.network), (goes, &other)]);
        for network in [&one.network, &other] {
            until(network, "the peers connect", |stats| stats.peers == 1).await;
        }
        // Nobody is called who is gone.
        one.network.set_peers([].into());
        assert!(other.shutdown(PATIENCE).await);
        let is_told = |stats: &Stats| !stats.refused_by_others.is_empty();
        let stats = until(&one.network, "it says why it goes", is_told).await;
        assert_eq!(stats.refused_by_others.keys().collect::<Vec<_>>(), ["closing"]);
        let node = format!("node={stays:?}");
        let words =
            ["INFO", &node, &format!("name={goes:?}"), "in order", "this server is stopping"];
        eventually("its leave is told", || log.lines_with(&words).pop()).await;
        assert_eq!(log.lines_with(&["WARN"]), Vec::<String>::new());
        assert!(!log.lines_with(&[&node, "a peer is connected"]).is_empty());
        for node in [one.node(), other.node()] {
            assert_eq!(log.lines_with(&[&node.to_string()]), Vec::<String>::new());
        }
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_told_with_the_date_at_which_it_ends() {
    let log = Log::begin();
    let tls = authority::server("a").tls();
    let _network = Network::bind(loopback(), config("a"), tls.clone(), runtime()).unwrap();
    let own = CertifiedName::server("a", CLUSTER).unwrap();
    let this_year =
        1970 + tls.expires().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() / 31_557_600;
    let until = i32::try_from(this_year).unwrap() + 10;
    authority::dated(&own, 2001..until).replace_in(&tls, &authority::pem());
    let words = ["INFO", "certificates are in force", &format!("expires={until}-01-01T00:00:00Z")];
    assert_eq!(log.lines_with(&words).len(), 1, "{:?}", log.lines_with(&[]));
}

/// What would be a line of its own.
const FORGED: &str = "x\n2026-11-29T15:00:00Z ERROR graft: the disk is lost\u{1b}[2J";

#[tokio::test]
async fn reasons_that_only_the_other_side_knows_are_one_however_many_it_invents() {
    let log = Log::begin();
    let server = Server::start("a");
    for code in 1000..1040_u32 {
        let other = Raw::client(server.network.local_addr()).await;
        other.connection.close(VarInt::from_u32(code), FORGED.as_bytes());
    }
    let all = |stats: &Stats| stats.refused_by_others.values().sum::<u64>() == 40;
    let stats = until(&server.network, "all are counted", all).await;
    assert_eq!(stats.refused_by_others.len(), 1, "{:?}", stats.refused_by_others);
    assert_eq!(log.lines_with(&["refused by a client", "the disk is lost"]).len(), 1);
}

#[tokio::test]
async fn nothing_that_others_say_begins_a_line_of_its_own() {
    let log = Log::begin();
    let mut config = config("a");
    config.machine = "Stack".into();
    let server = Server::of(bind_with(config));
    let to = server.network.local_addr();
    // As the reason of an end, in a frame, and as the name of a machine.
    let ends = Raw::client(to).await;
    ends.connection.close(VarInt::from_u32(3), FORGED.as_bytes());
    let mut refuses = Raw::client(to).await;
    let refusal = Refusal { code: RefusalCode::WrongEpoch, text: FORGED.into() };
    refuses.write(&frames(|out| encode_refusal(&refusal, ClusterId(0), out).unwrap())).await;
    let mut differs = Raw::client(to).await;
    let mut hello = client_hello();
    hello.machine = FORGED.into();
    differs.hello(&hello).await;
    differs.ends_with(RefusalCode::WrongEntry).await;
    let all = |stats: &Stats| stats.refused_by_others.len() == 2 && stats.refused.len() == 1;
    until(&server.network, "all are counted", all).await;
    let said = log.lines_with(&["the disk is lost"]);
    assert_eq!(said.len(), 3, "{said:?}");
    for line in said {
        assert!(!line.contains(char::is_control), "{line:?}");
    }
}

#[tokio::test]
async fn a_peer_that_comes_again_and_again_is_told_of_once() {
    let log = Log::begin();
    let server = Server::start("a");
    for times in 1..=3 {
        let mut peer = Raw::server("b", server.network.local_addr()).await;
        peer.hello(&server_hello("b")).await;
        until(&server.network, "it is connected", |stats| stats.peers_connected == times).await;
        peer.connection.close(VarInt::from_u32(0), b"");
        until(&server.network, "it is gone", |stats| stats.peers == 0).await;
    }
    assert_eq!(log.lines_with(&["a peer is connected"]).len(), 1);
}
