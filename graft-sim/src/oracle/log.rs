//! What is true of all logs: the entries there are, who led when, and what is committed.

use std::collections::BTreeMap;

use bytes::Bytes;
use graft_core::{EntryKind, EntryRef, Index, LogId, LogTime, Membership, NodeId, Term};
use smallvec::SmallVec;

use super::{Check, Judge, demand, runs::Runs};

/// The records that each new observation of a log is held against.
#[derive(Debug, Default)]
pub(super) struct Logs {
    /// Every entry that was ever in a log, by index.
    known: Vec<SmallVec<[Known; 1]>>,
    /// Who led each term.
    pub(super) reigns: BTreeMap<Term, Reign>,
    /// Every vote that was ever durable: by term, (voter, candidate).
    pub(super) votes: BTreeMap<Term, SmallVec<[(NodeId, NodeId); 7]>>,
    committed: Runs,
    /// From which index on what is committed was committed by the leader of which term.
    committed_by: Vec<(Index, Term)>,
}

/// An entry: of one identity there is one, with one predecessor. By induction that is log matching.
#[derive(Debug)]
struct Known {
    term: Term,
    previous: Term,
    time: LogTime,
    kind: EntryKind,
    payload: Bytes,
}

impl Known {
    fn new(previous: Term, entry: EntryRef<'_>) -> Self {
        let EntryRef { log_id, time, kind, .. } = entry;
        Self { term: log_id.term, previous, time, kind, payload: entry.shared_payload() }
    }

    fn is(&self, previous: Term, entry: EntryRef<'_>) -> bool {
        self.previous == previous
            && (self.time, self.kind) == (entry.time, entry.kind)
            && (is_same_memory(&self.payload, entry.payload) || self.payload == entry.payload)
    }
}

/// Entries are shared and never changed, so the same memory is the same payload.
fn is_same_memory(one: &[u8], other: &[u8]) -> bool {
    one.as_ptr() == other.as_ptr() && one.len() == other.len()
}

/// A leader and its log, which only grows.
#[derive(Debug)]
pub(super) struct Reign {
    pub(super) node: NodeId,
    /// Which of its server's lives that was.
    pub(super) life: u64,
    /// The log it began with, up to the entry that opens the term.
    inherited: Runs,
    pub(super) last: Index,
    term: Term,
}

impl Reign {
    /// The term of an entry of this leader's log.
    pub(super) fn term_at(&self, index: Index) -> Option<Term> {
        if index > self.last {
            return None;
        }
        if index > self.inherited.last_index() {
            return Some(self.term);
        }
        self.inherited.term_at(index)
    }

    pub(super) fn holds(&self, log_id: LogId) -> bool {
        log_id == LogId::ZERO || self.term_at(log_id.index) == Some(log_id.term)
    }
}

impl Logs {
    pub(super) const fn committed(&self) -> Index {
        self.committed.last_index()
    }

    pub(super) fn committed_term(&self, index: Index) -> Option<Term> {
        self.committed.term_at(index)
    }

    fn known(&self, log_id: LogId) -> Option<&Known> {
        let at = usize::try_from(log_id.index.0).ok()?.checked_sub(1)?;
        self.known.get(at)?.iter().find(|known| known.term == log_id.term)
    }

    /// The membership that an entry brought.
    pub(super) fn membership(&self, log_id: LogId) -> Option<Membership> {
        let known = self.known(log_id).filter(|known| known.kind == EntryKind::Membership)?;
        Membership::decode(&known.payload).ok()
    }

    pub(super) fn is_membership(&self, log_id: LogId) -> bool {
        self.known(log_id).is_some_and(|known| known.kind == EntryKind::Membership)
    }

    /// The first entry of all logs.
    pub(super) fn found(&mut self, entry: EntryRef<'_>) -> Check {
        if self.known.is_empty() {
            self.known.push(SmallVec::new());
            self.known[0].push(Known::new(Term(0), entry));
        }
        let same = self.known(entry.log_id).is_some_and(|known| known.is(Term(0), entry));
        demand!(same, LogMatching, "the logs of two servers begin with different entries");
        Ok(())
    }

