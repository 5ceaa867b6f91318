//! Servers, entries and settings that several benches start from.

use bytes::Bytes;
use graft_core::{
    Birth, ClusterId, Entries, Entry, EntryKind, Epoch, Identity, Incarnation, LogId, LogTime,
    NodeId,
};

/// The cluster of all samples.
pub const CLUSTER: ClusterId = ClusterId(1);

/// A founder called `name`.
#[must_use]
pub fn identity(name: &str) -> Identity {
    Identity {
        cluster: CLUSTER,
        epoch: Epoch(0),
        node: NodeId::of_name(name),
        name: name.to_owned(),
        incarnation: Incarnation(1),
        birth: Birth::Founder,
        machine: "nothing".to_owned(),
        format: 0,
    }
}

/// The entry at `index` in term 1, with 16 bytes of payload.
#[must_use]
pub fn entry(index: u64, kind: EntryKind, payload: Bytes) -> Entry {
    Entry { log_id: LogId::new(1, index), time: LogTime(0), kind, payload }
}

/// `count` small commands from `first` on, in one segment.
#[must_use]
pub fn entries(first: u64, count: u64) -> Entries {
    let payload = Bytes::from_static(&[0; 16]);
    let command = |index| entry(index, EntryKind::Plain, payload.clone());
    (first..first + count).map(command).collect()
}
