//! A store, a network, a machine and a clock, as small as they can be and with the switches that the
//! tests turn.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use graft_core::{
    ApplyMode, BoxFuture, Command, CommandCheck, Entry, EntryKind, EntryRef, Envelope, HardState,
    Identity, Inbound, Inbox, Index, InvalidCommand, LinkId, Loaded, LogStore, Membership, Message,
    NodeId, Recovered, Reply, Request, RestoreError, Runtime, SnapshotChunk, SnapshotSource,
    SnapshotStream, StateMachine, StoreError, TokioRuntime, Transport, Undecodable, Write,
};
use tokio::sync::{oneshot, watch};

/// A disk in memory that outlives its node.
#[derive(Default)]
pub(crate) struct Disk {
    held: Mutex<Held>,
    /// Writes wait while this is true.
    pub(crate) stalled: watch::Sender<bool>,
    /// The next write fails.
    pub(crate) broken: AtomicBool,
    /// Whether it tells whose it is without being recovered.
    pub(crate) tells: AtomicBool,
    /// How often it was recovered.
    pub(crate) recoveries: AtomicUsize,
}

#[derive(Default)]
struct Held {
    identity: Option<Identity>,
    hard_state: HardState,
    log: Vec<Entry>,
}

#[async_trait]
impl LogStore for Disk {
    async fn identity(&self) -> Result<Option<Identity>, StoreError> {
        let tells = self.tells.load(Ordering::Relaxed);
        Ok(self.held.lock().unwrap().identity.clone().filter(|_| tells))
    }

    async fn create(&self, identity: &Identity) -> Result<(), StoreError> {
        self.held.lock().unwrap().identity = Some(identity.clone());
        Ok(())
    }

    async fn recover(&self) -> Result<Option<Recovered>, StoreError> {
        self.recoveries.fetch_add(1, Ordering::Relaxed);
        let held = self.held.lock().unwrap();
        let Some(identity) = held.identity.clone() else {
            return Ok(None);
        };
        let mut recovered = Recovered::newborn(identity);
        recovered.hard_state = held.hard_state;
        for entry in &held.log {
            if recovered.last.term != entry.log_id.term {
                recovered.terms.push((entry.log_id.index, entry.log_id.term));
            }
            if entry.kind == EntryKind::Membership {
                let membership = Membership::decode(&entry.payload).unwrap();
                recovered.memberships.push((entry.log_id, membership));
            }
            recovered.last = entry.log_id;
            recovered.last_time = entry.time;
        }
        Ok(Some(recovered))
    }

    async fn write(&self, mut writes: Vec<Write>) -> Result<Vec<Write>, StoreError> {
        if *self.stalled.borrow() {
            let mut stalled = self.stalled.subscribe();
            stalled.wait_for(|stalled| !stalled).await.unwrap();
        }
        if self.broken.load(Ordering::Relaxed) {
            return Err(StoreError::Backend { reason: "the test broke it".into() });
        }
        let mut held = self.held.lock().unwrap();
        for write in writes.drain(..) {
            match write {
                Write::HardState(hard_state) => held.hard_state = hard_state,
                Write::Append(entries) => {
                    let first = entries.first_index().unwrap();
                    held.log.truncate(usize::try_from(first.0).unwrap() - 1);
                    held.log.extend(entries.iter().map(EntryRef::to_entry));
                }
                other => panic!("{other:?} is not for this store"),
            }
        }
        Ok(writes)
    }

    async fn read(&self, range: Range<Index>, max_bytes: usize) -> Result<Loaded, StoreError> {
        let held = self.held.lock().unwrap();
        let last = held.log.last().map_or(Index(0), |entry| entry.log_id.index);
        let mut size = 0;
        let wanted = held.log.iter().filter(|entry| range.contains(&entry.log_id.index));
        let fits = wanted.take_while(|entry| {
            let first = size == 0;
            size += entry.size();
            first || size <= max_bytes
        });
        let entries: Vec<Entry> = fits.cloned().collect();
        if entries.is_empty() {
            return Err(StoreError::OutOfRange { range, last });
        }
        Ok(Loaded::Entries(entries.into()))
    }

    async fn stage(&self, chunk: SnapshotChunk) -> Result<(), StoreError> {
        panic!("{chunk:?} is not for this store");
    }

    async fn read_snapshot(&self, id: u64, _: u64, _: usize) -> Result<Bytes, StoreError> {
        Err(StoreError::NoSnapshot { id })
    }
}

/// A network in memory, with a client.
pub(crate) struct Network {
    state: Mutex<Wires>,
    runtime: Arc<Ticker>,
}

