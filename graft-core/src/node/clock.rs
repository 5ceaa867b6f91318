//! A node's view of time: what a turn begins with, and the one timer it keeps.

use std::{
    collections::BTreeMap,
    task::{Context, Waker},
    time::Duration,
};

use crate::{BoxFuture, NodeId, Runtime};

/// The time at the beginning of the turn.
#[derive(Debug, Default)]
pub(super) struct Clock {
    now: Duration,
    unix_millis: u64,
    /// When the wall clock was last read.
    wall_read: Option<Duration>,
}

impl Clock {
    /// The wall clock only labels entries, so it is read at most this often.
    const WALL_EVERY: Duration = Duration::from_millis(1);

    /// Reads the time: monotonic, and the wall clock in milliseconds.
    pub(super) fn read(&mut self, runtime: &dyn Runtime) -> (Duration, u64) {
        self.now = runtime.now();
        let stale =
            self.wall_read.is_none_or(|read| self.now.saturating_sub(read) >= Self::WALL_EVERY);
        if stale {
            self.unix_millis = runtime.unix_millis();
            self.wall_read = Some(self.now);
        }
        (self.now, self.unix_millis)
    }

    /// The time as it was last read.
    pub(super) const fn now(&self) -> Duration {
        self.now
    }
}

/// One armed sleep. Deadlines mostly move later, so it is replaced only by an earlier one; when it
/// fires too early, that costs one idle turn instead of one new sleep a turn.
#[derive(Default)]
pub(super) struct Timer {
    armed: Option<Armed>,
}

struct Armed {
    deadline: Duration,
    sleep: BoxFuture,
    /// Who was registered with the sleep when it was last polled.
    waker: Waker,
}

impl Timer {
    /// Whether this task is woken by the armed sleep without being polled again.
    pub(super) fn is_registered(&self, context: &Context<'_>) -> bool {
        self.armed.as_ref().is_none_or(|armed| armed.waker.will_wake(context.waker()))
    }

    /// Whether the armed sleep is over. Registers the waker where it is not.
    pub(super) fn poll_fired(&mut self, context: &mut Context<'_>) -> bool {
        let Some(armed) = &mut self.armed else {
            return false;
        };
        let fired = armed.sleep.as_mut().poll(context).is_ready();
        if fired {
            self.armed = None;
        } else {
            armed.waker.clone_from(context.waker());
        }
        fired
    }

    /// Sees to it that the task wakes at `deadline` or before. Says whether it is over already.
    /// Everything due at `now` has been done.
    pub(super) fn arm(
        &mut self,
        deadline: Duration,
        now: Duration,
        runtime: &dyn Runtime,
        context: &mut Context<'_>,
    ) -> bool {
        let still_good = |armed: &Armed| armed.deadline <= deadline && armed.deadline > now;
        if self.armed.as_ref().is_some_and(still_good) {
            return false;
        }
        let (sleep, waker) = (runtime.sleep_until(deadline), context.waker().clone());
        self.armed = Some(Armed { deadline, sleep, waker });
        self.poll_fired(context)
    }
}

/// Lets something through at most once a second, and counts what it held back.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    last: Option<Duration>,
    held_back: u64,
}

impl Limiter {
    const INTERVAL: Duration = Duration::from_secs(1);

    /// `Some(how many were held back since the last time)` where this one may pass.
    pub(super) fn pass(&mut self, now: Duration) -> Option<u64> {
        let recent = self.last.is_some_and(|last| now.saturating_sub(last) < Self::INTERVAL);
        if recent {
            self.held_back += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.held_back))
    }
}

/// A [`Limiter`] for each server that something is said of, so that one does not hide another.
#[derive(Default)]
pub(super) struct Limiters(BTreeMap<NodeId, Limiter>);

impl Limiters {
    /// As [`Limiter::pass`], of what concerns `node`. There are as many as there are members.
    pub(super) fn pass(&mut self, node: NodeId, now: Duration) -> Option<u64> {
        self.0.entry(node).or_default().pass(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limiter_lets_one_pass_a_second_and_counts_the_others() {
        let mut limiter = Limiter::default();
        assert_eq!(limiter.pass(Duration::from_millis(0)), Some(0));
        assert_eq!(limiter.pass(Duration::from_millis(999)), None);
        assert_eq!(limiter.pass(Duration::from_millis(1000)), Some(1));
    }

    /// The story: of two servers whose disks were emptied within a second, the cluster named one.
    #[test]
    fn what_is_said_of_one_server_does_not_hide_what_is_said_of_another() {
        let mut limiters = Limiters::default();
        let at = Duration::from_millis;
        assert_eq!(limiters.pass(NodeId(1), at(0)), Some(0));
        assert_eq!(limiters.pass(NodeId(2), at(1)), Some(0));
        assert_eq!(limiters.pass(NodeId(1), at(2)), None);
        assert_eq!(limiters.pass(NodeId(1), at(1000)), Some(1));
    }
}
