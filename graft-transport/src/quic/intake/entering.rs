//! Whose turn it is to be let in.

use std::sync::{Arc, MutexGuard};

use graft_core::Request;
use tokio::time::Instant;

use super::{Intake, Open, Share, State, size, wake_next};

/// What those who ask for much may have in is let in by so many parts, so that nobody whose turn it is holds up the others
/// for long.
const PARTS: u64 = 16;

/// A part need not be smaller than this.
const LEAST_PART: u64 = 16 << 10;

/// A place among those who wait, in fair queuing: by how much will have been let in of its client, where one that has just come
/// begins where the others have got to. So each gets the same, whatever size its requests have, and who wants least comes
/// first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Place {
    end: u64,
    number: u64,
    begin: u64,
}

/// One who is to be let in, until it is or does not want to any more.
pub(super) struct Entering<'a> {
    intake: &'a Intake,
    share: &'a Arc<Share>,
    /// Whether it has more than little in with what it asks for.
    wants_much: bool,
    /// Its place and whether it asks for much, once it waits.
    waits: Option<(bool, Place)>,
}

impl<'a> Entering<'a> {
    pub(super) const fn new(intake: &'a Intake, share: &'a Arc<Share>) -> Self {
        Self { intake, share, wants_much: false, waits: None }
    }

    /// Whether it was looked at, and could not come in.
    pub(super) const fn waits(&self) -> bool {
        self.waits.is_some()
    }

    /// Lets the first of these requests in and says how many, or has them wait.
    pub(super) fn enter(&mut self, requests: &[Request]) -> Option<usize> {
        let (intake, share) = (self.intake, self.share);
        let now = Instant::now();
        let mut state = intake.lock();
        let mut open = share.lock();
        let asks_for_much = self.asks_for_much(&mut open, requests, now);
        state.see(share.number, now);
        let has_changed = state.regard(share, &mut open, asks_for_much);
        let (count, bytes, has_room) = self.part(&mut state, &open, requests, now);
        let kind = usize::from(asks_for_much);
        let place = self.waits.map_or_else(
            || {
                state.places += 1;
                let begin = open.ends[kind].max(state.reached[kind]);
                Place { end: begin + bytes, number: state.places, begin }
            },
            |(_, place)| place,
        );
        let first = state.waiting[kind].first_key_value().map(|(first, _)| *first);
        let is_next = first.is_none_or(|first| place <= first);
        let has_share = open.bytes == 0 || open.bytes + bytes <= intake.share;
        if !is_next || !has_room || !has_share {
            if self.waits.is_none() {
                state.waiting[kind].insert(place, Arc::clone(share));
                self.waits = Some((asks_for_much, place));
                open.waits = true;
            }
            state.note(&mut open);
            if has_changed {
                // It may have left room to others. If it is next itself it looks once more, in vain and no more than once.
                wake_next(state, open);
            }
            return None;
        }
        if open.requests == 0 {
            // An answer that takes longer because of what others have in says nothing of the server.
            open.since = (state.much <= intake.yielding).then_some(now);
        }
        open.requests += count as u64;
        open.bytes += bytes;
        open.ends[kind] = place.begin + bytes;
        // Also by what is let in of those who have just come, or enough of them would hold up the others for ever.
        let reached = state.reached[kind] + bytes / (state.busy as u64).max(1);
        state.reached[kind] = place.begin.max(reached);
        state.all += bytes;
        if asks_for_much {
            state.much += bytes;
        }
        self.give_up(state, open);
        Some(count)
    }

    /// Whether its client asks for much now. Who waits does not become another one meanwhile.
    fn asks_for_much(&mut self, open: &mut Open, requests: &[Request], now: Instant) -> bool {
        if self.waits.is_none() {
            let mut wants = open.bytes;
            self.wants_much = requests.iter().any(|request| {
                wants += size(request);
                wants > self.intake.little()
            });
        }
        if self.wants_much {
            open.asked_for_much = Some(now);
        }
        let lately = || open.asked_for_much_lately(now);
        self.waits.map_or_else(lately, |(asks_for_much, _)| asks_for_much)
    }

    /// How many of the first of these requests come in together, how many bytes they have, and whether there is room for them.
    fn part(
        &self,
        state: &mut State,
        open: &Open,
        requests: &[Request],
        now: Instant,
    ) -> (usize, u64, bool) {
        let intake = self.intake;
        let of_modest = state.all - state.much;
        if open.asks_for_much {
            let limit = intake.limit(state, self.share, open, now);
            let (count, bytes) = intake.part(requests, (limit / PARTS).max(LEAST_PART.min(limit)));
            // What comes in alone is not held up by those who ask for little, or they could hold it up for ever.
            let limit = limit.min(intake.most.saturating_sub(of_modest));
            (count, bytes, state.much == 0 || state.much + bytes <= limit)
        } else {
            let (count, bytes) = intake.part(requests, intake.little());
            let is_within =
                of_modest + bytes <= intake.most_of_modest && state.all + bytes <= intake.most;
            (count, bytes, of_modest == 0 || is_within)
        }
    }

    /// Waits no more, and tells those whose turn it is then.
    fn give_up(&mut self, mut state: MutexGuard<'_, State>, mut open: MutexGuard<'_, Open>) {
        if let Some((asks_for_much, place)) = self.waits.take() {
            state.waiting[usize::from(asks_for_much)].remove(&place);
            open.waits = false;
        }
        state.note(&mut open);
        wake_next(state, open);
    }
}

impl Drop for Entering<'_> {
    /// Who is gone before it was let in has taken nothing.
    fn drop(&mut self) {
        if self.waits.is_some() {
            let state = self.intake.lock();
            let open = self.share.lock();
            self.give_up(state, open);
        }
    }
}
