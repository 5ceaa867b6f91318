//! A cluster is founded over a network, by production code on the seeded executor: `found` over stores
//! in memory and a hub that loses, repeats and delays, with servers that start again, come late, or
//! lose their disk on the way.

#![allow(clippy::expect_used, reason = "a test stops where what it needs is missing")]

use std::{
    collections::BTreeSet,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use graft_core::{
    Birth, ClientRequest, ClusterId, Command, CommandCheck, EntryKind, Epoch, GroupId, Inbox,
    InboxLimits, LeaderHint, Link, LogStore, Membership, NodeId, RejectReason, Replies, Reply,
    RestoreError, Runtime, SnapshotSource, SnapshotStream, StateMachine, Transport, Undecodable,
    founding::{
        Described, Founded, FoundingError, FoundingParts, FoundingRefusal, Progress, found,
    },
    node::{Detail, Handle, Node, NodeConfig, NodeParts},
    raft::Config,
};
use graft_sim::Executor;
use graft_storage::{MemoryStore, fault::Fate};
use graft_transport::{Fault, Hub};

const NAMES: [&str; 3] = ["server1", "server2", "server3"];
const ROUGH: Fault = Fault {
    loss: 0.3,
    duplicate: 0.2,
    delay_min: Duration::from_micros(50),
    delay_max: Duration::from_millis(400),
};

fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn id(at: usize) -> NodeId {
    NodeId::of_name(NAMES[at])
}

struct World {
    executor: Executor,
    hub: Hub,
    stores: Vec<MemoryStore>,
    now: Mutex<Duration>,
}

/// A founding that goes on by itself, until its power is cut.
struct Attempt {
    power: Power,
    result: Arc<Mutex<Option<Result<Founded, FoundingError>>>>,
    progress: Arc<Mutex<Option<Progress>>>,
}

impl Attempt {
    fn founded(&self) -> Option<Founded> {
        lock(&self.result).as_ref().and_then(|result| result.as_ref().ok().cloned())
    }

    fn is_open(&self) -> bool {
        lock(&self.result).is_none()
    }

    fn refusal(&self) -> FoundingRefusal {
        match &*lock(&self.result) {
            Some(Err(FoundingError::Refused(refusal))) => refusal.clone(),
            other => panic!("a refusal was wanted, not {other:?}"),
        }
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let executor = Executor::new(seed);
        let hub = Hub::new(executor.runtime(), seed);
        let stores = NAMES.map(|_| MemoryStore::new()).into();
        Self { executor, hub, stores, now: Mutex::default() }
    }

    fn pass(&self, time: Duration) {
        let mut now = lock(&self.now);
        *now += time;
        self.executor.run_until(*now);
    }

    /// Lets time pass until `done`, a minute at most.
    fn until(&self, what: &str, done: impl Fn() -> bool) {
        for _ in 0..6000 {
            if done() {
                return;
            }
            self.pass(Duration::from_millis(10));
        }
        panic!("{what}: not within a minute");
    }

    fn parts(&self, at: usize) -> FoundingParts {
        let own = Described {
            birth: Birth::Founder,
            name: NAMES[at].into(),
            node: id(at),
            cluster: ClusterId::of("numbers", &NAMES),
            epoch: Epoch(0),
            group: GroupId(0),
            machine: "numbers".into(),
            format: 0,
            peer_address: format!("{}:4400", NAMES[at]),
            client_address: format!("{}:4401", NAMES[at]),
        };
        FoundingParts {
            own,
            founders: NAMES.iter().map(|name| (NodeId::of_name(name), (*name).into())).collect(),
            store: Arc::new(self.stores[at].clone()),
            transport: Arc::new(self.hub.transport(id(at))),
            runtime: self.executor.runtime(),
            interval: Duration::from_millis(100),
            timeout: None,
            progress: None,
        }
    }

    fn found(&self, at: usize) -> Attempt {
        self.found_with(self.parts(at))
    }

    fn found_with(&self, mut parts: FoundingParts) -> Attempt {
        let (power, result) = (Power::default(), Arc::default());
        let progress: Arc<Mutex<Option<Progress>>> = Arc::default();
        let (sender, mut receiver) = watch();
        parts.progress = Some(sender);
        let told = Arc::clone(&progress);
        let runtime = self.executor.runtime();
        runtime.spawn(Box::pin(async move {
            while receiver.changed().await.is_ok() {
                *lock(&told) = Some(receiver.borrow_and_update().clone());
            }
        }));
        let slot = Arc::clone(&result);
        let task: BoxTask = Box::pin(async move {
            let founded = found(parts).await;
            *lock(&slot) = Some(founded);
        });
        runtime.spawn(Box::pin(WithPower { power: power.clone(), task: Some(task) }));
        Attempt { power, result, progress }
    }

    /// Waits until all of them have founded, and gives the membership, which is the same for all.
    fn all_found(&self, attempts: &[Attempt]) -> Membership {
        self.until("founding", || attempts.iter().all(|attempt| !attempt.is_open()));
        let found: Vec<Membership> = attempts
            .iter()
            .map(|attempt| {
                let result = lock(&attempt.result);
                result
                    .as_ref()
                    .and_then(|result| result.as_ref().ok())
                    .expect("founded")
                    .membership
                    .clone()
            })
            .collect();
        assert!(found.iter().all(|membership| *membership == found[0]), "{found:?}");
        found.into_iter().next().expect("somebody founds")
    }

    /// Runs the node of a server that has founded.
    fn run(&self, at: usize) -> Handle {
        let runtime = self.executor.runtime();
        let cluster = ClusterId::of("numbers", &NAMES);
        let raft = Config { cluster, seed: runtime.random(), ..Config::new(id(at)) };
        let parts = NodeParts {
            config: NodeConfig::new(raft),
            store: Arc::new(self.stores[at].clone()),
            transport: Arc::new(self.hub.transport(id(at))),
            machine: Box::new(Nothing),
            runtime: Arc::clone(&runtime) as Arc<dyn Runtime>,
            observer: None,
        };
        let opened = self.executor.block_on(Node::open(parts)).expect("opening does not hang");
        let (node, handle) = opened.expect("the store is this server's");
        runtime.spawn(Box::pin(async move {
            node.run().await;
        }));
        handle
    }

    fn detail(&self, handle: &Handle) -> Detail {
        let handle = handle.clone();
        let asked = self.executor.block_on(async move { handle.detail().await });
        asked.expect("it does not hang").expect("the node runs")
    }

    /// Empties the disk of a server.
    fn empty(&mut self, at: usize) {
        self.stores[at] = MemoryStore::new();
    }
}

type BoxTask = Pin<Box<dyn Future<Output = ()> + Send>>;

fn watch() -> (tokio::sync::watch::Sender<Progress>, tokio::sync::watch::Receiver<Progress>) {
    tokio::sync::watch::channel(Progress::default())
}

/// The power of a server: once it is cut, its task is dropped wherever it stands.
#[derive(Clone, Default)]
struct Power {
    cut: Arc<AtomicBool>,
    waker: Arc<Mutex<Option<Waker>>>,
}

impl Power {
    fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
        lock(&self.waker).take().into_iter().for_each(Waker::wake);
    }
}

