//! Tries many cases at once, and gives up on those that hang.

use std::{
    collections::BTreeMap,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{RecvTimeoutError, channel},
    },
    thread,
    time::{Duration, Instant},
};

use super::{Suite, Tally};
use crate::conformance::Failure;

/// How often it is looked whether a case hangs.
const STEP: Duration = Duration::from_secs(1);

/// What a case says of itself while it runs, so that a store that hangs is told by where it hangs.
#[derive(Clone, Default)]
pub(super) struct Progress(Arc<Mutex<Running>>);

/// What each case is doing, and since when.
///
/// Time passes here only while this process runs: one that was suspended has not hung.
#[derive(Default)]
struct Running {
    cases: BTreeMap<u64, (Duration, String)>,
    now: Duration,
}

impl Progress {
    /// Says what `case` does next.
    pub(super) fn note(&self, case: u64, what: impl FnOnce() -> String) {
        let what = what();
        let mut running = self.lock();
        let now = running.now;
        running.cases.insert(case, (now, what));
    }

    fn end(&self, case: u64) {
        self.lock().cases.remove(&case);
    }

    fn advance(&self, by: Duration) {
        self.lock().now += by;
    }

    /// What has been doing the same for longer than `limit`.
    fn stuck(&self, limit: Duration) -> Option<String> {
        let running = self.lock();
        let mut stuck = running.cases.iter().filter(|(_, (since, _))| running.now - *since > limit);
        stuck.next().map(|(case, (_, what))| format!("case {case}: {what}"))
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One case: the number it is known by, and where to say what it does.
pub(super) type Case = dyn Fn(u64, &Progress) -> Result<Tally, String> + Send + Sync;

impl Suite {
    /// Runs `case` on every number in `cases`.
    pub(super) fn each(
        &self,
        check: &'static str,
        cases: Range<u64>,
        case: &Arc<Case>,
    ) -> Result<Tally, Failure> {
        let failure = |reason| Failure { check, reason };
        let progress = Progress::default();
        let next = Arc::new(AtomicU64::new(cases.start));
        let is_over = Arc::new(AtomicBool::new(false));
        let (tell, told) = channel();
        for _ in 0..self.threads {
            let (case, progress, next) = (case.clone(), progress.clone(), next.clone());
            let (is_over, tell, end) = (is_over.clone(), tell.clone(), cases.end);
            // Not a scoped thread: one that hangs for good must not keep the verdict back.
            thread::spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= end || is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    progress.note(number, || "begins".to_owned());
                    let outcome = catch_unwind(AssertUnwindSafe(|| case(number, &progress)));
                    progress.end(number);
                    let outcome = outcome.unwrap_or_else(|panic| Err(words(&*panic)));
                    if tell.send(outcome.map_err(|why| format!("case {number}: {why}"))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(tell);
        let mut tally = Tally::default();
        let mut last = Instant::now();
        loop {
            let heard = told.recv_timeout(STEP);
            progress.advance(last.elapsed().min(2 * STEP));
            last = Instant::now();
            match heard {
                Ok(Ok(more)) => tally += more,
                Ok(Err(reason)) => {
                    is_over.store(true, Ordering::Relaxed);
                    return Err(failure(reason));
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(tally),
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(stuck) = progress.stuck(self.limit) {
                        is_over.store(true, Ordering::Relaxed);
                        return Err(failure(format!("the store hangs: {stuck}")));
                    }
                }
            }
        }
    }
}

/// A panic, in words.
pub(super) fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("it panicked: {}", text.unwrap_or("without a word"))
}
