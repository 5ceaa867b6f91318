//! Replies to clients, many in a frame.

use std::sync::Arc;

use bytes::Bytes;
use graft_core::{
    ClusterId, GroupId, LeaderHint, Membership, NodeId, RejectReason, Reply, SessionId,
};
use rkyv::{Archive, Serialize};

use super::{
    Frame, Kind, Limits, Outgoing, WireError,
    header::padded,
    members,
    outgoing::Payload,
    runs::{self, Run},
};

/// What a reply takes in the body at most, in bytes: where it has nothing in common with its neighbours.
pub(super) const REPLY_BYTES: usize = size_of::<u64>() + size_of::<u32>() + size_of::<ReplyRun>();

#[derive(Archive, Serialize)]
struct RepliesBody {
    ids: Vec<u64>,
    payload_bytes: Vec<u32>,
    runs: Vec<ReplyRun>,
    /// The memberships that hints name, each once.
    memberships: Vec<Vec<u8>>,
}

/// Replies that are alike but for the numbers of their requests and their payloads.
#[derive(Archive, Serialize, PartialEq)]
#[repr(C)]
struct ReplyRun {
    /// A session, a leader, or a size.
    first: u64,
    /// Which membership, counted from 1 and 0 for none; or a limit.
    second: u64,
    count: u32,
    /// Which reply.
    kind: u8,
    /// Whether `first` is a leader; whether a stopping server had proposed.
    flag: u8,
    /// Zero. In words, so that there is no padding and a whole list is copied at once.
    reserved: [u8; 2],
}

impl Run for ReplyRun {
    fn count(&mut self) -> &mut u32 {
        &mut self.count
    }
}

/// The numbers of replies. They are part of the format and never change.
mod number {
    pub(super) const APPLIED: u8 = 1;
    pub(super) const PANICKED: u8 = 2;
    pub(super) const SESSION_OPENED: u8 = 3;
    pub(super) const SESSION_DONE: u8 = 4;
    pub(super) const SESSION_EXPIRED: u8 = 5;
    pub(super) const FORGOTTEN: u8 = 6;
    pub(super) const SESSION_FULL: u8 = 7;
    pub(super) const RESPONSE_TOO_LARGE: u8 = 8;
    pub(super) const NOT_LEADER: u8 = 16;
    pub(super) const OVERLOADED: u8 = 17;
    pub(super) const DEADLINE_PASSED: u8 = 18;
    pub(super) const LEADERSHIP_LOST: u8 = 19;
    pub(super) const INVALID: u8 = 20;
    pub(super) const TOO_LARGE: u8 = 21;
    pub(super) const STOPPING: u8 = 22;
}

/// Appends replies to what goes out, each with the number of its request, in as few frames as [`Limits`]
/// allow.
///
/// Returns the numbers of those that cannot be sent, because they are larger than `limits` allow or newer
/// than the format: they are left out. [`Reply::ResponseTooLarge`] is what to answer then, because a client
/// that hears nothing waits until its deadline.
pub fn encode_replies<'a>(
    replies: impl IntoIterator<Item = (u64, &'a Reply)>,
    cluster: ClusterId,
    limits: &Limits,
    out: &mut Outgoing,
) -> Vec<u64> {
    let mut refused = Vec::new();
    let mut batch = Batch::default();
    for (request_id, reply) in replies {
        match batch.describe(reply) {
            Some((run, payload)) if payload.len() <= limits.max_reply_bytes() => {
                if batch.is_full(payload) {
                    batch.write(cluster, limits, out, &mut refused);
                    // Its hint is of the next frame now.
                    match batch.describe(reply) {
                        Some((run, payload)) => batch.push(request_id, run, payload),
                        None => refused.push(request_id),
                    }
                } else {
                    batch.push(request_id, run, payload);
                }
            }
            _ => refused.push(request_id),
        }
    }
    batch.write(cluster, limits, out, &mut refused);
    refused
}

/// A frame of replies that is being filled.
#[derive(Default)]
struct Batch<'a> {
    ids: Vec<u64>,
    lengths: Vec<u32>,
    runs: Vec<ReplyRun>,
    payloads: Vec<Payload<'a>>,
    payload_bytes: usize,
    memberships: Vec<&'a Arc<Membership>>,
    archived: Vec<Vec<u8>>,
}

impl<'a> Batch<'a> {
    /// Memberships of a frame: servers see one, seldom two.
    const MAX_MEMBERSHIPS: usize = 4;

    fn is_full(&self, next: Payload<'_>) -> bool {
        let bytes = self.payload_bytes + padded(next.len());
        !self.ids.is_empty() && (self.ids.len() == Limits::MAX_BATCH || bytes > Limits::BATCH_BYTES)
    }

