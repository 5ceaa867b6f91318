//! The contenders, a file each.

mod face;
mod minimal;
mod node;
mod openraft_0_10;
mod openraft_0_9;
mod peer_log;

use crate::{Bench, Contender};
use face::{Face, FaceOnDisk};
use minimal::Minimal;
use node::{NodeOnDisk, NodePlain, NodeSession};
use openraft_0_9::Openraft09;
use openraft_0_10::Openraft010;

/// Everyone on memory, graft first.
#[must_use]
pub fn all() -> Vec<Box<dyn Contender>> {
    let mut all = graft();
    all.extend(peers());
    all
}

/// Graft, by each of its doors.
#[must_use]
pub fn graft() -> Vec<Box<dyn Contender>> {
    vec![
        Box::new(Bench::<NodeSession>::new()),
        Box::new(Bench::<NodePlain>::new()),
        Box::new(Bench::<Face>::new()),
    ]
}

/// The peers.
#[must_use]
pub fn peers() -> Vec<Box<dyn Contender>> {
    vec![Box::new(Bench::<Openraft09>::new()), Box::new(Bench::<Openraft010>::new())]
}

/// Graft on the disk.
#[must_use]
pub fn graft_on_disk() -> Vec<Box<dyn Contender>> {
    vec![Box::new(Bench::<NodeOnDisk>::new()), Box::new(Bench::<FaceOnDisk>::new())]
}

/// What graft on the disk is held against.
#[must_use]
pub fn baselines_on_disk() -> Vec<Box<dyn Contender>> {
    vec![Box::new(Bench::<Minimal>::new())]
}
