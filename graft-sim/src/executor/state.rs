//! What an executor holds: tasks, timers, calls and processes, behind one lock.

use std::{cmp::Reverse, collections::BinaryHeap, task::Waker};

use graft_core::BoxFuture;

use super::{ProcessId, tasks::Drawn, tasks::Tasks, timers::Timers};
use crate::clock::Clock;

/// Everything an executor knows.
pub(super) struct State {
    /// The time of the world, in nanoseconds.
    pub(super) now: u64,
    pub(super) rng: fastrand::Rng,
    pub(super) tasks: Tasks,
    /// Those that were woken, each at most once, in the order of their numbers: who is woken first may be left to
    /// chance, as the watches of tokio do, and must not make a difference.
    pub(super) ready: Vec<u32>,
    pub(super) timers: Timers,
    processes: Vec<Process>,
    due: BinaryHeap<Reverse<Entry>>,
    sequence: u64,
    pub(super) blocking_delay: u64,
    /// Set once nothing is to happen any more.
    pub(super) halted: bool,
    pub(super) events: u64,
    pub(super) hash: u64,
}

struct Process {
    clock: Clock,
    alive: bool,
    paused_until: u64,
    /// Its tasks that were woken while it was paused.
    parked: Vec<u32>,
}

/// Something that happens at a moment.
struct Entry {
    at: u64,
    sequence: u64,
    due: Due,
}

pub(super) enum Due {
    /// A timer, as it was set last: one that was set again or dropped has another number.
    Timer {
        slot: u32,
        number: u64,
    },
    Call(Box<dyn FnOnce() + Send>),
}

/// What has become due.
pub(super) enum Fired {
    Timer(Waker),
    Call(Box<dyn FnOnce() + Send>),
}

/// What is taken out to be dropped without the lock.
#[derive(Default)]
pub(super) struct Rest {
    pub(super) futures: Vec<BoxFuture>,
    wakers: Vec<Waker>,
    calls: Vec<Box<dyn FnOnce() + Send>>,
}

impl Rest {
    pub(super) fn is_empty(&self) -> bool {
        self.futures.is_empty() && self.wakers.is_empty() && self.calls.is_empty()
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.sequence) == (other.at, other.sequence)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

impl State {
    pub(super) fn new(seed: u64) -> Self {
        let first = Process::new(Clock::default());
        Self {
            now: 0,
            rng: fastrand::Rng::with_seed(seed),
            tasks: Tasks::default(),
            ready: Vec::new(),
            timers: Timers::default(),
            processes: vec![first],
            due: BinaryHeap::new(),
            sequence: 0,
            blocking_delay: 0,
            halted: false,
            events: 0,
            hash: seed,
        }
    }

    // -- Time --------------------------------------------------------------------------------------

    pub(super) fn push(&mut self, at: u64, due: Due) {
        self.sequence += 1;
        self.due.push(Reverse(Entry { at, sequence: self.sequence, due }));
    }

    /// Moves the time to the next thing that is due, if that is not past `deadline`.
    pub(super) fn advance(&mut self, deadline: u64) -> bool {
        loop {
            let Some(Reverse(next)) = self.due.peek() else { return false };
            if next.at > deadline {
                return false;
            }
            // What was set again since costs nothing but this look.
            if let Due::Timer { slot, number } = next.due
                && !self.timers.is(slot, number)
            {
                self.due.pop();
                continue;
            }
            self.now = self.now.max(next.at);
            return true;
        }
    }

    /// Takes the next thing that is due by now.
    pub(super) fn fire(&mut self) -> Option<Fired> {
        loop {
            let next = self.due.peek()?;
            if next.0.at > self.now || self.halted {
                return None;
            }
            let Reverse(entry) = self.due.pop()?;
            match entry.due {
                Due::Call(call) => {
                    self.count(entry.at);
                    return Some(Fired::Call(call));
                }
                Due::Timer { slot, number } => {
                    if let Some(waker) = self.timers.fire(slot, number) {
                        return Some(Fired::Timer(waker));
                    }
                }
            }
        }
    }

    /// Counts an event and mixes it into the hash.
    pub(super) fn count(&mut self, what: u64) {
        self.events += 1;
        let mixed = (self.hash ^ what).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.hash = mixed ^ (mixed >> 29) ^ self.now;
    }

    // -- Processes ---------------------------------------------------------------------------------

    fn process(&self, process: ProcessId) -> &Process {
        &self.processes[process.0 as usize]
    }

