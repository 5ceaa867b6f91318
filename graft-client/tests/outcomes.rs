//! Each way a request can fail, and what is then known: the rows of the table in `RequestError`'s docs
//! that the client itself brings about.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{A, B, Bench, C, body, link, ms};
use graft_client::{ClientConfig, HEADER_BYTES, Outcome, RequestError, RequestOptions};
use graft_core::{LinkError, RejectReason, Reply};

#[track_caller]
fn assert_fails(error: &RequestError, outcome: Outcome, retryable: bool) {
    assert_eq!((error.outcome(), error.is_retryable()), (outcome, retryable), "{error}");
}

#[test]
fn an_invalid_entry_is_not_applied() {
    let bench = Bench::with_session(ClientConfig::default());
    let running = bench.start("x");
    bench.runtime.settle();
    let reason = "bad bytes".to_string();
    bench.link.reject(&bench.link.take_one(), RejectReason::Invalid(reason.clone()));
    bench.runtime.settle();
    assert_eq!(running.error(), RequestError::InvalidEntry { reason });
    assert_fails(&running.error(), Outcome::NotApplied, false);
}

/// Where an earlier attempt may have been taken in, "never" is not known.
#[test]
fn an_entry_called_invalid_after_it_may_have_been_taken_in_stays_unknown() {
    let bench = Bench::with_session(ClientConfig::default());
    let running = bench.start("x");
    bench.runtime.settle();
    let lost = RejectReason::LeadershipLost(link::hint(Some(B)));
    bench.link.reject(&bench.link.take_one(), lost);
    for _ in 0..600 {
        bench.runtime.advance(ms(10));
        for sent in bench.link.take() {
            bench.link.reject(&sent, RejectReason::Invalid("unknown version".into()));
        }
    }
    assert_fails(&running.error(), Outcome::Unknown, false);
}

#[test]
fn an_entry_over_the_size_limit_is_not_applied() {
    let bench = Bench::with_session(ClientConfig::default());
    let running = bench.start("x");
    bench.runtime.settle();
    let (bytes, limit) = (2000, 1000);
    bench.link.reject(&bench.link.take_one(), RejectReason::TooLarge { bytes, limit });
    bench.runtime.settle();
    assert_eq!(running.error(), RequestError::EntryTooLarge { bytes, limit });
    assert_fails(&running.error(), Outcome::NotApplied, false);
}

#[test]
fn a_buffer_without_room_for_the_header_is_an_invalid_entry() {
    let bench = Bench::new();
    let short = vec![0; HEADER_BYTES - 1];
    let running = bench.runtime.start(bench.client.request(short, RequestOptions::new(1)));
    bench.runtime.settle();
    assert!(matches!(running.error(), RequestError::InvalidEntry { .. }));
    assert!(bench.link.take().is_empty());
}

#[test]
fn a_panic_of_the_machine_is_applied() {
    let bench = Bench::with_session(ClientConfig::default());
    let running = bench.start("x");
    bench.runtime.settle();
    let message = Bytes::from_static(b"division by zero");
    bench.link.reply(&bench.link.take_one(), Reply::Panicked(message));
    bench.runtime.settle();
    let message = "division by zero".to_string();
    assert_eq!(running.error(), RequestError::MachinePanicked { message });
    assert_fails(&running.error(), Outcome::Applied, false);
}

#[test]
fn a_response_that_is_too_large_is_applied_and_not_waited_for() {
    for sessioned in [false, true] {
        let bench =
            if sessioned { Bench::with_session(ClientConfig::default()) } else { Bench::new() };
        let running = if sessioned { bench.start("x") } else { bench.start_plain("x") };
        bench.runtime.settle();
        let (bytes, limit) = (20 << 20, 16 << 20);
        bench.link.reply(&bench.link.take_one(), Reply::ResponseTooLarge { bytes, limit });
        bench.runtime.settle();
        assert_eq!(running.error(), RequestError::ResponseTooLarge { bytes, limit });
        assert_fails(&running.error(), Outcome::Applied, false);
        let text = running.error().to_string();
        assert!(text.contains("was applied") && text.contains("answer in parts"), "{text}");
    }
}

