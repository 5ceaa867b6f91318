//! The hub passes the suite, and the suite is worth passing: each transport here that breaks one
//! promise is caught by the check that is named after it.

// Helpers of tests panic like tests.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod line;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use graft_core::{
    AppendEntries, ClientRequest, Envelope, Inbox, InboxLimits, Index, Link, LinkError, LinkId,
    Message, NodeId, Replies, ReplyEnvelope, Runtime, TokioRuntime, Transport,
};
use graft_transport::{
    Hub, HubLink, HubTransport,
    conformance::{self, Failure, Fixture, Limits},
};

use line::{Line, relay_in_order};

fn nodes() -> Vec<NodeId> {
    vec![NodeId(1), NodeId(2), NodeId(3)]
}

fn runtime() -> Arc<dyn Runtime> {
    Arc::new(TokioRuntime::current().expect("the test runs on tokio"))
}

struct InMemory {
    hub: Hub,
    runtime: Arc<dyn Runtime>,
}

impl InMemory {
    fn new() -> Self {
        let runtime = runtime();
        Self { hub: Hub::new(Arc::clone(&runtime), 7), runtime }
    }
}

#[async_trait]
impl Fixture for InMemory {
    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::clone(&self.runtime)
    }

    fn nodes(&self) -> Vec<NodeId> {
        nodes()
    }

    async fn transport(&self, node: NodeId) -> Arc<dyn Transport> {
        Arc::new(self.hub.transport(node))
    }

    async fn link(&self) -> Arc<dyn Link> {
        Arc::new(self.hub.link())
    }

    /// The hub itself holds nothing, and delivers before `send` returns.
    fn limits(&self) -> Limits {
        let quiet = Duration::from_millis(5);
        Limits { in_flight_bytes: 0, quiet, ..Limits::default() }
    }
}

#[tokio::test(start_paused = true)]
async fn the_hub_keeps_every_promise() {
    let failures = conformance::run(InMemory::new).await;
    assert!(failures.is_empty(), "{failures:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hub_keeps_every_promise_on_several_threads() {
    let failures = conformance::run(InMemory::new).await;
    assert!(failures.is_empty(), "{failures:#?}");
}

/// Faults that are switched on and off again leave no trace.
#[tokio::test(start_paused = true)]
async fn the_hub_keeps_every_promise_after_its_faults_are_healed() {
    let failures = conformance::run(|| {
        let fixture = InMemory::new();
        let faults = fixture.hub.faults();
        faults.isolate(NodeId(1));
        faults.set_everywhere(graft_transport::Fault::lossy(1.0));
        faults.cut(NodeId(2), NodeId(3));
        faults.heal_all();
        fixture
    });
    let failures = failures.await;
    assert!(failures.is_empty(), "{failures:#?}");
}

/// With a fault set everywhere that does nothing visible, all goes the other way through the hub.
#[tokio::test(start_paused = true)]
async fn the_hub_keeps_every_promise_while_messages_are_slow() {
    let failures = conformance::run(|| {
        let fixture = InMemory::new();
        let (min, max) = (Duration::from_millis(1), Duration::from_millis(30));
        fixture.hub.faults().set_everywhere(graft_transport::Fault::slow(min, max));
        Slow(fixture)
    });
    let failures = failures.await;
    assert!(failures.is_empty(), "{failures:#?}");
}

struct Slow(InMemory);

#[async_trait]
impl Fixture for Slow {
    fn runtime(&self) -> Arc<dyn Runtime> {
        self.0.runtime()
    }

    fn nodes(&self) -> Vec<NodeId> {
        nodes()
    }

    async fn transport(&self, node: NodeId) -> Arc<dyn Transport> {
        self.0.transport(node).await
    }

    async fn link(&self) -> Arc<dyn Link> {
        self.0.link().await
    }

    /// What is late waits in the hub, up to 64 MiB of each class.
    fn limits(&self) -> Limits {
        Limits { in_flight_bytes: 64 << 20, ..Limits::default() }
    }
}

#[test]
fn every_check_has_a_name_of_its_own() {
    let mut names: Vec<_> = conformance::checks().iter().map(conformance::Check::name).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
}

/// A way to break a promise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bug {
    LosesHeartbeatChecksums,
    LosesLargeMessages,
    TruncatesEntries,
    HearsNobodyButTheFirst,
    SendsTwice,
    SendsToEveryone,
    PanicsForStrangers,
    SharesOneQueue,
    SharesOneNarrowLine,
    HoldsWhatIsNotTaken,
    HoldsForTheGone,
    WaitsForTheReceiver,
    DeliversAfterClose,
    SendsAfterClose,
    UnplugsItsSuccessor,
    IsGoneForEver,
    ShortensRequests,
    SendsRequestsTwice,
    LosesRejections,
    RepliesToAnother,
    LosesRepliesSentTogether,
    SwallowsRefusals,
    HidesThatServersAreGone,
}

