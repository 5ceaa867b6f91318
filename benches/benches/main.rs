//! The costs of graft's parts, from a slice of entries to a client's round trip.
//!
//! `cargo bench -p graft-benches -- raft` measures what has `raft` in its name; `-- --test` runs
//! everything once.

#![expect(clippy::expect_used, reason = "a bench that cannot go on ends, as a test does")]

mod entries;
mod memory_store;
mod raft_step;
mod redb_store;
mod round_trip;
mod sessions;

use std::time::Duration;

use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    entries::bench(&mut criterion);
    memory_store::bench(&mut criterion);
    redb_store::bench(&mut criterion);
    sessions::bench(&mut criterion);
    raft_step::bench(&mut criterion);
    round_trip::bench(&mut criterion);
    criterion.final_summary();
}
