//! The ends that the checks hold: servers that only receive, and clients that write down what they hear.

use std::{
    future::{Future, poll_fn},
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use graft_core::{
    Arrivals, ClientRequest, EntryKind, Envelope, Inbox, InboxLimits, InboxReceiver, Link, NodeId,
    PeerEnvelope, Replies, Reply, Request, Runtime, Transport,
};

use super::{Broken, Fixture, Limits, Verdict, ensure, samples};

/// The servers of a fixture.
pub(super) struct Cluster<'a> {
    pub(super) fixture: &'a dyn Fixture,
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) limits: Limits,
    pub(super) servers: Vec<Server>,
}

/// A server that takes what arrives when a check says so.
pub(super) struct Server {
    pub(super) node: NodeId,
    pub(super) transport: Arc<dyn Transport>,
    receiver: InboxReceiver,
    /// What was taken so far. Probes are left out.
    pub(super) peers: Vec<PeerEnvelope>,
    pub(super) requests: Vec<Request>,
}

impl Server {
    /// The next transport of `node`, attached to an inbox with these limits.
    pub(super) async fn start(fixture: &dyn Fixture, node: NodeId, limits: InboxLimits) -> Self {
        let transport = fixture.transport(node).await;
        let (inbox, receiver) = Inbox::new(limits);
        transport.attach(inbox);
        Self { node, transport, receiver, peers: Vec::new(), requests: Vec::new() }
    }

    /// Takes what has arrived.
    pub(super) fn take(&mut self) {
        let mut arrivals = Arrivals::default();
        self.receiver.take_now(&mut arrivals);
        self.keep(arrivals);
    }

    pub(super) fn forget(&mut self) {
        self.peers.clear();
        self.requests.clear();
    }

    fn keep(&mut self, arrivals: Arrivals) {
        let peers = arrivals.peers.into_iter();
        self.peers.extend(peers.filter(|envelope| !samples::is_probe(envelope)));
        self.requests.extend(arrivals.requests);
    }

    fn poll_take(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut arrivals = Arrivals::default();
        let poll = self.receiver.poll_take(context, &mut arrivals);
        self.keep(arrivals);
        poll
    }
}

impl<'a> Cluster<'a> {
    /// All servers, attached and connected.
    pub(super) async fn start(fixture: &'a dyn Fixture) -> Verdict<Self> {
        Self::start_with(fixture, InboxLimits::default()).await
    }

    pub(super) async fn start_with(fixture: &'a dyn Fixture, limits: InboxLimits) -> Verdict<Self> {
        let mut cluster = Self {
            fixture,
            runtime: fixture.runtime(),
            limits: fixture.limits(),
            servers: Vec::new(),
        };
        for node in fixture.nodes() {
            cluster.servers.push(Server::start(fixture, node, limits).await);
        }
        ensure(cluster.servers.len() >= 3, "a fixture has three servers or more")?;
        cluster.settle().await?;
        Ok(cluster)
    }

    /// Waits until everyone hears everyone.
    async fn settle(&mut self) -> Verdict {
        let deadline = self.runtime.now() + self.limits.patience;
        let nodes: Vec<NodeId> = self.servers.iter().map(|server| server.node).collect();
        for (at, to) in nodes.iter().enumerate() {
            for from in nodes.iter().enumerate().filter(|(other, _)| *other != at) {
                self.probe(from.0, at, deadline).await.map_err(|_| {
                    Broken(format!("{to} is connected to {} in time", nodes[from.0]))
                })?;
            }
        }
        self.rest().await;
        for server in &mut self.servers {
            server.take();
            server.forget();
        }
        Ok(())
    }

    async fn probe(&mut self, from: usize, to: usize, deadline: Duration) -> Verdict {
        loop {
            let probe = samples::probe(self.servers[from].node, self.servers[to].node);
            self.servers[from].transport.send(Envelope::Peer(probe.clone()));
            let receiver = &mut self.servers[to].receiver;
            let soon = self.runtime.now() + self.limits.quiet;
            let heard = wait(&*self.runtime, soon, |context| {
                let mut arrivals = Arrivals::default();
                match receiver.poll_take(context, &mut arrivals) {
                    Poll::Ready(()) if arrivals.peers.contains(&probe) => Poll::Ready(()),
                    Poll::Ready(()) => {
                        context.waker().wake_by_ref();
                        Poll::Pending
                    }
                    Poll::Pending => Poll::Pending,
                }
            });
            if heard.await {
                return Ok(());
            }
            ensure(self.runtime.now() < deadline, "connected in time")?;
        }
    }

    /// Waits for as long as it must be quiet before nothing more is expected.
    pub(super) async fn rest(&self) {
        self.runtime.sleep_until(self.runtime.now() + self.limits.quiet).await;
    }

    pub(super) fn node(&self, at: usize) -> NodeId {
        self.servers[at].node
    }

    pub(super) fn send(&self, from: usize, envelope: PeerEnvelope) {
        self.servers[from].transport.send(Envelope::Peer(envelope));
    }

