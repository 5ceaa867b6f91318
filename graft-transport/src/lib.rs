//! How servers and clients reach each other: implementations of [`graft_core::Transport`] and
//! [`graft_core::Link`].
//!
//! * [`Hub`] connects the servers and clients of one process. It is the network of clusters that live
//!   in one process, and of every test: its [`faults`](Hub::faults) cut, lose, repeat and delay.
//! * [`conformance`] is a suite of named checks that any transport and link can run, under any
//!   [`Runtime`](graft_core::Runtime) and any test framework.
//! * `quic` (feature `quic`) connects servers and clients on different machines, over mutual TLS.
//! * `certs` (feature `certs`) makes the certificates that a cluster of one's own needs.

#[cfg(feature = "certs")]
pub mod certs;
pub mod conformance;
mod hub;
#[cfg(feature = "quic")]
pub mod quic;
#[cfg(feature = "wire")]
pub mod wire;

pub use hub::{Fault, FaultCounts, Hub, HubFaults, HubLink, HubTransport, Place};
