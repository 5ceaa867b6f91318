//! What a supervisor can have done to its servers.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use graft_core::{NodeId, raft::PeerStatus};
use tokio::sync::MutexGuard;

use crate::{Overview, Role, ServerName, SupervisorError, cluster::Cluster, server::Server};

/// A node answers everyone, waits for its machine and closes its transport before it has stopped, each
/// for a few seconds at most; this is beyond all of that.
const STOP_PATIENCE: Duration = Duration::from_secs(15);

impl Cluster {
    fn find_server(&self, name: &str) -> Result<usize, SupervisorError> {
        if self.is_closed() {
            return Err(SupervisorError::Shutdown);
        }
        self.position(name).ok_or_else(|| SupervisorError::UnknownServer {
            name: name.to_owned(),
            servers: self.servers().iter().map(|server| server.name().to_string()).collect(),
        })
    }

    /// The server called `name`.
    pub(crate) fn named(&self, name: &str) -> Result<&Server, SupervisorError> {
        Ok(self.server(self.find_server(name)?))
    }

    /// Stops a server and waits for it. One that has stopped stays as it is.
    pub(crate) async fn stop_server(&self, name: &str) -> Result<(), SupervisorError> {
        let server = self.named(name)?;
        let _turn = self.turn(server).await?;
        self.stop_and_wait(server).await
    }

