//! What is true of the cluster as a whole, as far as it has shown itself: no server knows these.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::disk::place;
use crate::{
    EntryKind, EntryRef, Index, LogId, LogTime, Membership, NodeId, Term, Token, raft::LinkId,
};

/// The properties of Raft Figure 3, kept as records that each new observation is held against.
#[derive(Debug)]
pub(super) struct Facts {
    membership: Membership,
    /// Every entry that was ever in a log, by index.
    known: Vec<Vec<Known>>,
    /// Who led each term.
    reigns: Vec<Option<Reign>>,
    /// Every vote that was ever durable: by term, (voter, candidate).
    votes: Vec<Vec<(NodeId, NodeId)>>,
    /// The committed log.
    committed: Vec<Committed>,
    requests: Vec<Request>,
    refused_transfers: BTreeSet<u64>,
}

/// An entry: of one identity there is one, with one predecessor. By induction that is log matching.
#[derive(Debug)]
pub(super) struct Known {
    term: Term,
    previous: Term,
    time: LogTime,
    pub(super) kind: EntryKind,
    pub(super) payload: Bytes,
    pub(super) size: usize,
}

impl Known {
    /// Whether it is this entry, behind one of term `previous`.
    pub(super) fn is(&self, previous: Term, entry: EntryRef<'_>) -> bool {
        self.previous == previous
            && (self.time, self.kind) == (entry.time, entry.kind)
            && self.payload == entry.payload
    }
}

/// A leader and its log, which only grows (Leader Append-Only).
#[derive(Debug)]
pub(super) struct Reign {
    pub(super) node: NodeId,
    pub(super) log: Vec<Term>,
    /// The index of its first own entry.
    pub(super) start: Index,
}

#[derive(Debug)]
struct Committed {
    term: Term,
    /// The term of the leader that committed it.
    by: Term,
}

/// A proposal, from its making to its end.
#[derive(Debug)]
struct Request {
    /// Where it was proposed, and in which of that server's lives.
    at: (NodeId, u32),
    entered: Option<LogId>,
    ended: bool,
    refused: bool,
}

impl Facts {
    /// What is true of a cluster of these members, whose logs all begin with this entry.
    pub(super) fn new(membership: Membership, founding: EntryRef<'_>) -> Self {
        Self {
            membership,
            known: vec![vec![known(Term(0), founding)]],
            reigns: Vec::new(),
            votes: Vec::new(),
            committed: Vec::new(),
            requests: Vec::new(),
            refused_transfers: BTreeSet::new(),
        }
    }

    /// Whether those of whom `has` is true are a quorum.
    pub(super) fn is_quorum(&self, has: impl Fn(NodeId) -> bool) -> bool {
        is_quorum(&self.membership, has)
    }

    /// An entry showed up in a log behind one of term `previous`. New ones are made by the leader of
    /// their term and nobody else.
    pub(super) fn learn(&mut self, previous: Term, entry: EntryRef<'_>, leader: Option<Term>) {
        let LogId { term, index } = entry.log_id;
        let at = place(index);
        if at == self.known.len() {
            self.known.push(Vec::new());
        }
        if let Some(known) = self.known[at].iter().find(|known| known.term == term) {
            assert!(known.is(previous, entry), "log matching: {} is two entries", entry.log_id);
            return;
        }
        assert!(leader == Some(term), "{} was not made by the leader of its term", entry.log_id);
        if let Some(before) = self.entry(LogId { term: previous, index: index.previous() }) {
            assert!(before.time <= entry.time, "log time went back at {}", entry.log_id);
        }
        if let Some(number) = request_of(entry) {
            let request = &mut self.requests[number];
            assert!(!request.refused, "request {number} was refused and is in a log");
            assert!(request.entered.is_none(), "request {number} is in the log twice");
            request.entered = Some(entry.log_id);
        }
        self.known[at].push(known(previous, entry));
    }

    pub(super) fn entry(&self, log_id: LogId) -> Option<&Known> {
        let at = log_id.index.0.checked_sub(1)?;
        let same_index = self.known.get(usize::try_from(at).ok()?)?;
        same_index.iter().find(|known| known.term == log_id.term)
    }

    pub(super) fn kind(&self, log_id: LogId) -> Option<EntryKind> {
        Some(self.entry(log_id)?.kind)
    }

    pub(super) fn reign(&self, term: Term) -> Option<&Reign> {
        self.reigns.get(slot(term))?.as_ref()
    }

    pub(super) fn latest_reign(&self) -> Term {
        Term(self.reigns.len().saturating_sub(1) as u64)
    }

    /// A leader showed up (Election Safety, Leader Completeness).
    pub(super) fn crown(&mut self, term: Term, node: NodeId, log: &[Term]) {
        for (at, committed) in self.committed.iter().enumerate() {
            let held = log.get(at) == Some(&committed.term);
            assert!(
                held || committed.by >= term,
                "leader completeness: {node} leads term {term} without the committed entry {}",
                at + 1
            );
        }
        let at = slot(term);
        if self.reigns.len() <= at {
            self.reigns.resize_with(at + 1, || None);
        }
        assert!(self.reigns[at].is_none(), "election safety: term {term} has two leaders");
        let start = Index(log.len() as u64);
        assert!(log.last() == Some(&term), "a leader opens its term with an entry");
        self.reigns[at] = Some(Reign { node, log: log.to_vec(), start });
    }

