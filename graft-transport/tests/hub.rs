//! The hub: its ways, its faults, and what it calls when.

// Helpers of tests panic like tests.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use graft_core::{
    AppendEntries, Arrivals, Class, ClientRequest, Entries, EntryKind, Envelope, GroupId,
    Heartbeat, Inbox, InboxLimits, InboxReceiver, Incarnation, Index, Link, LinkError, LinkId,
    LogId, Message, NodeId, PeerEnvelope, RejectReason, Replies, Reply, ReplyEnvelope, Request,
    Runtime, Term, TokioRuntime, Transport,
};
use graft_transport::{Fault, FaultCounts, Hub, HubLink, HubTransport};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);

fn runtime() -> Arc<dyn Runtime> {
    Arc::new(TokioRuntime::current().expect("the test runs on tokio"))
}

fn hub() -> Hub {
    Hub::new(runtime(), 42)
}

struct Server {
    transport: HubTransport,
    receiver: InboxReceiver,
}

impl Server {
    fn start(hub: &Hub, node: NodeId) -> Self {
        Self::start_with(hub, node, InboxLimits::default())
    }

    fn start_with(hub: &Hub, node: NodeId, limits: InboxLimits) -> Self {
        let transport = hub.transport(node);
        let (inbox, receiver) = Inbox::new(limits);
        transport.attach(inbox);
        Self { transport, receiver }
    }

    fn send(&self, to: NodeId, number: u64) {
        self.send_message(to, heartbeat(number));
    }

    fn send_message(&self, to: NodeId, message: Message) {
        self.transport.send(Envelope::Peer(PeerEnvelope {
            group: GroupId(0),
            from: self.transport.node(),
            to,
            from_incarnation: Incarnation(1),
            to_incarnation: Incarnation(2),
            message,
        }));
    }

    fn answer(&self, request: &Request, reply: Reply) {
        let Request { link, request_id, .. } = *request;
        self.transport.send(Envelope::Reply(ReplyEnvelope { link, request_id, reply }));
    }

    fn take(&mut self) -> Arrivals {
        let mut arrivals = Arrivals::default();
        self.receiver.take_now(&mut arrivals);
        arrivals
    }

    /// The numbers of the messages that arrived, in order.
    fn numbers(&mut self) -> Vec<u64> {
        self.take().peers.iter().map(|envelope| envelope.message.term().0).collect()
    }
}

fn heartbeat(number: u64) -> Message {
    let (term, commit, round) = (Term(number), Index(0), 0);
    Message::Heartbeat(Heartbeat { term, commit, round, checksum: None })
}

fn append(number: u64) -> Message {
    Message::AppendEntries(AppendEntries {
        term: Term(number),
        prev: LogId::ZERO,
        commit: Index(0),
        round: 0,
        entries: Entries::new(),
    })
}

fn request(request_id: u64) -> ClientRequest {
    let (deadline, kind) = (Duration::from_secs(9), EntryKind::Plain);
    ClientRequest { request_id, deadline, kind, payload: Bytes::from_static(b"payload") }
}

#[derive(Default)]
struct Heard {
    replies: Mutex<Vec<(NodeId, u64, Reply)>>,
    gone: Mutex<Vec<NodeId>>,
}

impl Replies for Heard {
    fn on_reply(&self, from: NodeId, request_id: u64, reply: Reply) {
        self.replies.lock().unwrap().push((from, request_id, reply));
    }

    fn on_server_gone(&self, server: NodeId) {
        self.gone.lock().unwrap().push(server);
    }
}

fn client(hub: &Hub) -> (HubLink, Arc<Heard>) {
    let link = hub.link();
    let heard = Arc::new(Heard::default());
    link.attach(Arc::clone(&heard) as Arc<dyn Replies>);
    (link, heard)
}

