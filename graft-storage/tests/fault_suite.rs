//! The fault half of the suite, tried on a simple store: it passes where the store is right, and each
//! of the classic mistakes is caught.

// Helpers of tests panic like tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod common;

use common::file_store::{Bug, open};
use graft_storage::{
    conformance::{
        Failure,
        faults::{Bits, Suite, Tally},
    },
    medium::Call,
};

fn suite(bug: Option<Bug>) -> Suite {
    Suite::new(move |medium| open(medium, bug))
        .naming(|text| text.contains("journal") || text.contains("witness"))
}

#[test]
fn a_simple_store_without_a_mistake_passes() {
    let tally = suite(None).run(0..6).unwrap();
    println!("{tally}");
    assert!(tally.workloads >= 24 && tally.crashes > 1000, "{tally}");
    assert!(tally.repeated > 500 && tally.failed_calls > 100, "{tally}");
    // This store removes and cuts only what a crash left behind, and here none came before.
    let is_used = |call: &Call| !matches!(call, Call::Remove | Call::SetLen);
    for call in Call::ALL.into_iter().filter(is_used) {
        assert!(tally.failed(call) > 0, "no call of the kind {call:?} failed: {tally}");
    }
    assert!(tally.reported > 0 && tally.reported < tally.flips, "{tally}");
}

#[test]
fn every_mistake_is_caught() {
    let crashes = |suite: Suite| suite.crash_points(0..40);
    let calls = |suite: Suite| suite.failing_calls(0..40);
    let full = |suite: Suite| suite.full_disk(0..40);
    let flips = |suite: Suite| suite.bit_flips(0..5, Bits::Sample(2000));
    type Run = fn(Suite) -> Result<Tally, Failure>;
    let cases: [(Bug, Run); 12] = [
        (Bug::AcknowledgesBeforeTheSync, crashes),
        (Bug::TrustsTheTail, crashes),
        (Bug::MakesARecordOfEachOrder, crashes),
        (Bug::RewritesInPlace, crashes),
        (Bug::RenamesWhatIsNotSynced, crashes),
        (Bug::ForgetsToSyncTheNames, crashes),
        (Bug::RecoversWhatIsNotSynced, crashes),
        (Bug::TriesAFailedSyncAgain, calls),
        (Bug::ForgetsThatItIsPoisoned, calls),
        (Bug::TakesAShortWriteForAWhole, full),
        (Bug::ReadsDamageAsTheEnd, flips),
        (Bug::ChecksNothing, flips),
    ];
    for (bug, run) in cases {
        let failure = run(suite(Some(bug))).expect_err(&format!("{bug:?} was missed"));
        println!("{bug:?}: {failure}");
    }
}
