//! Servers and clients over QUIC, on the loopback address and in real time.

#![cfg(feature = "quic")]
// Helpers of tests panic like tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod agreement;
mod authority;
mod calls;
mod certificates;
mod common;
mod conformance;
mod frames;
mod handshakes;
mod identity;
mod intake;
mod limits;
mod log;
mod logged;
mod members;
#[cfg(target_os = "linux")]
mod memory;
mod network;
mod raw;
mod security;
mod stalled;
