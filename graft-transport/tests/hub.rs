//! The hub without faults: its ways, its ends, and what it calls when.

// Helpers of tests panic like tests.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

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

use common::{A, B, C, Server, append, client, hub, request};
use graft_core::{Class, InboxLimits, Link, LinkError, NodeId, Replies, Reply, Transport};
use graft_transport::{Hub, HubLink};

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
    const ROUNDS: u32 = 5_000;
    let hub = hub();
    let done = Arc::new(AtomicBool::new(false));
    let spin = |mut send: Box<dyn FnMut() + Send>| {
        let done = Arc::clone(&done);
        tokio::task::spawn_blocking(move || {
            while !done.load(Ordering::Relaxed) {
                // In bursts, so that on few cores the one who closes gets its turn.
                (0..100).for_each(|_| send());
                std::thread::yield_now();
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
        let mut late = 0;
        for _ in 0..ROUNDS {
            let mut server = Server::start(&hub, A);
            let start = Instant::now();
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
