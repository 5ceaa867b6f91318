//! A process that writes to a redb store is killed at any instant: the next finds what was acknowledged.
//!
//! With `GRAFT_LONG=1` 5,000 times instead of 200.

// Helpers of tests panic like tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]
#![cfg(all(feature = "redb", unix))]

mod common;

use std::time::{Duration, Instant};

use common::{
    child::{self, BATCHES, Task, Worker},
    directory::Directory,
    is_long,
};
use graft_storage::conformance::faults::Workload;

#[test]
fn child() {
    child::run_if_asked();
}

#[test]
fn a_store_whose_writer_is_killed_keeps_what_it_acknowledged() {
    let kills = if is_long() { 5000 } else { 200 };
    let mut random = numbers(7);
    let (mut killed, mut acknowledged, mut lives) = (0, 0, 0);
    for seed in 0.. {
        let directory = Directory::new("sigkill");
        let workload = Workload::generate(seed, BATCHES);
        let mut allowed = 0..=0;
        lives += 1;
        loop {
            let before = *allowed.start();
            let path = directory.path().to_str().unwrap().to_owned();
            let mut worker =
                Worker::start("child", Task { directory: path, seed, allowed }, &workload);
            // Some are killed as they open the store, most a little after some write.
            worker.follow(usize::try_from(random() % 12).unwrap());
            let instant = Instant::now() + Duration::from_micros(random() % 3000);
            while Instant::now() < instant {
                std::hint::spin_loop();
            }
            let is_done = worker.is_done;
            allowed = worker.kill();
            killed += 1;
            acknowledged += allowed.start() - before;
            if random() < u64::MAX / 2 {
                let state = child::look(&workload, directory.path(), allowed);
                allowed = state..=state;
            }
            if killed == kills {
                println!("killed={killed} acknowledged={acknowledged} lives={lives}");
                return;
            }
            if is_done || *allowed.start() == workload.batches() {
                break;
            }
        }
    }
}

fn numbers(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_add(1);
        graft_core::stable_hash(&state.to_le_bytes())
    }
}
