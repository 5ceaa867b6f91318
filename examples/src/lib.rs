//! Runnable examples of graft, one idea a file: `cargo run --release --example stack`.
