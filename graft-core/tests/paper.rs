//! The Raft paper, the parts of Ongaro's thesis that are built, and this project's protocol, a rule
//! a test. "Raft" is the extended version of "In Search of an Understandable Consensus Algorithm",
//! "thesis" is "Consensus: Bridging Theory and Practice", "PROTOCOL" is this project's own page.
//!
//! Where the paper's rule is about one server, the test drives one `Raft` by hand and plays the
//! others; where it is about a cluster, several run against each other.

mod common;

#[path = "paper/clients.rs"]
mod clients;
#[path = "paper/crashes.rs"]
mod crashes;
#[path = "paper/elections.rs"]
mod elections;
#[path = "paper/protocol_durability.rs"]
mod protocol_durability;
#[path = "paper/protocol_elections.rs"]
mod protocol_elections;
#[path = "paper/protocol_entries.rs"]
mod protocol_entries;
#[path = "paper/protocol_messages.rs"]
mod protocol_messages;
#[path = "paper/protocol_stalls.rs"]
mod protocol_stalls;
#[path = "paper/replication.rs"]
mod replication;
#[path = "paper/safety.rs"]
mod safety;
#[path = "paper/state.rs"]
mod state;
#[path = "paper/thesis.rs"]
mod thesis;