struct WithPower {
    power: Power,
    task: Option<BoxTask>,
}

impl Future for WithPower {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        *lock(&self.power.waker) = Some(context.waker().clone());
        if self.power.cut.load(Ordering::Relaxed) {
            self.task = None;
        }
        self.task.as_mut().map_or(Poll::Ready(()), |task| task.as_mut().poll(context))
    }
}

/// A machine that is never asked for anything.
struct Nothing;

impl StateMachine for Nothing {
    fn check(&self) -> CommandCheck {
        |_, _| Ok(())
    }
    fn apply(&mut self, _: &Command<'_>) -> Result<Bytes, Undecodable> {
        Ok(Bytes::new())
    }
    fn query(&self, _: u16, _: &[u8]) -> Option<Bytes> {
        None
    }
    fn snapshot(&self) -> Option<SnapshotSource> {
        None
    }
    fn restore(&mut self, _: SnapshotStream) -> Result<(), RestoreError> {
        Err(RestoreError::Unsupported)
    }
}

#[test]
fn founders_agree_over_a_rough_network_and_their_nodes_elect_a_leader() {
    for seed in 0..50 {
        let world = World::new(seed);
        world.hub.faults().set_everywhere(ROUGH);
        let attempts: Vec<Attempt> = (0..3).map(|at| world.found(at)).collect();
        // A node answers whoever has not come as far, so each runs as soon as it can.
        let handles: Mutex<Vec<Option<Handle>>> = Mutex::new(vec![None, None, None]);
        world.until("founding", || {
            for (at, attempt) in attempts.iter().enumerate() {
                if attempt.founded().is_some() && lock(&handles)[at].is_none() {
                    let handle = world.run(at);
                    lock(&handles)[at] = Some(handle);
                }
            }
            lock(&handles).iter().all(Option::is_some)
        });
        let membership = world.all_found(&attempts);
        let births: BTreeSet<_> = membership.nodes.values().map(|info| info.incarnation).collect();
        assert_eq!(births.len(), 3, "each has a birth of its own");
        let info = &membership.nodes[&id(1)];
        assert_eq!((&*info.peer_address, &*info.client_address), ("server2:4400", "server2:4401"));
        let handles: Vec<Handle> = lock(&handles).drain(..).flatten().collect();
        world.hub.faults().heal_all();
        let led = |handle: &Handle| handle.status().leader.is_some();
        world.until("an election", || handles.iter().all(led));
    }
}

