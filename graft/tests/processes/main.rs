//! Servers as processes of their own, over QUIC, with their logs on the disk, and a client in this one: they are
//! killed, paused, emptied, mixed up and flooded, and every acknowledged request is there exactly once.
//!
//! A server is this very executable, asked to run the test `child`, which does nothing unless the environment says
//! what to do: see [`child`]. [`Cluster`](cluster::Cluster) starts several of them, [`load`] keeps them busy and
//! [`history`] judges what was answered.
//!
//! With `GRAFT_LONG=1` many rounds instead of a few.

#![cfg(all(target_os = "linux", feature = "quic", feature = "redb"))]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is test code")]

mod child;
mod cluster;
mod flood;
mod flooder;
mod history;
mod kills;
mod load;
mod machine;
mod namespaces;
mod pauses;
mod process;
mod refusals;
mod smoke;

use std::{
    env,
    future::Future,
    io::{self, Write},
    time::Duration,
};

/// The longest that anything in these tests may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(60);

/// What `future` gives; a test that waits longer than [`PATIENCE`] fails.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("this should not have taken so long")
}

/// `short`, or `long` with `GRAFT_LONG=1`.
fn rounds(short: usize, long: usize) -> usize {
    if env::var_os("GRAFT_LONG").is_some_and(|value| value == "1") { long } else { short }
}

/// Says what was seen, past the test framework.
fn report(line: &str) {
    writeln!(io::stderr().lock(), "\n{line}").unwrap();
}

/// No test: what a child of the others runs.
#[test]
fn child() {
    child::run_if_asked();
    flooder::run_if_asked();
}
