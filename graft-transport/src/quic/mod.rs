//! The network of servers on different machines: QUIC with mutual TLS 1.3.
//!
//! * [`tls`] is who one is, who the other side is, and whom one trusts.

pub mod tls;
