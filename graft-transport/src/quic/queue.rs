//! What waits for a stream: bounded in bytes, filled by many, emptied by the one task that writes.
//!
//! The writer takes all that waits in one exchange of vectors, so while it is busy the next batch grows by
//! itself. What it took counts until it takes again: bytes on their way into the stream are bounded too.

use std::{
    future::poll_fn,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

/// A bounded queue with one reader.
#[derive(Debug)]
pub(super) struct Queue<T> {
    limit: usize,
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    items: Vec<T>,
    waiting: usize,
    writing: usize,
    phase: Phase,
    /// The writer's.
    waker: Option<Waker>,
    /// That of one who waits for room.
    room_waker: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Open,
    /// What is in it is still written, and nothing more gets in.
    Finishing,
    Closed,
}

/// Why a queue did not take something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refused {
    /// Its bytes are used up.
    Full,
    /// Nothing is written from it any more.
    Closed,
}

impl<T> Queue<T> {
    /// A queue for `limit` bytes. One that is empty takes in anything.
    pub(super) fn new(limit: usize) -> Self {
        let state = State {
            items: Vec::new(),
            waiting: 0,
            writing: 0,
            phase: Phase::Open,
            waker: None,
            room_waker: None,
        };
        Self { limit, state: Mutex::new(state) }
    }

    /// Puts in one item of `size` bytes.
    pub(super) fn push(&self, item: T, size: usize) -> Result<(), Refused> {
        let mut state = self.lock();
        state.push(item, size, self.limit)?;
        let waker = state.waker.take();
        drop(state);
        wake(waker);
        Ok(())
    }

    /// Puts in as many as fit, in their order, and wakes the writer once. Leaves nothing in `items`.
    /// The error is that of the first which did not fit.
    pub(super) fn push_all(
        &self,
        items: &mut dyn Iterator<Item = (T, usize)>,
    ) -> Result<(), Refused> {
        let mut state = self.lock();
        let mut outcome = Ok(());
        for (item, size) in &mut *items {
            outcome = state.push(item, size, self.limit);
            if outcome.is_err() {
                break;
            }
        }
        let waker = state.waker.take();
        drop(state);
        wake(waker);
        items.for_each(drop);
        outcome
    }

    /// Exchanges the empty `batch` for all that waits, once something does. False once nothing will come
    /// any more.
    pub(super) async fn take(&self, batch: &mut Vec<T>) -> bool {
        debug_assert!(batch.is_empty(), "what was taken before must be written first");
        poll_fn(|context| self.poll_take(context, batch)).await
    }

    fn poll_take(&self, context: &mut Context<'_>, batch: &mut Vec<T>) -> Poll<bool> {
        let mut state = self.lock();
        state.writing = 0;
        let has_room = state.has_room(self.limit);
        let room_waker = state.room_waker.take_if(|_| has_room);
        let taken = state.poll_take(context, batch);
        drop(state);
        wake(room_waker);
        taken
    }

