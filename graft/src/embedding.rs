//! What somebody who embeds a server adds to its nodes.

use graft_core::{
    Raft,
    node::{NodeConfig, Observer},
};

/// The hooks of an embedder. By default there are none.
#[derive(Default)]
pub(crate) struct Embedding {
    pub(crate) tune: Option<Box<Tune>>,
    pub(crate) observe: Option<Box<Observe>>,
}

/// Changes the numbers of a node that is about to be opened.
pub(crate) type Tune = dyn Fn(&mut NodeConfig) + Send + Sync;

/// Makes the observer of a node that is about to be opened.
pub(crate) type Observe = dyn Fn() -> Box<dyn Observer> + Send + Sync;

impl Embedding {
    pub(crate) fn tune(&self, config: &mut NodeConfig) {
        if let Some(tune) = &self.tune {
            tune(config);
        }
    }

    /// The observer of the next run: `own`, the embedder's, or both.
    pub(crate) fn observer(&self, own: Option<Box<dyn Observer>>) -> Option<Box<dyn Observer>> {
        match (own, self.observe.as_ref().map(|make| make())) {
            (Some(own), Some(theirs)) => Some(Box::new(Both(own, theirs))),
            (own, theirs) => own.or(theirs),
        }
    }
}

/// Two observers as one.
struct Both(Box<dyn Observer>, Box<dyn Observer>);

impl Observer for Both {
    fn turn(&mut self, raft: &Raft) {
        self.0.turn(raft);
        self.1.turn(raft);
    }
}
