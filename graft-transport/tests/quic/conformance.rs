//! The transport and the link keep every promise of the suite.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use graft_core::{Link, NodeId, Runtime, Transport};
use graft_transport::{
    conformance::{self, Fixture, Limits},
    quic::{FrameLimits, LinkConfig, Network, QuicLink},
};

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

#[tokio::test]
async fn it_keeps_every_promise() {
    let failures = conformance::run(Loopback::new).await;
    assert!(failures.is_empty(), "{failures:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_keeps_every_promise_on_several_threads() {
    let failures = conformance::run(Loopback::new).await;
    assert!(failures.is_empty(), "{failures:#?}");
}
