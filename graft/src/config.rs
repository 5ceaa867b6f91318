//! The numbers a user may turn, in units of the outside world.

use std::{ops::RangeInclusive, time::Duration};

use graft_client::{ClientConfig, ClientConfigError, HEADER_BYTES};
use graft_core::{ClusterId, Entry, InboxLimits, NodeId, node::NodeConfig, raft};

/// How the servers of a cluster behave. The defaults are meant to be kept.
///
/// ```
/// use std::time::Duration;
/// let config = graft::Config::default()
///     .deadline(Duration::from_secs(2))
///     .max_entry_bytes(64 << 10);
/// assert!(config.validate().is_ok());
/// let error = config.heartbeat(Duration::ZERO).validate().unwrap_err();
/// assert!(error.to_string().contains("`Config::heartbeat`"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// How often a leader shows that it is alive. Default 50 ms: several fit an election timeout, so
    /// one that is late starts no election.
    pub heartbeat: Duration,
    /// After how long without a leader a server campaigns: a random time in this range. Default 300
    /// to 600 ms: far above a round trip and an fsync, and wide enough that two rarely campaign at once (Raft §9.3).
    pub election_timeout: RangeInclusive<Duration>,
    /// How long a request is tried for, unless it says otherwise. Default 5 s: several elections.
    pub deadline: Duration,
    /// After how long a write that the disk has not confirmed counts as stalled, so that a leader hands over.
    /// Default 600 ms, the longest election timeout.
    pub stalled_write: Duration,
    /// The largest entry, in bytes of its archive. Default 1 MiB: one entry then never holds up a
    /// heartbeat for long.
    pub max_entry_bytes: usize,
    /// How many bytes of entries go to a peer at once. Default 1 MiB: enough to keep a disk busy.
    pub max_batch_bytes: usize,
    /// How many entries may be on their way to a peer unanswered. Default 8,192: a turn's batch of
    /// small entries and the next ones behind it.
    pub window_entries: usize,
    /// How many bytes may be on their way to a peer unanswered. Default 4 MiB: the bandwidth of a
    /// fast network times its delay.
    pub window_bytes: usize,
    /// How many bytes a leader takes in before they commit; beyond it requests are `Overloaded`. Default 64 MiB.
    pub max_uncommitted_bytes: usize,
    /// How many committed bytes may wait for a slow machine; beyond it requests are `Overloaded`. Default 64 MiB.
    pub max_unapplied_bytes: usize,
    /// How many bytes of requests may wait at a server before it has looked at them. Default 64 MiB.
    pub max_waiting_bytes: usize,
    /// How many bytes of the log's end stay in memory for peers that are a little behind. Default 8 MiB, two
    /// windows: a peer further behind is served from the store. Small entries take twice what they count for.
    pub memory_log_bytes: usize,
    /// How large a log may grow that no snapshot shortens; beyond it requests are `Overloaded`. Default 4 GiB: every
    /// restart replays it.
    pub max_log_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(50),
            election_timeout: Duration::from_millis(300)..=Duration::from_millis(600),
            deadline: Duration::from_secs(5),
            stalled_write: Duration::from_millis(600),
            max_entry_bytes: 1 << 20,
            max_batch_bytes: 1 << 20,
            window_entries: 8192,
            window_bytes: 4 << 20,
            max_uncommitted_bytes: 64 << 20,
            max_unapplied_bytes: 64 << 20,
            max_waiting_bytes: 64 << 20,
            memory_log_bytes: 8 << 20,
            max_log_bytes: 4 << 30,
        }
    }
}

/// Declares a setter a field.
macro_rules! setters {
    ($($field:ident: $type:ty),* $(,)?) => {
        impl Config {
            $(
                #[doc = concat!("Sets [`", stringify!($field), "`](field@Self::", stringify!($field), ").")]
                #[must_use]
                pub fn $field(mut self, $field: $type) -> Self {
                    self.$field = $field;
                    self
                }
            )*
        }
    };
}

setters! {
    heartbeat: Duration,
    election_timeout: RangeInclusive<Duration>,
    deadline: Duration,
    stalled_write: Duration,
    max_entry_bytes: usize,
    max_batch_bytes: usize,
    window_entries: usize,
    window_bytes: usize,
    max_uncommitted_bytes: usize,
    max_unapplied_bytes: usize,
    max_waiting_bytes: usize,
    memory_log_bytes: usize,
    max_log_bytes: u64,
}

/// Times are checked against this clock tick at the finest: below it a timer is no longer a timer.
const FINEST_TICK: Duration = Duration::from_millis(1);
/// The tick of the defaults.
const COARSEST_TICK: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(3600);

