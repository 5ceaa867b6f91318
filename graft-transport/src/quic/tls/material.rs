//! From files or memory to an identity that is ready to be used: everything is checked here, once.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::{Error as RustlsError, InconsistentKeys};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, TrustAnchor, UnixTime,
};
use webpki::{CertRevocationList, ExpirationPolicy, OwnedCertRevocationList};

use super::trust::{self, Trust, Verdict};
use super::{CertifiedName, Part, Place, Refusal, Role, TlsError, TlsWarning};

/// No certificate, key or list of a cluster comes near this; what is larger is some other file.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// One part of an identity as it was read, and from where.
#[derive(Clone)]
pub(super) struct Piece {
    part: Part,
    place: Place,
    pem: Arc<[u8]>,
}

impl Piece {
    pub(super) fn memory(part: Part, pem: &[u8]) -> Self {
        Piece { part, place: Place::Memory, pem: pem.into() }
    }

    pub(super) fn read(part: Part, path: &Path) -> Result<Self, TlsError> {
        let unreadable = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => TlsError::Missing { part, path: path.to_owned() },
            _ => TlsError::Unreadable { part, path: path.to_owned(), source },
        };
        let file = File::open(path).map_err(unreadable)?;
        let mut pem = Vec::new();
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut pem).map_err(unreadable)?;
        let piece = Piece { part, place: Place::File(path.to_owned()), pem: pem.into() };
        if piece.pem.len() as u64 > MAX_FILE_BYTES {
            return Err(piece.garbage("the file is larger than 4 MiB".to_owned()));
        }
        Ok(piece)
    }

    /// The same piece as its file has it now; a piece from memory stays as it is.
    fn read_again(&self) -> Result<Self, TlsError> {
        match &self.place {
            Place::File(path) => Piece::read(self.part, path),
            Place::Memory => Ok(self.clone()),
        }
    }

    fn garbage(&self, problem: String) -> TlsError {
        TlsError::Garbage { part: self.part, place: self.place.clone(), problem }
    }

    /// All PEM sections of one kind.
    fn sections<T: PemObject>(&self, label: &str) -> Result<Vec<T>, TlsError> {
        T::pem_slice_iter(&self.pem)
            .collect::<Result<_, _>>()
            .map_err(|error| self.no_section(label, &error))
    }

    fn no_section(&self, label: &str, error: &pem::Error) -> TlsError {
        self.garbage(match error {
            pem::Error::NoItemsFound => format!("it has no PEM section `BEGIN {label}`"),
            other => format!("it is no PEM with a section `BEGIN {label}`: {other}"),
        })
    }
}

/// All parts of an identity as they were read.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) authority: Piece,
    pub(super) certificate: Piece,
    pub(super) key: Piece,
    /// The lists that were named when the identity was made.
    pub(super) lists: Vec<Piece>,
    /// The lists that came later, in memory.
    pub(super) revoked: Vec<Piece>,
}

impl Parts {
    pub(super) fn read_again(&self) -> Result<Self, TlsError> {
        Ok(Parts {
            authority: self.authority.read_again()?,
            certificate: self.certificate.read_again()?,
            key: self.key.read_again()?,
            lists: self.lists.iter().map(Piece::read_again).collect::<Result<_, _>>()?,
            revoked: self.revoked.clone(),
        })
    }

    pub(super) fn are_files(&self) -> bool {
        [&self.authority, &self.certificate, &self.key]
            .into_iter()
            .chain(&self.lists)
            .any(|piece| matches!(piece.place, Place::File(_)))
    }

    pub(super) fn certificate_place(&self) -> Place {
        self.certificate.place.clone()
    }

    /// The private key's bytes: what all of this identity's lasting secrets grow from.
    pub(super) fn key_bytes(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        const LABEL: &str = "PRIVATE KEY";
        PrivateKeyDer::from_pem_slice(&self.key.pem)
            .map_err(|error| self.key.no_section(LABEL, &error))
    }
}

/// An identity that is ready to be used, and whom it trusts.
#[derive(Debug)]
pub(super) struct Material {
    pub(super) name: CertifiedName,
    pub(super) certified: Arc<CertifiedKey>,
    pub(super) trust: Trust,
    /// The last second of one's own certificate, in seconds since 1970.
    pub(super) not_after: u64,
    pub(super) warnings: Vec<TlsWarning>,
}

impl Material {
    pub(super) fn new(
        parts: &Parts,
        provider: &CryptoProvider,
        now: UnixTime,
    ) -> Result<Self, TlsError> {
        let mut warnings = Vec::new();
        let mut trust = Trust {
            anchors: anchors(&parts.authority, now, &mut warnings)?,
            lists: Vec::new(),
            algorithms: provider.signature_verification_algorithms.all,
        };
        let certified = certified(parts, provider)?;
        let chain = &certified.cert;
        let (name, not_after) = own_name(chain, parts, &trust, now)?;
        for (list, piece) in lists(parts)? {
            check_list(&list, piece, &trust, parts, chain, now, &mut warnings)?;
            trust.lists.push(list);
        }
        warnings.extend(open_key(&parts.key.place));
        Ok(Material { name, certified: Arc::new(certified), trust, not_after, warnings })
    }
}

