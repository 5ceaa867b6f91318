//! Where a server keeps what it must not forget: implementations of [`graft_core::LogStore`].
//!
//! * [`MemoryStore`] outlives the server that writes to it, not the process. It is the store of
//!   clusters that live in one process, and the disk of every test.
//! * `RedbStore`, with the feature `redb`, is a directory on a disk: it survives the end of the process,
//!   power cuts and rotten bits, or says which record is gone.
//! * [`conformance`] is a suite of named checks that any [`LogStore`](graft_core::LogStore) can run,
//!   under any executor and any test framework.
//! * [`fault`] holds the switches by which tests make a [`MemoryStore`] slow, deaf or broken. They are
//!   off until somebody turns one.
//! * [`medium`] is the seam between a store and its disk: the real one, and one that fails as disks do.

pub mod conformance;
pub mod fault;
pub mod medium;
mod memory;
mod outline;
mod plan;
#[cfg(feature = "redb")]
pub mod redb;

pub use memory::MemoryStore;
#[cfg(feature = "redb")]
pub use redb::{RedbStore, verify};
