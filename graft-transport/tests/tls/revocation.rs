//! Certificates that their authority takes back.

use graft_transport::certs::Authority;
use graft_transport::quic::tls::{Alpn, Refusal, Tls, TlsBuilder, TlsError, TlsWarning};
use tempfile::TempDir;

use crate::common::{DAY, accepting, client, dialing, listen, meet_at, now, says, server};
use crate::custom::{ClientAuth, Custom, ServerAuth};

#[tokio::test]
async fn a_reload_ends_the_revoked_and_spares_the_others() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name);
    let authority = Authority::open(&directory, "stack").unwrap();
    for name in ["a", "b", "c"] {
        authority.server(name).unwrap().write_to(&directory).unwrap();
    }
    let list = authority.revoke_in(&directory, &[]).unwrap();
    let load = |name: &str| {
        let key = path(&format!("{name}-key.pem"));
        let files = TlsBuilder::from_files(path("ca.pem"), path(&format!("{name}.pem")), key);
        files.revocation_file(&list).build().unwrap()
    };
    let (a, b, c) = (load("a"), load("b"), load("c"));
    let listening = listen(accepting(&a));
    let mut changed = a.changed();
    let mut met = Vec::new();
    for dialer in [&b, &c] {
        let met_one = meet_at(&listening, dialing(dialer, Alpn::Peer, Some("a"))).await;
        let (dialer, acceptor, keep) = met_one.both();
        met.push((a.certified_peer(&acceptor).unwrap(), dialer, acceptor, keep));
    }

    authority.revoke_in(&directory, &["b"]).unwrap();
    a.reload().unwrap();
    changed.changed().await.unwrap();
    let names = a.still_valid(&met[0].0).unwrap_err();
    assert!(matches!(names, Refusal::Revoked { .. }), "{names}");
    assert_eq!(a.still_valid(&met[1].0), Ok(()));

    let again = meet_at(&listening, dialing(&b, Alpn::Peer, Some("a"))).await;
    let text = again.refused_by_acceptor().await;
    says(&text, &["server `b` of cluster `stack`", "revoked by its authority", "issue a new one"]);
    meet_at(&listening, dialing(&c, Alpn::Peer, Some("a"))).await.both();

    // The list grows, and whom it names may come again with another certificate.
    authority.revoke_in(&directory, &["c"]).unwrap();
    authority.server("b").unwrap().replace_in(&directory).unwrap();
    a.reload().unwrap();
    b.reload().unwrap();
    assert!(a.still_valid(&met[0].0).is_err());
    assert!(a.still_valid(&met[1].0).is_err());
    meet_at(&listening, dialing(&b, Alpn::Peer, Some("a"))).await.both();
}

#[tokio::test]
async fn a_dialer_refuses_the_revoked_too() {
    let authority = Authority::new("stack").unwrap();
    let issued = authority.server("a").unwrap();
    let a = crate::common::builder(authority.certificate_pem(), &issued).build().unwrap();
    let c = client(&authority, "c");
    let list = authority.revoke([issued.certificate_pem()], None).unwrap();
    c.revoke(list.as_bytes()).unwrap();
    let listening = listen(accepting(&a));
    let met = meet_at(&listening, dialing(&c, Alpn::Client, None)).await;
    says(&met.refused_by_dialer().await, &["server `a`", "revoked"]);
    // Undone, it is let in.
    c.revoke(b"").unwrap();
    meet_at(&listening, dialing(&c, Alpn::Client, None)).await.both();
}

#[tokio::test]
async fn each_of_several_lists_counts() {
    let authority = Custom::new("authority");
    let usages = [ServerAuth, ClientAuth];
    let [a, b, c] = [("a", 11), ("b", 12), ("c", 13)].map(|(name, serial)| {
        let made = authority.issue(&[&format!("{name}.stack.server.graft")], serial, &usages);
        assert_eq!(made.serial, serial);
        let ca = authority.pem();
        Tls::from_pem(ca.as_bytes(), made.certificate.as_bytes(), made.key.as_bytes()).unwrap()
    });
    let far = now() + DAY;
    let lists = format!("{}{}", authority.list(&[12], far), authority.list(&[13], far));
    a.revoke(lists.as_bytes()).unwrap();
    let listening = listen(accepting(&a));
    for dialer in [&b, &c] {
        let met = meet_at(&listening, dialing(dialer, Alpn::Peer, Some("a"))).await;
        says(&met.refused_by_acceptor().await, &["revoked"]);
    }
}

#[tokio::test]
async fn a_list_past_its_date_still_revokes_and_is_warned_of() {
    let authority = Custom::new("authority");
    let usages = [ServerAuth, ClientAuth];
    let made = [("a", 11), ("b", 12)].map(|(name, serial)| {
        authority.issue(&[&format!("{name}.stack.server.graft")], serial, &usages)
    });
    let [a, b] = made.map(|made| {
        let ca = authority.pem();
        Tls::from_pem(ca.as_bytes(), made.certificate.as_bytes(), made.key.as_bytes()).unwrap()
    });
    a.revoke(authority.list(&[12], 951_782_400).as_bytes()).unwrap();
    let warnings = a.warnings();
    assert!(matches!(warnings[..], [TlsWarning::OldList { next_update: 951_782_400, .. }]));
    says(&warnings[0].to_string(), &["2000-02-29"]);
    let met = meet_at(&listen(accepting(&a)), dialing(&b, Alpn::Peer, Some("a"))).await;
    says(&met.refused_by_acceptor().await, &["revoked"]);
}

#[test]
fn ones_own_revocation_is_warned_of() {
    let authority = Authority::new("stack").unwrap();
    let issued = authority.server("a").unwrap();
    let a = crate::common::builder(authority.certificate_pem(), &issued).build().unwrap();
    let list = authority.revoke([issued.certificate_pem()], None).unwrap();
    a.revoke(list.as_bytes()).unwrap();
    assert!(matches!(a.warnings()[..], [TlsWarning::OwnRevoked { .. }]));
}

#[test]
fn a_list_of_another_authority_is_refused_and_changes_nothing() {
    let authority = Authority::new("stack").unwrap();
    let a = server(&authority, "a");
    let foreign = Authority::new("stack").unwrap().revoke([], None).unwrap();
    assert!(matches!(a.revoke(foreign.as_bytes()), Err(TlsError::ForeignList { .. })));
    assert!(matches!(a.revoke(b"garbage"), Err(TlsError::Garbage { .. })));
    let (own, forged) = (Custom::new("authority"), Custom::new("authority"));
    let made = own.issue(&["a.stack.server.graft"], 2, &[ServerAuth, ClientAuth]);
    let ca = own.pem();
    let custom =
        Tls::from_pem(ca.as_bytes(), made.certificate.as_bytes(), made.key.as_bytes()).unwrap();
    let list = forged.list(&[5], now() + DAY);
    assert!(matches!(custom.revoke(list.as_bytes()), Err(TlsError::ForeignList { .. })));
    assert_eq!((*a.changed().borrow(), *custom.changed().borrow()), (0, 0));
}
