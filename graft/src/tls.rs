//! Who speaks: identities by certificate, for servers and clients on different machines.
//!
//! A cluster has an authority of its own, and each server and client a certificate of that authority with its
//! name, its cluster's and its role. `graft certs`, the operator's tool, makes them:
//!
//! ```sh
//! cargo run -p graft --features cli --bin graft -- certs --out certs server1 server2 server3
//! ```
//!
//! [`Tls::from_files`] reads what one process needs: the authority's certificate, and its own with its key.
//! [`Tls::reload`] reads them again without dropping the cluster, and [`TlsBuilder`] takes revocation lists, too.

pub use graft_transport::quic::tls::{
    CertifiedName, Names, Part, Place, Refusal, Role, Tls, TlsBuilder, TlsError, TlsWarning,
};
