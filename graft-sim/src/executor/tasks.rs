//! Tasks by slot, and what wakes them.

use std::{
    sync::Arc,
    task::{Wake, Waker},
};

use graft_core::BoxFuture;

use super::{ProcessId, Shared};

/// All tasks. A slot is used again once its task has ended, with another generation.
#[derive(Default)]
pub(super) struct Tasks {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

struct Slot {
    generation: u32,
    process: ProcessId,
    there: bool,
    /// Whether it is among those that are ready, or parked.
    queued: bool,
    /// Not there while it has its turn.
    future: Option<BoxFuture>,
    waker: Option<Waker>,
}

/// A task that has its turn.
pub(super) struct Drawn {
    id: u32,
    generation: u32,
    pub(super) future: BoxFuture,
    pub(super) waker: Waker,
}

struct TaskWaker {
    id: u32,
    generation: u32,
    shared: Arc<Shared>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut state = self.shared.lock();
        if state.tasks.queue(self.id, self.generation) {
            state.make_ready(self.id);
        }
    }
}

/// Gives `process` a task. Where the process has ended the task comes back.
pub(super) fn spawn(
    shared: &Arc<Shared>,
    process: ProcessId,
    task: BoxFuture,
) -> Option<BoxFuture> {
    let mut state = shared.lock();
    if !state.is_alive(process) {
        return Some(task);
    }
    let (id, generation) = state.tasks.reserve();
    let waker = Waker::from(Arc::new(TaskWaker { id, generation, shared: Arc::clone(shared) }));
    state.tasks.fill(id, process, task, waker);
    state.make_ready(id);
    None
}

impl Tasks {
    fn reserve(&mut self) -> (u32, u32) {
        if let Some(id) = self.free.pop() {
            return (id, self.slots[id as usize].generation);
        }
        let id = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        self.slots.push(Slot {
            generation: 0,
            process: ProcessId(0),
            there: false,
            queued: false,
            future: None,
            waker: None,
        });
        (id, 0)
    }

    fn fill(&mut self, id: u32, process: ProcessId, future: BoxFuture, waker: Waker) {
        let slot = &mut self.slots[id as usize];
        (slot.process, slot.there, slot.queued) = (process, true, true);
        (slot.future, slot.waker) = (Some(future), Some(waker));
    }

    /// Notes that a task was woken. Says whether that is news.
    fn queue(&mut self, id: u32, generation: u32) -> bool {
        let slot = &mut self.slots[id as usize];
        let news = slot.there && slot.generation == generation && !slot.queued;
        slot.queued |= news;
        news
    }

    pub(super) fn is_there(&self, id: u32) -> bool {
        self.slots[id as usize].there
    }

    pub(super) fn process_of(&self, id: u32) -> ProcessId {
        self.slots[id as usize].process
    }

    pub(super) fn take(&mut self, id: u32) -> Option<Drawn> {
        let slot = &mut self.slots[id as usize];
        slot.queued = false;
        let waker = slot.waker.clone()?;
        let future = slot.future.take()?;
        Some(Drawn { id, generation: slot.generation, future, waker })
    }

    pub(super) fn put_back(&mut self, drawn: Drawn, pending: bool) -> Option<BoxFuture> {
        let slot = &mut self.slots[drawn.id as usize];
        if !slot.there || slot.generation != drawn.generation {
            // Its process ended meanwhile.
            return Some(drawn.future);
        }
        if pending {
            slot.future = Some(drawn.future);
            return None;
        }
        self.release(drawn.id);
        Some(drawn.future)
    }

    fn release(&mut self, id: u32) {
        let slot = &mut self.slots[id as usize];
        slot.generation = slot.generation.wrapping_add(1);
        (slot.there, slot.queued, slot.waker) = (false, false, None);
        self.free.push(id);
    }

    /// Ends all tasks of a process. The one that has its turn ends with it.
    pub(super) fn end(&mut self, process: ProcessId) -> Vec<BoxFuture> {
        let mut ended = Vec::new();
        for id in 0..self.slots.len() {
            if self.slots[id].there && self.slots[id].process == process {
                ended.extend(self.slots[id].future.take());
                self.release(u32::try_from(id).unwrap_or(u32::MAX));
            }
        }
        ended
    }

    pub(super) fn end_all(&mut self) -> Vec<BoxFuture> {
        let mut ended = Vec::new();
        for slot in &mut self.slots {
            ended.extend(slot.future.take());
            (slot.there, slot.waker) = (false, None);
            slot.generation = slot.generation.wrapping_add(1);
        }
        ended
    }
}
