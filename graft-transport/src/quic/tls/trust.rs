//! Whom one trusts: authorities, what they have revoked, and the one check that all certificates pass.

use std::fmt;
use std::time::Duration;

use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, Error, ExpirationPolicy, KeyUsage, RevocationCheckDepth,
    RevocationOptions, RevocationOptionsBuilder, UnknownStatusPolicy,
};

use super::{CertifiedName, Names, Refusal, Role};

/// Authorities and their revocation lists, as of one moment.
pub(super) struct Trust {
    pub(super) anchors: Vec<TrustAnchor<'static>>,
    pub(super) lists: Vec<CertRevocationList<'static>>,
    pub(super) algorithms: &'static [&'static dyn SignatureVerificationAlgorithm],
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust")
            .field("anchors", &self.anchors.len())
            .field("lists", &self.lists.len())
            .finish_non_exhaustive()
    }
}

/// What a revocation list says of a certificate.
pub(super) enum Verdict {
    /// It is the list of that certificate's issuer, and does not name it.
    Spared,
    /// It names it.
    Revoked,
    /// It is the list of another issuer.
    Silent,
    /// The list is past its date.
    Old { next_update: u64 },
}

impl Trust {
    /// Checks a chain (leaf first) that was shown in the handshake's role `acted_as`, and tells whom it names.
    /// `own` is who asks.
    pub(super) fn check(
        &self,
        chain: &[CertificateDer<'_>],
        acted_as: Role,
        own: &CertifiedName,
        now: UnixTime,
    ) -> Result<CertifiedName, Refusal> {
        let (leaf_der, intermediates) = chain.split_first().ok_or(Refusal::NoCertificate)?;
        let leaf = parse(leaf_der)?;
        let refusal = |error| self.refusal(error, &leaf, acted_as, own);
        self.verify(&leaf, intermediates, acted_as, now, None).map_err(refusal)?;
        // One list at a time: among several lists of one issuer the verifier would ask the first alone.
        for list in &self.lists {
            let lists = [list];
            let options = options(&lists, UnknownStatusPolicy::Allow, ExpirationPolicy::Ignore);
            self.verify(&leaf, intermediates, acted_as, now, options).map_err(refusal)?;
        }
        let name = named(&leaf, own.cluster())?;
        if name.cluster() != own.cluster() {
            return Err(Refusal::WrongCluster { found: name, own: own.clone() });
        }
        Ok(name)
    }

    /// What one list says of a chain that is otherwise valid.
    ///
    /// # Errors
    ///
    /// Why the list itself cannot be used.
    pub(super) fn consult(
        &self,
        list: &CertRevocationList<'static>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
        expiration: ExpirationPolicy,
    ) -> Result<Verdict, Error> {
        let (leaf_der, intermediates) = chain.split_first().ok_or(Error::UnknownIssuer)?;
        let leaf = EndEntityCert::try_from(leaf_der)?;
        let lists = [list];
        let options = options(&lists, UnknownStatusPolicy::Deny, expiration)
            .map(|options| options.with_depth(RevocationCheckDepth::EndEntity));
        match self.verify(&leaf, intermediates, Role::Client, now, options) {
            Ok(()) => Ok(Verdict::Spared),
            Err(Error::CertRevoked) => Ok(Verdict::Revoked),
            Err(Error::UnknownRevocationStatus) => Ok(Verdict::Silent),
            Err(Error::CrlExpired { next_update, .. }) => {
                Ok(Verdict::Old { next_update: next_update.as_secs() })
            }
            Err(other) => Err(other),
        }
    }

    fn verify(
        &self,
        leaf: &EndEntityCert<'_>,
        intermediates: &[CertificateDer<'_>],
        acted_as: Role,
        now: UnixTime,
        revocation: Option<RevocationOptionsBuilder<'_>>,
    ) -> Result<(), Error> {
        let usage = match acted_as {
            Role::Server => KeyUsage::server_auth(),
            Role::Client => KeyUsage::client_auth(),
        };
        let revocation: Option<RevocationOptions<'_>> =
            revocation.map(RevocationOptionsBuilder::build);
        leaf.verify_for_usage(
            self.algorithms,
            &self.anchors,
            intermediates,
            now,
            usage,
            revocation,
            None,
        )
        .map(|_path| ())
    }

    /// The verifier's error in words that name the certificate.
    fn refusal(
        &self,
        error: Error,
        leaf: &EndEntityCert<'_>,
        acted_as: Role,
        own: &CertifiedName,
    ) -> Refusal {
        let names = Names::new(leaf.valid_dns_names());
        match error {
            // A forged authority may carry the very name of the true one: then the signature tells.
            Error::UnknownIssuer | Error::InvalidSignatureForPublicKey => {
                Refusal::ForeignAuthority { names, own: own.clone() }
            }
            Error::CertExpired { time, not_after } => {
                Refusal::Expired { names, not_after: not_after.as_secs(), now: time.as_secs() }
            }
            Error::CertNotValidYet { time, not_before } => Refusal::NotYetValid {
                names,
                not_before: not_before.as_secs(),
                now: time.as_secs(),
            },
            Error::CertRevoked => Refusal::Revoked { names },
            Error::RequiredEkuNotFoundContext(_) => match named(leaf, own.cluster()) {
                // The usage is wrong because the role is: that is the better word.
                Ok(found) if found.role() == Role::Client && acted_as == Role::Server => {
                    Refusal::WrongRole { found, expected: Role::Server }
                }
                _ => Refusal::WrongUsage { names, expected: acted_as },
            },
            other => Refusal::Invalid { names, problem: other.to_string() },
        }
    }
}

/// Whom a certificate names, verified or not.
pub(super) fn named(leaf: &EndEntityCert<'_>, cluster: &str) -> Result<CertifiedName, Refusal> {
    let mut ours = leaf.valid_dns_names().filter_map(CertifiedName::parse);
    match (ours.next(), ours.next()) {
        (Some(name), None) => Ok(name),
        (None, _) => Err(Refusal::Unnamed {
            names: Names::new(leaf.valid_dns_names()),
            cluster: cluster.to_owned(),
        }),
        (Some(_), Some(_)) => Err(Refusal::Ambiguous { names: Names::new(leaf.valid_dns_names()) }),
    }
}

pub(super) fn parse<'a>(der: &'a CertificateDer<'a>) -> Result<EndEntityCert<'a>, Refusal> {
    EndEntityCert::try_from(der).map_err(|error| Refusal::Malformed { problem: error.to_string() })
}

/// The last second of a certificate's validity, asked of the verifier by way of a time that no certificate
/// reaches. `None` where the certificate is malformed or outlives that time.
pub(super) fn not_after(der: &CertificateDer<'_>) -> Option<u64> {
    let never = UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX));
    let error = EndEntityCert::try_from(der)
        .ok()?
        .verify_for_usage(&[], &[], &[], never, KeyUsage::client_auth(), None, None)
        .err()?;
    match error {
        Error::CertExpired { not_after, .. } => Some(not_after.as_secs()),
        _ => None,
    }
}

fn options<'a>(
    lists: &'a [&'a CertRevocationList<'a>],
    status: UnknownStatusPolicy,
    expiration: ExpirationPolicy,
) -> Option<RevocationOptionsBuilder<'a>> {
    let builder = RevocationOptionsBuilder::new(lists).ok()?;
    Some(
        builder
            .with_depth(RevocationCheckDepth::Chain)
            .with_status_policy(status)
            .with_expiration_policy(expiration),
    )
}