#[test]
fn whoever_waits_tells_for_whom() {
    let world = World::new(1);
    let attempts = [world.found(0), world.found(1)];
    let told = |attempt: &Attempt| lock(&attempt.progress).as_ref().map(ToString::to_string);
    let waits = Some("waiting to hear of server3".to_owned());
    world.until("hearing of each other", || attempts.iter().all(|one| told(one) == waits));
    world.pass(Duration::from_secs(10));
    assert!(attempts.iter().all(Attempt::is_open));
    let timed = FoundingParts { timeout: Some(Duration::from_secs(3)), ..world.parts(2) };
    world.hub.faults().cut(id(2), id(0));
    let late = world.found_with(timed);
    world.until("the timeout", || !late.is_open());
    let error = lock(&late.result).take().and_then(Result::err).expect("it timed out").to_string();
    assert!(error.starts_with("the cluster was not founded within 3"), "{error}");
    assert!(error.ends_with("waiting to hear of server1"), "{error}");
}

#[test]
fn a_founder_that_starts_again_goes_on_with_its_birth() {
    for seed in 0..20 {
        let world = World::new(seed);
        world.hub.faults().set_everywhere(ROUGH);
        let mut attempts = vec![world.found(0), world.found(1)];
        world.pass(Duration::from_millis(seed * 37));
        let store = world.stores[1].clone();
        let born = world.executor.block_on(async move { store.identity().await });
        let born = born.and_then(Result::ok).flatten();
        attempts[1].power.cut();
        world.pass(Duration::from_millis(1));
        attempts[1] = world.found(1);
        attempts.push(world.found(2));
        let handles: Mutex<BTreeSet<usize>> = Mutex::default();
        world.until("founding", || {
            for (at, attempt) in attempts.iter().enumerate() {
                if attempt.founded().is_some() && lock(&handles).insert(at) {
                    world.run(at);
                }
            }
            lock(&handles).len() == 3
        });
        let membership = world.all_found(&attempts);
        if let Some(born) = born {
            assert_eq!(membership.incarnation(id(1)), born.incarnation);
        }
    }
}

#[test]
fn a_founder_that_comes_late_takes_over_what_the_others_have_committed() {
    let world = World::new(3);
    world.stores[2].faults().hold_writes();
    let attempts: Vec<Attempt> = (0..3).map(|at| world.found(at)).collect();
    world.until("founding", || attempts[..2].iter().all(|attempt| attempt.founded().is_some()));
    world.until("a write", || world.stores[2].faults().held_writes() > 0);
    attempts[2].power.cut();
    world.pass(Duration::from_millis(1));
    world.stores[2].faults().crash(Fate::Lost);
    world.stores[2].faults().release_writes();

    let handles = [world.run(0), world.run(1)];
    let committed = |handle: &Handle| world.detail(handle).raft.commit_index.0 >= 2;
    world.until("a commit", || handles.iter().all(committed));
    let late = world.found(2);
    world.until("adoption", || late.founded().is_some());
    let membership = attempts[0].founded().expect("it has founded").membership;
    let adopted = late.founded().expect("it has founded");
    assert_eq!((adopted.membership, adopted.newly), (membership, true));
    let handle = world.run(2);
    world.until("catching up", || committed(&handle));
}

#[test]
fn a_store_that_has_a_log_is_returned_at_once_and_says_nothing() {
    let world = World::new(4);
    let attempts: Vec<Attempt> = (0..3).map(|at| world.found(at)).collect();
    let membership = world.all_found(&attempts);
    let before = world.hub.unreachable();
    let parts = FoundingParts { founders: Vec::new(), ..world.parts(0) };
    let again = world.found_with(parts);
    world.pass(Duration::from_millis(1));
    let again = again.founded().expect("it needs nobody");
    assert_eq!((again.membership, again.newly), (membership, false));
    assert_eq!(world.hub.unreachable(), before);
}