/// A hub's transport with a bug.
struct Broken {
    inner: Option<HubTransport>,
    hub: Hub,
    bug: Bug,
    node: NodeId,
    runtime: Arc<dyn Runtime>,
    held: Mutex<Vec<Envelope>>,
    ended: Arc<AtomicBool>,
}

impl Broken {
    fn inner(&self) -> &HubTransport {
        self.inner.as_ref().expect("it is there until it is dropped")
    }
}

fn is_large(message: &Message) -> bool {
    message.size() > 4 << 20
}

#[async_trait]
impl Transport for Broken {
    fn attach(&self, inbox: Inbox) {
        match self.bug {
            Bug::SharesOneQueue | Bug::SharesOneNarrowLine => {
                let (relay, receiver) = Inbox::new(InboxLimits::default());
                let (runtime, ended) = (Arc::clone(&self.runtime), Arc::clone(&self.ended));
                let line = match self.bug {
                    Bug::SharesOneNarrowLine => Line::Narrow,
                    _ => Line::WaitsForRoom,
                };
                let relayed = relay_in_order(runtime, receiver, inbox, ended, line);
                self.runtime.spawn(Box::pin(relayed));
                self.inner().attach(relay);
            }
            _ => self.inner().attach(inbox),
        }
    }

    fn send(&self, envelope: Envelope) {
        let inner = self.inner();
        match (self.bug, envelope) {
            (Bug::LosesHeartbeatChecksums, Envelope::Peer(mut envelope)) => {
                if let Message::Heartbeat(heartbeat) = &mut envelope.message {
                    heartbeat.checksum = None;
                }
                inner.send(Envelope::Peer(envelope));
            }
            (Bug::LosesLargeMessages, Envelope::Peer(envelope)) if is_large(&envelope.message) => {}
            (Bug::TruncatesEntries, Envelope::Peer(mut envelope)) => {
                if let Message::AppendEntries(append) = envelope.message {
                    let cut = append.entries.first_index().unwrap_or_default().0 + 2000;
                    let mut entries = append.entries;
                    entries.truncate_from(Index(cut));
                    envelope.message = Message::AppendEntries(AppendEntries { entries, ..append });
                }
                inner.send(Envelope::Peer(envelope));
            }
            (Bug::HearsNobodyButTheFirst, Envelope::Peer(envelope))
                if self.node == NodeId(3) && envelope.message.class() as usize == 2 => {}
            (Bug::SendsTwice, Envelope::Peer(envelope)) => {
                inner.send(Envelope::Peer(envelope.clone()));
                inner.send(Envelope::Peer(envelope));
            }
            (Bug::SendsToEveryone, Envelope::Peer(envelope)) => {
                // The hub goes by `to`; the receiver is told the truth, as a broken router would.
                for station in nodes() {
                    let mut copy = envelope.clone();
                    copy.to = station;
                    inner.send(Envelope::Peer(copy));
                }
            }
            (Bug::PanicsForStrangers, Envelope::Peer(envelope))
                if !nodes().contains(&envelope.to) =>
            {
                // What a panic would do to the sender: it is gone.
                self.hub.faults().isolate(self.node);
            }
            (Bug::HoldsWhatIsNotTaken, envelope) => {
                self.held.lock().unwrap().push(envelope.clone());
                inner.send(envelope);
            }
            (Bug::HoldsForTheGone, Envelope::Peer(envelope)) => {
                if self.hub.link().servers().contains(&envelope.to) {
                    inner.send(Envelope::Peer(envelope));
                } else {
                    self.held.lock().unwrap().push(Envelope::Peer(envelope));
                }
            }
            (Bug::WaitsForTheReceiver, Envelope::Peer(envelope))
                if envelope.message.size() > 200_000 =>
            {
                let before = self.hub.refused(envelope.message.class());
                inner.send(Envelope::Peer(envelope.clone()));
                // Where there is no room it waits, until the test is over.
                while self.hub.refused(envelope.message.class()) > before
                    && !self.ended.load(Ordering::Relaxed)
                {
                    std::thread::yield_now();
                }
            }
            (Bug::RepliesToAnother, Envelope::Reply(reply)) => {
                let link = LinkId(reply.link.0 % 3 + 1);
                inner.send(Envelope::Reply(ReplyEnvelope { link, ..reply }));
            }
            (Bug::LosesRejections, Envelope::Reply(reply))
                if matches!(reply.reply, graft_core::Reply::Rejected(_)) => {}
            (_, envelope) => inner.send(envelope),
        }
    }

