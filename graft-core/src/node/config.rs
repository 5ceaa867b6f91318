//! What a node is made of, and the ways in which it can fail to open and come to stop.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use crate::{
    Entry, InboxLimits, Index, LogStore, Raft, Runtime, StateMachine, StoreError, Transport,
    raft::{self, ConfigError, Fatal},
};

/// The parts of one server. Any store goes with any transport.
pub struct NodeParts {
    /// The numbers it runs by.
    pub config: NodeConfig,
    /// Its store, which must have been born: see [`LogStore::create`].
    pub store: Arc<dyn LogStore>,
    /// Its way to peers and clients.
    pub transport: Arc<dyn Transport>,
    /// The machine in its first state: the log is replayed into it.
    pub machine: Box<dyn StateMachine>,
    /// Time and tasks.
    pub runtime: Arc<dyn Runtime>,
    /// Sees the state after every turn.
    pub observer: Option<Box<dyn Observer>>,
}

impl fmt::Debug for NodeParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeParts").field("config", &self.config).finish_non_exhaustive()
    }
}

/// The one hook for invariants and metrics.
pub trait Observer: Send + 'static {
    /// Called whenever [`Raft::drain`] has been called, from the server's own task: it must be quick.
    fn turn(&mut self, raft: &Raft);
}

/// The numbers by which a node drives its [`Raft`].
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The protocol's own.
    pub raft: raft::Config,
    /// The largest payload a request may bring, in bytes. Default 1 MiB: one entry then never holds
    /// up a batch, a frame or a heartbeat for long.
    pub max_entry_bytes: usize,
    /// How large a log may grow that nothing compacts, in bytes; beyond it requests are refused as
    /// overloaded. Default 4 GiB: every restart replays the log.
    pub max_log_bytes: u64,
    /// How much may wait in the inbox.
    pub inbox: InboxLimits,
    /// How long a stopping node waits for its machine's thread and for its transport to close.
    /// Default 5 s, the default deadline of a request.
    pub stop_timeout: Duration,
}

impl NodeConfig {
    /// The defaults around the protocol's numbers.
    #[must_use]
    pub fn new(raft: raft::Config) -> Self {
        Self {
            raft,
            max_entry_bytes: 1 << 20,
            max_log_bytes: 4 << 30,
            inbox: InboxLimits::default(),
            stop_timeout: Duration::from_secs(5),
        }
    }

    /// How often a leader shows that it is alive.
    #[must_use]
    pub(super) fn heartbeat(&self) -> Duration {
        let ticks = u32::try_from(self.raft.heartbeat_ticks).unwrap_or(u32::MAX);
        self.raft.tick.saturating_mul(ticks)
    }

    /// Checks that every value is in its range.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] with the name of the first field that is not.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.raft.validate()?;
        let rules = [
            (self.max_entry_bytes > 0, "max_entry_bytes", "must be at least 1"),
            (
                self.max_entry_bytes.saturating_add(Entry::OVERHEAD)
                    <= self.raft.max_uncommitted_bytes,
                "max_entry_bytes",
                "must be 32 bytes below `max_uncommitted_bytes`, or the largest entries never get in",
            ),
            (u32::try_from(self.max_entry_bytes).is_ok(), "max_entry_bytes", "must be below 4 GiB"),
            (self.max_log_bytes > 0, "max_log_bytes", "must be at least 1"),
            (
                self.stop_timeout <= Duration::from_secs(3600),
                "stop_timeout",
                "must be at most an hour",
            ),
        ];
        match rules.into_iter().find(|(holds, ..)| !holds) {
            Some((_, field, rule)) => Err(ConfigError { field, rule }),
            None => Ok(()),
        }
    }
}

/// Why a node could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A value of the configuration is out of its range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store has no identity.
    #[error("the store was never born: call `LogStore::create` with this server's identity first")]
    NotBorn,
    /// The store belongs to somebody else.
    #[error(
        "the store belongs to {field} {stored}, this server is configured for {configured}: \
         give it its own store or correct the configuration"
    )]
    WrongIdentity {
        /// Which part of the identity differs.
        field: &'static str,
        /// What the store says.
        stored: String,
        /// What the configuration says.
        configured: String,
    },
    /// The beginning of the log is gone, and a machine can only be built from all of it.
    #[error(
        "the log of this store begins after entry {compacted}, and this build restores no snapshots: \
         use a build that does"
    )]
    Compacted {
        /// The last entry that is gone.
        compacted: Index,
    },
    /// The store failed.
    #[error("the store could not be recovered")]
    Store(#[source] StoreError),
}

/// Why a node stopped.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StopReason {
    /// It was asked to.
    #[error("it was asked to stop")]
    Asked,
    /// Going on would have broken a promise of the protocol.
    #[error(transparent)]
    Fatal(Fatal),
    /// The store failed. Nothing is known about what was being done, and it is not tried again.
    #[error("its store{} failed to {action}: {reason}", at(place))]
    Store {
        /// Where that is, if the store says so.
        place: Option<String>,
        /// What it was asked for.
        action: &'static str,
        /// The error and its causes.
        reason: String,
    },
    /// A committed command that this build cannot read: skipping it would let replicas drift apart.
    #[error("entry {index} has version {version}: {reason}")]
    Undecodable {
        /// Which entry.
        index: Index,
        /// The version of the entry type that wrote it.
        version: u16,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A committed entry that is not what its kind defines: this build would never have taken it in.
    #[error("entry {index} is malformed ({reason}): upgrade this server first")]
    Malformed {
        /// Which entry.
        index: Index,
        /// What is wrong with it.
        reason: String,
    },
    /// The thread of the machine ended without giving the machine back.
    #[error("the machine's thread failed: {reason}")]
    MachineFailed {
        /// The panic's words.
        reason: String,
    },
}

impl StopReason {
    pub(super) fn store(place: Option<String>, action: &'static str, error: &StoreError) -> Self {
        Self::Store { place, action, reason: with_causes(error) }
    }
}

/// The place of a store, for the middle of a sentence.
fn at(place: &Option<String>) -> String {
    place.as_ref().map(|place| format!(" at {place}")).unwrap_or_default()
}

/// An error and everything behind it, in one line.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(behind) = cause {
        text = format!("{text}: {behind}");
        cause = behind.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeId;

    #[test]
    fn an_entry_limit_out_of_range_is_named() {
        let mut config = NodeConfig::new(raft::Config::new(NodeId(1)));
        assert_eq!(config.validate(), Ok(()));
        config.max_entry_bytes = config.raft.max_uncommitted_bytes - Entry::OVERHEAD;
        assert_eq!(config.validate(), Ok(()));
        config.max_entry_bytes += 1;
        let field = config.validate().map_err(|error| error.field);
        assert_eq!(field, Err("max_entry_bytes"));
    }

    #[test]
    fn a_store_error_is_told_with_its_place_and_its_cause() {
        let source = std::io::Error::other("no space left");
        let error = StoreError::Io { action: "sync", source };
        let told = |place| StopReason::store(place, "write", &error).to_string();
        let nowhere = "its store failed to write: the store failed to sync: no space left";
        assert_eq!(told(None), nowhere);
        let somewhere = nowhere.replacen("store", "store at data/server1", 1);
        assert_eq!(told(Some("data/server1".to_owned())), somewhere);
    }
}
