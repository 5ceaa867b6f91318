//! The clocks of machines: each runs at a pace of its own over the time of the world.

use std::time::Duration;

/// A pace of one: as fast as the time of the world.
const ONE: u64 = 1 << 32;

/// A machine's monotonic clock and its wall clock.
///
/// Invariant: the monotonic clock never goes back, whatever is done to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// The moment of the last change, in the time of the world and on this clock, in nanoseconds.
    since: u64,
    shown: u64,
    /// How fast it runs, in units of `1 / ONE`.
    pace: u64,
    /// By how much the wall clock is wrong, in milliseconds.
    wall_error: i64,
}

impl Default for Clock {
    fn default() -> Self {
        Self { since: 0, shown: 0, pace: ONE, wall_error: 0 }
    }
}

impl Clock {
    /// The moment at which the world begins, in milliseconds since the Unix epoch.
    const BIRTH: u64 = 1_000_000_000_000;

    /// A clock that shows `shown` now and runs at `pace`.
    pub(crate) fn new(now: u64, shown: Duration, pace: f64, wall_error: i64) -> Self {
        let mut clock = Self { since: now, shown: nanos(shown), pace: ONE, wall_error };
        clock.set_pace(now, pace);
        clock
    }

    /// What it shows when the world is at `now`.
    pub(crate) fn at(&self, now: u64) -> u64 {
        let passed = now.saturating_sub(self.since);
        if self.pace == ONE {
            return self.shown + passed;
        }
        self.shown + scale(passed, self.pace, ONE)
    }

    /// The first moment of the world at which it shows `shown` or more.
    pub(crate) fn moment_of(&self, shown: u64) -> u64 {
        let ahead = shown.saturating_sub(self.shown);
        if ahead == 0 || self.pace == ONE {
            return self.since.saturating_add(ahead);
        }
        self.since.saturating_add(scale(ahead, ONE, self.pace)).saturating_add(1)
    }

    /// What its wall clock shows, in milliseconds since the Unix epoch.
    pub(crate) fn unix_millis(&self, now: u64) -> u64 {
        let millis = Self::BIRTH + self.at(now) / 1_000_000;
        millis.saturating_add_signed(self.wall_error)
    }

    /// From now on it runs at `pace`, which is 1 for the pace of the world.
    pub(crate) fn set_pace(&mut self, now: u64, pace: f64) {
        self.shown = self.at(now);
        self.since = now;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "clamped to what a clock can do"
        )]
        let pace = (pace.clamp(0.01, 100.0) * ONE as f64) as u64;
        self.pace = pace;
    }

    /// It jumps ahead, as after a machine was asleep.
    pub(crate) fn jump(&mut self, now: u64, by: Duration) {
        self.shown = self.at(now).saturating_add(nanos(by));
        self.since = now;
    }

    /// The wall clock is set: ahead or back.
    pub(crate) fn step_wall(&mut self, by_millis: i64) {
        self.wall_error = self.wall_error.saturating_add(by_millis);
    }
}

/// `value * by / of`, rounded down.
fn scale(value: u64, by: u64, of: u64) -> u64 {
    let scaled = u128::from(value) * u128::from(by) / u128::from(of);
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

/// Nanoseconds, of which five hundred years fit.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_shows_a_moment_not_before_the_one_it_names_for_it() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..10_000 {
            let pace = 0.5 + rng.f64();
            let clock =
                Clock::new(rng.u64(..1 << 40), Duration::from_nanos(rng.u64(..1 << 40)), pace, 0);
            let shown = clock.shown + rng.u64(..1 << 42);
            let moment = clock.moment_of(shown);
            assert!(clock.at(moment) >= shown, "{clock:?} {shown}");
            assert!(clock.at(moment.saturating_sub(8)) < shown || moment <= clock.since + 8);
        }
    }

    #[test]
    fn a_clock_never_goes_back_however_it_is_turned() {
        let mut rng = fastrand::Rng::with_seed(8);
        let mut clock = Clock::default();
        let (mut now, mut last) = (0, 0);
        for _ in 0..10_000 {
            now += rng.u64(..1 << 30);
            match rng.u32(..3) {
                0 => clock.set_pace(now, 0.5 + rng.f64()),
                1 => clock.jump(now, Duration::from_millis(rng.u64(..5000))),
                _ => clock.step_wall(rng.i64(-5000..5000)),
            }
            let shows = clock.at(now);
            assert!(shows >= last, "{shows} after {last}");
            last = shows;
        }
    }
}
