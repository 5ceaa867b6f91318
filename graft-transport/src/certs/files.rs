//! An authority and its certificates in a directory.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{Authority, CertsError, Issued};

const AUTHORITY: &str = "ca";
const LIST: &str = "crl";
/// A key and an open certificate differ in their names by this.
const KEY: &str = "-key";

/// For everyone, since a certificate is shown to everyone.
const OPEN: u32 = 0o644;
/// For their owner alone.
const SECRET: u32 = 0o600;

/// Where a certificate and its key were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key, readable by its owner alone.
    pub key: PathBuf,
}

impl Written {
    fn of(directory: &Path, name: &str) -> Self {
        Written {
            certificate: directory.join(format!("{name}.pem")),
            key: directory.join(format!("{name}{KEY}.pem")),
        }
    }
}

impl Authority {
    /// The authority of a directory and a cluster: the one that is there, or a new one that is written there.
    ///
    /// # Errors
    ///
    /// [`CertsError::NoAuthority`] where what is there cannot be used, [`CertsError::OtherCluster`] where
    /// it is of another cluster; nothing is written then.
    pub fn open(directory: impl AsRef<Path>, cluster: &str) -> Result<Self, CertsError> {
        let directory = directory.as_ref();
        if let Some(authority) = Authority::load(directory)? {
            if authority.cluster() != cluster {
                return Err(CertsError::OtherCluster {
                    found: authority.cluster().to_owned(),
                    expected: cluster.to_owned(),
                });
            }
            return Ok(authority);
        }
        let authority = Authority::new(cluster)?;
        authority.write_to(directory)?;
        Ok(authority)
    }

    /// The authority that is in a directory; `None` where neither of its files is there.
    ///
    /// # Errors
    ///
    /// [`CertsError::NoAuthority`] where only one of its files is there, or they cannot be used.
    pub fn load(directory: impl AsRef<Path>) -> Result<Option<Self>, CertsError> {
        let files = Written::of(directory.as_ref(), AUTHORITY);
        match (read(&files.certificate)?, read(&files.key)?) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => Authority::from_pem(&certificate, &key).map(Some),
            (Some(_), None) => Err(missing(&files.key)),
            (None, Some(_)) => Err(missing(&files.certificate)),
        }
    }

    /// Writes `ca.pem` and `ca-key.pem`; the directory is made if need be.
    ///
    /// # Errors
    ///
    /// [`CertsError::Exists`] where one of them is there, and [`CertsError::Io`].
    pub fn write_to(&self, directory: impl AsRef<Path>) -> Result<Written, CertsError> {
        let files = Written::of(directory.as_ref(), AUTHORITY);
        write_pair(directory.as_ref(), files, self.certificate_pem(), self.key_pem())
    }

    /// Revokes the certificates of these servers and clients in a directory: adds them to its `crl.pem`, whose path is
    /// returned, in one step for whoever reads it meanwhile.
    ///
    /// # Errors
    ///
    /// [`CertsError::Revocation`] where a certificate is missing, malformed or of another authority; nothing
    /// is written then.
    pub fn revoke_in(
        &self,
        directory: impl AsRef<Path>,
        names: &[&str],
    ) -> Result<PathBuf, CertsError> {
        let directory = directory.as_ref();
        let mut certificates = Vec::new();
        for name in names {
            check_file_name(name)?;
            let path = Written::of(directory, name).certificate;
            let missing =
                || CertsError::Revocation(format!("there is no file `{}`", path.display()));
            certificates.push(read(&path)?.ok_or_else(missing)?);
        }
        let path = directory.join(format!("{LIST}.pem"));
        let former = read(&path)?;
        let list = self.revoke(certificates.iter().map(String::as_str), former.as_deref())?;
        replace(&path, &list, OPEN)?;
        Ok(path)
    }
}

impl Issued {
    /// Writes `NAME.pem` and `NAME-key.pem`; the directory is made if need be.
    ///
    /// # Errors
    ///
    /// [`CertsError::Exists`] where one of them is there; [`CertsError::Reserved`], and [`CertsError::Io`].
    pub fn write_to(&self, directory: impl AsRef<Path>) -> Result<Written, CertsError> {
        check_file_name(self.name().name())?;
        let files = Written::of(directory.as_ref(), self.name().name());
        write_pair(directory.as_ref(), files, self.certificate_pem(), self.key_pem())
    }

    /// Writes them in the place of those that are there, each in one step. Between the two steps they do not belong
    /// together: a [`reload`](crate::quic::tls::Tls::reload) at that moment fails, changes nothing, and may be
    /// tried again.
    ///
    /// # Errors
    ///
    /// [`CertsError::Reserved`], and [`CertsError::Io`].
    pub fn replace_in(&self, directory: impl AsRef<Path>) -> Result<Written, CertsError> {
        check_file_name(self.name().name())?;
        let files = Written::of(directory.as_ref(), self.name().name());
        make_directory(directory.as_ref())?;
        replace(&files.key, self.key_pem(), SECRET)?;
        replace(&files.certificate, self.certificate_pem(), OPEN)?;
        Ok(files)
    }
}

fn check_file_name(name: &str) -> Result<(), CertsError> {
    // Some file systems know no capitals.
    let lower = name.to_ascii_lowercase();
    if lower == AUTHORITY || lower == LIST || lower.ends_with(KEY) {
        return Err(CertsError::Reserved { name: name.to_owned() });
    }
    Ok(())
}

fn missing(path: &Path) -> CertsError {
    CertsError::NoAuthority(format!("there is no file `{}` beside the other one", path.display()))
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CertsError {
    let path = path.to_owned();
    move |source| CertsError::Io { action, path, source }
}

fn read(path: &Path) -> Result<Option<String>, CertsError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("read", path)(error)),
    }
}

fn make_directory(directory: &Path) -> Result<(), CertsError> {
    fs::create_dir_all(directory).map_err(io_error("make the directory", directory))
}

fn write_pair(
    directory: &Path,
    files: Written,
    certificate: &str,
    key: &str,
) -> Result<Written, CertsError> {
    make_directory(directory)?;
    // Looked at before anything is written, so that no new key comes to lie beside an old certificate.
    for path in [&files.key, &files.certificate] {
        if path.symlink_metadata().is_ok() {
            return Err(CertsError::Exists { path: path.clone() });
        }
    }
    write_new(&files.key, key, SECRET)?;
    write_new(&files.certificate, certificate, OPEN)?;
    Ok(files)
}

fn write_new(path: &Path, pem: &str, mode: u32) -> Result<(), CertsError> {
    let write = || -> io::Result<()> {
        let mut file = create_new(path, mode)?;
        file.write_all(pem.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => CertsError::Exists { path: path.to_owned() },
        _ => io_error("write", path)(source),
    })
}

/// A reader sees the former file or the new one, whole.
fn replace(path: &Path, pem: &str, mode: u32) -> Result<(), CertsError> {
    let mut beside = OsString::from(path);
    beside.push(".new");
    let beside = PathBuf::from(beside);
    // What an earlier attempt may have left.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error("remove", &beside)(error));
        }
        _ => {}
    }
    write_new(&beside, pem, mode)?;
    fs::rename(&beside, path).map_err(io_error("replace", path))
}

/// With its mode from the beginning: at no moment can others open it.
fn create_new(path: &Path, mode: u32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    options.open(path)
}
