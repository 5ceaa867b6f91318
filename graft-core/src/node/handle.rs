//! The outside of a running node: its status, and the orders it takes.

use std::{fmt, future::Future, pin::pin, sync::Arc, task::Poll, time::Duration};

use tokio::sync::{oneshot, watch};

use super::{
    StopReason,
    desk::{Desk, Order, Refused},
};
use crate::{
    Entries, NodeId, Runtime, Term,
    raft::{self, Refusal, RoleName},
};

/// Speaks to a running node. Clones speak to the same one.
#[derive(Clone)]
pub struct Handle {
    desk: Arc<Desk>,
    status: watch::Receiver<NodeStatus>,
    runtime: Arc<dyn Runtime>,
}

/// What changes rarely about a node: one is sent to whoever watches when role, term or leader
/// changes, and when the node stops.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct NodeStatus {
    /// The server.
    pub node: NodeId,
    /// Its name.
    pub name: Arc<str>,
    /// Its role.
    pub role: RoleName,
    /// Its term.
    pub term: Term,
    /// The leader it knows, itself included.
    pub leader: Option<NodeId>,
    /// Set once, when it has stopped of its own accord.
    pub stopped: Option<StopReason>,
}

/// Everything about a node at one moment between two turns.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Detail {
    /// The state of the protocol.
    pub raft: raft::Status,
    /// The last entries of the log that are in memory.
    pub tail: Entries,
    /// Requests that were taken in and are not answered.
    pub open_requests: usize,
    /// The size of the applied log, in bytes as [`Entry::size`](crate::Entry::size) counts them.
    pub log_bytes: u64,
}

/// Why an order was not carried out.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandleError {
    /// The node has stopped or was dropped.
    #[error("the server has stopped")]
    Stopped,
    /// Too many orders wait already.
    #[error("too many orders wait for this server: try again in a moment")]
    Busy,
    /// It did not answer in time. The order may still be carried out.
    #[error(
        "the server did not answer within {waited:?}: its runtime is busy or its machine blocks; \
         a machine that blocks should run with `Apply::Thread`"
    )]
    NoAnswer {
        /// How long was waited.
        waited: Duration,
    },
    /// A transfer is asked of the leader.
    #[error("this server does not lead{}", .leader.map(|node| format!(": ask {node}")).unwrap_or_default())]
    NotLeader {
        /// The leader, if known.
        leader: Option<NodeId>,
    },
    /// Leadership is being handed over already.
    #[error("a transfer of leadership is under way already: wait for it to end")]
    Transferring,
    /// The target cannot lead.
    #[error("leadership cannot go there: it is no voter, leads already, or its disk is stalled")]
    BadTransferTarget,
}

impl Handle {
    /// A node answers between two turns, so this long means that something blocks it.
    const PATIENCE: Duration = Duration::from_secs(5);

    pub(super) fn new(
        desk: Arc<Desk>,
        status: watch::Receiver<NodeStatus>,
        runtime: Arc<dyn Runtime>,
    ) -> Self {
        Self { desk, status, runtime }
    }

    /// Role, term and leader as they last changed. Never waits, and never holds the node up.
    #[must_use]
    pub fn status(&self) -> NodeStatus {
        self.status.borrow().clone()
    }

    /// A way to wait for changes of role, term and leader.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<NodeStatus> {
        self.status.clone()
    }

    /// The node's whole state, between two turns.
    ///
    /// # Errors
    ///
    /// [`HandleError`], after 5 s at the latest.
    pub async fn detail(&self) -> Result<Detail, HandleError> {
        let (sender, answer) = oneshot::channel();
        self.order(Order::Detail(sender), answer).await
    }

    /// Asks this leader to hand over to `to` (thesis §3.10). Returns once it has begun; watch the
    /// leader for its end.
    ///
    /// # Errors
    ///
    /// [`HandleError`], after 5 s at the latest.
    pub async fn transfer(&self, to: NodeId) -> Result<(), HandleError> {
        let (sender, answer) = oneshot::channel();
        let order = Order::Transfer { to, answer: sender };
        match self.order(order, answer).await? {
            Ok(()) => Ok(()),
            Err(Refusal::Transferring | Refusal::Overloaded) => Err(HandleError::Transferring),
            Err(Refusal::BadTransferTarget) => Err(HandleError::BadTransferTarget),
            Err(Refusal::NotLeader { leader } | Refusal::LeadershipLost { leader }) => {
                Err(HandleError::NotLeader { leader })
            }
        }
    }

    /// Makes the node campaign now, without asking first whether it would win.
    ///
    /// # Errors
    ///
    /// [`HandleError`], after 5 s at the latest.
    pub async fn campaign(&self) -> Result<(), HandleError> {
        let (sender, answer) = oneshot::channel();
        self.order(Order::Campaign(sender), answer).await
    }

    /// Asks the node to stop: it answers everyone who waits, closes its transport and ends.
    pub fn stop(&self) {
        self.desk.stop();
    }

    /// Waits until the node has stopped and says why: `None` where it was dropped or panicked.
    ///
    /// # Errors
    ///
    /// [`HandleError::NoAnswer`] where that takes longer than `timeout`.
    pub async fn stopped(&self, timeout: Duration) -> Result<Option<StopReason>, HandleError> {
        let mut status = self.status.clone();
        // The sender lives as long as the node, and says why it stopped before it goes.
        let gone = async { while status.changed().await.is_ok() {} };
        let in_time = self.within(timeout, gone).await;
        in_time.map(|()| self.status.borrow().stopped.clone())
    }

    /// Waits until the machine is not on its thread. After a panic of [`Node::run`](super::Node::run) it
    /// may still be at work there; whoever starts the server again waits for this first.
    ///
    /// # Errors
    ///
    /// [`HandleError::NoAnswer`] where that takes longer than `timeout`.
    pub async fn machine_rests(&self, timeout: Duration) -> Result<(), HandleError> {
        self.within(timeout, self.desk.until_machine_rests()).await
    }

    async fn order<T>(&self, order: Order, answer: oneshot::Receiver<T>) -> Result<T, HandleError> {
        self.desk.order(order).map_err(|refused| match refused {
            Refused::Full => HandleError::Busy,
            Refused::Closed => HandleError::Stopped,
        })?;
        let answered = self.within(Self::PATIENCE, answer).await?;
        answered.map_err(|_| HandleError::Stopped)
    }

    async fn within<T>(
        &self,
        timeout: Duration,
        future: impl Future<Output = T>,
    ) -> Result<T, HandleError> {
        let deadline = self.runtime.now().saturating_add(timeout);
        let ended = within(&*self.runtime, deadline, future).await;
        ended.ok_or(HandleError::NoAnswer { waited: timeout })
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("status", &*self.status.borrow()).finish_non_exhaustive()
    }
}

/// What `future` gives, or `None` where that takes until `deadline`.
pub(crate) async fn within<T>(
    runtime: &dyn Runtime,
    deadline: Duration,
    future: impl Future<Output = T>,
) -> Option<T> {
    let mut future = pin!(future);
    let mut alarm = runtime.sleep_until(deadline);
    std::future::poll_fn(|context| {
        if let Poll::Ready(value) = future.as_mut().poll(context) {
            return Poll::Ready(Some(value));
        }
        alarm.as_mut().poll(context).map(|()| None)
    })
    .await
}
