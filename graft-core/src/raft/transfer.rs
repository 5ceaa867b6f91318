//! Handing leadership over (thesis §3.10), by order or because the own disk has stopped.

use super::{Answer, Mutant, Raft, Refusal, Role, Token, role::Transfer};
use crate::{Message, NodeId};

impl Raft {
    pub(super) fn on_transfer(&mut self, to: NodeId, token: Token) {
        let eligible = to != self.config.node && self.membership().is_voter(to);
        let deadline = self.tick + self.config.election_timeout_max_ticks;
        let known = self.leader();
        let refusal = match &mut self.role {
            Role::Leader(leader) => {
                let stalled = leader.progress(to).is_none_or(|progress| progress.stalled);
                match leader.transfer {
                    _ if !eligible || stalled => Some(Refusal::BadTransferTarget),
                    Some(_) => Some(Refusal::Transferring),
                    None => {
                        leader.transfer = Some(Transfer { to, deadline, told: false });
                        None
                    }
                }
            }
            _ => Some(Refusal::NotLeader { leader: known }),
        };
        self.answers.extend(refusal.map(|refusal| Answer { token, refusal }));
    }

    /// Tells the target to campaign once it has everything, and gives up after one election timeout.
    pub(super) fn check_transfer(&mut self) {
        let (tick, term, last) = (self.tick, self.hard_state.term, self.log.last().index);
        let hasty = self.is_mutant(Mutant::TransferToLaggingTarget);
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let Some(transfer) = leader.transfer else {
            return;
        };
        if tick >= transfer.deadline {
            leader.transfer = None;
            return;
        }
        let caught_up =
            leader.progress(transfer.to).is_some_and(|progress| progress.match_index == last);
        if (caught_up || hasty) && !transfer.told {
            leader.transfer = Some(Transfer { told: true, ..transfer });
            self.send(transfer.to, Message::TimeoutNow { term });
        }
    }

    /// The leader hands over to this server: campaign at once, without asking first.
    pub(super) fn on_timeout_now(&mut self, from: NodeId) {
        let asked_by_leader =
            matches!(&self.role, Role::Follower(follower) if follower.leader == Some(from));
        if asked_by_leader && self.may_campaign() {
            self.become_candidate(true);
        }
    }

    /// Notices a disk that has stopped answering. A leader whose disk stands still hands over to the
    /// best of the others; nobody with such a disk campaigns.
    pub(super) fn check_stalled(&mut self) {
        let limit = self.config.stalled_write_ticks;
        let since = self.durability.waiting_since();
        if self.stalled || since.is_none_or(|since| self.tick.saturating_sub(since) < limit) {
            return;
        }
        self.stalled = true;
        let term = self.hard_state.term;
        let membership = std::sync::Arc::clone(self.membership());
        let Role::Leader(leader) = &self.role else {
            return;
        };
        let healthy = leader
            .peers
            .iter()
            .filter(|(node, progress)| membership.is_voter(*node) && !progress.stalled);
        let best = healthy.max_by_key(|(_, progress)| progress.match_index).map(|(node, _)| *node);
        if let Some(best) = best {
            self.send(best, Message::TimeoutNow { term });
        }
        self.become_follower_in_term(None);
    }
}
