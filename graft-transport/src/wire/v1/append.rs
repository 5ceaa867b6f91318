//! `AppendEntries`: the lengths of the entries in a flat list, what neighbours share in another, and their
//! payloads behind both.

use bytes::Bytes;
use graft_core::{
    AppendEntries, Entries, EntriesBuilder, Entry, EntryKind, EntryRef, Index, LogId, LogTime,
    Message, Misfit, PeerEnvelope, Term,
};
use rkyv::{Archive, Serialize};

use super::{
    Frame, Kind, Limits, Outgoing, WireError,
    outgoing::Payload,
    peer::{Address, LogPlace},
    runs::{self, CHAIN, Chains, KindRun, Links, Run},
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

impl EntryRun {
    /// A run of this entry alone.
    const fn of(entry: EntryRef<'_>) -> Self {
        Self {
            term: entry.log_id.term.0,
            time: entry.time.0,
            count: 1,
            kind: entry.kind as u8,
            reserved: [0; 3],
        }
    }
}

impl Run for EntryRun {
    fn count(&mut self) -> &mut u32 {
        &mut self.count
    }
}

impl KindRun for EntryRun {
    fn kind(&mut self) -> &mut u8 {
        &mut self.kind
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
    let mut chains = Chains::default();
    let mut parts = Vec::new();
    for together in entries.runs() {
        let (mark, mut is_whole) = (parts.len(), true);
        for entry in together.iter() {
            payload_bytes.push(length(entry)?);
            let part = chains.push(&mut runs, EntryRun::of(entry), entry.payload);
            is_whole &= part.len() == entry.payload.len();
            if part.len() >= Outgoing::SHARED_BYTES {
                parts.push(Part::Shared(entry.shared_payload()));
            } else if !part.is_empty() {
                parts.push(Part::Copied(part));
            }
        }
        if is_whole {
            // They lie as the frame wants them.
            parts.truncate(mark);
            parts.push(Part::Shared(together.payloads()));
        }
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
    let payloads = parts.iter().map(|part| match part {
        Part::Shared(bytes) => Payload::Shared(bytes),
        Part::Copied(bytes) => Payload::Copied(bytes),
    });
    out.frame(header, &body, payloads, limits)
}

/// Payloads, or one of them, or what of one is written.
enum Part<'a> {
    Shared(Bytes),
    Copied(&'a [u8]),
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

/// The payloads of the entries stay where they are in the frame's memory, unless it has chains: then they are put
/// together in memory of their own. In either they live and die together, since a log lets go of a run of entries
/// as one; and what is neither payload nor counted for an entry by [`Entry::size`] is a few words a frame.
pub(super) fn decode(frame: &Frame) -> Result<PeerEnvelope, WireError> {
    let body = frame.access::<ArchivedAppendBody>(Kind::Append)?;
    let count = body.payload_bytes.len();
    runs::check(body.runs.iter().map(|run| run.count.to_native()), count, frame)?;
    let runs = body.runs.iter().map(|run| run.checked(frame)).collect::<Result<Vec<_>, _>>()?;
    let first = Index(body.first.to_native());
    let lengths = body.payload_bytes.iter().map(|length| length.to_native());
    let entries = if runs.iter().any(|run| run.is_chain) {
        linked(frame, &runs, first, lengths)
    } else {
        in_place(frame, &runs, first, lengths)
    }?;
    let message = Message::AppendEntries(AppendEntries {
        term: Term(body.term.to_native()),
        prev: (&body.prev).into(),
        commit: Index(body.commit.to_native()),
        round: body.round.to_native(),
        entries,
    });
    Ok(body.address.envelope(frame, message))
}

/// The entries with their payloads where they are in the frame.
fn in_place(
    frame: &Frame,
    runs: &[Shared],
    first: Index,
    lengths: impl ExactSizeIterator<Item = u32>,
) -> Result<Entries, WireError> {
    let mut runs = runs.iter();
    let mut left = 0;
    let mut shared = (Term(0), LogTime(0), EntryKind::Blank);
    let items = lengths.map(|length| {
        if left == 0
            && let Some(next) = runs.next()
        {
            (shared, left) = ((next.term, next.time, next.kind), next.count);
        }
        left -= 1;
        let (term, time, kind) = shared;
        (term, time, kind, length)
    });
    Entries::over(&frame.payload_area(), first, items).map_err(|misfit| {
        frame.malformed(match misfit {
            Misfit::TooShort => "its payloads are shorter than its body says",
            Misfit::TooLong => "its payloads are longer than its body says",
            Misfit::TermFell => FALLING,
            _ => OVERFLOWING,
        })
    })
}

/// The entries with their payloads put together, where not all of them are there.
fn linked(
    frame: &Frame,
    runs: &[Shared],
    first: Index,
    mut lengths: impl ExactSizeIterator<Item = u32> + Clone,
) -> Result<Entries, WireError> {
    let mut payloads = frame.payloads();
    let mut index = first.0;
    // What is stated is believed only once it fits: room for all of it is taken at once.
    let mut stated = lengths.clone();
    for run in runs {
        let mut is_first = true;
        for length in stated.by_ref().take(run.count as usize) {
            let is_link = run.is_chain && !std::mem::take(&mut is_first);
            payloads.borrowed(if is_link { Links::rest(length, frame)? } else { length })?;
        }
    }
    payloads.finish()?;
    let mut payloads = frame.payloads();
    let whole = lengths.clone().map(|length| length as usize);
    let mut entries = EntriesBuilder::for_payloads(whole);
    for run in runs {
        let Shared { term, time, kind, .. } = *run;
        let mut links = None;
        for length in lengths.by_ref().take(run.count as usize) {
            let log_id = LogId { term, index: Index(index) };
            let added = match &mut links {
                None if run.is_chain => {
                    let payload = payloads.borrowed(length)?;
                    links = Some(Links::of(payload, frame)?);
                    entries.push_copied(log_id, time, kind, [payload, &[]])
                }
                None if (length as usize) < EntriesBuilder::SHARED_BYTES => {
                    entries.push_copied(log_id, time, kind, [payloads.borrowed(length)?, &[]])
                }
                None => {
                    let payload = payloads.kept(length)?;
                    entries.push(Entry { log_id, time, kind, payload })
                }
                Some(links) => {
                    let rest = payloads.borrowed(Links::rest(length, frame)?)?;
                    entries.push_copied(log_id, time, kind, [&links.next(), rest])
                }
            };
            added.map_err(|_| frame.malformed(FALLING))?;
            index = index.checked_add(1).ok_or_else(|| frame.malformed(OVERFLOWING))?;
        }
    }
    Ok(entries.finish())
}

const FALLING: &str = "the terms of its entries fall";
const OVERFLOWING: &str = "an index overflows";

/// What the entries of a run have in common, and how many they are.
struct Shared {
    term: Term,
    time: LogTime,
    kind: EntryKind,
    is_chain: bool,
    count: u32,
}

impl ArchivedEntryRun {
    fn checked(&self, frame: &Frame) -> Result<Shared, WireError> {
        if self.reserved != [0; 3] {
            return Err(frame.malformed("an entry uses bytes that version 1 does not"));
        }
        let is_chain = self.kind == CHAIN;
        let kind = if is_chain { EntryKind::SessionCommand as u8 } else { self.kind };
        let kind = EntryKind::from_u8(kind)
            .ok_or_else(|| frame.malformed("an entry's kind is unknown"))?;
        let (term, time) = (Term(self.term.to_native()), LogTime(self.time.to_native()));
        Ok(Shared { term, time, kind, is_chain, count: self.count.to_native() })
    }
}