    fn process_mut(&mut self, process: ProcessId) -> &mut Process {
        &mut self.processes[process.0 as usize]
    }

    pub(super) fn add_process(&mut self, clock: Clock) -> ProcessId {
        let id = u32::try_from(self.processes.len()).unwrap_or(u32::MAX);
        self.processes.push(Process::new(clock));
        ProcessId(id)
    }

    pub(super) fn is_alive(&self, process: ProcessId) -> bool {
        self.process(process).alive
    }

    pub(super) fn shown_by(&self, process: ProcessId) -> u64 {
        self.process(process).clock.at(self.now)
    }

    pub(super) fn unix_millis(&self, process: ProcessId) -> u64 {
        self.process(process).clock.unix_millis(self.now)
    }

    pub(super) fn moment_of(&self, process: ProcessId, shown: u64) -> u64 {
        self.process(process).clock.moment_of(shown)
    }

    /// Turns a clock, and moves its timers to where they now belong.
    pub(super) fn turn_clock(&mut self, process: ProcessId, turn: impl FnOnce(&mut Clock, u64)) {
        let now = self.now;
        turn(&mut self.process_mut(process).clock, now);
        for (slot, number, deadline) in self.timers.renumber(process) {
            let at = self.moment_of(process, deadline);
            self.push(at, Due::Timer { slot, number });
        }
    }

    /// A task was woken.
    pub(super) fn make_ready(&mut self, task: u32) {
        let at = self.ready.partition_point(|other| *other < task);
        self.ready.insert(at, task);
    }

    /// Pauses a process. Gives the moment at which the pause ends.
    pub(super) fn pause(&mut self, process: ProcessId, length: u64) -> u64 {
        let until = self.now.saturating_add(length);
        let paused = self.process_mut(process);
        paused.paused_until = paused.paused_until.max(until);
        until
    }

    pub(super) fn resume(&mut self, process: ProcessId) {
        let now = self.now;
        let paused = self.process_mut(process);
        if paused.paused_until <= now {
            let parked = std::mem::take(&mut paused.parked);
            parked.into_iter().for_each(|task| self.make_ready(task));
        }
    }

    pub(super) fn end_pauses(&mut self, process: ProcessId) {
        self.process_mut(process).paused_until = 0;
        self.resume(process);
    }

    pub(super) fn kill(&mut self, process: ProcessId) -> Rest {
        let ended = self.process_mut(process);
        ended.alive = false;
        ended.parked = Vec::new();
        let futures = self.tasks.end(process);
        let tasks = &self.tasks;
        self.ready.retain(|task| tasks.is_there(*task));
        Rest { futures, ..Rest::default() }
    }

    /// Takes a ready task out, any of them with equal chance.
    pub(super) fn draw(&mut self) -> Option<Drawn> {
        while !self.ready.is_empty() {
            let drawn = match self.ready.len() {
                1 => 0,
                several => self.rng.usize(..several),
            };
            let id = self.ready.remove(drawn);
            let process = self.tasks.process_of(id);
            let now = self.now;
            let home = self.process_mut(process);
            if home.paused_until > now {
                home.parked.push(id);
                continue;
            }
            self.count(u64::from(id));
            if let Some(drawn) = self.tasks.take(id) {
                return Some(drawn);
            }
        }
        None
    }

    /// Ends the turn of a task. Gives back what has ended with it.
    pub(super) fn put_back(&mut self, drawn: Drawn, pending: bool) -> Option<BoxFuture> {
        self.tasks.put_back(drawn, pending)
    }

    /// Most work that may block begins at once, and some of it late.
    pub(super) fn draw_blocking_delay(&mut self) -> u64 {
        match self.blocking_delay {
            0 => 0,
            longest if self.rng.u32(..8) == 0 => self.rng.u64(..longest),
            _ => 0,
        }
    }

    pub(super) fn take_everything(&mut self) -> Rest {
        self.halted = true;
        self.ready.clear();
        let calls = std::mem::take(&mut self.due).into_iter().filter_map(|entry| {
            let Due::Call(call) = entry.0.due else { return None };
            Some(call)
        });
        let calls = calls.collect();
        Rest { futures: self.tasks.end_all(), wakers: self.timers.take_all(), calls }
    }
}

impl Process {
    const fn new(clock: Clock) -> Self {
        Self { clock, alive: true, paused_until: 0, parked: Vec::new() }
    }
}
