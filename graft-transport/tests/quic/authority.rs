//! The authority of these tests: certificates made to order, wrong ones too.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Mutex, OnceLock},
};

use graft_transport::quic::tls::{CertifiedName, Tls, TlsBuilder};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SerialNumber, date_time_ymd,
};

pub(crate) const CLUSTER: &str = "test";

/// A certificate and its key.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) certificate: rcgen::Certificate,
    pub(crate) key_pem: String,
    pub(crate) key_der: Vec<u8>,
    serial: u64,
}

impl Issued {
    pub(crate) fn tls(&self) -> Tls {
        self.builder().build().unwrap()
    }

    pub(crate) fn builder(&self) -> TlsBuilder {
        let [authority, certificate, key] = self.pems(&pem());
        TlsBuilder::from_pem(&authority, &certificate, &key)
    }

    /// Puts this certificate and these authorities into force.
    pub(crate) fn replace_in(&self, tls: &Tls, authorities: &str) {
        let [authority, certificate, key] = self.pems(authorities);
        tls.replace(&authority, &certificate, &key).unwrap();
    }

    pub(crate) fn pems(&self, authorities: &str) -> [Vec<u8>; 3] {
        [authorities, &self.certificate.pem(), &self.key_pem].map(|pem| pem.as_bytes().to_vec())
    }
}

/// The authority's own certificate.
pub(crate) fn pem() -> String {
    authority().pem()
}

/// The certificate of the authority that comes after this one.
pub(crate) fn next_pem() -> String {
    next_authority().pem()
}

fn next_authority() -> &'static Authority {
    static NEXT: OnceLock<Authority> = OnceLock::new();
    NEXT.get_or_init(new_authority)
}

/// A certificate of this name by the authority that comes after this one.
pub(crate) fn by_next(name: &CertifiedName) -> Issued {
    issue_by(next_authority(), &name.dns_name(), STRANGERS, |_| {})
}

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(new_authority)
}

fn new_authority() -> Authority {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// The certificate of this name: the same with the same key each time, as from files.
fn issued(name: &CertifiedName) -> Issued {
    static ISSUED: Mutex<BTreeMap<String, Issued>> = Mutex::new(BTreeMap::new());
    let mut issued = ISSUED.lock().unwrap();
    let serial = issued.len() as u64 + 1;
    issued.entry(name.dns_name()).or_insert_with_key(|name| issue(name, serial)).clone()
}

fn issue(dns_name: &str, serial: u64) -> Issued {
    issue_by(authority(), dns_name, serial, |_| {})
}

fn issue_by(
    authority: &Authority,
    dns_name: &str,
    serial: u64,
    change: impl FnOnce(&mut CertificateParams),
) -> Issued {
    let mut params = CertificateParams::new(vec![dns_name.to_owned()]).unwrap();
    params.serial_number = Some(SerialNumber::from(serial));
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    Issued { certificate, key_pem: key.serialize_pem(), key_der: key.serialize_der(), serial }
}

/// Serial numbers of certificates that are made anew each time.
const STRANGERS: u64 = 1 << 32;

/// A certificate of this name by an authority that calls itself as the true one does.
pub(crate) fn foreign(name: &CertifiedName) -> Issued {
    issue_by(&new_authority(), &name.dns_name(), STRANGERS, |_| {})
}

/// Another certificate of this name, which is valid from the beginning of a year until that of another.
pub(crate) fn dated(name: &CertifiedName, years: Range<i32>) -> Issued {
    issue_by(authority(), &name.dns_name(), STRANGERS + 1, |params| {
        params.not_before = date_time_ymd(years.start, 1, 1);
        params.not_after = date_time_ymd(years.end, 1, 1);
    })
}

/// Another certificate of this name, which is good.
pub(crate) fn another(name: &CertifiedName) -> Issued {
    issue(&name.dns_name(), STRANGERS + 2)
}

pub(crate) fn server(name: &str) -> Issued {
    issued(&CertifiedName::server(name, CLUSTER).unwrap())
}

pub(crate) fn client(name: &str) -> Issued {
    issued(&CertifiedName::client(name, CLUSTER).unwrap())
}

/// The authority's word that this certificate is not to be trusted any more.
pub(crate) fn revocation_of(issued: &Issued) -> String {
    let revoked = RevokedCertParams {
        serial_number: SerialNumber::from(issued.serial),
        revocation_time: date_time_ymd(2024, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2024, 1, 1),
        next_update: date_time_ymd(2100, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![revoked],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    list.signed_by(authority()).unwrap().pem().unwrap()
}
