//! What clients asked, what they were told, and when; and whether that can be true.
//!
//! Moments are numbers of one counter: if a call ended at a lower number than another began at, it really ended before
//! the other began. [`judge`] wants every register to be linearizable ([`registers`]) and every list to hold each
//! acknowledged value once, at the place that was told, in an order that agrees with real time ([`lists`]).

mod lists;
mod registers;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use graft::{Client, Outcome, RequestError};
use tokio::sync::watch;

use crate::machine::{Ask, Told};

/// One request of one client.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) ask: Ask,
    /// When it was sent.
    pub(crate) began: u64,
    pub(crate) end: End,
}

/// How a call ended.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum End {
    /// It was answered at this moment.
    Answered { at: u64, told: Told },
    /// It was never applied and never will be.
    NotApplied,
    /// It may have been applied, or may still be.
    Unknown,
}

/// Takes down the calls of all clients of a test. Clones take down together.
#[derive(Clone, Debug)]
pub(crate) struct Recorder(Arc<Recording>);

#[derive(Debug)]
struct Recording {
    clock: AtomicU64,
    calls: Mutex<Vec<Call>>,
    answered: watch::Sender<u64>,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Recording {
            clock: AtomicU64::new(0),
            calls: Mutex::default(),
            answered: watch::Sender::new(0),
        }))
    }

    /// Asks, and takes down what came of it.
    pub(crate) async fn ask(
        &self,
        client: &Client<Ask>,
        ask: Ask,
        deadline: Duration,
    ) -> Result<Told, RequestError> {
        let mut open = Open { recorder: self, ask, began: self.now(), end: End::Unknown };
        let answer = client.request(open.ask.clone()).deadline(deadline).await;
        open.end = match &answer {
            Ok(told) => End::Answered { at: self.now(), told: told.clone() },
            Err(error) if error.outcome() == Outcome::NotApplied => End::NotApplied,
            Err(error) => {
                // This machine does not panic, and its answers can be read.
                assert_eq!(error.outcome(), Outcome::Unknown, "{:?}: {error}", open.ask);
                End::Unknown
            }
        };
        answer
    }

    /// How many calls were answered; to be waited for.
    pub(crate) fn answered(&self) -> watch::Receiver<u64> {
        self.0.answered.subscribe()
    }

    /// All calls so far that have ended.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.0.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn now(&self) -> u64 {
        self.0.clock.fetch_add(1, Ordering::SeqCst)
    }
}

/// A call under way. One that is given up is in the history, too.
struct Open<'a> {
    recorder: &'a Recorder,
    ask: Ask,
    began: u64,
    end: End,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let Recording { calls, answered, .. } = &*self.recorder.0;
        let call = Call { ask: self.ask.clone(), began: self.began, end: self.end.clone() };
        let was_answered = matches!(call.end, End::Answered { .. });
        calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
        if was_answered {
            answered.send_modify(|count| *count += 1);
        }
    }
}

/// How many calls a history has, by how they ended.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Tally {
    pub(crate) answered: usize,
    pub(crate) not_applied: usize,
    pub(crate) unknown: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { answered, not_applied, unknown } = self;
        write!(f, "answered={answered} not_applied={not_applied} unknown={unknown}")
    }
}

/// Whether all this can be true. Every list must have been read once more after all else.
///
/// # Errors
///
/// What cannot, in words.
pub(crate) fn judge(calls: &[Call]) -> Result<Tally, String> {
    let mut by_register: BTreeMap<u32, Vec<&Call>> = BTreeMap::new();
    let mut by_list: BTreeMap<u32, Vec<&Call>> = BTreeMap::new();
    let mut tally = Tally::default();
    for call in calls {
        match call.ask {
            Ask::Read { key } | Ask::Write { key, .. } | Ask::Swap { key, .. } => {
                by_register.entry(key).or_default().push(call);
            }
            Ask::Append { key, .. } | Ask::List { key } => {
                by_list.entry(key).or_default().push(call);
            }
            Ask::Nothing { .. } => {}
        }
        match call.end {
            End::Answered { .. } => tally.answered += 1,
            End::NotApplied => tally.not_applied += 1,
            End::Unknown => tally.unknown += 1,
        }
    }
    for (key, calls) in &by_register {
        registers::check(calls).map_err(|wrong| format!("register {key}: {wrong}"))?;
    }
    for (key, calls) in &by_list {
        lists::check(calls).map_err(|wrong| format!("list {key}: {wrong}"))?;
    }
    Ok(tally)
}

/// Calls as tests of the checks write them.
#[cfg(test)]
mod samples {
    use super::{Call, End};
    use crate::machine::{Ask, Told};

    pub(super) const KEY: u32 = 7;

    pub(super) fn answered(began: u64, at: u64, ask: Ask, told: Told) -> Call {
        Call { ask, began, end: End::Answered { at, told } }
    }

    pub(super) fn unknown(began: u64, ask: Ask) -> Call {
        Call { ask, began, end: End::Unknown }
    }

    pub(super) fn not_applied(began: u64, ask: Ask) -> Call {
        Call { ask, began, end: End::NotApplied }
    }
}
