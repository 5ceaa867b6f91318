//! Identities by certificate, over real endpoints on the loopback address: who is let in, who is refused in
//! which words, and what a reload changes.

#![cfg(feature = "certs")]
// Helpers of tests panic like tests.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod accepting;
mod certs;
mod common;
mod custom;
mod dialing;
mod files;
mod raw;
mod reload;
mod revocation;
