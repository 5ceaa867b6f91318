use std::{
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::Duration,
};

use graft_core::{EntryKind, LinkId};

use super::*;

mod model;
mod random;

const KIB: u64 = 1 << 10;

fn requests(count: usize, bytes: usize) -> Vec<Request> {
    let request = Request {
        link: LinkId(1),
        request_id: 1,
        deadline: Duration::ZERO,
        kind: EntryKind::Plain,
        payload: vec![0; bytes].into(),
    };
    vec![request; count]
}

/// A request of so many KiB, as an intake counts it.
fn large(kib: usize) -> Vec<Request> {
    let header = requests(1, 0)[0].size();
    requests(1, (kib << 10) - header)
}

/// An intake that has so many KiB in: of all, of one, of those who ask for much, and of those beside one who asks for little.
fn intake(all: u64, one: u64, contended: u64, yielding: u64) -> Intake {
    let [all, one, contended, yielding] =
        [all, one, contended, yielding].map(|kib| usize::try_from(kib * KIB).unwrap());
    Intake::new(&Bounds {
        request_bytes: all,
        client_request_bytes: one,
        contended_request_bytes: contended,
        yielding_request_bytes: yielding,
        ..Bounds::default()
    })
}

/// Who has 10 KiB in asks for little.
fn usual() -> Intake {
    intake(1280, 640, 320, 64)
}

fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// Lets as many of them in as come in at once, and says how many.
fn enters(intake: &Intake, share: &Arc<Share>, requests: &[Request]) -> usize {
    let (mut count, counter) = (0, Counter::default());
    while count < requests.len() {
        let entered = pin!(intake.let_in(share, &requests[count..], &counter));
        match poll(entered) {
            Some(more) => count += more,
            None => break,
        }
    }
    count
}

/// How many small requests a client has in once nothing more of it comes in.
fn fill(intake: &Intake, share: &Arc<Share>) -> u64 {
    enters(intake, share, &requests(2000, 5));
    has_in(share)
}

fn has_in(share: &Share) -> u64 {
    share.lock().bytes / KIB
}

fn is_empty(intake: &Intake) -> bool {
    let state = intake.lock();
    (state.all, state.much, state.busy, state.modest) == (0, 0, 0, 0)
        && state.waiting.iter().all(BTreeMap::is_empty)
}

#[tokio::test(start_paused = true)]
async fn one_that_is_alone_has_its_whole_share_in_and_is_heard_again_as_it_is_answered() {
    let intake = usual();
    let share = intake.share();
    assert_eq!(fill(&intake, &share), 640);
    let (two, counter) = (requests(2, 5), Counter::default());
    let mut waits = pin!(intake.let_in(&share, &two, &counter));
    assert!(poll(waits.as_mut()).is_none());
    intake.answered(&share, 1, 0);
    assert!(poll(waits.as_mut()).is_none(), "there is room for one, and two come together");
    intake.answered(&share, 1, 0);
    assert_eq!(poll(waits.as_mut()), Some(2));
    assert_eq!(counter.read(), 1, "it waited once");
    intake.answered(&share, 640, 0);
    assert!(is_empty(&intake));
}

#[tokio::test(start_paused = true)]
async fn several_that_ask_for_much_have_a_bounded_amount_in_together() {
    let intake = usual();
    let [first, second, third] = [(); 3].map(|()| intake.share());
    assert_eq!(fill(&intake, &first), 640);
    assert_eq!(fill(&intake, &second), 0, "the first one has too much in");
    intake.answered(&first, 600, 0);
    assert_eq!(fill(&intake, &second), 280, "what the first one leaves of what several may have");
    assert_eq!(fill(&intake, &first), 40);
    assert_eq!(fill(&intake, &third), 0);
    for share in [&first, &second] {
        intake.forget(share);
    }
    tokio::time::advance(RECENT).await;
    assert_eq!(fill(&intake, &third), 640, "it is alone now");
    intake.forget(&third);
    assert!(is_empty(&intake));
}

