//! A store's life on one medium: work, and what may be found if it ends at any boundary.

use std::{error::Error, ops::RangeInclusive, sync::Arc, task::Poll};

use graft_core::{LogStore, StoreError};

use super::{Suite, Workload};
use crate::{
    conformance::block_on,
    medium::{FaultyMedium, random::Random},
};

/// What a store acknowledged and was asked to do, and by which boundary.
///
/// The states in which it may be found after an end at boundary `k` are those from the last that was
/// known to be durable by then up to the last whose batch was begun before.
#[derive(Clone, Debug)]
pub(super) struct Marks {
    /// Possible at the beginning.
    start: RangeInclusive<usize>,
    marks: Vec<(u64, Mark)>,
    /// The states from which two batches were given at once, so that one commit may hold both.
    pairs: Vec<usize>,
}

#[derive(Clone, Copy, Debug)]
enum Mark {
    /// It was found in this state: nothing else is possible any more.
    Found(usize),
    /// What leads to this state was begun.
    Submitted(usize),
    /// What leads to this state was acknowledged.
    Acknowledged(usize),
}

impl Marks {
    fn new(start: RangeInclusive<usize>) -> Self {
        Self { start, marks: Vec::new(), pairs: Vec::new() }
    }

    /// The earliest state in which a store may be that lost the commit which led to `state`.
    pub(super) fn before_commit(&self, state: usize) -> usize {
        let two = state.checked_sub(2).filter(|before| self.pairs.contains(before));
        two.unwrap_or_else(|| state.saturating_sub(1))
    }

    /// The states in which the store may be after an end at `boundary`.
    pub(super) fn allowed(&self, boundary: u64) -> RangeInclusive<usize> {
        let (mut first, mut last) = self.start.clone().into_inner();
        for (at, mark) in &self.marks {
            match *mark {
                Mark::Found(state) if *at <= boundary => (first, last) = (state, state),
                Mark::Acknowledged(state) if *at <= boundary => {
                    (first, last) = (first.max(state), last.max(state));
                }
                // What was begun at this very boundary has not reached the medium yet.
                Mark::Submitted(state) if *at < boundary => last = last.max(state),
                _ => {}
            }
        }
        first..=last
    }
}

/// A store on a medium, its work, and where it stands.
pub(super) struct Life<'a> {
    pub(super) suite: &'a Suite,
    pub(super) workload: &'a Workload,
    pub(super) medium: FaultyMedium,
    pub(super) store: Option<Arc<dyn LogStore>>,
    /// The state that the store is in.
    pub(super) state: usize,
    pub(super) marks: Marks,
}

/// Why a life ended.
#[derive(Debug)]
pub(super) enum End {
    /// The store reported this error.
    Reported(String, Option<StoreError>),
    /// A promise was broken.
    Broken(String),
}

impl End {
    /// In words, where an error is no excuse.
    pub(super) fn into_words(self) -> String {
        match self {
            Self::Reported(what, _) => format!("unexpectedly, {what}"),
            Self::Broken(what) => what,
        }
    }
}

impl<'a> Life<'a> {
    /// On a medium whose store is in one of the states `start`.
    pub(super) fn new(
        suite: &'a Suite,
        workload: &'a Workload,
        medium: FaultyMedium,
        start: RangeInclusive<usize>,
    ) -> Self {
        let state = *start.start();
        Self { suite, workload, medium, store: None, state, marks: Marks::new(start) }
    }

    /// Opens the store, recovers it, reads everything and compares.
    pub(super) fn open(&mut self) -> Result<(), End> {
        let opened = (self.suite.open)(Arc::new(self.medium.clone()));
        let store = opened
            .map_err(|error| End::Reported(format!("opening failed: {}", chain(&*error)), None))?;
        self.store = Some(store);
        self.check()
    }

