//! A client that behaves badly: it sends as fast as it can, waits for no answer, and heeds no refusal.
//!
//! It is a process of its own, like a server: see [`child`](crate::child). It says `ready`, and at the word `stop` how
//! many requests it sent and what they came to: `flooded TEXT`.

use std::{
    env,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use graft::rkyv::{self, rancor};
use graft_core::{
    ClientRequest, EntryKind, Link, NodeId, Replies, Reply, Runtime, TokioRuntime,
    session::{PLAIN_HEADER, write_plain_header},
};
use graft_transport::quic::{LinkConfig, QuicLink};

use crate::{PATIENCE, child, machine::Ask};

/// The variable that says what to do.
pub(crate) const FLOOD: &str = "GRAFT_TEST_FLOOD";

/// What a flooder is told.
#[derive(Clone, Debug)]
pub(crate) struct Flood {
    pub(crate) certs: PathBuf,
    /// The servers, all of which it floods.
    pub(crate) addresses: Vec<String>,
    /// How many connections it has with each.
    pub(crate) links: usize,
    /// How many bytes each entry has, about.
    pub(crate) bytes: usize,
}

impl Flood {
    pub(crate) fn encode(&self) -> String {
        let Self { certs, addresses, links, bytes } = self;
        format!("{links} {bytes} {} {}", addresses.join(","), certs.to_str().unwrap())
    }

    fn decode(text: &str) -> Option<Self> {
        let mut words = text.splitn(4, ' ');
        let (links, bytes) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let addresses = words.next()?.split(',').map(str::to_owned).collect();
        Some(Self { links, bytes, addresses, certs: words.next()?.into() })
    }
}

/// Floods the servers that the environment names, and ends the process; returns where there are none.
pub(crate) fn run_if_asked() {
    let Ok(flood) = env::var(FLOOD) else { return };
    let flood = Flood::decode(&flood).expect("the flood is encoded by the parent");
    child::run(1, async move |mut orders| {
        let counts = Arc::<Counts>::default();
        let payload = payload(flood.bytes);
        for _ in 0..flood.links {
            pour(&flood, payload.clone(), &counts).await;
        }
        child::say("ready");
        orders.recv().await;
        counts.stop.store(true, Ordering::SeqCst);
        let Counts { sent, unsent, done, refused, .. } = &*counts;
        let read = |count: &AtomicU64| count.load(Ordering::SeqCst);
        child::say(&format!(
            "flooded sent={} unsent={} done={} refused={}",
            read(sent),
            read(unsent),
            read(done),
            read(refused)
        ));
    });
}

/// What became of the requests.
#[derive(Debug, Default)]
struct Counts {
    stop: AtomicBool,
    sent: AtomicU64,
    /// For which there was no room on the way.
    unsent: AtomicU64,
    done: AtomicU64,
    refused: AtomicU64,
}

impl Replies for Counts {
    fn on_reply(&self, _: NodeId, _: u64, reply: Reply) {
        let count = if matches!(reply, Reply::Applied(_)) { &self.done } else { &self.refused };
        count.fetch_add(1, Ordering::Relaxed);
    }

    fn on_server_gone(&self, _: NodeId) {}
}

/// An entry as it travels without a session.
fn payload(bytes: usize) -> Bytes {
    let ask = Ask::Nothing { padding: "x".repeat(bytes) };
    let archive = rkyv::to_bytes::<rancor::Error>(&ask).unwrap();
    let mut payload = vec![0; PLAIN_HEADER];
    write_plain_header(&mut payload, 0);
    payload.extend_from_slice(&archive);
    payload.into()
}

/// Connects, and begins to send.
async fn pour(flood: &Flood, payload: Bytes, counts: &Arc<Counts>) {
    let runtime: Arc<dyn Runtime> = Arc::new(TokioRuntime::current().unwrap());
    let tls = child::tls(&flood.certs, "client").unwrap();
    let link = QuicLink::connect(
        flood.addresses.clone(),
        tls,
        LinkConfig::default(),
        Arc::clone(&runtime),
    );
    let link = link.unwrap();
    link.attach(Arc::clone(counts) as Arc<dyn Replies>);
    link.ready(PATIENCE).await.unwrap();
    let counts = Arc::clone(counts);
    tokio::spawn(async move {
        let mut all_full = false;
        for request_id in 0.. {
            if counts.stop.load(Ordering::SeqCst) {
                return;
            }
            let deadline = runtime.now() + Duration::from_secs(30);
            if all_full {
                // All that fits is on its way: on a machine of its own it would wait here, too.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            all_full = true;
            let servers = link.servers();
            for server in servers {
                let (kind, payload) = (EntryKind::Plain, payload.clone());
                let sent = link.send(server, ClientRequest { request_id, deadline, kind, payload });
                all_full &= sent.is_err();
                let count = if sent.is_ok() { &counts.sent } else { &counts.unsent };
                count.fetch_add(1, Ordering::Relaxed);
            }
            if request_id % 16 == 0 {
                tokio::task::yield_now().await;
            }
        }
    });
}
