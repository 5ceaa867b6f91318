//! Messages in flight: one queue for each direction between two servers, whose order is only a habit.

use std::collections::VecDeque;

use fastrand::Rng;

use super::coverage::{Corner, Coverage};
use crate::PeerEnvelope;

/// A message, and the life of its receiver when it was sent.
#[derive(Clone, Debug)]
pub(super) struct Parcel {
    pub(super) envelope: PeerEnvelope,
    pub(super) life: u32,
}

/// How bad the network is, in chances of 1024.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weather {
    pub(super) loss: u32,
    pub(super) duplication: u32,
    pub(super) reordering: u32,
}

#[derive(Debug)]
pub(super) struct Network {
    size: usize,
    links: Vec<VecDeque<Parcel>>,
    /// What is sent on these is lost.
    cut: Vec<bool>,
    /// What is sent on these waits.
    frozen: Vec<bool>,
    count: usize,
    pub(super) weather: Weather,
}

impl Network {
    /// So many messages may wait on one link; more push out the oldest, like a full buffer.
    const CAPACITY: usize = 48;

    pub(super) fn new(size: usize, weather: Weather) -> Self {
        let links = (0..size * size).map(|_| VecDeque::new()).collect();
        let none = vec![false; size * size];
        Self { size, links, cut: none.clone(), frozen: none, count: 0, weather }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn send(
        &mut self,
        (from, to): (usize, usize),
        parcel: Parcel,
        rng: &mut Rng,
        coverage: &mut Coverage,
    ) {
        let link = from * self.size + to;
        if self.cut[link] {
            coverage.note(Corner::MessageCut);
        } else if rng.u32(..1024) < self.weather.loss {
            coverage.note(Corner::MessageLost);
        } else {
            self.links[link].push_back(parcel);
            self.count += 1;
            if self.links[link].len() > Self::CAPACITY {
                self.links[link].pop_front();
                self.count -= 1;
                coverage.note(Corner::MessageLost);
            }
        }
    }

    /// Some message, and to whom.
    pub(super) fn next(
        &mut self,
        rng: &mut Rng,
        coverage: &mut Coverage,
    ) -> Option<(usize, Parcel)> {
        if self.count == 0 {
            return None;
        }
        let start = rng.usize(..self.links.len());
        let mut order = (start..self.links.len()).chain(0..start);
        let link = order.find(|link| !self.links[*link].is_empty() && !self.frozen[*link])?;
        let queue = &mut self.links[link];
        let reordered = rng.u32(..1024) < self.weather.reordering;
        let at = if reordered { rng.usize(..queue.len()) } else { 0 };
        coverage.note_if(at > 0, Corner::MessageOvertaken);
        let parcel = if rng.u32(..1024) < self.weather.duplication {
            coverage.note(Corner::MessageDuplicated);
            queue[at].clone()
        } else {
            self.count -= 1;
            queue.remove(at).expect("it is there")
        };
        Some((link % self.size, parcel))
    }

    /// Cuts or freezes something around `one`, or mends everything.
    pub(super) fn change_cuts(&mut self, one: usize, rng: &mut Rng) -> String {
        let (size, kind) = (self.size, rng.u32(..10));
        if kind < 3 {
            self.mend();
            return "mend all".into();
        }
        let other = rng.usize(..size);
        if rng.bool() {
            self.mend();
        }
        let side: Vec<bool> = (0..size).map(|_| rng.bool()).collect();
        let freeze = rng.bool();
        let chosen = if freeze { &mut self.frozen } else { &mut self.cut };
        for from in 0..size {
            for to in 0..size {
                chosen[from * size + to] |= match kind {
                    3 | 4 => from == one || to == one,
                    5 => from == one && to == other,
                    6 => from == one,
                    7 => to == one,
                    _ => side[from] != side[to],
                };
            }
        }
        let what = match kind {
            3 | 4 => format!("n{} from all", one + 1),
            5 => format!("n{} > n{}", one + 1, other + 1),
            6 => format!("n{} > all", one + 1),
            7 => format!("all > n{}", one + 1),
            _ => format!("in two {side:?}"),
        };
        format!("{} {what}", if freeze { "freeze" } else { "cut" })
    }

    /// Cuts or freezes what goes between the servers of this side and the others.
    pub(super) fn divide(&mut self, side: &[bool], freeze: bool) {
        let chosen = if freeze { &mut self.frozen } else { &mut self.cut };
        for from in 0..self.size {
            for to in 0..self.size {
                chosen[from * self.size + to] |= side[from] != side[to];
            }
        }
    }

    /// What is for `one` waits.
    pub(super) fn freeze_all_to(&mut self, one: usize) {
        (0..self.size).for_each(|from| self.frozen[from * self.size + one] = true);
    }

    /// Cuts every direction by itself with a chance of `parts` in 8.
    pub(super) fn cut_at_random(&mut self, parts: u32, rng: &mut Rng) {
        self.cut.iter_mut().for_each(|cut| *cut = rng.u32(..8) < parts);
    }

    /// Cuts everything but what passes between `one` and the others.
    pub(super) fn cut_all_around(&mut self, one: usize) {
        for from in 0..self.size {
            (0..self.size).for_each(|to| {
                self.cut[from * self.size + to] = from != one && to != one;
            });
        }
    }

    /// The next message for this server in the order it was sent, if there is one.
    pub(super) fn next_for(&mut self, to: usize) -> Option<Parcel> {
        let mut links = (0..self.size).map(|from| from * self.size + to);
        let link = links.find(|link| !self.links[*link].is_empty() && !self.frozen[*link])?;
        self.count -= 1;
        self.links[link].pop_front()
    }

    /// What waited goes on.
    pub(super) fn thaw(&mut self) {
        self.frozen.fill(false);
    }

    /// Cuts what passes between `one` and all others but `friend`.
    pub(super) fn cut_off(&mut self, one: usize, friend: usize) {
        for other in (0..self.size).filter(|other| *other != friend) {
            self.cut[one * self.size + other] = true;
            self.cut[other * self.size + one] = true;
        }
    }

    /// Loses what is on its way where a cut is.
    pub(super) fn lose_cut(&mut self) {
        for (link, cut) in self.links.iter_mut().zip(&self.cut) {
            if *cut {
                self.count -= link.len();
                link.clear();
            }
        }
    }

    /// Whether both directions between these are open.
    pub(super) fn connects(&self, one: usize, other: usize) -> bool {
        one == other || !self.cut[one * self.size + other] && !self.cut[other * self.size + one]
    }

    pub(super) fn mend(&mut self) {
        self.cut.fill(false);
        self.frozen.fill(false);
    }
}
