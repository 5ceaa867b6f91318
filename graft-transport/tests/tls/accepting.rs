//! Whom a server lets in, and whom it refuses.

use graft_transport::certs::Authority;
use graft_transport::quic::tls::{
    Alpn, CertifiedName, Refusal, Role, SERVER_NAME, Tls, TlsBuilder, TlsError, alpn,
    certified_name,
};
use quinn::{ClientConfig, Endpoint, ServerConfig};

use crate::common::{
    Clock, DAY, accepting, at, builder, client, dialing, listen, loopback, meet, meet_at, now,
    own_refusal, says, server,
};
use crate::custom::{ClientAuth, Custom, ServerAuth};
use crate::raw;

const PEER: &[u8] = b"graft-peer/1";
const CLIENT: &[u8] = b"graft-client/1";

/// What the server `a` of `authority` says to a dialer with this certificate.
async fn refusal_of(tls: &Tls, certificate: &str, key: &str) -> String {
    let dialer = raw::dialing(PEER, Some((certificate, key)));
    meet(accepting(tls), dialer).await.refused_by_acceptor().await
}

#[tokio::test]
async fn servers_and_clients_of_one_cluster_meet_and_know_each_other() {
    let authority = Authority::new("stack").unwrap();
    let (a, b) = (server(&authority, "server_A"), server(&authority, "server-b"));
    let (dialer, acceptor, _keep) =
        meet(accepting(&a), dialing(&b, Alpn::Peer, Some("server_A"))).await.both();
    let seen = b.certified_peer(&dialer).unwrap();
    assert_eq!((seen.name(), seen.alpn()), ("server_A", Alpn::Peer));
    let seen = a.certified_peer(&acceptor).unwrap();
    assert_eq!((seen.name(), seen.alpn()), ("server-b", Alpn::Peer));
    assert_eq!(seen.certified_name(), b.identity());
    assert_eq!(certified_name(&acceptor).unwrap(), *b.identity());

    let c = client(&authority, "c");
    let (dialer, acceptor, _keep) =
        meet(accepting(&a), dialing(&c, Alpn::Client, None)).await.both();
    assert_eq!(alpn(&acceptor), Some(Alpn::Client));
    assert_eq!(a.certified_peer(&acceptor).unwrap().certified_name(), c.identity());
    assert_eq!(c.certified_peer(&dialer).unwrap().certified_name(), a.identity());
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let tls = server(&Authority::new("stack").unwrap(), "a");
    let foreign = Authority::new("stack").unwrap().server("b").unwrap();
    let text = refusal_of(&tls, foreign.certificate_pem(), foreign.key_pem()).await;
    says(&text, &["server `b` of cluster `stack`", "not issued by the authority", "server `a`"]);
}

#[tokio::test]
async fn an_authority_that_borrows_the_name_of_the_true_one_is_refused() {
    let (own, forged) = (Custom::new("authority"), Custom::new("authority"));
    let a = own.issue(&["a.stack.server.graft"], 2, &[ServerAuth, ClientAuth]);
    let tls = Tls::from_pem(own.pem().as_bytes(), a.certificate.as_bytes(), a.key.as_bytes());
    let b = forged.issue(&["b.stack.server.graft"], 3, &[ServerAuth, ClientAuth]);
    let text = refusal_of(&tls.unwrap(), &b.certificate, &b.key).await;
    says(&text, &["server `b` of cluster `stack`", "not issued by the authority"]);
}

#[tokio::test]
async fn a_certificate_of_the_right_authority_for_another_cluster_is_refused() {
    let authority = Authority::new("stack").unwrap();
    let other = authority.issue(CertifiedName::server("b", "queue").unwrap()).unwrap();
    let tls = server(&authority, "a");
    let text = refusal_of(&tls, other.certificate_pem(), other.key_pem()).await;
    says(&text, &["server `b` of cluster `queue`", "cluster `stack` alone", "check the address"]);
    let capital = authority.issue(CertifiedName::server("b", "Stack").unwrap()).unwrap();
    let text = refusal_of(&tls, capital.certificate_pem(), capital.key_pem()).await;
    says(&text, &["cluster `Stack`", "cluster `stack` alone"]);
}

#[tokio::test]
async fn an_expired_certificate_is_refused_with_its_date() {
    let authority = Authority::new("stack").unwrap();
    let tls = server(&authority, "a");
    let authority = authority.valid_between(at(DAY), at(951_782_400));
    let old = authority.server("b").unwrap();
    let text = refusal_of(&tls, old.certificate_pem(), old.key_pem()).await;
    says(&text, &["server `b`", "expired on 2000-02-29T00:00:00Z", "issue a new one"]);
}