#[derive(Default)]
struct Wires {
    inboxes: BTreeMap<NodeId, Inbox>,
    cut: BTreeSet<NodeId>,
    waiting: BTreeMap<u64, oneshot::Sender<Reply>>,
    requests: u64,
    heartbeats: Vec<(NodeId, Duration)>,
    newest_version: Option<u16>,
}

impl Network {
    pub(crate) const CLIENT: LinkId = LinkId(1);

    pub(crate) fn new(runtime: Arc<Ticker>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), runtime })
    }

    pub(crate) fn port(self: &Arc<Self>, node: NodeId) -> Arc<Port> {
        Arc::new(Port { network: Arc::clone(self), node })
    }

    /// Says what the members read.
    pub(crate) fn set_newest_version(&self, newest: Option<u16>) {
        self.state.lock().unwrap().newest_version = newest;
    }

    /// Cuts `node` off from its peers, not from its clients.
    pub(crate) fn cut(&self, node: NodeId) {
        self.state.lock().unwrap().cut.insert(node);
    }

    /// Offers a request before it returns.
    pub(crate) fn request(&self, to: NodeId, request: Request) -> oneshot::Receiver<Reply> {
        let (sender, reply) = oneshot::channel();
        let inbox = {
            let mut state = self.state.lock().unwrap();
            state.requests += 1;
            let request_id = state.requests;
            state.waiting.insert(request_id, sender);
            (state.inboxes[&to].clone(), Request { request_id, ..request })
        };
        let (inbox, request) = inbox;
        inbox.offer(Inbound::Request(request)).expect("the inbox has room");
        reply
    }

    /// When `node` sent heartbeats since `since`.
    pub(crate) fn heartbeats(&self, node: NodeId, since: Duration) -> Vec<Duration> {
        let state = self.state.lock().unwrap();
        let of_node = state.heartbeats.iter().filter(|(from, at)| *from == node && *at >= since);
        of_node.map(|(_, at)| *at).collect()
    }
}

pub(crate) struct Port {
    network: Arc<Network>,
    node: NodeId,
}

#[async_trait]
impl Transport for Port {
    fn attach(&self, inbox: Inbox) {
        self.network.state.lock().unwrap().inboxes.insert(self.node, inbox);
    }

    fn send(&self, envelope: Envelope) {
        let now = self.network.runtime.now();
        let mut state = self.network.state.lock().unwrap();
        match envelope {
            Envelope::Peer(envelope) => {
                if matches!(envelope.message, Message::Heartbeat(_)) {
                    state.heartbeats.push((self.node, now));
                }
                if state.cut.contains(&envelope.from) || state.cut.contains(&envelope.to) {
                    return;
                }
                let inbox = state.inboxes.get(&envelope.to).cloned();
                drop(state);
                if let Some(inbox) = inbox {
                    // A full or closed inbox loses it, as a network may.
                    let _ = inbox.offer(Inbound::Peer(envelope));
                }
            }
            Envelope::Reply(reply) => {
                assert_eq!(reply.link, Network::CLIENT);
                let waiting = state.waiting.remove(&reply.request_id);
                let waiting = waiting.expect("a request is answered once");
                drop(state);
                let _ = waiting.send(reply.reply);
            }
        }
    }

    fn newest_version(&self) -> Option<u16> {
        self.network.state.lock().unwrap().newest_version
    }

    async fn close(&self) {
        self.network.state.lock().unwrap().inboxes.remove(&self.node);
    }
}

/// What the tests see of a machine.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) applied: watch::Sender<Vec<Bytes>>,
    /// `BLOCK` commands wait while this is false.
    pub(crate) gate: watch::Sender<bool>,
    /// `SLOW` commands take time while this is true.
    pub(crate) slow: AtomicBool,
    /// The machine panics where nothing catches it but its thread, while this is true.
    pub(crate) broken: AtomicBool,
    /// What the machine does as it is dropped.
    pub(crate) farewell: Mutex<Farewell>,
    /// Whether it is being dropped.
    pub(crate) is_leaving: watch::Sender<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Farewell {
    #[default]
    Nothing,
    /// Waits for the gate, as [`BLOCK`] does.
    Blocks,
    Panics,
}

/// A machine that keeps a list, and does what the bodies of its commands say.
pub(crate) struct Journal {
    pub(crate) seen: Arc<Seen>,
    pub(crate) mode: ApplyMode,
    pub(crate) runtime: Arc<Ticker>,
}

/// Does not pass the check.
pub(crate) const INVALID: &[u8] = b"invalid";
pub(crate) const CHECK_PANIC: &[u8] = b"check panics";
/// Takes a millisecond to check, on the clock in [`CHECKING`].
pub(crate) const HARD: &[u8] = b"hard";

thread_local! {
    /// A check is a plain function; this is how it gets hold of the test's clock.
    pub(crate) static CHECKING: RefCell<Option<Arc<Ticker>>> = const { RefCell::new(None) };
}