#[tokio::test]
async fn messages_arrive_before_send_returns_and_in_order() {
    let hub = hub();
    let (a, mut b) = (Server::start(&hub, A), Server::start(&hub, B));
    (0..100).for_each(|number| a.send(B, number));
    assert_eq!(b.numbers(), (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_request_and_its_reply_pass_through_the_hub() {
    let hub = hub();
    let mut a = Server::start(&hub, A);
    let (link, heard) = client(&hub);
    link.send(A, request(7)).unwrap();
    let found = a.take().requests.remove(0);
    assert_eq!((found.link, found.request_id), (link.id(), 7));
    assert_eq!(found.deadline, Duration::from_secs(9), "one process has one clock");
    a.answer(&found, Reply::SessionDone);
    assert_eq!(*heard.replies.lock().unwrap(), [(A, 7, Reply::SessionDone)]);
}

#[tokio::test]
async fn a_link_lists_the_servers_that_are_attached_in_order() {
    let hub = hub();
    let (c, a) = (Server::start(&hub, C), Server::start(&hub, A));
    let unattached = hub.transport(B);
    let link = hub.link();
    assert_eq!(link.servers(), [A, C]);
    assert_eq!(link.send(B, request(1)), Err(LinkError::Unreachable(B)));
    drop((unattached, c));
    a.transport.close().await;
    assert!(link.servers().is_empty());
}

#[tokio::test]
async fn links_hear_once_of_a_server_that_closes_and_never_of_one_that_was_not_there() {
    let hub = hub();
    let (_link, heard) = client(&hub);
    let (_other, other_heard) = client(&hub);
    drop(hub.transport(C));
    let a = Server::start(&hub, A);
    a.transport.close().await;
    a.transport.close().await;
    drop(a);
    drop(Server::start(&hub, B));
    assert_eq!(*heard.gone.lock().unwrap(), [A, B]);
    assert_eq!(*other_heard.gone.lock().unwrap(), [A, B]);
}

#[tokio::test]
async fn a_new_transport_takes_the_place_of_one_that_was_never_closed() {
    let hub = hub();
    let (link, heard) = client(&hub);
    let (a, mut earlier) = (Server::start(&hub, A), Server::start(&hub, B));
    a.send(B, 1);
    let mut later = Server::start(&hub, B);
    assert_eq!(*heard.gone.lock().unwrap(), [B]);
    a.send(B, 2);
    link.send(B, request(1)).unwrap();
    assert_eq!(earlier.numbers(), [1]);
    earlier.send(A, 3);
    drop(earlier);
    a.send(B, 4);
    assert_eq!(later.numbers(), [2, 4]);
    assert_eq!(link.servers(), [A, B]);
    assert_eq!(*heard.gone.lock().unwrap(), [B], "its successor is there");
}

#[tokio::test]
async fn a_full_inbox_refuses_and_is_counted_by_class() {
    let hub = hub();
    let limits =
        InboxLimits { control_bytes: 96 * 3, request_bytes: 200, ..InboxLimits::default() };
    let (a, mut b) = (Server::start(&hub, A), Server::start_with(&hub, B, limits));
    (0..5).for_each(|number| a.send(B, number));
    a.send_message(B, append(9));
    assert_eq!(hub.refused(Class::Control), 2);
    let (link, _) = client(&hub);
    let outcomes: Vec<_> = (0..4).map(|id| link.send(B, request(id))).collect();
    assert_eq!(outcomes, [Ok(()), Ok(()), Err(LinkError::Full(B)), Err(LinkError::Full(B))]);
    assert_eq!(hub.refused(Class::Request), 2);
    assert_eq!(hub.refused(Class::Append), 0);
    assert_eq!(b.numbers(), [0, 1, 2, 9]);
    link.send(B, request(9)).unwrap();
}

#[tokio::test]
async fn a_server_that_stopped_taking_is_unreachable_and_not_full() {
    let hub = hub();
    let b = Server::start(&hub, B);
    drop(b.receiver);
    let (link, _) = client(&hub);
    assert_eq!(link.send(B, request(1)), Err(LinkError::Unreachable(B)));
    assert_eq!((hub.refused(Class::Request), hub.unreachable()), (0, 1));
}

#[tokio::test]
async fn replies_to_a_link_that_is_gone_are_counted_and_its_number_stays_unused() {
    let hub = hub();
    let mut a = Server::start(&hub, A);
    let (link, heard) = client(&hub);
    let id = link.id();
    link.send(A, request(1)).unwrap();
    let found = a.take().requests.remove(0);
    a.answer(&found, Reply::SessionDone);
    drop(link);
    a.answer(&found, Reply::SessionDone);
    let (next, next_heard) = client(&hub);
    assert_ne!(next.id(), id);
    a.answer(&found, Reply::SessionDone);
    assert_eq!(heard.replies.lock().unwrap().len(), 1);
    assert!(next_heard.replies.lock().unwrap().is_empty());
    assert_eq!(hub.unreachable(), 2);
    assert_eq!(Arc::strong_count(&heard), 1, "nobody holds on to what a dropped link heard by");
}

/// A client that does from inside of its callbacks everything that takes a lock of the hub.
struct Busy {
    hub: Hub,
    link: OnceLock<HubLink>,
    calls: Mutex<u32>,
}

impl Busy {
    fn work(&self) {
        let link = self.link.get().unwrap();
        let _outcome = link.send(A, request(2));
        let _servers = link.servers();
        let faults = self.hub.faults();
        faults.cut(B, C);
        faults.heal_all();
        let (other, _) = client(&self.hub);
        drop(other);
        drop(Server::start(&self.hub, C));
        *self.calls.lock().unwrap() += 1;
    }
}

impl Replies for Busy {
    fn on_reply(&self, _from: NodeId, _request_id: u64, _reply: Reply) {
        self.work();
    }

    fn on_server_gone(&self, server: NodeId) {
        // The server that `work` starts and stops is announced too.
        if server != C {
            self.work();
        }
    }
}

#[tokio::test]
async fn no_lock_is_held_while_a_client_is_called() {
    let hub = hub();
    let mut a = Server::start(&hub, A);
    let busy = Arc::new(Busy { hub: hub.clone(), link: OnceLock::new(), calls: Mutex::new(0) });
    let link = hub.link();
    link.attach(Arc::clone(&busy) as Arc<dyn Replies>);
    link.send(A, request(1)).unwrap();
    busy.link.set(link).unwrap();
    let found = a.take().requests.remove(0);
    a.answer(&found, Reply::SessionDone);
    a.transport.close().await;
    assert_eq!(*busy.calls.lock().unwrap(), 2);
}

#[tokio::test]
async fn a_cut_stops_both_ways_and_healing_ends_it() {
    let hub = hub();
    let faults = hub.faults();
    let (mut a, mut b, mut c) =
        (Server::start(&hub, A), Server::start(&hub, B), Server::start(&hub, C));
    faults.cut(A, B);
    let all = |a: &Server, b: &Server, c: &Server, number| {
        a.send(B, number);
        b.send(A, number);
        c.send(A, number);
        a.send(C, number);
    };
    all(&a, &b, &c, 1);
    assert_eq!((a.numbers(), b.numbers(), c.numbers()), (vec![1], vec![], vec![1]));
    assert_eq!(faults.counts(), FaultCounts { cut: 2, ..FaultCounts::default() });
    faults.heal(B, A);
    all(&a, &b, &c, 2);
    assert_eq!((a.numbers(), b.numbers(), c.numbers()), (vec![2, 2], vec![2], vec![2]));
}

#[tokio::test]
async fn a_cut_one_way_leaves_the_other_way_open() {
    let hub = hub();
    let (mut a, mut b) = (Server::start(&hub, A), Server::start(&hub, B));
    hub.faults().cut_one_way(A, B);
    a.send(B, 1);
    b.send(A, 2);
    assert_eq!((a.numbers(), b.numbers()), (vec![2], vec![]));
}

#[tokio::test]
async fn an_isolated_server_hears_nobody_and_is_heard_by_nobody() {
    let hub = hub();
    let faults = hub.faults();
    let (mut a, mut b) = (Server::start(&hub, A), Server::start(&hub, B));
    let (link, heard) = client(&hub);
    link.send(A, request(1)).unwrap();
    let found = a.take().requests.remove(0);
    faults.isolate(A);
    a.send(B, 1);
    b.send(A, 1);
    a.answer(&found, Reply::SessionDone);
    assert_eq!(link.send(A, request(2)), Ok(()), "a cut is silence, not an error");
    assert!(b.numbers().is_empty() && a.take().is_empty());
    assert!(heard.replies.lock().unwrap().is_empty());
    // Its restart is just as alone.
    a = Server::start(&hub, A);
    b.send(A, 2);
    assert!(a.take().is_empty());
    faults.rejoin(A);
    b.send(A, 3);
    assert_eq!(a.numbers(), [3]);
}

#[tokio::test]
async fn a_link_can_be_cut_off_by_its_number() {
    let hub = hub();
    let mut a = Server::start(&hub, A);
    let ((link, _), (other, heard)) = (client(&hub), client(&hub));
    hub.faults().cut_one_way(link.id(), A);
    hub.faults().cut_one_way(A, other.id());
    link.send(A, request(1)).unwrap();
    other.send(A, request(2)).unwrap();
    let arrived = a.take().requests;
    assert_eq!(arrived.iter().map(|request| request.request_id).collect::<Vec<_>>(), [2]);
    a.answer(&arrived[0], Reply::SessionDone);
    assert!(heard.replies.lock().unwrap().is_empty());
}

#[tokio::test]
async fn faults_strike_one_class_and_one_direction() {
    let hub = hub();
    let (mut a, mut b) = (Server::start(&hub, A), Server::start(&hub, B));
    hub.faults().set_class(A, B, Class::Append, Fault::lossy(1.0));
    for (from, to) in [(&a, B), (&b, A)] {
        from.send_message(to, append(1));
        from.send_message(to, heartbeat(2));
    }
    assert_eq!((a.numbers(), b.numbers()), (vec![1, 2], vec![2]));
}

/// Who gets which of 1,000 messages under loss and repetition, by the hub's seed.
fn lossy_run(seed: u64) -> (Vec<u64>, FaultCounts) {
    let hub = Hub::new(runtime(), seed);
    let (a, mut b) = (Server::start(&hub, A), Server::start(&hub, B));
    hub.faults().set(A, B, Fault { loss: 0.3, duplicate: 0.1, ..Fault::NONE });
    (0..1000).for_each(|number| a.send(B, number));
    (b.numbers(), hub.faults().counts())
}

#[tokio::test]
async fn loss_and_repetition_are_as_likely_as_said_and_decided_by_the_seed() {
    let (arrived, counts) = lossy_run(1);
    assert!((250..350).contains(&counts.lost), "{counts:?}");
    assert!((40..100).contains(&counts.duplicated), "{counts:?}");
    assert_eq!(arrived.len() as u64, 1000 - counts.lost + counts.duplicated);
    assert_eq!(lossy_run(1), (arrived.clone(), counts));
    assert_ne!(lossy_run(2).0, arrived);
}

#[tokio::test]
async fn what_happens_in_one_direction_depends_on_its_own_messages_alone() {
    let run = |with_others: bool| {
        let hub = Hub::new(runtime(), 5);
        let servers = [A, B, C].map(|node| Server::start(&hub, node));
        hub.faults().set_everywhere(Fault::lossy(0.5));
        for number in 0..100 {
            servers[0].send(B, number);
            if with_others {
                servers[0].send(C, number);
                servers[2].send(B, 1000 + number);
            }
        }
        let [_, mut b, _] = servers;
        b.numbers().into_iter().filter(|number| *number < 1000).collect::<Vec<_>>()
    };
    assert_eq!(run(false), run(true));
}

#[tokio::test]
async fn a_request_never_comes_twice_and_a_reply_may() {
    let hub = hub();
    let mut a = Server::start(&hub, A);
    let (link, heard) = client(&hub);
    hub.faults().set_everywhere(Fault { duplicate: 1.0, ..Fault::NONE });
    link.send(A, request(1)).unwrap();
    let arrived = a.take().requests;
    assert_eq!(arrived.len(), 1);
    a.answer(&arrived[0], Reply::SessionDone);
    assert_eq!(heard.replies.lock().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn late_messages_come_in_the_order_of_their_delays_and_within_bounds() {
    let hub = hub();
    let runtime = runtime();
    let (a, mut b) = (Server::start(&hub, A), Server::start(&hub, B));
    let (min, max) = (Duration::from_millis(10), Duration::from_millis(50));
    hub.faults().set(A, B, Fault::slow(min, max));
    let start = runtime.now();
    (0..100).for_each(|number| a.send(B, number));
    runtime.sleep_until(start + Duration::from_millis(9)).await;
    assert!(b.take().is_empty(), "nothing comes too early");
    runtime.sleep_until(start + Duration::from_millis(30)).await;
    let early = b.numbers();
    assert!((20..80).contains(&early.len()), "{early:?}");
    runtime.sleep_until(start + Duration::from_millis(52)).await;
    let mut all = [early, b.numbers()].concat();
    assert!(!all.is_sorted(), "they overtake each other");
    all.sort_unstable();
    assert_eq!(all, (0..100).collect::<Vec<_>>());
    assert_eq!(hub.faults().counts().delayed, 100);
}

#[tokio::test(start_paused = true)]
async fn an_earlier_message_does_not_wait_for_a_later_one_that_was_sent_before() {
    let hub = hub();
    let runtime = runtime();
    let (a, mut b) = (Server::start(&hub, A), Server::start(&hub, B));
    let slow = |millis| {
        let delay = Duration::from_millis(millis);
        hub.faults().set(A, B, Fault::slow(delay, delay));
    };
    slow(10_000);
    a.send(B, 1);
    // The one who delivers is now asleep until the first is due.
    runtime.sleep_until(runtime.now() + Duration::from_millis(1)).await;
    slow(20);
    a.send(B, 2);
    hub.faults().heal_all();
    a.send(B, 3);
    assert_eq!(b.numbers(), [3]);
    runtime.sleep_until(runtime.now() + Duration::from_millis(25)).await;
    assert_eq!(b.numbers(), [2]);
    runtime.sleep_until(runtime.now() + Duration::from_secs(11)).await;
    assert_eq!(b.numbers(), [1]);
    // Once all is delivered the next late message is delivered too.
    slow(20);
    a.send(B, 4);
    runtime.sleep_until(runtime.now() + Duration::from_millis(25)).await;
    assert_eq!(b.numbers(), [4]);
}

#[tokio::test(start_paused = true)]
async fn what_is_late_finds_a_restarted_server_but_no_request_does() {
    let hub = hub();
    let runtime = runtime();
    let (a, b) = (Server::start(&hub, A), Server::start(&hub, B));
    let (link, heard) = client(&hub);
    let delay = Duration::from_millis(20);
    hub.faults().set_everywhere(Fault::slow(delay, delay));
    a.send(B, 1);
    link.send(B, request(1)).unwrap();
    drop(b);
    let mut b = Server::start(&hub, B);
    runtime.sleep_until(runtime.now() + delay * 2).await;
    let arrivals = b.take();
    assert_eq!((arrivals.peers.len(), arrivals.requests.len()), (1, 0));
    assert_eq!(*heard.gone.lock().unwrap(), [B]);
}

#[tokio::test(start_paused = true)]
async fn a_late_reply_of_a_server_that_is_gone_never_comes() {
    let hub = hub();
    let runtime = runtime();
    let mut a = Server::start(&hub, A);
    let (link, heard) = client(&hub);
    link.send(A, request(1)).unwrap();
    let found = a.take().requests.remove(0);
    let delay = Duration::from_millis(20);
    hub.faults().set(A, link.id(), Fault::slow(delay, delay));
    a.answer(&found, Reply::SessionDone);
    drop(a);
    assert_eq!(*heard.gone.lock().unwrap(), [A]);
    runtime.sleep_until(runtime.now() + delay * 2).await;
    assert!(heard.replies.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_late_request_that_finds_the_inbox_full_is_answered_overloaded() {
    let hub = hub();
    let runtime = runtime();
    let limits = InboxLimits { request_bytes: 100, ..InboxLimits::default() };
    let mut b = Server::start_with(&hub, B, limits);
    let (link, heard) = client(&hub);
    let delay = Duration::from_millis(20);
    hub.faults().set(link.id(), B, Fault::slow(delay, delay));
    link.send(B, request(1)).unwrap();
    link.send(B, request(2)).unwrap();
    runtime.sleep_until(runtime.now() + delay * 2).await;
    assert_eq!(b.take().requests.len(), 1);
    let overloaded = Reply::Rejected(RejectReason::Overloaded);
    assert_eq!(*heard.replies.lock().unwrap(), [(B, 2, overloaded)]);
}

#[tokio::test(start_paused = true)]
async fn what_is_late_is_bounded_and_the_rest_is_counted() {
    let hub = hub();
    let a = Server::start(&hub, A);
    let _b = Server::start(&hub, B);
    hub.faults().set(A, B, Fault::slow(Duration::from_secs(5), Duration::from_secs(5)));
    let payload = Bytes::from(vec![0; 1 << 20]);
    for index in 1..=80 {
        let entry = graft_core::Entry {
            log_id: LogId::new(1, index),
            time: graft_core::LogTime(0),
            kind: EntryKind::Plain,
            payload: payload.clone(),
        };
        let Message::AppendEntries(empty) = append(index) else { unreachable!() };
        let entries = vec![entry].into();
        a.send_message(B, Message::AppendEntries(AppendEntries { entries, ..empty }));
    }
    a.send(B, 1);
    assert_eq!(hub.faults().counts().overflowed, 17);
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_is_dropped_takes_what_is_late_along() {
    let payload = Arc::new(());
    struct Kept(#[allow(dead_code)] Arc<()>);
    impl AsRef<[u8]> for Kept {
        fn as_ref(&self) -> &[u8] {
            b"kept"
        }
    }
    let hub = hub();
    let a = Server::start(&hub, A);
    let (link, _) = client(&hub);
    hub.faults().set_everywhere(Fault::slow(Duration::from_secs(5), Duration::from_secs(5)));
    let bytes = Bytes::from_owner(Kept(Arc::clone(&payload)));
    link.send(A, ClientRequest { payload: bytes, ..request(1) }).unwrap();
    assert_eq!(Arc::strong_count(&payload), 2);
    drop((a, link, hub));
    assert_eq!(Arc::strong_count(&payload), 1);
}

#[tokio::test]
async fn faults_of_a_link_are_forgotten_with_it() {
    let hub = hub();
    let mut a = Server::start(&hub, A);
    let link = hub.link();
    let id: LinkId = link.id();
    hub.faults().cut(id, A);
    hub.faults().isolate(id);
    drop(link);
    let (next, _) = client(&hub);
    next.send(A, request(1)).unwrap();
    assert_eq!(a.take().requests.len(), 1);
    assert_eq!(hub.faults().counts(), FaultCounts::default());
}

/// Four threads send to one server and to each other while links come and go: nothing is lost that
/// fits, nothing hangs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn senders_on_several_threads_lose_nothing() {
    const EACH: u64 = 5_000;
    let hub = hub();
    let mut target = Server::start(&hub, A);
    let senders: Vec<_> = (10..14)
        .map(|node| {
            let server = Server::start(&hub, NodeId(node));
            let hub = hub.clone();
            tokio::task::spawn_blocking(move || {
                for number in 0..EACH {
                    server.send(A, node * EACH + number);
                    if number % 500 == 0 {
                        drop(client(&hub));
                    }
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    let mut numbers = target.numbers();
    numbers.sort_unstable();
    assert_eq!(numbers, (10 * EACH..14 * EACH).collect::<Vec<_>>());
}

/// Servers and clients send to one server without a pause while it closes: nothing reaches its inbox
/// once `close` has returned. A round in which nobody was sending at that moment proves nothing, so
/// there are many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_offered_after_close_by_senders_on_other_threads() {
    const ROUNDS: u32 = 300;
    let hub = hub();
    let done = Arc::new(AtomicBool::new(false));
    let spin = |mut send: Box<dyn FnMut() + Send>| {
        let done = Arc::clone(&done);
        tokio::task::spawn_blocking(move || {
            while !done.load(Ordering::Relaxed) {
                send();
            }
        })
    };
    let b = Server::start(&hub, B);
    let (link, _) = client(&hub);
    let tasks = [
        spin(Box::new(move || b.send(A, 1))),
        spin(Box::new(move || _ = link.send(A, request(1)))),
    ];
    let late = tokio::task::spawn_blocking(move || {
        let (mut late, start) = (0, Instant::now());
        for _ in 0..ROUNDS {
            let mut server = Server::start(&hub, A);
            while server.take().is_empty() {
                assert!(start.elapsed() < Duration::from_secs(60), "the new server is not reached");
                std::thread::yield_now();
            }
            now(server.transport.close());
            drop(server.take());
            std::thread::yield_now();
            late += u32::from(!server.take().is_empty());
        }
        late
    });
    let late = late.await;
    done.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(late.unwrap(), 0, "of {ROUNDS} rounds");
}

/// The end of a future that needs no wake.
fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("this must not wait"),
    }
}
