//! One request, as a future that is its own waiter.

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use graft_core::{
    ClientRequest, EntryKind, NodeId, SessionId,
    session::{COMMAND_HEADER, PLAIN_HEADER, write_command_header, write_plain_header},
};

use crate::{
    client::Handle,
    error::{Outcome, RequestError},
    session::Position,
    shared::nanos,
    slots::{NewRequest, Phase, RequestId, Role, Ticket},
    state::{After, Life, State},
};

/// How many bytes a request's buffer must leave free in front of the entry.
pub const HEADER_BYTES: usize = COMMAND_HEADER;

/// A buffer with [`HEADER_BYTES`] free bytes in front and an encoded entry behind them. It is sent as it
/// is: where its memory is aligned to 16 bytes, the entry is too.
pub trait Body: AsRef<[u8]> + AsMut<[u8]> + Send + Sized + 'static {
    /// Shares what [`AsRef`] shows. As provided the buffer itself moves into the shared memory: one
    /// whose bytes lie elsewhere in it, or that is larger than they are, can do better.
    fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Body for Vec<u8> {}
impl Body for Box<[u8]> {}
impl<const LENGTH: usize> Body for [u8; LENGTH] {}

/// How to treat a request.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RequestOptions {
    version: u16,
    idempotent: bool,
    deadline: Option<Duration>,
}

impl RequestOptions {
    /// For an entry that was written by this version of its type.
    #[must_use]
    pub const fn new(version: u16) -> Self {
        Self { version, idempotent: false, deadline: None }
    }

    /// Promises that applying the entry twice does no harm: it then goes without a session. It may
    /// be applied more than once, and again after it was answered.
    #[must_use]
    pub const fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// How long it may take from its first poll, instead of
    /// [`ClientConfig::deadline`](crate::ClientConfig::deadline).
    #[must_use]
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }
}

/// A request under way. Ends with the machine's response.
///
/// It is sent when it is first polled. Dropping it says that its answer is not wanted any more: it
/// may still be applied.
#[must_use = "a request is sent when it is first polled: await it"]
pub struct Request<B> {
    handle: Arc<Handle>,
    options: RequestOptions,
    stage: Stage<B>,
}

enum Stage<B> {
    /// Not polled yet.
    New(B),
    /// Waits for a place in the session.
    Waiting(B, Ticket),
    /// The slot has the payload, or the result.
    Sent(Ticket),
    /// Its result was given.
    Done,
}

// The body is only ever moved, never pinned.
impl<B> Unpin for Request<B> {}

impl<B: Body> Request<B> {
    pub(crate) fn new(handle: Arc<Handle>, body: B, options: RequestOptions) -> Self {
        Self { handle, options, stage: Stage::New(body) }
    }
}

impl<B> Request<B> {
    /// How long it may take, counted from its first poll. Has no effect after that.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.options = self.options.deadline(deadline);
        self
    }

    /// Promises that applying the entry twice does no harm: see [`RequestOptions::idempotent`]. Has no
    /// effect after the first poll.
    pub fn idempotent(mut self) -> Self {
        self.options = self.options.idempotent();
        self
    }
}

impl<B: Body> Request<B> {
    fn start(&mut self, mut body: B, context: &Context<'_>) -> Poll<Result<Bytes, RequestError>> {
        if let Some(error) = body_error(&mut body) {
            return Poll::Ready(Err(error));
        }
        let shared = &self.handle.shared;
        let now = shared.now();
        let deadline = self.options.deadline.unwrap_or(shared.config.deadline);
        if deadline.is_zero() {
            let (waited, outcome) = (deadline, Outcome::NotApplied);
            return Poll::Ready(Err(RequestError::Timeout { waited, outcome }));
        }
        let mut new = NewRequest {
            role: Role::User,
            phase: Phase::Waiting,
            kind: EntryKind::SessionCommand,
            session: SessionId(0),
            sequence: 0,
            started: now,
            deadline: now.saturating_add(nanos(deadline)),
            waker: Some(context.waker().clone()),
        };
        let mut after = After::default();
        let mut state = shared.lock();
        if let Some(error) = state.refuses_requests() {
            return Poll::Ready(Err(error));
        }
        let send;
        if self.options.idempotent {
            new.kind = EntryKind::Plain;
            let payload = plain(body, self.options.version);
            let (ticket, first) = state.open_sent(new, payload, &mut after);
            (self.stage, send) = (Stage::Sent(ticket), first);
        } else if let Some(position) = state.next_position(now) {
            new.session = position.session;
            new.sequence = position.sequence;
            let payload = command(body, position, self.options.version);
            let (ticket, first) = state.open_sent(new, payload, &mut after);
            (self.stage, send) = (Stage::Sent(ticket), first);
        } else if state.may_wait() {
            let ticket = state.open_waiting(new, &mut after);
            (self.stage, send) = (Stage::Waiting(body, ticket), None);
        } else {
            return Poll::Ready(Err(RequestError::Overloaded));
        }
        drop(state);
        after.run();
        self.send(send);
        Poll::Pending
    }

