//! Who leads by whose leave: terms that somebody campaigned in, and leaders whom a quorum answers.

use graft_core::{
    Message, Term,
    raft::{RoleName, Vitals},
};

use super::{Check, Judge, demand};
use crate::clock::nanos;

/// When each server last answered one that leads.
#[derive(Debug, Default)]
pub(super) struct Contacts {
    term: Term,
    /// By server, in simulated time. Whoever was just elected was answered by all.
    answered: Vec<u64>,
    /// Before this moment nobody looks again.
    next_look: u64,
}

impl Judge {
    /// A server takes on a term only once somebody campaigns in it.
    pub(super) fn check_campaign(
        &mut self,
        server: usize,
        before: Option<&Vitals>,
        now: &Vitals,
    ) -> Check {
        let term = now.hard_state.term;
        if matches!(now.role, RoleName::Candidate | RoleName::Leader) {
            self.campaigns.insert(term);
        }
        let news = before.is_some_and(|before| before.hard_state.term < term);
        demand!(
            !news || self.campaigns.contains(&term),
            TermsAreCampaigned,
            "{} takes on term {term}, in which nobody campaigns",
            self.nodes[server]
        );
        Ok(())
    }

    /// Takes note of answers to leaders.
    pub(super) fn note_contact(&mut self, from: usize, to: usize, message: &Message) {
        let answers =
            matches!(message, Message::AppendEntriesResponse(_) | Message::HeartbeatResponse(_));
        let contacts = &mut self.contacts[to];
        if answers && contacts.term == message.term() {
            let now = self.kernel.now();
            contacts.answered.get_mut(from).into_iter().for_each(|at| *at = now);
        }
    }

    /// A server leads after a turn: a quorum must have answered it not long ago.
    pub(super) fn check_contact(&mut self, server: usize, term: Term) -> Check {
        /// Its own clock may run at half the pace, and what arrived while it stood still counts from its
        /// return.
        const TIMEOUTS: u64 = 4;
        let now = self.kernel.now();
        let timeout = nanos(self.bounds.election_timeout);
        let contacts = &mut self.contacts[server];
        if contacts.term != term {
            *contacts = Contacts { term, answered: vec![now; self.nodes.len()], next_look: 0 };
        }
        if now < contacts.next_look {
            return Ok(());
        }
        contacts.next_look = now + timeout / 4;
        let since = now.saturating_sub(timeout * TIMEOUTS);
        let Some(membership) = self.views[server].membership(&self.logs) else { return Ok(()) };
        let heard = self.is_quorum(&membership, |judge, at| {
            at == server || judge.contacts[server].answered[at] >= since
        });
        demand!(
            heard,
            LeaderHasQuorum,
            "{} still leads term {term}, and no quorum has answered it for {TIMEOUTS} election timeouts",
            self.nodes[server]
        );
        Ok(())
    }
}
