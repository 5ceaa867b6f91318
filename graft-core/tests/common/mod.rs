//! A small deterministic cluster of pure `Raft`s, turned by hand: clocks that move when told, links
//! that can be cut, disks that complete when told, and an audit of Raft's promises after every
//! turn.

#![allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "every test file compiles these helpers for itself and uses a part of them"
)]

mod audit;
mod cluster;
mod disk;
mod messages;
mod server;
mod trace;
mod words;

use graft_core::NodeId;

pub(crate) use audit::Audit;
pub(crate) use cluster::Cluster;
pub(crate) use disk::Disk;
pub(crate) use messages::*;
pub(crate) use server::Server;
pub(crate) use words::message_words;

pub(crate) const A: NodeId = NodeId(1);
pub(crate) const B: NodeId = NodeId(2);
pub(crate) const C: NodeId = NodeId(3);
pub(crate) const D: NodeId = NodeId(4);
pub(crate) const E: NodeId = NodeId(5);
pub(crate) const F: NodeId = NodeId(6);
pub(crate) const G: NodeId = NodeId(7);

pub(crate) const ONE: &[NodeId] = &[A];
pub(crate) const TWO: &[NodeId] = &[A, B];
pub(crate) const THREE: &[NodeId] = &[A, B, C];
pub(crate) const FOUR: &[NodeId] = &[A, B, C, D];
pub(crate) const FIVE: &[NodeId] = &[A, B, C, D, E];
pub(crate) const SEVEN: &[NodeId] = &[A, B, C, D, E, F, G];

/// The letter of a server: `a` is number 1.
pub(crate) fn name_of(node: NodeId) -> char {
    char::from(b'a' + u8::try_from(node.0 - 1).expect("servers have small numbers in tests"))
}
