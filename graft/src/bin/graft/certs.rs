//! `graft certs`: an authority, and certificates for servers and clients.
//!
//! Everything is looked at before anything is written: what is refused leaves the directory as it was.

mod failure;
mod files;
mod report;

use std::{collections::BTreeMap, fs, path::PathBuf};

use graft_transport::{
    certs::Authority,
    quic::tls::{CertifiedName, Role},
};

use self::{
    failure::Failure,
    files::{Pair, There},
    report::Report,
};

/// What the files of the authority are called after. No server or client can have this name.
const AUTHORITY: &str = "ca";

/// The client of a cluster whose clients nobody has named.
const CLIENT: &str = "client";

/// What can be said after `graft certs`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The directory for the files; made if it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The cluster's name
    #[arg(long, value_name = "NAME", default_value = "graft")]
    cluster: String,
    /// A client to be certified; once for each. Where none is named there is one, `client`
    #[arg(long = "client", value_name = "NAME")]
    clients: Vec<String>,
    /// Issues the certificates of those who are named anew, in place of those that are there; the authority stays
    #[arg(long)]
    renew: bool,
    /// The servers to be certified
    #[arg(required_unless_present = "clients", value_name = "SERVER")]
    servers: Vec<String>,
}

impl Arguments {
    fn clients(&self) -> impl Iterator<Item = &str> {
        let unnamed = self.clients.is_empty().then_some(CLIENT);
        self.clients.iter().map(String::as_str).chain(unnamed)
    }

    /// Whether its certificate is issued anew: a client that nobody has named is only made where it is missing.
    fn renews(&self, name: &CertifiedName) -> bool {
        self.renew && (name.role() == Role::Server || !self.clients.is_empty())
    }
}

/// Makes what is missing, and tells what was written and what was kept.
pub(crate) fn run(arguments: &Arguments) -> Result<Report, Failure> {
    let issue = |error| Failure::Issue(Box::new(error));
    let directory = &arguments.out;
    let named = named(arguments)?;
    let authority_files = Pair::of(directory, AUTHORITY);
    let authority = kept_authority(&authority_files, &arguments.cluster)?;
    let mut plans = Vec::new();
    for name in named {
        let files = Pair::of(directory, name.name());
        let kept =
            if arguments.renews(&name) { None } else { kept(&files, &authority_files, &name)? };
        plans.push((name, files, kept));
    }

    let mut report = Report::default();
    fs::create_dir_all(directory)
        .map_err(|source| Failure::Directory { path: directory.clone(), source })?;
    let is_kept = authority.is_some();
    let authority = match authority {
        Some(authority) => authority,
        None => {
            let authority = Authority::new(&arguments.cluster).map_err(issue)?;
            authority_files.write_new(authority.certificate_pem(), authority.key_pem())?;
            authority
        }
    };
    report.authority(&authority_files, &arguments.cluster, is_kept);
    for (name, files, kept) in plans {
        if kept.is_none() {
            let issued = match name.role() {
                Role::Server => authority.server(name.name()),
                Role::Client => authority.client(name.name()),
            };
            let issued = issued.map_err(issue)?;
            let write = if arguments.renews(&name) { Pair::replace } else { Pair::write_new };
            write(&files, issued.certificate_pem(), issued.key_pem())?;
        }
        report.certificate(&files, &name, kept);
    }
    Ok(report)
}

/// Who is to be certified, each under a name that can stand in a certificate, and whose files are its own.
fn named(arguments: &Arguments) -> Result<Vec<CertifiedName>, Failure> {
    let certified = |name: &str, role| {
        let named = CertifiedName::new(name, &arguments.cluster, role);
        named.map_err(|error| Failure::Name(Box::new(error)))
    };
    let servers = arguments.servers.iter().map(|name| certified(name, Role::Server));
    let clients = arguments.clients().map(|name| certified(name, Role::Client));
    let named = servers.chain(clients).collect::<Result<Vec<_>, _>>()?;
    let authority = Pair::of(&arguments.out, AUTHORITY);
    let mut owners = BTreeMap::new();
    for file in authority.both() {
        owners.insert(file.clone(), "the authority".to_owned());
    }
    for name in &named {
        for file in Pair::of(&arguments.out, name.name()).both() {
            if let Some(one) = owners.insert(file.clone(), name.to_string()) {
                let (file, other) = (file.clone(), name.to_string());
                return Err(match one == other {
                    true => Failure::Twice { name: other },
                    false => Failure::SameFile { file, one, other },
                });
            }
        }
    }
    Ok(named)
}

/// The authority that is there, if one is.
fn kept_authority(files: &Pair, cluster: &str) -> Result<Option<Authority>, Failure> {
    match files.look()? {
        There::Neither => return Ok(None),
        There::Both => {}
        There::Only { there, missing } => return Err(Failure::HalfAuthority { there, missing }),
    }
    let [certificate, key] = files.read()?;
    let of_no_use = |error| Failure::Authority {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        source: Box::new(error),
    };
    let authority = Authority::from_pem(&certificate, &key).map_err(of_no_use)?;
    if authority.cluster() != cluster {
        return Err(Failure::OtherCluster {
            path: files.certificate.clone(),
            found: authority.cluster().to_owned(),
            expected: cluster.to_owned(),
        });
    }
    Ok(Some(authority))
}

/// For how many more days the certificate that is there is good, if one is.
fn kept(files: &Pair, authority: &Pair, name: &CertifiedName) -> Result<Option<u64>, Failure> {
    match files.look()? {
        There::Neither => Ok(None),
        There::Both => files.check(&authority.certificate, name).map(Some),
        There::Only { there, missing } => {
            Err(Failure::HalfPair { name: name.to_string(), there, missing })
        }
    }
}