impl Config {
    /// Checks that every value is in its range.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] with the name of the first field that is not, and what it must be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_times()?;
        self.validate_sizes()
    }

    fn validate_times(&self) -> Result<(), ConfigError> {
        let (shortest, longest) = (*self.election_timeout.start(), *self.election_timeout.end());
        let range = format!("{shortest:?}..={longest:?}");
        let election = |holds, rule| check(holds, "election_timeout", &range, rule);
        check(
            self.heartbeat >= FINEST_TICK,
            "heartbeat",
            &format!("{:?}", self.heartbeat),
            "must be at least 1 ms",
        )?;
        election(
            shortest >= self.heartbeat.saturating_mul(2),
            "must begin at two heartbeats or more, or one late heartbeat starts an election",
        )?;
        election(
            longest >= shortest.saturating_add(self.heartbeat),
            "must end at least a heartbeat after its beginning, or servers campaign at once again and again",
        )?;
        election(longest <= LONGEST, "must end at an hour or less")?;
        let duration = |value: Duration, least: Duration, field, rule| {
            let given = format!("{value:?}");
            check(value >= least && value <= LONGEST, field, &given, rule)
        };
        duration(self.deadline, FINEST_TICK, "deadline", "must be between 1 ms and an hour")?;
        duration(
            self.stalled_write,
            self.heartbeat,
            "stalled_write",
            "must be between a heartbeat and an hour",
        )
    }

    fn validate_sizes(&self) -> Result<(), ConfigError> {
        let positive =
            |value: usize, field| check(value > 0, field, &value.to_string(), "must be at least 1");
        positive(self.max_entry_bytes, "max_entry_bytes")?;
        positive(self.max_batch_bytes, "max_batch_bytes")?;
        positive(self.window_entries, "window_entries")?;
        positive(self.window_bytes, "window_bytes")?;
        positive(self.max_uncommitted_bytes, "max_uncommitted_bytes")?;
        positive(self.max_unapplied_bytes, "max_unapplied_bytes")?;
        positive(self.max_waiting_bytes, "max_waiting_bytes")?;
        check(self.max_log_bytes > 0, "max_log_bytes", "0", "must be at least 1")?;
        let entry = self.max_entry_bytes.to_string();
        check(
            self.max_entry_bytes.saturating_add(HEADER_BYTES + Entry::OVERHEAD)
                <= self.max_uncommitted_bytes,
            "max_entry_bytes",
            &entry,
            "must be 64 bytes below `Config::max_uncommitted_bytes`, or the largest entries never get in",
        )?;
        check(
            self.max_entry_bytes <= MAX_ENTRY_BYTES,
            "max_entry_bytes",
            &entry,
            "must be at most 1 GiB: archives address their parts with 32 bits",
        )
    }

    /// The tick all times are counted in: at least five to a heartbeat where that is possible.
    fn tick(&self) -> Duration {
        (self.heartbeat / 5).clamp(FINEST_TICK, COARSEST_TICK)
    }

    /// The protocol's numbers for one server.
    pub(crate) fn for_node(&self, node: NodeId, cluster: ClusterId, seed: u64) -> NodeConfig {
        let tick = self.tick();
        let ticks = |time: Duration| {
            let ticks = time.as_nanos().div_ceil(tick.as_nanos().max(1));
            u64::try_from(ticks).unwrap_or(u64::MAX).max(1)
        };
        let heartbeat = self.heartbeat.as_nanos() / tick.as_nanos().max(1);
        let heartbeat = u64::try_from(heartbeat).unwrap_or(u64::MAX);
        let raft = raft::Config {
            cluster,
            seed,
            tick,
            // Rounded down where the others are rounded up, so that it stays below half of them.
            heartbeat_ticks: heartbeat.max(1),
            election_timeout_min_ticks: ticks(*self.election_timeout.start()),
            election_timeout_max_ticks: ticks(*self.election_timeout.end()),
            stalled_write_ticks: ticks(self.stalled_write),
            max_batch_bytes: self.max_batch_bytes,
            window_entries: self.window_entries,
            window_bytes: self.window_bytes,
            max_uncommitted_bytes: self.max_uncommitted_bytes,
            max_unapplied_bytes: self.max_unapplied_bytes,
            tail_bytes: self.memory_log_bytes,
            ..raft::Config::new(node)
        };
        NodeConfig {
            // A node counts the header too.
            max_entry_bytes: self.max_entry_bytes.saturating_add(HEADER_BYTES),
            max_log_bytes: self.max_log_bytes,
            inbox: InboxLimits { request_bytes: self.max_waiting_bytes, ..InboxLimits::default() },
            ..NodeConfig::new(raft)
        }
    }
}