#[tokio::test]
async fn a_certificate_whose_time_has_not_come_is_refused_with_its_date() {
    let authority = Authority::new("stack").unwrap();
    let tls = server(&authority, "a");
    let authority = authority.valid_between(at(now() + DAY), at(now() + 2 * DAY));
    let early = authority.server("b").unwrap();
    let text = refusal_of(&tls, early.certificate_pem(), early.key_pem()).await;
    says(&text, &["server `b`", "not valid before", "Z", "set the clocks"]);
}

#[tokio::test]
async fn certificates_that_name_nobody_or_several_are_refused() {
    let authority = Custom::new("authority");
    let usages = [ServerAuth, ClientAuth];
    let a = authority.issue(&["a.stack.server.graft", "a.example.org"], 2, &usages);
    let tls = Tls::from_pem(authority.pem().as_bytes(), a.certificate.as_bytes(), a.key.as_bytes())
        .unwrap();
    for (names, words) in [
        (&["example.org"][..], &["`example.org`", "names no server or client", "NAME.stack"][..]),
        (&[], &["nobody", "names no server or client"]),
        (&["b.c.stack.server.graft"], &["names no server or client"]),
        (
            &["b.stack.server.graft", "c.stack.server.graft"],
            &["server `b`", "server `c`", "issue one for each"],
        ),
        (&["b.stack.server.graft", "b.stack.client.graft"], &["server `b`", "client `b`"]),
    ] {
        let made = authority.issue(names, 3, &usages);
        says(&refusal_of(&tls, &made.certificate, &made.key).await, words);
        let own = TlsBuilder::from_pem(
            authority.pem().as_bytes(),
            made.certificate.as_bytes(),
            made.key.as_bytes(),
        );
        // Who has such a certificate does not even start.
        let refusal = own_refusal(own.build().unwrap_err());
        assert!(matches!(refusal, Refusal::Unnamed { .. } | Refusal::Ambiguous { .. }));
    }
}

#[tokio::test]
async fn a_certificate_that_may_not_dial_is_refused() {
    let authority = Custom::new("authority");
    let a = authority.issue(&["a.stack.server.graft"], 2, &[ServerAuth, ClientAuth]);
    let tls = Tls::from_pem(authority.pem().as_bytes(), a.certificate.as_bytes(), a.key.as_bytes())
        .unwrap();
    let b = authority.issue(&["b.stack.server.graft"], 3, &[ServerAuth]);
    let text = refusal_of(&tls, &b.certificate, &b.key).await;
    says(&text, &["server `b`", "does not allow TLS client authentication"]);
}

#[tokio::test]
async fn who_shows_no_certificate_is_refused() {
    let tls = server(&Authority::new("stack").unwrap(), "a");
    let met = meet(accepting(&tls), raw::dialing(CLIENT, None)).await;
    says(&met.refused_by_acceptor().await, &["no certificates"]);
}

#[tokio::test]
async fn who_speaks_another_protocol_is_refused() {
    let authority = Authority::new("stack").unwrap();
    let b = authority.server("b").unwrap();
    let shown = Some((b.certificate_pem(), b.key_pem()));
    let met = meet(accepting(&server(&authority, "a")), raw::dialing(b"graft-peer/2", shown)).await;
    says(&met.refused_by_acceptor().await, &["protocol"]);
}

#[tokio::test]
async fn a_client_is_no_peer() {
    let authority = Authority::new("stack").unwrap();
    let tls = server(&authority, "a");
    let c = authority.client("c").unwrap();
    let shown = Some((c.certificate_pem(), c.key_pem()));
    let (_dialer, acceptor, _keep) = meet(accepting(&tls), raw::dialing(PEER, shown)).await.both();
    let refusal = tls.certified_peer(&acceptor).unwrap_err();
    assert_eq!(certified_name(&acceptor).unwrap_err(), refusal);
    says(&refusal.to_string(), &["client `c` of cluster `stack`", "a server is due"]);
    assert_eq!(refusal, Refusal::WrongRole { found: c.name().clone(), expected: Role::Server });
    let error = client(&authority, "c").client_crypto(Alpn::Peer, None).err().unwrap();
    assert!(matches!(error, TlsError::WrongOwnRole { .. }), "{error}");
}

