//! One server's task: it runs the node, and starts it again where its driver panicked.

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use graft_core::{Node, Transport, node};
use tokio::sync::watch;

use crate::{
    Role, Status, StopReason, cluster::Cluster, error::with_causes, panics, server::Server,
};

/// How often a server is started again within [`PERIOD`]: a panic that comes back faster than this is
/// in the log or the disk, and starting again will not mend it.
const RESTARTS: usize = 3;
/// Over which time restarts are counted.
const PERIOD: Duration = Duration::from_secs(5);

/// How long the transport of a server that panicked may take to close, and its machine to come to rest.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// Runs server number `at` until it stops for good, and says how that was.
pub(crate) async fn supervise(
    cluster: Arc<Cluster>,
    at: usize,
    node: Node,
    transport: Arc<dyn Transport>,
) {
    let server = cluster.server(at);
    let end = End(Some(server));
    let status = run(&cluster, at, node, transport).await;
    if let Status::Failed { reason, restarts } = &status {
        tracing::error!(node = %server.name(), %reason, restarts, "failed and stays stopped");
    }
    end.with(status);
}

async fn run(
    cluster: &Arc<Cluster>,
    at: usize,
    mut node: Node,
    mut transport: Arc<dyn Transport>,
) -> Status {
    let server = cluster.server(at);
    let mut recent = Restarts::default();
    loop {
        let message = match caught(node.run()).await {
            Ok(reason) => {
                let restarts = recent.count();
                let failed = |reason| Status::Failed { reason, restarts };
                return StopReason::of_node(reason).map_or(Status::Stopped, failed);
            }
            Err(message) => message,
        };
        // The node could not do it: those who wait for answers of this server must hear of it.
        cluster.within(CLOSE_PATIENCE, transport.close()).await;
        // Nor could it wait for its machine's thread, and two machines of one server may be one too many.
        let rests = match server.handle() {
            Some(handle) => handle.machine_rests(CLOSE_PATIENCE).await.is_ok(),
            None => true,
        };
        let reason = StopReason::Panicked { message };
        if !rests {
            let reason = StopReason::NotRestarted {
                reason: format!(
                    "{reason}; and its machine was still at work {CLOSE_PATIENCE:?} later: restart the server once \
                     its thread has ended"
                ),
            };
            return Status::Failed { reason, restarts: recent.count() };
        }
        if server.is_stop_wanted() || !recent.allow(cluster.runtime().now()) {
            return Status::Failed { reason, restarts: recent.count() };
        }
        let restarts = recent.count();
        tracing::error!(node = %server.name(), %reason, restarts, "starts again");
        server.set_status(Status::Restarting { reason, restarts });
        match server.unless_stopped(cluster.open(at)).await {
            None => return Status::Stopped,
            Some(Ok(opened)) => (node, transport) = cluster.enter(at, opened),
            Some(Err(error)) => {
                let reason = StopReason::NotRestarted { reason: with_causes(&error) };
                return Status::Failed { reason, restarts };
            }
        }
    }
}

/// Brings what the node says of itself to those who watch the server. Ends with the node.
pub(crate) async fn follow(
    cluster: Arc<Cluster>,
    at: usize,
    run: u64,
    mut status: watch::Receiver<node::NodeStatus>,
) {
    loop {
        let seen = status.borrow_and_update().clone();
        let leader = seen.leader.and_then(|leader| cluster.name_of(leader));
        cluster.server(at).on_node(run, Role::of(seen.role), seen.term.0, leader);
        if status.changed().await.is_err() {
            return;
        }
    }
}

/// The end of a server's task. Where nothing was said of it, the runtime has ended, and the server is
/// marked as stopped. Once it is said, another task may run the server: nothing is marked after it.
struct End<'a>(Option<&'a Server>);

impl End<'_> {
    fn with(mut self, status: Status) {
        if let Some(server) = self.0.take() {
            server.set_status(status);
        }
    }
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        if let Some(server) = self.0 {
            server.set_status(Status::Stopped);
        }
    }
}

/// When a server was started again, over the last [`PERIOD`].
#[derive(Default)]
struct Restarts(VecDeque<Duration>);

impl Restarts {
    /// Counts one more at `now`, where it is allowed.
    fn allow(&mut self, now: Duration) -> bool {
        while self.0.front().is_some_and(|then| now.saturating_sub(*then) >= PERIOD) {
            self.0.pop_front();
        }
        let allowed = self.0.len() < RESTARTS;
        if allowed {
            self.0.push_back(now);
        }
        allowed
    }

    fn count(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }
}

/// What `future` gives, or what its panic said.
async fn caught<T>(future: impl Future<Output = T>) -> Result<T, String> {
    let mut future = pin!(future);
    poll_fn(|context| {
        // The future is not looked at again after a panic, only dropped.
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
            Err(panic) => Poll::Ready(Err(panics::message(&*panic))),
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fourth_restart_within_five_seconds_is_refused_and_allowed_after_them() {
        let at = Duration::from_secs;
        let mut restarts = Restarts::default();
        assert!(restarts.allow(at(10)) && restarts.allow(at(11)) && restarts.allow(at(12)));
        assert!(!restarts.allow(at(14)));
        assert_eq!(restarts.count(), 3);
        assert!(restarts.allow(at(15)), "the first is five seconds ago");
        assert!(!restarts.allow(at(15)));
    }
}
