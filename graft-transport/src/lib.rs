//! How servers and clients reach each other: implementations of [`graft_core::Transport`] and
//! [`graft_core::Link`].
//!
//! * [`Hub`] connects the servers and clients of one process. It is the network of clusters that live
//!   in one process, and of every test: its [`faults`](Hub::faults) cut, lose, repeat and delay.
//! * [`conformance`] is a suite of named checks that any transport and link can run, under any
//!   [`Runtime`](graft_core::Runtime) and any test framework.

pub mod conformance;
mod hub;

pub use hub::{Fault, FaultCounts, Hub, HubFaults, HubLink, HubTransport, Place};
