//! The life of a client: replies that come late or twice, its handles, its end.

mod common;

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use common::{A, B, Bench, link, ms};
use graft_client::{Client, ClientConfig, Outcome, RequestError};
use graft_core::{EntryKind, RejectReason, Reply};

#[test]
fn a_reply_that_comes_twice_does_not_reach_another_request() {
    let bench = Bench::with_session(ClientConfig::default());
    let first = bench.start("first");
    bench.runtime.settle();
    let sent = bench.link.take_one();
    bench.link.apply(&sent, b"one");
    bench.runtime.settle();
    assert!(first.result().is_some());
    // The next request takes the same slot.
    let second = bench.start("second");
    bench.runtime.settle();
    bench.link.apply(&sent, b"one");
    bench.link.reject(&sent, RejectReason::Invalid("late".into()));
    bench.link.reply(&sent, Reply::SessionExpired);
    bench.runtime.settle();
    assert_eq!(second.result(), None);
    bench.link.apply(&bench.link.take_one(), b"two");
    bench.runtime.settle();
    assert_eq!(second.result(), Some(Ok(Bytes::from_static(b"two"))));
    assert_eq!(bench.client.stats().late_replies, 3);
}

#[test]
fn of_two_replies_the_first_counts() {
    let bench = Bench::with_session(ClientConfig::default());
    let running = bench.start("x");
    bench.runtime.settle();
    let sent = bench.link.take_one();
    bench.link.apply(&sent, b"one");
    bench.link.apply(&sent, b"two");
    bench.runtime.settle();
    assert_eq!(running.result(), Some(Ok(Bytes::from_static(b"one"))));
}

#[test]
fn replies_to_requests_that_never_were_are_harmless() {
    let bench = Bench::with_session(ClientConfig::default());
    let running = bench.start("x");
    bench.runtime.settle();
    let replies = bench.link.replies();
    for id in [0, 1, 7, 1 << 20, 1 << 31, 1 << 40, u64::MAX, u64::MAX - 1] {
        replies.on_reply(B, id, Reply::Rejected(RejectReason::Invalid("?".into())));
    }
    // Replies that fit no request of this kind.
    let sent = bench.link.take_one();
    bench.link.reply(&sent, Reply::SessionDone);
    bench.link.reply(&sent, Reply::SessionOpened(graft_core::SessionId(4)));
    bench.runtime.settle();
    assert_eq!(running.result(), None);
    bench.link.apply(&sent, b"");
    bench.runtime.settle();
    assert!(matches!(running.result(), Some(Ok(_))));
}

#[test]
fn the_answer_to_a_dropped_request_is_harmless() {
    let bench = Bench::with_session(ClientConfig::default());
    let running = bench.start("x");
    bench.runtime.settle();
    let sent = bench.link.take_one();
    running.cancel();
    assert_eq!(bench.client.stats().open, 0);
    bench.link.apply(&sent, b"");
    bench.runtime.settle();
    assert_eq!(bench.client.stats().late_replies, 1);
}

#[test]
fn a_request_that_is_never_polled_is_never_sent() {
    let bench = Bench::new();
    drop(bench.request("x"));
    bench.runtime.advance(ms(100));
    assert!(bench.link.take().is_empty());
    assert_eq!(bench.client.stats().requests, 0);
}

/// A future may move from task to task; the latest waker counts.
#[test]
fn the_waker_of_the_latest_poll_is_woken() {
    let bench = Bench::with_session(ClientConfig { session_window: 1, ..ClientConfig::default() });
    let _first = bench.start("first");
    bench.runtime.settle();
    let mut moved = Box::pin(bench.request("moved"));
    let mut context = Context::from_waker(Waker::noop());
    assert!(moved.as_mut().poll(&mut context).is_pending());
    let running = bench.runtime.start(moved);
    bench.runtime.settle();
    bench.link.apply(&bench.link.take_one(), b"");
    bench.runtime.settle();
    bench.link.apply(&bench.link.take_one(), b"");
    bench.runtime.settle();
    assert!(matches!(running.result(), Some(Ok(_))));
}

#[test]
fn a_reply_from_within_send_is_taken() {
    struct Echo(std::sync::OnceLock<Arc<dyn graft_core::Replies>>);
    impl graft_core::Link for Echo {
        fn attach(&self, replies: Arc<dyn graft_core::Replies>) {
            assert!(self.0.set(replies).is_ok());
        }
        fn send(
            &self,
            to: graft_core::NodeId,
            request: graft_core::ClientRequest,
        ) -> Result<(), graft_core::LinkError> {
            let reply = match request.kind {
                EntryKind::SessionOpen => Reply::SessionOpened(link::SESSION),
                _ => Reply::Applied(request.payload),
            };
            self.0.get().unwrap().on_reply(to, request.request_id, reply);
            Ok(())
        }
        fn servers(&self) -> Vec<graft_core::NodeId> {
            vec![A]
        }
    }
    let runtime = common::runtime::TestRuntime::new(1);
    let link = Arc::new(Echo(std::sync::OnceLock::new()));
    let client = Client::new(link, Arc::clone(&runtime) as _, ClientConfig::default()).unwrap();
    for _ in 0..3 {
        let options = graft_client::RequestOptions::new(0);
        let running = runtime.start(client.request(common::body("x"), options));
        runtime.settle();
        assert!(matches!(running.result(), Some(Ok(_))));
    }
}

