//! A request: from an entry to the machine's response.

use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    mem,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use graft_client::RequestOptions;

use crate::{
    Entry, RequestError,
    cluster::Cluster,
    encode::{Body, request_body},
    entry::one_line,
    wire,
};

/// A request under way: a future of the machine's response.
///
/// It is sent when it is first polled, and its deadline counts from then. Dropping it says that the
/// response is not wanted any more; the entry may still be applied, at most once.
#[must_use = "a request is sent when it is first polled: await it"]
pub struct Request<E: Entry> {
    stage: Stage,
    response: PhantomData<fn() -> E>,
}

enum Stage {
    Open(graft_client::Request<Body>),
    Refused(RequestError),
    Done,
}

impl<E: Entry> Request<E> {
    /// A request to `cluster`. The entry is archived here, so the future holds bytes alone.
    pub(crate) fn new(cluster: &Cluster, entry: &E) -> Self {
        Self::by(cluster.client(), cluster.config().max_entry_bytes, entry)
    }

    /// A request by way of a client that you made yourself, over a [`Link`](graft_core::Link) of your own; an
    /// entry whose archive has more than `limit` bytes is refused. Everywhere else there is a shorter way.
    pub fn by(client: &graft_client::Client, limit: usize, entry: &E) -> Self {
        Self::of(client.clone(), limit, entry)
    }

    /// As [`by`](Self::by).
    pub(crate) fn of(client: graft_client::Client, limit: usize, entry: &E) -> Self {
        match encode(entry, limit) {
            Ok(body) => {
                let options = RequestOptions::new(E::VERSION);
                let open = client.into_request(body, options);
                Self { stage: Stage::Open(open), response: PhantomData }
            }
            Err(error) => Self::refused(error),
        }
    }

    pub(crate) const fn refused(error: RequestError) -> Self {
        Self { stage: Stage::Refused(error), response: PhantomData }
    }

    /// How long it may take, instead of [`Config::deadline`](field@crate::Config::deadline). Has no
    /// effect after the first poll.
    pub fn deadline(self, limit: Duration) -> Self {
        self.with(|open| open.deadline(limit))
    }

    /// Promises that applying the entry more than once does no harm. It then pays nothing for being
    /// applied at most once: it **may be applied several times**, and again after it was answered. Has no
    /// effect after the first poll.
    pub fn idempotent(self) -> Self {
        self.with(graft_client::Request::idempotent)
    }

    fn with(
        self,
        change: impl FnOnce(graft_client::Request<Body>) -> graft_client::Request<Body>,
    ) -> Self {
        let stage = match self.stage {
            Stage::Open(open) => Stage::Open(change(open)),
            other => other,
        };
        Self { stage, response: PhantomData }
    }
}

impl<E: Entry> Future for Request<E> {
    type Output = Result<E::Response, RequestError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Stage::Open(open) = &mut self.stage {
            return Pin::new(open).poll(context).map(|reply| read::<E>(&reply?));
        }
        match mem::replace(&mut self.stage, Stage::Done) {
            Stage::Refused(error) => Poll::Ready(Err(error)),
            _ => panic!("a request was polled after it had ended"),
        }
    }
}

impl<E: Entry> fmt::Debug for Request<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.stage {
            Stage::Open(open) => open.fmt(f),
            Stage::Refused(error) => f.debug_tuple("Request").field(error).finish(),
            Stage::Done => f.write_str("Request(done)"),
        }
    }
}

fn encode<E: Entry>(entry: &E, limit: usize) -> Result<Body, RequestError> {
    let body = request_body(entry)
        .map_err(|error| RequestError::InvalidEntry { reason: one_line(&error) })?;
    let bytes = body.entry_bytes();
    if bytes > limit {
        return Err(RequestError::EntryTooLarge { bytes, limit });
    }
    Ok(body)
}

fn read<E: Entry>(reply: &Bytes) -> Result<E::Response, RequestError> {
    wire::decode(reply)
        .map_err(|error| RequestError::UnreadableResponse { reason: one_line(&error) })
}
