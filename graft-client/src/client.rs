//! The handle of a client.

use std::{
    fmt,
    sync::{Arc, Weak},
};

use graft_core::{Link, NodeId, Replies, Runtime};

use crate::{
    config::{ClientConfig, ClientConfigError},
    driver::Driver,
    request::{Body, Request, RequestOptions},
    shared::Shared,
    state::{After, Life},
};

/// A client of one cluster. Clones share it; it ends with the last clone and the last open request.
#[derive(Clone)]
pub struct Client {
    handle: Arc<Handle>,
}

/// What all clones and requests share. Its end is the client's.
pub(crate) struct Handle {
    pub(crate) shared: Arc<Shared>,
    pub(crate) link: Arc<dyn Link>,
}

impl Client {
    /// A client that reaches its cluster by `link`. Spawns one task on `runtime`, which ends with the
    /// client. Attaches itself to the link.
    ///
    /// # Errors
    ///
    /// [`ClientConfigError`] names the field that is out of its range.
    pub fn new(
        link: Arc<dyn Link>,
        runtime: Arc<dyn Runtime>,
        config: ClientConfig,
    ) -> Result<Self, ClientConfigError> {
        config.validate()?;
        let shared = Arc::new(Shared::new(runtime, config));
        link.attach(Arc::clone(&shared) as Arc<dyn Replies>);
        let driver = Driver::new(Arc::clone(&shared), Arc::clone(&link));
        shared.runtime.spawn(Box::pin(driver.run()));
        Ok(Self { handle: Arc::new(Handle { shared, link }) })
    }

    /// A request for the machine. It is sent when it is first polled; its deadline counts from then.
    ///
    /// The first [`HEADER_BYTES`](crate::HEADER_BYTES) bytes of `body` are the client's, the rest is the entry.
    pub fn request<B: Body>(&self, body: B, options: RequestOptions) -> Request<B> {
        Request::new(Arc::clone(&self.handle), body, options)
    }

    /// As [`request`](Self::request), where this clone of the client has nothing else to do: the request takes it over.
    pub fn into_request<B: Body>(self, body: B, options: RequestOptions) -> Request<B> {
        Request::new(self.handle, body, options)
    }

    /// A way to this client that does not keep it.
    #[must_use]
    pub fn downgrade(&self) -> WeakClient {
        WeakClient { handle: Arc::downgrade(&self.handle) }
    }

    /// The server that is taken for the leader now.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.handle.shared.lock().leader()
    }

    /// What the client has done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let state = self.handle.shared.lock();
        Stats { open: state.slots.open(), waiting: state.waiting, ..state.stats }
    }

    /// Ends the client for all clones: open requests end as
    /// [`Shutdown`](crate::RequestError::Shutdown), and so do later ones. The servers are told, as far
    /// as they can be reached, that the session is over.
    pub fn shutdown(&self) {
        self.handle.shut_down();
    }
}

/// A way to a [`Client`] for as long as somebody else keeps it.
#[derive(Clone)]
pub struct WeakClient {
    handle: Weak<Handle>,
}

impl WeakClient {
    /// The client, unless it has ended with its last clone and its last open request.
    #[must_use]
    pub fn upgrade(&self) -> Option<Client> {
        self.handle.upgrade().map(|handle| Client { handle })
    }
}

impl fmt::Debug for WeakClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakClient").finish_non_exhaustive()
    }
}

impl Handle {
    fn shut_down(&self) {
        let mut after = After::default();
        let mut state = self.shared.lock();
        if state.life == Life::Running {
            state.shut_down(Life::Closing, &mut after);
        }
        drop(state);
        after.run();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shut_down();
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("leader", &self.leader())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// Counters since the client began, and what is open now.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// Requests that were polled.
    pub requests: u64,
    /// Messages sent, the client's own ones included.
    pub attempts: u64,
    /// Attempts beyond the first of a request.
    pub retries: u64,
    /// Refusals that named another leader, which was asked at once.
    pub redirects: u64,
    /// Attempts that were not answered in time.
    pub attempt_timeouts: u64,
    /// Requests that ended by their deadline.
    pub timeouts: u64,
    /// Replies that came twice, or after their request had ended.
    pub late_replies: u64,
    /// Sessions opened.
    pub sessions_opened: u64,
    /// Sessions that the servers had closed.
    pub sessions_expired: u64,
    /// Requests that are open now, the client's own ones included.
    pub open: usize,
    /// Requests among them that wait for a place in the session.
    pub waiting: usize,
}