/// Passes the check and cannot be applied.
pub(crate) const UNDECODABLE: &[u8] = b"undecodable";
/// Blocks until the gate opens.
pub(crate) const BLOCK: &[u8] = b"block";
/// Takes 300 us of the test's time, where the machine is made slow.
pub(crate) const SLOW: &[u8] = b"slow";
/// Makes the machine panic.
pub(crate) const PANIC: &[u8] = b"panic";

impl Journal {
    fn wait_at_the_gate(&self) {
        self.runtime.work_ends();
        while !*self.seen.gate.borrow() {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        self.runtime.work_begins();
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.seen.is_leaving.send_replace(true);
        let farewell = *self.seen.farewell.lock().unwrap();
        match farewell {
            Farewell::Nothing => {}
            Farewell::Blocks => self.wait_at_the_gate(),
            Farewell::Panics => panic!("the test asked for it, too"),
        }
    }
}

impl StateMachine for Journal {
    fn check(&self) -> CommandCheck {
        |_, body| match body {
            INVALID => Err(InvalidCommand { reason: "it says so itself".into() }),
            CHECK_PANIC => panic!("the test asked for it"),
            HARD => {
                CHECKING.with_borrow(|clock| {
                    if let Some(clock) = clock {
                        clock.pass(Duration::from_millis(1));
                    }
                });
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn apply(&mut self, command: &Command<'_>) -> Result<Bytes, Undecodable> {
        match command.body {
            UNDECODABLE => {
                let reason = "upgrade this server first".into();
                return Err(Undecodable { version: command.version, reason });
            }
            BLOCK => {
                self.wait_at_the_gate();
            }
            SLOW if self.seen.slow.load(Ordering::Relaxed) => {
                self.runtime.pass(Duration::from_micros(300));
            }
            PANIC => panic!("the test asked for it"),
            _ => {}
        }
        let body = Bytes::copy_from_slice(command.body);
        self.seen.applied.send_modify(|applied| applied.push(body.clone()));
        Ok(body)
    }

    fn query(&self, _version: u16, _body: &[u8]) -> Option<Bytes> {
        None
    }

    fn snapshot(&self) -> Option<SnapshotSource> {
        None
    }

    fn restore(&mut self, _snapshot: SnapshotStream) -> Result<(), RestoreError> {
        Err(RestoreError::Unsupported)
    }

    fn apply_mode(&self) -> ApplyMode {
        assert!(!self.seen.broken.load(Ordering::Relaxed), "the test broke it");
        self.mode
    }
}

/// tokio's time, which the tests have paused so that it passes only while nothing is to be done, and
/// what machines pretend to have used of it.
pub(crate) struct Ticker {
    tokio: TokioRuntime,
    used: AtomicU64,
    /// Threads at work, and not at the gate: as long as there are any, time stands still.
    working: Arc<AtomicUsize>,
    /// Work for threads is dropped while this is true.
    pub(crate) full: AtomicBool,
}

impl Ticker {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            tokio: TokioRuntime::current().unwrap(),
            used: AtomicU64::new(0),
            working: Arc::default(),
            full: AtomicBool::new(false),
        })
    }

    fn pass(&self, time: Duration) {
        self.used.fetch_add(u64::try_from(time.as_nanos()).unwrap(), Ordering::Relaxed);
    }

    fn work_begins(&self) {
        self.working.fetch_add(1, Ordering::SeqCst);
        let working = Arc::clone(&self.working);
        self.tokio.spawn(Box::pin(async move {
            while working.load(Ordering::SeqCst) > 0 {
                tokio::task::yield_now().await;
            }
        }));
    }

    fn work_ends(&self) {
        self.working.fetch_sub(1, Ordering::SeqCst);
    }

    fn used(&self) -> Duration {
        Duration::from_nanos(self.used.load(Ordering::Relaxed))
    }
}

impl Runtime for Ticker {
    fn now(&self) -> Duration {
        self.tokio.now() + self.used()
    }

    fn unix_millis(&self) -> u64 {
        1_700_000_000_000
    }

    fn sleep_until(&self, deadline: Duration) -> BoxFuture {
        self.tokio.sleep_until(deadline.saturating_sub(self.used()))
    }

    fn spawn(&self, task: BoxFuture) {
        self.tokio.spawn(task);
    }

    /// A plain thread: tokio's paused time stands still while its own blocking threads work, and
    /// here it must go on while a machine blocks.
    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        if self.full.load(Ordering::Relaxed) {
            return;
        }
        self.work_begins();
        let working = Arc::clone(&self.working);
        std::thread::spawn(move || {
            work();
            working.fetch_sub(1, Ordering::SeqCst);
        });
    }

    fn random(&self) -> u64 {
        4
    }
}
