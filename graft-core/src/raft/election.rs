//! Elections: Raft §5.2 and §5.4.1, with pre-vote (thesis §9.6) and check-quorum (§6.2).

use std::collections::VecDeque;

use super::{
    Answer, Mutant, Progress, Raft, Refusal,
    durability::RefusalOf,
    role::{Candidate, Follower, Leader, Role},
};
use crate::{
    Birth, EntryKind, Message, NodeId, Term, VoteRequest, VoteResponse,
    quorum::{self, VoteResult},
};

impl Raft {
    pub(super) fn random_election_deadline(&mut self) -> u64 {
        let (min, max) =
            (self.config.election_timeout_min_ticks, self.config.election_timeout_max_ticks);
        self.tick + self.rng.u64(min..max)
    }

    /// Whether this server may give votes and ask for them: its store holds the cluster it was born into.
    fn may_vote(&self) -> bool {
        let membership = self.membership();
        let named = membership.incarnation(self.config.node);
        match self.identity.birth {
            Birth::Founder => !membership.voters.is_empty(),
            Birth::Joiner => named.0 != 0 && named == self.identity.incarnation,
        }
    }

    /// Whether this server could lead.
    pub(super) fn may_campaign(&self) -> bool {
        self.may_vote() && self.membership().is_voter(self.config.node) && !self.stalled
    }

    /// Gives this follower's leader, or the candidate it voted for, a whole timeout from now.
    fn restart_election_timer(&mut self) {
        let election_deadline = self.random_election_deadline();
        if let Role::Follower(follower) = &mut self.role {
            follower.election_deadline = election_deadline;
        }
    }

    /// The election timer of everyone who does not lead.
    pub(super) fn on_election_time(&mut self) {
        let deadline = match &self.role {
            Role::Follower(follower) => follower.election_deadline,
            Role::PreCandidate(candidate) | Role::Candidate(candidate) => {
                candidate.election_deadline
            }
            Role::Leader(_) => return,
        };
        if self.tick < deadline {
            return;
        }
        if !self.may_campaign() {
            // Whoever has waited this long has no leader, but may not do anything about it.
            self.become_follower_in_term(None);
            self.restart_election_timer();
        } else if self.config.pre_vote {
            self.become_pre_candidate();
        } else {
            self.become_candidate(false);
        }
    }

    /// An operator's, or a fresh cluster's, order to campaign.
    pub(super) fn on_campaign(&mut self) {
        if self.may_campaign() && !self.is_leader() {
            self.become_candidate(false);
        }
    }

    /// Becomes a follower in a higher term, of `leader` if that is known.
    pub(super) fn become_follower(&mut self, term: Term, leader: Option<NodeId>) {
        assert!(term > self.hard_state.term, "terms only rise");
        self.hard_state.term = term;
        if self.is_leader() && self.is_mutant(Mutant::LeaderOutlivesItsTerm) {
            self.hard_state.voted_for = Some(self.config.node);
            return;
        }
        self.hard_state.voted_for = None;
        self.debts.vote = None;
        self.become_follower_in_term(leader);
    }

    /// Becomes a follower in the current term. Whoever waits here for a proposal is told.
    pub(super) fn become_follower_in_term(&mut self, leader: Option<NodeId>) {
        if self.is_mutant(Mutant::VoteForgottenInTerm) {
            self.hard_state.voted_for = None;
        }
        // Only a leader, and a vote given, put off the own campaign (Raft, Figure 2). Were it put off by
        // every higher term, a candidate that can only lose could keep back one that can win.
        let running = match &self.role {
            _ if leader.is_some() => None,
            Role::Follower(follower) => Some(follower.election_deadline),
            Role::PreCandidate(candidate) | Role::Candidate(candidate) => {
                Some(candidate.election_deadline)
            }
            Role::Leader(_) => None,
        };
        let election_deadline = running.unwrap_or_else(|| self.random_election_deadline());
        let heard = self.tick;
        let mut follower = Follower { leader, heard, election_deadline, ..Follower::default() };
        if let Role::Follower(old) = &self.role
            && self.is_mutant(Mutant::StaleAcknowledgement)
        {
            follower.matched = old.matched.min(self.log.last().index);
            follower.append_owed = old.append_owed;
        }
        let old = std::mem::replace(&mut self.role, Role::Follower(follower));
        if let Role::Leader(deposed) = old {
            if self.is_mutant(Mutant::LostResponder) {
                return;
            }
            if self.is_mutant(Mutant::ProposalAnsweredByIndex) {
                self.keep_orphans(deposed.open);
                return;
            }
            let refusal = Refusal::LeadershipLost { leader };
            let lost = deposed.open.into_iter();
            self.answers.extend(lost.map(|(_, token)| Answer { token, refusal }));
        }
    }

    fn become_pre_candidate(&mut self) {
        let deadline = self.random_election_deadline();
        self.role = Role::PreCandidate(Candidate::new(deadline, false));
        let request = VoteRequest {
            term: self.hard_state.term.next(),
            last: self.log.last(),
            transfer: false,
        };
        self.send_to_voters(&Message::PreVote(request));
        self.count_vote(self.config.node, true);
    }

    /// Campaigns in a new term. The votes are asked for once the own one is durable.
    pub(super) fn become_candidate(&mut self, transfer: bool) {
        assert!(!self.is_leader(), "a leader does not campaign");
        let deadline = self.random_election_deadline();
        self.hard_state.term = self.hard_state.term.next();
        self.hard_state.voted_for = Some(self.config.node);
        self.debts.vote = None;
        self.role = Role::Candidate(Candidate::new(deadline, transfer));
    }

