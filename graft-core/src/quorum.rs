//! Quorum mathematics: pure functions over sets of voters (Raft §6, thesis §4.3).
