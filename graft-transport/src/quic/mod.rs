//! The network of servers on different machines: QUIC with mutual TLS 1.3.
//!
//! * [`tls`] is who one is, who the other side is, and whom one trusts.
//! * [`Network`] is a server's place: one UDP socket for peers and clients, and the connections over it.
//!   Each run of the server has a [`QuicTransport`] of it.
//! * [`QuicLink`] is a client's way to the servers.
//!
//! Two servers have one connection, which the one with the lower number makes. Each side says on it who it
//! is before anything else is listened to; then each class of messages has a stream of its own, so that
//! what is large holds up nothing that is urgent. A client has one stream, in both directions. Every queue
//! is bounded in bytes: what does not fit is dropped and counted, and Raft sends again what matters.

mod accept;
mod agreement;
mod begun;
mod client;
mod clients;
mod config;
mod copies;
mod dial;
mod gate;
mod intake;
mod limits;
mod link;
mod network;
mod peer;
mod peers;
mod queue;
mod rates;
mod shared;
mod stats;
mod stream;
pub mod tls;
mod transport;
mod versions;

pub use config::{Bounds, LinkConfig, NetworkConfig, Timing};
pub use link::{ConnectError, QuicLink, Served};
pub use network::{Network, NetworkError, PeerPlace, PeerStatus};
pub use stats::Stats;
pub use transport::QuicTransport;

/// What hellos and pushes are made of.
pub use crate::wire::v1::{Hello, Limits as FrameLimits, Members, Refusal, RefusalCode, Schema};
