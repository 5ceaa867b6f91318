//! A disk that holds exactly what was written to it.

use graft_core::{
    Birth, ClusterId, Entries, Entry, EntryKind, EntryRef, Epoch, HardState, Identity, Incarnation,
    Index, LogId, LogTime, Membership, NodeId, NodeInfo, Recovered, Term, Write,
    raft::{Load, WriteBatch},
};

/// What one server has written so far; it survives the server's crash.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    pub(crate) identity: Identity,
    pub(crate) hard_state: HardState,
    /// The entry of index `i` is at `i - 1`.
    pub(crate) entries: Vec<Entry>,
}

impl Disk {
    /// The disk of a server that was just born.
    pub(crate) fn newborn(node: NodeId) -> Self {
        let identity = Identity {
            cluster: ClusterId(1),
            epoch: Epoch(0),
            node,
            name: node.to_string(),
            incarnation: Incarnation(100 + node.0),
            birth: Birth::Founder,
            machine: "test".into(),
            format: 0,
        };
        Self { identity, hard_state: HardState::default(), entries: Vec::new() }
    }

    /// The disk of a founder: the membership of `voters` is entry 1 of term 1.
    pub(crate) fn founded(node: NodeId, voters: &[NodeId]) -> Self {
        let members = voters.iter().map(|voter| (*voter, NodeInfo::default()));
        let mut disk = Self::newborn(node);
        for write in Membership::of_voters(members).founding_writes() {
            disk.write_one(write);
        }
        disk
    }

    /// Continues the log so that its entries have exactly these terms. The first one is the
    /// founding's.
    pub(crate) fn with_terms(mut self, terms: &[u64]) -> Self {
        assert_eq!(terms.first(), Some(&1), "the first entry is the founding membership of term 1");
        for (index, term) in (1..).zip(terms).skip(1) {
            self.entries.push(plain_entry(*term, index));
        }
        let last = Term(*terms.last().expect("not empty"));
        self.hard_state.term = self.hard_state.term.max(last);
        self
    }

    /// Sets the durable term and vote.
    pub(crate) fn in_term(mut self, term: u64, voted_for: Option<NodeId>) -> Self {
        assert!(self.last().term.0 <= term, "no entry is from a later term");
        self.hard_state.term = Term(term);
        self.hard_state.voted_for = voted_for;
        self
    }

    pub(crate) fn last(&self) -> LogId {
        self.entries.last().map_or(LogId::ZERO, |entry| entry.log_id)
    }

    /// The terms of all entries in order, as the figures of the paper draw a log.
    pub(crate) fn terms(&self) -> Vec<u64> {
        self.entries.iter().map(|entry| entry.log_id.term.0).collect()
    }

    pub(crate) fn holds(&self, log_id: LogId) -> bool {
        let at = usize::try_from(log_id.index.0).unwrap() - 1;
        self.entries.get(at).is_some_and(|entry| entry.log_id == log_id)
    }

    /// All of a batch becomes durable.
    pub(crate) fn write(&mut self, batch: &WriteBatch) {
        assert!(!batch.writes.is_empty(), "an empty write costs an fsync for nothing");
        for write in &batch.writes {
            self.write_one(write.clone());
        }
    }

    fn write_one(&mut self, write: Write) {
        match write {
            Write::HardState(hard_state) => {
                let old = self.hard_state;
                assert!(hard_state.term >= old.term, "a stored term never falls");
                let same_vote = hard_state.voted_for == old.voted_for;
                let first_vote = old.voted_for.is_none();
                let free = hard_state.term > old.term || same_vote || first_vote;
                assert!(free, "a stored vote never changes within a term");
                self.hard_state = hard_state;
            }
            Write::Append(entries) => {
                let first = entries.first_index().expect("an append is not empty").0;
                let keep = usize::try_from(first).unwrap() - 1;
                assert!(keep <= self.entries.len(), "an append leaves no gap");
                self.entries.truncate(keep);
                self.entries.extend(entries.iter().map(EntryRef::to_entry));
            }
            other => panic!("{other:?} is not expected here"),
        }
    }

    pub(crate) fn read(&self, load: &Load) -> Entries {
        let wanted = |entry: &&Entry| load.range.contains(&entry.log_id.index);
        let found: Vec<Entry> = self.entries.iter().filter(wanted).cloned().collect();
        Entries::from(found).slice_bounded(load.range.clone(), usize::MAX, load.max_bytes)
    }

    pub(crate) fn recover(&self) -> Recovered {
        let mut terms: Vec<(Index, Term)> = Vec::new();
        for entry in &self.entries {
            if terms.last().is_none_or(|(_, term)| *term != entry.log_id.term) {
                terms.push((entry.log_id.index, entry.log_id.term));
            }
        }
        let memberships = self.entries.iter().filter(|entry| entry.kind == EntryKind::Membership);
        Recovered {
            hard_state: self.hard_state,
            last: self.last(),
            last_time: self.entries.last().map_or(LogTime(0), |entry| entry.time),
            terms,
            memberships: memberships
                .map(|entry| (entry.log_id, Membership::decode(&entry.payload).unwrap()))
                .collect(),
            ..Recovered::newborn(self.identity.clone())
        }
    }
}

/// The one entry with this identity: whoever names the same means the same.
pub(crate) fn plain_entry(term: u64, index: u64) -> Entry {
    Entry {
        log_id: LogId::new(term, index),
        time: LogTime(index),
        kind: EntryKind::Plain,
        payload: format!("{index}@{term}").into(),
    }
}