    /// Counts an answer to the campaign under way, and ends it where it decides.
    pub(super) fn count_vote(&mut self, from: NodeId, granted: bool) {
        let counts_twice = self.is_mutant(Mutant::VoteCountedTwice);
        let granted = granted || self.is_mutant(Mutant::RefusalCountedAsVote);
        let half_is_enough = self.is_mutant(Mutant::HalfIsAQuorum);
        let membership = std::sync::Arc::clone(self.membership());
        let (Role::PreCandidate(candidate) | Role::Candidate(candidate)) = &mut self.role else {
            return;
        };
        // A voter gives one answer a campaign; what comes later is a copy.
        candidate.votes.entry(from).or_insert(granted);
        candidate.grants += usize::from(granted);
        let majority = membership.voters.len() / 2 + 1;
        let half = || candidate.votes.values().filter(|yes| **yes).count() * 2;
        let result = if counts_twice && candidate.grants >= majority
            || half_is_enough && half() >= membership.voters.len()
        {
            VoteResult::Won
        } else {
            let vote = |node| candidate.votes.get(&node).copied();
            quorum::vote_result(&membership.voters, &membership.outgoing, vote)
        };
        match result {
            VoteResult::Pending => {}
            VoteResult::Lost => self.become_follower_in_term(None),
            // The disk came to a stand while the others were asked. Who led with it would hold its
            // office without applying, and so without answering, anything.
            VoteResult::Won if !self.may_campaign() => self.become_follower_in_term(None),
            VoteResult::Won if matches!(self.role, Role::PreCandidate(_)) => {
                self.become_candidate(false);
            }
            VoteResult::Won => self.become_leader(),
        }
    }

    /// A quorum voted for this server, itself included, all of it durable.
    fn become_leader(&mut self) {
        assert!(
            self.durability.hard_state.term == self.hard_state.term
                || self.is_mutant(Mutant::VoteCountedTwice),
            "a leader's term is durable"
        );
        let last = self.log.last();
        let membership = std::sync::Arc::clone(self.membership());
        let others = membership.members().filter(|node| *node != self.config.node);
        let peers = others.map(|node| (node, Progress::new(last.index, self.tick)));
        self.role = Role::Leader(Box::new(Leader {
            peers: peers.collect(),
            term_start: last.index.next(),
            round: 0,
            heartbeat_deadline: self.tick,
            open: VecDeque::new(),
            transfer: None,
            clock: (self.log.last_time(), self.now),
        }));
        let wall_clock = bytes::Bytes::copy_from_slice(&self.unix_millis.to_le_bytes());
        if !self.is_mutant(Mutant::NoBlankAtElection) {
            self.append_own(vec![(EntryKind::Blank, wall_clock)]);
        }
        self.on_leader_time();
    }

    /// "Would you vote for me?" The answer depends on state but changes none.
    pub(super) fn on_pre_vote(&mut self, from: NodeId, request: VoteRequest) {
        let granted = self.may_vote()
            && !self.has_leader()
            && request.term > self.hard_state.term
            && self.is_up_to_date(request);
        if granted {
            // The term of the campaign, not our own: nothing is promised by it.
            let response = VoteResponse { term: request.term, granted };
            self.send(from, Message::PreVoteResponse(response));
        } else if !self.has_leader() {
            self.debts.refuse(from, RefusalOf::PreVote);
        }
    }

    pub(super) fn on_pre_vote_response(&mut self, from: NodeId, response: VoteResponse) {
        let campaign = self.hard_state.term.next();
        if matches!(self.role, Role::PreCandidate(_))
            && (!response.granted || response.term == campaign)
        {
            self.count_vote(from, response.granted);
        }
    }

    /// One vote a term, for a log at least as good as our own (Raft §5.2, §5.4.1).
    pub(super) fn on_request_vote(&mut self, from: NodeId, request: VoteRequest) {
        let free = match self.hard_state.voted_for {
            Some(voted_for) => voted_for == from,
            None => self.leader().is_none(),
        };
        if free && self.may_vote() && self.is_up_to_date(request) {
            self.hard_state.voted_for = Some(from);
            self.debts.vote = Some(from);
            // The one voted for gets its time; whoever only asked around stops. A late copy of the
            // request of who leads by now finds nothing to do.
            if self.leader().is_none() {
                self.become_follower_in_term(None);
                self.restart_election_timer();
            }
        } else {
            self.debts.refuse(from, RefusalOf::Vote);
        }
    }

    pub(super) fn on_request_vote_response(&mut self, from: NodeId, response: VoteResponse) {
        // Nobody can have voted who was not asked: such an answer is a broken peer's.
        if matches!(&self.role, Role::Candidate(candidate) if candidate.asked) {
            self.count_vote(from, response.granted);
        }
    }

    fn is_up_to_date(&self, request: VoteRequest) -> bool {
        if self.is_mutant(Mutant::VoteForTheLongerLog) {
            return request.last.index >= self.log.last().index;
        }
        request.last >= self.log.last() || self.is_mutant(Mutant::VoteWithoutLogCheck)
    }

    /// Whether a quorum has answered within the last election timeout. The window slides: it is the
    /// quorum-th latest answer that must not be older.
    pub(super) fn has_quorum_contact(&self) -> bool {
        let Role::Leader(leader) = &self.role else {
            return false;
        };
        let answered = |node| {
            if node == self.config.node {
                Some(self.tick)
            } else {
                leader.progress(node).map(|progress| progress.last_answer)
            }
        };
        let membership = self.membership();
        let latest = quorum::quorum_latest(&membership.voters, &membership.outgoing, answered);
        latest.is_some_and(|at| {
            self.tick.saturating_sub(at) <= self.config.election_timeout_max_ticks
        })
    }
}
