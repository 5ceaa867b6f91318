//! Sessions: exactly-once semantics as a pure, replicated table (thesis §6.3).
