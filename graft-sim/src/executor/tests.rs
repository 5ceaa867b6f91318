use std::task::Poll;

use super::*;

/// Three tasks that yield and sleep; the order in which they write is the order of the run.
fn order(seed: u64) -> Vec<u64> {
    let executor = Executor::new(seed);
    let runtime = executor.runtime();
    let written = Arc::new(Mutex::new(Vec::new()));
    for task in 0..3 {
        let (clock, written) = (Arc::clone(&runtime), Arc::clone(&written));
        runtime.spawn(Box::pin(async move {
            for round in 1..20 {
                lock(&written).push(task);
                clock.sleep_until(Duration::from_millis(round)).await;
            }
        }));
    }
    executor.run_until(Duration::from_secs(1));
    assert_eq!(runtime.now(), Duration::from_secs(1));
    lock(&written).clone()
}

#[test]
fn a_seed_is_an_order_and_another_seed_another() {
    assert_eq!(order(1), order(1));
    assert_ne!(order(1), order(2));
}

#[test]
fn a_deadlock_is_told_and_not_waited_for() {
    assert_eq!(Executor::new(1).block_on(std::future::pending::<()>()), None);
}

#[test]
fn a_timer_that_is_dropped_is_forgotten() {
    let executor = Executor::new(1);
    let runtime = executor.runtime();
    let clock = Arc::clone(&runtime);
    let waited = executor.block_on(async move {
        let mut long = clock.sleep_until(Duration::from_secs(9));
        let pending = std::future::poll_fn(|context| {
            Poll::Ready(Pin::as_mut(&mut long).poll(context).is_pending())
        });
        assert!(pending.await);
        drop(long);
        clock.sleep_until(Duration::from_secs(1)).await;
    });
    assert_eq!(waited, Some(()));
    assert_eq!(runtime.shared.lock().timers.waited_for(), 0);
}

/// Counts how often it goes around, a round a second of its own clock.
fn rounds(runtime: &Arc<SimRuntime>) -> Arc<Mutex<u32>> {
    let count = Arc::new(Mutex::new(0));
    let (clock, counted) = (Arc::clone(runtime), Arc::clone(&count));
    runtime.spawn(Box::pin(async move {
        loop {
            let next = clock.now() + Duration::from_secs(1);
            clock.sleep_until(next).await;
            *lock(&counted) += 1;
        }
    }));
    count
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_process_lives_by_its_own_clock_through_all_that_is_done_to_it() {
    let executor = Executor::new(1);
    let kernel = executor.kernel();
    let fast = kernel.process(Clock::new(0, at(100), 2.0, 0));
    let jumping = kernel.process(Clock::default());
    let (fast_rounds, jumping_rounds) = (rounds(&fast), rounds(&jumping));
    executor.run_until(Duration::from_millis(10_500));
    assert_eq!((*lock(&fast_rounds), *lock(&jumping_rounds)), (20, 10));
    kernel.turn_clock(fast.id(), |clock, now| clock.set_pace(now, 0.5));
    kernel.turn_clock(jumping.id(), |clock, now| clock.jump(now, at(60)));
    executor.run_until(Duration::from_millis(20_600));
    // The jump ends the wait that was under way, and no more.
    assert_eq!((*lock(&fast_rounds), *lock(&jumping_rounds)), (26, 21));
}

#[test]
fn a_paused_process_does_nothing_and_then_goes_on() {
    let executor = Executor::new(1);
    let kernel = executor.kernel();
    let process = kernel.process(Clock::default());
    let count = rounds(&process);
    executor.run_until(Duration::from_millis(2_500));
    kernel.pause(process.id(), at(5));
    executor.run_until(at(7));
    assert_eq!(*lock(&count), 2);
    executor.run_until(at(9));
    assert_eq!(*lock(&count), 4, "one late, and one a second after it");
}

#[test]
fn a_killed_process_is_gone_with_all_its_tasks_and_gets_no_more() {
    let executor = Executor::new(1);
    let kernel = executor.kernel();
    let process = kernel.process(Clock::default());
    let count = rounds(&process);
    executor.run_until(Duration::from_millis(2_500));
    let held = Arc::strong_count(&process);
    kernel.kill(process.id());
    assert!(Arc::strong_count(&process) < held, "its task was dropped");
    let late = rounds(&process);
    executor.run_until(at(9));
    assert_eq!((*lock(&count), *lock(&late)), (2, 0));
    let other = kernel.process(Clock::default());
    let count = rounds(&other);
    executor.run_until(at(11));
    assert_eq!(*lock(&count), 2, "the slot of a dead task serves the next one");
}

#[test]
fn an_executor_lets_go_of_its_tasks_when_it_ends() {
    let executor = Executor::new(1);
    let held = Arc::new(());
    let task = Arc::clone(&held);
    let runtime = executor.runtime();
    let clock = Arc::clone(&runtime);
    runtime.spawn(Box::pin(async move {
        clock.sleep_until(at(1_000)).await;
        drop(task);
    }));
    executor.run_until(at(1));
    assert_eq!(Arc::strong_count(&held), 2);
    drop(executor);
    assert_eq!(Arc::strong_count(&held), 1);
}