/// The story: only who came to ask counted, so of a server that answered nothing each that waited there was soon
/// forgotten, and the next had a whole share.
#[tokio::test(start_paused = true)]
async fn those_who_wait_for_a_slow_server_count_however_long_they_wait() {
    let intake = usual();
    let [first, second, third] = [(); 3].map(|()| intake.share());
    let (many, counter) = (requests(200, 5), Counter::default());
    assert_eq!(enters(&intake, &first, &many), 200);
    let mut waits = pin!(intake.let_in(&second, &many, &counter));
    assert_eq!(poll(waits.as_mut()), Some(20), "a part of what several may have");
    let mut waits = pin!(intake.let_in(&second, &many, &counter));
    while poll(waits.as_mut()).is_some() {
        waits.set(intake.let_in(&second, &many, &counter));
    }
    tokio::time::advance(RECENT * 10).await;
    intake.forget(&first);
    intake.forget(&second);
    assert_eq!(fill(&intake, &third), 20, "the second one waits, and has had no more");
    assert_eq!(poll(waits.as_mut()), Some(20));
    assert_eq!(fill(&intake, &third), 300);
    intake.forget(&second);
    intake.forget(&third);
    assert!(is_empty(&intake));
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_come_in_evenly_a_part_each() {
    let intake = usual();
    let shares = [(); 3].map(|()| intake.share());
    let (many, counter) = (requests(500, 5), Counter::default());
    assert_eq!(fill(&intake, &shares[0]), 640);
    let mut waiting =
        shares.each_ref().map(|share| Box::pin(intake.let_in(share, &many, &counter)));
    for waits in &mut waiting {
        assert!(poll(waits.as_mut()).is_none());
    }
    let mut order = Vec::new();
    intake.answered(&shares[0], 640, 0);
    for _ in 0..16 {
        for (number, waits) in waiting.iter_mut().enumerate() {
            if let Some(count) = poll(waits.as_mut()) {
                order.push((number, count));
                waits.set(intake.let_in(&shares[number], &many, &counter));
                assert!(poll(waits.as_mut()).is_none(), "it is another one's turn");
            }
        }
    }
    let turns = (1..17).map(|turn| turn % 3);
    assert!(order.iter().copied().eq(turns.map(|client| (client, 20))), "{order:?}");
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_little_is_let_in_at_once_and_the_others_have_little_in_meanwhile() {
    let intake = usual();
    let [first, second, modest] = [(); 3].map(|()| intake.share());
    assert_eq!(fill(&intake, &first), 640);
    assert_eq!(fill(&intake, &second), 0);
    assert_eq!(enters(&intake, &modest, &requests(10, 5)), 10, "little is anybody's");
    intake.answered(&first, 600, 0);
    assert_eq!(fill(&intake, &second), 16, "what the first one leaves of what they have beside it");
    intake.forget(&first);
    intake.forget(&second);
    assert_eq!(fill(&intake, &first), 64);
    intake.forget(&first);
    tokio::time::advance(RECENT * 3).await;
    assert_eq!(fill(&intake, &first), 64, "who waits for its answer is there, however long");
    intake.forget(&first);
    intake.answered(&modest, 10, 0);
    assert_eq!(fill(&intake, &first), 64, "and so is who was answered a moment ago");
    tokio::time::advance(PRESENT).await;
    intake.forget(&first);
    assert_eq!(fill(&intake, &first), 640, "then it is not there any more");
    intake.forget(&first);
    assert!(is_empty(&intake));
}

/// The story: each that was held back had soon asked for little for a while, and was what the others were held back for: two
/// that asked for much came to a tenth of what one came to.
#[tokio::test(start_paused = true)]
async fn who_is_held_back_does_not_become_one_that_asks_for_little() {
    let intake = usual();
    let [first, second] = [(); 2].map(|()| intake.share());
    let counter = Counter::default();
    assert_eq!(fill(&intake, &first), 640);
    for share in [&first, &second] {
        intake.forget(share);
    }
    let (much, few) = (requests(320, 5), requests(5, 5));
    for _ in 0..20 {
        assert_eq!(enters(&intake, &first, &much), 320);
        let mut waits = pin!(intake.let_in(&second, &much, &counter));
        assert!(poll(waits.as_mut()).is_none());
        tokio::time::advance(RECENT * 2).await;
        intake.answered(&first, 300, 0);
        assert_eq!(poll(waits.as_mut()), Some(20));
        // What is left of what it sent may be little.
        assert_eq!(enters(&intake, &second, &few), 5);
        assert_eq!(intake.lock().modest, 0);
        intake.answered(&second, 25, 0);
        tokio::time::advance(PRESENT / 2).await;
        assert!(intake.lock().modest_answers.is_empty());
        intake.answered(&first, 20, 0);
    }
}

/// The story: that one had asked for much was renewed by whatever it asked next.
#[tokio::test(start_paused = true)]
async fn who_asked_for_much_asks_for_little_again_once_it_has_for_a_while() {
    let intake = usual();
    let share = intake.share();
    let ask = async |count| {
        assert_eq!(enters(&intake, &share, &requests(count, 5)), count);
        let is_modest = intake.lock().modest == 1;
        tokio::time::advance(RECENT / 5).await;
        intake.answered(&share, count, 0);
        is_modest
    };
    assert!(ask(10).await);
    assert!(!ask(11).await);
    for _ in 0..4 {
        assert!(!ask(1).await);
    }
    assert!(ask(1).await);
}

#[tokio::test(start_paused = true)]
async fn who_has_asked_for_little_and_asks_for_more_yields_to_nobody_because_of_itself() {
    let intake = usual();
    let [first, second] = [(); 2].map(|()| intake.share());
    for share in [&first, &second] {
        assert_eq!(enters(&intake, share, &requests(1, 5)), 1);
        assert_eq!(intake.lock().modest, 1);
        intake.answered(share, 1, 0);
    }
    assert!(intake.yields(&first), "the second one asked for little a moment ago");
    assert_eq!(fill(&intake, &first), 64);
    assert_eq!(fill(&intake, &second), 240, "and is none of those once it asks for more");
    assert!(!intake.yields(&first));
    for share in [&first, &second] {
        intake.forget(share);
    }
    assert!(is_empty(&intake));
    tokio::time::advance(RECENT).await;
    assert_eq!(enters(&intake, &first, &requests(1, 5)), 1);
    assert_eq!(intake.lock().modest, 1, "it asks for little again");
}

/// Beside a server that is slow in any case, because its disks or its network are, the others have more in.
#[tokio::test(start_paused = true)]
async fn the_longer_an_answer_takes_in_any_case_the_less_is_yielded() {
    let intake = usual();
    let [greedy, modest] = [(); 2].map(|()| intake.share());
    let mut seen = Vec::new();
    for millis in [1, 4, 5, 100, 2] {
        assert_eq!(enters(&intake, &modest, &requests(1, 5)), 1);
        tokio::time::advance(Duration::from_millis(millis)).await;
        intake.answered(&modest, 1, 0);
        seen.push(fill(&intake, &greedy));
        intake.forget(&greedy);
        // What was measured long ago does not count.
        tokio::time::advance(Duration::from_secs(20)).await;
    }
    assert_eq!(seen, [64, 256, 320, 320, 128]);
    assert_eq!(enters(&intake, &modest, &requests(1, 5)), 1);
    intake.answered(&modest, 1, 1);
    assert_eq!(enters(&intake, &modest, &requests(1, 5)), 1);
    tokio::time::advance(Duration::from_millis(4)).await;
    intake.answered(&modest, 1, 0);
    assert_eq!(fill(&intake, &greedy), 256, "a refusal says nothing of it");
}

#[tokio::test(start_paused = true)]
async fn what_is_larger_than_all_may_have_in_comes_in_one_at_a_time() {
    let intake = usual();
    let [first, second, third, modest] = [(); 4].map(|()| intake.share());
    let counter = Counter::default();
    let (big, one) = (large(500), requests(1, 5));
    assert_eq!(enters(&intake, &modest, &one), 1);
    assert_eq!(enters(&intake, &first, &big), 1);
    let mut next = pin!(intake.let_in(&second, &big, &counter));
    assert!(poll(next.as_mut()).is_none());
    assert_eq!(enters(&intake, &modest, &one), 1, "who asks for little does not stand behind it");
    assert_eq!(enters(&intake, &third, &requests(30, 5)), 0, "who asks for much does");
    {
        // Who is gone before its turn does not keep it.
        let mut gone = pin!(intake.let_in(&third, &big, &counter));
        assert!(poll(gone.as_mut()).is_none());
    }
    let mut again = pin!(intake.let_in(&first, &big, &counter));
    assert!(
        poll(again.as_mut()).is_none(),
        "nothing comes in beside it that would keep others out"
    );
    intake.answered(&first, 1, 0);
    assert!(poll(again.as_mut()).is_none(), "the second one has had less");
    assert_eq!(poll(next.as_mut()), Some(1));
    assert!(poll(again.as_mut()).is_none());
    intake.answered(&second, 1, 0);
    assert_eq!(poll(again.as_mut()), Some(1));
    intake.answered(&first, 1, 0);
    intake.answered(&modest, 2, 0);
    assert!(is_empty(&intake));
}

#[tokio::test(start_paused = true)]
async fn what_is_larger_than_a_share_comes_in_alone() {
    let intake = usual();
    let share = intake.share();
    assert_eq!(enters(&intake, &share, &large(5000)), 1);
    assert_eq!(has_in(&share), 640);
    assert_eq!(enters(&intake, &share, &requests(1, 5)), 0);
    intake.answered(&share, 1, 0);
    assert_eq!(enters(&intake, &share, &requests(1, 5)), 1);
}

#[tokio::test(start_paused = true)]
async fn however_many_ask_for_little_those_who_ask_for_much_are_let_in_and_the_other_way_round() {
    let intake = intake(80, 640, 64, 40);
    let little = intake.share / LITTLE / KIB;
    assert_eq!(little, 1, "a share is never more than all");
    let [greedy, last] = [(); 2].map(|()| intake.share());
    let many: Vec<_> = (0..60).map(|_| intake.share()).collect();
    let (one, counter) = (requests(1, 5), Counter::default());
    assert!(many.iter().all(|share| enters(&intake, share, &one) == 1));
    let mut little = pin!(intake.let_in(&last, &one, &counter));
    assert!(poll(little.as_mut()).is_none(), "a quarter is kept for those who ask for much");
    assert_eq!(enters(&intake, &intake.share(), &one), 0, "nobody passes another of its kind");
    assert_eq!(enters(&intake, &greedy, &requests(10, 5)), 10);
    let (more, counter) = (requests(16, 5), Counter::default());
    let mut much = pin!(intake.let_in(&greedy, &more, &counter));
    assert!(poll(much.as_mut()).is_none(), "all is used up");
    intake.answered(&many[0], 1, 0);
    assert_eq!(poll(little.as_mut()), Some(1));
    assert!(poll(much.as_mut()).is_none());
    intake.answered(&greedy, 6, 0);
    assert_eq!(poll(much.as_mut()), Some(16));
}

/// The story: a client that left while it waited was counted among those who ask for ever, so nobody was alone any more.
#[tokio::test(start_paused = true)]
async fn one_who_is_gone_before_it_was_let_in_has_taken_nothing() {
    let intake = usual();
    let [busy, other] = [(); 2].map(|()| intake.share());
    assert_eq!(fill(&intake, &busy), 640);
    for share in [&busy, &other] {
        assert_eq!(enters(&intake, share, &requests(300, 5)), 0);
    }
    assert!(other.is_free());
    assert_eq!(intake.lock().busy, 1);
    intake.answered(&busy, 640, 0);
    assert!(is_empty(&intake));
    tokio::time::advance(RECENT).await;
    assert_eq!(fill(&intake, &busy), 640);
}

#[tokio::test(start_paused = true)]
async fn what_was_let_in_and_nobody_answers_can_be_forgotten() {
    let intake = usual();
    let share = intake.share();
    assert_eq!(enters(&intake, &share, &requests(3, 3000)), 3);
    intake.answered(&share, 1, 0);
    intake.forget(&share);
    assert!(share.is_free());
    assert!(is_empty(&intake));
    // More answers than requests are none of anybody's.
    intake.answered(&share, 5, 0);
    assert!(is_empty(&intake));
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_again_and_again_is_listened_to_more_slowly_until_it_is_served() {
    let intake = usual();
    let (share, rests) = (intake.share(), Counter::default());
    let answer = |refused| {
        assert_eq!(enters(&intake, &share, &requests(100, 5)), 100);
        intake.answered(&share, 100, refused);
    };
    for _ in 0..20 {
        answer(0);
    }
    for _ in 0..12 {
        answer(100);
        assert!(poll(pin!(share.rest(&rests))).is_some());
    }
    answer(100);
    assert!(poll(pin!(share.rest(&rests))).is_none());
    let began = Instant::now();
    share.rest(&rests).await;
    assert!(began.elapsed() < Duration::from_millis(260));
    answer(100);
    assert!(poll(pin!(share.rest(&rests))).is_none());
    answer(0);
    assert!(poll(pin!(share.rest(&rests))).is_some());
}

#[test]
fn clients_that_come_at_the_same_time_from_several_threads_are_counted_well() {
    let intake = intake(64, 64, 32, 16);
    let threads = [1, 1, 20, 20];
    std::thread::scope(|scope| {
        for count in threads {
            let intake = &intake;
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
                let (share, counter) = (intake.share(), Counter::default());
                let all = requests(count, 5);
                let asks = async {
                    for _ in 0..2000 {
                        let mut left = count;
                        while left > 0 {
                            let came = intake.let_in(&share, &all[..left], &counter).await;
                            left -= came;
                            intake.answered(&share, came, 0);
                        }
                    }
                };
                runtime.unwrap().block_on(asks);
            });
        }
    });
    assert!(is_empty(&intake));
}
