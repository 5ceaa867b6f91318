//! The random model test: whole clusters of [`Raft`](super::Raft) with disks, a network and clocks
//! that are made of one number, the seed.
//!
//! A disk keeps what a write that ended brought, and a crash leaves nothing else. Messages are lost,
//! doubled, delayed and overtaken; writes, applies and loads end in any order the contract of
//! [`Effects`](super::Effects) allows, at once or after ages. After every step the properties of Raft
//! Figure 3 are checked (`facts`, `server`), every message is held against the disk of who sends it
//! (`promises`), and at the end everything heals and the cluster must elect, converge and hand over
//! (`heal`). Each seed draws its own faults and sizes (`swarm`), and the corners that came up are
//! counted (`coverage`): the default run asserts that none is missing.
//!
//! - `cargo test -p graft-core model` makes twelve million steps, replays the kept seed of each mutant,
//!   and searches one afresh.
//! - `GRAFT_LONG=1` makes a hundred million steps, and wants the kept seeds to be up to date.
//! - `GRAFT_SEED=17` replays one seed and prints all that happens in it (with `-- --nocapture`);
//!   `GRAFT_MUTANT=CommitOldTerm` beside it switches on that bug.

mod coverage;
mod disk;
mod driver;
mod facts;
mod heal;
mod kept;
mod network;
mod promises;
mod regressions;
mod runner;
mod scenes;
mod seen;
mod server;
mod swarm;
mod timers;
mod trace;
mod world;
