//! When to look at the clock while applying.

use std::time::Duration;

use crate::Index;

/// Entries that took longer than a heartbeat.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slow {
    pub(super) first: Index,
    pub(super) last: Index,
    pub(super) took: Duration,
}

/// Decides when to look at the clock: rarely where entries are quick, after every entry where they
/// are not.
pub(super) struct Pace {
    /// How many entries to apply between two looks.
    stride: u32,
    left: u32,
    /// When it was last looked.
    pub(super) since: Duration,
    first: Index,
    /// A stretch that takes longer than this is worth a warning.
    slow_after: Duration,
    pub(super) slowest: Option<Slow>,
}

impl Pace {
    /// At this many a look costs under a nanosecond an entry.
    const MAX_STRIDE: u32 = 32;
    /// A stretch that takes longer makes the next ones one entry long.
    const LONG_STRETCH: Duration = Duration::from_micros(200);
    /// A stretch that takes less makes the next one longer.
    const SHORT_STRETCH: Duration = Duration::from_micros(50);

    pub(super) const fn new(slow_after: Duration) -> Self {
        Self {
            stride: 1,
            left: 1,
            since: Duration::ZERO,
            first: Index(0),
            slow_after,
            slowest: None,
        }
    }

    pub(super) fn begin(&mut self, now: Duration, first: Option<Index>) {
        self.left = self.stride;
        self.since = now;
        self.first = first.unwrap_or_default();
    }

    /// Counts one entry. Says whether it is time to look.
    pub(super) fn is_due(&mut self) -> bool {
        self.left -= 1;
        self.left == 0
    }

    /// Judges the stretch that ended with `last`, and gives the time back.
    pub(super) fn look(&mut self, now: Duration, last: Index) -> Duration {
        let took = now.saturating_sub(self.since);
        if took > self.slow_after && self.slowest.is_none_or(|slowest| took > slowest.took) {
            let first = self.first;
            self.slowest = Some(Slow { first, last, took });
        }
        if took > Self::LONG_STRETCH {
            self.stride = 1;
        } else if took < Self::SHORT_STRETCH && self.left == 0 {
            self.stride = (self.stride * 2).min(Self::MAX_STRIDE);
        }
        self.begin(now, Some(last.next()));
        now
    }

    /// Whether no entry was counted since the last look.
    pub(super) const fn has_just_looked(&self) -> bool {
        self.left == self.stride
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MICRO: Duration = Duration::from_micros(1);

    #[test]
    fn quick_entries_are_timed_in_stretches_and_slow_ones_each() {
        let mut pace = Pace::new(Duration::from_millis(50));
        let mut now = Duration::ZERO;
        pace.begin(now, Some(Index(1)));
        let mut index = 0;
        let mut looks = 0;
        while looks < 10 {
            index += 1;
            now += MICRO;
            if pace.is_due() {
                pace.look(now, Index(index));
                looks += 1;
            }
        }
        assert_eq!(pace.stride, Pace::MAX_STRIDE);
        now += Duration::from_millis(60);
        pace.look(now, Index(index + 9));
        assert_eq!(pace.stride, 1);
        let slow = pace.slowest.map(|slow| (slow.first, slow.last));
        assert_eq!(slow, Some((Index(index + 1), Index(index + 9))));
    }
}
