//! The words of the Raft paper as types: terms, indexes, and the names of servers and clusters.

use std::fmt;

/// Declares a `u64` newtype that prints as its number.
macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number! {
    /// A term: Raft's logical clock (Raft §5.1). Zero is before any term.
    Term
}
number! {
    /// The position of an entry in the log (Raft §5.3). The first entry is 1; zero is before the log.
    Index
}
number! {
    /// The cluster's name and founding list as a number. Servers of different clusters never talk.
    ClusterId
}
number! {
    /// The generation of a cluster. A cluster that was revived after losing its quorum has a higher one.
    Epoch
}
number! {
    /// A random number drawn when a store is born; a wiped store returns with another one.
    Incarnation
}
number! {
    /// Which of the groups that share a transport and a store is meant. Always 0 today.
    GroupId
}
number! {
    /// A client session: the index of the entry that opened it (thesis §6.3), so nothing can revive it.
    SessionId
}

impl Term {
    /// Terms at or above this are malformed: a peer that sends one is broken.
    pub const LIMIT: Self = Self(1 << 62);
    /// How far a message may be ahead of the term known here before it is malformed.
    pub const MAX_LEAP: u64 = 1 << 32;

    /// The term after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Index {
    /// Indexes at or above this are malformed: a peer that sends one is broken.
    pub const LIMIT: Self = Self(1 << 62);

    /// The index after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The index before this one; zero stays zero.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

/// The identity of an entry: no two entries that Raft ever commits share one (Raft §5.3, log matching).
///
/// Orders by term, then by index: `a >= b` is exactly "a's log is at least as up to date" of Raft
/// §5.4.1 when both are the last entries of their logs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogId {
    /// The term of the leader that created the entry.
    pub term: Term,
    /// Its position in the log.
    pub index: Index,
}

impl LogId {
    /// The place before the first entry of any log.
    pub const ZERO: Self = Self { term: Term(0), index: Index(0) };

    /// An identity from plain numbers.
    #[must_use]
    pub const fn new(term: u64, index: u64) -> Self {
        Self { term: Term(term), index: Index(index) }
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A server's number: a fixed hash of its name. Zero is never a server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The number of the server called `name`. The hash is part of the formats and never changes.
    ///
    /// Two names may collide (with probability 2^-64 a pair); founding a cluster checks for it.
    #[must_use]
    pub fn of_name(name: &str) -> Self {
        Self(stable_hash(name.as_bytes()).max(1))
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Small numbers are written by hand in tests and embeddings; hashes read better in hex.
        if self.0 < 1 << 32 { write!(f, "n{}", self.0) } else { write!(f, "n{:016x}", self.0) }
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl ClusterId {
    /// The number of the cluster called `name`, founded by the servers called `founders`.
    /// The order of the founders does not matter.
    #[must_use]
    pub fn of(name: &str, founders: &[&str]) -> Self {
        let mut sorted: Vec<&str> = founders.to_vec();
        sorted.sort_unstable();
        let mut text = String::from(name);
        for founder in sorted {
            text.push('\0');
            text.push_str(founder);
        }
        Self(stable_hash(text.as_bytes()))
    }
}

/// A 64-bit hash that is the same on every machine and in every version: FNV-1a, then the
/// finaliser of SplitMix64 so that similar names differ in all bits.
#[must_use]
pub fn stable_hash(bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    mix(fnv)
}

/// The finaliser of SplitMix64: every bit of the input reaches every bit of the output.
#[must_use]
pub(crate) const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_ids_order_by_term_before_index() {
        assert!(LogId::new(2, 1) > LogId::new(1, 9));
        assert!(LogId::new(2, 3) > LogId::new(2, 2));
    }

    /// The hash is stored on disk and compared across machines: these values may never change.
    #[test]
    fn names_hash_to_the_same_number_for_ever() {
        assert_eq!(NodeId::of_name("server1"), NodeId(0x3dac_e895_1c2f_aa15));
        assert_ne!(NodeId::of_name("server1"), NodeId::of_name("server2"));
        assert_eq!(ClusterId::of("stack", &["b", "a"]), ClusterId::of("stack", &["a", "b"]));
        assert_ne!(ClusterId::of("stack", &["ab"]), ClusterId::of("stack", &["a", "b"]));
    }
}
