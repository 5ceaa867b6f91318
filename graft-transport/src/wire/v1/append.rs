//! `AppendEntries`: the entries' descriptions in one flat list, their payloads behind it.

use bytes::Bytes;
use graft_core::{
    AppendEntries, Entries, Entry, EntryKind, Index, LogId, LogTime, Message, PeerEnvelope, Term,
};
use rkyv::{Archive, Serialize};

use super::{
    Frame, Kind, Limits, Outgoing, WireError,
    outgoing::Payload,
    peer::{Address, LogPlace},
};

/// What an entry takes in the body, in bytes.
pub(super) const ENTRY_BYTES: usize = size_of::<EntryBody>();

#[derive(Archive, Serialize)]
struct AppendBody {
    address: Address,
    term: u64,
    prev: LogPlace,
    commit: u64,
    round: u64,
    /// The index of the first entry; those after it follow one by one.
    first: u64,
    entries: Vec<EntryBody>,
}

/// An entry but for its index and its payload.
#[derive(Archive, Serialize)]
#[repr(C)]
struct EntryBody {
    term: u64,
    time: u64,
    payload_bytes: u32,
    kind: u8,
    /// Zero. In words, so that there is no padding and a whole list is copied at once.
    reserved: [u8; 3],
}

pub(super) fn encode(
    envelope: &PeerEnvelope,
    append: &AppendEntries,
    header: (Kind, graft_core::ClusterId, graft_core::GroupId),
    limits: &Limits,
    out: &mut Outgoing,
) -> Result<(), WireError> {
    let entries = &append.entries;
    let mut list = Vec::with_capacity(entries.len());
    for slice in entries.slices() {
        for entry in slice {
            list.push(describe(entry)?);
        }
    }
    let body = AppendBody {
        address: envelope.into(),
        term: append.term.0,
        prev: append.prev.into(),
        commit: append.commit.0,
        round: append.round,
        first: entries.first_index().unwrap_or_default().0,
        entries: list,
    };
    let payloads = entries.slices().flatten().map(|entry| Payload::Shared(&entry.payload));
    out.frame(header, &body, payloads, limits)
}

fn describe(entry: &Entry) -> Result<EntryBody, WireError> {
    let bytes = entry.payload.len();
    let payload_bytes = u32::try_from(bytes).map_err(|_| WireError::TooLarge {
        kind: Kind::Append,
        part: "payload",
        bytes: bytes as u64,
        limit: u32::MAX.into(),
    })?;
    Ok(EntryBody {
        term: entry.log_id.term.0,
        time: entry.time.0,
        payload_bytes,
        kind: entry.kind as u8,
        reserved: [0; 3],
    })
}

/// The payloads of the entries share the frame's memory. They live and die together, since a log
/// lets go of a run of entries as one; and what is neither payload nor counted for an entry by
/// [`Entry::size`] is a few words a frame.
pub(super) fn decode(frame: &Frame) -> Result<PeerEnvelope, WireError> {
    let body = frame.access::<ArchivedAppendBody>(Kind::Append)?;
    let mut payloads = frame.payloads();
    let mut index = body.first.to_native();
    let mut list = Vec::with_capacity(body.entries.len());
    for entry in body.entries.iter() {
        let payload = payloads.shared(entry.payload_bytes.to_native())?;
        list.push(entry.with(index, payload, frame)?);
        index = index.checked_add(1).ok_or_else(|| frame.malformed("an index overflows"))?;
    }
    payloads.finish()?;
    let entries =
        Entries::checked(list).ok_or_else(|| frame.malformed("the terms of its entries fall"))?;
    let message = Message::AppendEntries(AppendEntries {
        term: Term(body.term.to_native()),
        prev: (&body.prev).into(),
        commit: Index(body.commit.to_native()),
        round: body.round.to_native(),
        entries,
    });
    Ok(body.address.envelope(frame, message))
}

impl ArchivedEntryBody {
    fn with(&self, index: u64, payload: Bytes, frame: &Frame) -> Result<Entry, WireError> {
        let kind = EntryKind::from_u8(self.kind)
            .ok_or_else(|| frame.malformed("an entry's kind is unknown"))?;
        if self.reserved != [0; 3] {
            return Err(frame.malformed("an entry uses bytes that version 1 does not"));
        }
        let log_id = LogId::new(self.term.to_native(), index);
        Ok(Entry { log_id, time: LogTime(self.time.to_native()), kind, payload })
    }
}