#[test]
fn without_a_leader_until_the_deadline_it_is_not_applied() {
    for sessioned in [false, true] {
        let bench = Bench::new();
        let running = if sessioned { bench.start("x") } else { bench.start_plain("x") };
        while running.result().is_none() {
            bench.runtime.advance(ms(1));
            for sent in bench.link.take() {
                bench.link.not_leader(&sent, None);
            }
        }
        assert!(
            matches!(running.error(), RequestError::NoLeader { waited } if waited >= ms(5000)),
            "{:?}",
            running.error()
        );
        assert_fails(&running.error(), Outcome::NotApplied, true);
        assert!(bench.runtime_now() <= ms(5020), "the deadline is 5 s");
    }
}

#[test]
fn an_overload_until_the_deadline_is_not_applied() {
    let bench = Bench::with_session(ClientConfig::default());
    let running = bench.start("x");
    while running.result().is_none() {
        bench.runtime.advance(ms(1));
        for sent in bench.link.take() {
            bench.link.reject(&sent, RejectReason::Overloaded);
        }
    }
    assert_eq!(running.error(), RequestError::Overloaded);
    assert_fails(&running.error(), Outcome::NotApplied, true);
}

#[test]
fn too_many_that_wait_here_is_an_overload_at_once() {
    let config = ClientConfig { max_waiting: 3, ..ClientConfig::default() };
    let bench = Bench::with(config);
    let mut running: Vec<_> = (0..5).map(|i| bench.start(&i.to_string())).collect();
    bench.runtime.settle();
    for refused in running.split_off(3) {
        assert_fails(&refused.error(), Outcome::NotApplied, true);
        assert_eq!(refused.error(), RequestError::Overloaded);
    }
    bench.link.open_session(&bench.link.take_one(), link::SESSION);
    bench.runtime.settle();
    let sent: Vec<_> = bench.link.take().iter().map(|sent| sent.body().to_string()).collect();
    assert_eq!(sent, ["0", "1", "2"], "those that waited go in their order");
}

#[test]
fn idempotent_requests_are_bounded_too() {
    let config = ClientConfig { max_waiting: 2, session_window: 3, ..ClientConfig::default() };
    let bench = Bench::with(config);
    let mut running: Vec<_> = (0..6).map(|i| bench.start_plain(&i.to_string())).collect();
    bench.runtime.settle();
    assert_eq!(running.pop().unwrap().error(), RequestError::Overloaded);
    assert_eq!(bench.link.take().len(), 5);
}

#[test]
fn a_timeout_of_what_was_never_handed_over_is_not_applied() {
    let bench = Bench::new();
    bench.link.set_errors(&[A, B, C].map(LinkError::Unreachable));
    for running in [bench.start("x"), bench.start_plain("y")] {
        bench.runtime.advance(ms(5020));
        let outcome = Outcome::NotApplied;
        assert!(
            matches!(running.error(), RequestError::Timeout { outcome: found, .. } if found == outcome)
        );
        assert_fails(&running.error(), outcome, true);
    }
}

#[test]
fn a_timeout_while_the_session_is_being_opened_is_not_applied() {
    let bench = Bench::new();
    let running = bench.start("x");
    bench.runtime.advance(ms(5020));
    assert!(matches!(running.error(), RequestError::Timeout { .. }));
    assert_fails(&running.error(), Outcome::NotApplied, true);
}

/// The story: the first server named the leader, which was asked for a session and was silent. Those who
/// waited for the session were told that nobody leads, by the word of the server that had said who does.
#[test]
fn a_leader_that_is_silent_is_a_timeout_also_for_those_who_wait_for_a_session() {
    let config =
        ClientConfig { deadline: ms(900), attempt_timeout: ms(5_000), ..ClientConfig::default() };
    let bench = Bench::with(config);
    let running = bench.start("x");
    bench.runtime.settle();
    bench.link.not_leader(&bench.link.take_one(), Some(C));
    bench.runtime.settle();
    assert_eq!(bench.link.take_one().to, C);
    bench.runtime.advance(ms(1_000));
    let error = running.error();
    assert!(matches!(error, RequestError::Timeout { .. }), "{error}");
    assert_fails(&error, Outcome::NotApplied, true);
}

#[test]
fn a_server_that_says_the_deadline_has_passed_did_nothing() {
    let bench = Bench::with_session(ClientConfig::default());
    let running = bench.start("x");
    bench.runtime.advance(ms(1000));
    bench.link.reject(&bench.link.take_one(), RejectReason::DeadlinePassed);
    bench.runtime.settle();
    assert!(matches!(running.error(), RequestError::Timeout { .. }));
    assert_fails(&running.error(), Outcome::NotApplied, true);
}

