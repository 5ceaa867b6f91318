//! What time and a working leader may do to a server: nobody campaigns too early, and nobody who hears
//! a leader is moved by who does not (thesis §4.2.3, §9.6).

use std::collections::BTreeMap;

use super::{
    coverage::{Corner, Coverage},
    facts::is_quorum,
};
use crate::{
    HardState, LogId, Message, NodeId, Term,
    raft::{Input, Raft, Role, RoleName},
};

/// The moments that a server's timers must respect, on its own clock, in ticks.
#[derive(Clone, Default, Debug)]
pub(super) struct Timers {
    /// When it last started, heard its leader, gave a vote, campaigned or stepped down.
    waits_from: u64,
    /// The same, but a stalled disk makes it wait too, longer than it must.
    patient_from: u64,
    /// When it last heard the leader of its term.
    heard: Option<(Term, u64)>,
    /// The campaign it was last seen in, by its deadline.
    campaign: Option<(RoleName, Term, u64)>,
    /// When the write under way was handed over.
    pub(super) write_since: Option<u64>,
    /// When the transfer under way was first seen.
    transfer_since: Option<u64>,
    /// The term it leads, and when each peer last answered in it.
    answers: Option<(Term, BTreeMap<NodeId, u64>)>,
}

/// What is known of a step before it is made.
#[derive(Debug)]
pub(super) struct Prospect {
    is_time: bool,
    /// Who sends as the leader of which term.
    leader: Option<(NodeId, Term)>,
    /// Who asks for a vote in which term.
    candidate: Option<(Option<NodeId>, Term)>,
    /// Who asks whether it would get a vote, and may not be told that it would; and how many messages
    /// waited before.
    hopeless: Option<(NodeId, usize)>,
    /// What must not change.
    unmoved: Option<(HardState, RoleName, LogId)>,
    before: (HardState, RoleName),
}

impl Timers {
    pub(super) fn start(clock: u64) -> Self {
        Self { waits_from: clock, patient_from: clock, ..Self::default() }
    }

