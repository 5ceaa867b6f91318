//! How a request can fail, and what is then known about its command.

use std::time::Duration;

/// What is known about the command of a request that failed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// It was not applied and never will be: it is safe to send it again.
    NotApplied,
    /// It was applied.
    Applied,
    /// It may have been applied, or may still be.
    Unknown,
}

/// Why a request did not end with the machine's response.
///
/// | error | outcome | retryable | what to do |
/// | --- | --- | --- | --- |
/// | `UnknownServer` | `NotApplied` | no | name a server of this process |
/// | `AmbiguousServer` | `NotApplied` | no | ask from within the runtime that is meant |
/// | `WrongEntry` | `NotApplied` | no | send the entry type of that machine |
/// | `InvalidEntry` | `NotApplied` | no | send an entry that decodes |
/// | `EntryTooLarge` | `NotApplied` | no | send a smaller entry |
/// | `NotAQuery` | `NotApplied` | no | send it as a request |
/// | `NoLeader` | `NotApplied` | yes | see that a majority of the servers runs |
/// | `Overloaded` | `NotApplied` | yes | send less at once |
/// | `Timeout`, never taken in | `NotApplied` | yes | send it again |
/// | `Timeout`, perhaps taken in | `Unknown` | no | look at the state, then decide |
/// | `SessionExpired` | `Unknown` | no | look at the state, then decide |
/// | `MachinePanicked` | `Applied` | no | mend the machine |
/// | `UnreadableResponse` | `Applied` | no | mend the response type |
/// | `ResponseTooLarge` | `Applied` | no | let the machine answer in parts |
/// | `Shutdown`, never sent | `NotApplied` | yes | send it by another client |
/// | `Shutdown`, sent | `Unknown` | no | look at the state, then decide |
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// No server of that name runs here.
    #[error("there is no server `{name}` in this process: start it, or check the name")]
    UnknownServer {
        /// The name asked for.
        name: String,
    },
    /// Servers of that name run on several runtimes, and the caller is on none of these.
    #[error(
        "servers called `{name}` run on several runtimes: ask from within the one you mean, or through its supervisor"
    )]
    AmbiguousServer {
        /// The name asked for.
        name: String,
    },
    /// The server's machine takes another type of entry.
    #[error("this server's machine takes entries of type `{expected}`, not `{found}`")]
    WrongEntry {
        /// The type the machine takes.
        expected: String,
        /// The type that was sent.
        found: String,
    },
    /// The entry does not decode; it never entered the log.
    #[error("the entry is not valid: {reason}")]
    InvalidEntry {
        /// What is wrong with it.
        reason: String,
    },
    /// The entry is larger than this cluster takes; it never entered the log.
    #[error("the entry has {bytes} bytes, the limit is {limit}: split it, or raise the limit")]
    EntryTooLarge {
        /// Its size in bytes.
        bytes: usize,
        /// The largest size in bytes.
        limit: usize,
    },
    /// The machine does not answer this entry as a query.
    #[error("the machine does not take this entry as a query: send it as a request")]
    NotAQuery,
    /// Servers answered, and none of them led until the deadline.
    #[error(
        "no leader was found in {waited:?}: see that a majority of the servers runs and can talk to each other"
    )]
    NoLeader {
        /// How long it was tried.
        waited: Duration,
    },
    /// Too much is waiting, here or at the leader.
    #[error("too many requests are waiting: send fewer at once, or wait a little")]
    Overloaded,
    /// The deadline passed.
    #[error("no answer came within {waited:?}{}", .outcome.remark())]
    Timeout {
        /// How long it was tried.
        waited: Duration,
        /// `NotApplied` where no server can have taken it in, else `Unknown`.
        outcome: Outcome,
    },
    /// The session of the command expired before an answer came.
    #[error("the session expired before an answer came{}", Outcome::Unknown.remark())]
    SessionExpired,
    /// The machine panicked over the entry, on every server alike, and keeps what it had done.
    #[error("the machine panicked over the entry: {message}")]
    MachinePanicked {
        /// What the panic said.
        message: String,
    },
    /// The entry was applied, and the machine's response does not decode here.
    #[error("the entry was applied, and the response does not decode: {reason}")]
    UnreadableResponse {
        /// What is wrong with it.
        reason: String,
    },
    /// The entry was applied, and the machine's response is larger than the network carries.
    #[error(
        "the entry was applied, and its response of {bytes} bytes is larger than the {limit} that servers send and \
         clients take in: let the machine answer in parts, or raise the largest reply on both sides"
    )]
    ResponseTooLarge {
        /// The size of the response in bytes.
        bytes: usize,
        /// The largest size in bytes.
        limit: usize,
    },
    /// The client or its runtime was shut down.
    #[error("the client was shut down{}", .outcome.remark())]
    Shutdown {
        /// `NotApplied` where no server can have taken the request in, else `Unknown`.
        outcome: Outcome,
    },
}

