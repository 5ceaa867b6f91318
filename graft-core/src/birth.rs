//! What founders say to each other before their cluster has a log.

use std::collections::BTreeMap;

use crate::{Membership, NodeId, NodeInfo};

/// How far a server is in founding its cluster. It goes around until every founder has its membership.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BirthReport {
    /// The sender's life: drawn anew each time its process begins to found. Zero from a server that has
    /// founded.
    pub life: u64,
    /// The life that the receiver stated last, zero where it stated none. A report from before the
    /// receiver's life cannot name it, however late it arrives.
    pub echo: u64,
    /// What the sender has come to.
    pub stage: BirthStage,
}

/// What a founder has come to.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum BirthStage {
    /// Newly born: it has no log, and has never voted. These are the founders that it has heard of in
    /// this life, itself included, as each described itself.
    Newborn {
        /// What each said of itself.
        founders: BTreeMap<NodeId, NodeInfo>,
    },
    /// The cluster is founded with this membership, and the receiver belongs to it.
    Founded {
        /// The first entry of the log.
        membership: Membership,
    },
    /// The cluster is founded, and knows the receiver by another birth: its store is not the one that it
    /// was founded with. It must not take part before a membership change names its new birth.
    AlreadyFounded,
}

impl BirthReport {
    /// About how many bytes it takes.
    #[must_use]
    pub(crate) fn size(&self) -> usize {
        const NODE: usize = 64;
        let nodes = match &self.stage {
            BirthStage::Newborn { founders } => founders,
            BirthStage::Founded { membership } => &membership.nodes,
            BirthStage::AlreadyFounded => return NODE,
        };
        let of_one = |info: &NodeInfo| {
            NODE + info.name.len() + info.peer_address.len() + info.client_address.len()
        };
        NODE + nodes.values().map(of_one).sum::<usize>()
    }
}
