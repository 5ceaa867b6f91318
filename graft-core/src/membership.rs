//! Who belongs to the cluster: voters, learners, and how to reach them (Raft §6, thesis §4).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::{Entry, EntryKind, HardState, Incarnation, Index, LogId, LogTime, NodeId, Term, Write};

/// The servers of a cluster and their part in it. In force from the moment its entry is in the log
/// (thesis §4.1), not from its commit.
///
/// Invariants: `voters` is not empty; every voter, outgoing voter, learner and target is in `nodes`;
/// no learner is a voter.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Membership {
    /// Those whose votes and acknowledgements count.
    pub voters: BTreeSet<NodeId>,
    /// While a change is under way, the voters before it: then both majorities are needed (Raft §6).
    pub outgoing: BTreeSet<NodeId>,
    /// Those who get the log but do not count.
    pub learners: BTreeSet<NodeId>,
    /// The voters a change is to end with, so that any later leader can finish it.
    pub target: Option<BTreeSet<NodeId>>,
    /// How to reach each server.
    pub nodes: BTreeMap<NodeId, NodeInfo>,
}

/// What the membership says of one server.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct NodeInfo {
    /// The server's name.
    pub name: String,
    /// Where its peers reach it.
    pub peer_address: String,
    /// Where clients reach it.
    pub client_address: String,
    /// The birth of its store. Zero where it is not known.
    pub incarnation: Incarnation,
    /// Higher is preferred as leader; zero is normal.
    pub priority: u32,
}

/// Why bytes are not a membership.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MembershipError {
    /// The bytes end too early, carry trailing bytes, or a name is not UTF-8.
    #[error("a membership of {length} bytes is malformed at byte {at}")]
    Malformed {
        /// How many bytes there were.
        length: usize,
        /// Where the first problem is.
        at: usize,
    },
    /// Written by a newer build.
    #[error("a membership has format {found}, this build knows {known}: upgrade this server first")]
    UnknownFormat {
        /// The format found.
        found: u8,
        /// The latest format this build reads.
        known: u8,
    },
    /// The parts contradict each other.
    #[error("a membership is inconsistent: {reason}")]
    Inconsistent {
        /// Which invariant is broken.
        reason: &'static str,
    },
}

impl Membership {
    const FORMAT: u8 = 1;

    /// A membership of voters alone, each with what is known of it.
    #[must_use]
    pub fn of_voters(nodes: impl IntoIterator<Item = (NodeId, NodeInfo)>) -> Self {
        let nodes: BTreeMap<_, _> = nodes.into_iter().collect();
        Self { voters: nodes.keys().copied().collect(), nodes, ..Self::default() }
    }