impl Outcome {
    const fn remark(self) -> &'static str {
        match self {
            Self::NotApplied => "; the entry was not applied",
            Self::Applied => "; the entry was applied",
            Self::Unknown => "; the entry may have been applied",
        }
    }
}

impl RequestError {
    /// What is known about the command.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::UnknownServer { .. }
            | Self::AmbiguousServer { .. }
            | Self::WrongEntry { .. }
            | Self::InvalidEntry { .. }
            | Self::EntryTooLarge { .. }
            | Self::NotAQuery
            | Self::NoLeader { .. }
            | Self::Overloaded => Outcome::NotApplied,
            Self::MachinePanicked { .. }
            | Self::UnreadableResponse { .. }
            | Self::ResponseTooLarge { .. } => Outcome::Applied,
            Self::SessionExpired => Outcome::Unknown,
            Self::Timeout { outcome, .. } | Self::Shutdown { outcome } => *outcome,
        }
    }

    /// Whether sending the same entry again is safe and may end better.
    ///
    /// An idempotent entry may also be sent again where this says no because the outcome is unknown.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::NoLeader { .. } | Self::Overloaded => true,
            Self::Timeout { outcome, .. } | Self::Shutdown { outcome } => {
                matches!(outcome, Outcome::NotApplied)
            }
            Self::UnknownServer { .. }
            | Self::AmbiguousServer { .. }
            | Self::WrongEntry { .. }
            | Self::InvalidEntry { .. }
            | Self::EntryTooLarge { .. }
            | Self::NotAQuery
            | Self::MachinePanicked { .. }
            | Self::UnreadableResponse { .. }
            | Self::ResponseTooLarge { .. }
            | Self::SessionExpired => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of the table above, in its order.
    #[test]
    fn each_row_of_the_table_holds() {
        use Outcome::{Applied, NotApplied, Unknown};
        let text = String::new;
        let waited = Duration::from_secs(5);
        let rows = [
            (RequestError::UnknownServer { name: text() }, NotApplied, false),
            (RequestError::AmbiguousServer { name: text() }, NotApplied, false),
            (RequestError::WrongEntry { expected: text(), found: text() }, NotApplied, false),
            (RequestError::InvalidEntry { reason: text() }, NotApplied, false),
            (RequestError::EntryTooLarge { bytes: 2, limit: 1 }, NotApplied, false),
            (RequestError::NotAQuery, NotApplied, false),
            (RequestError::NoLeader { waited }, NotApplied, true),
            (RequestError::Overloaded, NotApplied, true),
            (RequestError::Timeout { waited, outcome: NotApplied }, NotApplied, true),
            (RequestError::Timeout { waited, outcome: Unknown }, Unknown, false),
            (RequestError::SessionExpired, Unknown, false),
            (RequestError::MachinePanicked { message: text() }, Applied, false),
            (RequestError::UnreadableResponse { reason: text() }, Applied, false),
            (RequestError::ResponseTooLarge { bytes: 2, limit: 1 }, Applied, false),
            (RequestError::Shutdown { outcome: NotApplied }, NotApplied, true),
            (RequestError::Shutdown { outcome: Unknown }, Unknown, false),
        ];
        let table = include_str!("error.rs");
        let table = table.lines().filter(|line| line.starts_with("/// | `"));
        for ((error, outcome, retryable), line) in rows.iter().zip(table.clone()) {
            assert_eq!((error.outcome(), error.is_retryable()), (*outcome, *retryable), "{line}");
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            let name = format!("{error:?}");
            let name = name.split(' ').next().unwrap_or_default();
            let retry = if *retryable { "yes" } else { "no" };
            assert!(cells[1].starts_with(&format!("`{name}`")), "{name} is not the row {line}");
            assert_eq!((cells[2], cells[3]), (&*format!("`{outcome:?}`"), retry), "{line}");
        }
        assert_eq!(table.count(), rows.len(), "a row without a test");
    }

    #[test]
    fn an_unknown_outcome_says_so_in_the_message() {
        let outcome = Outcome::Unknown;
        let waited = Duration::from_secs(5);
        for error in [
            RequestError::Timeout { waited, outcome },
            RequestError::Shutdown { outcome },
            RequestError::SessionExpired,
        ] {
            assert!(error.to_string().ends_with("the entry may have been applied"), "{error}");
        }
    }
}
