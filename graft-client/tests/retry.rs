//! How a request finds the leader, and what sends it again.

mod common;

use bytes::Bytes;
use common::{A, B, Bench, C, link, ms};
use graft_client::{ClientConfig, Outcome, RequestError};
use graft_core::{EntryKind, LinkError, NodeId, RejectReason};

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
fn an_idempotent_request_needs_no_session() {
    let bench = Bench::new();
    let running = bench.start_plain("hello");
    bench.runtime.settle();
    let command = bench.link.take_one();
    assert_eq!((command.kind(), command.body()), (EntryKind::Plain, "hello"));
    bench.link.apply(&command, b"answer");
    bench.runtime.settle();
    assert_eq!(running.result(), Some(Ok(Bytes::from_static(b"answer"))));
    assert_eq!(bench.client.stats().sessions_opened, 0);
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
fn what_is_sent_again_is_the_same_and_where_it_is_much_the_same_buffer() {
    for entry in ["x".to_owned(), "y".repeat(16), "z".repeat(1000)] {
        let bench = Bench::with_session(ClientConfig::default());
        bench.start(&entry);
        bench.runtime.settle();
        let first = bench.link.take_one();
        bench.link.not_leader(&first, Some(B));
        bench.runtime.settle();
        let second = bench.link.take_one();
        let (first, second) = (&first.request.payload, &second.request.payload);
        assert_eq!(first, second);
        assert!(entry.len() < 1000 || first.as_ptr() == second.as_ptr());
    }
}

/// Two servers that each take the other for the leader must not keep a request busy.
#[test]
fn servers_that_name_each_other_are_not_asked_without_a_pause_for_ever() {
    let bench = Bench::with_session(ClientConfig::default());
    bench.start("x");
    let mut asked = 0;
    bench.runtime.settle();
    while let [sent] = &bench.link.take()[..] {
        asked += 1;
        let other = if sent.to == A { B } else { A };
        bench.link.not_leader(sent, Some(other));
        bench.runtime.settle();
    }
    assert_eq!(asked, 5, "the first attempt and four redirects");
    bench.runtime.advance(ms(20));
    assert_eq!(bench.link.take().len(), 1, "after a pause it goes on");
}

#[test]
fn without_a_name_the_next_server_is_asked_after_a_pause() {
    let bench = Bench::new();
    bench.start_plain("x");
    bench.runtime.settle();
    for server in [A, B, C, A] {
        let sent = bench.link.take_one();
        assert_eq!(sent.to, server);
        bench.link.not_leader(&sent, None);
        bench.runtime.settle();
        assert!(bench.link.take().is_empty(), "not without a pause");
        bench.runtime.advance(ms(90));
    }
}

#[test]
fn pauses_grow_to_their_limit_and_are_never_shorter_than_half() {
    let bench = Bench::new();
    bench.start_plain("x");
    bench.runtime.settle();
    let mut pauses = Vec::new();
    for _ in 0..12 {
        let sent = bench.link.take_one();
        bench.link.not_leader(&sent, None);
        bench.runtime.settle();
        let mut pause = 0;
        while !bench.link.has_sent() {
            bench.runtime.advance(ms(1));
            pause += 1;
        }
        pauses.push(pause);
    }
    for (pause, full) in pauses.iter().zip([10, 20, 40, 80, 160, 200, 200, 200]) {
        // The driver looks every 10 ms.
        assert!((full / 2..=full + 10).contains(pause), "{pauses:?}");
    }
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
fn where_no_server_can_be_reached_all_are_tried_again_after_a_pause() {
    let bench = Bench::new();
    bench.link.set_errors(&[A, B, C].map(LinkError::Unreachable));
    let running = bench.start_plain("x");
    bench.runtime.advance(ms(1000));
    assert!(running.result().is_none() && bench.client.stats().attempts < 60);
    bench.link.set_errors(&[]);
    bench.runtime.advance(ms(220));
    bench.link.apply(&bench.link.take_one(), b"");
    bench.runtime.settle();
    assert!(running.result().is_some());
}

#[test]
fn where_the_way_is_full_the_same_server_is_asked_after_a_pause() {
    let bench = Bench::with_session(ClientConfig::default());
    bench.link.set_errors(&[LinkError::Full(A)]);
    bench.start("x");
    bench.runtime.settle();
    bench.link.set_errors(&[]);
    bench.runtime.settle();
    assert!(bench.link.take().is_empty(), "not without a pause");
    bench.runtime.advance(ms(20));
    assert_eq!(bench.link.take_one().to, A);
}

#[test]
fn servers_that_appear_later_are_found() {
    let bench = Bench::new();
    bench.link.set_servers(&[]);
    bench.start_plain("x");
    bench.runtime.advance(ms(500));
    bench.link.set_servers(&[NodeId(9)]);
    bench.runtime.advance(ms(220));
    assert_eq!(bench.link.take_one().to, NodeId(9));
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

#[test]
fn a_command_lost_with_its_leader_is_sent_again_in_its_place() {
    let bench = Bench::with_session(ClientConfig::default());
    let running = bench.start("x");
    bench.runtime.settle();
    let first = bench.link.take_one();
    bench.link.reject(&first, RejectReason::LeadershipLost(link::hint(Some(B))));
    bench.runtime.settle();
    let second = bench.link.take_one();
    assert_eq!((second.to, second.header()), (B, first.header()));
    bench.link.apply(&second, b"once");
    bench.runtime.settle();
    assert_eq!(running.result(), Some(Ok(Bytes::from_static(b"once"))));
}

#[test]
fn a_silent_server_is_given_up_after_the_attempt_timeout() {
    let bench = Bench::with_session(ClientConfig::default());
    let running = bench.start("x");
    bench.runtime.settle();
    let first = bench.link.take_one();
    assert_eq!(first.to, A);
    bench.runtime.advance(ms(1190));
    assert!(bench.link.take().is_empty());
    bench.runtime.advance(ms(30));
    let second = bench.link.take_one();
    assert_eq!(second.header(), first.header());
    // The one that was silent just now is not the next to be asked.
    assert_ne!(second.to, A);
    bench.link.not_leader(&second, None);
    bench.runtime.advance(ms(30));
    let third = bench.link.take_one();
    assert_ne!(second.to, third.to);
    bench.link.apply(&third, b"");
    bench.runtime.settle();
    assert!(running.result().is_some());
}

/// The story: a leader that committed more slowly than an attempt may take had the same command brought back after
/// each attempt's time, put it into its log again each time, and was slower still. The simulator showed logs
/// with six times as many entries as there were commands.
#[test]
fn a_leader_that_is_slow_gets_twice_the_time_with_each_attempt() {
    let bench = Bench::with_session(ClientConfig { deadline: ms(30_000), ..Default::default() });
    let running = bench.start("x");
    bench.runtime.settle();
    let first = bench.link.take_one();
    assert_eq!(first.to, A);
    for wait in [1_200, 2_400, 4_800, 9_600] {
        bench.runtime.advance(ms(wait - 10));
        assert!(bench.link.take().is_empty(), "the leader has {wait} ms");
        bench.runtime.advance(ms(30));
        let elsewhere = bench.link.take_one();
        assert_ne!(elsewhere.to, A);
        bench.link.not_leader(&elsewhere, Some(A));
        bench.runtime.settle();
        let again = bench.link.take_one();
        assert_eq!((again.to, again.header()), (A, first.header()));
    }
    bench.link.apply(&first, b"late");
    bench.runtime.settle();
    assert_eq!(running.result(), Some(Ok(Bytes::from_static(b"late"))));
}

/// Whoever is silent and was not taken for the leader costs no more than it always did.
#[test]
fn the_search_for_a_leader_gets_no_slower_by_silence() {
    let bench = Bench::with(ClientConfig { deadline: ms(30_000), ..Default::default() });
    let _running = bench.start("x");
    bench.runtime.settle();
    for server in [A, B, C, A, B, C] {
        assert_eq!(bench.link.take_one().to, server);
        bench.runtime.advance(ms(1_190));
        assert!(bench.link.take().is_empty());
        bench.runtime.advance(ms(10));
    }
}

/// A leader that is slow, not dead: what it answers late is still the answer.
#[test]
fn an_answer_to_an_attempt_that_was_given_up_is_taken() {
    let bench = Bench::with_session(ClientConfig::default());
    let running = bench.start("x");
    bench.runtime.settle();
    let first = bench.link.take_one();
    bench.runtime.advance(ms(1300));
    bench.link.apply(&first, b"late");
    bench.runtime.settle();
    assert_eq!(running.result(), Some(Ok(Bytes::from_static(b"late"))));
}

#[test]
fn what_was_sent_to_a_server_that_is_gone_is_sent_to_the_next_at_once() {
    let bench = Bench::with_session(ClientConfig::default());
    let [_x, _y] = [bench.start("x"), bench.start("y")];
    bench.runtime.settle();
    assert_eq!(bench.link.take().len(), 2);
    bench.link.set_servers(&[B, C]);
    bench.link.replies().on_server_gone(A);
    bench.runtime.settle();
    let again = bench.link.take();
    assert_eq!(
        again.iter().map(|sent| (sent.to, sent.body())).collect::<Vec<_>>(),
        [(B, "x"), (B, "y")]
    );
}

#[test]
fn a_stopping_server_hands_its_requests_to_the_next() {
    for proposed in [false, true] {
        let bench = Bench::with_session(ClientConfig::default());
        bench.start("x");
        bench.runtime.settle();
        bench.link.reject(&bench.link.take_one(), RejectReason::Stopping { proposed });
        bench.link.set_servers(&[B, C]);
        bench.runtime.advance(ms(20));
        assert_eq!(bench.link.take_one().to, B);
    }
}

#[test]
fn idempotent_requests_are_retried_like_others() {
    let lost = RejectReason::LeadershipLost(link::hint(None));
    for reason in [lost, RejectReason::Stopping { proposed: true }, RejectReason::Overloaded] {
        let bench = Bench::new();
        let running = bench.start_plain("x");
        bench.runtime.settle();
        bench.link.reject(&bench.link.take_one(), reason);
        bench.runtime.advance(ms(20));
        bench.link.apply(&bench.link.take_one(), b"");
        bench.runtime.settle();
        assert!(matches!(running.result(), Some(Ok(_))));
    }
}

#[test]
fn a_session_full_of_replies_takes_the_command_once_it_hears_of_the_floor() {
    let bench = Bench::with_session(ClientConfig::default());
    let [x, _y] = [bench.start("x"), bench.start("y")];
    bench.runtime.settle();
    let [sent_x, sent_y] = <[_; 2]>::try_from(bench.link.take()).unwrap();
    assert_eq!(sent_y.header().floor, 2);
    bench.link.apply(&sent_x, b"");
    bench.link.reply(&sent_y, graft_core::Reply::SessionFull);
    bench.runtime.advance(ms(20));
    assert!(x.result().is_some());
    let again = bench.link.take_one();
    assert_eq!((again.body(), again.header().sequence, again.header().floor), ("y", 3, 3));
}

/// Those that wait for a leader need not sit out their pauses once one request has found it.
#[test]
fn one_that_finds_the_leader_ends_the_search_of_all() {
    let bench = Bench::new();
    let running: Vec<_> = (0..10).map(|i| bench.start_plain(&i.to_string())).collect();
    // Long enough for pauses of some 100 ms.
    for _ in 0..40 {
        bench.runtime.advance(ms(10));
        for sent in bench.link.take() {
            bench.link.not_leader(&sent, None);
        }
    }
    let mut sent = Vec::new();
    while sent.is_empty() {
        bench.runtime.advance(ms(1));
        sent = bench.link.take();
    }
    bench.link.apply(&sent[0], b"");
    for refused in &sent[1..] {
        bench.link.not_leader(refused, None);
    }
    bench.runtime.settle();
    let leader = sent[0].to;
    let rest = bench.link.take();
    assert_eq!(rest.len(), 9, "all others go on without time passing");
    for sent in rest {
        assert_eq!(sent.to, leader);
        bench.link.apply(&sent, b"");
    }
    bench.runtime.settle();
    assert!(running.iter().all(|running| matches!(running.result(), Some(Ok(_)))));
}

/// A change of leader under thousands of requests: each is sent again, and not all at one moment.
#[test]
fn thousands_that_lose_their_leader_come_back_spread_out() {
    const REQUESTS: usize = 4000;
    let bench = Bench::with_session(ClientConfig::default());
    let running: Vec<_> = (0..REQUESTS).map(|i| bench.start(&i.to_string())).collect();
    bench.runtime.settle();
    for sent in bench.link.take() {
        bench.link.reject(&sent, RejectReason::LeadershipLost(link::hint(None)));
    }
    // A second refusal makes the pauses long enough to be told apart.
    let mut moments = Vec::new();
    let mut refused = 0;
    while moments.iter().sum::<usize>() < REQUESTS {
        bench.runtime.advance(ms(1));
        let sent = bench.link.take();
        moments.push(0);
        for sent in sent {
            if refused < 3 * REQUESTS {
                refused += 1;
                bench.link.not_leader(&sent, None);
            } else {
                *moments.last_mut().unwrap() += 1;
                bench.link.apply(&sent, b"");
            }
        }
        if refused == 3 * REQUESTS && moments.iter().any(|count| *count > 0) {
            break;
        }
    }
    let at_once = moments.iter().max().unwrap();
    assert!(*at_once < REQUESTS / 2, "{at_once} of {REQUESTS} came back in one moment");
    while running.iter().any(|running| running.result().is_none()) {
        bench.runtime.advance(ms(1));
        bench.link.take().iter().for_each(|sent| bench.link.apply(sent, b""));
    }
    assert!(running.iter().all(|running| matches!(running.result(), Some(Ok(_)))));
    let attempts = bench.client.stats().attempts;
    assert!(attempts < 6 * REQUESTS as u64, "{attempts} attempts for {REQUESTS} requests");
}

/// A refusal that comes twice, the second time after the request was sent to the same server again,
/// says nothing about the attempt that is out: it must neither end it nor make it certain.
#[test]
fn a_refusal_of_an_earlier_attempt_says_nothing_of_the_one_that_is_out() {
    let bench = Bench::with_session(ClientConfig::default());
    let running = bench.start("x");
    bench.runtime.settle();
    let first = bench.link.take_one();
    bench.link.reject(&first, RejectReason::Overloaded);
    bench.runtime.advance(ms(20));
    let second = bench.link.take_one();
    assert_eq!(first.to, second.to);
    bench.link.reject(&first, RejectReason::Overloaded);
    bench.link.reject(&first, RejectReason::Invalid("late".into()));
    bench.runtime.advance(ms(1000));
    assert!(bench.link.take().is_empty() && running.result().is_none());
    bench.runtime.advance(ms(5000));
    let outcome = Outcome::Unknown;
    assert!(
        matches!(running.error(), RequestError::Timeout { outcome: found, .. } if found == outcome)
    );
}

/// The story: deadlines were shorter than an attempt may take, and the leader fell silent without a word of
/// it. Every request ended by its deadline before its attempt did, nothing was learned from that, and the next
/// one went to the same server, for ever. The simulator found it.
#[test]
fn requests_shorter_than_an_attempt_leave_a_leader_that_is_silent() {
    let bench = Bench::with_session(ClientConfig::default());
    for text in ["one", "two"] {
        let running = bench.runtime.start(bench.request(text).deadline(ms(500)));
        bench.runtime.settle();
        assert_eq!(bench.link.take_one().to, A);
        bench.runtime.advance(ms(520));
        assert_eq!(running.error().outcome(), Outcome::Unknown);
    }
    let running = bench.start("three");
    bench.runtime.settle();
    let elsewhere = bench.link.take_one();
    assert_ne!(elsewhere.to, A);
    bench.link.apply(&elsewhere, b"");
    bench.runtime.settle();
    assert!(running.result().is_some());
    assert_eq!(bench.client.leader(), Some(elsewhere.to));
}

#[test]
fn a_leader_that_answers_others_is_not_doubted_for_a_deadline() {
    let bench = Bench::with_session(ClientConfig::default());
    for text in ["one", "two", "three"] {
        let late = bench.runtime.start(bench.request(text).deadline(ms(20)));
        bench.runtime.settle();
        assert_eq!(bench.link.take_one().to, A);
        bench.runtime.advance(ms(40));
        assert_eq!(late.error().outcome(), Outcome::Unknown);
        let answered = bench.start(text);
        bench.runtime.settle();
        let sent = bench.link.take_one();
        assert_eq!(sent.to, A);
        bench.link.apply(&sent, b"");
        bench.runtime.settle();
        assert!(answered.result().is_some());
    }
}

/// The same where the session is to be opened: its opening ends by the deadline of requests.
#[test]
fn a_session_is_opened_elsewhere_where_the_first_server_is_silent() {
    let config =
        ClientConfig { deadline: ms(500), attempt_timeout: ms(5_000), ..Default::default() };
    let bench = Bench::with(config);
    let mut asked = Vec::new();
    for _ in 0..3 {
        let running = bench.start("x");
        bench.runtime.settle();
        asked.push(bench.link.take_one().to);
        bench.runtime.advance(ms(520));
        assert!(running.result().is_some());
    }
    assert_eq!(asked, [A, B, C]);
}
