//! Certificates that change under a running endpoint.

use std::fs;

use graft_transport::certs::Authority;
use graft_transport::quic::tls::{Alpn, Refusal, Tls, TlsBuilder, TlsError};
use tempfile::TempDir;

use crate::common::{
    DAY, accepting, at, client, dialing, listen, meet_at, now, own_refusal, says, server,
};

/// Server `a`, from files.
fn from_files(directory: &TempDir) -> Tls {
    let file = |name: &str| directory.path().join(name);
    Tls::from_files(file("ca.pem"), file("a.pem"), file("a-key.pem")).unwrap()
}

fn set_up() -> (TempDir, Authority, Tls) {
    let directory = TempDir::new().unwrap();
    let authority = Authority::open(&directory, "stack").unwrap();
    authority.server("a").unwrap().write_to(&directory).unwrap();
    let tls = from_files(&directory);
    (directory, authority, tls)
}

#[tokio::test]
async fn new_handshakes_on_the_same_endpoint_see_the_renewed_certificate() {
    let (directory, authority, a) = set_up();
    let c = client(&authority, "c");
    let listening = listen(accepting(&a));
    let config = dialing(&c, Alpn::Client, None);
    let (before, _acceptor, _keep) = meet_at(&listening, config.clone()).await.both();
    let mut changed = a.changed();

    let authority = authority.valid_between(at(now() - DAY), at(now() + 7 * DAY));
    authority.server("a").unwrap().replace_in(&directory).unwrap();
    a.reload().unwrap();
    assert!(changed.has_changed().unwrap());
    assert_eq!(*changed.borrow_and_update(), 1);
    assert!(a.expires() <= at(now() + 7 * DAY));

    let (after, _acceptor, _keep) = meet_at(&listening, config).await.both();
    assert!(before.close_reason().is_none(), "a reload ended a connection");
    let identity = |connection: &quinn::Connection| {
        let chain = connection.peer_identity().unwrap();
        chain.downcast::<Vec<rustls_pki_types::CertificateDer<'static>>>().unwrap()
    };
    assert_ne!(identity(&before), identity(&after));
    assert_eq!(c.still_valid(&c.certified_peer(&before).unwrap()), Ok(()));
}

#[tokio::test]
async fn a_reload_that_fails_changes_nothing_and_says_why() {
    let (directory, authority, a) = set_up();
    let c = client(&authority, "c");
    let listening = listen(accepting(&a));
    let expires = a.expires();
    let changed = a.changed();
    let path = |name: &str| directory.path().join(name);
    let good = ["ca.pem", "a.pem", "a-key.pem"].map(|name| (name, fs::read(path(name)).unwrap()));

    let other = authority.server("a").unwrap();
    let renamed = authority.server("b").unwrap();
    let expired = authority.valid_between(at(now() - 2 * DAY), at(now() - DAY));
    let expired = expired.server("a").unwrap();
    let foreign = Authority::new("stack").unwrap();
    type Spoil<'a> = (&'a [(&'a str, &'a str)], fn(&TlsError) -> bool);
    let spoilt: &[Spoil<'_>] = &[
        (&[("a.pem", "garbage")], |error| matches!(error, TlsError::Garbage { .. })),
        (&[("ca.pem", "")], |error| matches!(error, TlsError::Garbage { .. })),
        (&[("a.pem", other.certificate_pem())], |error| {
            matches!(error, TlsError::KeyMismatch { .. })
        }),
        (&[("a.pem", renamed.certificate_pem()), ("a-key.pem", renamed.key_pem())], |error| {
            matches!(error, TlsError::OtherIdentity { .. })
        }),
        (&[("a.pem", expired.certificate_pem()), ("a-key.pem", expired.key_pem())], |error| {
            matches!(error, TlsError::OwnCertificate { source, .. }
                if matches!(**source, Refusal::Expired { .. }))
        }),
        (&[("ca.pem", foreign.certificate_pem())], |error| {
            matches!(error, TlsError::OwnCertificate { .. })
        }),
    ];
    for (files, is_expected) in spoilt {
        for (name, pem) in *files {
            fs::write(path(name), pem).unwrap();
        }
        let error = a.reload().unwrap_err();
        assert!(is_expected(&error), "{error}");
        says(&error.to_string(), &[&path(files[0].0).display().to_string()]);
        for (name, pem) in &good {
            fs::write(path(name), pem).unwrap();
        }
    }
    fs::remove_file(path("a-key.pem")).unwrap();
    assert!(matches!(a.reload(), Err(TlsError::Missing { .. })));

    assert!(!changed.has_changed().unwrap(), "a failed reload counted");
    assert_eq!(a.expires(), expires);
    let (dialer, acceptor, _keep) =
        meet_at(&listening, dialing(&c, Alpn::Client, Some("a"))).await.both();
    assert_eq!(c.certified_peer(&dialer).unwrap().name(), "a");
    assert_eq!(a.certified_peer(&acceptor).unwrap().name(), "c");
}