    /// A leader's log grew.
    pub(super) fn extend_reign(&mut self, term: Term, log: &[Term]) {
        if let Some(Some(reign)) = self.reigns.get_mut(slot(term)) {
            let from = reign.log.len();
            reign.log.extend_from_slice(&log[from..]);
        }
    }

    /// A vote is on a disk.
    pub(super) fn vote(&mut self, term: Term, voter: NodeId, candidate: NodeId) {
        let at = slot(term);
        if self.votes.len() <= at {
            self.votes.resize_with(at + 1, Vec::new);
        }
        let votes = &mut self.votes[at];
        match votes.iter().find(|(known, _)| *known == voter) {
            Some((_, before)) => {
                assert!(*before == candidate, "{voter} voted twice in term {term}");
            }
            None => votes.push((voter, candidate)),
        }
    }

    /// Whether a quorum has durably voted for this candidate.
    pub(super) fn is_elected(&self, term: Term, candidate: NodeId) -> bool {
        let votes = self.votes.get(slot(term)).map_or(&[][..], Vec::as_slice);
        self.is_quorum(|voter| votes.contains(&(voter, candidate)))
    }

    pub(super) fn committed(&self) -> Index {
        Index(self.committed.len() as u64)
    }

    /// Whether this is the committed entry at its index.
    pub(super) fn is_committed(&self, log_id: LogId) -> bool {
        self.committed.get(place(log_id.index)).is_some_and(|entry| entry.term == log_id.term)
    }

    /// A server holds this entry to be committed. Says whether that is news to the cluster.
    pub(super) fn commit(&mut self, log_id: LogId, leader: Option<Term>) -> bool {
        let at = place(log_id.index);
        if let Some(committed) = self.committed.get(at) {
            assert!(committed.term == log_id.term, "two entries {} are committed", log_id.index);
            return false;
        }
        assert!(at == self.committed.len(), "a commit left a gap");
        let by = leader.expect("a follower knew of a commit before any leader");
        self.committed.push(Committed { term: log_id.term, by });
        true
    }

    /// A new request, made at this life of this server.
    pub(super) fn make_request(&mut self, at: (NodeId, u32)) -> Token {
        self.requests.push(Request { at, entered: None, ended: false, refused: false });
        token(self.requests.len() - 1)
    }

    /// A request went to the machine with its entry.
    pub(super) fn serve(&mut self, token: Token, log_id: LogId, at: (NodeId, u32)) {
        let request = self.end(token, at);
        assert!(request.entered == Some(log_id), "a token waits for another entry than its own");
    }

    /// A request was refused.
    pub(super) fn refuse(&mut self, token: Token, at: (NodeId, u32), leadership_lost: bool) {
        let request = self.end(token, at);
        request.refused = !leadership_lost;
        let entered = request.entered.is_some();
        assert!(entered == leadership_lost, "the refusal of {token:?} says the wrong thing");
    }

    /// A transfer was refused.
    pub(super) fn refuse_transfer(&mut self, token: Token) {
        let first = self.refused_transfers.insert(token.request_id);
        assert!(first, "a transfer was refused twice");
    }

    fn end(&mut self, token: Token, at: (NodeId, u32)) -> &mut Request {
        let number = usize::try_from(token.request_id).expect("small");
        let request = &mut self.requests[number];
        assert!(request.at == at, "request {number} was answered elsewhere");
        assert!(!request.ended, "request {number} was answered twice");
        request.ended = true;
        request
    }

    /// The requests that were made at these lives of the servers and have not ended.
    pub(super) fn open_requests(&self, lives: &[(NodeId, u32)]) -> usize {
        let open = self.requests.iter().filter(|one| !one.ended && lives.contains(&one.at));
        open.count()
    }
}

/// A majority of the voters and, where there are some, of the outgoing ones, counted by hand.
pub(super) fn is_quorum(membership: &Membership, has: impl Fn(NodeId) -> bool) -> bool {
    let majority = |half: &BTreeSet<NodeId>| {
        let held = half.iter().filter(|node| has(**node)).count();
        half.is_empty() || held * 2 > half.len()
    };
    majority(&membership.voters) && majority(&membership.outgoing)
}

fn known(previous: Term, entry: EntryRef<'_>) -> Known {
    let EntryRef { log_id, time, kind, .. } = entry;
    // A copy: were the entry's memory written to, it would show.
    let (payload, size) = (Bytes::copy_from_slice(entry.payload), entry.size());
    Known { term: log_id.term, previous, time, kind, payload, size }
}

fn slot(term: Term) -> usize {
    usize::try_from(term.0).expect("small")
}

/// The link of all proposals.
pub(super) const CLIENTS: LinkId = LinkId(7);

fn token(number: usize) -> Token {
    Token { link: CLIENTS, request_id: number as u64 }
}

/// The payload by which the model knows a request again.
pub(super) fn payload(token: Token, padding: usize) -> Bytes {
    let mut bytes = Vec::with_capacity(8 + padding);
    bytes.extend_from_slice(&token.request_id.to_le_bytes());
    bytes.resize(8 + padding, 0);
    bytes.into()
}

/// The number of the request that an entry came from.
fn request_of(entry: EntryRef<'_>) -> Option<usize> {
    let number: [u8; 8] = entry.payload.get(..8)?.try_into().ok()?;
    let is_command = entry.kind.is_clients();
    is_command.then(|| usize::try_from(u64::from_le_bytes(number)).expect("small"))
}
