//! Development certificates in a directory.

use std::fs;
use std::path::Path;

use graft_transport::certs::{Authority, CertsError};
use graft_transport::quic::tls::{Tls, TlsError};
use tempfile::TempDir;

use crate::common::{DAY, at, now, says};

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn names_that_are_no_labels_are_refused() {
    let authority = Authority::new("stack").unwrap();
    for name in ["", "a.b", "a b", "../a", "-a", "a-", "ä", &"a".repeat(64)] {
        for made in [
            Authority::new(name).map(drop),
            authority.server(name).map(drop),
            authority.client(name).map(drop),
        ] {
            let error = made.unwrap_err();
            assert!(matches!(error, CertsError::Name(TlsError::BadName { .. })), "{error}");
            says(&error.to_string(), &["1 to 63 letters"]);
        }
    }
}

#[test]
fn an_authority_that_is_there_is_used_again() {
    let directory = TempDir::new().unwrap();
    let first = Authority::open(directory.path().join("new/certs"), "stack").unwrap();
    let again = Authority::open(directory.path().join("new/certs"), "stack").unwrap();
    assert_eq!(first.certificate_pem(), again.certificate_pem());
    let (a, b) = (first.server("a").unwrap(), again.server("b").unwrap());
    for issued in [&a, &b] {
        let ca = again.certificate_pem().as_bytes();
        let made = (issued.certificate_pem().as_bytes(), issued.key_pem().as_bytes());
        assert_eq!(Tls::from_pem(ca, made.0, made.1).unwrap().identity(), issued.name());
    }
    let error = Authority::open(directory.path().join("new/certs"), "queue").unwrap_err();
    says(&error.to_string(), &["cluster `stack`", "`queue`", "directory of its own"]);
}

#[test]
fn an_authority_that_is_spoilt_is_refused_and_left_alone() {
    let good = TempDir::new().unwrap();
    let other = TempDir::new().unwrap();
    Authority::open(&good, "stack").unwrap();
    Authority::open(&other, "stack").unwrap();
    let leaf = Authority::load(&good).unwrap().unwrap().server("a").unwrap();
    let read = |name: &str| fs::read_to_string(other.path().join(name)).unwrap();
    for (name, pem, word) in [
        ("ca-key.pem", Some(read("ca-key.pem")), "does not belong"),
        ("ca.pem", Some(read("ca.pem")), "does not belong"),
        ("ca.pem", Some("garbage".to_owned()), "PEM certificate"),
        ("ca-key.pem", Some("garbage".to_owned()), "PEM private key"),
        ("ca.pem", Some(leaf.certificate_pem().to_owned()), "not made by graft"),
        ("ca.pem", None, "no file"),
        ("ca-key.pem", None, "no file"),
    ] {
        let path = good.path().join(name);
        let kept = fs::read(&path).unwrap();
        match &pem {
            Some(pem) => fs::write(&path, pem).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let error = Authority::open(&good, "stack").unwrap_err();
        assert!(matches!(error, CertsError::NoAuthority(_)), "{error}");
        says(&error.to_string(), &[word]);
        assert_eq!(path.exists(), pem.is_some(), "it was written over");
        fs::write(&path, kept).unwrap();
    }
    Authority::open(&good, "stack").unwrap();
}

#[test]
fn nothing_is_overwritten_unless_asked_for() {
    let directory = TempDir::new().unwrap();
    let authority = Authority::open(&directory, "stack").unwrap();
    let issued = authority.server("a").unwrap();
    let written = issued.write_to(&directory).unwrap();
    let before = fs::read(&written.key).unwrap();
    let again = authority.server("a").unwrap();
    let error = again.write_to(&directory).unwrap_err();
    says(&error.to_string(), &["is there already", "not overwritten"]);
    assert!(matches!(authority.write_to(&directory), Err(CertsError::Exists { .. })));
    fs::remove_file(&written.key).unwrap();
    let error = again.write_to(&directory).unwrap_err();
    assert!(matches!(error, CertsError::Exists { path } if path == written.certificate));
    assert!(!written.key.exists(), "a new key lies beside an old certificate");
    again.replace_in(&directory).unwrap();
    assert_ne!(fs::read(&written.key).unwrap(), before);
    assert_eq!(names(directory.path()), ["a-key.pem", "a.pem", "ca-key.pem", "ca.pem"]);
}

#[cfg(unix)]
#[test]
fn keys_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt;

    let directory = TempDir::new().unwrap();
    let authority = Authority::open(&directory, "stack").unwrap();
    authority.server("a").unwrap().write_to(&directory).unwrap();
    authority.client("b").unwrap().replace_in(&directory).unwrap();
    authority.client("b").unwrap().replace_in(&directory).unwrap();
    for key in ["ca-key.pem", "a-key.pem", "b-key.pem"] {
        let mode = fs::metadata(directory.path().join(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
}

#[test]
fn names_whose_files_are_taken_are_refused() {
    let directory = TempDir::new().unwrap();
    let authority = Authority::open(&directory, "stack").unwrap();
    for name in ["ca", "CA", "crl", "a-key"] {
        let issued = authority.server(name).unwrap();
        for made in [issued.write_to(&directory), issued.replace_in(&directory)] {
            assert!(matches!(made, Err(CertsError::Reserved { .. })), "{name}");
        }
    }
    assert_eq!(names(directory.path()), ["ca-key.pem", "ca.pem"]);
}

#[test]
fn a_certificate_is_good_for_a_year_unless_said_otherwise() {
    let authority = Authority::new("stack").unwrap();
    let expires = |authority: &Authority| {
        let issued = authority.server("a").unwrap();
        let ca = authority.certificate_pem().as_bytes();
        let made = (issued.certificate_pem().as_bytes(), issued.key_pem().as_bytes());
        Tls::from_pem(ca, made.0, made.1).unwrap().expires()
    };
    let year = expires(&authority);
    assert!(year > at(now() + 364 * DAY) && year <= at(now() + 365 * DAY));
    let end = now() + 3 * DAY;
    let authority = authority.valid_between(at(now()), at(end));
    assert_eq!(expires(&authority), at(end));
    let authority = authority.valid_between(at(end), at(end));
    assert!(matches!(authority.server("a"), Err(CertsError::Validity)));
    let authority = authority.valid_between(at(end), at(253_402_300_800));
    assert!(matches!(authority.server("a"), Err(CertsError::Validity)));
}

#[test]
fn only_what_an_authority_has_issued_can_it_revoke() {
    let directory = TempDir::new().unwrap();
    let authority = Authority::open(&directory, "stack").unwrap();
    let foreign = Authority::new("stack").unwrap();
    foreign.server("a").unwrap().write_to(&directory).unwrap();
    let error = authority.revoke_in(&directory, &["a"]).unwrap_err();
    says(&error.to_string(), &["another authority"]);
    let error = authority.revoke_in(&directory, &["b"]).unwrap_err();
    says(&error.to_string(), &["no file", "b.pem"]);
    let former = foreign.revoke([], None).unwrap();
    let error = authority.revoke([], Some(&former)).unwrap_err();
    says(&error.to_string(), &["former list", "another authority"]);
    assert!(!directory.path().join("crl.pem").exists());
}
