//! Whoever is not of this cluster is refused by its certificate, at whichever end of a connection it is, and both
//! sides say why. `tests/tls` has each rule by itself.

use std::time::Duration;

use graft_core::{Link, NodeId, Reply};
use graft_transport::quic::{
    LinkConfig, Network, NetworkError, QuicLink,
    tls::{CertifiedName, SERVER_NAME},
};
use tokio::time::timeout;

use crate::{
    authority::{self, CLUSTER, Issued},
    common::{
        Client, PATIENCE, Server, bind, client_tls, config, loopback, place, runtime, server_tls,
        until,
    },
    log::Log,
    raw::{self, Impostor},
};

/// One whose number is above that of server `a`, which therefore calls it.
fn called_by_a() -> String {
    let names = ('b'..='z').map(String::from);
    names.into_iter().find(|name| NodeId::of_name(name) > NodeId::of_name("a")).unwrap()
}

/// Certificates that are no good as that of the server `name`, and what is said of each.
fn strangers(name: &str) -> Vec<(Issued, Vec<String>)> {
    let own = CertifiedName::server(name, CLUSTER).unwrap();
    let elsewhere = CertifiedName::server(name, "elsewhere").unwrap();
    let whose = format!("server `{name}` of cluster");
    let cases = [
        (authority::foreign(&own), "not issued by the authority"),
        (authority::another(&elsewhere), "cluster `test` alone"),
        (authority::dated(&own, 2001..2002), "expired on 2002-01-01"),
        (authority::dated(&own, 2200..2201), "not valid before 2200-01-01"),
    ];
    let says = |words: &str| vec![whose.clone(), words.to_owned()];
    cases.into_iter().map(|(issued, words)| (issued, says(words))).collect()
}

#[track_caller]
fn says(text: &str, words: &[String]) {
    for word in words {
        assert!(text.contains(word), "no {word:?} in {text:?}");
    }
}

#[tokio::test]
async fn strangers_are_refused_at_the_handshake_on_both_protocols_and_hear_why() {
    let tls = server_tls("a");
    let network = Network::bind(loopback(), config("a"), tls.clone(), runtime()).unwrap();
    let mut server = Server::of(network);
    let (to, endpoint) = (server.network.local_addr(), raw::endpoint());
    let revoked = authority::server("mallory");
    tls.revoke(authority::revocation_of(&revoked).as_bytes()).unwrap();
    let mut strangers = strangers("b");
    strangers.push((revoked, vec!["server `mallory`".into(), "revoked".into()]));
    let mut refused = 0;
    for (issued, words) in strangers {
        for alpn in ["graft-peer/1", "graft-client/1"] {
            let dialer = raw::anything_goes(&issued, alpn.as_bytes());
            let connecting = endpoint.connect_with(dialer, to, SERVER_NAME).unwrap();
            // A dialer's handshake is over before the other side has seen its certificate.
            let ended = match timeout(PATIENCE, connecting).await.unwrap() {
                Ok(connection) => timeout(PATIENCE, connection.closed()).await.unwrap(),
                Err(error) => error,
            };
            says(&ended.to_string(), &words);
            refused += 1;
        }
    }
    let stats =
        until(&server.network, "all are counted", |stats| stats.handshakes_failed == refused);
    let stats = stats.await;
    assert_eq!((stats.peers_connected, stats.clients_connected), (0, 0));
    assert!(server.take().is_empty());
    // Whoever is of the cluster is served as before.
    let client = Client::start(&[to]);
    client.connects_to(server.node()).await;
    client.send(server.node(), 1).unwrap();
    let request = server.request().await;
    server.answer(&request, Reply::SessionDone);
    client.hears(&(server.node(), 1, Reply::SessionDone)).await;
}

#[tokio::test]
async fn a_server_does_not_connect_to_who_answers_in_a_peers_place() {
    let name = called_by_a();
    let mut impostors = strangers(&name);
    let other = CertifiedName::server("other", CLUSTER).unwrap();
    let words = vec!["server `other`".into(), format!("address of server `{name}`")];
    impostors.push((authority::another(&other), words));
    let client = CertifiedName::client(&name, CLUSTER).unwrap();
    impostors.push((authority::another(&client), vec!["a server is due".into()]));
    for (issued, words) in impostors {
        let log = Log::begin();
        let impostor = Impostor::showing(&issued);
        let network = bind("a");
        let places = [(NodeId::of_name(&name), place(&name, impostor.address))];
        network.set_peers(places.into());
        let tried = until(&network, "it tries again and again", |stats| stats.dials >= 3);
        assert_eq!(tried.await.peers_connected, 0);
        let said = log.lines_with(&["a peer cannot be reached", &format!("of={name:?}")]);
        let [line] = &said[..] else { panic!("said {said:?}") };
        says(line, &words);
    }
}

#[tokio::test]
async fn a_client_does_not_connect_to_who_answers_in_a_servers_place() {
    for (issued, words) in strangers("a") {
        let impostor = Impostor::showing(&issued);
        let addresses = [impostor.address.to_string()];
        let link =
            QuicLink::connect(addresses, client_tls("shop"), LinkConfig::default(), runtime());
        let link = link.unwrap();
        let mut patience = Duration::from_millis(200);
        let error = loop {
            let error = link.ready(patience).await.unwrap_err().to_string();
            if words.iter().all(|word| error.contains(word)) {
                break error;
            }
            // A machine with much else to do has not come to it.
            patience *= 4;
            assert!(patience < PATIENCE, "it does not say {words:?}: {error}");
        };
        assert!(error.contains(&impostor.address.to_string()), "{error}");
        assert!(link.servers().is_empty());
    }
}

#[tokio::test]
async fn a_server_is_not_given_a_place_by_the_certificate_of_another() {
    for tls in [server_tls("b"), client_tls("a")] {
        let certified = tls.identity().to_string();
        let error = Network::bind(loopback(), config("a"), tls, runtime()).unwrap_err();
        assert!(matches!(error, NetworkError::WrongCertificate { .. }), "{error}");
        says(&error.to_string(), &[certified, "\"a\"".into()]);
    }
}
