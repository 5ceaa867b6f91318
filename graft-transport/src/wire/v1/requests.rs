//! Requests of clients, many in a frame.

use std::time::Duration;

use bytes::Bytes;
use graft_core::{ClientRequest, ClusterId, EntriesBuilder, EntryKind, GroupId, LinkId, Request};
use rkyv::{Archive, Archived, Serialize, util::AlignedVec};

use super::{
    Frame, Kind, Limits, Outgoing, WireError,
    header::padded,
    outgoing::Payload,
    reader::Payloads,
    runs::{self, CHAIN, Chains, KindRun, Links, Run},
};

/// What a request takes in the body at most, in bytes: where it has nothing in common with its neighbours.
pub(super) const REQUEST_BYTES: usize =
    size_of::<u64>() + size_of::<u32>() + size_of::<RequestRun>();

#[derive(Archive, Serialize)]
struct RequestsBody {
    ids: Vec<u64>,
    payload_bytes: Vec<u32>,
    runs: Vec<RequestRun>,
}

/// Requests that are alike but for their numbers and payloads.
#[derive(Archive, Serialize, PartialEq)]
#[repr(C)]
struct RequestRun {
    count: u32,
    /// How long the client still waits, in milliseconds, rounded up; 0 where it does not.
    remaining_ms: u32,
    kind: u8,
    /// Zero. In words, so that there is no padding and a whole list is copied at once.
    reserved: [u8; 3],
}

impl Run for RequestRun {
    fn count(&mut self) -> &mut u32 {
        &mut self.count
    }
}

impl KindRun for RequestRun {
    fn kind(&mut self) -> &mut u8 {
        &mut self.kind
    }
}

/// Appends requests to what goes out, in as few frames as [`Limits`] allow. `now` is the client's clock,
/// the one that their deadlines are on.
///
/// Returns the numbers of those that are larger than `limits` allow: they are left out, and certainly not
/// sent.
pub fn encode_requests<'a>(
    requests: impl IntoIterator<Item = &'a ClientRequest>,
    now: Duration,
    cluster: ClusterId,
    limits: &Limits,
    out: &mut Outgoing,
) -> Vec<u64> {
    let requests = requests.into_iter().map(|request| OutgoingRequest {
        request_id: request.request_id,
        deadline: request.deadline,
        kind: request.kind,
        payload: Payload::Shared(&request.payload),
    });
    encode_outgoing(requests, now, cluster, limits, out)
}

/// A request to be written, wherever its payload lies.
#[derive(Clone, Copy)]
pub(crate) struct OutgoingRequest<'a> {
    pub(crate) request_id: u64,
    pub(crate) deadline: Duration,
    pub(crate) kind: EntryKind,
    pub(crate) payload: Payload<'a>,
}

/// As [`encode_requests`].
pub(crate) fn encode_outgoing<'a>(
    requests: impl Iterator<Item = OutgoingRequest<'a>>,
    now: Duration,
    cluster: ClusterId,
    limits: &Limits,
    out: &mut Outgoing,
) -> Vec<u64> {
    let mut refused = Vec::new();
    let mut requests = requests.peekable();
    let mut payloads = Vec::new();
    while requests.peek().is_some() {
        let room = room(requests.size_hint());
        let mut body = RequestsBody {
            ids: Vec::with_capacity(room),
            payload_bytes: Vec::with_capacity(room),
            runs: Vec::new(),
        };
        let mut size = 0;
        let mut chains = Chains::default();
        payloads.clear();
        while let Some(request) = requests.next_if(|next| {
            let full = body.ids.len() == Limits::MAX_BATCH
                || size + padded(next.payload.len()) > Limits::BATCH_BYTES;
            body.ids.is_empty() || !full
        }) {
            let bytes = request.payload.len();
            let Some(payload_bytes) =
                u32::try_from(bytes).ok().filter(|_| bytes <= limits.max_entry_bytes())
            else {
                refused.push(request.request_id);
                continue;
            };
            size += padded(bytes);
            body.ids.push(request.request_id);
            body.payload_bytes.push(payload_bytes);
            let remaining_ms = remaining_ms(request.deadline, now);
            let kind = request.kind as u8;
            let one = RequestRun { count: 1, remaining_ms, kind, reserved: [0; 3] };
            let rest = chains.push(&mut body.runs, one, request.payload.bytes());
            if rest.len() == bytes {
                payloads.push(request.payload);
            } else if !rest.is_empty() {
                payloads.push(Payload::Copied(rest));
            }
        }
        if !body.ids.is_empty() {
            let header = (Kind::Requests, cluster, GroupId(0));
            let written = out.frame(header, &body, payloads.iter().copied(), limits);
            debug_assert_eq!(written, Ok(()), "a frame is closed before it is too large");
            if written.is_err() {
                refused.extend_from_slice(&body.ids);
            }
        }
    }
    refused
}

