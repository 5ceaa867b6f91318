//! What a client does when the servers say who leads, before anybody who is asked does.

mod common;

use common::{A, B, Bench, C, ms};
use graft_client::{ClientConfig, RequestError};
use graft_core::LinkError;

/// The story: a leader was killed, and its client noticed nothing for as long as one server may be silent, though the
/// others had another leader long before, and had said so.
#[test]
fn what_the_former_leader_has_not_answered_is_asked_of_the_new_one_at_once() {
    let bench = Bench::with_session(ClientConfig::default());
    let [x, y] = [bench.start("x"), bench.start("y")];
    bench.runtime.settle();
    assert_eq!(bench.link.take().iter().map(|sent| sent.to).collect::<Vec<_>>(), [A, A]);
    bench.link.replies().on_leader(C);
    bench.runtime.settle();
    let again = bench.link.take();
    let asked: Vec<_> = again.iter().map(|sent| (sent.to, sent.body())).collect();
    assert_eq!(asked, [(C, "x"), (C, "y")]);
    again.iter().for_each(|sent| bench.link.apply(sent, b""));
    bench.runtime.settle();
    assert!(x.result().is_some() && y.result().is_some());
    assert_eq!(bench.client.leader(), Some(C));
}

/// The story: a leader was killed, and its client had no way to the next one yet. It went round the others until it came to
/// the dead one, whose connection nobody had missed so far, and waited there for as long as one may be silent, and
/// once more, though it had reached the leader within milliseconds.
#[test]
fn what_a_silent_server_was_asked_meanwhile_is_asked_of_the_leader_once_it_is_reached() {
    let bench = Bench::with_session(ClientConfig::default());
    let x = bench.start("x");
    bench.runtime.settle();
    assert_eq!(bench.link.take_one().to, A);
    bench.link.set_servers(&[A, B]);
    bench.link.set_errors(&[LinkError::Unreachable(C)]);
    bench.link.replies().on_leader(C);
    bench.runtime.settle();
    assert_eq!(bench.link.take_one().to, A, "somebody may know another leader");
    bench.link.set_servers(&[A, B, C]);
    bench.link.set_errors(&[]);
    bench.link.replies().on_leader(C);
    bench.runtime.settle();
    let sent = bench.link.take_one();
    assert_eq!((sent.to, sent.body()), (C, "x"));
    bench.link.apply(&sent, b"");
    bench.runtime.settle();
    assert!(x.result().is_some());
}

#[test]
fn who_waits_for_a_leader_goes_to_the_one_that_is_named() {
    let bench = Bench::with_session(ClientConfig::default());
    let _x = bench.start("x");
    bench.runtime.settle();
    bench.link.not_leader(&bench.link.take_one(), None);
    bench.runtime.settle();
    assert_eq!(bench.link.take().len(), 0, "nobody knows a leader: it waits");
    bench.link.replies().on_leader(B);
    bench.runtime.settle();
    assert_eq!(bench.link.take_one().to, B);
}

#[test]
fn a_leader_that_is_known_is_no_news() {
    let bench = Bench::with_session(ClientConfig::default());
    let x = bench.start("x");
    bench.runtime.settle();
    let sent = bench.link.take_one();
    bench.link.replies().on_leader(sent.to);
    bench.runtime.settle();
    assert_eq!(bench.link.take().len(), 0);
    bench.link.apply(&sent, b"");
    bench.runtime.advance(ms(1));
    assert!(x.result().is_some());
}

/// Whoever answers as the leader does is one, whoever was named before.
#[test]
fn what_is_at_the_leader_is_not_sent_to_it_again() {
    let bench = Bench::with_session(ClientConfig::default());
    let (x, _y) = (bench.start("x"), bench.start("y"));
    bench.runtime.settle();
    let sent = bench.link.take();
    assert!(sent.len() == 2 && sent.iter().all(|sent| sent.to == A));
    bench.link.replies().on_leader(C);
    bench.link.apply(&sent[1], b"");
    bench.runtime.settle();
    assert!(bench.link.take().is_empty(), "the leader has it already");
    bench.link.apply(&sent[0], b"");
    bench.runtime.settle();
    assert!(x.result().is_some());
}

#[test]
fn a_leader_that_is_gone_as_soon_as_it_was_named_takes_nothing_from_others() {
    let bench = Bench::with_session(ClientConfig::default());
    let _x = bench.start("x");
    bench.runtime.settle();
    assert_eq!(bench.link.take_one().to, A);
    bench.link.replies().on_leader(C);
    bench.link.replies().on_server_gone(C);
    bench.runtime.settle();
    assert!(bench.link.take().is_empty(), "it may be answered where it is");
}

#[test]
fn who_is_named_a_leader_at_the_deadline_is_not_told_that_there_is_none() {
    let bench = Bench::with_session(ClientConfig { deadline: ms(1005), ..Default::default() });
    let x = bench.start("x");
    bench.runtime.settle();
    let sent = bench.link.take_one();
    bench.runtime.advance(ms(1006));
    bench.link.not_leader(&sent, Some(B));
    bench.runtime.settle();
    let error = x.error();
    assert!(matches!(error, RequestError::Timeout { .. }), "{error:?}");
}
