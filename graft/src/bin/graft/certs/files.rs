//! Certificates with their private keys, as files.

use std::{
    ffi::OsString,
    fs::{self, OpenOptions},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
};

use graft_transport::quic::tls::{CertifiedName, Tls};

use super::failure::Failure;

const SECONDS_A_DAY: u64 = 86_400;

/// Where a certificate and its private key are, or are to be.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

/// What is there of a pair.
pub(super) enum There {
    Both,
    Neither,
    Only { there: PathBuf, missing: PathBuf },
}

impl Pair {
    pub(super) fn of(directory: &Path, name: &str) -> Self {
        Self {
            certificate: directory.join(format!("{name}.pem")),
            key: directory.join(format!("{name}-key.pem")),
        }
    }

    pub(super) const fn both(&self) -> [&PathBuf; 2] {
        [&self.certificate, &self.key]
    }

    pub(super) fn look(&self) -> Result<There, Failure> {
        let is_there = |path: &PathBuf| match path.try_exists() {
            // A directory that is a file is told when it is to be made.
            Err(error) if error.kind() == ErrorKind::NotADirectory => Ok(false),
            looked => looked.map_err(|source| Failure::Unreadable { path: path.clone(), source }),
        };
        let only = |there: &PathBuf, missing: &PathBuf| There::Only {
            there: there.clone(),
            missing: missing.clone(),
        };
        Ok(match (is_there(&self.certificate)?, is_there(&self.key)?) {
            (true, true) => There::Both,
            (false, false) => There::Neither,
            (true, false) => only(&self.certificate, &self.key),
            (false, true) => only(&self.key, &self.certificate),
        })
    }

    /// For how many more days it serves `name` beside this authority.
    pub(super) fn check(&self, authority: &Path, name: &CertifiedName) -> Result<u64, Failure> {
        let tls = Tls::from_files(authority, &self.certificate, &self.key).map_err(|error| {
            let (path, source) = (self.certificate.clone(), Box::new(error));
            Failure::Unusable { name: name.to_string(), path, source }
        })?;
        if tls.identity() != name {
            return Err(Failure::OtherName {
                path: self.certificate.clone(),
                found: tls.identity().to_string(),
                expected: name.to_string(),
            });
        }
        // What lies ahead has not elapsed: the error says by how much.
        let left = tls.expires().elapsed().map_or_else(|ahead| ahead.duration().as_secs(), |_| 0);
        Ok(left / SECONDS_A_DAY)
    }

    /// Writes both, where neither is there.
    pub(super) fn write_new(&self, certificate: &str, key: &str) -> Result<(), Failure> {
        for (path, pem, mode) in self.contents(certificate, key) {
            write(path, pem, mode)?;
        }
        Ok(())
    }

    /// Writes both in the place of those that are there, each at once.
    pub(super) fn replace(&self, certificate: &str, key: &str) -> Result<(), Failure> {
        for (path, pem, mode) in self.contents(certificate, key) {
            let mut beside = OsString::from(path);
            beside.push(".new");
            let beside = PathBuf::from(beside);
            match fs::remove_file(&beside) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(unwritable(&beside, error));
                }
                _ => {}
            }
            write(&beside, pem, mode)?;
            fs::rename(&beside, path).map_err(|error| unwritable(path, error))?;
        }
        Ok(())
    }

    /// The key comes first: a certificate without one would look like one that can be used.
    fn contents<'a>(&'a self, certificate: &'a str, key: &'a str) -> [(&'a Path, &'a str, u32); 2] {
        [(&self.key, key, 0o600), (&self.certificate, certificate, 0o644)]
    }

    /// Certificate and key as text.
    pub(super) fn read(&self) -> Result<[String; 2], Failure> {
        let read = |path: &PathBuf| {
            fs::read_to_string(path)
                .map_err(|source| Failure::Unreadable { path: path.clone(), source })
        };
        Ok([read(&self.certificate)?, read(&self.key)?])
    }
}

/// Writes a file that is not there, which nobody can read before it has its mode.
fn write(path: &Path, pem: &str, mode: u32) -> Result<(), Failure> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    with_mode(&mut options, mode);
    let written = || -> io::Result<()> {
        let mut file = options.open(path)?;
        file.write_all(pem.as_bytes())?;
        file.sync_all()
    };
    written().map_err(|error| unwritable(path, error))
}

fn unwritable(path: &Path, source: io::Error) -> Failure {
    Failure::Unwritable { path: path.to_owned(), source }
}

#[cfg(unix)]
fn with_mode(options: &mut OpenOptions, mode: u32) {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(mode);
}

/// Elsewhere a file has the rights of its directory.
#[cfg(not(unix))]
fn with_mode(_: &mut OpenOptions, _: u32) {}
