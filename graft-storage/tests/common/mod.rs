//! What the fault tests share.

// Helpers of tests panic like tests, and not every test needs all of them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    dead_code,
    unreachable_pub
)]

pub mod file_store;

/// Whether the long versions of the tests are wanted.
pub fn is_long() -> bool {
    std::env::var_os("GRAFT_LONG").is_some_and(|value| !value.is_empty() && value != "0")
}