    fn push(&mut self, request_id: u64, run: ReplyRun, payload: Payload<'a>) {
        self.ids.push(request_id);
        // What is longer has no description.
        self.lengths.push(u32::try_from(payload.len()).unwrap_or(u32::MAX));
        runs::push(&mut self.runs, run);
        self.payload_bytes += padded(payload.len());
        self.payloads.push(payload);
    }

    fn write(
        &mut self,
        cluster: ClusterId,
        limits: &Limits,
        out: &mut Outgoing,
        refused: &mut Vec<u64>,
    ) {
        let batch = std::mem::take(self);
        if batch.ids.is_empty() {
            return;
        }
        let body = RepliesBody {
            ids: batch.ids,
            payload_bytes: batch.lengths,
            runs: batch.runs,
            memberships: batch.archived,
        };
        let header = (Kind::Replies, cluster, GroupId(0));
        if out.frame(header, &body, batch.payloads.iter().copied(), limits).is_err() {
            refused.extend_from_slice(&body.ids);
        }
    }

    /// `None`: a reply that the format has no number for.
    fn describe(&mut self, reply: &'a Reply) -> Option<(ReplyRun, Payload<'a>)> {
        let mut payload = Payload::NONE;
        let (mut first, mut second, mut flag) = (0, 0, false);
        let kind = match reply {
            Reply::Applied(bytes) => {
                payload = Payload::Shared(bytes);
                number::APPLIED
            }
            Reply::Panicked(bytes) => {
                payload = Payload::Shared(bytes);
                number::PANICKED
            }
            Reply::SessionOpened(session) => {
                first = session.0;
                number::SESSION_OPENED
            }
            Reply::SessionDone => number::SESSION_DONE,
            Reply::SessionExpired => number::SESSION_EXPIRED,
            Reply::Forgotten => number::FORGOTTEN,
            Reply::SessionFull => number::SESSION_FULL,
            Reply::ResponseTooLarge { bytes, limit } => {
                (first, second) = (*bytes as u64, *limit as u64);
                number::RESPONSE_TOO_LARGE
            }
            Reply::Rejected(reason) => match reason {
                RejectReason::NotLeader(hint) => {
                    (first, second, flag) = self.hint(hint);
                    number::NOT_LEADER
                }
                RejectReason::LeadershipLost(hint) => {
                    (first, second, flag) = self.hint(hint);
                    number::LEADERSHIP_LOST
                }
                RejectReason::Overloaded => number::OVERLOADED,
                RejectReason::DeadlinePassed => number::DEADLINE_PASSED,
                RejectReason::Invalid(text) => {
                    payload = Payload::Copied(text.as_bytes());
                    number::INVALID
                }
                RejectReason::TooLarge { bytes, limit } => {
                    (first, second) = (*bytes as u64, *limit as u64);
                    number::TOO_LARGE
                }
                RejectReason::Stopping { proposed } => {
                    flag = *proposed;
                    number::STOPPING
                }
                _ => return None,
            },
            _ => return None,
        };
        let _states_its_length = u32::try_from(payload.len()).ok()?;
        let (flag, reserved) = (flag.into(), [0; 2]);
        Some((ReplyRun { first, second, count: 1, kind, flag, reserved }, payload))
    }

    /// The leader, the number of the membership, and whether there is a leader.
    fn hint(&mut self, hint: &'a LeaderHint) -> (u64, u64, bool) {
        let membership = hint.members.as_ref().map_or(0, |members| self.membership(members));
        (hint.leader.unwrap_or_default().0, membership, hint.leader.is_some())
    }

    /// The number of `members`, 0 where they cannot be sent: a hint is no promise. Nobody can read what
    /// contradicts itself, such as the membership of a server that has heard of none yet.
    fn membership(&mut self, members: &'a Arc<Membership>) -> u64 {
        let known = self.memberships.iter().position(|known| Arc::ptr_eq(known, members));
        let at = known.or_else(|| {
            if self.archived.len() == Self::MAX_MEMBERSHIPS || members.check().is_err() {
                return None;
            }
            let bytes: Vec<u8> = members.encode().into();
            let sum = bytes.len() + self.archived.iter().map(Vec::len).sum::<usize>();
            if sum > Limits::MAX_MEMBERSHIP_BYTES {
                return None;
            }
            self.memberships.push(members);
            self.archived.push(bytes);
            Some(self.archived.len() - 1)
        });
        at.map_or(0, |at| at as u64 + 1)
    }
}

