//! The driver.

/// Drives one server.
#[derive(Debug)]
pub struct Node {}
