//! The faults of the hub: what they do, to whom, and that chance follows the seed.

// Helpers of tests panic like tests.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use common::{A, B, C, Server, append, client, heartbeat, hub, request, runtime};
use graft_core::{
    AppendEntries, Class, ClientRequest, EntryKind, InboxLimits, Link, LinkId, LogId, Message,
    RejectReason, Reply,
};
use graft_transport::{Fault, FaultCounts, Hub};

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
