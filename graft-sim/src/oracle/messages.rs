//! Whatever a server says is held against its own disk at that moment.

use graft_core::{
    AppendEntries, AppendOutcome, Heartbeat, Index, LogId, Message, NodeId, PeerEnvelope, Term,
    VoteRequest,
};

use super::{Check, Judge, demand};

impl Judge {
    pub(super) fn message(&mut self, server: usize, envelope: &PeerEnvelope) -> Check {
        let (message, to) = (&envelope.message, envelope.to);
        let (node, term) = (self.nodes[server], message.term());
        let disk = &self.disks[server];
        if matches!(message, Message::Birth(_)) {
            return Ok(());
        }
        demand!(!disk.wiped, WipedNeverVotes, "{node} lost its disk and says {message:?}");
        // The term that somebody would campaign in binds nobody.
        let proposed = match message {
            Message::PreVote(_) => true,
            Message::PreVoteResponse(response) => response.granted,
            _ => false,
        };
        demand!(
            proposed || term <= disk.hard_state.term,
            TermDurable,
            "{node} states term {term}, its disk has {}",
            disk.hard_state.term
        );
        match message {
            Message::RequestVote(request) => self.check_request(server, request),
            Message::RequestVoteResponse(response) if response.granted => {
                let vote = (disk.hard_state.term, disk.hard_state.voted_for);
                demand!(
                    vote == (term, Some(to)),
                    VoteDurable,
                    "{node} tells {to} of a vote in term {term}, its disk has {vote:?}"
                );
                Ok(())
            }
            Message::AppendEntries(append) => self.check_append(server, append),
            Message::AppendEntriesResponse(response) => match response.outcome {
                AppendOutcome::Matched(matched) => {
                    self.check_acknowledgement(server, to, term, matched)
                }
                _ => Ok(()),
            },
            Message::TimeoutNow { term } => self.check_handover(server, to, *term),
            Message::Heartbeat(heartbeat) => self.check_heartbeat(server, to, heartbeat),
            Message::HeartbeatResponse(response) => {
                demand!(
                    response.matched <= response.received || response.round == 0,
                    AcknowledgementDurable,
                    "{node} has more on disk than it received"
                );
                self.check_acknowledgement(server, to, term, response.matched)
            }
            _ => Ok(()),
        }
    }

    fn check_request(&self, server: usize, request: &VoteRequest) -> Check {
        let node = self.nodes[server];
        let state = &self.disks[server].hard_state;
        let durable = state.term == request.term && state.voted_for == Some(node);
        demand!(
            durable,
            VoteDurable,
            "{node} asks for votes in term {} before its own is on disk",
            request.term
        );
        Ok(())
    }

    /// Holds `matched`, said to the leader of `term`, against the sender's disk. That every disk obeys log
    /// matching is known, so equal last entries mean equal logs.
    fn check_acknowledgement(
        &self,
        server: usize,
        to: NodeId,
        term: Term,
        matched: Index,
    ) -> Check {
        if matched.0 == 0 {
            return Ok(());
        }
        let (node, disk) = (self.nodes[server], &self.disks[server]);
        let Some(reign) = self.logs.reigns.get(&term) else {
            demand!(
                false,
                AcknowledgementDurable,
                "{node} acknowledges {matched} in term {term}, which nobody led"
            );
            return Ok(());
        };
        demand!(
            reign.node == to,
            AcknowledgementDurable,
            "{node} acknowledges to {to}, who does not lead term {term}"
        );
        let Some(at) = reign.term_at(matched) else {
            demand!(
                false,
                AcknowledgementDurable,
                "{node} acknowledges {matched}, the log of {to} ends at {}",
                reign.last
            );
            return Ok(());
        };
        let log_id = LogId { term: at, index: matched };
        demand!(
            disk.log.holds(log_id),
            AcknowledgementDurable,
            "{node} acknowledges {log_id} to the leader of term {term}, its disk ends at {}",
            disk.log.last()
        );
        Ok(())
    }

    /// Whoever is told to campaign at once must be able to win. A leader whose disk stalls has stepped down
    /// when it tells another: it takes the best there is.
    fn check_handover(&self, server: usize, to: NodeId, term: Term) -> Check {
        let leads = self.views[server].leads();
        let Some(reign) = self.logs.reigns.get(&term).filter(|_| leads) else { return Ok(()) };
        let last = LogId { term: reign.term_at(reign.last).unwrap_or_default(), index: reign.last };
        let complete = self.place_of(to).is_some_and(|at| self.disks[at].has_held(last));
        demand!(
            complete,
            HandoverComplete,
            "{} tells {to} to lead, whose disk does not hold {last}",
            self.nodes[server]
        );
        Ok(())
    }

    fn check_append(&self, server: usize, append: &AppendEntries) -> Check {
        let (node, term) = (self.nodes[server], append.term);
        let reign = self.logs.reigns.get(&term).filter(|reign| reign.node == node);
        let Some(reign) = reign else {
            demand!(
                false,
                AppendFromLog,
                "{node} sends appends in term {term} and does not lead it"
            );
            return Ok(());
        };
        demand!(
            reign.holds(append.prev),
            AppendFromLog,
            "{node} sends entries behind {}, which it does not hold",
            append.prev
        );
        if let (Some(first), Some(last)) =
            (append.entries.first_index(), append.entries.last_log_id())
        {
            let follows = first == append.prev.index.next() && reign.holds(last);
            demand!(
                follows,
                AppendFromLog,
                "{node} sends entries up to {last} that are not in its log"
            );
        }
        let committed = self.views[server].vitals.map_or(Index(0), |vitals| vitals.commit_index);
        demand!(
            append.commit <= committed,
            AppendFromLog,
            "{node} calls {} committed, it knows of {committed}",
            append.commit
        );
        Ok(())
    }

    fn check_heartbeat(&self, server: usize, to: NodeId, heartbeat: &Heartbeat) -> Check {
        let (node, term) = (self.nodes[server], heartbeat.term);
        let reign = self.logs.reigns.get(&term).filter(|reign| reign.node == node);
        let Some(reign) = reign else {
            demand!(
                false,
                AppendFromLog,
                "{node} sends heartbeats in term {term} and does not lead it"
            );
            return Ok(());
        };
        let committed = self.views[server].vitals.map_or(Index(0), |vitals| vitals.commit_index);
        demand!(
            heartbeat.commit <= committed,
            AppendFromLog,
            "{node} calls {} committed, it knows of {committed}",
            heartbeat.commit
        );
        // A heartbeat may overtake an append: it speaks only of what the receiver has acknowledged, and
        // what is committed never leaves a disk again.
        if let (Some(receiver), Some(at)) = (self.place_of(to), reign.term_at(heartbeat.commit)) {
            let log_id = LogId { term: at, index: heartbeat.commit };
            demand!(
                self.disks[receiver].has_held(log_id),
                HeartbeatWithinMatch,
                "{node} tells {to} that {log_id} is committed, whose disk ends at {}",
                self.disks[receiver].log.last()
            );
        }
        Ok(())
    }
}
