//! How much of what clients ask the server takes upon itself at once: a request counts from when it is let in until
//! it is answered.
//!
//! Who has used up its share is not listened to until some of it is answered. What it sends meanwhile waits on its own
//! side, because QUIC's windows fill up; so a flood takes the memory of the one who makes it. Between clients that
//! wait the turn goes round: each comes with one part of what it has sent, and the one that came first is let in first.
//!
//! What is let in is served in its order, so whoever asks stands behind all of it. One client alone may have its whole
//! share in; while others ask as well, all together have about as much as keeps the server busy, or who asks for little
//! would wait for long behind those who ask for much. An equal part of that is anybody's in any case, and so is one part
//! of a share or one request, however many they are.
//!
//! A server answers every request that reached it, with a refusal if need be. So it is enough to count: of several
//! requests of one client it does not matter which was answered.

use std::{
    mem,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use graft_core::Request;
use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};

use super::{config::Bounds, stats::Counter};

/// What a small request takes on its way through a server beside its own bytes: its places in queues, in the log, among
/// those who wait for an answer, and the answer.
const LEAST_BYTES: usize = 1 << 10;

/// Of so many parts a share is made: requests are let in by the part, so that nobody whose turn it is holds up the others
/// for long.
const PARTS: u32 = 16;

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
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Open {
    requests: u64,
    bytes: u64,
    /// Whether somebody waits to get more in.
    waits: bool,
    /// Whether it is one of [`Intake::busy`].
    busy: bool,
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
            begun: Instant::now(),
            asking: Mutex::default(),
            busy: AtomicU32::new(0),
        }
    }

    /// The share of a client that has just come.
    pub(super) fn share(&self) -> Share {
        Share { most: self.share, open: Mutex::default(), answered: Notify::new() }
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
        while !self.has_place(share, bytes) {
            wait();
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
        self.note(&mut open);
    }

    /// Whether a client may have so much more in now. One that has nothing in may.
    fn has_place(&self, share: &Share, bytes: u32) -> bool {
        let mut open = share.lock();
        open.waits = true;
        self.note(&mut open);
        // One who may come in at once is one of those who ask all the same.
        let clients = self.count(&mut open);
        if open.bytes == 0 {
            return true;
        }
        let bytes = u64::from(bytes);
        let own = open.bytes + bytes;
        if clients == 1 {
            return own <= u64::from(share.most);
        }
        let part = (self.contended / clients).clamp(share.most / PARTS, share.most);
        own <= u64::from(part) || self.has_in() + bytes <= u64::from(self.contended.min(share.most))
    }

    /// What all have in together.
    fn has_in(&self) -> u64 {
        u64::from(self.most).saturating_sub(self.room.available_permits() as u64)
    }

    /// How many clients ask or wait for answers, this one included.
    fn count(&self, open: &mut Open) -> u32 {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock, or one who read it first and came last would turn the time back.
        let spans = self.begun.elapsed().as_millis() / RECENT.as_millis();
        let span = u64::try_from(spans).unwrap_or(u64::MAX);
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

    /// So many requests of this client were answered.
    pub(super) fn answered(&self, share: &Share, requests: usize) {
        let mut open = share.lock();
        let bytes = open.answer(requests as u64);
        self.note(&mut open);
        drop(open);
        self.release(share, bytes);
    }

    /// Nothing of this client will be answered any more.
    pub(super) fn forget(&self, share: &Share) {
        let mut open = share.lock();
        let bytes = mem::take(&mut open.bytes);
        open.requests = 0;
        open.waits = false;
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
    /// How many of the first of these are let in together: a part of the share, but one in any case.
    pub(super) fn part(&self, requests: &[Request]) -> usize {
        let most = (self.most / PARTS) as usize;
        let mut bytes = 0;
        let fits = requests.iter().take_while(|request| {
            bytes += size(request);
            bytes <= most
        });
        fits.count().max(1).min(requests.len())
    }

    /// Whether nothing of it is unanswered.
    pub(super) fn is_free(&self) -> bool {
        self.lock().requests == 0
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        intake.answered(&greedy, 1);
        assert!(!poll(waits.as_mut()), "there is room for one");
        intake.answered(&greedy, 1);
        assert!(poll(waits.as_mut()));
        intake.answered(&greedy, 10);
        intake.answered(&other, 3);
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
        intake.answered(&second, 1);
        // It is none of those who wait for room, but it comes again.
        intake.answered(&greedy, 150);
        assert_eq!(fill(&intake, &greedy), 50, "all that several may have in: nobody else has any");
        assert_eq!(fill(&intake, &third), 20, "a third is its own, although nothing is left");
        intake.answered(&greedy, 50);
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
                        intake.answered(&share, 1);
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
        intake.answered(&busy, 5);
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
        intake.answered(&busy, 3);
        assert!(!poll(first.as_mut()) && !poll(second.as_mut()), "nobody passes another");
        intake.answered(&busy, 2);
        assert!(poll(first.as_mut()) && poll(second.as_mut()));
    }

    #[test]
    fn what_is_larger_than_a_share_gets_in_alone() {
        let intake = intake(100 << 10, 10 << 10);
        let share = intake.share();
        assert!(enters(&intake, &share, &requests(1, 1 << 20)));
        assert!(!enters(&intake, &share, &requests(1, 5)));
        intake.answered(&share, 1);
        assert!(enters(&intake, &share, &requests(1, 5)));
    }

    #[test]
    fn what_was_let_in_and_nobody_answers_can_be_forgotten() {
        let intake = intake(100 << 10, 10 << 10);
        let share = intake.share();
        assert!(enters(&intake, &share, &requests(3, 3000)));
        intake.answered(&share, 1);
        intake.forget(&share);
        assert!(share.is_free());
        assert_eq!(intake.room.available_permits(), 100 << 10);
        // More answers than requests are none of anybody's.
        intake.answered(&share, 5);
        assert_eq!(intake.room.available_permits(), 100 << 10);
    }

    #[test]
    fn a_part_is_a_sixteenth_of_a_share_or_one_request() {
        let share = intake(320 << 10, 160 << 10).share();
        assert_eq!(share.part(&requests(3, 5)), 3);
        assert_eq!(share.part(&requests(30, 5)), 10);
        assert_eq!(share.part(&requests(30, 1 << 20)), 1);
        assert_eq!(share.part(&requests(1, 1 << 20)), 1);
    }
}
