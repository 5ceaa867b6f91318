//! The one queue by which everything reaches a server: a lock, a few vectors and a waker.
//!
//! The receiver takes all that waits in one swap, so a lock is held for a push or for a few pointer
//! exchanges and never while anything is processed.

use std::{
    fmt, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use super::{Inbound, Request};
use crate::{Class, PeerEnvelope};

/// The sending side of a server's inbox. Clones share the queue.
#[derive(Clone)]
pub struct Inbox {
    shared: Arc<Mutex<Shared>>,
}

/// How many bytes may wait in an inbox, by class.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InboxLimits {
    /// Votes and heartbeats. Default 4 MiB.
    pub control_bytes: usize,
    /// Entries and acknowledgements. Default 64 MiB.
    pub append_bytes: usize,
    /// Snapshot chunks. Default 8 MiB.
    pub snapshot_bytes: usize,
    /// Requests of clients. Default 64 MiB.
    pub request_bytes: usize,
}

impl Default for InboxLimits {
    fn default() -> Self {
        Self {
            control_bytes: 4 << 20,
            append_bytes: 64 << 20,
            snapshot_bytes: 8 << 20,
            request_bytes: 64 << 20,
        }
    }
}

impl InboxLimits {
    const fn of(&self, class: Class) -> usize {
        match class {
            Class::Control => self.control_bytes,
            Class::Append => self.append_bytes,
            Class::Snapshot => self.snapshot_bytes,
            Class::Request => self.request_bytes,
        }
    }
}

/// Everything that waited, in order of arrival within each list.
#[derive(Debug, Default)]
pub struct Arrivals {
    /// Messages of peers.
    pub peers: Vec<PeerEnvelope>,
    /// Requests of clients.
    pub requests: Vec<Request>,
}

impl Arrivals {
    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty() && self.requests.is_empty()
    }
}

struct Shared {
    limits: InboxLimits,
    waiting: Arrivals,
    bytes: [usize; Class::ALL.len()],
    waker: Option<Waker>,
    closed: bool,
}

impl Inbox {
    /// An inbox and its receiver.
    #[must_use]
    pub fn new(limits: InboxLimits) -> (Self, InboxReceiver) {
        let shared = Arc::new(Mutex::new(Shared {
            limits,
            waiting: Arrivals::default(),
            bytes: [0; Class::ALL.len()],
            waker: None,
            closed: false,
        }));
        (Self { shared: Arc::clone(&shared) }, InboxReceiver { shared })
    }

    /// Hands `inbound` to the server without waiting.
    ///
    /// # Errors
    ///
    /// Gives it back where the bytes of its class are used up, or the server has stopped. A peer's
    /// message may then be dropped; a request must be answered `Overloaded`. A class that is empty
    /// takes in anything, however large.
    #[expect(
        clippy::result_large_err,
        reason = "what is refused goes back to whoever can still use it"
    )]
    pub fn offer(&self, inbound: Inbound) -> Result<(), Inbound> {
        let (class, size) = match &inbound {
            Inbound::Peer(envelope) => (envelope.message.class(), envelope.message.size()),
            Inbound::Request(request) => (Class::Request, request.size()),
        };
        let mut shared = lock(&self.shared);
        let waiting = shared.bytes[class as usize];
        let full = waiting > 0 && waiting.saturating_add(size) > shared.limits.of(class);
        if full || shared.closed {
            return Err(inbound);
        }
        shared.bytes[class as usize] += size;
        match inbound {
            Inbound::Peer(envelope) => shared.waiting.peers.push(envelope),
            Inbound::Request(request) => shared.waiting.requests.push(request),
        }
        let waker = shared.waker.take();
        drop(shared);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Whether the server has stopped: nothing offered will ever be taken.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        lock(&self.shared).closed
    }

    /// Wakes the receiver although nothing has arrived.
    pub fn wake(&self) {
        let waker = lock(&self.shared).waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("bytes", &lock(&self.shared).bytes).finish_non_exhaustive()
    }
}

/// The receiving side of an inbox. Dropping it closes the inbox.
pub struct InboxReceiver {
    shared: Arc<Mutex<Shared>>,
}