#[tokio::test]
async fn a_server_may_ask_as_a_client_does() {
    let authority = Authority::new("stack").unwrap();
    let (a, b) = (server(&authority, "a"), server(&authority, "b"));
    let (_dialer, acceptor, _keep) =
        meet(accepting(&a), dialing(&b, Alpn::Client, None)).await.both();
    let seen = a.certified_peer(&acceptor).unwrap();
    assert_eq!((seen.certified_name(), seen.alpn()), (b.identity(), Alpn::Client));
}

#[tokio::test]
async fn a_client_accepts_no_connections() {
    let authority = Authority::new("stack").unwrap();
    let error = client(&authority, "c").server_crypto().err().unwrap();
    says(&error.to_string(), &["client `c`", "accept connections", "server certificate"]);
}

/// Whether a dialer that was there before could send early data, by the ticket of its former session.
async fn resumes(acceptor: ServerConfig, dialer: ClientConfig) -> bool {
    let listening = listen(acceptor);
    let (former, accepted, _keep) = meet_at(&listening, dialer.clone()).await.both();
    // A ticket comes before the first data.
    let mut send = accepted.open_uni().await.unwrap();
    send.write_all(b"x").await.unwrap();
    send.finish().unwrap();
    let mut receive = former.accept_uni().await.unwrap();
    assert_eq!(receive.read_to_end(8).await.unwrap(), b"x");
    let calling = Endpoint::client(loopback()).unwrap();
    let address = listening.local_addr().unwrap();
    calling.connect_with(dialer, address, SERVER_NAME).unwrap().into_0rtt().is_ok()
}

#[tokio::test]
async fn each_connection_is_checked_in_full() {
    let authority = Authority::new("stack").unwrap();
    let tls = server(&authority, "a");
    let b = authority.server("b").unwrap();
    let ruleless = || raw::accepting(b.certificate_pem(), b.key_pem());
    let shown = Some((b.certificate_pem(), b.key_pem()));
    assert!(resumes(ruleless(), raw::dialing(PEER, shown)).await, "the test sees no resumption");
    assert!(!resumes(ruleless(), dialing(&tls, Alpn::Peer, Some("b"))).await);
    assert!(!resumes(accepting(&tls), raw::dialing(PEER, shown)).await);
}

#[tokio::test]
async fn a_certificate_behind_an_authority_below_is_followed() {
    let root = Custom::new("root");
    let below = root.below("below", 7);
    let made = ["a", "b"].map(|name| {
        below.issue(&[&format!("{name}.stack.server.graft")], 2, &[ServerAuth, ClientAuth])
    });
    let [a, b] = made.map(|made| {
        let chain = format!("{}{}", made.certificate, below.pem());
        Tls::from_pem(root.pem().as_bytes(), chain.as_bytes(), made.key.as_bytes()).unwrap()
    });
    let (_dialer, acceptor, _keep) =
        meet(accepting(&a), dialing(&b, Alpn::Peer, Some("a"))).await.both();
    let peer = a.certified_peer(&acceptor).unwrap();
    // The root's list ends all that the authority below has issued.
    a.revoke(root.list(&[7], now() + DAY).as_bytes()).unwrap();
    assert!(matches!(a.still_valid(&peer), Err(Refusal::Revoked { .. })));
}

#[tokio::test]
async fn a_certificate_that_expires_while_it_is_used_is_found() {
    let authority = Authority::new("stack").unwrap();
    let end = now() + DAY;
    let authority = authority.valid_between(at(now() - DAY), at(end));
    let clock = Clock::showing(now());
    let a = authority.server("a").unwrap();
    let a = builder(authority.certificate_pem(), &a).clock(clock.clone()).build().unwrap();
    assert_eq!(a.expires(), at(end));
    let b = server(&authority, "b");
    let listening = listen(accepting(&a));
    let (_dialer, acceptor, _keep) =
        meet_at(&listening, dialing(&b, Alpn::Peer, Some("a"))).await.both();
    let peer = a.certified_peer(&acceptor).unwrap();
    clock.set(end);
    assert_eq!(a.still_valid(&peer), Ok(()));
    clock.set(end + 1);
    assert!(matches!(a.still_valid(&peer), Err(Refusal::Expired { .. })));
    let met = meet_at(&listening, dialing(&b, Alpn::Peer, Some("a"))).await;
    says(&met.refused_by_acceptor().await, &["server `b`", "expired on"]);
}