    /// Looks at a step before it is made.
    pub(super) fn look(&mut self, raft: &Raft, input: &Input, coverage: &mut Coverage) -> Prospect {
        let leads = raft.is_leader().then_some(raft.hard_state.term);
        if self.answers.as_ref().map(|(term, _)| *term) != leads {
            // At its election a leader has heard from everybody, so to speak.
            let members = raft.membership().members().map(|node| (node, raft.tick));
            self.answers = leads.map(|term| (term, members.collect()));
        }
        let is_time = matches!(input, Input::Time { .. });
        if matches!(input, Input::Persisted(_)) {
            self.write_since = None;
        }
        let before = (raft.hard_state, raft.role_name());
        let mut prospect = Prospect {
            is_time,
            leader: None,
            candidate: None,
            hopeless: None,
            unmoved: None,
            before,
        };
        let Input::Message(envelope) = input else { return prospect };
        let term = envelope.message.term();
        let ignored = match &envelope.message {
            Message::AppendEntries(_) | Message::Heartbeat(_) => {
                prospect.leader = Some((envelope.from, term));
                false
            }
            Message::AppendEntriesResponse(_) | Message::HeartbeatResponse(_) => {
                if let Some((_, answers)) = self.answers.as_mut().filter(|(led, _)| *led == term) {
                    answers.insert(envelope.from, raft.tick);
                }
                false
            }
            Message::PreVote(request) => {
                let fair = request.last >= raft.last() && term > raft.hard_state.term;
                let hopeless = !fair || self.hears_a_leader(raft);
                prospect.hopeless = hopeless.then_some((envelope.from, raft.outbox.len()));
                true
            }
            Message::RequestVote(request) => {
                prospect.candidate = Some((Some(envelope.from), term));
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

    /// It waits anew.
    fn wait(&mut self, tick: u64) {
        self.waits_from = tick;
        self.patient_from = tick;
    }

    /// Looks at what a step made of the server.
    pub(super) fn check(&mut self, raft: &Raft, prospect: &Prospect) {
        let (now, role) = (raft.hard_state, raft.role_name());
        if let Some(unmoved) = prospect.unmoved {
            let same = unmoved == (now, role, raft.last());
            assert!(same, "{} was moved by who should not move it", raft.config.node);
        }
        if let Some((from, waiting)) = prospect.hopeless {
            let granted = |message: &Message| matches!(message, Message::PreVoteResponse(response) if response.granted);
            let encouraged = raft.outbox[waiting..].iter().any(|sent| granted(&sent.message));
            let node = raft.config.node;
            assert!(!encouraged, "{node} encourages {from}, whom it would not vote for");
        }
        if let Some((from, term)) = prospect.leader
            && term == now.term
            && raft.leader() == Some(from)
        {
            self.heard = Some((term, raft.tick));
            self.wait(raft.tick);
        }
        let (before, role_before) = prospect.before;
        let ballot = |state: HardState| (state.term, state.voted_for);
        let asked_again = prospect.candidate == Some((now.voted_for, now.term));
        let voted = now.voted_for.is_some() && (asked_again || ballot(now) != ballot(before));
        let stepped_down = role_before == RoleName::Leader && role != RoleName::Leader;
        let campaign = match &raft.role {
            Role::PreCandidate(candidate) | Role::Candidate(candidate) => {
                Some((role, now.term, candidate.election_deadline))
            }
            Role::Follower(_) | Role::Leader(_) => None,
        };
        let campaigns = campaign.is_some() && campaign != self.campaign;
        if campaigns {
            let waited = raft.tick - self.waits_from;
            let shortest = raft.config.election_timeout_min_ticks;
            let node = raft.config.node;
            assert!(
                !prospect.is_time || waited >= shortest,
                "{node} campaigns after {waited} ticks"
            );
            self.wait(raft.tick);
        }
        assert!(!campaigns || !raft.stalled, "{} campaigns with a stalled disk", raft.config.node);
        self.campaign = campaign;
        if voted || stepped_down {
            self.wait(raft.tick);
        }
        if raft.stalled {
            self.patient_from = raft.tick;
        }
        if prospect.is_time {
            self.check_patience(raft);
            self.check_stall(raft);
            self.check_quorum(raft, stepped_down);
        }
        self.check_transfer(raft, prospect);
    }

    /// Who could lead and hears of no leader campaigns within the longest election timeout, however
    /// often others raise the term (Raft Figure 2).
    fn check_patience(&self, raft: &Raft) {
        let idle = raft.may_campaign() && !raft.is_leader();
        let waited = raft.tick - self.patient_from;
        let longest = raft.config.election_timeout_max_ticks;
        let node = raft.config.node;
        assert!(!idle || waited < longest, "{node} has not campaigned for {waited} ticks");
    }

    /// A disk that stands still is noticed in time, and then its server does not lead.
    fn check_stall(&self, raft: &Raft) {
        let limit = raft.config.stalled_write_ticks;
        let late = self.write_since.is_some_and(|since| raft.tick - since >= limit);
        let node = raft.config.node;
        assert!(raft.stalled == late, "{node} takes its disk to be stalled: {}", raft.stalled);
        assert!(!late || !raft.is_leader(), "{node} leads with a stalled disk");
    }

    /// A leader whom no quorum has answered for an election timeout steps down, and no other does.
    fn check_quorum(&self, raft: &Raft, stepped_down: bool) {
        let Some((term, answers)) = &self.answers else { return };
        let window = raft.config.election_timeout_max_ticks;
        let answered = |node: NodeId| {
            node == raft.config.node
                || answers.get(&node).is_some_and(|at| raft.tick - at <= window)
        };
        let heard = is_quorum(raft.membership(), answered);
        let node = raft.config.node;
        if stepped_down {
            assert!(!heard || raft.stalled, "{node} gave up term {term} for no reason");
        } else if raft.is_leader() && raft.config.check_quorum {
            assert!(heard, "{node} leads term {term} without hearing from a quorum");
        }
    }

    /// A transfer ends, well or not, within one election timeout.
    fn check_transfer(&mut self, raft: &Raft, prospect: &Prospect) {
        let Role::Leader(leader) = &raft.role else {
            self.transfer_since = None;
            return;
        };
        if leader.transfer.is_none() {
            self.transfer_since = None;
            return;
        }
        let since = *self.transfer_since.get_or_insert(raft.tick);
        let limit = raft.config.election_timeout_max_ticks;
        let over = prospect.is_time && raft.tick - since >= limit;
        assert!(!over, "{} clings to a transfer", raft.config.node);
    }
}
