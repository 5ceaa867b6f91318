//! The contenders, a file each.

mod face;
mod loopback;
mod minimal;
mod node;
mod openraft_0_10;
mod openraft_0_9;
mod peer_log;
mod served;

use clap::ValueEnum;

use crate::{Bench, Contender};
use face::{Command, Face, FaceOnDisk, Filled, Nothing};
use minimal::{Minimal, MinimalFilled, QuicMinimal, QuicMinimalOnDisk};
use node::{NodeOnDisk, NodePlain, NodeSession, QuicNode, QuicNodeOnDisk};
use openraft_0_9::Openraft09;
use openraft_0_10::Openraft010;
use served::{Served, ServedOnDisk};

pub use loopback::{CLUSTER, Certificates, addresses};

/// Where the servers' logs are.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Store {
    /// In memory.
    Memory,
    /// On a disk.
    Redb,
}

/// What is between the servers, and between them and their clients.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Network {
    /// The memory of one process.
    Memory,
    /// QUIC on the loopback device.
    Quic,
}

/// Whom to hold against each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field {
    /// Where logs are.
    pub store: Store,
    /// What is between the servers.
    pub network: Network,
    /// Whether commands carry something: those who take empty ones alone are left out then.
    pub filled: bool,
}

impl Field {
    /// All fields.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for network in [Network::Memory, Network::Quic] {
            for store in [Store::Memory, Store::Redb] {
                all.extend([false, true].map(|filled| Self { store, network, filled }));
            }
        }
        all
    }

    /// Graft, by each of its doors.
    #[must_use]
    pub fn graft(self) -> Vec<Box<dyn Contender>> {
        if self.filled { self.graft_with::<Filled>() } else { self.graft_with::<Nothing>() }
    }

    fn graft_with<C: Command>(self) -> Vec<Box<dyn Contender>> {
        match (self.network, self.store) {
            (Network::Memory, Store::Memory) => vec![
                Box::new(Bench::<NodeSession>::new()),
                Box::new(Bench::<NodePlain>::new()),
                Box::new(Bench::<Face<C>>::new()),
            ],
            (Network::Memory, Store::Redb) => {
                vec![Box::new(Bench::<NodeOnDisk>::new()), Box::new(Bench::<FaceOnDisk<C>>::new())]
            }
            (Network::Quic, Store::Memory) => {
                vec![Box::new(Bench::<QuicNode>::new()), Box::new(Bench::<Served<C>>::new())]
            }
            (Network::Quic, Store::Redb) => vec![
                Box::new(Bench::<QuicNodeOnDisk>::new()),
                Box::new(Bench::<ServedOnDisk<C>>::new()),
            ],
        }
    }

    /// What graft is held against: openraft in memory, and elsewhere a loop that does nothing but write,
    /// send and answer.
    #[must_use]
    pub fn others(self) -> Vec<Box<dyn Contender>> {
        match (self.network, self.store) {
            (Network::Memory, Store::Memory) if self.filled => Vec::new(),
            (Network::Memory, Store::Memory) => {
                vec![Box::new(Bench::<Openraft09>::new()), Box::new(Bench::<Openraft010>::new())]
            }
            (Network::Memory, Store::Redb) => {
                vec![Box::new(Bench::<Minimal>::new()), Box::new(Bench::<MinimalFilled>::new())]
            }
            (Network::Quic, Store::Memory) => vec![Box::new(Bench::<QuicMinimal>::new())],
            (Network::Quic, Store::Redb) => vec![Box::new(Bench::<QuicMinimalOnDisk>::new())],
        }
    }
}
