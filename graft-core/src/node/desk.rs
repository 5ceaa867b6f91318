//! Where orders to a running node are left, and where its machine's thread leaves the machine.
//!
//! The node wakes by its inbox alone; a flag tells it to look here too, so a turn without orders
//! costs one load and no lock.

use std::{
    collections::VecDeque,
    fmt, mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::oneshot;

use super::{apply::Returned, handle::Detail};
use crate::{Inbox, NodeId, raft::Refusal};

/// What a node can be asked for.
#[derive(Debug)]
pub(super) enum Order {
    Detail(oneshot::Sender<Detail>),
    Transfer { to: NodeId, answer: oneshot::Sender<Result<(), Refusal>> },
    Campaign(oneshot::Sender<()>),
}

/// Why an order was not taken.
pub(super) enum Refused {
    Full,
    Closed,
}

/// Everything that was on the desk.
#[derive(Default)]
pub(super) struct Papers {
    pub(super) orders: VecDeque<Order>,
    pub(super) returned: Option<Returned>,
    pub(super) stop: bool,
}

pub(super) struct Desk {
    news: AtomicBool,
    inbox: Inbox,
    papers: Mutex<Papers>,
    closed: AtomicBool,
    absence: Mutex<Absence>,
}

/// Whether the machine is on its thread, and who waits until it is not.
#[derive(Default)]
struct Absence {
    away: bool,
    waiting: Vec<oneshot::Sender<()>>,
}

impl Desk {
    /// Orders that may wait. They come by hand or from a dashboard, so more than this is a mistake.
    const ORDERS: usize = 64;

    /// A desk whose news wake the receiver of `inbox`.
    pub(super) fn new(inbox: Inbox) -> Arc<Self> {
        Arc::new(Self {
            news: AtomicBool::new(false),
            inbox,
            papers: Mutex::new(Papers::default()),
            closed: AtomicBool::new(false),
            absence: Mutex::default(),
        })
    }

    pub(super) fn order(&self, order: Order) -> Result<(), Refused> {
        let mut papers = self.lock();
        // Read under the lock: whoever closes empties the desk under it afterwards.
        if self.closed.load(Ordering::Relaxed) {
            return Err(Refused::Closed);
        }
        if papers.orders.len() >= Self::ORDERS {
            return Err(Refused::Full);
        }
        papers.orders.push_back(order);
        drop(papers);
        self.wake();
        Ok(())
    }

    pub(super) fn stop(&self) {
        self.lock().stop = true;
        self.wake();
    }

    /// The machine goes to its thread.
    pub(super) fn on_departure(&self) {
        self.absence().away = true;
    }

    /// The machine's thread is done with a slice. A node that is gone has no use for the machine: it is
    /// dropped here.
    pub(super) fn give_back(&self, returned: Returned) {
        // A machine that is dropped runs its user's code, which may panic: whoever waits must hear of
        // its end all the same.
        let _end = EndOfAbsence(self);
        let mut papers = self.lock();
        if self.closed.load(Ordering::Relaxed) {
            drop(papers);
            drop(returned);
        } else {
            papers.returned = Some(returned);
            drop(papers);
            self.wake();
        }
    }

    /// Ends once the machine is not on its thread.
    pub(super) async fn until_machine_rests(&self) {
        let (sender, rests) = oneshot::channel();
        {
            let mut absence = self.absence();
            if !absence.away {
                return;
            }
            absence.waiting.push(sender);
        }
        // The sender is used or dropped with the desk, and either way the machine is at rest.
        let _ = rests.await;
    }

    fn absence(&self) -> MutexGuard<'_, Absence> {
        self.absence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.news.store(true, Ordering::Release);
        self.inbox.wake();
    }

    /// Takes everything, or `None` where there is nothing new. To be called after the waker was
    /// registered with the inbox: news that come later then wake.
    pub(super) fn take(&self) -> Option<Papers> {
        if !self.news.load(Ordering::Acquire) {
            return None;
        }
        self.news.store(false, Ordering::Relaxed);
        Some(mem::take(&mut *self.lock()))
    }

    /// Takes nothing more, and lets go of what is here: those who wait for it are told.
    pub(super) fn close(&self) {
        let mut papers = self.lock();
        self.closed.store(true, Ordering::Relaxed);
        let rest = mem::take(&mut *papers);
        drop(papers);
        drop(rest);
    }

    fn lock(&self) -> MutexGuard<'_, Papers> {
        self.papers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When it goes, the machine is not on its thread any more, and those who waited for that are told.
struct EndOfAbsence<'a>(&'a Desk);

impl Drop for EndOfAbsence<'_> {
    fn drop(&mut self) {
        let waiting = {
            let mut absence = self.0.absence();
            absence.away = false;
            mem::take(&mut absence.waiting)
        };
        for waiting in waiting {
            // Whoever no longer waits need not know.
            let _ = waiting.send(());
        }
    }
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

/// The node's end of the desk: when it goes, whatever the cause, nobody waits on.
#[derive(Debug)]
pub(super) struct DeskOwner(pub(super) Arc<Desk>);

impl Drop for DeskOwner {
    fn drop(&mut self) {
        self.0.close();
    }
}
