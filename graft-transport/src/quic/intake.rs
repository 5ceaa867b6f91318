//! How much of what clients ask the server takes upon itself at once: a request counts from when it is let in until
//! it is answered.
//!
//! Who has used up its share is not listened to until some of it is answered. What it sends meanwhile waits on its own
//! side, because QUIC's windows fill up; so a flood takes the memory of the one who makes it. Between clients that
//! wait the turn goes round: each comes with one part of what it has sent, and the one that came first is let in first.
//!
//! What is let in is served in its order, so whoever asks stands behind all of it. One client alone may have its whole
//! share in. While others ask as well, all together have about as much as keeps the server busy; and while one of them
//! asks for little, only about as much as it can stand behind. An equal part of that is anybody's in any case, and so is a
//! small part of a share, however many they are. What is larger than all that comes in one at a time.
//!
//! Who is refused again and again, as one is that floods a server which does not lead, is listened to more slowly: it is
//! answered at once, so it would never have to wait, and to read what it sends costs as much as to serve it.
//!
//! A server answers every request that reached it, with a refusal if need be. So it is enough to count: of several
//! requests of one client it does not matter which was answered.

use std::{
    mem,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use graft_core::Request;
use tokio::{
    sync::{Notify, Semaphore},
    time::{Instant, sleep},
};

use super::{config::Bounds, rates::Bucket, stats::Counter};

/// What a small request takes on its way through a server beside its own bytes: its places in queues, in the log, among
/// those who wait for an answer, and the answer.
const LEAST_BYTES: usize = 1 << 10;

/// Of so many parts a share is made: requests are let in by the part, so that nobody whose turn it is holds up the others
/// for long.
const PARTS: u32 = 16;

/// The same while several ask. Such a part is anybody's in any case, and who wants no more than that asks for little.
const PARTS_OF_SEVERAL: u32 = 64;

/// The same for all others while somebody asks for little.
const PARTS_BESIDE: u32 = 256;

/// Who asks for little counts for so long after it asked or was answered. Much shorter than [`RECENT`]: one who asks once a
/// second should not keep the others from what the server can do.
const PRESENT: Duration = Duration::from_millis(100);

/// So many times its share a client may be refused at once, and its share once more each second. When a leader falls all
/// that was under way is refused, here and there and perhaps again; nobody who behaves is refused so much for long.
const REFUSED_SHARES: u32 = 4;

/// Who asks counts for so long, up to twice as long. One who asks for one thing after the other has nothing in between
/// an answer and the next request: were it not counted then, others would fill the server up in that moment.
const RECENT: Duration = Duration::from_millis(500);

/// All that is let in.
#[derive(Debug)]
pub(super) struct Intake {
    room: Semaphore,
    /// How large `room` is while nothing is in it.
    most: u32,
    /// What one client may have in it.
    share: u32,
    /// What all may have in it together while several ask.
    contended: u32,
    /// And while one of them asks for little.
    yielding: u32,
    /// How many parts a share has for the one that last asked.
    parts: AtomicU32,
    /// One at a time has more in than that, because it asks for that much at once.
    beyond: Semaphore,
    /// When somebody who asks for little was last seen, in milliseconds since it began.
    modest: AtomicU64,
    begun: Instant,
    asking: Mutex<Asking>,
    /// How many clients have something in, or wait.
    busy: AtomicU32,
}

/// How many clients ask: how many did in this and in the last span of [`RECENT`].
#[derive(Clone, Copy, Default, Debug)]
struct Asking {
    span: u64,
    clients: u32,
    before: u32,
}

impl Asking {
    /// Moves on to `span`, never back.
    fn go_on(&mut self, span: u64) {
        if self.span < span {
            let before = if self.span + 1 == span { self.clients } else { 0 };
            *self = Self { span, clients: 0, before };
        }
    }
}

/// What one client has let in.
#[derive(Debug)]
pub(super) struct Share {
    most: u32,
    open: Mutex<Open>,
    /// Told when some of it was answered.
    answered: Notify,
    /// What may be refused of it before it has to wait.
    refusals: Mutex<Bucket>,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Open {
    requests: u64,
    bytes: u64,
    /// Whether somebody waits to get more in.
    waits: bool,
    /// Whether it is one of [`Intake::busy`].
    busy: bool,
    /// Whether it is the one that has more in than all may have.
    is_beyond: bool,
    /// When it last wanted more in than it would have if all had as little, since the intake began.
    greedy: Option<Duration>,
    /// When it was last counted among those who ask.
    span: Option<u64>,
}

impl Open {
    /// Takes `requests` out, with their part of the bytes.
    fn answer(&mut self, requests: u64) -> u64 {
        let bytes = if requests >= self.requests {
            self.bytes
        } else {
            let part = u128::from(self.bytes) * u128::from(requests) / u128::from(self.requests);
            u64::try_from(part).unwrap_or(self.bytes)
        };
        self.requests = self.requests.saturating_sub(requests);
        self.bytes -= bytes;
        bytes
    }
}

impl Intake {
    pub(super) fn new(bounds: &Bounds) -> Self {
        let most = u32::try_from(bounds.request_bytes).unwrap_or(u32::MAX).max(1);
        let share = u32::try_from(bounds.client_request_bytes).unwrap_or(u32::MAX).clamp(1, most);
        Self {
            room: Semaphore::new(most as usize),
            most,
            share,
            contended: u32::try_from(bounds.contended_request_bytes).unwrap_or(u32::MAX),
            yielding: u32::try_from(bounds.yielding_request_bytes).unwrap_or(u32::MAX),
            parts: AtomicU32::new(PARTS),
            beyond: Semaphore::new(1),
            modest: AtomicU64::new(0),
            begun: Instant::now(),
            asking: Mutex::default(),
            busy: AtomicU32::new(0),
        }
    }

    /// The share of a client that has just come.
    pub(super) fn share(&self) -> Share {
        Share {
            most: self.share,
            open: Mutex::default(),
            answered: Notify::new(),
            refusals: Mutex::new(Bucket::full(refused_burst(self.share), now())),
        }
    }

    /// Waits until these requests of a client may be let in, and counts them from then on.
    pub(super) async fn let_in(&self, share: &Share, requests: &[Request], waits: &Counter) {
        let bytes = requests.iter().map(size).sum::<usize>().min(share.most as usize);
        let bytes = u32::try_from(bytes).unwrap_or(share.most);
        let mut has_waited = false;
        let mut wait = || {
            if !mem::replace(&mut has_waited, true) {
                waits.add(1);
            }
        };
        let mut beyond = None;
        while !self.has_place(share, bytes) {
            wait();
            if share.lock().bytes == 0 {
                // It asks for more at once than it could ever have in beside the others.
                beyond = self.beyond.acquire().await.ok();
                break;
            }
            // Whoever waits here has something in, so it will be told.
            share.answered.notified().await;
        }
        let room = match self.room.try_acquire_many(bytes) {
            Ok(room) => Some(room),
            Err(_) => {
                wait();
                self.room.acquire_many(bytes).await.ok()
            }
        };
        // It is never closed.
        let Some(room) = room else { return };
        room.forget();
        let mut open = share.lock();
        open.requests += requests.len() as u64;
        open.bytes += u64::from(bytes);
        open.waits = false;
        if let Some(beyond) = beyond {
            beyond.forget();
            open.is_beyond = true;
        }
        self.note(&mut open);
    }

    /// Whether a client may have so much more in now.
    fn has_place(&self, share: &Share, bytes: u32) -> bool {
        let now = self.begun.elapsed();
        let mut open = share.lock();
        open.waits = true;
        self.note(&mut open);
        // One who may come in at once is one of those who ask all the same.
        let clients = self.count(&mut open, now);
        let bytes = u64::from(bytes);
        let own = open.bytes + bytes;
        let little = u64::from(share.most / PARTS_OF_SEVERAL);
        if own > little {
            open.greedy = Some(now);
        }
        let is_modest = self.sees_modest(&open, now);
        if clients == 1 {
            self.parts.store(PARTS, Ordering::Relaxed);
            return own <= u64::from(share.most);
        }
        let yields = !is_modest && self.has_modest(now);
        let (all, parts) =
            if yields { (self.yielding, PARTS_BESIDE) } else { (self.contended, PARTS_OF_SEVERAL) };
        self.parts.store(parts, Ordering::Relaxed);
        let equal_part = (all / clients).clamp(share.most / parts, share.most);
        own <= u64::from(equal_part) || self.has_in() + bytes <= u64::from(all.min(share.most))
    }

    /// Whether this client asks for little, which is remembered for a while.
    fn sees_modest(&self, open: &Open, now: Duration) -> bool {
        let is_modest = open.greedy.is_none_or(|greedy| now.saturating_sub(greedy) >= RECENT);
        if is_modest {
            self.modest.fetch_max(millis(now), Ordering::Relaxed);
        }
        is_modest
    }

    /// Whether somebody asks for little.
    fn has_modest(&self, now: Duration) -> bool {
        let ago = millis(now).saturating_sub(self.modest.load(Ordering::Relaxed));
        u128::from(ago) < PRESENT.as_millis()
    }

    /// How many of the first of these are let in together: a part of the share, but one in any case.
    pub(super) fn part(&self, share: &Share, requests: &[Request]) -> usize {
        let most = (share.most / self.parts.load(Ordering::Relaxed)) as usize;
        let mut bytes = 0;
        let fits = requests.iter().take_while(|request| {
            bytes += size(request);
            bytes <= most
        });
        fits.count().max(1).min(requests.len())
    }

    /// Whether several clients ask, as far as was seen when somebody last did.
    pub(super) fn has_several(&self) -> bool {
        self.parts.load(Ordering::Relaxed) > PARTS
    }

    /// What all have in together.
    fn has_in(&self) -> u64 {
        u64::from(self.most).saturating_sub(self.room.available_permits() as u64)
    }

    /// How many clients ask or wait for answers, this one included.
    fn count(&self, open: &mut Open, now: Duration) -> u32 {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        let span = millis(now) / millis(RECENT);
        asking.go_on(span);
        if open.span != Some(asking.span) {
            open.span = Some(asking.span);
            asking.clients += 1;
        }
        let recent = asking.clients.max(asking.before);
        recent.max(self.busy.load(Ordering::Relaxed)).max(1)
    }

    /// Keeps count of those who have something in or wait.
    fn note(&self, open: &mut Open) {
        let busy = open.requests > 0 || open.waits;
        match (mem::replace(&mut open.busy, busy), busy) {
            (false, true) => _ = self.busy.fetch_add(1, Ordering::Relaxed),
            (true, false) => _ = self.busy.fetch_sub(1, Ordering::Relaxed),
            _ => {}
        }
    }

    /// So many requests of this client were answered, and so many of these refused.
    pub(super) fn answered(&self, share: &Share, requests: usize, refused: usize) {
        let now = self.begun.elapsed();
        let mut open = share.lock();
        let bytes = open.answer(requests as u64);
        self.sees_modest(&open, now);
        self.settle(share, open, bytes);
        if refused > 0 {
            share.refuse(bytes as f64 * refused as f64 / requests as f64);
        }
    }

    /// Nothing of this client will be answered any more.
    pub(super) fn forget(&self, share: &Share) {
        let mut open = share.lock();
        let bytes = mem::take(&mut open.bytes);
        open.requests = 0;
        open.waits = false;
        self.settle(share, open, bytes);
    }

    /// So many bytes are in no more.
    fn settle(&self, share: &Share, mut open: MutexGuard<'_, Open>, bytes: u64) {
        if open.bytes == 0 && mem::take(&mut open.is_beyond) {
            self.beyond.add_permits(1);
        }
        self.note(&mut open);
        drop(open);
        self.release(share, bytes);
    }

    fn release(&self, share: &Share, bytes: u64) {
        // It was acquired, so it is a number of permits.
        let permits = usize::try_from(bytes).unwrap_or(0);
        if permits > 0 {
            self.room.add_permits(permits);
            share.answered.notify_one();
        }
    }
}

impl Share {
    /// So many bytes of it were refused, beside those of before. Says how many more may be, less than none where it has
    /// to wait.
    fn refuse(&self, bytes: f64) -> f64 {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let left = refusals.fill(f64::from(self.most), refused_burst(self.most), now());
        refusals.take(bytes);
        left - bytes
    }

    /// Waits while more of it was refused than anybody is refused who behaves.
    pub(super) async fn rest(&self, rests: &Counter) {
        let mut has_rested = false;
        loop {
            let left = self.refuse(0.0);
            if left >= 0.0 {
                return;
            }
            if !mem::replace(&mut has_rested, true) {
                rests.add(1);
            }
            sleep(Duration::from_secs_f64(-left / f64::from(self.most))).await;
        }
    }

    /// Whether nothing of it is unanswered.
    pub(super) fn is_free(&self) -> bool {
        self.lock().requests == 0
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn refused_burst(share: u32) -> f64 {
    f64::from(share) * f64::from(REFUSED_SHARES)
}

/// The time of the runtime, which tests may hold still.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}

fn size(request: &Request) -> usize {
    request.size().max(LEAST_BYTES)
}

#[cfg(test)]
mod tests {
    use std::{
        pin::{Pin, pin},
        task::{Context, Poll, Waker},
        time::Duration,
    };

    use graft_core::{EntryKind, LinkId};

    use super::*;

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

    fn intake(all: usize, one: usize) -> Intake {
        contended(all, one, all)
    }

    fn contended(all: usize, one: usize, contended: usize) -> Intake {
        Intake::new(&Bounds {
            request_bytes: all,
            client_request_bytes: one,
            contended_request_bytes: contended,
            yielding_request_bytes: contended,
            ..Bounds::default()
        })
    }

    fn poll(future: Pin<&mut impl Future<Output = ()>>) -> bool {
        future.poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    /// Lets them in, or says that they have to wait.
    fn enters(intake: &Intake, share: &Share, requests: &[Request]) -> bool {
        poll(pin!(intake.let_in(share, requests, &Counter::default())))
    }

    #[test]
    fn a_client_that_used_up_its_share_waits_until_it_is_answered_and_others_do_not() {
        let intake = intake(100 << 10, 10 << 10);
        let (greedy, other) = (intake.share(), intake.share());
        assert!(enters(&intake, &greedy, &requests(10, 5)));
        let more = requests(2, 5);
        let counter = Counter::default();
        let mut waits = pin!(intake.let_in(&greedy, &more, &counter));
        assert!(!poll(waits.as_mut()));
        assert!(enters(&intake, &other, &requests(3, 5)));
        intake.answered(&greedy, 1, 0);
        assert!(!poll(waits.as_mut()), "there is room for one");
        intake.answered(&greedy, 1, 0);
        assert!(poll(waits.as_mut()));
        intake.answered(&greedy, 10, 0);
        intake.answered(&other, 3, 0);
        assert!(greedy.is_free() && other.is_free());
        assert_eq!(intake.room.available_permits(), 100 << 10);
    }

    /// How many small requests a client gets in before it has to wait.
    fn fill(intake: &Intake, share: &Share) -> usize {
        (0..).find(|_| !enters(intake, share, &requests(1, 5))).unwrap()
    }

    fn has_in(share: &Share) -> u64 {
        share.lock().bytes >> 10
    }

    #[tokio::test(start_paused = true)]
    async fn while_others_ask_a_client_may_have_less_in_and_once_alone_again_its_whole_share() {
        let intake = contended(1 << 20, 160 << 10, 60 << 10);
        let [greedy, second, third] = [(); 3].map(|()| intake.share());
        assert_eq!(fill(&intake, &greedy), 160);
        assert!(enters(&intake, &second, &requests(1, 5)), "one who has nothing in does not wait");
        intake.answered(&second, 1, 0);
        // It is none of those who wait for room, but it comes again.
        intake.answered(&greedy, 150, 0);
        assert_eq!(fill(&intake, &greedy), 50, "all that several may have in: nobody else has any");
        assert_eq!(fill(&intake, &third), 20, "a third is its own, although nothing is left");
        intake.answered(&greedy, 50, 0);
        assert!(enters(&intake, &second, &requests(10, 5)));
        assert_eq!(fill(&intake, &greedy), 20, "what is left");
        assert_eq!([&greedy, &second, &third].map(has_in), [30, 10, 20]);
        for share in [&greedy, &second, &third] {
            intake.forget(share);
        }
        tokio::time::advance(RECENT * 2).await;
        assert_eq!(fill(&intake, &greedy), 160);
        intake.forget(&greedy);
        assert_eq!(intake.room.available_permits(), 1 << 20);
        assert_eq!(intake.busy.load(Ordering::Relaxed), 0);
    }

    /// The story: only who came to ask counted, so of a server that answered nothing each that waited there was soon
    /// forgotten, and the next had a whole share.
    #[tokio::test(start_paused = true)]
    async fn those_who_wait_for_a_slow_server_count_however_long_they_wait() {
        let intake = contended(1 << 20, 160 << 10, 60 << 10);
        let shares = [(); 3].map(|()| intake.share());
        assert_eq!(fill(&intake, &shares[0]), 160);
        for (share, part) in shares[1..].iter().zip([30, 20]) {
            tokio::time::advance(RECENT * 5).await;
            assert_eq!(fill(&intake, share), part);
        }
        intake.forget(&shares[0]);
        tokio::time::advance(RECENT * 5).await;
        assert_eq!(fill(&intake, &shares[1]), 10, "all that several may have in");
    }

    /// The story: the clock was read before the lock was taken, so one who came late turned it back; then a client that
    /// had been counted was one of none.
    #[tokio::test(start_paused = true)]
    async fn nobody_turns_the_time_back() {
        let intake = contended(1 << 20, 160 << 10, 60 << 10);
        let [share, other] = [(); 2].map(|()| intake.share());
        assert!(enters(&intake, &share, &requests(1, 5)));
        tokio::time::advance(RECENT).await;
        assert!(enters(&intake, &other, &requests(1, 5)));
        let mut asking = intake.asking.lock().unwrap();
        let now = *asking;
        asking.go_on(0);
        assert_eq!((asking.span, asking.clients), (now.span, now.clients));
        drop(asking);
        assert!(enters(&intake, &share, &requests(1, 5)));
    }

    #[test]
    fn clients_that_come_at_the_same_time_from_several_threads_are_counted_well() {
        let intake = contended(8 << 20, 4 << 20, 2 << 20);
        let until = std::time::Instant::now() + RECENT * 3;
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let (share, one) = (intake.share(), requests(1, 5));
                    while std::time::Instant::now() < until {
                        assert!(enters(&intake, &share, &one));
                        intake.answered(&share, 1, 0);
                    }
                });
            }
        });
        assert_eq!(intake.busy.load(Ordering::Relaxed), 0);
        assert_eq!(intake.room.available_permits(), 8 << 20);
    }

    #[test]
    fn one_who_is_gone_before_it_was_let_in_has_taken_nothing() {
        let intake = intake(10 << 10, 10 << 10);
        let [busy, other] = [(); 2].map(|()| intake.share());
        assert!(enters(&intake, &busy, &requests(5, 5)));
        for count in [8, 10] {
            assert!(!enters(&intake, &other, &requests(count, 5)), "for want of room");
            assert!(!enters(&intake, &busy, &requests(count, 5)), "for want of its own");
        }
        assert!(other.is_free());
        intake.forget(&other);
        intake.answered(&busy, 5, 0);
        assert_eq!(intake.room.available_permits(), 10 << 10);
    }

    #[test]
    fn where_all_is_used_up_the_one_that_came_first_is_let_in_first() {
        let intake = intake(10 << 10, 10 << 10);
        let [busy, large, small] = [(); 3].map(|()| intake.share());
        assert!(enters(&intake, &busy, &requests(10, 5)));
        let counter = Counter::default();
        let (many, one) = (requests(4, 5), requests(1, 5));
        let mut first = pin!(intake.let_in(&large, &many, &counter));
        let mut second = pin!(intake.let_in(&small, &one, &counter));
        assert!(!poll(first.as_mut()) && !poll(second.as_mut()));
        intake.answered(&busy, 3, 0);
        assert!(!poll(first.as_mut()) && !poll(second.as_mut()), "nobody passes another");
        intake.answered(&busy, 2, 0);
        assert!(poll(first.as_mut()) && poll(second.as_mut()));
    }

    #[test]
    fn what_is_larger_than_a_share_gets_in_alone() {
        let intake = intake(100 << 10, 10 << 10);
        let share = intake.share();
        assert!(enters(&intake, &share, &requests(1, 1 << 20)));
        assert!(!enters(&intake, &share, &requests(1, 5)));
        intake.answered(&share, 1, 0);
        assert!(enters(&intake, &share, &requests(1, 5)));
    }

    #[test]
    fn what_was_let_in_and_nobody_answers_can_be_forgotten() {
        let intake = intake(100 << 10, 10 << 10);
        let share = intake.share();
        assert!(enters(&intake, &share, &requests(3, 3000)));
        intake.answered(&share, 1, 0);
        intake.forget(&share);
        assert!(share.is_free());
        assert_eq!(intake.room.available_permits(), 100 << 10);
        // More answers than requests are none of anybody's.
        intake.answered(&share, 5, 0);
        assert_eq!(intake.room.available_permits(), 100 << 10);
    }

    #[test]
    fn a_part_is_a_sixteenth_of_a_share_or_less_while_several_ask_or_one_request() {
        let intake = intake(1280 << 10, 640 << 10);
        let [share, other] = [(); 2].map(|()| intake.share());
        assert_eq!(intake.part(&share, &requests(3, 5)), 3);
        assert_eq!(intake.part(&share, &requests(50, 5)), 40);
        assert_eq!(intake.part(&share, &requests(30, 1 << 20)), 1);
        assert!(enters(&intake, &share, &requests(1, 5)));
        assert!(enters(&intake, &other, &requests(1, 5)));
        assert_eq!(intake.part(&share, &requests(50, 5)), 10);
        assert_eq!(intake.part(&share, &requests(1, 1 << 20)), 1);
    }

    /// An intake that has 640 KiB in of one client, 400 of several, and 60 of those who ask for more than 10 beside others.
    fn yielding() -> Intake {
        Intake::new(&Bounds {
            request_bytes: 1 << 20,
            client_request_bytes: 640 << 10,
            contended_request_bytes: 400 << 10,
            yielding_request_bytes: 60 << 10,
            ..Bounds::default()
        })
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_for_little_stands_behind_little_and_only_while_it_is_there() {
        let intake = yielding();
        let [greedy, second, modest] = [(); 3].map(|()| intake.share());
        let forget_both = || {
            for share in [&greedy, &second] {
                intake.forget(share);
            }
        };
        assert_eq!(fill(&intake, &greedy), 640);
        assert_eq!(fill(&intake, &second), 30, "it asked for little a moment ago");
        tokio::time::advance(PRESENT).await;
        assert_eq!(fill(&intake, &second), 170, "nobody does any more: half of what several have");
        forget_both();

        assert!(enters(&intake, &modest, &requests(1, 5)));
        assert_eq!(fill(&intake, &greedy), 59, "all that is left beside who asks for little");
        assert_eq!(fill(&intake, &second), 20, "a third is its own");
        assert!(enters(&intake, &modest, &requests(9, 5)), "little is anybody's");
        forget_both();
        tokio::time::advance(PRESENT).await;
        assert_eq!(fill(&intake, &greedy), 390, "all that is left of what several have");
        forget_both();

        intake.answered(&modest, 1, 0);
        assert_eq!(fill(&intake, &greedy), 51, "whoever is answered is there still");
        assert_eq!(
            fill(&intake, &modest),
            11,
            "and has no more than the others once it asks for more"
        );
        tokio::time::advance(PRESENT).await;
        assert_eq!(fill(&intake, &greedy), 400 - 51 - 20, "then it is none that asks for little");
        forget_both();
        intake.forget(&modest);
        tokio::time::advance(RECENT).await;
        assert!(
            enters(&intake, &modest, &requests(1, 5)),
            "until it has asked for little for a while"
        );
        assert_eq!(fill(&intake, &greedy), 59);
    }

    #[test]
    fn what_is_larger_than_all_may_have_in_comes_in_one_at_a_time() {
        let intake = yielding();
        let [first, second, third, small] = [(); 4].map(|()| intake.share());
        let large = requests(1, 500 << 10);
        assert!(enters(&intake, &small, &requests(1, 5)));
        assert!(enters(&intake, &first, &large));
        let counter = Counter::default();
        let mut next = pin!(intake.let_in(&second, &large, &counter));
        assert!(!poll(next.as_mut()));
        assert!(enters(&intake, &small, &requests(1, 5)), "nothing small stands behind it");
        {
            // Who is gone before its turn does not keep it.
            let mut gone = pin!(intake.let_in(&third, &large, &counter));
            assert!(!poll(gone.as_mut()));
        }
        intake.answered(&first, 1, 0);
        assert!(poll(next.as_mut()));
        assert!(!enters(&intake, &third, &large));
        intake.forget(&second);
        assert!(enters(&intake, &third, &large));
        intake.answered(&third, 1, 0);
        intake.answered(&small, 2, 0);
        assert_eq!((intake.beyond.available_permits(), intake.has_in()), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_refused_again_and_again_is_listened_to_more_slowly() {
        let intake = intake(1 << 20, 10 << 10);
        let (share, rests) = (intake.share(), Counter::default());
        let refuse = |refused| {
            assert!(enters(&intake, &share, &requests(10, 5)));
            intake.answered(&share, 10, refused);
        };
        // Whatever is answered otherwise is free, and four shares of refusals are, too.
        for _ in 0..20 {
            refuse(0);
        }
        for _ in 0..4 {
            refuse(10);
            assert!(poll(pin!(share.rest(&rests))));
        }
        refuse(5);
        let before = Instant::now();
        share.rest(&rests).await;
        let rested = before.elapsed();
        assert!(rested >= Duration::from_millis(500) && rested < Duration::from_millis(510));
        tokio::time::advance(Duration::from_secs(60)).await;
        for _ in 0..4 {
            refuse(10);
            assert!(poll(pin!(share.rest(&rests))), "not more than four shares come together");
        }
        refuse(1);
        assert!(!poll(pin!(share.rest(&rests))));
    }
}