fn anchors(
    piece: &Piece,
    now: UnixTime,
    warnings: &mut Vec<TlsWarning>,
) -> Result<Vec<TrustAnchor<'static>>, TlsError> {
    const LABEL: &str = "CERTIFICATE";
    let certificates: Vec<CertificateDer<'static>> = piece.sections(LABEL)?;
    if certificates.is_empty() {
        return Err(piece.no_section(LABEL, &pem::Error::NoItemsFound));
    }
    let mut anchors = Vec::new();
    for certificate in &certificates {
        let anchor = webpki::anchor_from_trusted_cert(certificate)
            .map_err(|error| piece.garbage(format!("it is no authority's certificate: {error}")))?;
        anchors.push(anchor.to_owned());
        if let Some(not_after) = trust::not_after(certificate).filter(|end| *end < now.as_secs()) {
            warnings.push(TlsWarning::OldAuthority { place: piece.place.clone(), not_after });
        }
    }
    Ok(anchors)
}

/// Certificate and key, which belong together.
fn certified(parts: &Parts, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    const LABEL: &str = "CERTIFICATE";
    let piece = &parts.certificate;
    let chain: Vec<CertificateDer<'static>> = piece.sections(LABEL)?;
    let Some(leaf) = chain.first() else {
        return Err(piece.no_section(LABEL, &pem::Error::NoItemsFound));
    };
    trust::parse(leaf).map_err(|refusal| piece.garbage(refusal.to_string()))?;
    let key = parts.key_bytes()?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        RustlsError::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            TlsError::KeyMismatch { certificate: piece.place.clone(), key: parts.key.place.clone() }
        }
        other => {
            parts.key.garbage(format!("it is no ECDSA, Ed25519 or RSA key that can sign ({other})"))
        }
    })
}

/// Whom one's own certificate names, and its last second. It must be good enough for everyone who trusts the
/// same authority: a process that all others refuse had better not start.
fn own_name(
    chain: &[CertificateDer<'static>],
    parts: &Parts,
    trust: &Trust,
    now: UnixTime,
) -> Result<(CertifiedName, u64), TlsError> {
    let own = |source| TlsError::OwnCertificate {
        place: parts.certificate.place.clone(),
        authority: parts.authority.place.clone(),
        source: Box::new(source),
    };
    let leaf = chain.first().ok_or_else(|| own(Refusal::NoCertificate))?;
    let name = trust::parse(leaf).and_then(|leaf| trust::named(&leaf, "CLUSTER")).map_err(own)?;
    // A server also dials other servers.
    let uses: &[Role] = match name.role() {
        Role::Server => &[Role::Server, Role::Client],
        Role::Client => &[Role::Client],
    };
    for acts_as in uses {
        trust.check(chain, *acts_as, &name, now).map_err(own)?;
    }
    Ok((name, trust::not_after(leaf).unwrap_or(u64::MAX)))
}

fn lists(parts: &Parts) -> Result<Vec<(CertRevocationList<'static>, &Piece)>, TlsError> {
    const LABEL: &str = "X509 CRL";
    let mut lists = Vec::new();
    for piece in parts.lists.iter().chain(&parts.revoked) {
        let ders: Vec<CertificateRevocationListDer<'static>> = piece.sections(LABEL)?;
        if ders.is_empty() {
            return Err(piece.no_section(LABEL, &pem::Error::NoItemsFound));
        }
        for der in ders {
            let list = OwnedCertRevocationList::from_der(&der)
                .map_err(|error| piece.garbage(format!("it is no revocation list: {error}")))?;
            lists.push((CertRevocationList::Owned(list), piece));
        }
    }
    Ok(lists)
}

/// Refuses a list that could revoke nothing, which would be a false comfort.
fn check_list(
    list: &CertRevocationList<'static>,
    piece: &Piece,
    trust: &Trust,
    parts: &Parts,
    chain: &[CertificateDer<'static>],
    now: UnixTime,
    warnings: &mut Vec<TlsWarning>,
) -> Result<(), TlsError> {
    let place = || piece.place.clone();
    let foreign =
        || TlsError::ForeignList { place: place(), authority: parts.authority.place.clone() };
    let consult = |expiration| {
        trust.consult(list, chain, now, expiration).map_err(|error| match error {
            webpki::Error::InvalidCrlSignatureForPublicKey => foreign(),
            other => piece.garbage(format!("it cannot be checked: {other}")),
        })
    };
    let mut verdict = consult(ExpirationPolicy::Enforce)?;
    if let Verdict::Old { next_update } = verdict {
        warnings.push(TlsWarning::OldList { place: place(), next_update });
        verdict = consult(ExpirationPolicy::Ignore)?;
    }
    match verdict {
        Verdict::Spared | Verdict::Old { .. } => Ok(()),
        Verdict::Revoked => {
            warnings.push(TlsWarning::OwnRevoked { place: place() });
            Ok(())
        }
        // It may be the list of another authority that is trusted too, or of one above one's own issuer.
        Verdict::Silent => trust
            .anchors
            .iter()
            .any(|anchor| anchor.subject.as_ref() == list.issuer())
            .then_some(())
            .ok_or_else(foreign),
    }
}

#[cfg(unix)]
fn open_key(place: &Place) -> Option<TlsWarning> {
    use std::os::unix::fs::PermissionsExt;

    let Place::File(path) = place else {
        return None;
    };
    let mode = path.metadata().ok()?.permissions().mode() & 0o7777;
    (mode & 0o007 != 0).then(|| TlsWarning::OpenKey { path: PathBuf::clone(path), mode })
}

#[cfg(not(unix))]
fn open_key(_place: &Place) -> Option<TlsWarning> {
    None
}
