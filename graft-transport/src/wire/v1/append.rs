//! `AppendEntries`: the lengths of the entries in a flat list, what neighbours share in another, and their
//! payloads behind both.

use graft_core::{
    AppendEntries, Entries, Entry, EntryKind, Index, LogId, LogTime, Message, PeerEnvelope, Term,
};
use rkyv::{Archive, Serialize};

use super::{
    Frame, Kind, Limits, Outgoing, WireError,
    outgoing::Payload,
    peer::{Address, LogPlace},
    runs::{self, Run},
};

/// What an entry takes in the body at most, in bytes: where it has nothing in common with its neighbours.
pub(super) const ENTRY_BYTES: usize = size_of::<u32>() + size_of::<EntryRun>();

#[derive(Archive, Serialize)]
struct AppendBody {
    address: Address,
    term: u64,
    prev: LogPlace,
    commit: u64,
    round: u64,
    /// The index of the first entry; those after it follow one by one.
    first: u64,
    payload_bytes: Vec<u32>,
    runs: Vec<EntryRun>,
}

/// Entries that are alike but for their indexes and payloads.
#[derive(Archive, Serialize, PartialEq)]
#[repr(C)]
struct EntryRun {
    term: u64,
    time: u64,
    count: u32,
    kind: u8,
    /// Zero. In words, so that there is no padding and a whole list is copied at once.
    reserved: [u8; 3],
}

impl Run for EntryRun {
    fn count(&mut self) -> &mut u32 {
        &mut self.count
    }
}

pub(super) fn encode(
    envelope: &PeerEnvelope,
    append: &AppendEntries,
    header: (Kind, graft_core::ClusterId, graft_core::GroupId),
    limits: &Limits,
    out: &mut Outgoing,
) -> Result<(), WireError> {
    let entries = &append.entries;
    let (mut payload_bytes, mut runs) = (Vec::with_capacity(entries.len()), Vec::new());
    for entry in entries.slices().flatten() {
        payload_bytes.push(length(entry)?);
        runs::push(
            &mut runs,
            EntryRun {
                term: entry.log_id.term.0,
                time: entry.time.0,
                count: 1,
                kind: entry.kind as u8,
                reserved: [0; 3],
            },
        );
    }
    let body = AppendBody {
        address: envelope.into(),
        term: append.term.0,
        prev: append.prev.into(),
        commit: append.commit.0,
        round: append.round,
        first: entries.first_index().unwrap_or_default().0,
        payload_bytes,
        runs,
    };
    let payloads = entries.slices().flatten().map(|entry| Payload::Shared(&entry.payload));
    out.frame(header, &body, payloads, limits)
}

fn length(entry: &Entry) -> Result<u32, WireError> {
    let bytes = entry.payload.len();
    u32::try_from(bytes).map_err(|_| WireError::TooLarge {
        kind: Kind::Append,
        part: "payload",
        bytes: bytes as u64,
        limit: u32::MAX.into(),
    })
}

/// The payloads of the entries share the frame's memory. They live and die together, since a log
/// lets go of a run of entries as one; and what is neither payload nor counted for an entry by
/// [`Entry::size`] is a few words a frame.
pub(super) fn decode(frame: &Frame) -> Result<PeerEnvelope, WireError> {
    let body = frame.access::<ArchivedAppendBody>(Kind::Append)?;
    let mut payloads = frame.payloads();
    let mut index = body.first.to_native();
    let count = body.payload_bytes.len();
    runs::check(body.runs.iter().map(|run| run.count.to_native()), count, frame)?;
    let mut lengths = body.payload_bytes.iter();
    let mut list = Vec::with_capacity(count);
    for run in body.runs.iter() {
        let (term, time) = (run.term.to_native(), LogTime(run.time.to_native()));
        let kind = run.kind(frame)?;
        for bytes in lengths.by_ref().take(run.count.to_native() as usize) {
            let payload = payloads.shared(bytes.to_native())?;
            list.push(Entry { log_id: LogId::new(term, index), time, kind, payload });
            index = index.checked_add(1).ok_or_else(|| frame.malformed("an index overflows"))?;
        }
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

impl ArchivedEntryRun {
    fn kind(&self, frame: &Frame) -> Result<EntryKind, WireError> {
        if self.reserved != [0; 3] {
            return Err(frame.malformed("an entry uses bytes that version 1 does not"));
        }
        EntryKind::from_u8(self.kind).ok_or_else(|| frame.malformed("an entry's kind is unknown"))
    }
}
