//! What time and a working leader may do to a server: nobody campaigns too early, and nobody who hears
//! a leader is moved by who does not (thesis §4.2.3, §9.6).

use super::coverage::{Corner, Coverage};
use crate::{
    HardState, LogId, Message, NodeId, Term,
    raft::{Input, Raft, Role, RoleName},
};

/// The moments that a server's timers must respect, on its own clock, in ticks.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Timers {
    /// When it last started, heard its leader, gave a vote, campaigned or stepped down.
    waits_from: u64,
    /// When it last heard the leader of its term.
    heard: Option<(Term, u64)>,
    /// The campaign it was last seen in, by its deadline.
    campaign: Option<(RoleName, Term, u64)>,
}

/// What is known of a step before it is made.
#[derive(Debug)]
pub(super) struct Prospect {
    is_time: bool,
    /// Who sends as the leader of which term.
    leader: Option<(NodeId, Term)>,
    /// What must not change.
    unmoved: Option<(HardState, RoleName, LogId)>,
    before: (HardState, RoleName),
}

impl Timers {
    pub(super) fn start(clock: u64) -> Self {
        Self { waits_from: clock, ..Self::default() }
    }

    /// Looks at a step before it is made.
    pub(super) fn look(&self, raft: &Raft, input: &Input, coverage: &mut Coverage) -> Prospect {
        let is_time = matches!(input, Input::Time { .. });
        let before = (raft.hard_state, raft.role_name());
        let mut prospect = Prospect { is_time, leader: None, unmoved: None, before };
        let Input::Message(envelope) = input else { return prospect };
        let term = envelope.message.term();
        let ignored = match &envelope.message {
            Message::AppendEntries(_) | Message::Heartbeat(_) => {
                prospect.leader = Some((envelope.from, term));
                false
            }
            Message::PreVote(_) => true,
            Message::RequestVote(request) => {
                let ignored = !request.transfer && self.hears_a_leader(raft);
                let ignored = ignored && term > raft.hard_state.term;
                coverage.note_if(ignored, Corner::CampaignIgnored);
                ignored
            }
            _ => false,
        };
        prospect.unmoved = ignored.then(|| (before.0, before.1, raft.last()));
        prospect
    }

    /// Whether a campaign is none of its business.
    pub(super) fn hears_a_leader(&self, raft: &Raft) -> bool {
        let shortest = raft.config.election_timeout_min_ticks;
        let fresh =
            |(term, at): (Term, u64)| term == raft.hard_state.term && raft.tick - at < shortest;
        raft.is_leader() || self.heard.is_some_and(fresh)
    }

    /// Looks at what a step made of the server.
    pub(super) fn check(&mut self, raft: &Raft, prospect: &Prospect) {
        let (now, role) = (raft.hard_state, raft.role_name());
        if let Some(unmoved) = prospect.unmoved {
            let same = unmoved == (now, role, raft.last());
            assert!(same, "{} was moved by who should not move it", raft.config.node);
        }
        if let Some((from, term)) = prospect.leader
            && term == now.term
            && raft.leader() == Some(from)
        {
            self.heard = Some((term, raft.tick));
            self.waits_from = raft.tick;
        }
        let (before, role_before) = prospect.before;
        let voted = now.voted_for.is_some() && now.voted_for != before.voted_for;
        let stepped_down = role_before == RoleName::Leader && role != RoleName::Leader;
        let campaign = match &raft.role {
            Role::PreCandidate(candidate) | Role::Candidate(candidate) => {
                Some((role, now.term, candidate.election_deadline))
            }
            Role::Follower(_) | Role::Leader(_) => None,
        };
        if campaign.is_some() && campaign != self.campaign {
            let waited = raft.tick - self.waits_from;
            let shortest = raft.config.election_timeout_min_ticks;
            let node = raft.config.node;
            assert!(
                !prospect.is_time || waited >= shortest,
                "{node} campaigns after {waited} ticks"
            );
            self.waits_from = raft.tick;
        }
        self.campaign = campaign;
        if voted || stepped_down {
            self.waits_from = raft.tick;
        }
    }
}
