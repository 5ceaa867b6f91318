//! The wire format, as a transport uses it and as an attacker would.
#![cfg(feature = "wire")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod batches;
mod chains;
mod corpus;
mod fixtures;
mod frames;
mod malformed;
mod round_trips;
mod samples;
#[expect(unreachable_pub, reason = "the fuzz targets use it as a library")]
#[path = "../../../fuzz/src/targets.rs"]
mod targets;
