//! The numbers by which a client works.

use std::time::Duration;

use graft_core::session::SessionSettings;

/// How a [`Client`](crate::Client) behaves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientConfig {
    /// How long a request may take from its first poll, where it does not say otherwise. Default 5 s:
    /// an election ends within two, so a change of leader is not seen from outside.
    pub deadline: Duration,
    /// How long one server may be silent before another is asked. Default 1.2 s, two election
    /// timeouts: by then the others have a new leader if this one is the cause. A request that such an end of
    /// an attempt brings back to a leader, or to the only server there is, waits twice as long there, then four times,
    /// and so on.
    pub attempt_timeout: Duration,
    /// The first wait after a refusal, half of it random. Default 10 ms: some round trips.
    pub backoff_min: Duration,
    /// The longest. Default 200 ms, below an election timeout: a new leader is found soon after it
    /// stands.
    pub backoff_max: Duration,
    /// How many commands may be under way in the session, counted from the oldest whose answer is
    /// wanted. Default 4,096: enough to keep the log busy, and the replies that servers must keep stay few.
    pub session_window: u32,
    /// After how long without a command the servers forget the session. Default 10 minutes: longer
    /// than any outage a request can live through.
    pub session_ttl: Duration,
    /// How many sessions the cluster keeps before the longest idle is closed. Default 100,000: their
    /// table then fits in memory.
    pub max_sessions: u32,
    /// How many requests may wait for their turn; above it they end as
    /// [`Overloaded`](crate::RequestError::Overloaded). Default 65,536: they only take memory.
    pub max_waiting: usize,
    #[cfg(feature = "mutants")]
    /// A known bug to switch on, for proving that tests catch it.
    pub mutant: Option<graft_core::raft::Mutant>,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(5),
            attempt_timeout: Duration::from_millis(1200),
            backoff_min: Duration::from_millis(10),
            backoff_max: Duration::from_millis(200),
            session_window: 4096,
            session_ttl: Duration::from_secs(600),
            max_sessions: 100_000,
            max_waiting: 65_536,
            #[cfg(feature = "mutants")]
            mutant: None,
        }
    }
}

impl ClientConfig {
    /// The most that `max_waiting` may be: a request's number has 20 bits for its slot.
    pub const MAX_WAITING: usize = 1_000_000;

    /// Checks that every value is in its range.
    ///
    /// # Errors
    ///
    /// [`ClientConfigError`] with the name of the first field that is not.
    pub fn validate(&self) -> Result<(), ClientConfigError> {
        let check = |ok: bool, field: &'static str, rule: &'static str| {
            if ok { Ok(()) } else { Err(ClientConfigError { field, rule }) }
        };
        check(!self.deadline.is_zero(), "deadline", "must not be zero")?;
        check(!self.attempt_timeout.is_zero(), "attempt_timeout", "must not be zero")?;
        check(
            !self.backoff_min.is_zero(),
            "backoff_min",
            "must not be zero, or refused requests are sent again at once for ever",
        )?;
        check(self.backoff_max >= self.backoff_min, "backoff_max", "must be at least backoff_min")?;
        let millis = self.session_ttl.as_millis();
        let least = u128::from(SessionSettings::MIN_TTL_MILLIS);
        let most = u128::from(SessionSettings::MAX_TTL_MILLIS);
        check(
            (least..=most).contains(&millis),
            "session_ttl",
            "must be between a second and a week",
        )?;
        check(
            (1..=SessionSettings::MAX_SESSIONS).contains(&self.max_sessions),
            "max_sessions",
            "must be between 1 and 1,000,000",
        )?;
        check(
            (1..=SessionSettings::MAX_WINDOW).contains(&self.session_window),
            "session_window",
            "must be between 1 and 16,384",
        )?;
        check(self.max_waiting <= Self::MAX_WAITING, "max_waiting", "must be at most 1,000,000")?;
        Ok(())
    }
}

/// A configuration value is out of its range.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`ClientConfig::{field}` {rule}")]
pub struct ClientConfigError {
    /// Which field.
    pub field: &'static str,
    /// What it must be.
    pub rule: &'static str,
}
