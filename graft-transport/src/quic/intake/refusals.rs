//! How fast a client may be refused.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::super::{rates::Bucket, stats::Counter};

/// So many times its share a client may be refused at once. When a leader falls all is refused that was under way to it: a share
/// of it is in, a quarter of one on its way, and the rest goes to another server as soon as one leads.
const AT_ONCE: f64 = 2.0;

/// And so many times its share each second after that. Clients that behave ask again and again, too, while there is no leader, but
/// less and less often.
const A_SECOND: f64 = 0.25;

/// Nobody rests longer before a part of what it asks is let in: who was refused by a server that is elected then is heard soon.
const LONGEST_REST: Duration = Duration::from_millis(250);

/// What of a client's requests may be refused before it has to wait.
#[derive(Debug)]
pub(super) struct Refusals {
    /// How many bytes may be refused at once.
    at_once: f64,
    a_second: f64,
    left: Mutex<Bucket>,
}

impl Refusals {
    /// Those of a client that may have so many bytes in.
    pub(super) fn of_share(share: u64) -> Self {
        let share = share as f64;
        let at_once = share * AT_ONCE;
        let left = Mutex::new(Bucket::full(at_once, now()));
        Self { at_once, a_second: share * A_SECOND, left }
    }

    /// So many bytes were refused.
    pub(super) fn count(&self, bytes: f64) {
        let mut left = self.lock();
        let before = left.fill(self.a_second, self.at_once, now());
        // What was on its way at once is not held against anybody for long.
        left.take(bytes.min((before + self.at_once).max(0.0)));
    }

    /// Something was not refused: this server serves it.
    pub(super) fn forgive(&self) {
        *self.lock() = Bucket::full(self.at_once, now());
    }

    /// Whether too much was refused.
    pub(super) fn is_too_much(&self) -> bool {
        self.left() < 0.0
    }

    fn left(&self) -> f64 {
        self.lock().fill(self.a_second, self.at_once, now())
    }

    /// Waits where too much was refused.
    pub(super) async fn rest(&self, rests: &Counter) {
        let left = self.left();
        if left < 0.0 {
            rests.add(1);
            sleep(Duration::from_secs_f64(-left / self.a_second).min(LONGEST_REST)).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Bucket> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time of the runtime, which tests may hold still.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARE: u64 = 1000;

    /// How long a client rests now.
    async fn rested(refusals: &Refusals) -> u128 {
        let began = Instant::now();
        refusals.rest(&Counter::default()).await;
        began.elapsed().as_millis()
    }

    #[tokio::test(start_paused = true)]
    async fn two_shares_are_refused_at_once_and_then_a_quarter_of_one_each_second() {
        let refusals = Refusals::of_share(SHARE);
        for _ in 0..4 {
            refusals.count(500.0);
            assert_eq!(rested(&refusals).await, 0);
        }
        for _ in 0..3 {
            refusals.count(25.0);
            let rest = rested(&refusals).await;
            assert!((98..=102).contains(&rest), "{rest}");
        }
        tokio::time::advance(Duration::from_secs(60)).await;
        refusals.count(2000.0);
        assert_eq!(rested(&refusals).await, 0, "not more than two shares come together");
        refusals.count(5.0);
        assert!(rested(&refusals).await >= 20);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_rests_for_long_and_whoever_is_served_does_not_rest() {
        let refusals = Refusals::of_share(SHARE);
        refusals.count(64_000.0);
        for _ in 0..5 {
            let rest = rested(&refusals).await;
            assert!((250..=252).contains(&rest), "{rest}");
        }
        tokio::time::advance(Duration::from_secs(8)).await;
        assert_eq!(
            rested(&refusals).await,
            0,
            "no more is held against anybody than may be refused at once"
        );
        refusals.count(50.0);
        refusals.forgive();
        assert_eq!(rested(&refusals).await, 0);
        refusals.count(2000.0);
        assert_eq!(rested(&refusals).await, 0, "all is forgiven");
    }
}
