//! Newborn servers that found, or think that they do, are answered by whoever has a log: rule 4 of
//! [`founding`](crate::founding).

use super::Raft;
use crate::{
    BirthReport, BirthStage, Incarnation, Index, Message, NodeId, PeerEnvelope, founding::answer,
};

/// A server that came with a birth which the cluster was not founded with: its disk was emptied, or
/// somebody else uses its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ForeignBirth {
    /// The server.
    pub node: NodeId,
    /// The birth it came with.
    pub came: Incarnation,
    /// The birth that the membership in force names; zero where it names none.
    pub known: Incarnation,
}

impl Raft {
    /// Belongs to no term and changes no state, so it is answered at once.
    pub(super) fn on_birth(&mut self, from: NodeId, birth: Incarnation, report: &BirthReport) {
        let current = self.membership();
        let is_committed = self.commit_index >= Index(1);
        let founding = self.memberships.founding();
        let Some(answer) = answer(founding, current, is_committed, from, birth, report) else {
            return;
        };
        if answer.stage == BirthStage::AlreadyFounded {
            let known = current.incarnation(from);
            self.counters.foreign_births += 1;
            self.foreign_birth = Some(ForeignBirth { node: from, came: birth, known });
        }
        self.outbox.push(PeerEnvelope {
            group: self.config.group,
            from: self.config.node,
            to: from,
            from_incarnation: self.identity.incarnation,
            to_incarnation: birth,
            message: Message::Birth(Box::new(answer)),
        });
    }

    /// The last server that was told that the cluster is founded without its birth;
    /// [`Counters::foreign_births`](super::Counters::foreign_births) says how often that was.
    #[must_use]
    pub const fn foreign_birth(&self) -> Option<ForeignBirth> {
        self.foreign_birth
    }

    /// How often a newborn was told that the cluster is founded without its birth.
    #[must_use]
    pub const fn foreign_births(&self) -> u64 {
        self.counters.foreign_births
    }
}