    /// Whether `node`'s vote counts, in either half of a joint configuration.
    #[must_use]
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.outgoing.contains(&node)
    }

    /// Whether two majorities are needed.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Everyone who gets the log: voters of both halves and learners, each once, in order.
    pub fn members(&self) -> impl Iterator<Item = NodeId> {
        let all: BTreeSet<NodeId> =
            self.voters.iter().chain(&self.outgoing).chain(&self.learners).copied().collect();
        all.into_iter()
    }

    /// The birth of `node`'s store, zero where it is not known.
    #[must_use]
    pub fn incarnation(&self, node: NodeId) -> Incarnation {
        self.nodes.get(&node).map_or(Incarnation(0), |info| info.incarnation)
    }

    /// Checks the invariants.
    ///
    /// # Errors
    ///
    /// [`MembershipError::Inconsistent`] names the first one that is broken.
    pub fn check(&self) -> Result<(), MembershipError> {
        let broken = |reason| Err(MembershipError::Inconsistent { reason });
        if self.voters.is_empty() {
            return broken("it has no voters");
        }
        if self.learners.iter().any(|learner| self.is_voter(*learner)) {
            return broken("a learner is also a voter");
        }
        let target = self.target.iter().flatten();
        let mut named =
            self.voters.iter().chain(&self.outgoing).chain(&self.learners).chain(target);
        if named.any(|node| !self.nodes.contains_key(node)) {
            return broken("a member has no address");
        }
        Ok(())
    }

    /// The writes that found a cluster: the membership as the entry 1 of term 1, which no leader
    /// ever campaigns in. Every founder writes the same, before its first vote.
    #[must_use]
    pub fn founding_writes(&self) -> Vec<Write> {
        let log_id = LogId { term: Term(1), index: Index(1) };
        let entry =
            Entry { log_id, time: LogTime(0), kind: EntryKind::Membership, payload: self.encode() };
        let hard_state = HardState { term: log_id.term, voted_for: None, commit: Index(0) };
        vec![Write::HardState(hard_state), Write::Append(vec![entry].into())]
    }

    /// The bytes of a membership entry's payload. The format is fixed: see docs/architecture.md.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = vec![Self::FORMAT];
        let put_set = |out: &mut Vec<u8>, set: &BTreeSet<NodeId>| {
            put_length(out, set.len());
            for node in set {
                out.extend_from_slice(&node.0.to_le_bytes());
            }
        };
        put_set(&mut out, &self.voters);
        put_set(&mut out, &self.outgoing);
        put_set(&mut out, &self.learners);
        out.push(u8::from(self.target.is_some()));
        if let Some(target) = &self.target {
            put_set(&mut out, target);
        }
        put_length(&mut out, self.nodes.len());
        for (node, info) in &self.nodes {
            out.extend_from_slice(&node.0.to_le_bytes());
            out.extend_from_slice(&info.incarnation.0.to_le_bytes());
            out.extend_from_slice(&info.priority.to_le_bytes());
            for text in [&info.name, &info.peer_address, &info.client_address] {
                put_length(&mut out, text.len());
                out.extend_from_slice(text.as_bytes());
            }
        }
        out.into()
    }

    /// Reads what [`Membership::encode`] wrote.
    ///
    /// # Errors
    ///
    /// [`MembershipError`] says what is wrong with the bytes. Nothing is allocated by a length that
    /// the bytes do not back.
    pub fn decode(bytes: &[u8]) -> Result<Self, MembershipError> {
        let mut reader = Reader { bytes, at: 0 };
        let format = reader.take(1)?[0];
        if format != Self::FORMAT {
            return Err(MembershipError::UnknownFormat { found: format, known: Self::FORMAT });
        }
        let mut membership = Self {
            voters: reader.set()?,
            outgoing: reader.set()?,
            learners: reader.set()?,
            ..Self::default()
        };
        if reader.take(1)?[0] != 0 {
            membership.target = Some(reader.set()?);
        }
        for _ in 0..reader.length()? {
            let node = NodeId(reader.u64()?);
            let info = NodeInfo {
                incarnation: Incarnation(reader.u64()?),
                priority: reader.length()?,
                name: reader.text()?,
                peer_address: reader.text()?,
                client_address: reader.text()?,
            };
            membership.nodes.insert(node, info);
        }
        if reader.at != bytes.len() {
            return Err(reader.malformed());
        }
        membership.check()?;
        Ok(membership)
    }
}

/// Lengths are 32 bits, little endian. A membership is far below that: entries are bounded.
fn put_length(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn malformed(&self) -> MembershipError {
        MembershipError::Malformed { length: self.bytes.len(), at: self.at }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], MembershipError> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| self.malformed())?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], MembershipError> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| self.malformed())
    }

    fn length(&mut self) -> Result<u32, MembershipError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, MembershipError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn set(&mut self) -> Result<BTreeSet<NodeId>, MembershipError> {
        let count = self.length()?;
        (0..count).map(|_| Ok(NodeId(self.u64()?))).collect()
    }

    fn text(&mut self) -> Result<String, MembershipError> {
        let length = self.length()?;
        let bytes = self.take(length as usize)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| self.malformed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joint() -> Membership {
        let info = |name: &str| NodeInfo {
            name: name.into(),
            peer_address: format!("{name}:4400"),
            client_address: String::new(),
            incarnation: Incarnation(7),
            priority: 1,
        };
        let mut membership =
            Membership::of_voters(["a", "b", "c"].map(|name| (NodeId::of_name(name), info(name))));
        membership.outgoing = membership.voters.iter().take(1).copied().collect();
        membership.target = Some(membership.voters.clone());
        membership.learners.insert(NodeId(5));
        membership.nodes.insert(NodeId(5), info("d"));
        membership
    }

    #[test]
    fn a_membership_survives_its_encoding() {
        assert_eq!(Membership::decode(&joint().encode()), Ok(joint()));
    }

    #[test]
    fn every_truncation_is_an_error_and_so_is_a_longer_one() {
        let bytes = joint().encode();
        for length in 0..bytes.len() {
            assert!(Membership::decode(&bytes[..length]).is_err(), "{length} bytes were accepted");
        }
        assert!(Membership::decode(&[&bytes[..], &[0]].concat()).is_err());
    }

    #[test]
    fn a_membership_that_contradicts_itself_is_refused() {
        let mut nobody = joint();
        nobody.voters.clear();
        assert!(nobody.check().is_err());
        let mut both = joint();
        both.learners.extend(both.voters.clone());
        assert!(both.check().is_err());
        let mut unknown = joint();
        unknown.voters.insert(NodeId(99));
        assert!(unknown.check().is_err());
    }
}