    /// Waits until nobody else stops or starts the server.
    async fn turn<'a>(&self, server: &'a Server) -> Result<MutexGuard<'a, ()>, SupervisorError> {
        let turn = self.within(STOP_PATIENCE, server.admin.lock()).await;
        turn.ok_or_else(|| self.not_stopped(server))
    }

    /// What is said of a server that did not stop, or was not free to be stopped, in time.
    fn not_stopped(&self, server: &Server) -> SupervisorError {
        if self.is_closed() {
            return SupervisorError::Shutdown;
        }
        SupervisorError::NotStopped { name: server.name().clone(), waited: STOP_PATIENCE }
    }

    async fn stop_and_wait(&self, server: &Server) -> Result<(), SupervisorError> {
        server.stop();
        if !server.is_up() {
            return Ok(());
        }
        let mut overview = server.watch();
        let down = overview.wait_for(|overview| !overview.status.is_up());
        let down = self.within(STOP_PATIENCE, down).await;
        down.map(|_| ()).ok_or_else(|| self.not_stopped(server))
    }

    /// Starts a server from its store, after stopping it where it runs.
    pub(crate) async fn restart_server(
        self: &Arc<Self>,
        name: &str,
    ) -> Result<(), SupervisorError> {
        let at = self.find_server(name)?;
        let server = self.server(at);
        // Who starts a server waits for its disk, whoever's turn it is.
        let _turn = server.admin.lock().await;
        self.stop_and_wait(server).await?;
        // A node waits for its machine only so long, and the next one makes a machine of its own.
        if let Some(latest) = server.latest()
            && latest.machine_rests(STOP_PATIENCE).await.is_err()
        {
            return Err(self.not_stopped(server));
        }
        server.allow_start();
        if self.is_closed() {
            return Err(SupervisorError::Shutdown);
        }
        // Who else wants it to stop waits for this turn, unless all of them are to stop.
        let Some(opened) = server.unless_stopped(self.open(at)).await else {
            return Err(SupervisorError::Shutdown);
        };
        let opened = opened
            .map_err(|source| SupervisorError::Restart { name: server.name().clone(), source })?;
        if self.is_closed() {
            return Err(SupervisorError::Shutdown);
        }
        self.launch(at, opened);
        if self.is_closed() {
            // Closing went through the servers before this one was among them.
            server.stop();
        }
        Ok(())
    }

    /// Frees the names, stops all servers and waits for them.
    pub(crate) async fn shut_down(&self) {
        self.free_names();
        // All at once, so that nobody is elected on the way.
        for server in self.servers() {
            server.stop();
        }
        for server in self.servers() {
            let stopped = async {
                let _turn = self.turn(server).await?;
                self.stop_and_wait(server).await
            };
            if let Err(error) = stopped.await {
                tracing::warn!(%error, "left a server behind");
            }
            server.release_store();
        }
        self.close();
    }

    /// The server that leads, as far as the servers know: the one of the highest term.
    pub(crate) fn known_leader(&self) -> Option<usize> {
        let leads = |overview: &Overview| overview.role == Some(Role::Leader);
        let all = self.servers().iter().map(Server::overview).enumerate();
        let leaders = all.filter(|(_, overview)| leads(overview));
        leaders.max_by_key(|(_, overview)| overview.term).map(|(at, _)| at)
    }

    /// Waits for a leader, for as long as a request would.
    pub(crate) async fn wait_for_leader(&self) -> Result<usize, Duration> {
        let waited = self.config().deadline;
        self.wait_until(waited, Self::known_leader).await.ok_or(waited)
    }

    /// The leader that server `at` knows, waited for as long as a request would.
    pub(crate) async fn wait_for_leader_seen_by(&self, at: usize) -> Result<ServerName, Duration> {
        let waited = self.config().deadline;
        let leader = |cluster: &Self| cluster.server(at).overview().leader;
        self.wait_until(waited, leader).await.ok_or(waited)
    }

    /// Hands the leadership of server `at` to whoever is furthest, and waits until that is done or has
    /// failed: then the others elect one as if it had crashed.
    pub(crate) async fn hand_over(&self, at: usize) {
        let server = self.server(at);
        let Some(handle) = server.handle() else { return };
        let Ok(detail) = handle.detail().await else { return };
        let voters = &detail.raft.membership.voters;
        let able = |peer: &&PeerStatus| !peer.stalled && voters.contains(&peer.node);
        let furthest = detail.raft.peers.iter().filter(able).max_by_key(|peer| peer.match_index);
        let Some(furthest) = furthest else { return };
        let name = server.name();
        if let Err(error) = handle.transfer(furthest.node).await {
            tracing::info!(node = %name, %error, "stops without handing over");
            return;
        }
        let patience = self.config().election_timeout.end().saturating_mul(2);
        let led = |cluster: &Self| {
            let role = cluster.server(at).overview().role;
            (role != Some(Role::Leader)).then_some(())
        };
        if self.wait_until(patience, led).await.is_none() {
            tracing::info!(node = %name, waited = ?patience, "stops although nobody took over");
        }
    }

    /// Hands leadership to the server called `name` and waits until it leads.
    pub(crate) async fn transfer_leadership(&self, name: &str) -> Result<(), SupervisorError> {
        let to = self.find_server(name)?;
        let target = self.server(to).name().clone();
        let failed = |reason: String| SupervisorError::Transfer { to: target.clone(), reason };
        if !self.server(to).is_up() {
            return Err(SupervisorError::NotRunning { name: target });
        }
        let leader = self.wait_for_leader().await;
        let leader = leader.map_err(|waited| SupervisorError::NoLeader { waited })?;
        if leader == to {
            return Ok(());
        }
        let Some(handle) = self.server(leader).handle() else {
            return Err(failed(format!("`{}` has just stopped", self.server(leader).name())));
        };
        let order = handle.transfer(self.server(to).node()).await;
        order.map_err(|error| failed(error.to_string()))?;
        // The leader gives up after one election timeout; the new one is known a little later.
        let patience = self.config().election_timeout.end().saturating_mul(2);
        let leads = |cluster: &Self| (cluster.known_leader() == Some(to)).then_some(());
        let took_over = self.wait_until(patience, leads).await;
        took_over.ok_or_else(|| {
            failed(format!("it did not take over within {patience:?}: its log may be behind"))
        })
    }

    /// Hands the leadership of server `at` to the member called `name`, which runs elsewhere, and waits until
    /// it is known to lead.
    pub(crate) async fn hand_over_to(&self, at: usize, name: &str) -> Result<(), SupervisorError> {
        let target = ServerName::from(name);
        let failed = |reason: String| SupervisorError::Transfer { to: target.clone(), reason };
        let server = self.server(at);
        let Some(handle) = server.handle() else {
            return Err(SupervisorError::NotRunning { name: server.name().clone() });
        };
        let order = handle.transfer(NodeId::of_name(name)).await;
        order.map_err(|error| failed(error.to_string()))?;
        let patience = self.config().election_timeout.end().saturating_mul(2);
        let led = |cluster: &Self| {
            let leader = cluster.server(at).overview().leader;
            (leader.as_ref() == Some(&target)).then_some(())
        };
        self.wait_until(patience, led).await.ok_or_else(|| {
            failed(format!("it did not take over within {patience:?}: its log may be behind"))
        })
    }

    /// Looks again whenever something changes about a server, until there is an answer or `limit` is over.
    async fn wait_until<T>(&self, limit: Duration, look: impl Fn(&Self) -> Option<T>) -> Option<T> {
        let mut watches: Vec<_> = self.servers().iter().map(Server::watch).collect();
        let search = async {
            loop {
                for watch in &mut watches {
                    watch.mark_unchanged();
                }
                if let Some(found) = look(self) {
                    return found;
                }
                let changes = watches.iter_mut().map(|watch| Box::pin(watch.changed()));
                let mut changes: Vec<_> = changes.collect();
                poll_fn(|context| {
                    let changed =
                        changes.iter_mut().any(|change| change.as_mut().poll(context).is_ready());
                    if changed { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
            }
        };
        self.within(limit, search).await
    }

    /// What `future` gives, or `None` where that takes longer than `limit` or the cluster is shut down.
    pub(crate) async fn within<T>(
        &self,
        limit: Duration,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        let runtime = self.runtime();
        let mut closed = self.watch_closed();
        let mut future = pin!(future);
        let mut over = pin!(closed.wait_for(|closed| *closed));
        let mut alarm = runtime.sleep_until(runtime.now().saturating_add(limit));
        poll_fn(|context| {
            if let Poll::Ready(value) = future.as_mut().poll(context) {
                return Poll::Ready(Some(value));
            }
            // The alarm is looked at last: once its runtime has ended it cannot be.
            if over.as_mut().poll(context).is_ready() {
                return Poll::Ready(None);
            }
            alarm.as_mut().poll(context).map(|()| None)
        })
        .await
    }
}
