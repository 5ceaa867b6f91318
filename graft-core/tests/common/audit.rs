//! Raft's promises, checked against every server after every turn (Raft Figure 3).

use std::collections::BTreeMap;

use graft_core::{Entry, Index, LogId, NodeId, Term};

use super::Server;

/// What has happened so far and may never be contradicted.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    leaders: BTreeMap<Term, NodeId>,
    /// Every entry that some server knows to be committed, and the term of the leader that did it.
    committed: Vec<(LogId, Term)>,
    applied: Vec<Entry>,
    /// How far each server had come when it was last looked at.
    seen: BTreeMap<NodeId, Seen>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    term: Term,
    commit: u64,
    applied: usize,
}

impl Audit {
    /// A crashed server starts over with what it knows, though not with what it promised.
    pub(crate) fn restarted(&mut self, node: NodeId) {
        let seen = self.seen.entry(node).or_default();
        (seen.commit, seen.applied) = (0, 0);
    }

    /// Looks at the server that just had a turn.
    ///
    /// # Panics
    ///
    /// Where a promise is broken.
    pub(crate) fn check(&mut self, servers: &BTreeMap<NodeId, Server>, node: NodeId) {
        let server = &servers[&node];
        assert!(server.fatal.is_none(), "{node} stopped: {:?}", server.fatal);
        let status = server.status();
        let seen = self.seen.entry(node).or_default();
        assert!(status.term >= seen.term, "the term of {node} fell");
        seen.term = status.term;
        let (from, upto) = (seen.commit, status.commit_index.0);
        assert!(upto >= from, "the commit index of {node} fell");
        seen.commit = upto;
        let applied_from = std::mem::replace(&mut seen.applied, server.applied.len());

        self.check_leader(server);
        self.check_commit(servers, server, from..upto);
        for (at, entry) in server.applied.iter().enumerate().skip(applied_from) {
            match self.applied.get(at) {
                Some(known) => assert_eq!(known, entry, "two machines applied different entries"),
                None => self.applied.push(entry.clone()),
            }
        }
    }

    /// Election safety and leader completeness.
    fn check_leader(&mut self, server: &Server) {
        let (node, term) = (server.node(), server.term());
        if !server.is_leader() {
            return;
        }
        if let Some(leader) = self.leaders.get(&term) {
            assert_eq!(*leader, node, "two leaders in term {term}");
            return;
        }
        self.leaders.insert(term, node);
        for (log_id, _) in self.committed.iter().filter(|(_, by)| *by < term) {
            let found = server.raft().term_at(log_id.index);
            assert_eq!(found, Some(log_id.term), "{node} leads without committed entry {log_id}");
        }
    }

    /// State machine safety: an index commits once, and only where a quorum holds it durably.
    fn check_commit(
        &mut self,
        servers: &BTreeMap<NodeId, Server>,
        server: &Server,
        news: std::ops::Range<u64>,
    ) {
        for index in news.start + 1..=news.end {
            let term = server.raft().term_at(Index(index)).expect("committed is in the log");
            let log_id = LogId { term, index: Index(index) };
            let at = usize::try_from(index).unwrap() - 1;
            if let Some((known, _)) = self.committed.get(at) {
                assert_eq!(*known, log_id, "{} committed another entry", server.node());
                continue;
            }
            let voters = &server.raft().membership().voters;
            let holders = voters
                .iter()
                .filter(|voter| servers.get(voter).is_some_and(|server| server.disk.holds(log_id)));
            let holders = holders.count();
            assert!(holders * 2 > voters.len(), "{log_id} committed with {holders} durable copies");
            self.committed.push((log_id, server.term()));
        }
    }

    /// How many entries are known to be committed.
    pub(crate) fn committed(&self) -> usize {
        self.committed.len()
    }
}
