//! Whom a dialer takes for the one it called, and whom it refuses.

use graft_transport::certs::{Authority, Issued};
use graft_transport::quic::tls::{Alpn, CertifiedName, TlsError};
use quinn::ServerConfig;

use crate::common::{DAY, accepting, at, client, dialing, meet, now, says, server};
use crate::custom::{ClientAuth, Custom, ServerAuth};
use crate::raw;

fn shown(issued: &Issued) -> ServerConfig {
    raw::accepting(issued.certificate_pem(), issued.key_pem())
}

#[tokio::test]
async fn another_server_than_the_one_called_is_refused() {
    let authority = Authority::new("stack").unwrap();
    let (a, b) = (server(&authority, "a"), server(&authority, "b"));
    let met = meet(accepting(&b), dialing(&a, Alpn::Peer, Some("c"))).await;
    let text = met.refused_by_dialer().await;
    says(
        &text,
        &["for server `b` of cluster `stack`", "address of server `c`", "check the address"],
    );
    let met = meet(accepting(&b), dialing(&a, Alpn::Peer, Some("B"))).await;
    says(&met.refused_by_dialer().await, &["server `b`", "server `B`"]);
    let c = client(&authority, "c");
    let met = meet(accepting(&b), dialing(&c, Alpn::Client, Some("a"))).await;
    says(&met.refused_by_dialer().await, &["server `b`", "server `a`"]);
}

#[tokio::test]
async fn a_client_that_answers_as_a_server_is_refused() {
    let authority = Authority::new("stack").unwrap();
    let tls = client(&authority, "c");
    // Its usage forbids it, and so does its name where the usage does not.
    let impostor = authority.client("a").unwrap();
    let text =
        meet(shown(&impostor), dialing(&tls, Alpn::Client, None)).await.refused_by_dialer().await;
    says(&text, &["for client `a` of cluster `stack`", "a server is due"]);

    let authority = Custom::new("authority");
    let usages = [ServerAuth, ClientAuth];
    let a = authority.issue(&["a.stack.client.graft"], 2, &usages);
    let c = authority.issue(&["c.stack.client.graft"], 3, &usages);
    let tls = graft_transport::quic::tls::Tls::from_pem(
        authority.pem().as_bytes(),
        c.certificate.as_bytes(),
        c.key.as_bytes(),
    )
    .unwrap();
    let acceptor = raw::accepting(&a.certificate, &a.key);
    let text = meet(acceptor, dialing(&tls, Alpn::Client, None)).await.refused_by_dialer().await;
    says(&text, &["for client `a` of cluster `stack`", "a server is due"]);
}

#[tokio::test]
async fn a_server_of_another_cluster_or_authority_is_refused() {
    let authority = Authority::new("stack").unwrap();
    let tls = client(&authority, "c");
    let other = authority.issue(CertifiedName::server("a", "queue").unwrap()).unwrap();
    let text =
        meet(shown(&other), dialing(&tls, Alpn::Client, None)).await.refused_by_dialer().await;
    says(&text, &["server `a` of cluster `queue`", "client `c`", "cluster `stack` alone"]);
    let foreign = Authority::new("stack").unwrap().server("a").unwrap();
    let text =
        meet(shown(&foreign), dialing(&tls, Alpn::Client, None)).await.refused_by_dialer().await;
    says(&text, &["server `a` of cluster `stack`", "not issued by the authority"]);
}

#[tokio::test]
async fn a_server_out_of_its_time_is_refused() {
    let authority = Authority::new("stack").unwrap();
    let tls = client(&authority, "c");
    let authority = authority.valid_between(at(now() - 2 * DAY), at(now() - DAY));
    let old = authority.server("a").unwrap();
    let text = meet(shown(&old), dialing(&tls, Alpn::Client, None)).await.refused_by_dialer().await;
    says(&text, &["server `a`", "expired on"]);
    let authority = authority.valid_between(at(now() + DAY), at(now() + 2 * DAY));
    let early = authority.server("a").unwrap();
    let text =
        meet(shown(&early), dialing(&tls, Alpn::Client, None)).await.refused_by_dialer().await;
    says(&text, &["server `a`", "not valid before"]);
}

#[test]
fn a_name_that_no_server_can_have_is_not_dialed() {
    let tls = server(&Authority::new("stack").unwrap(), "a");
    let error = tls.client_crypto(Alpn::Peer, Some("b.c")).err().unwrap();
    assert!(matches!(error, TlsError::BadName { .. }), "{error}");
}