    fn send_replies(&self, replies: &mut Vec<ReplyEnvelope>) {
        if self.bug == Bug::LosesRepliesSentTogether {
            replies.dedup_by_key(|reply| reply.link);
        }
        for reply in replies.drain(..) {
            self.send(Envelope::Reply(reply));
        }
    }

    async fn close(&self) {
        match self.bug {
            Bug::DeliversAfterClose | Bug::SendsAfterClose => {}
            _ => self.inner().close().await,
        }
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if self.bug == Bug::UnplugsItsSuccessor {
            drop(self.hub.transport(self.node));
        }
        self.inner = None;
    }
}

/// A hub's link with a bug.
struct BrokenLink {
    inner: HubLink,
    bug: Bug,
}

impl Link for BrokenLink {
    fn attach(&self, replies: Arc<dyn Replies>) {
        match self.bug {
            Bug::HidesThatServersAreGone => self.inner.attach(Arc::new(Deaf(replies))),
            _ => self.inner.attach(replies),
        }
    }

    fn send(&self, to: NodeId, mut request: ClientRequest) -> Result<(), LinkError> {
        match self.bug {
            Bug::ShortensRequests => {
                request.payload.truncate(4000);
                self.inner.send(to, request)
            }
            Bug::SendsRequestsTwice => {
                let _first = self.inner.send(to, request.clone());
                self.inner.send(to, request)
            }
            Bug::SwallowsRefusals => self.inner.send(to, request).or(Ok(())),
            _ => self.inner.send(to, request),
        }
    }

    fn servers(&self) -> Vec<NodeId> {
        self.inner.servers()
    }
}

struct Deaf(Arc<dyn Replies>);

impl Replies for Deaf {
    fn on_reply(&self, from: NodeId, request_id: u64, reply: graft_core::Reply) {
        self.0.on_reply(from, request_id, reply);
    }

    fn on_server_gone(&self, _server: NodeId) {}
}

struct BrokenFixture {
    inner: InMemory,
    bug: Bug,
    ended: Arc<AtomicBool>,
    /// How many transports were asked for.
    made: Mutex<usize>,
}

#[async_trait]
impl Fixture for BrokenFixture {
    fn runtime(&self) -> Arc<dyn Runtime> {
        self.inner.runtime()
    }

    fn nodes(&self) -> Vec<NodeId> {
        nodes()
    }

    async fn transport(&self, node: NodeId) -> Arc<dyn Transport> {
        let made = {
            let mut made = self.made.lock().unwrap();
            *made += 1;
            *made
        };
        let hub = if self.bug == Bug::IsGoneForEver && made > nodes().len() {
            Hub::new(self.runtime(), 0)
        } else {
            self.inner.hub.clone()
        };
        Arc::new(Broken {
            inner: Some(hub.transport(node)),
            hub,
            bug: self.bug,
            node,
            runtime: self.runtime(),
            held: Mutex::default(),
            ended: Arc::clone(&self.ended),
        })
    }

