//! A cluster of production code is a function of its seed: real `Node`s, stores, hub and client on the
//! seeded executor, with loss, delays, a slow disk, a crash and a restart. The same seed gives the
//! same run to the hash of its trace, another seed another run, and no run loses a request.

#![allow(clippy::expect_used, reason = "a test stops where what it needs is missing")]

use std::{
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
use graft_client::{Client, ClientConfig, RequestOptions};
use graft_core::{
    Birth, ClusterId, Command, CommandCheck, Epoch, Identity, Incarnation, LogStore, Membership,
    NodeId, NodeInfo, RestoreError, Runtime, SnapshotSource, SnapshotStream, StateMachine,
    Undecodable,
    node::{Handle, Node, NodeConfig, NodeParts, Observer},
    raft::{Config, Raft},
    session::COMMAND_HEADER,
};
use graft_sim::{Executor, SimRuntime, Trace};
use graft_storage::{MemoryStore, fault::Fate};
use graft_transport::{Fault, Hub};

const NAMES: [&str; 3] = ["server1", "server2", "server3"];
const CLIENT_TASKS: u64 = 4;
const REQUESTS: u64 = 25;

/// A machine that remembers every number it was given, and answers how many there were.
#[derive(Default)]
struct Numbers(Vec<u64>);

impl StateMachine for Numbers {
    fn check(&self) -> CommandCheck {
        |_, _| Ok(())
    }
    fn apply(&mut self, command: &Command<'_>) -> Result<Bytes, Undecodable> {
        let number = command.body.try_into().map_or(u64::MAX, u64::from_le_bytes);
        self.0.push(number);
        let copies = self.0.iter().filter(|known| **known == number).count();
        Ok(Bytes::copy_from_slice(&(copies as u64).to_le_bytes()))
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

/// Notes the state after every turn, and checks what must always hold.
struct Watch {
    trace: Trace,
    runtime: Arc<SimRuntime>,
}

impl Observer for Watch {
    fn turn(&mut self, raft: &Raft) {
        raft.check_invariants();
        let status = raft.status();
        self.trace.note(
            self.runtime.now(),
            format_args!(
                "{} {:?} t{} {} c{} a{} d{} {:?}",
                status.node,
                status.role,
                status.term,
                status.last,
                status.commit_index,
                status.last_applied,
                status.durable,
                status.peers,
            ),
        );
    }
}

struct World {
    executor: Executor,
    hub: Hub,
    trace: Trace,
    stores: Vec<MemoryStore>,
}

impl World {
    fn new(seed: u64) -> Self {
        let executor = Executor::new(seed);
        let hub = Hub::new(executor.runtime(), seed);
        let stores = NAMES.map(|_| MemoryStore::new()).into();
        Self { executor, hub, trace: Trace::new(), stores }
    }

    fn membership() -> Membership {
        Membership::of_voters((1..).zip(NAMES).map(|(incarnation, name)| {
            let incarnation = Incarnation(incarnation);
            let info = NodeInfo { name: name.into(), incarnation, ..NodeInfo::default() };
            (NodeId::of_name(name), info)
        }))
    }

    fn found(&self) {
        for (incarnation, (name, store)) in (1..).zip(NAMES.iter().zip(&self.stores)) {
            let store = store.clone();
            let identity = Identity {
                cluster: ClusterId::of("numbers", &NAMES),
                epoch: Epoch(0),
                node: NodeId::of_name(name),
                name: (*name).into(),
                incarnation: Incarnation(incarnation),
                birth: Birth::Founder,
                machine: "numbers".into(),
                format: 0,
            };
            let born = self.executor.block_on(async move {
                store.create(&identity).await?;
                store.recover().await?;
                store.write(Self::membership().founding_writes()).await.map(drop)
            });
            assert!(matches!(born, Some(Ok(()))), "{born:?}");
        }
    }

    /// Starts server `at`; dropping the switch that is given back cuts its power.
    fn start(&self, at: usize) -> (Handle, Power) {
        let runtime = self.executor.runtime();
        let node = NodeId::of_name(NAMES[at]);
        let cluster = ClusterId::of("numbers", &NAMES);
        let raft = Config { cluster, seed: runtime.random(), ..Config::new(node) };
        let parts = NodeParts {
            config: NodeConfig::new(raft),
            store: Arc::new(self.stores[at].clone()),
            transport: Arc::new(self.hub.transport(node)),
            machine: Box::new(Numbers::default()),
            runtime: Arc::clone(&runtime) as Arc<dyn Runtime>,
            observer: Some(Box::new(Watch {
                trace: self.trace.clone(),
                runtime: Arc::clone(&runtime),
            })),
        };
        let opened = self.executor.block_on(Node::open(parts)).expect("opening does not hang");
        let (server, handle) = opened.expect("the store is this server's");
        let power = Power::default();
        let run = WithPower {
            power: power.clone(),
            task: Some(Box::pin(async move {
                server.run().await;
            })),
        };
        runtime.spawn(Box::pin(run));
        (handle, power)
    }
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
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
        waker.into_iter().for_each(Waker::wake);
    }
}

struct WithPower {
    power: Power,
    task: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Future for WithPower {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        *self.power.waker.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(context.waker().clone());
        if self.power.cut.load(Ordering::Relaxed) {
            self.task = None;
        }
        self.task.as_mut().map_or(Poll::Ready(()), |task| task.as_mut().poll(context))
    }
}

/// One request: its number goes into the log, and the answer must be "once".
async fn count_one(client: Client, number: u64) -> Result<u64, graft_client::RequestError> {
    let mut body = vec![0; COMMAND_HEADER + 8];
    body[COMMAND_HEADER..].copy_from_slice(&number.to_le_bytes());
    let reply = client.request(body, RequestOptions::default()).await?;
    Ok(reply[..].try_into().map_or(u64::MAX, u64::from_le_bytes))
}

/// The whole story of one seed. Gives the trace's hash and the number of its events.
fn run(seed: u64) -> (u64, u64) {
    let world = World::new(seed);
    world.found();
    let mut servers: Vec<_> = (0..NAMES.len()).map(|at| world.start(at)).collect();
    let runtime = world.executor.runtime();
    let fault = Fault {
        loss: 0.05,
        duplicate: 0.05,
        delay_min: Duration::from_micros(50),
        delay_max: Duration::from_millis(20),
    };
    world.hub.faults().set_everywhere(fault);

    let config = ClientConfig { deadline: Duration::from_secs(60), ..ClientConfig::default() };
    let link = Arc::new(world.hub.link());
    let client = Client::new(link, Arc::clone(&runtime) as Arc<dyn Runtime>, config)
        .expect("the configuration is in range");
    let answered = Arc::new(Mutex::new(0));
    for task in 0..CLIENT_TASKS {
        let (client, answered) = (client.clone(), Arc::clone(&answered));
        runtime.spawn(Box::pin(async move {
            for request in 0..REQUESTS {
                let number = task * REQUESTS + request;
                let copies = count_one(client.clone(), number).await;
                assert!(matches!(copies, Ok(1)), "request {number} ended as {copies:?}");
                *answered.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            }
        }));
    }

    // Once requests are answered the leader's disk slows down, and then its power fails in the middle of
    // it all.
    let progress = || *answered.lock().unwrap_or_else(PoisonError::into_inner);
    let leads = |(handle, _): &(Handle, Power)| {
        let status = handle.status();
        status.leader == Some(status.node)
    };
    let mut now = Duration::ZERO;
    let mut pass = |time| {
        now += time;
        assert!(now < Duration::from_secs(120), "nothing goes on");
        world.executor.run_until(now);
    };
    let victim = loop {
        pass(Duration::from_millis(10));
        match servers.iter().position(leads) {
            Some(leader) if progress() >= CLIENT_TASKS => break leader,
            _ => {}
        }
    };
    world.stores[victim].faults().hold_writes();
    pass(Duration::from_millis(100));
    let open = CLIENT_TASKS * REQUESTS - progress();
    assert!(open > CLIENT_TASKS, "the power is to fail in the middle, {open} requests are left");
    servers[victim].1.cut();
    pass(Duration::from_millis(1));
    world.stores[victim].faults().crash(Fate::Lost);
    world.stores[victim].faults().release_writes();
    pass(Duration::from_secs(2));
    servers[victim] = world.start(victim);

    pass(Duration::from_secs(60));
    assert_eq!(progress(), CLIENT_TASKS * REQUESTS, "every request is answered");
    let counts = world.hub.faults().counts();
    assert!(counts.lost > 0 && counts.duplicated > 0 && counts.delayed > 0, "{counts:?}");
    world.trace.finish()
}

#[test]
fn the_same_seed_is_the_same_run_and_another_seed_another() {
    let (hash, events) = run(1);
    assert!(events > 1_000, "only {events} events");
    assert_eq!(run(1), (hash, events), "a run is not a function of its seed");
    assert_ne!(run(2).0, hash, "the seed makes no difference");
}

#[test]
fn no_request_is_lost_or_applied_twice_whatever_the_seed() {
    for seed in 10..30 {
        run(seed);
    }
}