#[test]
fn the_last_handle_ends_the_driver_and_closes_the_session() {
    let bench = Bench::with_session(ClientConfig::default());
    let Bench { runtime, link, client } = bench;
    let clone = client.clone();
    drop(client);
    runtime.settle();
    assert_eq!(runtime.tasks(), 1, "the driver");
    drop(clone);
    runtime.settle();
    assert_eq!(runtime.tasks(), 0);
    assert_eq!(runtime.next_timer(), None);
    let close = link.take_one();
    assert_eq!((close.to, close.kind()), (A, EntryKind::SessionClose));
    link.reply(&close, Reply::SessionDone);
}

#[test]
fn a_client_that_was_never_used_ends_silently() {
    let Bench { runtime, link, client } = Bench::new();
    drop(client);
    runtime.settle();
    assert_eq!(runtime.tasks(), 0);
    assert!(link.take().is_empty());
}

#[test]
fn an_open_request_keeps_the_client() {
    let Bench { runtime, link, client } = Bench::with_session(ClientConfig::default());
    let options = graft_client::RequestOptions::new(0);
    let running = runtime.start(client.request(common::body("x"), options));
    drop(client);
    runtime.settle();
    link.apply(&link.take_one(), b"");
    runtime.settle();
    assert!(matches!(running.result(), Some(Ok(_))));
    assert_eq!(runtime.tasks(), 0, "and the client ends with it");
}

#[test]
fn a_weak_client_finds_the_client_as_long_as_others_keep_it_and_keeps_nothing() {
    let Bench { runtime, link, client } = Bench::with_session(ClientConfig::default());
    let weak = client.downgrade();
    let options = graft_client::RequestOptions::new(0);
    let found = weak.upgrade().expect("a handle keeps it");
    let running = runtime.start(found.into_request(common::body("x"), options));
    drop(client);
    runtime.settle();
    assert!(weak.upgrade().is_some(), "the open request keeps it");
    link.apply(&link.take_one(), b"");
    runtime.settle();
    assert!(matches!(running.result(), Some(Ok(_))));
    assert_eq!(runtime.tasks(), 0, "the client ended with the request");
    assert!(weak.upgrade().is_none());
}

#[test]
fn a_shutdown_ends_all_clones_and_tells_the_servers() {
    let bench = Bench::with_session(ClientConfig::default());
    let clone = bench.client.clone();
    bench.client.shutdown();
    bench.client.shutdown();
    bench.runtime.settle();
    assert_eq!(bench.link.take_one().kind(), EntryKind::SessionClose);
    assert_eq!(bench.runtime.tasks(), 0);
    let options = graft_client::RequestOptions::new(0);
    let late = bench.runtime.start(clone.request(common::body("x"), options));
    bench.runtime.settle();
    assert_eq!(late.error(), RequestError::Shutdown { outcome: Outcome::NotApplied });
}

/// Without its driver a client could not hold a deadline, so nothing may be left waiting.
#[test]
fn a_runtime_that_ends_ends_the_requests_that_others_await() {
    let bench = Bench::with_session(ClientConfig::default());
    let mut request = pin!(bench.request("x"));
    let mut context = Context::from_waker(Waker::noop());
    assert!(request.as_mut().poll(&mut context).is_pending());
    bench.runtime.drop_tasks();
    let outcome = Outcome::Unknown;
    let ended = request.as_mut().poll(&mut context);
    assert_eq!(ended, Poll::Ready(Err(RequestError::Shutdown { outcome })));
}

#[test]
fn an_idle_client_sets_no_timer_but_for_its_session() {
    let bench = Bench::with_session(ClientConfig::default());
    bench.runtime.advance(ms(6000));
    let next = bench.runtime.next_timer().unwrap();
    assert!(next >= ms(200_000), "{next:?}");
}

/// One timer serves all requests, and is set again only for what is due before it.
#[test]
fn the_driver_is_not_woken_for_each_request() {
    let bench = Bench::with_session(ClientConfig::default());
    let wakes = bench.runtime.polls();
    for i in 0..1000 {
        let running = bench.start(&i.to_string());
        bench.runtime.settle();
        bench.link.apply(&bench.link.take_one(), b"");
        bench.runtime.settle();
        assert!(running.result().is_some());
    }
    let polls = bench.runtime.polls() - wakes;
    assert!(polls <= 2000 + 5, "{polls} polls for 1000 requests, which take two each");
}

#[test]
fn a_configuration_out_of_range_is_refused_by_the_name_of_its_field() {
    let zero = std::time::Duration::ZERO;
    let wrong = [
        ("deadline", ClientConfig { deadline: zero, ..ClientConfig::default() }),
        ("attempt_timeout", ClientConfig { attempt_timeout: zero, ..ClientConfig::default() }),
        ("backoff_min", ClientConfig { backoff_min: zero, ..ClientConfig::default() }),
        ("backoff_max", ClientConfig { backoff_max: ms(1), ..ClientConfig::default() }),
        ("session_ttl", ClientConfig { session_ttl: ms(1), ..ClientConfig::default() }),
        ("session_window", ClientConfig { session_window: 0, ..ClientConfig::default() }),
        ("session_window", ClientConfig { session_window: 1 << 20, ..ClientConfig::default() }),
        ("max_sessions", ClientConfig { max_sessions: 0, ..ClientConfig::default() }),
        ("max_waiting", ClientConfig { max_waiting: 1 << 20, ..ClientConfig::default() }),
    ];
    for (field, config) in wrong {
        let error = config.validate().unwrap_err();
        assert_eq!(error.field, field);
        let runtime = common::runtime::TestRuntime::new(1);
        let refused = Client::new(link::FakeLink::new(&[A]), runtime, config).unwrap_err();
        assert_eq!(refused, error);
        assert!(error.to_string().contains(field));
    }
}
