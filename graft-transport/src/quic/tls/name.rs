//! Names in certificates: who is certified, as what, in which cluster.

use std::{fmt, sync::Arc};

use super::TlsError;

/// The longest label of a DNS name, in bytes (RFC 1035 §2.3.4).
const MAX_LABEL_BYTES: usize = 63;

/// What a certificate's holder may be. Peers and clients speak different protocols. A client's certificate
/// serves for its own alone; a server, which may do more, may also ask as a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// A server of the cluster: it votes, and speaks to other servers and to clients.
    Server,
    /// A client: it sends requests.
    Client,
}

impl Role {
    /// The role as it stands in a certificate's name: `server` or `client`.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Server => "server",
            Role::Client => "client",
        }
    }

    /// What every name of this role ends with.
    fn suffix(self) -> &'static str {
        match self {
            Role::Server => ".server.graft",
            Role::Client => ".client.graft",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whom a certificate names: one server or client of one cluster.
///
/// In the certificate it is a DNS name among the subject's alternative names:
/// `<name>.<cluster>.server.graft` or `<name>.<cluster>.client.graft`. Name and cluster are labels of DNS
/// names and are compared byte by byte: `Server1` is not `server1`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CertifiedName {
    name: Arc<str>,
    cluster: Arc<str>,
    role: Role,
}

impl CertifiedName {
    /// The name of a server or client of a cluster.
    ///
    /// # Errors
    ///
    /// [`TlsError::BadName`] where `name` or `cluster` is no label: 1 to 63 of `A-Z`, `a-z`, `0-9`, `-`
    /// and `_`, with no `-` at either end.
    pub fn new(name: &str, cluster: &str, role: Role) -> Result<Self, TlsError> {
        check_label("name", name)?;
        check_label("cluster", cluster)?;
        Ok(CertifiedName { name: name.into(), cluster: cluster.into(), role })
    }

    /// The server of a cluster.
    ///
    /// # Errors
    ///
    /// As for [`CertifiedName::new`].
    pub fn server(name: &str, cluster: &str) -> Result<Self, TlsError> {
        CertifiedName::new(name, cluster, Role::Server)
    }

    /// The client of a cluster.
    ///
    /// # Errors
    ///
    /// As for [`CertifiedName::new`].
    pub fn client(name: &str, cluster: &str) -> Result<Self, TlsError> {
        CertifiedName::new(name, cluster, Role::Client)
    }

    /// The server's or client's own name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cluster's name.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// As what it is certified.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether a server is certified, not a client.
    pub fn is_server(&self) -> bool {
        self.role == Role::Server
    }

    /// The name as it stands in the certificate.
    pub fn dns_name(&self) -> String {
        format!("{}.{}{}", self.name, self.cluster, self.role.suffix())
    }

    /// Reads what stands in a certificate; `None` for a DNS name that is none of ours.
    pub(super) fn parse(dns_name: &str) -> Option<Self> {
        let (rest, role) = [Role::Server, Role::Client]
            .into_iter()
            .find_map(|role| Some((dns_name.strip_suffix(role.suffix())?, role)))?;
        let (name, cluster) = rest.split_once('.')?;
        CertifiedName::new(name, cluster, role).ok()
    }
}

impl fmt::Display for CertifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}` of cluster `{}`", self.role, self.name, self.cluster)
    }
}

fn check_label(what: &'static str, label: &str) -> Result<(), TlsError> {
    let bad = |problem: &str| {
        Err(TlsError::BadName {
            what,
            // What is shown is bounded: a name may come from anywhere.
            value: label.chars().take(80).collect(),
            problem: problem.to_owned(),
        })
    };
    if label.is_empty() {
        return bad("it is empty");
    }
    if label.len() > MAX_LABEL_BYTES {
        return bad("it is longer than 63 bytes");
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !label.bytes().all(allowed) {
        return bad("it has characters other than letters, digits, `-` and `_`");
    }
    if label.starts_with('-') || label.ends_with('-') {
        return bad("it begins or ends with `-`");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_the_way_through_a_certificate() {
        for role in [Role::Server, Role::Client] {
            let name = CertifiedName::new("Node_1-a", "stack", role).unwrap();
            assert_eq!(CertifiedName::parse(&name.dns_name()), Some(name));
        }
    }

    #[test]
    fn what_is_no_label_is_refused_with_its_reason() {
        let long = "x".repeat(64);
        for (label, word) in [
            ("", "empty"),
            (long.as_str(), "63"),
            ("a.b", "characters"),
            ("größe", "characters"),
            ("a b", "characters"),
            ("../ca", "characters"),
            ("-a", "begins or ends"),
            ("a-", "begins or ends"),
        ] {
            let error = CertifiedName::server(label, "stack").unwrap_err().to_string();
            assert!(error.contains(word), "{label}: {error}");
            assert!(CertifiedName::server("a", label).is_err(), "{label}");
        }
        assert!(CertifiedName::server(&"x".repeat(63), "stack").is_ok());
    }

    #[test]
    fn names_of_others_are_none_of_ours() {
        for other in [
            "example.org",
            "server.graft",
            "a.server.graft",
            "a.b.c.server.graft",
            "*.stack.server.graft",
            "a.stack.Server.graft",
            "a.stack.peer.graft",
            "a.stack.server.graft.",
        ] {
            assert_eq!(CertifiedName::parse(other), None, "{other}");
        }
    }
}
