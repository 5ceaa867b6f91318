//! The session of a client: its window, its floor, its life and its end.

mod common;

use std::time::Duration;

use common::{A, B, Bench, body, link, ms};
use graft_client::{ClientConfig, Outcome, RequestError, RequestOptions};
use graft_core::{
    EntryKind, LinkError, NodeId, RejectReason, Reply, SessionId,
    session::{Payload, SessionSettings},
};

const MINUTE: Duration = Duration::from_secs(60);

fn window(session_window: u32) -> ClientConfig {
    ClientConfig { session_window, ..ClientConfig::default() }
}

fn bodies(sent: &[link::Sent]) -> Vec<&str> {
    sent.iter().map(link::Sent::body).collect()
}

#[test]
fn the_session_is_opened_with_what_the_configuration_says() {
    let config = ClientConfig {
        session_ttl: Duration::from_secs(90),
        session_window: 77,
        max_sessions: 123,
        ..ClientConfig::default()
    };
    let bench = Bench::with(config);
    bench.start("x");
    bench.runtime.settle();
    let open = bench.link.take_one();
    let settings = SessionSettings { ttl_millis: 90_000, window: 77, max_sessions: 123 };
    assert_eq!(
        Payload::parse(open.kind(), &open.request.payload),
        Ok(Payload::SessionOpen(settings))
    );
}

#[test]
fn one_session_serves_all_that_wait_for_it_in_their_order() {
    let bench = Bench::new();
    let _running: Vec<_> = (0..5).map(|i| bench.start(&i.to_string())).collect();
    bench.runtime.settle();
    let open = bench.link.take_one();
    bench.link.open_session(&open, link::SESSION);
    bench.runtime.settle();
    let sent = bench.link.take();
    assert_eq!(bodies(&sent), ["0", "1", "2", "3", "4"]);
    let sequences: Vec<_> = sent.iter().map(|sent| sent.header().sequence).collect();
    assert_eq!(sequences, [1, 2, 3, 4, 5]);
}

/// Opening is retried like any request, and answers that come twice open nothing twice.
#[test]
fn a_session_is_opened_through_the_leader_wherever_it_is() {
    let bench = Bench::new();
    let _running = bench.start("x");
    bench.runtime.settle();
    let first = bench.link.take_one();
    bench.link.not_leader(&first, Some(B));
    bench.runtime.settle();
    let second = bench.link.take_one();
    assert_eq!((second.to, second.kind()), (B, EntryKind::SessionOpen));
    bench.link.open_session(&second, SessionId(5));
    bench.link.open_session(&second, SessionId(6));
    bench.link.open_session(&first, SessionId(7));
    bench.runtime.settle();
    assert_eq!(bench.link.take_one().header().session, SessionId(5));
    assert_eq!(bench.client.stats().sessions_opened, 1);
}

#[test]
fn opening_goes_on_as_long_as_somebody_waits_for_it() {
    let bench = Bench::new();
    let first = bench.start("x");
    bench.runtime.advance(ms(3000));
    let second = bench.start("y");
    bench.runtime.advance(ms(3000));
    assert!(first.result().is_some() && second.result().is_none());
    let opens = bench.link.take();
    let last = opens.last().unwrap();
    assert_eq!(last.kind(), EntryKind::SessionOpen);
    bench.link.open_session(last, link::SESSION);
    bench.runtime.settle();
    assert_eq!(bench.link.take_one().body(), "y");
    assert_eq!(second.result(), None);
}

#[test]
fn a_cluster_that_refuses_sessions_refuses_those_that_wait() {
    let bench = Bench::new();
    let running = [bench.start("x"), bench.start("y")];
    bench.runtime.settle();
    let reason = "unknown kind".to_string();
    bench.link.reject(&bench.link.take_one(), RejectReason::Invalid(reason.clone()));
    bench.runtime.settle();
    for running in running {
        assert_eq!(running.error(), RequestError::InvalidEntry { reason: reason.clone() });
    }
    bench.runtime.advance(ms(10_000));
    assert!(bench.link.take().is_empty());
}