    async fn link(&self) -> Arc<dyn Link> {
        Arc::new(BrokenLink { inner: self.inner.hub.link(), bug: self.bug })
    }

    fn limits(&self) -> Limits {
        Limits { patience: Duration::from_secs(2), ..self.inner.limits() }
    }
}

/// Every bug with the check that must find it. Others may find it too.
const BUGS: &[(Bug, &str)] = &[
    (Bug::LosesHeartbeatChecksums, "every_kind_of_message_arrives_whole"),
    (Bug::LosesLargeMessages, "large_messages_arrive_whole_or_not_at_all"),
    (Bug::TruncatesEntries, "large_messages_arrive_whole_or_not_at_all"),
    (Bug::HearsNobodyButTheFirst, "everyone_reaches_everyone"),
    (Bug::SendsTwice, "nothing_arrives_twice_or_at_another_server"),
    (Bug::SendsToEveryone, "nothing_arrives_twice_or_at_another_server"),
    (Bug::PanicsForStrangers, "sending_to_nobody_is_harmless"),
    (Bug::SharesOneQueue, "a_flood_of_one_class_holds_up_no_other"),
    (Bug::SharesOneNarrowLine, "a_flood_of_one_class_holds_up_no_other"),
    (Bug::HoldsWhatIsNotTaken, "what_is_on_its_way_to_a_peer_that_takes_nothing_is_bounded"),
    (Bug::HoldsForTheGone, "what_is_on_its_way_to_a_peer_that_is_gone_is_bounded"),
    (Bug::WaitsForTheReceiver, "what_is_on_its_way_to_a_peer_that_takes_nothing_is_bounded"),
    (Bug::DeliversAfterClose, "close_ends_what_is_offered"),
    (Bug::SendsAfterClose, "close_ends_what_is_sent"),
    (Bug::UnplugsItsSuccessor, "the_end_of_an_earlier_transport_does_not_harm_its_successor"),
    (Bug::IsGoneForEver, "a_server_that_is_restarted_is_reached_again"),
    (Bug::ShortensRequests, "requests_arrive_whole"),
    (Bug::SendsRequestsTwice, "a_request_arrives_once"),
    (Bug::LosesRejections, "every_kind_of_reply_reaches_its_link"),
    (Bug::RepliesToAnother, "replies_reach_the_link_they_are_for_and_no_other"),
    (Bug::LosesRepliesSentTogether, "replies_that_are_sent_together_all_arrive"),
    (Bug::SwallowsRefusals, "a_request_that_is_refused_is_known_to_be"),
    (Bug::HidesThatServersAreGone, "a_link_hears_that_a_server_is_gone"),
];

/// The check called `name`, run on a network with `bug`.
async fn verdict(bug: Bug, name: &str) -> Result<(), Failure> {
    let checks = conformance::checks();
    let check = checks.iter().find(|check| check.name() == name);
    let ended = Arc::new(AtomicBool::new(false));
    let fixture = BrokenFixture {
        inner: InMemory::new(),
        bug,
        ended: Arc::clone(&ended),
        made: Mutex::new(0),
    };
    let verdict = check.expect("the check is called something else").run(&fixture).await;
    ended.store(true, Ordering::Relaxed);
    verdict
}

/// Real time, because a thread that blocks keeps virtual time from passing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transport_that_waits_for_its_receiver_is_caught() {
    let (bug, name) = BUGS.iter().find(|(bug, _)| *bug == Bug::WaitsForTheReceiver).unwrap();
    let failure = verdict(*bug, name).await.unwrap_err();
    assert!(failure.reason.contains("waits for nobody"), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn every_broken_transport_is_caught_by_the_check_of_its_promise() {
    let mut missed = Vec::new();
    for (bug, name) in BUGS.iter().filter(|(bug, _)| *bug != Bug::WaitsForTheReceiver) {
        match verdict(*bug, name).await {
            Ok(()) => missed.push((bug, name)),
            Err(failure) => println!("{bug:?}: {failure}"),
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
