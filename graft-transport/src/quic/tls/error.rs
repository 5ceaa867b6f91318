//! What can be wrong with one's own files, and with the other side's certificate: in words to act on.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::{CertifiedName, Role};

/// Which part of an identity is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part {
    /// The certificates of the authorities that are trusted.
    Authority,
    /// One's own certificate, with any intermediate ones behind it.
    Certificate,
    /// The private key of one's own certificate.
    Key,
    /// A list of revoked certificates.
    RevocationList,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Authority => "the authority's certificate",
            Part::Certificate => "the certificate",
            Part::Key => "the private key",
            Part::RevocationList => "the revocation list",
        })
    }
}

/// Where a part of an identity came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// From this file.
    File(PathBuf),
    /// From the caller's memory.
    Memory,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File(path) => write!(f, "in `{}`", path.display()),
            Place::Memory => f.write_str("given as PEM"),
        }
    }
}

/// Why an identity could not be made, or made anew.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A name that cannot stand in a certificate.
    #[error(
        "`{value}` cannot be the {what} of a server or client: {problem}; use 1 to 63 letters, digits, `-` or `_`"
    )]
    BadName {
        /// `name` or `cluster`.
        what: &'static str,
        /// What was given, cut to 80 characters.
        value: String,
        /// What is wrong with it.
        problem: String,
    },
    /// There is no such file.
    #[error(
        "{part} is missing: there is no file `{path}`; correct the path, or issue it (`graft certs`)"
    )]
    Missing {
        /// What should be there.
        part: Part,
        /// Where it should be.
        path: PathBuf,
    },
    /// The file is there and cannot be read.
    #[error("{part} in `{path}` cannot be read; let the user of this process read that file")]
    Unreadable {
        /// What should be read.
        part: Part,
        /// From where.
        path: PathBuf,
        /// Why it cannot be.
        #[source]
        source: io::Error,
    },
    /// The contents are not what they should be.
    #[error("{part} {place} is unusable: {problem}")]
    Garbage {
        /// What should be there.
        part: Part,
        /// Where.
        place: Place,
        /// What is wrong, and what should be there.
        problem: String,
    },
    /// Key and certificate do not belong together.
    #[error(
        "the private key {key} does not belong to the certificate {certificate}: give the key that was \
         issued with it"
    )]
    KeyMismatch {
        /// Where the certificate is.
        certificate: Place,
        /// Where the key is.
        key: Place,
    },
    /// One's own certificate would be refused by everyone else.
    #[error("one's own certificate {place} is of no use with the authority's {authority}")]
    OwnCertificate {
        /// Where the certificate is.
        place: Place,
        /// Where the authority's certificate is.
        authority: Place,
        /// Why others would refuse it.
        #[source]
        source: Box<Refusal>,
    },
    /// A revocation list that says nothing about this authority's certificates.
    #[error(
        "the revocation list {place} is not signed by the authority {authority}: it would revoke nothing; \
         give the list of the cluster's own authority"
    )]
    ForeignList {
        /// Where the list is.
        place: Place,
        /// Where the authority's certificate is.
        authority: Place,
    },
    /// A reload brought the certificate of somebody else.
    #[error(
        "the new certificate {place} names {found}, but this process is {expected}: restart it to rename it"
    )]
    OtherIdentity {
        /// Where the new certificate is.
        place: Place,
        /// Whom it names.
        found: CertifiedName,
        /// Who this process is.
        expected: CertifiedName,
    },
    /// A reload of what was never in files.
    #[error(
        "this identity was made from PEM in memory, so there is no file to read again: use `replace`"
    )]
    NotFromFiles,
    /// An identity used for what its role may not do.
    #[error("{own} cannot {purpose}: that takes a {needed} certificate")]
    WrongOwnRole {
        /// Who this process is.
        own: CertifiedName,
        /// What it was asked to do.
        purpose: &'static str,
        /// The role that this takes.
        needed: Role,
    },
    /// The cryptography refused a setting; a defect of this library.
    #[error("the TLS library refused a setting of this library: {0}")]
    Unsupported(String),
}

/// What is worth a warning in an identity that is good enough to be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsWarning {
    /// Everyone on this machine can read the private key.
    #[error(
        "the private key in `{path}` can be read or changed by every user of this machine (mode {mode:04o}): run \
         `chmod 600`, and issue a new certificate if others may have read it"
    )]
    OpenKey {
        /// The file of the key.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The revocation list is past its date; what it revokes stays revoked.
    #[error("the revocation list {place} was to be renewed until {}: give a newer one", Moment(*.next_update))]
    OldList {
        /// Where the list is.
        place: Place,
        /// The date, in seconds since 1970.
        next_update: u64,
    },
    /// A list revokes this process's own certificate: others refuse it.
    #[error("the revocation list {place} revokes this process's own certificate: issue a new one")]
    OwnRevoked {
        /// Where the list is.
        place: Place,
    },
    /// The authority is past its date; its certificates are still accepted.
    #[error("the authority's certificate {place} expired on {}: make a new authority", Moment(*.not_after))]
    OldAuthority {
        /// Where it is.
        place: Place,
        /// The date, in seconds since 1970.
        not_after: u64,
    },
}

