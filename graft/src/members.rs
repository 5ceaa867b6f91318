//! Who belongs to the cluster, by name: servers tell each other apart by numbers.

use std::sync::{Arc, PoisonError, RwLock};

use graft_core::{Membership, NodeId, Raft, Term, node::Observer};

use crate::{
    ServerName,
    transport::{Port, View},
};

/// The names of all servers of a cluster, as far as they are known here.
pub(crate) struct Members(RwLock<Vec<(NodeId, ServerName)>>);

impl Members {
    pub(crate) fn new(names: impl IntoIterator<Item = ServerName>) -> Self {
        let named = names.into_iter().map(|name| (NodeId::of_name(name.as_str()), name));
        Self(RwLock::new(named.collect()))
    }

    pub(crate) fn name_of(&self, node: NodeId) -> Option<ServerName> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.iter().find(|(other, _)| *other == node).map(|(_, name)| name.clone())
    }

    /// All names, in the order in which they were given.
    pub(crate) fn names(&self) -> Vec<ServerName> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.iter().map(|(_, name)| name.clone()).collect()
    }

    /// Takes over what the log says: those that are still there keep their places.
    fn update(&self, members: &Membership) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(node, _)| members.nodes.contains_key(node));
        for (node, info) in &members.nodes {
            if !known.iter().any(|(other, _)| other == node) {
                known.push((*node, ServerName::from(info.name.as_str())));
            }
        }
    }
}

/// Tells the network of a server what the server's log says of its cluster.
pub(crate) struct Announcer {
    port: Arc<dyn Port>,
    members: Arc<Members>,
    told: Option<View>,
}

impl Announcer {
    pub(crate) const fn new(port: Arc<dyn Port>, members: Arc<Members>) -> Self {
        Self { port, members, told: None }
    }

    fn knows(&self, members: &Arc<Membership>, leader: Option<NodeId>, term: Term) -> bool {
        self.told.as_ref().is_some_and(|told| {
            Arc::ptr_eq(&told.members, members) && told.leader == leader && told.term == term
        })
    }
}

impl Observer for Announcer {
    fn turn(&mut self, raft: &Raft) {
        let (members, leader, term) = (raft.membership(), raft.leader(), raft.term());
        // A founder that came late has no log yet, and nothing to say.
        if self.knows(members, leader, term) || members.voters.is_empty() {
            return;
        }
        if self.told.as_ref().is_none_or(|told| told.members != *members) {
            self.members.update(members);
        }
        let view = View { members: Arc::clone(members), leader, term };
        self.port.on_view(&view);
        self.told = Some(view);
    }
}