#[test]
fn above_the_window_requests_wait_and_go_as_the_floor_rises() {
    let bench = Bench::with_session(window(3));
    let _running: Vec<_> = (0..7).map(|i| bench.start(&i.to_string())).collect();
    bench.runtime.settle();
    let first = bench.link.take();
    assert_eq!(bodies(&first), ["0", "1", "2"]);
    // The oldest holds the window, whatever else is answered.
    bench.link.apply(&first[2], b"");
    bench.link.apply(&first[1], b"");
    bench.runtime.settle();
    assert!(bench.link.take().is_empty());
    bench.link.apply(&first[0], b"");
    bench.runtime.settle();
    let second = bench.link.take();
    assert_eq!(bodies(&second), ["3", "4", "5"]);
    assert!(second.iter().all(|sent| sent.header().floor == second[0].header().sequence));
    assert_eq!(bench.client.stats().waiting, 1);
}

/// A request that comes while others wait does not pass them, though there is room at that moment.
#[test]
fn a_newcomer_waits_behind_those_that_wait() {
    let bench = Bench::with_session(window(1));
    let _first = bench.start("0");
    let _second = bench.start("1");
    bench.runtime.settle();
    let sent = bench.link.take_one();
    // The answer frees the window; the newcomer is polled before the one that waits is.
    bench.link.apply(&sent, b"");
    let mut third = Box::pin(bench.request("2"));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(third.as_mut().poll(&mut context).is_pending());
    bench.runtime.settle();
    assert_eq!(bench.link.take_one().body(), "1");
}

#[test]
fn the_floor_is_the_oldest_request_that_is_still_wanted() {
    let bench = Bench::with_session(ClientConfig::default());
    let _kept = bench.start("kept");
    let dropped = bench.start("dropped");
    bench.runtime.settle();
    let kept = bench.link.take().remove(0);
    let probe = |text: &str| {
        let running = bench.start(text);
        bench.runtime.settle();
        let sent = bench.link.take_one();
        bench.link.apply(&sent, b"");
        bench.runtime.settle();
        assert!(running.result().is_some());
        sent.header()
    };
    assert_eq!(probe("a").floor, kept.header().sequence);
    dropped.cancel();
    assert_eq!(probe("b").floor, kept.header().sequence, "an older one is wanted");
    bench.link.apply(&kept, b"");
    let last = probe("c");
    assert_eq!(last.floor, last.sequence, "nothing else is wanted");
}

#[test]
fn a_dropped_request_frees_its_place_in_the_window() {
    let bench = Bench::with_session(window(2));
    let first = bench.start("0");
    let _second = bench.start("1");
    let third = bench.start("2");
    let _fourth = bench.start("3");
    bench.runtime.settle();
    assert_eq!(bodies(&bench.link.take()), ["0", "1"]);
    third.cancel();
    first.cancel();
    bench.runtime.settle();
    assert_eq!(
        bench.link.take_one().body(),
        "3",
        "what was dropped while it waited is passed over"
    );
    assert_eq!(bench.client.stats().open, 2);
}

/// A place may be given to a future that is dropped before it looks.
#[test]
fn a_place_given_to_a_request_that_is_dropped_goes_to_the_next() {
    let bench = Bench::with_session(window(1));
    let _first = bench.start("0");
    let second = bench.start("1");
    let _third = bench.start("2");
    bench.runtime.settle();
    bench.link.apply(&bench.link.take_one(), b"");
    second.cancel();
    bench.runtime.settle();
    assert_eq!(bench.link.take_one().body(), "2");
}

/// A place may be given to a future that nobody polls; its deadline frees it.
#[test]
fn a_place_given_to_a_request_that_is_not_polled_is_free_at_its_deadline() {
    let bench = Bench::with_session(window(1));
    let _first = bench.start("0");
    bench.runtime.settle();
    let mut unpolled = Box::pin(bench.request("unpolled").deadline(ms(500)));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(unpolled.as_mut().poll(&mut context).is_pending());
    let _third = bench.start("2");
    bench.runtime.settle();
    bench.link.apply(&bench.link.take_one(), b"");
    bench.runtime.settle();
    assert!(bench.link.take().is_empty());
    bench.runtime.advance(ms(520));
    assert_eq!(bench.link.take_one().body(), "2");
    let ended = unpolled.as_mut().poll(&mut context);
    assert!(matches!(ended, std::task::Poll::Ready(Err(RequestError::Timeout { .. }))));
}

