//! What founders say to each other before their cluster has a log. [`founding`](crate::founding) says why.

use std::collections::BTreeMap;

use crate::{Membership, NodeId, NodeInfo};

/// How far a server is in founding its cluster. It goes around until every founder has its membership.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BirthReport {
    /// The sender's life: drawn anew each time its process begins to found, and never zero. Zero from a
    /// server that has a log.
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
    /// It does not know of a founded cluster: it is newly born, or has the founding membership in its
    /// log and does not know it committed.
    Newborn {
        /// All founders of the sender's list, each as it described itself. Where the sender has not
        /// heard of one in this life, there is its name alone, and an incarnation of zero. From a server
        /// that has a log they are those of its first entry.
        founders: BTreeMap<NodeId, NodeInfo>,
    },
    /// The cluster is founded: the first entry is committed, and it names the receiver's birth.
    Founded {
        /// The first entry of the log.
        membership: Membership,
    },
    /// The sender has a log, and it does not name the receiver's birth: the receiver's store is not
    /// the one that the cluster was founded with. It must not take part before a membership change
    /// names its new birth.
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
