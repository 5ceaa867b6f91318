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
        let mut papers = self.lock();
        if self.closed.load(Ordering::Relaxed) {
            drop(papers);
            // A machine that is dropped runs its user's code, which may panic: whoever waits must hear of
            // its end all the same.
            let _end = EndOfAbsence(self);
            drop(returned);
            return;
        }
        papers.returned = Some(returned);
        // Before the node can see it: it may send the machine to its thread again at once.
        let waiting = self.end_absence();
        drop(papers);
        tell(waiting);
        self.wake();
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

    /// The machine is not on its thread any more. Gives those who are to be told.
    fn end_absence(&self) -> Vec<oneshot::Sender<()>> {
        let mut absence = self.absence();
        absence.away = false;
        mem::take(&mut absence.waiting)
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
        tell(self.0.end_absence());
    }
}

fn tell(waiting: Vec<oneshot::Sender<()>>) {
    for waiting in waiting {
        // Whoever no longer waits need not know.
        let _ = waiting.send(());
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

#[cfg(test)]
mod tests {
    use std::task::{Context, Wake};

    use super::*;
    use crate::InboxLimits;

    /// A node that sends its machine back to the thread the moment it is woken.
    struct Busy(Mutex<Option<Arc<Desk>>>);

    impl Wake for Busy {
        fn wake(self: Arc<Self>) {
            let desk = self.0.lock().unwrap().take().expect("it is woken once");
            assert!(desk.take().expect("there is news").returned.is_some());
            desk.on_departure();
        }
    }

    /// The story: the thread that gave the machine back said so only after it had woken the node. One
    /// that was slow to say it said it of a machine that was on the next thread by then, and a server
    /// that was started again made a second machine beside the one at work.
    #[tokio::test(start_paused = true)]
    async fn a_machine_that_is_sent_away_again_at_once_is_away() {
        let (inbox, mut receiver) = Inbox::new(InboxLimits::default());
        let desk = Desk::new(inbox);
        let node = Arc::new(Busy(Mutex::new(Some(Arc::clone(&desk)))));
        receiver.take_and_register(
            &mut Context::from_waker(&Arc::clone(&node).into()),
            &mut Default::default(),
            true,
        );
        desk.on_departure();
        desk.give_back(Returned::Lost { reason: "the desk does not look into it".into() });
        assert!(node.0.lock().unwrap().is_none(), "the node was woken");

        let minute = std::time::Duration::from_secs(60);
        let rests = tokio::time::timeout(minute, desk.until_machine_rests()).await;
        assert!(rests.is_err(), "the machine is on its thread");
        desk.give_back(Returned::Lost { reason: String::new() });
        tokio::time::timeout(minute, desk.until_machine_rests()).await.unwrap();
    }
}