/// Requests that are given up while they wait must not pile up behind a session that does not open.
#[test]
fn a_flood_of_dropped_requests_leaves_nothing_behind() {
    let bench = Bench::new();
    let _first = bench.start("0");
    bench.runtime.settle();
    let open = bench.link.take_one();
    for _ in 0..10_000 {
        let dropped = bench.start("dropped");
        bench.runtime.settle();
        dropped.cancel();
    }
    let stats = bench.client.stats();
    assert_eq!((stats.open, stats.waiting), (2, 1));
    bench.link.open_session(&open, link::SESSION);
    bench.runtime.settle();
    assert_eq!(bench.link.take_one().body(), "0");
}

#[test]
fn commands_of_an_expired_session_end_and_those_that_waited_move_to_the_next() {
    let bench = Bench::with_session(window(2));
    let sent = [bench.start("0"), bench.start("1")];
    let waits = bench.start("2");
    bench.runtime.settle();
    let old = bench.link.take();
    bench.link.reply(&old[0], Reply::SessionExpired);
    bench.runtime.settle();
    assert_eq!(sent[0].error(), RequestError::SessionExpired);

    let open = bench.link.take_one();
    bench.link.open_session(&open, SessionId(20));
    bench.runtime.settle();
    let moved = bench.link.take_one();
    assert_eq!((moved.body(), moved.header().session), ("2", SessionId(20)));
    assert_eq!((moved.header().sequence, moved.header().floor), (1, 1));
    bench.link.apply(&moved, b"");
    // The other one of the old session may have been applied before it ended: its answer counts.
    bench.link.apply(&old[1], b"");
    bench.runtime.settle();
    assert!(matches!(waits.result(), Some(Ok(_))) && matches!(sent[1].result(), Some(Ok(_))));
    assert_eq!(bench.client.stats().sessions_expired, 1);
}

/// The heart of exactly-once: what was handed over once is never sent under another session, however
/// it is refused afterwards.
#[test]
fn a_command_once_sent_is_never_sent_under_another_session() {
    let bench = Bench::with_session(ClientConfig::default());
    let victim = bench.start("victim");
    let witness = bench.start("witness");
    bench.runtime.settle();
    let [sent, other] = <[_; 2]>::try_from(bench.link.take()).unwrap();
    // It is refused, so that it would be sent again; meanwhile the session is found to be gone.
    bench.link.reject(&sent, RejectReason::Overloaded);
    bench.link.reply(&other, Reply::SessionExpired);
    let _next = bench.start("next");
    bench.runtime.settle();
    bench.link.open_session(&bench.link.take_one(), SessionId(20));
    bench.runtime.settle();
    assert_eq!(bench.link.take_one().body(), "next");
    bench.runtime.advance(ms(300));
    assert!(bench.link.take().iter().all(|sent| sent.body() != "victim"));
    for ended in [victim, witness] {
        assert_eq!(ended.error(), RequestError::SessionExpired);
        assert_eq!(ended.error().outcome(), Outcome::Unknown);
    }
}

/// Its buffer was written for one session, but no link took it: it may go under another.
#[test]
fn a_command_that_no_link_ever_took_moves_to_the_next_session() {
    let bench = Bench::with_session(ClientConfig::default());
    let witness = bench.start("witness");
    bench.runtime.settle();
    let other = bench.link.take_one();
    bench.link.set_errors(&[A, B, NodeId(3)].map(LinkError::Unreachable));
    let running = bench.start("never taken");
    bench.runtime.advance(ms(50));
    bench.link.set_errors(&[]);
    bench.link.reply(&other, Reply::SessionExpired);
    bench.runtime.settle();
    assert!(witness.result().is_some());
    bench.runtime.advance(ms(300));
    let open = bench.link.take_one();
    bench.link.open_session(&open, SessionId(20));
    bench.runtime.settle();
    let moved = bench.link.take_one();
    assert_eq!((moved.body(), moved.header().session), ("never taken", SessionId(20)));
    assert_eq!((moved.header().sequence, moved.header().version), (1, 1));
    let entry = &moved.request.payload[graft_client::HEADER_BYTES..];
    assert_eq!(entry.as_ptr().align_offset(16), 0, "an entry stays aligned");
    bench.link.apply(&moved, b"");
    bench.runtime.settle();
    assert!(matches!(running.result(), Some(Ok(_))));
}

