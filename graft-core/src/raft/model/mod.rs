//! The random model test.
