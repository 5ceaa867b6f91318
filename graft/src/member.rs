//! One server of a cluster across machines.

use std::{fmt, marker::PhantomData, sync::Arc};

use tokio::sync::watch;

use crate::{
    Machine, Outcome, Overview, Request, RequestError, Role, ServerData, ServerName, Status,
    SupervisorError,
    cluster::{CloseOnDrop, Cluster},
    server::Server as Local,
};

/// The only server of its cluster that runs here.
const HERE: usize = 0;

/// A server that [`server`](crate::server()) started. **Dropping it stops it** without a farewell;
/// [`shutdown`](Self::shutdown) hands over and waits.
///
/// It is supervised: where its driver panics it is started again, at most three times in five seconds. Where
/// its store fails, its machine diverges or an entry cannot be read, it stays stopped, and
/// [`status`](Self::status) and [`data`](Self::data) say why.
#[must_use = "dropping the server stops it"]
pub struct Server<M: Machine> {
    cluster: Arc<Cluster>,
    owned: CloseOnDrop,
    machine: PhantomData<fn() -> M>,
}

impl<M: Machine> Server<M> {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Self {
        let owned = CloseOnDrop::new(Arc::clone(&cluster));
        Self { cluster, owned, machine: PhantomData }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &ServerName {
        self.here().name()
    }

    /// Asks the cluster, by way of this server's network: the request reaches the leader wherever that is.
    /// Like [`graft::request`](crate::request()) with this server's name.
    #[expect(clippy::needless_pass_by_value, reason = "an entry is sent, and it is gone then")]
    pub fn request(&self, entry: M::Entry) -> Request<M::Entry> {
        Request::new(&self.cluster, &entry)
    }

    /// What the server is and has now.
    ///
    /// # Errors
    ///
    /// [`RequestError::Timeout`] where something blocks the server for seconds.
    pub async fn data(&self) -> Result<ServerData, RequestError> {
        self.cluster.data(HERE).await
    }

    /// Whether it runs, and if not, why not.
    #[must_use]
    pub fn status(&self) -> Status {
        self.here().overview().status
    }

    /// A way to wait for changes of its status, role, term and leader. Watching never holds it up.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Overview> {
        self.here().watch()
    }

    /// The name of the leader, as this server knows it. Where there is none now, waits for one as long as a
    /// request would.
    ///
    /// # Errors
    ///
    /// [`RequestError::NoLeader`] where none is known by then, [`RequestError::Shutdown`] where the server
    /// is stopped.
    pub async fn leader(&self) -> Result<ServerName, RequestError> {
        match self.cluster.wait_for_leader_seen_by(HERE).await {
            Ok(leader) => Ok(leader),
            Err(_) if self.cluster.is_closed() => {
                Err(RequestError::Shutdown { outcome: Outcome::NotApplied })
            }
            Err(waited) => Err(RequestError::NoLeader { waited }),
        }
    }

    /// Hands leadership from this server, which must lead, to the member called `to`, and returns when that is
    /// known to lead. Requests wait meanwhile.
    ///
    /// # Errors
    ///
    /// [`SupervisorError`] says why it does not lead; then whoever led goes on.
    pub async fn transfer_leadership(
        &self,
        to: impl AsRef<str> + Send,
    ) -> Result<(), SupervisorError> {
        self.cluster.hand_over_to(HERE, to.as_ref()).await
    }

    /// Starts it anew from its store, after stopping it where it runs: after a failure that was mended.
    /// Opening the store takes as long as its disk does; to wait no longer, drop the future: a server
    /// that it has stopped stays so.
    ///
    /// # Errors
    ///
    /// [`SupervisorError`]; the server is then stopped.
    pub async fn restart(&self) -> Result<(), SupervisorError> {
        self.cluster.restart_server(self.name().as_str()).await
    }

    /// Stops the server and returns when it has stopped, its store is closed and its address is free. Where
    /// it leads it first hands over to the server that is furthest, so nobody has to wait for an election.
    /// Requests under way by its clients end with their response or are sent to another server.
    pub async fn shutdown(self) {
        if self.here().overview().role == Some(Role::Leader) {
            self.cluster.hand_over(HERE).await;
        }
        self.cluster.shut_down().await;
        self.cluster.leave_network().await;
    }

    /// Lets the server live on without this handle, until its runtime ends.
    pub fn detach(self) {
        self.owned.disarm();
    }

    fn here(&self) -> &Local {
        self.cluster.server(HERE)
    }
}

impl<M: Machine> fmt::Debug for Server<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("name", self.name())
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}
