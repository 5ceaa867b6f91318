//! What was done to a medium, kept so that a crash can be put anywhere into it.

use std::fmt;

use super::{
    FaultyMedium,
    image::Image,
    platter::{Machine, Step},
};

/// All that was done to a [`FaultyMedium`], in order.
///
/// A crash at boundary `k` is one at which the first `k` things were done and the next was not begun. What
/// was done in part when the power went is among what a crash after it may leave.
#[derive(Clone)]
pub struct Trace {
    start: Machine,
    steps: Vec<Step>,
}

impl Trace {
    pub(super) fn beginning_at(start: Machine) -> Self {
        Self { start, steps: Vec::new() }
    }

    pub(super) fn push(&mut self, step: Step) {
        self.steps.push(step);
    }

    /// How many things were done: there are crash points from 0 up to and including this.
    #[must_use]
    pub fn boundaries(&self) -> u64 {
        self.steps.len() as u64
    }

    /// The crash points in order, beginning at boundary 0.
    #[must_use]
    pub fn replay(&self) -> Replay<'_> {
        Replay { machine: self.start.clone(), steps: &self.steps, at: 0 }
    }

    /// The crash point at `boundary`, or at the last where there are fewer.
    #[must_use]
    pub fn at(&self, boundary: u64) -> Replay<'_> {
        let mut replay = self.replay();
        while replay.at < boundary && replay.advance() {}
        replay
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace").field("boundaries", &self.boundaries()).finish_non_exhaustive()
    }
}

/// A moment in a [`Trace`].
#[derive(Clone)]
pub struct Replay<'a> {
    machine: Machine,
    steps: &'a [Step],
    at: u64,
}

impl Replay<'_> {
    /// How many things were done.
    #[must_use]
    pub fn boundary(&self) -> u64 {
        self.at
    }

    /// What would be done next, in words, or `None` at the end.
    #[must_use]
    pub fn next_step(&self) -> Option<String> {
        self.steps.first().map(|step| step.describe(&self.machine.cache))
    }

    /// Goes to the next boundary, and says whether there was one.
    pub fn advance(&mut self) -> bool {
        let Some((step, rest)) = self.steps.split_first() else { return false };
        self.machine.perform(step, |_| false);
        self.steps = rest;
        self.at += 1;
        true
    }

    /// What the next process finds where the power goes here: [`FaultyMedium::crash`].
    #[must_use]
    pub fn crash(&self, seed: u64) -> FaultyMedium {
        FaultyMedium::holding(self.machine.crash(seed), seed)
    }

    /// What the next process finds where this one ends here: [`FaultyMedium::exit`].
    #[must_use]
    pub fn exit(&self, seed: u64) -> FaultyMedium {
        FaultyMedium::of(self.machine.clone().exit(), seed)
    }

    /// What whoever reads here sees.
    #[must_use]
    pub fn image(&self) -> Image {
        self.machine.clone().exit().cache
    }
}

impl fmt::Debug for Replay<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay").field("boundary", &self.at).finish_non_exhaustive()
    }
}
