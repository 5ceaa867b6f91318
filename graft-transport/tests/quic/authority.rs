//! The authority of these tests: certificates made to order, wrong ones too.

use std::{
    collections::BTreeMap,
    sync::{Mutex, OnceLock},
};

use graft_transport::quic::tls::{CertifiedName, Tls};
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
        let authority = authority().pem();
        let certificate = self.certificate.pem();
        Tls::from_pem(authority.as_bytes(), certificate.as_bytes(), self.key_pem.as_bytes())
            .unwrap()
    }
}

fn authority() -> &'static CertifiedIssuer<'static, KeyPair> {
    static AUTHORITY: OnceLock<CertifiedIssuer<'static, KeyPair>> = OnceLock::new();
    AUTHORITY.get_or_init(|| {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    })
}

/// The certificate of this name: the same with the same key each time, as from files.
fn issued(name: &CertifiedName) -> Issued {
    static ISSUED: Mutex<BTreeMap<String, Issued>> = Mutex::new(BTreeMap::new());
    let mut issued = ISSUED.lock().unwrap();
    let serial = issued.len() as u64 + 1;
    issued.entry(name.dns_name()).or_insert_with_key(|name| issue(name, serial)).clone()
}

fn issue(dns_name: &str, serial: u64) -> Issued {
    let mut params = CertificateParams::new(vec![dns_name.to_owned()]).unwrap();
    params.serial_number = Some(SerialNumber::from(serial));
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority()).unwrap();
    Issued { certificate, key_pem: key.serialize_pem(), key_der: key.serialize_der(), serial }
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
