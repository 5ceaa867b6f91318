//! The door to the network: peers and clients come in through an [`Inbox`], answers leave by [`Transport::send`].

mod inbox;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

pub use inbox::{Arrivals, Inbox, InboxLimits, InboxReceiver};

use crate::{EntryKind, LinkId, Membership, NodeId, PeerEnvelope, SessionId};

/// How a server reaches its peers and the clients that talk to it.
///
/// A handle is one group's view. It owns bounded queues per peer and per
/// [`Class`](crate::Class): a snapshot never delays a heartbeat or a vote. A message is delivered whole or
/// not at all; it may be lost.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Called once, before anything is sent: from now on what arrives is offered to `inbox`.
    fn attach(&self, inbox: Inbox);

    /// Sends without ever waiting. Where the way is blocked the message is lost.
    fn send(&self, envelope: Envelope);

    /// Sends replies in their order, and leaves the buffer empty. As provided it sends one after the other;
    /// a backend for which sending together is cheaper does that.
    fn send_replies(&self, replies: &mut Vec<ReplyEnvelope>) {
        for reply in replies.drain(..) {
            self.send(Envelope::Reply(reply));
        }
    }

    /// The newest version of entries that all members read, as far as they have said what they read; `None` where
    /// none has, as on every network that does not ask. A leader proposes nothing newer: a member that cannot
    /// read an entry would have to stop. Asked with every batch of requests, so it must be quick.
    fn newest_version(&self) -> Option<u16> {
        None
    }

    /// Stops sending and receiving. Returns when nothing is offered any more.
    async fn close(&self);
}

#[async_trait]
impl<T: Transport + ?Sized> Transport for Box<T> {
    fn attach(&self, inbox: Inbox) {
        (**self).attach(inbox);
    }
    fn send(&self, envelope: Envelope) {
        (**self).send(envelope);
    }
    fn send_replies(&self, replies: &mut Vec<ReplyEnvelope>) {
        (**self).send_replies(replies);
    }
    fn newest_version(&self) -> Option<u16> {
        (**self).newest_version()
    }
    async fn close(&self) {
        (**self).close().await;
    }
}

/// Something to send.
#[derive(Clone, Debug)]
pub enum Envelope {
    /// To a peer.
    Peer(PeerEnvelope),
    /// To a client.
    Reply(ReplyEnvelope),
}

/// Something that arrived.
#[derive(Clone, Debug)]
pub enum Inbound {
    /// From a peer.
    Peer(PeerEnvelope),
    /// From a client. Where the inbox refuses it, the transport answers [`RejectReason::Overloaded`].
    Request(Request),
}

/// A client's request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// The way back.
    pub link: LinkId,
    /// The client's number for it on that link; the reply repeats it.
    pub request_id: u64,
    /// When the client stops waiting, on the receiving server's clock ([`Runtime::now`](crate::Runtime::now)).
    /// Past it the request is not proposed.
    pub deadline: Duration,
    /// What to put into the log: one of the kinds a client may propose.
    pub kind: EntryKind,
    /// What it carries, in the form its kind defines (see [`session`](crate::session)). Of fewer than
    /// [`EntriesBuilder::SHARED_BYTES`](crate::EntriesBuilder::SHARED_BYTES) it may be a part of something
    /// larger, which is free again once it was proposed; of more it stays as long as its entry.
    pub payload: Bytes,
}

impl Request {
    /// About how many bytes it takes in memory; queues are bounded by it.
    #[must_use]
    pub fn size(&self) -> usize {
        64 + self.payload.len()
    }
}

/// An answer on its way to a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplyEnvelope {
    /// The link the request came by.
    pub link: LinkId,
    /// The client's number for it.
    pub request_id: u64,
    /// The answer.
    pub reply: Reply,
}

/// How a request ended.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Reply {
    /// Applied; this is what the machine answered.
    Applied(Bytes),
    /// Applied, and the machine panicked over it. On every server alike.
    Panicked(Bytes),
    /// Applied, and the machine's answer is larger than the network carries. Asked again, it would be so again.
    ResponseTooLarge {
        /// Its size in bytes.
        bytes: usize,
        /// The largest size in bytes.
        limit: usize,
    },
    /// The session is open.
    SessionOpened(SessionId),
    /// The session is alive, or closed as asked.
    SessionDone,
    /// Not applied now; whether it was before is unknown. The session is gone.
    SessionExpired,
    /// Not applied: the client said earlier that it no longer wants this sequence's answer.
    Forgotten,
    /// Not applied, now or ever before: the sequence is too far above the session's floor, or the
    /// session keeps too many bytes of replies. It may be sent again once the floor has moved.
    SessionFull,
    /// Not put into the log, except where the reason says otherwise.
    Rejected(RejectReason),
}

/// Why a server did not see a request through.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RejectReason {
    /// It does not lead. Nothing was done.
    NotLeader(LeaderHint),
    /// Too much is waiting. Nothing was done.
    Overloaded,
    /// Its deadline had passed before it was proposed. Nothing was done.
    DeadlinePassed,
    /// It was in the log when this server lost its leadership: it may be applied, or not.
    LeadershipLost(LeaderHint),
    /// It does not decode. Nothing was done, and nothing ever will be.
    Invalid(String),
    /// It is larger than entries may be. Nothing was done.
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
        /// The largest size in bytes.
        limit: usize,
    },
    /// The server is stopping. `proposed` says whether it may still be applied.
    Stopping {
        /// Whether it had been put into the log.
        proposed: bool,
    },
}

/// Where to go instead.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LeaderHint {
    /// The leader, if known. Its name and address are in `members`.
    pub leader: Option<NodeId>,
    /// The membership as the answering server knows it.
    pub members: Option<Arc<Membership>>,
}
