//! What an operator reads: names instead of numbers, dates instead of seconds, and warnings only where something is wrong.

use graft_transport::quic::{Network, Stats, tls::CertifiedName};

use crate::{
    authority::{self, CLUSTER},
    common::{PATIENCE, Server, bind, config, eventually, introduce, loopback, runtime, until},
    log::Log,
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
