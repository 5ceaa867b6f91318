//! What can be wrong with one's own files: each its own error, with the path.

use std::fs;
use std::path::{Path, PathBuf};

use graft_transport::certs::Authority;
use graft_transport::quic::tls::{Part, Refusal, Tls, TlsBuilder, TlsError, TlsWarning};
use tempfile::TempDir;

use crate::common::{DAY, at, chain, now, own_refusal, says};

/// The files of server `a`, good ones.
struct Files {
    authority: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    directory: TempDir,
}

impl Files {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let authority = Authority::open(&directory, "stack").unwrap();
        let written = authority.server("a").unwrap().write_to(&directory).unwrap();
        let path = directory.path().join("ca.pem");
        Files { authority: path, certificate: written.certificate, key: written.key, directory }
    }

    fn load(&self) -> Result<Tls, TlsError> {
        Tls::from_files(&self.authority, &self.certificate, &self.key)
    }

    fn authority(&self) -> Authority {
        Authority::load(&self.directory).unwrap().unwrap()
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn good_files_make_an_identity() {
    let tls = Files::new().load().unwrap();
    assert_eq!(tls.identity().to_string(), "server `a` of cluster `stack`");
    assert_eq!(tls.warnings(), []);
}

#[test]
fn a_missing_file_is_named() {
    for part in [Part::Authority, Part::Certificate, Part::Key] {
        let files = Files::new();
        let path = match part {
            Part::Authority => &files.authority,
            Part::Certificate => &files.certificate,
            _ => &files.key,
        };
        fs::remove_file(path).unwrap();
        let error = files.load().unwrap_err();
        says(&error.to_string(), &[&shown(path), &part.to_string(), "missing"]);
        assert!(matches!(error, TlsError::Missing { part: named, .. } if named == part));
    }
}

#[test]
fn an_unreadable_file_is_named_with_its_cause() {
    let files = Files::new();
    fs::remove_file(&files.key).unwrap();
    // A directory cannot be read as a file, not even by root.
    fs::create_dir(&files.key).unwrap();
    let error = files.load().unwrap_err();
    says(&chain(&error), &[&shown(&files.key), "private key", "cannot be read", "directory"]);
    assert!(matches!(error, TlsError::Unreadable { part: Part::Key, .. }));
}

#[test]
fn garbage_is_named_with_its_file() {
    let other_section = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
    let torn = "-----BEGIN CERTIFICATE-----\nAAAA\n";
    let no_certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let no_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    for garbage in ["", "garbage", "\0\u{1}", other_section, torn, no_certificate, no_key] {
        for part in [Part::Authority, Part::Certificate, Part::Key] {
            let files = Files::new();
            let path = match part {
                Part::Authority => &files.authority,
                Part::Certificate => &files.certificate,
                _ => &files.key,
            };
            fs::write(path, garbage).unwrap();
            let error = files.load().unwrap_err();
            says(&error.to_string(), &[&shown(path), &part.to_string(), "unusable"]);
            assert!(matches!(error, TlsError::Garbage { part: named, .. } if named == part));
        }
    }
}

#[test]
fn a_file_of_endless_size_is_not_read_to_its_end() {
    let files = Files::new();
    fs::File::options().write(true).open(&files.key).unwrap().set_len(1 << 40).unwrap();
    says(&files.load().unwrap_err().to_string(), &[&shown(&files.key), "larger than"]);
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let files = Files::new();
    let other = files.authority().server("b").unwrap().write_to(&files.directory).unwrap();
    let error = Tls::from_files(&files.authority, &files.certificate, &other.key).unwrap_err();
    says(&error.to_string(), &[&shown(&files.certificate), &shown(&other.key), "does not belong"]);
    assert!(matches!(error, TlsError::KeyMismatch { .. }));
}

#[test]
fn a_certificate_that_all_others_would_refuse_is_refused_at_once() {
    let files = Files::new();
    let fresh = TempDir::new().unwrap();
    let foreign = Authority::open(&fresh, "stack").unwrap();
    let foreign = foreign.server("a").unwrap().write_to(&fresh).unwrap();
    let error = Tls::from_files(&files.authority, &foreign.certificate, &foreign.key).unwrap_err();
    says(&chain(&error), &[&shown(&foreign.certificate), "not issued by the authority"]);
    assert!(matches!(own_refusal(error), Refusal::ForeignAuthority { .. }));

    for (begin, end) in [(now() - 2 * DAY, now() - DAY), (now() + DAY, now() + 2 * DAY)] {
        let authority = files.authority().valid_between(at(begin), at(end));
        authority.server("a").unwrap().replace_in(&files.directory).unwrap();
        let refusal = own_refusal(files.load().unwrap_err());
        let expected = if end < now() { "expired" } else { "not valid before" };
        says(&refusal.to_string(), &["server `a`", expected]);
    }
}

#[cfg(unix)]
#[test]
fn a_key_that_everyone_can_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt;

    let files = Files::new();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&files.key), 0o600);
    fs::set_permissions(&files.key, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(files.load().unwrap().warnings(), []);
    fs::set_permissions(&files.key, fs::Permissions::from_mode(0o644)).unwrap();
    let warnings = files.load().unwrap().warnings();
    let expected = TlsWarning::OpenKey { path: files.key.clone(), mode: 0o644 };
    says(&expected.to_string(), &[&shown(&files.key), "0644", "chmod 600"]);
    assert_eq!(warnings, [expected]);
}

#[test]
fn a_revocation_list_that_is_no_list_is_refused() {
    let files = Files::new();
    let path = files.directory.path().join("crl.pem");
    let load = || {
        TlsBuilder::from_files(&files.authority, &files.certificate, &files.key)
            .revocation_file(&path)
            .build()
    };
    assert!(matches!(load(), Err(TlsError::Missing { part: Part::RevocationList, .. })));
    fs::copy(&files.certificate, &path).unwrap();
    let error = load().unwrap_err();
    says(&error.to_string(), &[&shown(&path), "revocation list", "X509 CRL"]);
    let foreign = Authority::new("stack").unwrap().revoke([], None).unwrap();
    fs::write(&path, foreign).unwrap();
    let error = load().unwrap_err();
    says(&error.to_string(), &[&shown(&path), &shown(&files.authority), "would revoke nothing"]);
    assert!(matches!(error, TlsError::ForeignList { .. }));
}

#[test]
fn secrets_grow_from_the_key_alone() {
    let (files, other) = (Files::new(), Files::new());
    let tls = files.load().unwrap();
    let secret = tls.secret(b"x");
    assert_eq!(secret, files.load().unwrap().secret(b"x"));
    assert_ne!(secret, tls.secret(b"y"));
    assert_ne!(secret, other.load().unwrap().secret(b"x"));
    files.authority().server("a").unwrap().replace_in(&files.directory).unwrap();
    tls.reload().unwrap();
    assert_eq!(secret, tls.secret(b"x"), "a reload changes what the endpoint was made with");
    assert_ne!(secret, files.load().unwrap().secret(b"x"));
}