#[test]
fn a_session_that_was_used_is_kept_alive_after_a_third_of_its_time() {
    let bench = Bench::with_session(ClientConfig::default());
    bench.runtime.advance(ms(199_900));
    assert!(bench.link.take().is_empty());
    bench.runtime.advance(ms(200));
    let keep = bench.link.take_one();
    assert_eq!((keep.to, keep.kind()), (A, EntryKind::SessionKeepAlive));
    assert_eq!(
        Payload::parse(keep.kind(), &keep.request.payload),
        Ok(Payload::SessionKeepAlive { session: link::SESSION, floor: 2 })
    );
    bench.link.reply(&keep, Reply::SessionDone);
    bench.runtime.settle();

    // Used once more, 5 minutes after the last command: the session still stands.
    bench.runtime.advance(5 * MINUTE);
    let _running = bench.start("x");
    bench.runtime.settle();
    assert_eq!(bench.link.take_one().header().session, link::SESSION);
}

#[test]
fn a_busy_session_needs_no_keep_alive() {
    let bench = Bench::with_session(ClientConfig::default());
    for _ in 0..20 {
        bench.runtime.advance(MINUTE);
        let running = bench.start("x");
        bench.runtime.settle();
        let sent = bench.link.take_one();
        assert_eq!(sent.header().session, link::SESSION);
        bench.link.apply(&sent, b"");
        bench.runtime.settle();
        assert!(running.result().is_some());
    }
}

/// Nobody keeps a session alive for ever that nobody uses, and nobody sends into one that may be gone.
#[test]
fn an_idle_session_is_left_to_expire_and_opened_anew_when_needed() {
    let bench = Bench::with_session(ClientConfig::default());
    bench.runtime.advance(ms(200_100));
    bench.link.reply(&bench.link.take_one(), Reply::SessionDone);
    bench.runtime.advance(60 * MINUTE);
    assert!(bench.link.take().is_empty(), "one keep-alive for each time of use");

    let running = bench.start("x");
    bench.runtime.settle();
    bench.link.open_session(&bench.link.take_one(), SessionId(20));
    bench.runtime.settle();
    let sent = bench.link.take_one();
    assert_eq!(sent.header().session, SessionId(20));
    bench.link.apply(&sent, b"");
    bench.runtime.settle();
    assert!(matches!(running.result(), Some(Ok(_))));
}

#[test]
fn a_keep_alive_that_finds_the_session_gone_ends_it() {
    let bench = Bench::with_session(ClientConfig::default());
    bench.runtime.advance(ms(200_100));
    bench.link.reply(&bench.link.take_one(), Reply::SessionExpired);
    let _running = bench.start("x");
    bench.runtime.settle();
    assert_eq!(bench.link.take_one().kind(), EntryKind::SessionOpen);
}

#[test]
fn a_keep_alive_is_retried_like_any_request() {
    let bench = Bench::with_session(ClientConfig::default());
    bench.runtime.advance(ms(200_100));
    bench.link.not_leader(&bench.link.take_one(), Some(B));
    bench.runtime.settle();
    let again = bench.link.take_one();
    assert_eq!((again.to, again.kind()), (B, EntryKind::SessionKeepAlive));
    // Without any answer it gives up in time, and the session is not used any more.
    bench.runtime.advance(10 * MINUTE);
    bench.link.take();
    let _running = bench.start("x");
    bench.runtime.settle();
    assert_eq!(bench.link.take_one().kind(), EntryKind::SessionOpen);
    assert_eq!(bench.client.stats().open, 2);
}

#[test]
fn requests_without_a_session_keep_none_alive() {
    let bench = Bench::new();
    let options = RequestOptions::new(0).idempotent();
    let running = bench.runtime.start(bench.client.request(body("x"), options));
    bench.runtime.settle();
    bench.link.apply(&bench.link.take_one(), b"");
    bench.runtime.advance(60 * MINUTE);
    assert!(running.result().is_some() && bench.link.take().is_empty());
    assert_eq!(bench.runtime.next_timer(), None, "an idle client sets no timer");
}
