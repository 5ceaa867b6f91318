//! What clients' large frames may hold while they come: whoever gets no room is not read, and whoever has some and does
//! not go on loses its connection.
//!
//! A frame lies in memory before anybody knows what it asks for, so the [intake](super::intake) cannot count it yet. And
//! what a connection has on its way lies here unread: were every window as wide as a fast client wants it, a thousand
//! clients could put down a gigabyte. So all begin with a narrow window. The first few that send much get a wide one,
//! for as long as they are connected; the others are let send as much more as they have room for.

use std::{mem, time::Duration};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout},
};

use super::{
    clients::ClientLine,
    config::{Bounds, Timing},
    intake::Intake,
    limits,
    stats::Counter,
    stream::{self, End, Incoming},
};
use crate::wire::v1::RefusalCode;

/// Frames of at most so many bytes need no room: less than a narrow window lets lie here anyway.
const SMALL: usize = 16 << 10;

/// How many clients have a wide window at a time.
const WIDE: usize = 8;

/// What a frame has time for, a KiB, beside what any frame has: the slowest link that is worth waiting for has 100 KB/s.
const PER_KIB: Duration = Duration::from_millis(10);

/// Such a part of all room is for those who ask for little: others hold theirs until it is their turn to be let in, and nobody who asks
/// for little is to wait for that.
const FOR_MODEST: u32 = 8;

/// The room of all clients.
#[derive(Debug)]
pub(super) struct Room {
    modest: Part,
    large: Part,
    wide: Semaphore,
}

/// Room of so many bytes.
#[derive(Debug)]
struct Part {
    free: Semaphore,
    most: u32,
}

impl Room {
    pub(super) fn new(bounds: &Bounds) -> Self {
        let most = u32::try_from(bounds.begun_bytes).unwrap_or(u32::MAX);
        let modest = most / FOR_MODEST;
        Self {
            modest: Part::new(modest),
            large: Part::new(most - modest),
            wide: Semaphore::new(WIDE),
        }
    }

    /// Waits until a frame of so many bytes has room: all there is for one that is larger than that.
    async fn acquire(&self, whole: usize, asks_for_much: bool) -> Option<SemaphorePermit<'_>> {
        let Part { free, most } = if asks_for_much { &self.large } else { &self.modest };
        let bytes = u32::try_from(whole).unwrap_or(*most).min(*most);
        // It is never closed.
        free.acquire_many(bytes).await.ok()
    }
}

impl Part {
    fn new(most: u32) -> Self {
        let most = most.max(1);
        Self { free: Semaphore::new(most as usize), most }
    }
}

/// The large frame that a client is sending, if it does.
#[derive(Debug)]
pub(super) struct Begun<'a> {
    room: &'a Room,
    line: &'a ClientLine,
    timing: Timing,
    held: Option<Held<'a>>,
    wide: Option<Wide<'a>>,
}

/// A wide window.
#[derive(Debug)]
struct Wide<'a> {
    _permit: SemaphorePermit<'a>,
    yields: bool,
}

#[derive(Debug)]
struct Held<'a> {
    _room: SemaphorePermit<'a>,
    /// How much longer the rest may take. What this side takes its time for does not count.
    left: Duration,
}

impl<'a> Begun<'a> {
    pub(super) const fn new(room: &'a Room, line: &'a ClientLine, timing: Timing) -> Self {
        Self { room, line, timing, held: None, wide: None }
    }

    /// Gives the room back: what came was let in, or has gone.
    pub(super) fn end(&mut self) {
        self.held = None;
    }

    /// Whether a large frame that is not whole yet has room.
    pub(super) const fn has_room(&self) -> bool {
        self.held.is_some()
    }

    /// Waits until more may be read.
    ///
    /// Who does not read replies is not listened to: requests that wait for it use up its memory. But the rest of a
    /// frame that has room is listened to, or others would wait for it as well.
    pub(super) async fn may_read(&mut self, incoming: &Incoming, intake: &Intake) {
        if self.held.is_some() {
            return;
        }
        self.line.queue.room().await;
        let Some((whole, missing)) = incoming.frames.begun().filter(|(whole, _)| *whole > SMALL)
        else {
            return;
        };
        let asks_for_much = intake.would_ask_for_much(&self.line.share, whole);
        let Some(room) = self.room.acquire(whole, asks_for_much).await else { return };
        let kib = u32::try_from(whole >> 10).unwrap_or(u32::MAX);
        let bytes = room.num_permits();
        self.held = Some(Held { _room: room, left: self.timing.agreement + PER_KIB * kib });
        self.widen(intake.yields(&self.line.share), missing.min(bytes));
    }

    /// Widens the window as far as it may be, or lets so many more bytes come this once.
    fn widen(&mut self, yields: bool, missing: usize) {
        if let Some(wide) = &mut self.wide {
            if mem::replace(&mut wide.yields, yields) != yields {
                limits::widen_for_client(&self.line.connection, yields);
            }
            return;
        }
        match self.room.wide.try_acquire() {
            Ok(permit) => {
                limits::widen_for_client(&self.line.connection, yields);
                self.wide = Some(Wide { _permit: permit, yields });
            }
            Err(_) => limits::allow_more(&self.line.connection, missing),
        }
    }

    /// Reads more, for as long as a frame that has room may still take.
    pub(super) async fn fill(
        &mut self,
        incoming: &mut Incoming,
        counter: &Counter,
    ) -> Result<bool, End> {
        let Some(held) = &mut self.held else { return incoming.fill(counter).await };
        let began = Instant::now();
        let patience = held.left.min(self.timing.idle_timeout);
        let Ok(filled) = timeout(patience, incoming.fill(counter)).await else {
            let text = "the rest of a frame that it began does not come: others wait for its room";
            return Err(stream::refuse(RefusalCode::TooSlow, text));
        };
        held.left = held.left.saturating_sub(began.elapsed());
        filled
    }
}