#[test]
fn a_server_with_an_emptied_disk_is_refused_by_name_and_counted() {
    let mut world = World::new(5);
    let attempts: Vec<Attempt> = (0..3).map(|at| world.found(at)).collect();
    let founded = world.all_found(&attempts);
    let handles = [world.run(0), world.run(1)];
    world.until("an election", || handles.iter().all(|handle| handle.status().leader.is_some()));
    world.empty(2);
    let emptied = world.found(2);
    world.until("a refusal", || !emptied.is_open());
    let refusal = emptied.refusal();
    assert!(matches!(refusal, FoundingRefusal::AlreadyFounded { .. }), "{refusal:?}");
    assert!(refusal.to_string().contains("leave this server stopped"), "{refusal}");
    let counted = handles.iter().map(|handle| world.detail(handle).raft.counters.foreign_births);
    assert!(counted.sum::<u64>() > 0);
    let store = world.stores[2].clone();
    let recovered = world.executor.block_on(async move { store.recover().await });
    let recovered = recovered.and_then(Result::ok).flatten().expect("it was born");
    assert_eq!(recovered.last.index.0, 0, "nothing was written");
    assert_ne!(recovered.identity.incarnation, founded.incarnation(id(2)));
}

#[test]
fn a_disk_that_is_emptied_while_founding_is_named_and_a_new_start_founds() {
    let mut world = World::new(6);
    let first = world.found(0);
    let second = world.found(1);
    let heard = |attempt: &Attempt| {
        lock(&attempt.progress).as_ref().is_some_and(|progress| progress.unheard() == ["server3"])
    };
    world.until("hearing of each other", || heard(&first) && heard(&second));
    second.power.cut();
    world.pass(Duration::from_millis(1));
    world.empty(1);
    let second = world.found(1);
    world.until("refusals", || !first.is_open() && !second.is_open());
    let told = [first.refusal(), second.refusal()];
    assert!(
        matches!(&told[0], FoundingRefusal::AnotherBirth { server, .. } if server == "server2"),
        "{told:?}"
    );
    assert!(
        matches!(&told[1], FoundingRefusal::KnownOtherwise { by, .. } if by == "server1"),
        "{told:?}"
    );
    let attempts: Vec<Attempt> = (0..3).map(|at| world.found(at)).collect();
    world.all_found(&attempts);
}

#[test]
fn founders_with_different_lists_are_told_on_both_sides() {
    let world = World::new(7);
    let mut parts = world.parts(1);
    parts.founders.push((NodeId::of_name("server4"), "server4".into()));
    let attempts = [world.found(0), world.found_with(parts)];
    world.until("refusals", || attempts.iter().all(|attempt| !attempt.is_open()));
    let [one, two] = [&attempts[0], &attempts[1]].map(|attempt| attempt.refusal().to_string());
    assert!(one.contains("only server2 names server4"), "{one}");
    assert!(two.contains("server1 lacks server4"), "{two}");
}

#[test]
fn the_store_of_somebody_else_is_refused_as_it_is() {
    let mut world = World::new(8);
    let attempts: Vec<Attempt> = (0..3).map(|at| world.found(at)).collect();
    world.all_found(&attempts);
    world.stores.swap(0, 1);
    let wrong = world.found(0);
    world.until("a refusal", || !wrong.is_open());
    let error =
        lock(&wrong.result).take().and_then(Result::err).expect("it is refused").to_string();
    assert!(
        error.contains("the store belongs to server server2, this server is server1"),
        "{error}"
    );
}

#[derive(Default)]
struct Heard(Mutex<Vec<Reply>>);

impl Replies for Heard {
    fn on_reply(&self, _: NodeId, _: u64, reply: Reply) {
        lock(&self.0).push(reply);
    }
    fn on_server_gone(&self, _: NodeId) {}
}

#[test]
fn a_request_that_comes_while_founding_is_answered() {
    let world = World::new(9);
    let attempt = world.found(0);
    world.pass(Duration::from_millis(10));
    let heard = Arc::new(Heard::default());
    let link = world.hub.link();
    link.attach(Arc::clone(&heard) as Arc<dyn Replies>);
    let (deadline, kind) = (Duration::from_secs(9), EntryKind::Plain);
    let request = ClientRequest { request_id: 1, deadline, kind, payload: Bytes::new() };
    link.send(id(0), request).expect("it is reachable");
    world.pass(Duration::from_millis(10));
    let nobody = Reply::Rejected(RejectReason::NotLeader(LeaderHint::default()));
    assert_eq!(*lock(&heard.0), [nobody]);
    assert!(attempt.is_open());
}

#[test]
fn the_transport_is_free_for_the_node_afterwards() {
    let world = World::new(10);
    let attempts: Vec<Attempt> = (0..3).map(|at| world.found(at)).collect();
    world.all_found(&attempts);
    assert!(world.hub.link().servers().is_empty(), "the founding has closed its own");
    let transport = world.hub.transport(id(0));
    let (inbox, _receiver) = Inbox::new(InboxLimits::default());
    transport.attach(inbox);
    assert_eq!(world.hub.link().servers(), [id(0)]);
}