    /// Waits until the queue is less than half full, or nothing gets in any more. One waits at a time.
    pub(super) async fn room(&self) {
        poll_fn(|context| {
            let mut state = self.lock();
            if state.has_room(self.limit) || state.phase != Phase::Open {
                return Poll::Ready(());
            }
            state.room_waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Lets nothing more in. What waits is still written.
    pub(super) fn finish(&self) {
        self.end(Phase::Finishing);
    }

    /// Lets nothing more in, and drops what waits.
    pub(super) fn close(&self) {
        self.end(Phase::Closed);
    }

    fn end(&self, phase: Phase) {
        let mut state = self.lock();
        if state.phase != Phase::Closed {
            state.phase = phase;
        }
        let dropped = if phase == Phase::Closed {
            state.waiting = 0;
            mem::take(&mut state.items)
        } else {
            Vec::new()
        };
        let wakers = [state.waker.take(), state.room_waker.take()];
        drop(state);
        drop(dropped);
        wakers.into_iter().for_each(wake);
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn poll_take(&mut self, context: &Context<'_>, batch: &mut Vec<T>) -> Poll<bool> {
        if !self.items.is_empty() {
            mem::swap(&mut self.items, batch);
            self.writing = mem::take(&mut self.waiting);
            return Poll::Ready(true);
        }
        if self.phase != Phase::Open {
            return Poll::Ready(false);
        }
        match &mut self.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    fn has_room(&self, limit: usize) -> bool {
        self.waiting + self.writing <= limit / 2
    }

    fn push(&mut self, item: T, size: usize, limit: usize) -> Result<(), Refused> {
        if self.phase != Phase::Open {
            return Err(Refused::Closed);
        }
        let held = self.waiting + self.writing;
        if held > 0 && held.saturating_add(size) > limit {
            return Err(Refused::Full);
        }
        self.waiting += size;
        self.items.push(item);
        Ok(())
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;

    use super::*;

    fn poll<T>(queue: &Queue<T>, batch: &mut Vec<T>) -> Poll<bool> {
        batch.clear();
        queue.poll_take(&mut Context::from_waker(Waker::noop()), batch)
    }

    #[test]
    fn what_is_being_written_counts_until_the_writer_comes_again() {
        let queue = Queue::new(100);
        let mut batch = Vec::new();
        assert_eq!(queue.push(1, 60), Ok(()));
        assert_eq!(queue.push(2, 60), Err(Refused::Full));
        assert_eq!(poll(&queue, &mut batch), Poll::Ready(true));
        assert_eq!(batch, [1]);
        assert_eq!(queue.push(3, 60), Err(Refused::Full), "the first is not written yet");
        assert_eq!(queue.push(4, 40), Ok(()));
        assert_eq!(poll(&queue, &mut batch), Poll::Ready(true));
        assert_eq!(batch, [4]);
        assert_eq!(poll(&queue, &mut batch), Poll::Pending);
        assert_eq!(queue.push(5, 1000), Ok(()), "an empty queue takes in anything");
    }

    #[test]
    fn who_waits_for_room_waits_until_half_is_written() {
        let queue = Queue::new(100);
        let mut batch = Vec::new();
        let mut context = Context::from_waker(Waker::noop());
        let mut room = std::pin::pin!(queue.room());
        assert_eq!(queue.push(1, 60), Ok(()));
        assert_eq!(room.as_mut().poll(&mut context), Poll::Pending);
        assert_eq!(poll(&queue, &mut batch), Poll::Ready(true));
        assert_eq!(room.as_mut().poll(&mut context), Poll::Pending, "it is not written yet");
        assert_eq!(poll(&queue, &mut batch), Poll::Pending);
        assert!(queue.lock().room_waker.is_none(), "it was woken");
        assert_eq!(room.as_mut().poll(&mut context), Poll::Ready(()));
        assert_eq!(queue.push(2, 60), Ok(()));
        queue.finish();
        let mut room = std::pin::pin!(queue.room());
        assert_eq!(room.as_mut().poll(&mut context), Poll::Ready(()), "nobody waits in vain");
    }

    #[test]
    fn one_that_finishes_gives_out_what_it_has_and_one_that_closes_does_not() {
        let (finished, closed) = (Queue::new(100), Queue::new(100));
        let mut batch = Vec::new();
        for queue in [&finished, &closed] {
            assert_eq!(
                queue.push_all(&mut [(1, 40), (2, 40), (3, 40)].into_iter()),
                Err(Refused::Full)
            );
        }
        finished.finish();
        closed.close();
        assert_eq!(finished.push(9, 1), Err(Refused::Closed));
        assert_eq!(closed.push(9, 1), Err(Refused::Closed));
        assert_eq!(poll(&finished, &mut batch), Poll::Ready(true));
        assert_eq!(batch, [1, 2]);
        assert_eq!(poll(&finished, &mut batch), Poll::Ready(false));
        assert_eq!(poll(&closed, &mut batch), Poll::Ready(false));
        assert!(batch.is_empty());
    }
}
