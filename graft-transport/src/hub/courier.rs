//! What is late: a queue by time, emptied by one task that lives while there is something in it.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use graft_core::{BoxFuture, Class, PeerEnvelope, ReplyEnvelope, Request};

use super::{Shared, table::Station};

/// How many bytes of each class may be late at once. What comes on top is dropped and counted.
const MAX_LATE_BYTES: usize = 64 << 20;

/// How much is delivered before other tasks get their turn.
const BATCH: usize = 256;

/// Something on its way.
#[derive(Clone)]
pub(super) enum Load {
    /// To a server, by its name: one that was restarted meanwhile gets it too.
    Peer(PeerEnvelope),
    /// To a client, as long as the server that answered is there.
    Reply { station: Arc<Station>, reply: ReplyEnvelope },
    /// To the very transport that was there when it was sent: links are told when that one is gone.
    Request { station: Arc<Station>, request: Request },
}

impl Load {
    pub(super) fn class(&self) -> Class {
        match self {
            Self::Peer(envelope) => envelope.message.class(),
            Self::Reply { .. } | Self::Request { .. } => Class::Request,
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Peer(envelope) => envelope.message.size(),
            Self::Reply { reply, .. } => reply_size(reply),
            Self::Request { request, .. } => request.size(),
        }
    }
}

fn reply_size(envelope: &ReplyEnvelope) -> usize {
    use graft_core::Reply;
    const HEADER: usize = 64;
    HEADER
        + match &envelope.reply {
            Reply::Applied(bytes) | Reply::Panicked(bytes) => bytes.len(),
            _ => 0,
        }
}

/// A load with what is asked of it often.
pub(super) struct Parcel {
    pub(super) class: Class,
    pub(super) load: Load,
}

/// The queue of what is late.
#[derive(Default)]
pub(super) struct Courier {
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    /// By the time it is due and then by the order it was sent.
    parcels: BTreeMap<(Duration, u64), Parcel>,
    sequence: u64,
    bytes: [usize; Class::ALL.len()],
    /// Whether a task looks after the queue.
    staffed: bool,
    waker: Option<Waker>,
}

impl Courier {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Delivers `parcel` once `delay` has passed. Says whether there was room for it.
pub(super) fn post(shared: &Arc<Shared>, parcel: Parcel, delay: Duration) -> bool {
    let due = shared.runtime.now().saturating_add(delay);
    let mut queue = shared.courier.lock();
    let waiting = &mut queue.bytes[parcel.class as usize];
    let size = parcel.load.size();
    if *waiting > 0 && waiting.saturating_add(size) > MAX_LATE_BYTES {
        return false;
    }
    *waiting += size;
    queue.sequence += 1;
    let key = (due, queue.sequence);
    queue.parcels.insert(key, parcel);
    let is_first = queue.parcels.first_key_value().is_some_and(|(first, _)| *first == key);
    let waker = queue.waker.take_if(|_| is_first);
    let unstaffed = !std::mem::replace(&mut queue.staffed, true);
    drop(queue);
    if let Some(waker) = waker {
        waker.wake();
    }
    if unstaffed {
        let hub = Arc::downgrade(shared);
        shared.runtime.spawn(Box::pin(Rounds { hub, sleep: None, on_duty: true }));
    }
    true
}

/// The task that delivers. It ends when nothing is late any more, or the hub is gone.
struct Rounds {
    hub: Weak<Shared>,
    sleep: Option<(Duration, BoxFuture)>,
    /// Whether it is this task that `Queue::staffed` speaks of.
    on_duty: bool,
}

enum Next {
    Deliver(Load),
    Wait(Duration),
    End,
}

impl Queue {
    fn next(&mut self, now: Duration, context: &Context<'_>) -> Next {
        let Some(first) = self.parcels.first_entry() else {
            self.staffed = false;
            return Next::End;
        };
        let due = first.key().0;
        if due > now {
            self.waker = Some(context.waker().clone());
            return Next::Wait(due);
        }
        let parcel = first.remove();
        self.bytes[parcel.class as usize] -= parcel.load.size();
        Next::Deliver(parcel.load)
    }
}

impl Future for Rounds {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(shared) = self.hub.upgrade() else {
            return Poll::Ready(());
        };
        for _ in 0..BATCH {
            let now = shared.runtime.now();
            let next = shared.courier.lock().next(now, context);
            let due = match next {
                Next::End => {
                    self.on_duty = false;
                    return Poll::Ready(());
                }
                Next::Deliver(load) => {
                    shared.deliver(load);
                    continue;
                }
                Next::Wait(due) => due,
            };
            let sleep = match self.sleep.take() {
                Some((until, sleep)) if until == due => sleep,
                _ => shared.runtime.sleep_until(due),
            };
            let (_, sleep) = self.sleep.insert((due, sleep));
            if sleep.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            self.sleep = None;
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Rounds {
    /// Where the runtime drops the task, the next late message finds another.
    fn drop(&mut self) {
        if self.on_duty
            && let Some(shared) = self.hub.upgrade()
        {
            shared.courier.lock().staffed = false;
        }
    }
}