    /// Sends from the place in the session, if it was granted one.
    fn proceed(
        &mut self,
        body: B,
        ticket: Ticket,
        context: &Context<'_>,
    ) -> Poll<Result<Bytes, RequestError>> {
        let shared = &self.handle.shared;
        let now = shared.now();
        let mut after = After::default();
        let mut state = shared.lock();
        let granted = match state.slots.get_mut(ticket).map(|slot| &slot.phase) {
            Some(Phase::Granted) => true,
            Some(Phase::Waiting) => false,
            _ => {
                drop(state);
                return self.take_result(ticket, context);
            }
        };
        let position = if granted { state.granted_position(ticket, now, &mut after) } else { None };
        let old = state.set_waker(ticket, context);
        let mut send = None;
        if let Some(position) = position {
            let payload = command(body, position, self.options.version);
            send = state.send_granted(ticket, position, payload, now, &mut after);
            self.stage = Stage::Sent(ticket);
        } else {
            self.stage = Stage::Waiting(body, ticket);
        }
        drop(state);
        drop(old);
        after.run();
        self.send(send);
        Poll::Pending
    }

    fn send(&self, send: Option<(NodeId, ClientRequest)>) {
        let Some((to, request)) = send else {
            return;
        };
        let id = RequestId(request.request_id);
        if let Err(error) = self.handle.link.send(to, request) {
            let (ticket, attempt) = id.split();
            self.handle.shared.on_link_error(ticket, attempt, &error);
        }
    }

    fn take_result(
        &mut self,
        ticket: Ticket,
        context: &Context<'_>,
    ) -> Poll<Result<Bytes, RequestError>> {
        let mut state = self.handle.shared.lock();
        if let Some(result) = state.slots.take_result(ticket.slot) {
            drop(state);
            self.stage = Stage::Done;
            return Poll::Ready(result);
        }
        let old = state.set_waker(ticket, context);
        drop(state);
        drop(old);
        self.stage = Stage::Sent(ticket);
        Poll::Pending
    }
}

impl<B: Body> Future for Request<B> {
    type Output = Result<Bytes, RequestError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        // A body is moved only where there is one.
        if let Stage::Sent(ticket) = this.stage {
            return this.take_result(ticket, context);
        }
        match mem::replace(&mut this.stage, Stage::Done) {
            Stage::New(body) => this.start(body, context),
            Stage::Waiting(body, ticket) => this.proceed(body, ticket, context),
            Stage::Sent(_) | Stage::Done => panic!("a request was polled after it had ended"),
        }
    }
}

impl<B> Drop for Request<B> {
    fn drop(&mut self) {
        let (Stage::Waiting(_, ticket) | Stage::Sent(ticket)) = self.stage else {
            return;
        };
        let mut after = After::default();
        let mut state = self.handle.shared.lock();
        state.forget(ticket, &mut after);
        drop(state);
        after.run();
    }
}

impl<B> fmt::Debug for Request<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match self.stage {
            Stage::New(_) => "not sent",
            Stage::Waiting(..) => "waiting",
            Stage::Sent(_) => "sent",
            Stage::Done => "done",
        };
        f.debug_struct("Request")
            .field("options", &self.options)
            .field("stage", &stage)
            .finish_non_exhaustive()
    }
}

impl State {
    /// Why no request is taken now.
    fn refuses_requests(&self) -> Option<RequestError> {
        if self.life != Life::Running {
            let outcome = Outcome::NotApplied;
            return Some(RequestError::Shutdown { outcome });
        }
        (!self.has_room()).then_some(RequestError::Overloaded)
    }

    /// Keeps the waker of the latest poll. Gives back one to drop where no lock is held.
    fn set_waker(&mut self, ticket: Ticket, context: &Context<'_>) -> Option<std::task::Waker> {
        let slot = self.slots.get_mut(ticket)?;
        match &slot.waker {
            Some(waker) if waker.will_wake(context.waker()) => None,
            _ => slot.waker.replace(context.waker().clone()),
        }
    }
}

fn body_error<B: Body>(body: &mut B) -> Option<RequestError> {
    let length = body.as_ref().len();
    let short = length < HEADER_BYTES || body.as_mut().len() != length;
    short.then(|| RequestError::InvalidEntry {
        reason: format!(
            "its buffer of {length} bytes must leave {HEADER_BYTES} bytes free in front of the entry"
        ),
    })
}

fn command<B: Body>(mut body: B, position: Position, version: u16) -> Bytes {
    write_command_header(body.as_mut(), &position.header(version));
    body.into_bytes()
}

fn plain<B: Body>(mut body: B, version: u16) -> Bytes {
    let skipped = COMMAND_HEADER - PLAIN_HEADER;
    write_plain_header(&mut body.as_mut()[skipped..], version);
    body.into_bytes().slice(skipped..)
}
