//! How a request finds the leader, and what sends it again.

mod common;

use bytes::Bytes;
use common::{A, B, Bench, C, link, ms};
use graft_client::ClientConfig;
use graft_core::{EntryKind, LinkError, RejectReason};

#[test]
fn the_first_request_opens_a_session_and_goes_under_it() {
    let bench = Bench::new();
    let running = bench.start("hello");
    bench.runtime.settle();
    let open = bench.link.take_one();
    assert_eq!((open.to, open.kind()), (A, EntryKind::SessionOpen));
    bench.link.open_session(&open, link::SESSION);
    bench.runtime.settle();

    let command = bench.link.take_one();
    let header = command.header();
    assert_eq!((command.to, command.body()), (A, "hello"));
    assert_eq!((header.session, header.version), (link::SESSION, 1));
    assert_eq!((header.sequence, header.floor), (1, 1));
    bench.link.apply(&command, b"answer");
    bench.runtime.settle();
    assert_eq!(running.result(), Some(Ok(Bytes::from_static(b"answer"))));
    assert_eq!(bench.client.leader(), Some(A));
}

#[test]
fn a_named_leader_is_asked_at_once_and_first_from_then_on() {
    let bench = Bench::with_session(ClientConfig::default());
    let running = bench.start("x");
    bench.runtime.settle();
    bench.link.not_leader(&bench.link.take_one(), Some(C));
    bench.runtime.settle();
    let again = bench.link.take_one();
    assert_eq!((again.to, again.body(), again.header().sequence), (C, "x", 2));
    bench.link.apply(&again, b"");
    bench.runtime.settle();
    assert!(running.result().is_some());
    bench.start("y");
    bench.runtime.settle();
    assert_eq!(bench.link.take_one().to, C);
}

#[test]
fn without_a_name_the_next_server_is_asked_after_a_pause() {
    let bench = Bench::new();
    bench.start_plain("x");
    bench.runtime.settle();
    let first = bench.link.take_one();
    assert_eq!(first.to, A);
    bench.link.not_leader(&first, None);
    bench.runtime.settle();
    assert!(bench.link.take().is_empty(), "not without a pause");
    bench.runtime.advance(ms(20));
    assert_eq!(bench.link.take_one().to, B);
}

#[test]
fn a_server_that_cannot_be_reached_is_passed_over() {
    let bench = Bench::new();
    bench.link.set_errors(&[LinkError::Unreachable(A)]);
    bench.start_plain("x");
    bench.runtime.settle();
    assert_eq!(bench.link.take_one().to, B);
}

#[test]
fn an_overloaded_leader_is_asked_again_after_a_pause() {
    let bench = Bench::with_session(ClientConfig::default());
    bench.start("x");
    bench.runtime.settle();
    bench.link.reject(&bench.link.take_one(), RejectReason::Overloaded);
    bench.runtime.settle();
    assert!(bench.link.take().is_empty(), "not without a pause");
    bench.runtime.advance(ms(20));
    assert_eq!(bench.link.take_one().to, A);
}
