//! What can be asked of the map, and what is answered.

#![allow(missing_docs, reason = "what rkyv derives has fields that nobody can document")]

use std::{error::Error, fmt};

use super::MAX_KEY_BYTES;

/// What can be asked.
#[derive(graft::Archive, graft::Serialize, graft::Deserialize, Clone, PartialEq, Eq, Debug)]
#[rkyv(crate = graft::rkyv)]
pub enum KvEntry {
    /// The value of a key. Answered with [`KvReply::Found`].
    Get {
        /// Which key.
        key: String,
    },
    /// Gives a key a value, whether or not it had one. Answered with [`KvReply::Previous`].
    Put {
        /// Which key.
        key: String,
        /// Its value from now on.
        value: String,
    },
    /// Takes a key away. Answered with [`KvReply::Previous`].
    Delete {
        /// Which key.
        key: String,
    },
    /// Gives a key a value if it has the expected one now. Answered with [`KvReply::Compared`].
    CompareAndSwap {
        /// Which key.
        key: String,
        /// What must be found for the swap to be made; `None`: the key must be absent.
        expected: Option<String>,
        /// Its value after the swap.
        value: String,
    },
    /// The pairs whose keys begin with a prefix, in the order of the keys' bytes, a page at a time. Answered
    /// with [`KvReply::Page`].
    List {
        /// What the keys begin with; empty for all.
        prefix: String,
        /// The last key of the page before, for the next page.
        after: Option<String>,
    },
}

impl KvEntry {
    /// Whether it only looks. Such an entry does no harm if it is applied twice, so it needs no session.
    #[must_use]
    pub const fn is_read(&self) -> bool {
        matches!(self, Self::Get { .. } | Self::List { .. })
    }

    pub(super) const fn key(&self) -> Option<&String> {
        match self {
            Self::Get { key }
            | Self::Put { key, .. }
            | Self::Delete { key }
            | Self::CompareAndSwap { key, .. } => Some(key),
            Self::List { .. } => None,
        }
    }
}

impl graft::Entry for KvEntry {
    type Response = KvReply;
}

/// What is answered.
#[derive(graft::Archive, graft::Serialize, graft::Deserialize, Clone, PartialEq, Eq, Debug)]
#[rkyv(crate = graft::rkyv)]
pub enum KvReply {
    /// The value of the key; `None`: the key is absent.
    Found(Option<String>),
    /// The value that the key had until now; `None`: it was absent. The key now has the new value, or is gone.
    Previous(Option<String>),
    /// Whether the value was swapped, and what was compared with the expected one.
    Compared {
        /// Whether the key now has the new value. If not, nothing has changed.
        swapped: bool,
        /// The value that was found; `None`: the key was absent.
        found: Option<String>,
    },
    /// Some pairs.
    Page {
        /// Keys with their values, in order.
        pairs: Vec<(String, String)>,
        /// Whether there are more behind the last of them.
        more: bool,
    },
    /// The entry was not carried out, and nothing has changed.
    Refused(KvRefusal),
}

/// Why an entry was not carried out.
#[derive(graft::Archive, graft::Serialize, graft::Deserialize, Clone, PartialEq, Eq, Debug)]
#[rkyv(crate = graft::rkyv)]
pub enum KvRefusal {
    /// The key is longer than [`MAX_KEY_BYTES`].
    KeyTooLong {
        /// How long it is.
        bytes: u64,
    },
    /// The map would pass its bound.
    Full {
        /// How many bytes of keys and values it may hold.
        limit: u64,
    },
}

impl fmt::Display for KvRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyTooLong { bytes } => {
                write!(
                    f,
                    "the key has {bytes} bytes, {MAX_KEY_BYTES} are the most: use a shorter one"
                )
            }
            Self::Full { limit } => {
                write!(
                    f,
                    "the store is full at {limit} bytes of keys and values: delete some first"
                )
            }
        }
    }
}

impl Error for KvRefusal {}
