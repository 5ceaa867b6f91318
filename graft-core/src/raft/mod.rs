//! The pure machine.

mod config;
mod effects;

pub use config::{Config, ConfigError};
pub use effects::{
    Answer, Apply, Effects, Fatal, Input, LinkId, Load, LoadId, Proposal, Refusal, Token,
    WriteBatch, WriteId,
};

/// A known bug that tests must catch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {}

/// One server's part in the protocol.
#[derive(Debug)]
pub struct Raft {}

#[allow(missing_docs, clippy::unimplemented, clippy::needless_pass_by_value)]
impl Raft {
    pub fn recover(_config: Config, _durable: crate::Recovered) -> Self {
        unimplemented!()
    }
    pub fn step(&mut self, _input: Input) {}
    pub fn drain(&mut self, _effects: &mut Effects) {}
}
