//! The transport and the link keep every promise of the suite.

use std::{
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use async_trait::async_trait;
use graft_core::{Link, NodeId, Runtime, Transport};
use graft_transport::{
    conformance::{self, Failure, Fixture, Limits},
    quic::{FrameLimits, LinkConfig, Network, QuicLink},
};
use tokio::runtime::Builder;

use crate::common::{bind_with, client_tls, config, introduce, runtime};

struct Loopback {
    networks: Vec<Network>,
    runtime: Arc<dyn Runtime>,
}

/// The suite sends more in a message than servers do by default.
fn frames() -> FrameLimits {
    FrameLimits::new(1 << 20, 8 << 20, 4 << 20)
}

impl Loopback {
    fn new() -> Self {
        let names = ["a", "b", "c"];
        let bind = |name: &&str| {
            let mut config = config(name);
            config.frames = frames();
            // The suite's servers answer only what a check is about.
            config.bounds.client_request_bytes = 64 << 20;
            config.bounds.request_bytes = 256 << 20;
            config.bounds.contended_request_bytes = 256 << 20;
            config.bounds.yielding_request_bytes = 256 << 20;
            bind_with(config)
        };
        let networks: Vec<_> = names.iter().map(bind).collect();
        let named: Vec<_> = names.into_iter().zip(&networks).collect();
        introduce(&named);
        Self { networks, runtime: runtime() }
    }
}

#[async_trait]
impl Fixture for Loopback {
    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::clone(&self.runtime)
    }

    fn nodes(&self) -> Vec<NodeId> {
        self.networks.iter().map(Network::node).collect()
    }

    async fn transport(&self, node: NodeId) -> Arc<dyn Transport> {
        let network = self.networks.iter().find(|network| network.node() == node);
        Arc::new(network.expect("it is one of the nodes").transport())
    }

    async fn link(&self) -> Arc<dyn Link> {
        let addresses = self.networks.iter().map(|network| network.local_addr().to_string());
        let config = LinkConfig { frames: frames(), ..LinkConfig::default() };
        let runtime = Arc::clone(&self.runtime);
        Arc::new(QuicLink::connect(addresses, client_tls("shop"), config, runtime).unwrap())
    }

    /// Unoptimized cryptography on a machine that does other things too.
    fn limits(&self) -> Limits {
        Limits { quiet: Duration::from_millis(500), ..Limits::default() }
    }
}

/// Runs each check on a thread and a runtime of its own, a few at a time: a check spends nearly all of its time on
/// waiting until it is certainly quiet.
fn failures(runtime: fn() -> Builder) -> Vec<Failure> {
    const AT_ONCE: usize = 6;
    let mut waiting = conformance::checks();
    // Those that take longest stand in the second half.
    let half = waiting.len() / 2;
    waiting.rotate_left(half);
    waiting.reverse();
    let (waiting, failures) = (Mutex::new(waiting), Mutex::new(Vec::new()));
    let take = || waiting.lock().unwrap().pop();
    let work = || {
        while let Some(check) = take() {
            let runtime = runtime().enable_all().build().unwrap();
            let outcome = runtime.block_on(async { check.run(&Loopback::new()).await });
            failures.lock().unwrap().extend(outcome.err());
        }
    };
    thread::scope(|scope| (0..AT_ONCE).for_each(|_| drop(scope.spawn(work))));
    failures.into_inner().unwrap()
}

#[test]
fn it_keeps_every_promise() {
    let failures = failures(Builder::new_current_thread);
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn it_keeps_every_promise_on_several_threads() {
    let failures = failures(|| {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(2);
        builder
    });
    assert!(failures.is_empty(), "{failures:#?}");
}
