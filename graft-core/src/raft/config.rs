//! The numbers by which one server runs the protocol.

use std::time::Duration;

use crate::{ClusterId, Epoch, GroupId, NodeId};

/// How a [`Raft`](super::Raft) behaves. Times count in ticks, so that a test can turn them by hand.
///
/// Values may differ between servers, but the election timeouts should not: safety never depends on
/// them, availability does.
#[derive(Clone, Debug)]
pub struct Config {
    /// This server.
    pub node: NodeId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// The generation of its cluster.
    pub epoch: Epoch,
    /// Its group; 0 today.
    pub group: GroupId,
    /// The seed of all randomness: election timeouts. Same seed and same inputs, same effects.
    pub seed: u64,
    /// When this server starts, on the clock of [`Input::Time`](super::Input::Time): the first election
    /// timeout counts from here. Default zero; set it wherever the clock is older than the server, or
    /// a restarted server campaigns at once.
    pub start: Duration,
    /// How long a tick is. Deadlines are rounded up to it. Default 10 ms.
    pub tick: Duration,
    /// How often a leader shows that it is alive. Default 5 ticks (50 ms): several of them fit an
    /// election timeout, so one lost heartbeat starts no election.
    pub heartbeat_ticks: u64,
    /// The shortest time without a leader after which a server campaigns. Default 30 ticks (300 ms):
    /// far above a round trip and an fsync.
    pub election_timeout_min_ticks: u64,
    /// The longest. Default 60 ticks (600 ms): twice the shortest, so that two servers rarely
    /// campaign at once (Raft §9.3). "One election timeout" elsewhere means this one.
    pub election_timeout_max_ticks: u64,
    /// After how long a write that is not yet durable counts as stalled. Default 60 ticks (one election timeout).
    pub stalled_write_ticks: u64,
    /// Ask before campaigning (thesis §9.6). Default true.
    pub pre_vote: bool,
    /// Step down when a quorum has not answered for one election timeout (thesis §6.2). Default true.
    pub check_quorum: bool,
    /// The largest `AppendEntries` and the largest load, in bytes. Default 1 MiB.
    pub max_batch_bytes: usize,
    /// How many entries may be on their way to a peer unanswered. Default 8,192.
    pub window_entries: usize,
    /// How many bytes may be on their way to a peer unanswered. Default 4 MiB.
    pub window_bytes: usize,
    /// How many bytes of proposals a leader takes in before they commit. Default 64 MiB.
    pub max_uncommitted_bytes: usize,
    /// How many bytes a leader lets lie committed and not yet applied. Default 64 MiB.
    pub max_unapplied_bytes: usize,
    /// How many bytes of the log are kept in memory for slow peers and a slow machine once they are
    /// committed and durable. Default 8 MiB: two windows. Whoever is further behind is served from the
    /// store.
    pub tail_bytes: usize,
    #[cfg(any(test, feature = "mutants"))]
    /// A known bug to switch on, for proving that tests catch it.
    pub mutant: Option<super::Mutant>,
}

impl Config {
    /// The defaults for `node`.
    #[must_use]
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            cluster: ClusterId(0),
            epoch: Epoch(0),
            group: GroupId(0),
            seed: node.0,
            start: Duration::ZERO,
            tick: Duration::from_millis(10),
            heartbeat_ticks: 5,
            election_timeout_min_ticks: 30,
            election_timeout_max_ticks: 60,
            stalled_write_ticks: 60,
            pre_vote: true,
            check_quorum: true,
            max_batch_bytes: 1 << 20,
            window_entries: 8192,
            window_bytes: 4 << 20,
            max_uncommitted_bytes: 64 << 20,
            max_unapplied_bytes: 64 << 20,
            tail_bytes: 8 << 20,
            #[cfg(any(test, feature = "mutants"))]
            mutant: None,
        }
    }

    /// How many bytes one write to the store may take: several batches, because a follower that
    /// catches up should not pay an fsync for each.
    pub(super) fn max_write_bytes(&self) -> usize {
        self.max_batch_bytes.saturating_mul(4)
    }

    /// The tick that `now` falls into.
    pub(super) fn tick_at(&self, now: Duration) -> u64 {
        u64::try_from(now.as_nanos() / self.tick.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Checks that every value is in its range.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] with the name of the first field that is not.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let check = |ok: bool, field: &'static str, rule: &'static str| {
            if ok { Ok(()) } else { Err(ConfigError { field, rule }) }
        };
        let two_heartbeats = self.heartbeat_ticks.saturating_mul(2);
        check(self.node.0 != 0, "node", "must not be zero")?;
        check(!self.tick.is_zero(), "tick", "must not be zero")?;
        check(self.tick <= Duration::from_secs(60), "tick", "must be at most a minute")?;
        check(self.heartbeat_ticks > 0, "heartbeat_ticks", "must be at least 1")?;
        check(
            self.election_timeout_min_ticks >= two_heartbeats,
            "election_timeout_min_ticks",
            "must be at least two heartbeats, or one lost heartbeat starts an election",
        )?;
        check(
            self.election_timeout_max_ticks > self.election_timeout_min_ticks,
            "election_timeout_max_ticks",
            "must be above election_timeout_min_ticks, or servers campaign at once for ever",
        )?;
        let limit = 1 << 32;
        check(
            self.election_timeout_max_ticks < limit,
            "election_timeout_max_ticks",
            "must be below 2^32",
        )?;
        check(self.stalled_write_ticks > 0, "stalled_write_ticks", "must be at least 1")?;
        check(self.max_batch_bytes > 0, "max_batch_bytes", "must be at least 1")?;
        check(self.window_entries > 0, "window_entries", "must be at least 1")?;
        check(self.window_bytes > 0, "window_bytes", "must be at least 1")?;
        check(self.max_uncommitted_bytes > 0, "max_uncommitted_bytes", "must be at least 1")?;
        check(self.max_unapplied_bytes > 0, "max_unapplied_bytes", "must be at least 1")?;
        Ok(())
    }
}

/// A configuration value is out of its range.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`Config::{field}` {rule}")]
pub struct ConfigError {
    /// Which field.
    pub field: &'static str,
    /// What it must be.
    pub rule: &'static str,
}
