//! Why there are no certificates.

use std::{io, path::PathBuf};

use graft_transport::{certs::CertsError, quic::tls::TlsError};

/// Why there are no certificates, or not all. Where it is not about writing, nothing was written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Name(Box<TlsError>),
    #[error("{name} is named twice: give each server and each client a name of its own")]
    Twice { name: String },
    #[error(
        "`{}` would be both of {one} and of {other}: choose another name for one of them",
        file.display()
    )]
    SameFile { file: PathBuf, one: String, other: String },
    #[error("the directory `{}` cannot be made: choose another one, or remove what is in its way", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("`{}` cannot be read: let the user of this process read it", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("`{}` cannot be written: make room there, and let the user of this process write there", path.display())]
    Unwritable { path: PathBuf, source: io::Error },
    #[error(
        "the authority's `{}` is there without its `{}`: bring that back, or begin again in an empty directory",
        there.display(), missing.display()
    )]
    HalfAuthority { there: PathBuf, missing: PathBuf },
    #[error(
        "the authority in `{}` and `{}` is of no use: bring it back as it was, or begin again in an empty directory",
        certificate.display(), key.display()
    )]
    Authority { certificate: PathBuf, key: PathBuf, source: Box<CertsError> },
    #[error(
        "the authority in `{}` is of cluster `{found}`, and not of `{expected}`: say `--cluster {found}`, or give \
         each cluster a directory of its own", path.display()
    )]
    OtherCluster { path: PathBuf, found: String, expected: String },
    #[error(
        "of {name} there is `{}` without `{}`: bring that back, or issue both anew with `--renew`",
        there.display(), missing.display()
    )]
    HalfPair { name: String, there: PathBuf, missing: PathBuf },
    #[error(
        "the certificate of {name} in `{}` is of no use: bring it back as it was, or issue it anew with `--renew`",
        path.display()
    )]
    Unusable { name: String, path: PathBuf, source: Box<TlsError> },
    #[error(
        "`{}` is the certificate of {found}, and not of {expected}: name it so, or issue it anew with `--renew`",
        path.display()
    )]
    OtherName { path: PathBuf, found: String, expected: String },
    #[error("a certificate could not be made")]
    Issue(#[source] Box<CertsError>),
}