/// The requests in a frame, as they came by `link`, with deadlines on the clock that shows `now`.
///
/// A small payload stays in the frame's memory: it is copied when it is proposed, and until then only for a
/// turn or two. A larger one has memory of its own, unless it is most of the frame: an entry that is kept
/// would otherwise hold the memory of all that were refused beside it, and no bound would count that.
///
/// # Errors
///
/// [`WireError`] says what is wrong with the frame, a kind of entry that no client may propose included.
pub fn decode_requests(
    frame: &Frame,
    link: LinkId,
    now: Duration,
) -> Result<Vec<Request>, WireError> {
    let body = frame.access_in_group_0::<ArchivedRequestsBody>(Kind::Requests)?;
    let count = body.ids.len();
    if count > Limits::MAX_BATCH {
        return Err(frame.malformed("it brings too many requests"));
    }
    if body.payload_bytes.len() != count {
        return Err(frame.malformed("its lengths are not those of its requests"));
    }
    runs::check(body.runs.iter().map(|run| run.count.to_native()), count, frame)?;
    let (mut ids, mut lengths) = (body.ids.as_slice(), body.payload_bytes.as_slice());
    let mut payloads = frame.payloads();
    let mut requests = Vec::with_capacity(count);
    for run in body.runs.iter() {
        let is_chain = run.kind == CHAIN;
        let kind = if is_chain { EntryKind::SessionCommand as u8 } else { run.kind };
        let kind = EntryKind::from_u8(kind)
            .filter(|kind| kind.is_clients())
            .ok_or_else(|| frame.malformed("a request's kind is none that a client may propose"))?;
        if run.reserved != [0; 3] {
            return Err(frame.malformed("a request uses bytes that version 1 does not"));
        }
        let remaining = Duration::from_millis(run.remaining_ms.to_native().into());
        let deadline = now.saturating_add(remaining);
        let (own_ids, own_lengths);
        (own_ids, ids) = ids.split_at(run.count.to_native() as usize);
        (own_lengths, lengths) = lengths.split_at(own_ids.len());
        let whole = if is_chain { whole(own_lengths, &mut payloads, frame)? } else { Bytes::new() };
        let mut begin = 0;
        for (request_id, bytes) in own_ids.iter().zip(own_lengths) {
            let bytes = bytes.to_native();
            let length = bytes as usize;
            let is_small = length < EntriesBuilder::SHARED_BYTES;
            let payload = if is_chain {
                let end = begin + length;
                whole.slice(std::mem::replace(&mut begin, padded(end))..end)
            } else if is_small {
                payloads.shared(bytes)?
            } else {
                payloads.kept(bytes)?
            };
            let request_id = request_id.to_native();
            requests.push(Request { link, request_id, deadline, kind, payload });
        }
    }
    payloads.finish()?;
    Ok(requests)
}

/// The payloads of a chain whose payloads have these lengths, each whole again, behind each other as in a frame.
fn whole(
    lengths: &[Archived<u32>],
    payloads: &mut Payloads<'_>,
    frame: &Frame,
) -> Result<Bytes, WireError> {
    let mut size = 0;
    for bytes in lengths {
        // A chain has small commands alone: what is stated is believed no further than that.
        Links::rest(bytes.to_native(), frame)?;
        size += padded(bytes.to_native() as usize);
    }
    let mut whole = AlignedVec::<16>::with_capacity(size);
    let mut links = None;
    for bytes in lengths {
        let bytes = bytes.to_native();
        match &mut links {
            None => {
                let first = payloads.borrowed(bytes)?;
                links = Some(Links::of(first, frame)?);
                whole.extend_from_slice(first);
            }
            Some(links) => {
                whole.extend_from_slice(&links.next());
                whole.extend_from_slice(payloads.borrowed(Links::rest(bytes, frame)?)?);
            }
        }
        whole.resize(padded(whole.len()), 0);
    }
    Ok(Bytes::from_owner(whole))
}

/// How many requests to make room for, by how many there may be.
fn room((least, most): (usize, Option<usize>)) -> usize {
    most.unwrap_or(least).min(Limits::MAX_BATCH)
}

/// From now until `deadline`. What ends within a millisecond has not ended; what never ends, ends
/// after seven weeks.
fn remaining_ms(deadline: Duration, now: Duration) -> u32 {
    let nanos = deadline.saturating_sub(now).as_nanos();
    u32::try_from(nanos.div_ceil(1_000_000)).unwrap_or(u32::MAX)
}