    /// A vote is on a disk.
    pub(super) fn vote(&mut self, term: Term, voter: NodeId, candidate: NodeId) -> Check {
        let votes = self.votes.entry(term).or_default();
        match votes.iter().find(|(known, _)| *known == voter) {
            Some((_, before)) => demand!(
                *before == candidate,
                VoteOnce,
                "{voter} voted for {before} and for {candidate} in term {term}"
            ),
            None => votes.push((voter, candidate)),
        }
        Ok(())
    }

    pub(super) fn has_voted(&self, term: Term, voter: NodeId, candidate: NodeId) -> bool {
        self.votes.get(&term).is_some_and(|votes| votes.contains(&(voter, candidate)))
    }

    /// Whether somebody who was elected later, or leads a later term, lacks an entry that the leader of term
    /// `by` commits.
    fn lacking(&self, log_id: LogId, by: Term) -> Option<(Term, NodeId)> {
        let mut later = self.reigns.range(by.next()..);
        let lacks = later.find(|(_, reign)| !reign.holds(log_id));
        lacks.map(|(term, reign)| (*term, reign.node))
    }

    /// The last entry that was committed by a leader of an older term than `term`.
    fn committed_before(&self, term: Term) -> LogId {
        let mut end = self.committed.last_index();
        for (first, by) in self.committed_by.iter().rev() {
            if *by < term {
                break;
            }
            end = first.previous();
        }
        LogId { term: self.committed.term_at(end).unwrap_or_default(), index: end }
    }
}

impl Judge {
    /// An entry showed up in the log of a server, behind one of term `previous`. New ones are made by the
    /// leader of their term and nobody else.
    pub(super) fn learn(&mut self, server: usize, previous: Term, entry: EntryRef<'_>) -> Check {
        let LogId { term, index } = entry.log_id;
        let at = usize::try_from(index.0).unwrap_or(usize::MAX) - 1;
        if let Some(known) = self.logs.known(entry.log_id) {
            demand!(known.is(previous, entry), LogMatching, "{} is two entries", entry.log_id);
            return Ok(());
        }
        let node = self.nodes[server];
        if !self.logs.reigns.contains_key(&term) {
            // It was elected and deposed within one turn, and nobody but itself ever heard of it.
            let elected = self.is_elected(server, term);
            demand!(
                elected,
                LeaderMakesEntries,
                "{node} made {} and was not elected",
                entry.log_id
            );
            let reign = self.reign_of(server, term, index);
            self.logs.reigns.insert(term, reign);
        }
        let by = self.logs.reigns.get(&term).map(|reign| reign.node);
        demand!(
            by == Some(node),
            LeaderMakesEntries,
            "{} came up at {node}, not at {by:?}",
            entry.log_id
        );
        if let Some(before) = self.logs.known(LogId { term: previous, index: index.previous() }) {
            let (earlier, later) = (before.time, entry.time);
            demand!(
                earlier <= later,
                LogTimeMonotonic,
                "{} at {later:?} after {earlier:?}",
                entry.log_id
            );
        }
        if entry.kind == EntryKind::Membership {
            self.check_intersection(server, entry)?;
        }
        if at >= self.logs.known.len() {
            demand!(at == self.logs.known.len(), LogMatching, "{} comes after a gap", entry.log_id);
            self.logs.known.push(SmallVec::new());
        }
        self.logs.known[at].push(Known::new(previous, entry));
        Ok(())
    }

    /// A majority of the old membership and one of the new always share a server.
    fn check_intersection(&self, server: usize, entry: EntryRef<'_>) -> Check {
        let Ok(next) = Membership::decode(entry.payload) else { return Ok(()) };
        let Some(before) = self.views[server].membership(&self.logs) else { return Ok(()) };
        // Every quorum of either contains a majority of each of its halves, so one pair of halves that
        // differ by one server at most is enough.
        let near = |one: &std::collections::BTreeSet<NodeId>,
                    other: &std::collections::BTreeSet<NodeId>| {
            !one.is_empty() && !other.is_empty() && one.symmetric_difference(other).count() <= 1
        };
        let halves = [&before.voters, &before.outgoing];
        let meets =
            halves.iter().any(|half| near(half, &next.voters) || near(half, &next.outgoing));
        demand!(
            meets,
            QuorumsIntersect,
            "{} leaves no server in common with {before:?}",
            entry.log_id
        );
        Ok(())
    }

