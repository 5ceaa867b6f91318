//! What travels between machines: frames, and the functions that make values of them and frames of
//! values. Nothing here does I/O; a transport feeds in what it received and writes out what it is given.
//!
//! Each version of the format has a module of its own that never changes its bytes once released; the
//! layout and the rule for changing it stand in `docs/architecture.md`.

pub mod v1;
