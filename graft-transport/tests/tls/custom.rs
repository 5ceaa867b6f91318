//! An authority made by other means: certificates with any names, usages and dates.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SerialNumber, date_time_ymd,
};

pub(crate) use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};

/// An authority, which may be one below another.
pub(crate) struct Custom(CertifiedIssuer<'static, KeyPair>);

/// A certificate, its key, and what a list would call it.
pub(crate) struct Made {
    pub(crate) certificate: String,
    pub(crate) key: String,
    pub(crate) serial: u64,
}

fn authority_params(name: &str, serial: u64) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from(serial));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

impl Custom {
    pub(crate) fn new(name: &str) -> Self {
        let params = authority_params(name, 1);
        Custom(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// An authority below this one.
    pub(crate) fn below(&self, name: &str, serial: u64) -> Self {
        let params = authority_params(name, serial);
        let key = KeyPair::generate().unwrap();
        Custom(CertifiedIssuer::signed_by(params, key, &self.0).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn issue(
        &self,
        names: &[&str],
        serial: u64,
        usages: &[ExtendedKeyUsagePurpose],
    ) -> Made {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.serial_number = Some(SerialNumber::from(serial));
        params.extended_key_usages = usages.to_vec();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap().pem();
        Made { certificate, key: key.serialize_pem(), serial }
    }

    /// A list that revokes these and was to be renewed until `next_update`, in seconds since 1970.
    pub(crate) fn list(&self, serials: &[u64], next_update: u64) -> String {
        let long_ago = date_time_ymd(1990, 1, 1);
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: long_ago,
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: long_ago,
            next_update: date_time_ymd(1970, 1, 1) + Duration::from_secs(next_update),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.0).unwrap().pem().unwrap()
    }
}