#[tokio::test]
async fn an_authority_is_replaced_by_way_of_trusting_both() {
    let (directory, old, a) = set_up();
    let new = Authority::new("stack").unwrap();
    let listening = listen(accepting(&a));
    let both = format!("{}{}", old.certificate_pem(), new.certificate_pem());
    fs::write(directory.path().join("ca.pem"), &both).unwrap();
    a.reload().unwrap();
    let clients = [&old, &new].map(|authority| {
        let issued = authority.client("c").unwrap();
        crate::common::builder(&both, &issued).build().unwrap()
    });
    let mut peers = Vec::new();
    for client in &clients {
        let met = meet_at(&listening, dialing(client, Alpn::Client, Some("a"))).await;
        let (dialer, acceptor, keep) = met.both();
        peers.push((a.certified_peer(&acceptor).unwrap(), dialer, acceptor, keep));
    }
    new.server("a").unwrap().replace_in(&directory).unwrap();
    fs::write(directory.path().join("ca.pem"), new.certificate_pem()).unwrap();
    a.reload().unwrap();
    assert!(matches!(a.still_valid(&peers[0].0), Err(Refusal::ForeignAuthority { .. })));
    assert_eq!(a.still_valid(&peers[1].0), Ok(()));
    let met = meet_at(&listening, dialing(&clients[0], Alpn::Client, Some("a"))).await;
    says(&met.refused_by_acceptor().await, &["not issued by the authority"]);
}

#[test]
fn an_identity_from_memory_is_replaced_not_reloaded() {
    let authority = Authority::new("stack").unwrap();
    let a = server(&authority, "a");
    assert!(matches!(a.reload(), Err(TlsError::NotFromFiles)));
    let pems = |authority: &Authority, name: &str| {
        let issued = authority.server(name).unwrap();
        [authority.certificate_pem(), issued.certificate_pem(), issued.key_pem()]
            .map(|pem| pem.as_bytes().to_vec())
    };
    let next = Authority::new("stack").unwrap();
    let [ca, certificate, key] = pems(&next, "a");
    a.replace(&ca, &certificate, &key).unwrap();
    assert_eq!(*a.changed().borrow(), 1);
    let [ca, certificate, key] = pems(&next, "b");
    let error = a.replace(&ca, &certificate, &key).unwrap_err();
    says(&error.to_string(), &["server `b`", "server `a`", "restart"]);
    let mismatched = a.replace(&ca, authority.certificate_pem().as_bytes(), &key).unwrap_err();
    assert!(matches!(mismatched, TlsError::KeyMismatch { .. }), "{mismatched}");
    let of_old = TlsBuilder::from_pem(&ca, pems(&authority, "a")[1].as_slice(), &key).build();
    assert!(matches!(of_old, Err(TlsError::KeyMismatch { .. })));
    let [_, certificate, key] = pems(&authority, "a");
    let refusal = own_refusal(a.replace(&ca, &certificate, &key).unwrap_err());
    assert!(matches!(refusal, Refusal::ForeignAuthority { .. }));
}
