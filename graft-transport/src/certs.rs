//! Development certificates: an authority of one's own, in one call.
//!
//! ```
//! use graft_transport::{certs::Authority, quic::tls::Tls};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let authority = Authority::new("stack")?;
//! let server = authority.server("server1")?;
//! let tls = Tls::from_pem(
//!     authority.certificate_pem().as_bytes(),
//!     server.certificate_pem().as_bytes(),
//!     server.key_pem().as_bytes(),
//! )?;
//! assert_eq!(tls.identity().to_string(), "server `server1` of cluster `stack`");
//! # Ok(())
//! # }
//! ```
//!
//! In a directory they are `ca.pem` and `ca-key.pem` for the authority, `NAME.pem` and `NAME-key.pem` for
//! each server and client, and `crl.pem` for the list of what was revoked; keys are readable by their owner alone,
//! and nothing that is there is overwritten unless the call says so.
//!
//! Who has an authority already needs none of this: [`Tls`](crate::quic::tls::Tls) takes any
//! certificates with the right names.

mod files;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use webpki::{BorrowedCertRevocationList, EndEntityCert, anchor_from_trusted_cert};

use crate::quic::tls::{CertifiedName, Role, TlsError};

pub use files::Written;

const DAY: Duration = Duration::from_secs(86_400);
/// How long a certificate of a server or client is good.
const LEAF_VALIDITY: Duration = DAY.saturating_mul(365);
/// How long an authority is good.
const AUTHORITY_VALIDITY: Duration = DAY.saturating_mul(3_652);
/// How far before its making a certificate begins to be good: the clocks of other machines differ.
const BACKDATED: Duration = Duration::from_secs(3_600);
/// The end of the year 9999, beyond which no date can stand in a certificate.
const LAST_SECOND: u64 = 253_402_300_799;
/// What the subject of an authority begins with; its cluster and a part of its key's hash follow.
const SUBJECT: &str = "graft authority of cluster ";

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertsError {
    /// A name that cannot stand in a certificate.
    #[error(transparent)]
    Name(#[from] TlsError),
    /// A name whose files would be those of the authority.
    #[error(
        "`{name}` cannot have files of its own: `ca`, `crl` and names that end in `-key` are taken; choose another name"
    )]
    Reserved {
        /// The name.
        name: String,
    },
    /// A file is there already, and would have been overwritten.
    #[error(
        "`{path}` is there already and is not overwritten: remove it, or ask for it to be replaced"
    )]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A file could not be read or written.
    #[error("cannot {action} `{path}`; check the directory and its permissions")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// An authority that cannot be used again.
    #[error(
        "this is no authority that can issue certificates: {0}; bring back both its files, or begin in an empty directory"
    )]
    NoAuthority(String),
    /// The authority is of another cluster.
    #[error(
        "the authority is of cluster `{found}`, not of `{expected}`: give each cluster a directory of its own"
    )]
    OtherCluster {
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
    /// Dates between which nothing can be valid.
    #[error("a certificate must begin before it ends, after 1970 and before the year 10000")]
    Validity,
    /// A certificate or list that cannot be revoked, or added to.
    #[error("cannot revoke: {0}")]
    Revocation(String),
    /// The cryptography failed.
    #[error("the cryptography failed to make a certificate")]
    Generate(#[from] rcgen::Error),
}

/// An authority that issues the certificates of one cluster. Whoever has its key can be any server.
pub struct Authority {
    cluster: String,
    certificate_pem: String,
    key_pem: String,
    issuer: Issuer<'static, KeyPair>,
    validity: Option<(SystemTime, SystemTime)>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl Authority {
    /// A new authority of a cluster, good for ten years.
    ///
    /// # Errors
    ///
    /// [`CertsError::Name`] where the cluster's name is no label of a DNS name.
    pub fn new(cluster: &str) -> Result<Self, CertsError> {
        let key = KeyPair::generate()?;
        let now = SystemTime::now();
        let params = params(cluster, &key, now - BACKDATED, now + AUTHORITY_VALIDITY)?;
        let certificate_pem = params.self_signed(&key)?.pem();
        let key_pem = key.serialize_pem();
        let issuer = Issuer::new(params, key);
        let cluster = cluster.to_owned();
        Ok(Authority { cluster, certificate_pem, key_pem, issuer, validity: None })
    }

    /// An authority that [`Authority::new`] made, from its certificate and key.
    ///
    /// # Errors
    ///
    /// [`CertsError::NoAuthority`] where they are malformed, do not belong together, or were made otherwise.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, CertsError> {
        let bad = |problem: String| CertsError::NoAuthority(problem);
        let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|error| bad(format!("its certificate is no PEM certificate ({error})")))?;
        let anchor = anchor_from_trusted_cert(&der)
            .map_err(|error| bad(format!("its certificate is malformed ({error})")))?;
        let key = KeyPair::from_pem(key_pem)
            .map_err(|error| bad(format!("its key is no PEM private key ({error})")))?;
        let cluster = cluster_of(&anchor.subject)
            .ok_or_else(|| bad("it was not made by graft".to_owned()))?;
        let now = SystemTime::now();
        let params = params(&cluster, &key, now - BACKDATED, now + AUTHORITY_VALIDITY)?;
        // What this key would certify of itself shows whether the certificate is its own, and unaltered.
        let again = params.self_signed(&key)?;
        let expected = anchor_from_trusted_cert(again.der())
            .map_err(|error| bad(format!("its key makes no certificate ({error})")))?;
        if anchor.subject_public_key_info != expected.subject_public_key_info {
            return Err(bad("its key does not belong to its certificate".to_owned()));
        }
        if anchor.subject != expected.subject {
            return Err(bad("it was not made by graft".to_owned()));
        }
        Ok(Authority {
            cluster,
            certificate_pem: certificate_pem.to_owned(),
            key_pem: key_pem.to_owned(),
            issuer: Issuer::new(params, key),
            validity: None,
        })
    }

    /// When the certificates begin and end that are issued from now on; by default they begin an hour
    /// ago and end in a year.
    #[must_use]
    pub fn valid_between(mut self, begin: SystemTime, end: SystemTime) -> Self {
        self.validity = Some((begin, end));
        self
    }

    /// The cluster whose servers and clients it certifies.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The certificate, which every server and client trusts.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The private key, which no server and no client needs.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// A certificate for a server of the cluster, with a new key.
    ///
    /// # Errors
    ///
    /// [`CertsError::Name`] where the name is no label of a DNS name.
    pub fn server(&self, name: &str) -> Result<Issued, CertsError> {
        self.issue(CertifiedName::server(name, &self.cluster)?)
    }

    /// A certificate for a client of the cluster, with a new key.
    ///
    /// # Errors
    ///
    /// [`CertsError::Name`] where the name is no label of a DNS name.
    pub fn client(&self, name: &str) -> Result<Issued, CertsError> {
        self.issue(CertifiedName::client(name, &self.cluster)?)
    }

    /// A certificate for whomever, with a new key: also for another cluster that trusts this authority.
    ///
    /// # Errors
    ///
    /// [`CertsError::Validity`], and [`CertsError::Generate`].
    pub fn issue(&self, name: CertifiedName) -> Result<Issued, CertsError> {
        let now = SystemTime::now();
        let (begin, end) = self.validity.unwrap_or((now - BACKDATED, now + LEAF_VALIDITY));
        let mut params = CertificateParams::new(vec![name.dns_name()])?;
        let (begin, end) = validity(begin, end)?;
        let epoch = date_time_ymd(1970, 1, 1);
        (params.not_before, params.not_after) = (epoch + begin, epoch + end);
        params.distinguished_name = subject(name.name());
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // A server also dials other servers.
        params.extended_key_usages = match name.role() {
            Role::Server => {
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
            }
            Role::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        let key = KeyPair::generate()?;
        let certificate_pem = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Issued { name, certificate_pem, key_pem: key.serialize_pem() })
    }

    /// The list of revoked certificates (PEM): those of `former`, the list before it, and those given (PEM
    /// certificates of this authority). It is to be renewed within a year.
    ///
    /// # Errors
    ///
    /// [`CertsError::Revocation`] where a certificate or the former list is malformed or not of this authority.
    pub fn revoke<'a>(
        &self,
        certificates_pem: impl IntoIterator<Item = &'a str>,
        former: Option<&str>,
    ) -> Result<String, CertsError> {
        let now = since_1970(SystemTime::now())?;
        let epoch = date_time_ymd(1970, 1, 1);
        let mut revoked = former.map_or(Ok(Vec::new()), |list| self.revoked_by(list))?;
        for pem in certificates_pem {
            let serial_number = self.serial_of(pem)?;
            if revoked.iter().all(|entry| entry.serial_number != serial_number) {
                revoked.push(RevokedCertParams {
                    serial_number,
                    revocation_time: epoch + now,
                    reason_code: None,
                    invalidity_date: None,
                });
            }
        }
        let list = CertificateRevocationListParams {
            this_update: epoch + now.saturating_sub(BACKDATED),
            next_update: epoch + now + LEAF_VALIDITY,
            crl_number: SerialNumber::from(now.as_secs()),
            issuing_distribution_point: None,
            revoked_certs: revoked,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer)?.pem()?)
    }

    fn serial_of(&self, pem: &str) -> Result<SerialNumber, CertsError> {
        let bad = |error: &dyn fmt::Display| {
            CertsError::Revocation(format!("it is no PEM certificate ({error})"))
        };
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| bad(&error))?;
        let certificate = EndEntityCert::try_from(&der).map_err(|error| bad(&error))?;
        if self.own_subject()? != certificate.issuer() {
            return Err(CertsError::Revocation(
                "the certificate was issued by another authority, which has to revoke it"
                    .to_owned(),
            ));
        }
        Ok(SerialNumber::from_slice(certificate.serial()))
    }

    fn revoked_by(&self, former: &str) -> Result<Vec<RevokedCertParams>, CertsError> {
        let bad = |error: &dyn fmt::Display| {
            CertsError::Revocation(format!("the former list is no PEM revocation list ({error})"))
        };
        let der = CertificateRevocationListDer::from_pem_slice(former.as_bytes())
            .map_err(|error| bad(&error))?;
        let list = BorrowedCertRevocationList::from_der(&der).map_err(|error| bad(&error))?;
        let mut revoked = Vec::new();
        for entry in &list {
            let entry = entry.map_err(|error| bad(&error))?;
            let revoked_at = Duration::from_secs(entry.revocation_date.as_secs());
            revoked.push(RevokedCertParams {
                serial_number: SerialNumber::from_slice(entry.serial_number),
                revocation_time: date_time_ymd(1970, 1, 1) + revoked_at,
                reason_code: None,
                invalidity_date: None,
            });
        }
        let list = webpki::CertRevocationList::Borrowed(list);
        if self.own_subject()? != list.issuer() {
            return Err(CertsError::Revocation(
                "the former list is of another authority: keep the lists apart".to_owned(),
            ));
        }
        Ok(revoked)
    }

    fn own_subject(&self) -> Result<Vec<u8>, CertsError> {
        let bad = |error: &dyn fmt::Display| CertsError::NoAuthority(error.to_string());
        let der = CertificateDer::from_pem_slice(self.certificate_pem.as_bytes())
            .map_err(|error| bad(&error))?;
        let anchor = anchor_from_trusted_cert(&der).map_err(|error| bad(&error))?;
        Ok(anchor.subject.to_vec())
    }
}

