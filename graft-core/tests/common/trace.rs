//! What a turn brought about, in the words of the paper.

use std::collections::BTreeMap;

use graft_core::{
    Index, NodeId, Token,
    raft::{Refusal, RoleName, Status, WriteId},
};

use super::{
    Server, name_of,
    words::{entries_words, write_words},
};

/// What of a server a trace tells about.
pub(crate) struct Moment {
    status: Status,
    terms: Vec<u64>,
    write: Option<WriteId>,
    applying: Option<Index>,
    loads: usize,
    answers: usize,
    replies: usize,
}

impl Moment {
    pub(crate) fn of(server: &Server) -> Self {
        Self {
            status: server.status(),
            terms: server.terms(),
            write: server.write.as_ref().map(|batch| batch.id),
            applying: server.apply.as_ref().and_then(|apply| apply.entries.first_index()),
            loads: server.loads.len(),
            answers: server.answers.len(),
            replies: server.replies.len(),
        }
    }

    /// What changed from `self` to `after`, a line each.
    pub(crate) fn difference(
        &self,
        after: &Self,
        server: &Server,
        commands: &BTreeMap<Token, String>,
    ) -> Vec<String> {
        let me = name_of(server.node());
        let mut lines = Vec::new();
        let mut tell = |words: String| lines.push(format!("  {me} {words}"));
        let (old, new) = (&self.status, &after.status);
        if (old.role, old.term, old.leader) != (new.role, new.term, new.leader) {
            tell(role_words(new));
        }
        if new.voted_for.is_some()
            && new.role == RoleName::Follower
            && (old.voted_for, old.term) != (new.voted_for, new.term)
        {
            tell(format!("votes for {} in term {}", name_of_option(new.voted_for), new.term));
        }
        if old.stalled != new.stalled {
            tell(
                if new.stalled {
                    "notes that its disk stands still"
                } else {
                    "notes that its disk works"
                }
                .into(),
            );
        }
        let kept = self.terms.iter().zip(&after.terms).take_while(|(old, new)| old == new).count();
        if kept < self.terms.len() {
            tell(format!("drops its entries from {} on", kept + 1));
        }
        if kept < after.terms.len() {
            let added = server.raft().entries_tail(after.terms.len() - kept);
            tell(format!("appends {}", entries_words(&added)));
        }
        for peer in &new.peers {
            let was = old.peers.iter().find(|was| was.node == peer.node);
            if was.is_some_and(|was| was.probing != peer.probing) {
                let how = if peer.probing { "probes" } else { "replicates to" };
                let next = peer.next_index;
                tell(format!("{how} {} from {next} on", name_of(peer.node)));
            }
        }
        if new.commit_index > old.commit_index {
            tell(format!("knows entries up to {} to be committed", new.commit_index));
        }
        if old.transfer != new.transfer {
            tell(match new.transfer {
                Some(to) => format!("hands over to {}", name_of(to)),
                None => "hands over no longer".into(),
            });
        }
        if let Some(batch) = server.write.as_ref().filter(|batch| Some(batch.id) != self.write) {
            tell(format!("writes {}", write_words(batch)));
        }
        for load in &server.loads[self.loads.min(after.loads)..] {
            tell(format!(
                "wants to read entries {} to {}",
                load.range.start,
                load.range.end.previous()
            ));
        }
        if let Some(apply) = server.apply.as_ref().filter(|_| self.applying != after.applying) {
            tell(format!("applies {}", entries_words(&apply.entries)));
        }
        for token in &server.replies[self.replies..] {
            tell(format!("replies to the client of {}", command_words(commands, *token)));
        }
        for answer in &server.answers[self.answers..] {
            let command = command_words(commands, answer.token);
            tell(format!("refuses {command}: {}", refusal_words(answer.refusal)));
        }
        lines
    }
}

fn command_words(commands: &BTreeMap<Token, String>, token: Token) -> String {
    commands.get(&token).cloned().unwrap_or_else(|| format!("{token:?}"))
}

fn name_of_option(node: Option<NodeId>) -> String {
    node.map_or("nobody".into(), |node| name_of(node).to_string())
}

fn role_words(status: &Status) -> String {
    let term = status.term;
    match (status.role, status.leader) {
        (RoleName::Leader, _) => format!("becomes leader of term {term}"),
        (RoleName::Candidate, _) => format!("becomes candidate in term {term}"),
        (RoleName::PreCandidate, _) => {
            format!("asks whether it would be elected in term {}", term.next())
        }
        (_, Some(leader)) => format!("follows {} in term {term}", name_of(leader)),
        (_, None) => format!("is a follower in term {term} without a leader"),
    }
}

fn refusal_words(refusal: Refusal) -> String {
    let hint = |leader: Option<NodeId>| {
        leader.map_or("no leader is known".into(), |leader| format!("{} leads", name_of(leader)))
    };
    match refusal {
        Refusal::NotLeader { leader } => format!("not the leader, {}", hint(leader)),
        Refusal::Overloaded => "overloaded".into(),
        Refusal::Transferring => "leadership is being handed over".into(),
        Refusal::LeadershipLost { leader } => {
            format!("leadership is lost, it may commit or not, {}", hint(leader))
        }
        Refusal::BadTransferTarget => "the target cannot lead".into(),
        other => format!("{other:?}"),
    }
}

pub(crate) fn status_words(status: &Status) -> String {
    let role = match status.role {
        RoleName::Leader => "leader",
        RoleName::Candidate => "candidate",
        RoleName::PreCandidate => "pre-candidate",
        _ => "follower",
    };
    format!(
        "{}: {role}, term {}, vote {}, leader {}, last {}, durable {}, commit {}, applied {}",
        name_of(status.node),
        status.term,
        name_of_option(status.voted_for),
        name_of_option(status.leader),
        status.last,
        status.durable,
        status.commit_index,
        status.last_applied
    )
}
