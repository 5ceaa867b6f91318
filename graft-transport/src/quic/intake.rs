//! How much of what clients ask the server takes upon itself at once: a request counts from when it is let in until
//! it is answered.
//!
//! Who has used up what it may have in is not listened to until some of it is answered. What it sends meanwhile waits on
//! its own side, because QUIC's windows fill up; so a flood takes the memory of the one who makes it.
//!
//! What is let in is served in its order, so whoever asks stands behind all of it. So there are two kinds of clients, at any
//! moment. One that *asks for little* has at most a 64th of a share in, with what it asks for; it is let in at once, unless very many
//! do. All that *ask for much* have a bounded amount in together: one that is alone its whole share, several about as much as
//! keeps the server busy, and beside one that asks for little only about as much as is served while that one would have to wait
//! anyway. What is larger comes in once nothing else of theirs is in. Among those of a kind that wait each gets the same, a part at
//! a time, and neither kind can use up the other's room.
//!
//! Who is refused again and again, as one is that floods a server which does not lead, is listened to more slowly: it is
//! answered at once, so it would never have to wait, and to read what it sends costs as much as to serve it.
//!
//! A server answers every request that reached it, with a refusal if need be. So it is enough to count: of several
//! requests of one client it does not matter which was answered.

mod entering;
mod fastest;
mod refusals;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use graft_core::Request;
use tokio::{sync::Notify, time::Instant};

use self::{
    entering::{Entering, Place},
    fastest::Fastest,
    refusals::Refusals,
};
use super::{config::Bounds, stats::Counter};

/// What a small request takes on its way through a server beside its own bytes: its places in queues, in the log, among
/// those who wait for an answer, and the answer.
const LEAST_BYTES: u64 = 1 << 10;

/// Who has no more than such a part of its share in asks for little.
const LITTLE: u64 = 64;

/// Who asked for much counts as one who does for so long. Who asks for one thing after the other has nothing in
/// between an answer and the next request; were it not counted then, others would fill the server up in that moment.
const RECENT: Duration = Duration::from_millis(500);

/// Who asks for little counts for so long after it was answered. Much shorter than [`RECENT`]: one who asks once a second
/// should not keep the others from what the server can do.
const PRESENT: Duration = Duration::from_millis(100);

/// So many bytes of those who ask for much are taken to be served in a millisecond: most servers do more. What is served while
/// one who asks for little waits for the disks and the network anyway does not make it wait longer.
const SERVED_A_MILLISECOND: u64 = 64 << 10;

/// Such a part of what all may have in, or less, is kept for those who ask for much: however many ask for little, they are let in.
const KEPT_FOR_MUCH: u64 = 4;

/// All that is let in.
#[derive(Debug)]
pub(super) struct Intake {
    /// What all may have in.
    most: u64,
    /// What of it those who ask for little may have in.
    most_of_modest: u64,
    /// What one client may have in.
    share: u64,
    /// What all who ask for much may have in together while several ask.
    contended: u64,
    /// And while one asks for little.
    yielding: u64,
    state: Mutex<State>,
}

#[derive(Default, Debug)]
struct State {
    /// How many bytes are in.
    all: u64,
    /// How many of them are of those who ask for much.
    much: u64,
    /// Those who wait, in their order: who asks for little, and who asks for much.
    waiting: [BTreeMap<Place, Arc<Share>>; 2],
    /// How far those of each kind have got who were let in.
    reached: [u64; 2],
    /// How many places there were.
    places: u64,
    /// How many shares there were.
    shares: u64,
    /// How many clients have something in, or wait.
    busy: usize,
    /// How many who ask for little have something in.
    modest: usize,
    /// Who asked for little and was answered a moment ago, and when.
    modest_answers: BTreeMap<u64, Instant>,
    /// When those among them were forgotten that are too old.
    forgot: Option<Instant>,
    /// The two clients that asked last, and when.
    asked: [Option<(u64, Instant)>; 2],
    /// How soon the server has answered lately.
    fastest: Fastest,
}

