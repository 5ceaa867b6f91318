//! Runnable examples of graft, one idea a file: `cargo run --release --example stack`.
//!
//! * [`kv`] is what `kv_server` and `kv_client` share.

pub mod kv;