/// Why the other side's certificate is refused. The text names whom it was issued for, what was
/// expected and what to do; both sides get to see it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// There is no certificate, or the handshake is not over.
    #[error("the other side showed no certificate: give it one of the cluster's own authority")]
    NoCertificate,
    /// What was shown is no certificate.
    #[error("what the other side showed is no X.509 certificate ({problem}): issue a new one")]
    Malformed {
        /// What could not be read.
        problem: String,
    },
    /// Another authority issued it.
    #[error(
        "the certificate of {names} was not issued by the authority that {own} trusts: issue it by that authority, \
         or give both the same authority's certificate"
    )]
    ForeignAuthority {
        /// Whom the certificate names.
        names: Names,
        /// Who refuses it.
        own: CertifiedName,
    },
    /// It is past its date.
    #[error("the certificate of {names} expired on {}: issue a new one (here it is {})", Moment(*.not_after), Moment(*.now))]
    Expired {
        /// Whom the certificate names.
        names: Names,
        /// The last second of its validity, in seconds since 1970.
        not_after: u64,
        /// The time of the one who refuses it.
        now: u64,
    },
    /// Its date has not come.
    #[error(
        "the certificate of {names} is not valid before {}: set the clocks, or issue a new one (here it is {})",
        Moment(*.not_before), Moment(*.now)
    )]
    NotYetValid {
        /// Whom the certificate names.
        names: Names,
        /// The first second of its validity, in seconds since 1970.
        not_before: u64,
        /// The time of the one who refuses it.
        now: u64,
    },
    /// The authority has revoked it.
    #[error(
        "the certificate of {names} is revoked by its authority: issue a new one if it is to be trusted again"
    )]
    Revoked {
        /// Whom the certificate names.
        names: Names,
    },
    /// It names no server and no client.
    #[error(
        "the certificate is for {names}, which names no server or client of a cluster: issue one for \
         `NAME.{cluster}.server.graft` or `NAME.{cluster}.client.graft`"
    )]
    Unnamed {
        /// Whom the certificate names.
        names: Names,
        /// The cluster of the one who refuses it.
        cluster: String,
    },
    /// It names several.
    #[error("the certificate is for {names}: issue one for each server and client")]
    Ambiguous {
        /// Whom the certificate names.
        names: Names,
    },
    /// It is of another cluster.
    #[error(
        "the certificate is for {found}, but {own} speaks to cluster `{}` alone: check the address, or issue a \
         certificate for this cluster", .own.cluster()
    )]
    WrongCluster {
        /// Whom the certificate names.
        found: CertifiedName,
        /// Who refuses it.
        own: CertifiedName,
    },
    /// It is of another server than the one that was called.
    #[error(
        "the certificate is for {found}, but this is the address of {expected}: check the address"
    )]
    WrongServer {
        /// Whom the certificate names.
        found: CertifiedName,
        /// Who should have answered.
        expected: CertifiedName,
    },
    /// It is of a client where a server is due, or the other way.
    #[error(
        "the certificate is for {found}, but a {expected} is due here: use a {expected} certificate"
    )]
    WrongRole {
        /// Whom the certificate names.
        found: CertifiedName,
        /// What was due.
        expected: Role,
    },
    /// Its extended key usage forbids what it is used for.
    #[error(
        "the certificate of {names} does not allow TLS {expected} authentication: issue it with that usage"
    )]
    WrongUsage {
        /// Whom the certificate names.
        names: Names,
        /// As what it was used in the handshake.
        expected: Role,
    },
    /// Anything else that makes a chain of certificates invalid.
    #[error("the certificate of {names} is invalid ({problem}): issue a new one")]
    Invalid {
        /// Whom the certificate names.
        names: Names,
        /// What is wrong.
        problem: String,
    },
}

/// The names of a certificate as an error shows them: read before anything was verified, so bounded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    shown: Vec<String>,
    more: usize,
}

impl Names {
    const MAX_SHOWN: usize = 3;
    const MAX_CHARS: usize = 160;

    pub(super) fn new<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let mut shown = Vec::new();
        let mut more = 0;
        for name in names {
            if shown.len() == Names::MAX_SHOWN {
                more += 1;
            } else {
                shown.push(name.chars().take(Names::MAX_CHARS).collect());
            }
        }
        Names { shown, more }
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.shown.is_empty() {
            return f.write_str("nobody (it has no DNS name)");
        }
        for (at, name) in self.shown.iter().enumerate() {
            let separator = if at == 0 { "" } else { ", " };
            match CertifiedName::parse(name) {
                Some(name) => write!(f, "{separator}{name}")?,
                None => write!(f, "{separator}`{name}`")?,
            }
        }
        if self.more > 0 {
            write!(f, " and {} more", self.more)?;
        }
        Ok(())
    }
}

/// A second of 1970 and after, shown as RFC 3339 has it.
pub(super) struct Moment(pub(super) u64);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, second) = (self.0 / 86_400, self.0 % 86_400);
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        write!(f, "{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

/// The date of the Gregorian calendar, `days` after the first of January 1970. Years are counted
/// from March, so that the leap day is a year's last and every month's offset is the same each year.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_IN_400_YEARS: u64 = 146_097;
    const FROM_MARCH_OF_YEAR_0: u64 = 719_468;
    let days = days.saturating_add(FROM_MARCH_OF_YEAR_0);
    let (era, day_of_era) = (days / DAYS_IN_400_YEARS, days % DAYS_IN_400_YEARS);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * months_from_march + 2) / 5 + 1;
    let month = if months_from_march < 10 { months_from_march + 3 } else { months_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_shown_as_dates() {
        for (second, date) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(Moment(second).to_string(), date);
        }
    }

    #[test]
    fn a_certificate_of_a_thousand_names_makes_a_short_error() {
        let long = "n".repeat(250);
        let names = Names::new(std::iter::repeat_n(long.as_str(), 1_000));
        let text = Refusal::Ambiguous { names }.to_string();
        assert!(text.contains("and 997 more"), "{text}");
        assert!(text.len() < 700, "{}", text.len());
    }
}