/// What one client has let in.
#[derive(Debug)]
pub(super) struct Share {
    number: u64,
    /// Changed while the intake's state is locked, too.
    open: Mutex<Open>,
    /// Told when its turn may have come.
    turn: Notify,
    refusals: Refusals,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Open {
    requests: u64,
    bytes: u64,
    /// Since when the first of them is in, where none was served since.
    since: Option<Instant>,
    /// Whether somebody waits to get more in.
    waits: bool,
    asks_for_much: bool,
    /// How far it has got among those of each kind.
    ends: [u64; 2],
    /// When it last wanted more than little, or waited for it.
    asked_for_much: Option<Instant>,
    /// Whether it is one of [`State::busy`].
    is_busy: bool,
    /// Whether it is one of [`State::modest`].
    is_modest: bool,
}

impl Intake {
    pub(super) fn new(bounds: &Bounds) -> Self {
        let most = (bounds.request_bytes as u64).max(1);
        let contended = bounds.contended_request_bytes as u64;
        Self {
            most,
            most_of_modest: contended.min(most - contended.min(most / KEPT_FOR_MUCH)),
            share: (bounds.client_request_bytes as u64).clamp(1, most),
            contended,
            yielding: bounds.yielding_request_bytes as u64,
            state: Mutex::default(),
        }
    }

    /// The share of a client that has just come.
    pub(super) fn share(&self) -> Arc<Share> {
        let mut state = self.lock();
        state.shares += 1;
        Arc::new(Share {
            number: state.shares,
            open: Mutex::default(),
            turn: Notify::new(),
            refusals: Refusals::of_share(self.share),
        })
    }

    /// Waits until some of these requests of a client may be let in: at least the first. Says how many, which count from then on.
    pub(super) async fn let_in(
        &self,
        share: &Arc<Share>,
        requests: &[Request],
        waits: &Counter,
    ) -> usize {
        let mut entering = Entering::new(self, share);
        loop {
            let is_new = !entering.waits();
            if let Some(count) = entering.enter(requests) {
                return count;
            }
            if is_new {
                waits.add(1);
            }
            share.turn.notified().await;
        }
    }

    /// So many requests of this client were answered, and so many of these refused.
    pub(super) fn answered(&self, share: &Share, requests: usize, refused: usize) {
        let now = Instant::now();
        let mut state = self.lock();
        let mut open = share.lock();
        let bytes = open.answer(requests as u64);
        if refused == 0
            && let Some(since) = open.since.take()
        {
            state.fastest.note(now - since, now);
        }
        if !open.asks_for_much {
            state.note_modest_answer(share.number, now);
        }
        state.settle(&mut open, bytes);
        wake_next(state, open);
        if refused < requests {
            share.refusals.forgive();
        } else {
            share.refusals.count(bytes as f64);
        }
    }

    /// Nothing of this client will be answered any more.
    pub(super) fn forget(&self, share: &Share) {
        let mut state = self.lock();
        let mut open = share.lock();
        let requests = open.requests;
        let bytes = open.answer(requests);
        state.settle(&mut open, bytes);
        wake_next(state, open);
    }

    /// Who has no more than that in asks for little.
    const fn little(&self) -> u64 {
        self.share / LITTLE
    }

    /// Whether this client asks for much, or does once so many bytes of requests have come.
    pub(super) fn would_ask_for_much(&self, share: &Share, bytes: usize) -> bool {
        let open = share.lock();
        open.asked_for_much_lately(Instant::now()) || open.bytes + bytes as u64 > self.little()
    }

    /// Whether this client, which sends much, is to send less at once: somebody asks for little, or it is refused again and again.
    pub(super) fn yields(&self, share: &Share) -> bool {
        share.refusals.is_too_much()
            || self.lock().has_modest_beside(share, &share.lock(), Instant::now())
    }

    /// What all who ask for much may have in together, where one that does is this client.
    fn limit(&self, state: &mut State, share: &Share, open: &Open, now: Instant) -> u64 {
        if state.has_modest_beside(share, open, now) {
            let meanwhile = state.fastest.get(now).map_or(0, |fastest| {
                let micros = u64::try_from(fastest.as_micros()).unwrap_or(u64::MAX);
                micros.saturating_mul(SERVED_A_MILLISECOND) / 1000
            });
            meanwhile.max(self.yielding).min(self.contended)
        } else if state.has_others(share.number, open.is_busy, now) {
            self.contended
        } else {
            self.share
        }
    }

