//! What the tests share: a runtime of virtual time, and a link whose other end is the test.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    reason = "this is test code, and each test file takes its part"
)]

pub mod cluster;
pub mod link;
pub mod runtime;

use std::{sync::Arc, time::Duration};

use graft_client::{Client, ClientConfig, HEADER_BYTES, Request, RequestOptions};
use graft_core::NodeId;

use link::FakeLink;
use runtime::TestRuntime;

pub const A: NodeId = NodeId(1);
pub const B: NodeId = NodeId(2);
pub const C: NodeId = NodeId(3);

pub const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A buffer as callers make it.
pub fn body(text: &str) -> Vec<u8> {
    let mut buffer = vec![0; HEADER_BYTES];
    buffer.extend_from_slice(text.as_bytes());
    buffer
}

/// A client on a link that the test scripts.
pub struct Bench {
    pub runtime: Arc<TestRuntime>,
    pub link: Arc<FakeLink>,
    pub client: Client,
}

impl Bench {
    pub fn new() -> Self {
        Self::with(ClientConfig::default())
    }

    pub fn with(config: ClientConfig) -> Self {
        let runtime = TestRuntime::new(1);
        let link = FakeLink::new(&[A, B, C]);
        let client = Client::new(Arc::clone(&link) as _, Arc::clone(&runtime) as _, config)
            .expect("the configuration is valid");
        runtime.settle();
        Self { runtime, link, client }
    }

    /// With a session that is open, and A known as leader.
    pub fn with_session(config: ClientConfig) -> Self {
        let bench = Self::with(config);
        let first = bench.start("first");
        bench.runtime.settle();
        let open = bench.link.take_one();
        bench.link.open_session(&open, link::SESSION);
        bench.runtime.settle();
        let command = bench.link.take_one();
        bench.link.apply(&command, b"");
        bench.runtime.settle();
        assert_eq!(first.result(), Some(Ok(bytes::Bytes::new())));
        bench
    }

    pub fn runtime_now(&self) -> Duration {
        graft_core::Runtime::now(&*self.runtime)
    }

    pub fn request(&self, text: &str) -> Request<Vec<u8>> {
        self.client.request(body(text), RequestOptions::new(1))
    }

    /// A sessioned request as a task of its own.
    pub fn start(&self, text: &str) -> runtime::Running {
        self.runtime.start(self.request(text))
    }

    /// An idempotent request as a task of its own.
    pub fn start_plain(&self, text: &str) -> runtime::Running {
        let options = RequestOptions::new(1).idempotent();
        self.runtime.start(self.client.request(body(text), options))
    }
}