    /// Whether a quorum has durably voted for this server.
    fn is_elected(&self, server: usize, term: Term) -> bool {
        let node = self.nodes[server];
        let Some(membership) = self.views[server].membership(&self.logs) else { return false };
        self.is_quorum(&membership, |judge, voter| {
            judge.logs.has_voted(term, judge.nodes[voter], node)
        })
    }

    /// The reign of a server whose log is known up to before `opening`, the entry that opens its term.
    fn reign_of(&self, server: usize, term: Term, opening: Index) -> Reign {
        let view = &self.views[server];
        let mut inherited = view.log.clone();
        inherited.truncate_from(opening);
        Reign { node: self.nodes[server], life: view.life, inherited, last: opening, term }
    }

    /// A leader showed up (Election Safety, Leader Completeness). Its log is in its view.
    pub(super) fn crown(&mut self, server: usize, term: Term) -> Check {
        let node = self.nodes[server];
        let life = self.views[server].life;
        if let Some(reign) = self.logs.reigns.get(&term) {
            let same = reign.node == node && reign.life == life;
            demand!(same, ElectionSafety, "{} and {node} both lead term {term}", reign.node);
        } else {
            return Err(super::Breach::new(
                super::Checker::LeaderMakesEntries,
                format!("{node} leads term {term} and has not opened it with an entry"),
            ));
        }
        demand!(
            self.is_elected(server, term),
            ElectedByQuorum,
            "{node} leads term {term} without a quorum"
        );
        let must = self.logs.committed_before(term);
        demand!(
            self.views[server].log.holds(must),
            LeaderCompleteness,
            "{node} leads term {term} without {must}, which an older term committed"
        );
        Ok(())
    }

    /// A leader's log grew.
    pub(super) fn extend_reign(&mut self, term: Term, last: Index) {
        if let Some(reign) = self.logs.reigns.get_mut(&term) {
            reign.last = reign.last.max(last);
        }
    }

    /// A server holds everything up to here to be committed.
    pub(super) fn commit(&mut self, server: usize, upto: Index, leads: bool, term: Term) -> Check {
        let node = self.nodes[server];
        let log_id =
            LogId { term: self.views[server].log.term_at(upto).unwrap_or_default(), index: upto };
        let known = self.logs.committed.last();
        if upto <= known.index {
            let same = self.logs.committed.holds(log_id);
            demand!(
                same,
                CommitMonotonic,
                "{node} holds {log_id} to be committed, others another entry"
            );
            return Ok(());
        }
        demand!(leads, CommitByLeader, "{node} knows of {log_id} before any leader");
        demand!(
            self.views[server].log.holds(known),
            CommitMonotonic,
            "{node} commits {log_id} without {known}, which is committed"
        );
        demand!(
            log_id.term == term,
            CommitOwnTerm,
            "the leader of term {term} counted for {log_id}"
        );
        if let Some(membership) = self.views[server].membership(&self.logs) {
            let held = self.is_quorum(&membership, |judge, at| judge.disks[at].has_held(log_id));
            demand!(
                held,
                CommitNeedsQuorum,
                "{node} commits {log_id}, which no quorum has on disk"
            );
        }
        if let Some((later, lacks)) = self.logs.lacking(log_id, term) {
            demand!(
                false,
                LeaderCompleteness,
                "{log_id} is committed, and {lacks} leads term {later} without it"
            );
        }
        for index in known.index.0 + 1..=upto.0 {
            let term = self.views[server].log.term_at(Index(index)).unwrap_or_default();
            self.logs.committed.push(term);
        }
        if self.logs.committed_by.last().is_none_or(|(_, by)| *by != term) {
            self.logs.committed_by.push((known.index.next(), term));
        }
        Ok(())
    }
}
