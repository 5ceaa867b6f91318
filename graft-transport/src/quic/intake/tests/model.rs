//! A server and its clients in time that is held still: who gets how much, and who waits how long.

use std::collections::VecDeque;

use super::*;

/// A server that answers so many bytes a millisecond, in the order in which they came, and none sooner than after so many
/// milliseconds.
struct Served {
    intake: Intake,
    a_millisecond: u64,
    least: Duration,
    queue: Mutex<VecDeque<(Arc<Share>, u64, Instant)>>,
    answered: Mutex<BTreeMap<u64, u64>>,
}

impl Served {
    fn new(intake: Intake, kib_a_millisecond: u64, least: u64) -> Arc<Self> {
        let (a_millisecond, least) = (kib_a_millisecond * KIB, Duration::from_millis(least));
        let (queue, answered) = Default::default();
        let served = Arc::new(Self { intake, a_millisecond, least, queue, answered });
        tokio::spawn(Arc::clone(&served).serve());
        served
    }

    /// One of usual bounds.
    fn usual(kib_a_millisecond: u64, least: u64) -> Arc<Self> {
        Self::new(Intake::new(&Bounds::default()), kib_a_millisecond, least)
    }

    async fn serve(self: Arc<Self>) {
        let mut spent = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            spent = u64::saturating_sub(spent, self.a_millisecond);
            let mut queue = self.queue.lock().unwrap();
            while let Some((share, bytes, _)) = queue
                .pop_front_if(|(_, _, at)| spent < self.a_millisecond && at.elapsed() >= self.least)
            {
                spent += bytes;
                self.intake.answered(&share, 1, 0);
                *self.answered.lock().unwrap().entry(share.number).or_default() += bytes;
            }
        }
    }

    /// Has these requests let in.
    async fn offer(&self, share: &Arc<Share>, requests: &[Request]) {
        let (mut left, counter) = (requests, Counter::default());
        while !left.is_empty() {
            let count = self.intake.let_in(share, left, &counter).await;
            let now = Instant::now();
            let came = left[..count].iter().map(|request| (Arc::clone(share), size(request), now));
            self.queue.lock().unwrap().extend(came);
            left = &left[count..];
        }
    }

    /// The same, and waits until all are answered.
    async fn ask(&self, share: &Arc<Share>, requests: &[Request]) {
        self.offer(share, requests).await;
        while !share.is_free() {
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
    }

    /// A client that sends so many requests of so many KiB, and again before they are answered. Says its number.
    fn flood(self: &Arc<Self>, count: usize, kib: usize) -> u64 {
        let (served, share) = (Arc::clone(self), self.intake.share());
        let number = share.number;
        let requests = vec![large(kib)[0].clone(); count];
        tokio::spawn(async move {
            loop {
                served.offer(&share, &requests).await;
                tokio::task::yield_now().await;
            }
        });
        number
    }

    /// So many clients that send so many small requests, wait for all answers and then for so many milliseconds, again and
    /// again.
    fn rounds(self: &Arc<Self>, clients: u32, count: usize, pause: u32) {
        for client in 0..clients {
            let (served, share) = (Arc::clone(self), self.intake.share());
            let pause = Duration::from_millis(pause.into());
            tokio::spawn(async move {
                tokio::time::sleep(pause * client / clients).await;
                loop {
                    served.ask(&share, &requests(count, 5)).await;
                    tokio::time::sleep(pause).await;
                }
            });
        }
    }

    /// How many milliseconds half of the small requests take at most of one that asks for one after the other, with a
    /// pause in between, and 99 of a hundred.
    async fn behave(&self, seconds: u64, pause: u64) -> [u64; 2] {
        let (share, small) = (self.intake.share(), requests(1, 5));
        let mut latencies = Vec::new();
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(seconds) {
            let asked = Instant::now();
            self.ask(&share, &small).await;
            latencies.push(u64::try_from(asked.elapsed().as_millis()).unwrap());
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        latencies.sort_unstable();
        [50, 99].map(|percent| latencies[latencies.len() * percent / 100])
    }

    /// How many KiB each had answered since this was last asked.
    fn take(&self) -> BTreeMap<u64, u64> {
        let answered = mem::take(&mut *self.answered.lock().unwrap());
        answered.into_iter().map(|(number, bytes)| (number, bytes / KIB)).collect()
    }

    /// What of all it can was answered in so many seconds, in percent.
    fn busy(&self, seconds: u64) -> u64 {
        self.take().values().sum::<u64>() * KIB / (self.a_millisecond * 10 * seconds)
    }
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// However they come, those who ask for much get what the server can do, and one who asks for little waits a few milliseconds.
#[tokio::test(start_paused = true)]
async fn a_busy_server_is_kept_busy_and_who_asks_for_little_does_not_wait_for_it() {
    for (clients, count, pause) in [(4, 4_000, 0), (64, 300, 20), (2, 32_000, 300)] {
        for least in [1, 8] {
            let served = Served::usual(64, least);
            served.rounds(clients, count, pause);
            pass(1).await;
            served.take();
            pass(2).await;
            let alone = served.busy(2);
            let [_, p99] = served.behave(2, 0).await;
            let beside = served.busy(2);
            let story = format!(
                "{clients} clients, {count} KiB every {pause} ms, answers take {least} ms: {alone} % of what it can, \
                 {beside} % and {p99} ms beside one who asks for little"
            );
            println!("{story}");
            assert!(alone >= 80 && beside >= 75 && p99 <= 2 * least + 1, "{story}");
        }
    }
}

/// The story: of those who never let up nothing showed how soon the server answers at best, so what one waited who asked for little
/// was taken for that. So much was let in beside it then, and it waited as long again.
#[tokio::test(start_paused = true)]
async fn who_comes_late_to_a_flood_does_not_wait_longer() {
    for rate in [16, 64] {
        let served = Served::usual(rate, 1);
        served.flood(300, 1);
        // What was measured before is not remembered any more.
        pass(21).await;
        served.behave(1, 0).await;
        let [p50, p99] = served.behave(3, 0).await;
        assert!(p50 <= 200 / rate && p99 <= 400 / rate, "{rate} KiB/ms: {p50} and {p99} ms");
    }
}

/// The story: a turn was a part or one request, so who had large ones got three times as much as the others, or fifty times.
#[tokio::test(start_paused = true)]
async fn those_who_ask_for_much_get_the_same_whatever_size_their_requests_have() {
    for beside in [false, true] {
        let served = Served::usual(64, 1);
        let floods = [served.flood(1, 1000), served.flood(300, 1), served.flood(40, 30)];
        pass(1).await;
        served.take();
        if beside {
            let [p50, _] = served.behave(10, 0).await;
            assert!(p50 <= 3, "{p50} ms");
        } else {
            pass(10).await;
        }
        let answered = served.take();
        let each = floods.map(|number| answered[&number]);
        let most = each.into_iter().max().unwrap();
        assert!(each.iter().all(|kib| kib * 10 >= most * 8), "{each:?}, beside one: {beside}");
    }
}

/// The story: only the last who had asked for little was remembered, and forgotten once it asked for more.
#[tokio::test(start_paused = true)]
async fn clients_that_come_anew_do_not_hide_one_that_asks_for_little() {
    let served = Served::usual(64, 1);
    for _ in 0..4 {
        served.flood(300, 1);
    }
    let again = Arc::clone(&served);
    tokio::spawn(async move {
        loop {
            let share = again.intake.share();
            for count in [1, 70] {
                again.ask(&share, &requests(count, 5)).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let [p50, _] = served.behave(6, 30).await;
    assert!(p50 <= 4, "{p50} ms");
}

/// The story: who had asked for little before began where the others were, so enough of those passed one with large requests for ever.
#[tokio::test(start_paused = true)]
async fn nobody_is_passed_for_ever_by_those_who_have_just_come() {
    for anew in [false, true] {
        let served = Served::usual(16, 1);
        let flood = served.flood(1, 1000);
        for client in 0..100 {
            let served = Arc::clone(&served);
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(client * 7)).await;
                let mut share = served.intake.share();
                loop {
                    served.ask(&share, &large(1)).await;
                    served.ask(&share, &large(200)).await;
                    tokio::time::sleep(Duration::from_millis(600)).await;
                    if anew {
                        share = served.intake.share();
                    }
                }
            });
        }
        pass(5).await;
        served.take();
        pass(30).await;
        let answered = served.take();
        let mean = answered.values().sum::<u64>() / 101;
        let of_flood = answered.get(&flood).copied().unwrap_or_default();
        assert!(
            of_flood * 2 >= mean && of_flood > 0,
            "{of_flood} of {mean} KiB each; anew: {anew}"
        );
    }
}

/// The story: what is larger than all others leave had to wait until nobody else had anything in.
#[tokio::test(start_paused = true)]
async fn what_is_large_comes_in_whoever_asks_for_little() {
    for (all, clients) in [(4096, 3), (8192, 70)] {
        let served = Served::new(intake(all, 4096, 2048, 64), 64, 2);
        let floods = [served.flood(1, 4096), served.flood(300, 1)];
        served.rounds(clients, 60, 0);
        pass(1).await;
        served.take();
        pass(10).await;
        let answered = served.take();
        let each = floods.map(|number| answered.get(&number).copied().unwrap_or_default());
        assert!(each.iter().all(|kib| *kib > 10_000), "{each:?} beside {clients} of {all} KiB");
    }
}

/// Many that ask for little are much together, and are let in evenly, too: who asks for least comes first.
#[tokio::test(start_paused = true)]
async fn who_asks_for_least_does_not_stand_behind_all_who_ask_for_little() {
    for clients in [60, 150] {
        let served = Served::usual(64, 1);
        served.rounds(clients, 60, 0);
        let flood = served.flood(300, 1);
        pass(1).await;
        served.take();
        let [p50, p99] = served.behave(2, 0).await;
        assert!(p50 <= 36 && p99 <= 72, "{p50} and {p99} ms beside {clients}");
        let answered = served.take();
        let mean = answered.values().sum::<u64>() / u64::from(clients);
        assert!(answered[&flood] * 2 > mean, "{} of {mean} KiB each", answered[&flood]);
    }
}
