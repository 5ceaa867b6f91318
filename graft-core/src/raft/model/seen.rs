//! What a server was when it was last looked at, and the corners it has passed since.

use super::coverage::{Corner, Coverage};
use crate::{
    HardState, Index, LogId,
    raft::{Raft, Role, RoleName, progress::ProgressState},
};

/// A server as it was after the last step.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Seen {
    pub(super) hard_state: HardState,
    pub(super) role: Option<RoleName>,
    pub(super) last: LogId,
    pub(super) commit: Index,
    pub(super) stalled: bool,
    pub(super) transfer: bool,
    pub(super) campaigns_for_transfer: bool,
    campaign_deadline: u64,
    asked: bool,
    owes_vote: bool,
    pub(super) owes_acknowledgement: bool,
    expects_checkpoint: bool,
    pub(super) fresh_truncation: bool,
    probing: usize,
}

impl Seen {
    /// What the server is now. What only its watcher knows is taken over from before.
    pub(super) fn of(raft: &Raft, before: &Self) -> Self {
        let mut seen = Self {
            hard_state: raft.hard_state,
            role: Some(raft.role_name()),
            last: raft.last(),
            stalled: raft.stalled,
            owes_vote: raft.debts.vote.is_some(),
            commit: before.commit,
            fresh_truncation: before.fresh_truncation,
            campaign_deadline: before.campaign_deadline,
            ..Self::default()
        };
        match &raft.role {
            Role::Leader(leader) => {
                seen.transfer = leader.transfer.is_some();
                let states = leader.peers.iter().map(|(_, progress)| progress.state);
                seen.probing =
                    states.filter(|state| matches!(state, ProgressState::Probe { .. })).count();
            }
            Role::PreCandidate(candidate) | Role::Candidate(candidate) => {
                seen.campaigns_for_transfer = candidate.transfer;
                seen.asked = candidate.asked;
                seen.campaign_deadline = candidate.election_deadline;
            }
            Role::Follower(follower) => {
                seen.owes_acknowledgement = follower.append_owed;
                seen.expects_checkpoint = follower.expected.is_some();
            }
        }
        seen
    }

    /// Notes the corners that lie between `before` and now.
    pub(super) fn note_corners(&self, before: &Self, raft: &Raft, coverage: &mut Coverage) {
        use RoleName::{Candidate, Follower, Leader, PreCandidate};
        let risen = self.hard_state.term > before.hard_state.term;
        let stalled = self.stalled && !before.stalled;
        coverage.note_if(stalled, Corner::WriteSlow);
        coverage.note_if(risen && before.owes_vote, Corner::VoteDropped);
        coverage.note_if(risen && before.owes_acknowledgement, Corner::AcknowledgementDropped);
        let again = self.campaign_deadline != before.campaign_deadline;
        let (was, is) = (before.role.unwrap_or(Follower), self.role.unwrap_or(Follower));
        match (was, is) {
            (Leader, Leader) => {
                let given_up = before.transfer && !self.transfer;
                coverage.note_if(given_up, Corner::TransferGivenUp);
                coverage.note_if(self.probing > before.probing, Corner::BackToProbe);
            }
            (Leader, _) if risen => coverage.note(Corner::LeaderDeposed),
            (Leader, _) if stalled => {
                coverage.note(Corner::LeaderStalled);
                coverage.note_if(before.transfer, Corner::TransferStalled);
            }
            (Leader, _) => coverage.note(Corner::QuorumLost),
            (PreCandidate, PreCandidate) => {
                coverage.note_if(again && !risen, Corner::PreVoteTimedOut);
            }
            (PreCandidate, Follower) => {
                let lost = !risen && raft.leader().is_none();
                coverage.note_if(lost, Corner::PreVoteLost);
            }
            (Candidate, Follower) if risen => {
                coverage.note_if(!before.asked, Corner::CandidateOvertaken);
            }
            (Candidate, Follower) if raft.leader().is_some() => {
                coverage.note(Corner::CandidateFollowed);
            }
            (Candidate, Follower) => coverage.note_if(!raft.stalled, Corner::CandidateLost),
            (Candidate, PreCandidate) => coverage.note(Corner::CandidateTimedOut),
            (Candidate, Candidate) => coverage.note_if(risen, Corner::CandidateTimedOut),
            (Follower, Follower) => {
                let compared = before.expects_checkpoint && !self.expects_checkpoint;
                coverage.note_if(compared, Corner::CheckpointCompared);
            }
            _ => {}
        }
    }
}