    /// Takes what arrives at a server until `done`, or until it takes too long. Says whether it is done.
    pub(super) async fn gather(
        &mut self,
        at: usize,
        limit: Duration,
        mut done: impl FnMut(&Server) -> bool,
    ) -> bool {
        let server = &mut self.servers[at];
        let deadline = self.runtime.now() + limit;
        let poll = |context: &mut Context<'_>| {
            while server.poll_take(context).is_ready() {}
            if done(server) { Poll::Ready(()) } else { Poll::Pending }
        };
        wait(&*self.runtime, deadline, poll).await
    }

    /// Sends `envelope` until it has arrived. It may be lost, but not again and again.
    pub(super) async fn deliver(&mut self, envelope: &PeerEnvelope) -> Verdict {
        const ATTEMPTS: u32 = 4;
        let place = |node| self.servers.iter().position(|server| server.node == node);
        let (Some(from), Some(to)) = (place(envelope.from), place(envelope.to)) else {
            return Err(Broken(format!("no such servers: {} and {}", envelope.from, envelope.to)));
        };
        let limit = self.limits.patience / ATTEMPTS;
        for _ in 0..ATTEMPTS {
            self.send(from, envelope.clone());
            let arrived = |server: &Server| server.peers.contains(envelope);
            if self.gather(to, limit, arrived).await {
                return Ok(());
            }
        }
        Err(Broken(format!("{} arrives", samples::describe(envelope))))
    }

    /// A client of these servers.
    pub(super) async fn client(&self) -> Client {
        let link = self.fixture.link().await;
        let heard = Arc::new(Heard::default());
        link.attach(Arc::clone(&heard) as Arc<dyn Replies>);
        Client { link, heard, runtime: Arc::clone(&self.runtime), limits: self.limits }
    }

    /// Sends a request until the server has taken it, and returns it as it arrived.
    pub(super) async fn request(
        &mut self,
        client: &Client,
        to: usize,
        request_id: u64,
        kind: EntryKind,
        payload: Bytes,
    ) -> Verdict<Request> {
        let deadline = self.runtime.now() + self.limits.patience;
        let node = self.node(to);
        loop {
            let _maybe_later = client.send(node, request_id, kind, payload.clone());
            // What was sent again before may still arrive, so only this very request counts.
            let is_it =
                |found: &Request| found.request_id == request_id && found.payload == payload;
            let arrived = |server: &Server| server.requests.iter().any(is_it);
            if self.gather(to, self.limits.quiet, arrived).await {
                let requests = &mut self.servers[to].requests;
                if let Some(at) = requests.iter().position(is_it) {
                    return Ok(requests.swap_remove(at));
                }
            }
            let in_time = self.runtime.now() < deadline;
            ensure(in_time, format_args!("a request of {} bytes arrives", payload.len()))?;
        }
    }
}

/// A client that writes down what it hears.
pub(super) struct Client {
    pub(super) link: Arc<dyn Link>,
    heard: Arc<Heard>,
    runtime: Arc<dyn Runtime>,
    limits: Limits,
}

/// Something that a client heard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum News {
    Reply(NodeId, u64, Reply),
    Gone(NodeId),
}

impl Client {
    pub(super) fn send(
        &self,
        to: NodeId,
        request_id: u64,
        kind: EntryKind,
        payload: Bytes,
    ) -> Result<(), graft_core::LinkError> {
        let deadline = self.runtime.now() + self.limits.patience;
        self.link.send(to, ClientRequest { request_id, deadline, kind, payload })
    }

    /// Everything heard so far.
    pub(super) fn heard(&self) -> Vec<News> {
        self.heard.lock().news.clone()
    }

    pub(super) fn forget(&self) {
        self.heard.lock().news.clear();
    }

    /// Waits until something of this kind has been heard. Says whether it has.
    pub(super) async fn hears(&self, is_wanted: impl Fn(&News) -> bool) -> bool {
        let deadline = self.runtime.now() + self.limits.patience;
        let poll = |context: &mut Context<'_>| {
            let mut heard = self.heard.lock();
            heard.waker = Some(context.waker().clone());
            if heard.news.iter().any(&is_wanted) { Poll::Ready(()) } else { Poll::Pending }
        };
        wait(&*self.runtime, deadline, poll).await
    }
}

#[derive(Default)]
struct Heard {
    log: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    news: Vec<News>,
    waker: Option<Waker>,
}

impl Heard {
    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, news: News) {
        let waker = {
            let mut log = self.lock();
            log.news.push(news);
            log.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Replies for Heard {
    fn on_reply(&self, from: NodeId, request_id: u64, reply: Reply) {
        self.hear(News::Reply(from, request_id, reply));
    }

    fn on_server_gone(&self, server: NodeId) {
        self.hear(News::Gone(server));
    }
}

/// Polls until it is ready or `deadline` has passed. Says whether it became ready.
async fn wait(
    runtime: &dyn Runtime,
    deadline: Duration,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<()>,
) -> bool {
    let mut timer = runtime.sleep_until(deadline);
    poll_fn(|context| {
        if poll(context).is_ready() {
            return Poll::Ready(true);
        }
        Pin::new(&mut timer).poll(context).map(|()| false)
    })
    .await
}

/// Runs `work`, which must not block, where it would block nobody, and says whether it ended in time.
pub(super) async fn ends_in_time(
    runtime: &dyn Runtime,
    limit: Duration,
    work: impl FnOnce() + Send + 'static,
) -> bool {
    #[derive(Default)]
    struct Done {
        done: bool,
        waker: Option<Waker>,
    }
    let shared = Arc::new(Mutex::new(Done::default()));
    let telling = Arc::clone(&shared);
    runtime.spawn_blocking(Box::new(move || {
        work();
        let waker = {
            let mut state = telling.lock().unwrap_or_else(PoisonError::into_inner);
            state.done = true;
            mem::take(&mut state.waker)
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }));
    let poll = |context: &mut Context<'_>| {
        let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
        state.waker = Some(context.waker().clone());
        if state.done { Poll::Ready(()) } else { Poll::Pending }
    };
    wait(runtime, runtime.now() + limit, poll).await
}