/// The replies in a frame, each with the number of its request, in the order they were given.
///
/// What machines answered shares the frame's memory: a client reads and forgets a reply sooner than it
/// could copy it.
///
/// # Errors
///
/// [`WireError`] says what is wrong with the frame.
pub fn decode_replies(frame: &Frame) -> Result<Vec<(u64, Reply)>, WireError> {
    let body = frame.access_in_group_0::<ArchivedRepliesBody>(Kind::Replies)?;
    let bytes: usize = body.memberships.iter().map(|bytes| bytes.as_slice().len()).sum();
    if body.memberships.len() > Batch::MAX_MEMBERSHIPS || bytes > Limits::MAX_MEMBERSHIP_BYTES {
        return Err(frame.malformed("it brings too many memberships"));
    }
    let memberships = body.memberships.iter();
    let memberships = memberships
        .map(|bytes| members::membership(bytes, frame).map(Arc::new))
        .collect::<Result<Vec<_>, _>>()?;
    let count = body.ids.len();
    if count > Limits::MAX_BATCH {
        return Err(frame.malformed("it brings too many replies"));
    }
    if body.payload_bytes.len() != count {
        return Err(frame.malformed("its lengths are not those of its replies"));
    }
    runs::check(body.runs.iter().map(|run| run.count.to_native()), count, frame)?;
    let mut items = body.ids.iter().zip(body.payload_bytes.iter());
    let mut payloads = frame.payloads();
    let mut replies = Vec::with_capacity(count);
    for run in body.runs.iter() {
        for (request_id, bytes) in items.by_ref().take(run.count.to_native() as usize) {
            let payload = payloads.shared(bytes.to_native())?;
            replies.push((request_id.to_native(), run.reply(payload, &memberships, frame)?));
        }
    }
    payloads.finish()?;
    Ok(replies)
}

impl ArchivedReplyRun {
    fn reply(
        &self,
        payload: Bytes,
        memberships: &[Arc<Membership>],
        frame: &Frame,
    ) -> Result<Reply, WireError> {
        let has_payload = matches!(self.kind, number::APPLIED | number::PANICKED | number::INVALID);
        if !has_payload && !payload.is_empty() {
            return Err(frame.malformed("a reply that has no payload brings one"));
        }
        if self.reserved != [0; 2] || self.flag > 1 {
            return Err(frame.malformed("a reply uses bytes that version 1 does not"));
        }
        let rejected = match self.kind {
            number::APPLIED => return Ok(Reply::Applied(payload)),
            number::PANICKED => return Ok(Reply::Panicked(payload)),
            number::SESSION_OPENED => {
                return Ok(Reply::SessionOpened(SessionId(self.first.to_native())));
            }
            number::SESSION_DONE => return Ok(Reply::SessionDone),
            number::SESSION_EXPIRED => return Ok(Reply::SessionExpired),
            number::FORGOTTEN => return Ok(Reply::Forgotten),
            number::SESSION_FULL => return Ok(Reply::SessionFull),
            number::RESPONSE_TOO_LARGE => {
                let (bytes, limit) = (size(self.first.to_native()), size(self.second.to_native()));
                return Ok(Reply::ResponseTooLarge { bytes, limit });
            }
            number::NOT_LEADER => RejectReason::NotLeader(self.hint(memberships, frame)?),
            number::OVERLOADED => RejectReason::Overloaded,
            number::DEADLINE_PASSED => RejectReason::DeadlinePassed,
            number::LEADERSHIP_LOST => RejectReason::LeadershipLost(self.hint(memberships, frame)?),
            number::INVALID => RejectReason::Invalid(
                String::from_utf8(payload.into())
                    .map_err(|_| frame.malformed("a reason is not UTF-8"))?,
            ),
            number::TOO_LARGE => RejectReason::TooLarge {
                bytes: size(self.first.to_native()),
                limit: size(self.second.to_native()),
            },
            number::STOPPING => RejectReason::Stopping { proposed: self.flag == 1 },
            _ => return Err(frame.malformed("a reply's kind is unknown")),
        };
        Ok(Reply::Rejected(rejected))
    }

    fn hint(
        &self,
        memberships: &[Arc<Membership>],
        frame: &Frame,
    ) -> Result<LeaderHint, WireError> {
        let leader = (self.flag == 1).then(|| NodeId(self.first.to_native()));
        let members = match self.second.to_native() {
            0 => None,
            number => Some(
                usize::try_from(number - 1)
                    .ok()
                    .and_then(|at| memberships.get(at))
                    .map(Arc::clone)
                    .ok_or_else(|| {
                        frame.malformed("a hint names a membership that is not there")
                    })?,
            ),
        };
        Ok(LeaderHint { leader, members })
    }
}

/// A size that is only shown: beyond this machine's it is the largest there is.
fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