#[test]
fn a_timeout_with_no_answer_at_all_is_unknown() {
    let bench = Bench::with_session(ClientConfig::default());
    let running = bench.start("x");
    bench.runtime.advance(ms(4999));
    assert!(running.result().is_none());
    bench.runtime.advance(ms(21));
    let error = running.error();
    assert!(matches!(error, RequestError::Timeout { waited, .. } if waited >= ms(5000)));
    assert_fails(&error, Outcome::Unknown, false);
}

/// Each way in which an attempt may have been taken in makes the request unknown, whatever later
/// attempts are told.
#[test]
fn a_timeout_after_an_attempt_that_may_have_been_taken_in_is_unknown() {
    type Act = fn(&Bench, &link::Sent);
    let acts: [Act; 4] = [
        |bench, sent| bench.link.reject(sent, RejectReason::LeadershipLost(link::hint(None))),
        |bench, sent| bench.link.reject(sent, RejectReason::Stopping { proposed: true }),
        |bench, sent| bench.link.replies().on_server_gone(sent.to),
        |bench, _| bench.runtime.advance(ms(1250)),
    ];
    for act in acts {
        let bench = Bench::with_session(ClientConfig::default());
        let running = bench.start("x");
        bench.runtime.settle();
        act(&bench, &bench.link.take_one());
        while running.result().is_none() {
            bench.runtime.advance(ms(1));
            for sent in bench.link.take() {
                bench.link.not_leader(&sent, None);
            }
        }
        assert!(matches!(running.error(), RequestError::Timeout { .. }));
        assert_fails(&running.error(), Outcome::Unknown, false);
    }
}

#[test]
fn a_session_that_expired_leaves_its_commands_unknown() {
    let bench = Bench::with_session(ClientConfig::default());
    let running = bench.start("x");
    bench.runtime.settle();
    bench.link.reply(&bench.link.take_one(), Reply::SessionExpired);
    bench.runtime.settle();
    assert_eq!(running.error(), RequestError::SessionExpired);
    assert_fails(&running.error(), Outcome::Unknown, false);
}

#[test]
fn a_shutdown_leaves_unknown_what_was_sent_and_not_applied_what_was_not() {
    let bench = Bench::with_session(ClientConfig { session_window: 1, ..ClientConfig::default() });
    let (sent, waits) = (bench.start("sent"), bench.start("waits"));
    bench.runtime.settle();
    bench.client.shutdown();
    let late = bench.start("late");
    bench.runtime.settle();
    for (running, outcome) in
        [(sent, Outcome::Unknown), (waits, Outcome::NotApplied), (late, Outcome::NotApplied)]
    {
        assert_eq!(running.error(), RequestError::Shutdown { outcome });
        assert_fails(&running.error(), outcome, outcome == Outcome::NotApplied);
    }
}

#[test]
fn a_deadline_of_its_own_holds_for_a_request() {
    let bench = Bench::with_session(ClientConfig::default());
    let quick = bench.runtime.start(bench.request("x").deadline(ms(100)));
    let options = RequestOptions::new(0).idempotent().deadline(ms(200));
    let plain = bench.runtime.start(bench.client.request(body("y"), options));
    let endless = bench.runtime.start(bench.request("z").deadline(Duration::MAX));
    bench.runtime.advance(ms(99));
    let deadlines: Vec<_> = bench.link.take().iter().map(|sent| sent.request.deadline).collect();
    assert_eq!(&deadlines[..2], [ms(100), ms(200)], "the servers are told");
    assert!(quick.result().is_none());
    bench.runtime.advance(ms(21));
    assert!(matches!(quick.error(), RequestError::Timeout { .. }) && plain.result().is_none());
    bench.runtime.advance(ms(100));
    assert!(matches!(plain.error(), RequestError::Timeout { .. }));
    bench.runtime.advance(Duration::from_secs(1000));
    assert!(endless.result().is_none());
}

#[test]
fn a_deadline_that_has_passed_before_it_began_times_out() {
    let bench = Bench::with_session(ClientConfig::default());
    let running = bench.runtime.start(bench.request("x").deadline(Duration::ZERO));
    bench.runtime.settle();
    assert!(matches!(running.error(), RequestError::Timeout { .. }));
    assert_fails(&running.error(), Outcome::NotApplied, true);
    assert!(bench.link.take().is_empty(), "it is not even sent");
}
