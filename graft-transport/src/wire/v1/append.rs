//! `AppendEntries`: the lengths of the entries in a flat list, what neighbours share in another, and their
//! payloads behind both.

use bytes::Bytes;
use graft_core::{
    AppendEntries, Entries, EntryKind, EntryRef, Index, LogTime, Message, Misfit, PeerEnvelope,
    Run as EntriesRun, Term,
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
    for entry in entries.iter() {
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
    // The payloads of a run lie as the frame wants them.
    let payloads: Vec<Bytes> = entries.runs().map(EntriesRun::payloads).collect();
    out.frame(header, &body, payloads.iter().map(Payload::Shared), limits)
}

fn length(entry: EntryRef<'_>) -> Result<u32, WireError> {
    let bytes = entry.payload.len();
    u32::try_from(bytes).map_err(|_| WireError::TooLarge {
        kind: Kind::Append,
        part: "payload",
        bytes: bytes as u64,
        limit: u32::MAX.into(),
    })
}

/// The payloads of the entries stay where they are in the frame's memory. They live and die together, since
/// a log lets go of a run of entries as one; and what is neither payload nor counted for an entry by
/// [`Entry::size`](graft_core::Entry::size) is a few words a frame.
pub(super) fn decode(frame: &Frame) -> Result<PeerEnvelope, WireError> {
    let body = frame.access::<ArchivedAppendBody>(Kind::Append)?;
    let count = body.payload_bytes.len();
    runs::check(body.runs.iter().map(|run| run.count.to_native()), count, frame)?;
    let runs = body.runs.iter().map(|run| run.checked(frame)).collect::<Result<Vec<_>, _>>()?;
    let mut runs = runs.into_iter();
    let mut left = 0;
    let mut shared = (Term(0), LogTime(0), EntryKind::Blank);
    let items = body.payload_bytes.iter().map(|length| {
        if left == 0
            && let Some((next, count)) = runs.next()
        {
            (shared, left) = (next, count);
        }
        left -= 1;
        let (term, time, kind) = shared;
        (term, time, kind, length.to_native())
    });
    let first = Index(body.first.to_native());
    let entries = Entries::over(&frame.payload_area(), first, items).map_err(|misfit| {
        frame.malformed(match misfit {
            Misfit::TooShort => "its payloads are shorter than its body says",
            Misfit::TooLong => "its payloads are longer than its body says",
            Misfit::TermFell => "the terms of its entries fall",
            _ => "an index overflows",
        })
    })?;
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
    /// What the entries have in common, and how many they are.
    fn checked(&self, frame: &Frame) -> Result<((Term, LogTime, EntryKind), u32), WireError> {
        if self.reserved != [0; 3] {
            return Err(frame.malformed("an entry uses bytes that version 1 does not"));
        }
        let kind = EntryKind::from_u8(self.kind)
            .ok_or_else(|| frame.malformed("an entry's kind is unknown"))?;
        let shared = (Term(self.term.to_native()), LogTime(self.time.to_native()), kind);
        Ok((shared, self.count.to_native()))
    }
}