impl Config {
    /// The numbers of the client that all requests of this process go through.
    pub(crate) fn for_client(&self) -> ClientConfig {
        ClientConfig {
            deadline: self.deadline,
            // By then the others have a new leader if the silent one was the cause.
            attempt_timeout: self.election_timeout.end().saturating_mul(2),
            ..ClientConfig::default()
        }
    }

    /// What the client's own check says, in the words of this configuration.
    pub(crate) fn refused_by_client(&self, error: &ClientConfigError) -> ConfigError {
        let (field, given) = match error.field {
            "attempt_timeout" => ("election_timeout", format!("{:?}", self.election_timeout)),
            field => (field, format!("{:?}", self.deadline)),
        };
        ConfigError { field, given, rule: error.rule }
    }
}

/// Archives address their parts relatively with 32 bits.
const MAX_ENTRY_BYTES: usize = 1 << 30;

fn check(
    holds: bool,
    field: &'static str,
    given: &str,
    rule: &'static str,
) -> Result<(), ConfigError> {
    if holds {
        return Ok(());
    }
    Err(ConfigError { field, given: given.to_owned(), rule })
}

/// A value of the configuration is out of its range.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`Config::{field}` is {given} and {rule}")]
#[non_exhaustive]
pub struct ConfigError {
    /// Which field.
    pub field: &'static str,
    /// What it was.
    pub given: String,
    /// What it must be.
    pub rule: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn node_config(config: &Config) -> NodeConfig {
        config.for_node(NodeId(1), ClusterId(2), 3)
    }

    #[test]
    fn the_defaults_are_those_of_the_protocol() {
        let config = Config::default();
        assert_eq!(config.validate(), Ok(()));
        let mapped = node_config(&config).raft;
        let mut own = raft::Config::new(NodeId(1));
        (own.cluster, own.seed) = (ClusterId(2), 3);
        assert_eq!(format!("{mapped:?}"), format!("{own:?}"));
    }

    #[test]
    fn whatever_is_valid_here_is_valid_for_the_protocol() {
        for heartbeat in [1, 2, 3, 7, 10, 33, 49, 50, 51, 500, 10_000] {
            let heartbeat = MS * heartbeat;
            for (shortest, longest) in [(2, 3), (2, 4), (6, 12), (100, 300)] {
                let config = Config::default()
                    .heartbeat(heartbeat)
                    .election_timeout(heartbeat * shortest..=heartbeat * longest)
                    .stalled_write(heartbeat * 2);
                assert_eq!(config.validate(), Ok(()));
                assert_eq!(node_config(&config).validate(), Ok(()), "{config:?}");
                assert_eq!(config.for_client().validate(), Ok(()), "{config:?}");
            }
        }
    }

    #[test]
    fn each_field_out_of_its_range_is_named_with_its_value() {
        let good = Config::default;
        let bad = [
            (good().heartbeat(Duration::ZERO), "heartbeat"),
            (good().heartbeat(MS * 200), "election_timeout"),
            (good().election_timeout(MS * 300..=MS * 300), "election_timeout"),
            (good().election_timeout(MS * 600..=MS * 300), "election_timeout"),
            (good().election_timeout(MS * 300..=Duration::MAX), "election_timeout"),
            (good().deadline(Duration::ZERO), "deadline"),
            (good().deadline(Duration::MAX), "deadline"),
            (good().stalled_write(Duration::ZERO), "stalled_write"),
            (good().max_entry_bytes(0), "max_entry_bytes"),
            (good().max_entry_bytes(65 << 20), "max_entry_bytes"),
            (good().max_entry_bytes(2 << 30).max_uncommitted_bytes(4 << 30), "max_entry_bytes"),
            (good().max_batch_bytes(0), "max_batch_bytes"),
            (good().window_entries(0), "window_entries"),
            (good().window_bytes(0), "window_bytes"),
            (good().max_uncommitted_bytes(0), "max_uncommitted_bytes"),
            (good().max_unapplied_bytes(0), "max_unapplied_bytes"),
            (good().max_waiting_bytes(0), "max_waiting_bytes"),
            (good().max_log_bytes(0), "max_log_bytes"),
        ];
        for (config, field) in bad {
            let error = config.validate().unwrap_err();
            assert_eq!(error.field, field);
            let text = error.to_string();
            let named = format!("`Config::{field}` is {} and must ", error.given);
            assert!(text.starts_with(&named), "{text}");
        }
    }
}
