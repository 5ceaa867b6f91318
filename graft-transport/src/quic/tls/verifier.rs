//! The doors to rustls: one verifier for both ends, and the present certificate.

use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{CertifiedName, Refusal, Role, Shared};

/// What the other side must be.
#[derive(Clone, Debug)]
pub(super) enum Expected {
    /// Whoever dials: the protocol that was agreed on decides later which role is due.
    Anyone,
    /// Some server of the cluster.
    AnyServer,
    /// This one.
    Exactly(CertifiedName),
}

impl Expected {
    fn check(&self, found: CertifiedName) -> Result<(), Refusal> {
        if matches!(self, Expected::Anyone) {
            return Ok(());
        }
        if found.role() != Role::Server {
            return Err(Refusal::WrongRole { found, expected: Role::Server });
        }
        match self {
            Expected::Exactly(expected) if *expected != found => {
                Err(Refusal::WrongServer { found, expected: expected.clone() })
            }
            _ => Ok(()),
        }
    }
}

/// Asks the identity of this very moment at every handshake, so that a reload needs no new endpoint.
#[derive(Debug)]
pub(super) struct Verifier {
    pub(super) shared: Arc<Shared>,
    pub(super) expected: Expected,
}

impl Verifier {
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        acted_as: Role,
        now: UnixTime,
    ) -> Result<(), Error> {
        let chain: Vec<CertificateDer<'_>> = std::iter::once(leaf)
            .chain(intermediates)
            .map(|der| CertificateDer::from(der.as_ref()))
            .collect();
        self.shared
            .material()
            .trust
            .check(&chain, acted_as, &self.shared.name, now)
            .and_then(|found| self.expected.check(found))
            // The kinds of error that rustls has for certificates would not carry our words.
            .map_err(|refusal| Error::Other(OtherError(Arc::new(refusal))))
    }

    fn signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.shared.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.shared.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// QUIC knows TLS 1.3 alone.
fn no_tls12() -> Error {
    Error::General("TLS 1.2 is not spoken here".to_owned())
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(end_entity, intermediates, Role::Server, now)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Each process has one certificate: there is nothing to choose by a hint.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(end_entity, intermediates, Role::Client, now)
            .map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

/// Shows the certificate of this very moment.
#[derive(Debug)]
pub(super) struct Present(pub(super) Arc<Shared>);

impl ResolvesServerCert for Present {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.material().certified))
    }
}

impl ResolvesClientCert for Present {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _sigschemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.material().certified))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
