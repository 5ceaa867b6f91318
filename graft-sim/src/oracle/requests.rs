//! What clients see: every request from its sending to its end.

use graft::{Outcome, RequestError};

use super::{Check, Judge, demand};

/// All requests of a run, by their numbers.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    all: Vec<Record>,
    open: u64,
    answered: u64,
    failed: u64,
    /// The highest place among the commands that an answer has told of.
    pub(super) told: Option<usize>,
}

#[derive(Debug)]
struct Record {
    /// What had been answered when it was sent: it comes after all of that.
    after: Option<usize>,
    /// Its place among the commands, once a machine has carried it out.
    applied: Option<usize>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Open,
    /// Its client is gone, or does not want the answer any more.
    Abandoned,
    Answered,
    NotApplied,
    Unknown,
}

/// How a request ended.
#[derive(Debug)]
pub(crate) enum End {
    /// With a response: where in the log it says that it was made, and its hash.
    Answered {
        index: u64,
        response: u64,
    },
    Failed(RequestError),
    /// Nobody waits for it any more.
    Abandoned,
}

impl Requests {
    pub(super) fn begin(&mut self) -> u64 {
        self.open += 1;
        self.all.push(Record { after: self.told, applied: None, state: State::Open });
        self.all.len() as u64 - 1
    }

    /// How many have not ended.
    pub(crate) const fn open(&self) -> u64 {
        self.open
    }

    pub(crate) const fn answered(&self) -> u64 {
        self.answered
    }

    pub(crate) fn total(&self) -> u64 {
        self.all.len() as u64
    }

    fn at(&mut self, operation: u64) -> Option<&mut Record> {
        self.all.get_mut(usize::try_from(operation).ok()?)
    }
}

impl Judge {
    /// A machine carried out a request, as number `place` of all commands.
    pub(super) fn apply_request(&mut self, operation: u64, place: usize) -> Check {
        let Some(record) = self.requests.at(operation) else {
            demand!(
                false,
                StateMachineSafety,
                "a machine carries out request {operation}, which nobody sent"
            );
            return Ok(());
        };
        demand!(record.applied.is_none(), ExactlyOnce, "request {operation} is applied twice");
        record.applied = Some(place);
        demand!(
            record.state != State::NotApplied,
            NotAppliedIsTrue,
            "request {operation} is applied after its client was told that it never would be"
        );
        Ok(())
    }

    pub(super) fn end_request(&mut self, operation: u64, end: &End) -> Check {
        let Some(record) = self.requests.at(operation) else { return Ok(()) };
        let (applied, after) = (record.applied, record.after);
        record.state = match end {
            End::Answered { .. } => State::Answered,
            End::Abandoned => State::Abandoned,
            End::Failed(error) => match error.outcome() {
                Outcome::NotApplied => State::NotApplied,
                _ => State::Unknown,
            },
        };
        self.requests.open -= 1;
        let place = match end {
            End::Abandoned => return Ok(()),
            End::Failed(error) => {
                self.requests.failed += 1;
                match error.outcome() {
                    Outcome::NotApplied => {
                        demand!(
                            applied.is_none(),
                            NotAppliedIsTrue,
                            "request {operation} was applied and ended as: {error}"
                        );
                        return Ok(());
                    }
                    Outcome::Applied => {
                        let Some(place) = applied else {
                            demand!(
                                false,
                                AppliedIsTrue,
                                "request {operation} was not applied and ended as: {error}"
                            );
                            return Ok(());
                        };
                        place
                    }
                    _ => return Ok(()),
                }
            }
            End::Answered { index, response } => {
                let known = applied.and_then(|place| self.machines.at(place));
                let told = (Some(*index), Some(*response));
                let made = (known.map(|known| known.index), known.and_then(|known| known.response));
                demand!(
                    told == made,
                    AcknowledgedSurvives,
                    "request {operation} was answered with {told:?}, the machines have {made:?}"
                );
                let Some(place) = applied else { return Ok(()) };
                self.requests.answered += 1;
                place
            }
        };
        // While every request is a command this follows from the other checks, because a place is given after the
        // sending and is the next one. It is held all the same: it is what clients are promised.
        demand!(
            after.is_none_or(|after| place > after),
            Linearizable,
            "request {operation} took effect as number {place}, before {after:?}, which had been answered when it was sent"
        );
        self.requests.told = self.requests.told.max(Some(place));
        Ok(())
    }
}