/// A certificate with its private key.
pub struct Issued {
    name: CertifiedName,
    certificate_pem: String,
    key_pem: String,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Issued {
    /// Whom it names.
    pub fn name(&self) -> &CertifiedName {
        &self.name
    }

    /// The certificate.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The private key.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }
}

/// What an authority certifies of itself. Its subject follows from cluster and key, so that two authorities
/// of one cluster differ, and one that is read again can be recognised.
fn params(
    cluster: &str,
    key: &KeyPair,
    begin: SystemTime,
    end: SystemTime,
) -> Result<CertificateParams, CertsError> {
    CertifiedName::server("authority", cluster)?;
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    let (begin, end) = validity(begin, end)?;
    let epoch = date_time_ymd(1970, 1, 1);
    (params.not_before, params.not_after) = (epoch + begin, epoch + end);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let hash: String =
        params.key_identifier(key).iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    params.distinguished_name = subject(&format!("{SUBJECT}{cluster} {hash}"));
    Ok(params)
}

fn subject(common_name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, common_name);
    subject
}

/// The cluster in the subject of an authority's certificate, which is one text within a few bytes of frame.
fn cluster_of(subject: &[u8]) -> Option<String> {
    let subject = String::from_utf8_lossy(subject);
    let (_, rest) = subject.split_once(SUBJECT)?;
    let (cluster, _hash) = rest.split_once(' ')?;
    Some(cluster.to_owned())
}

/// How long after 1970 a certificate begins and ends.
fn validity(begin: SystemTime, end: SystemTime) -> Result<(Duration, Duration), CertsError> {
    let (begin, end) = (since_1970(begin)?, since_1970(end)?);
    if begin < end { Ok((begin, end)) } else { Err(CertsError::Validity) }
}

/// In whole seconds: certificates know no parts of them.
fn since_1970(time: SystemTime) -> Result<Duration, CertsError> {
    let since = time.duration_since(UNIX_EPOCH).map_err(|_| CertsError::Validity)?;
    let second = since.as_secs();
    if second > LAST_SECOND { Err(CertsError::Validity) } else { Ok(Duration::from_secs(second)) }
}
