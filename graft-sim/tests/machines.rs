//! Machines that are wrong: what the simulator is for, seen by whoever has one of his own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is test code")]

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use graft::{Archive, Deserialize, Entry, Machine, Serialize};
use graft_sim::{Checker, Options, Outcome, Rng, Workload, simulate};

#[derive(Archive, Serialize, Deserialize, Debug)]
#[rkyv(crate = graft::rkyv)]
struct Add(u64);

impl Entry for Add {
    type Response = u64;
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// It panics over the fifth entry that it is given, whatever that is.
    PanicsOverTheFifth,
    /// It answers once with what it is not.
    LiesOverTheFortieth,
    /// Each machine comes to another state.
    CountsForItself,
}

struct Sum {
    total: u64,
    entries: u64,
    wrong: Wrong,
}

/// What makes two machines different.
static DRIFT: AtomicU64 = AtomicU64::new(0);

impl Machine for Sum {
    type Entry = Add;

    fn handle_entry(&mut self, Add(number): Add) -> u64 {
        self.entries += 1;
        match self.wrong {
            Wrong::PanicsOverTheFifth if self.entries == 5 => panic!("five is too many"),
            Wrong::LiesOverTheFortieth if self.entries == 40 => return 7,
            Wrong::CountsForItself => self.total += DRIFT.fetch_add(1, Ordering::Relaxed),
            _ => self.total += number,
        }
        self.total
    }
}

struct Adding(Wrong);

impl Workload for Adding {
    type Machine = Sum;
    type Open = u64;

    fn machine(&self) -> Sum {
        Sum { total: 0, entries: 0, wrong: self.0 }
    }

    fn request(&mut self, rng: &mut Rng) -> (Add, u64) {
        let number = rng.u64(10..20);
        (Add(number), number)
    }

    fn response(&mut self, number: u64, total: &u64) -> Result<(), String> {
        if self.0 == Wrong::CountsForItself || *total >= number {
            Ok(())
        } else {
            Err(format!("{total} is less than {number}"))
        }
    }

    fn state_hash(machine: &Sum) -> u64 {
        machine.total
    }
}

fn run(seed: u64, wrong: Wrong) -> Outcome {
    let options = Options::default().length(Duration::from_secs(30));
    simulate(seed, &options, |_: &mut Rng| Adding(wrong))
}

/// All of these seeds show that it is wrong, by this checker and with these words.
fn must_show(wrong: Wrong, checker: Checker, words: &str) {
    for seed in 0..6 {
        let violation = run(seed, wrong).violation.unwrap_or_else(|| panic!("seed {seed} passes"));
        assert_eq!(violation.checker, checker, "seed {seed}: {violation}");
        assert!(violation.what.contains(words), "seed {seed}: {violation}");
    }
}

#[test]
fn a_machine_that_is_right_passes_although_the_simulator_makes_it_panic() {
    let outcomes: Vec<Outcome> = (0..6).map(|seed| run(seed, Wrong::Nothing)).collect();
    assert!(outcomes.iter().all(|outcome| outcome.violation.is_none()), "{outcomes:?}");
    let panics = |outcome: &Outcome| outcome.faults.of(graft_sim::FaultKind::MachinePanic);
    assert!(outcomes.iter().map(panics).sum::<u64>() > 0, "no panic was meant");
}

#[test]
fn a_machine_that_panics_by_itself_is_a_violation_with_its_words() {
    let words = "the machine panicked by itself over request";
    must_show(Wrong::PanicsOverTheFifth, Checker::NothingUnexplained, words);
    must_show(Wrong::PanicsOverTheFifth, Checker::NothingUnexplained, ": five is too many");
}

#[test]
fn an_answer_that_the_workload_knows_to_be_wrong_is_a_violation() {
    must_show(Wrong::LiesOverTheFortieth, Checker::ResponseFits, "7 is less than 1");
}

#[test]
fn machines_that_come_to_different_states_are_a_violation() {
    must_show(Wrong::CountsForItself, Checker::StateHash, "comes to");
}