impl InboxReceiver {
    /// Exchanges the empty `arrivals` for all that waits. Where nothing does, registers the waker;
    /// [`Inbox::wake`] then ends the wait as an arrival would.
    pub fn poll_take(&mut self, context: &mut Context<'_>, arrivals: &mut Arrivals) -> Poll<()> {
        let mut shared = lock(&self.shared);
        if shared.waiting.is_empty() {
            shared.register(context);
            return Poll::Pending;
        }
        shared.exchange(arrivals);
        Poll::Ready(())
    }

    /// Exchanges the empty `arrivals` for what waits, which may be nothing, and registers the waker for
    /// what comes after. Where `requests` is false, requests stay where they are.
    ///
    /// Taking and registering under one lock lets a driver do a turn a wake-up with no second look.
    pub fn take_and_register(
        &mut self,
        context: &mut Context<'_>,
        arrivals: &mut Arrivals,
        requests: bool,
    ) {
        let mut shared = lock(&self.shared);
        shared.register(context);
        if requests {
            shared.exchange(arrivals);
        } else {
            shared.exchange_peers(arrivals);
        }
    }

    /// Exchanges the empty `arrivals` for all that waits, which may be nothing.
    pub fn take_now(&mut self, arrivals: &mut Arrivals) {
        lock(&self.shared).exchange(arrivals);
    }

    /// Takes nothing in any more.
    pub fn close(&mut self) {
        lock(&self.shared).closed = true;
    }
}

impl Shared {
    fn exchange(&mut self, arrivals: &mut Arrivals) {
        debug_assert!(arrivals.is_empty(), "what was taken before must be processed first");
        mem::swap(&mut self.waiting, arrivals);
        self.bytes = [0; Class::ALL.len()];
    }

    fn exchange_peers(&mut self, arrivals: &mut Arrivals) {
        debug_assert!(arrivals.peers.is_empty(), "what was taken before must be processed first");
        mem::swap(&mut self.waiting.peers, &mut arrivals.peers);
        let requests = self.bytes[Class::Request as usize];
        self.bytes = [0; Class::ALL.len()];
        self.bytes[Class::Request as usize] = requests;
    }

    fn register(&mut self, context: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
    }
}

impl Drop for InboxReceiver {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for InboxReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InboxReceiver").finish_non_exhaustive()
    }
}

/// No panic can happen while the lock is held, so a poisoned one is as good as any.
fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::{EntryKind, LinkId};

    fn request(bytes: usize) -> Inbound {
        Inbound::Request(Request {
            link: LinkId(1),
            request_id: 1,
            deadline: Duration::ZERO,
            kind: EntryKind::Plain,
            payload: Bytes::from(vec![0; bytes]),
        })
    }

    #[test]
    fn a_full_class_refuses_and_is_open_again_once_taken() {
        let (inbox, mut receiver) =
            Inbox::new(InboxLimits { request_bytes: 200, ..InboxLimits::default() });
        assert!(inbox.offer(request(10)).is_ok());
        assert!(inbox.offer(request(500)).is_err());
        let mut arrivals = Arrivals::default();
        receiver.take_now(&mut arrivals);
        assert_eq!(arrivals.requests.len(), 1);
        assert!(inbox.offer(request(500)).is_ok(), "an empty class takes in anything");
        drop(receiver);
        assert!(inbox.is_closed() && inbox.offer(request(1)).is_err());
    }

    #[test]
    fn requests_that_are_left_still_count() {
        let (inbox, mut receiver) =
            Inbox::new(InboxLimits { request_bytes: 200, ..InboxLimits::default() });
        let mut context = Context::from_waker(Waker::noop());
        let mut arrivals = Arrivals::default();
        assert!(inbox.offer(request(10)).is_ok());
        receiver.take_and_register(&mut context, &mut arrivals, false);
        assert!(arrivals.is_empty());
        assert!(inbox.offer(request(500)).is_err());
        receiver.take_and_register(&mut context, &mut arrivals, true);
        assert_eq!(arrivals.requests.len(), 1);
    }
}