    /// Recovers and reads everything, and compares.
    pub(super) fn check(&mut self) -> Result<(), End> {
        let allowed = self.allowed_now();
        let Some(store) = self.store.clone() else { return Ok(()) };
        let found = self.wait("recover", self.workload.find(&*store, allowed))?;
        let state = found.map_err(|mismatch| End::Broken(mismatch.to_string()))?;
        self.state = state;
        // Only what a power cut cannot undo is recovered, so from here on it must stay.
        self.mark(Mark::Found(state));
        Ok(())
    }

    /// The states in which the store may be now.
    pub(super) fn allowed_now(&self) -> RangeInclusive<usize> {
        self.marks.allowed(u64::MAX)
    }

    /// Closes the store and forgets it.
    pub(super) fn close(&mut self) {
        self.store = None;
    }

    /// How many batches are left.
    pub(super) fn left(&self) -> usize {
        self.workload.batches() - self.state
    }

    /// Does the next batch, or the next two together where that is possible and `random` says so.
    pub(super) fn work(&mut self, random: &mut Random) -> Result<(), End> {
        let next = self.state;
        let is_pair = self.left() > 1
            && !self.workload.stages(next)
            && !self.workload.stages(next + 1)
            && random.percent(10);
        if is_pair { self.work_on_two() } else { self.work_on_one() }
    }

    fn work_on_one(&mut self) -> Result<(), End> {
        let number = self.state;
        let Some(store) = self.store.clone() else { return Ok(()) };
        self.mark(Mark::Submitted(number + 1));
        self.wait("write", self.workload.perform(&*store, number))?;
        self.acknowledge();
        Ok(())
    }

    /// Gives the store a write while the one before is on its way.
    fn work_on_two(&mut self) -> Result<(), End> {
        let number = self.state;
        let Some(store) = self.store.clone() else { return Ok(()) };
        self.marks.pairs.push(number);
        self.mark(Mark::Submitted(number + 1));
        self.mark(Mark::Submitted(number + 2));
        let (workload, medium) = (self.workload, &self.medium);
        let mut writes =
            [number, number + 1].map(|batch| Box::pin(workload.perform(&*store, batch)));
        let mut outcomes = [None, None];
        // The first poll of a write submits it, so they are submitted in order.
        let both = std::future::poll_fn(|context| {
            for (write, outcome) in writes.iter_mut().zip(&mut outcomes) {
                if outcome.is_none()
                    && let Poll::Ready(ready) = write.as_mut().poll(context)
                {
                    *outcome = Some((medium.boundaries(), ready));
                }
            }
            if outcomes.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
        });
        if block_on(self.suite.limit, both).is_none() {
            return Err(End::Broken("two writes that were given at once hang".to_owned()));
        }
        drop(writes);
        let mut error = None;
        for (at, outcome) in outcomes.into_iter().flatten() {
            match (outcome, &error) {
                (Ok(()), None) => {
                    self.state += 1;
                    self.marks.marks.push((at, Mark::Acknowledged(self.state)));
                }
                (Ok(()), Some(_)) => {
                    let what = "a write was acknowledged though the one before it failed";
                    return Err(End::Broken(what.to_owned()));
                }
                (Err(first), None) => error = Some(first),
                (Err(_), Some(_)) => {}
            }
        }
        error.map_or(Ok(()), |error| Err(reported("write", error)))
    }

    fn acknowledge(&mut self) {
        self.state += 1;
        self.mark(Mark::Acknowledged(self.state));
    }

    fn mark(&mut self, mark: Mark) {
        self.marks.marks.push((self.medium.boundaries(), mark));
    }

    /// The output of what the store was asked to do.
    pub(super) fn wait<T>(
        &self,
        what: &'static str,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, End> {
        match block_on(self.suite.limit, work) {
            Some(outcome) => outcome.map_err(|error| reported(what, error)),
            None => Err(End::Broken(format!("the store hangs: {what}"))),
        }
    }
}

fn reported(what: &'static str, error: StoreError) -> End {
    End::Reported(format!("`{what}` failed: {}", chain(&error)), Some(error))
}

/// An error and what caused it.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