    /// How many of the first of these requests come in together, one in any case, and how many bytes that is.
    fn part(&self, requests: &[Request], most: u64) -> (usize, u64) {
        let (mut count, mut bytes) = (0, 0);
        for size in requests.iter().map(size) {
            if count > 0 && bytes + size > most {
                break;
            }
            count += 1;
            bytes += size;
        }
        // What is larger than a share comes in where nothing else of its client is.
        (count, bytes.min(self.share))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether other clients ask, or did a moment ago.
    fn has_others(&self, number: u64, is_busy: bool, now: Instant) -> bool {
        let is_recent = |(_, at): &(u64, Instant)| now.saturating_duration_since(*at) < RECENT;
        let mut others = self.asked.iter().flatten().filter(|(other, _)| *other != number);
        self.busy > usize::from(is_busy) || others.any(is_recent)
    }

    /// Whether somebody else asks for little, or did a moment ago.
    fn has_modest_beside(&mut self, share: &Share, open: &Open, now: Instant) -> bool {
        if self.modest > usize::from(open.is_modest) {
            return true;
        }
        let mut answers = self.modest_answers.iter();
        let is_there = answers.any(|(number, at)| *number != share.number && is_present(*at, now));
        if !is_there {
            self.modest_answers.retain(|_, at| is_present(*at, now));
        }
        is_there
    }

    /// One who asks for little is answered.
    fn note_modest_answer(&mut self, number: u64, now: Instant) {
        // There may be a thousand, so not each time.
        if !self.forgot.is_some_and(|forgot| is_present(forgot, now)) {
            self.forgot = Some(now);
            self.modest_answers.retain(|_, at| is_present(*at, now));
        }
        self.modest_answers.insert(number, now);
    }

    /// This client asks for something now.
    fn see(&mut self, number: u64, now: Instant) {
        let [last, before] = &mut self.asked;
        if last.is_some_and(|(other, _)| other != number) {
            *before = *last;
        }
        *last = Some((number, now));
    }

    /// So many bytes of a client are in no more.
    fn settle(&mut self, open: &mut Open, bytes: u64) {
        self.all -= bytes;
        if open.asks_for_much {
            self.much -= bytes;
        }
        self.note(open);
    }

    /// A client asks for much, or for little. Says whether it did not before.
    fn regard(&mut self, share: &Share, open: &mut Open, asks_for_much: bool) -> bool {
        if asks_for_much {
            // It was one who asks for little only because it had just begun.
            self.modest_answers.remove(&share.number);
        }
        let has_changed = mem::replace(&mut open.asks_for_much, asks_for_much) != asks_for_much;
        if has_changed {
            if asks_for_much {
                self.much += open.bytes;
            } else {
                self.much -= open.bytes;
            }
            self.note(open);
        }
        has_changed
    }

    /// Keeps count of those who have something in or wait.
    fn note(&mut self, open: &mut Open) {
        let is_busy = open.requests > 0 || open.waits;
        let is_modest = open.requests > 0 && !open.asks_for_much;
        count(&mut self.busy, &mut open.is_busy, is_busy);
        count(&mut self.modest, &mut open.is_modest, is_modest);
    }
}

fn is_present(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < PRESENT
}

fn count(all: &mut usize, was: &mut bool, is: bool) {
    match (mem::replace(was, is), is) {
        (false, true) => *all += 1,
        (true, false) => *all -= 1,
        _ => {}
    }
}

/// Tells those whose turn it is: one who asks for little, and one who asks for much.
fn wake_next(state: MutexGuard<'_, State>, open: MutexGuard<'_, Open>) {
    drop(open);
    let first = |waiting: &BTreeMap<_, Arc<Share>>| {
        waiting.first_key_value().map(|(_, share)| Arc::clone(share))
    };
    let next = state.waiting.each_ref().map(first);
    drop(state);
    next.into_iter().flatten().for_each(|share| share.turn.notify_one());
}

impl Share {
    /// Waits for a moment where more of it was refused than anybody is refused who behaves.
    pub(super) async fn rest(&self, rests: &Counter) {
        self.refusals.rest(rests).await;
    }

    /// Whether nothing of it is unanswered.
    pub(super) fn is_free(&self) -> bool {
        self.lock().requests == 0
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn asked_for_much_lately(&self, now: Instant) -> bool {
        self.asked_for_much.is_some_and(|at| now.saturating_duration_since(at) < RECENT)
    }

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

fn size(request: &Request) -> u64 {
    (request.size() as u64).max(LEAST_BYTES)
}
