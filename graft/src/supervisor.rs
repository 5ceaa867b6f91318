//! The owner of a cluster's servers.

use std::{fmt, marker::PhantomData, sync::Arc};

use tokio::sync::watch;

use crate::{
    Machine, Outcome, Overview, Request, RequestError, ServerData, ServerName, Status,
    SupervisorError,
    cluster::{CloseOnDrop, Cluster},
    server::Server,
};

/// Owns the servers that [`start`](crate::start) started. **Dropping it stops them** and frees their
/// names at once; [`shutdown`](Self::shutdown) also waits and closes their stores, [`detach`](Self::detach) lets them
/// live.
///
/// Each server is supervised on its own: where its driver panics it is started again, at most three times in
/// five seconds. Where its store fails, its machine diverges or an entry cannot be read, it stays
/// stopped, and [`servers`](Self::servers) and [`data`](Self::data) say why.
#[must_use = "dropping the supervisor stops its servers"]
pub struct Supervisor<M: Machine> {
    cluster: Arc<Cluster>,
    owned: CloseOnDrop,
    machine: PhantomData<fn() -> M>,
}

impl<M: Machine> Supervisor<M> {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Self {
        let owned = CloseOnDrop::new(Arc::clone(&cluster));
        Self { cluster, owned, machine: PhantomData }
    }

    /// Like [`graft::request`](crate::request()), to a server of this supervisor, wherever it is called from. The
    /// compiler checks the entry.
    #[expect(clippy::needless_pass_by_value, reason = "an entry is sent, and it is gone then")]
    pub fn request(&self, server: impl AsRef<str>, entry: M::Entry) -> Request<M::Entry> {
        match self.position(server.as_ref()) {
            Ok(_) => Request::new(&self.cluster, &entry),
            Err(error) => Request::refused(error),
        }
    }

    /// Like [`graft::data`](crate::data()), of a server of this supervisor.
    ///
    /// # Errors
    ///
    /// [`RequestError::UnknownServer`] where it has no such server; [`RequestError::Timeout`] where
    /// something blocks the server for seconds.
    pub async fn data(&self, server: impl AsRef<str> + Send) -> Result<ServerData, RequestError> {
        let at = self.position(server.as_ref())?;
        self.cluster.data(at).await
    }

    /// The name of the leader. Where there is none now, waits for one as long as a request would.
    ///
    /// # Errors
    ///
    /// [`RequestError::NoLeader`] where none stands by then, [`RequestError::Shutdown`] where the
    /// servers' runtime has ended.
    pub async fn leader(&self) -> Result<ServerName, RequestError> {
        match self.cluster.wait_for_leader().await {
            Ok(at) => Ok(self.cluster.server(at).name().clone()),
            Err(_) if self.cluster.is_closed() => {
                Err(RequestError::Shutdown { outcome: Outcome::NotApplied })
            }
            Err(waited) => Err(RequestError::NoLeader { waited }),
        }
    }

    /// Hands leadership to `server` and returns when it leads. Requests wait meanwhile.
    ///
    /// # Errors
    ///
    /// [`SupervisorError`] says why it does not lead; then whoever led goes on.
    pub async fn transfer_leadership(
        &self,
        server: impl AsRef<str> + Send,
    ) -> Result<(), SupervisorError> {
        self.cluster.transfer_leadership(server.as_ref()).await
    }

    /// Stops a server and returns when it has stopped. Its store stays for
    /// [`restart_server`](Self::restart_server). The others go on as long as they are a majority; requests to the
    /// stopped server's name are answered by them.
    ///
    /// # Errors
    ///
    /// [`SupervisorError::UnknownServer`], [`SupervisorError::NotStopped`].
    pub async fn stop_server(&self, server: impl AsRef<str> + Send) -> Result<(), SupervisorError> {
        self.cluster.stop_server(server.as_ref()).await
    }

    /// Starts a server anew, after stopping it where it runs: a new machine, into which the log of its store is replayed.
    /// Opening the store takes as long as its disk does; to wait no longer, drop the future: a server
    /// that it has stopped stays so.
    ///
    /// # Errors
    ///
    /// [`SupervisorError`]; the server is then stopped.
    pub async fn restart_server(
        &self,
        server: impl AsRef<str> + Send,
    ) -> Result<(), SupervisorError> {
        self.cluster.restart_server(server.as_ref()).await
    }

    /// All servers in the order they were named, and how each is.
    #[must_use]
    pub fn servers(&self) -> Vec<(ServerName, Status)> {
        let servers = self.cluster.servers().iter();
        servers.map(|server| (server.name().clone(), server.overview().status)).collect()
    }

    /// A way to wait for changes of a server's status, role, term and leader. Watching never holds the
    /// server up.
    ///
    /// # Errors
    ///
    /// [`SupervisorError::UnknownServer`].
    pub fn watch(
        &self,
        server: impl AsRef<str>,
    ) -> Result<watch::Receiver<Overview>, SupervisorError> {
        self.cluster.named(server.as_ref()).map(Server::watch)
    }

    /// Stops all servers and returns when they have stopped and their stores are closed. Requests that are
    /// under way end with their response or as [`RequestError::Shutdown`].
    pub async fn shutdown(self) {
        self.cluster.shut_down().await;
    }

    /// Lets the servers live on without a supervisor, until their runtime ends. They stay reachable by
    /// their names, and are still started again after a panic.
    pub fn detach(self) {
        self.owned.disarm();
    }

    fn position(&self, server: &str) -> Result<usize, RequestError> {
        let position = self.cluster.position(server);
        position.ok_or_else(|| RequestError::UnknownServer { name: server.to_owned() })
    }
}

impl<M: Machine> fmt::Debug for Supervisor<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor").field("servers", &self.servers()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StartError;

    #[derive(Debug, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
    struct Add(u64);

    impl crate::Entry for Add {
        type Response = u64;
    }

    #[derive(Default)]
    struct Sum(u64);

    impl Machine for Sum {
        type Entry = Add;
        fn handle_entry(&mut self, Add(amount): Add) -> u64 {
            self.0 += amount;
            self.0
        }
    }

    /// A restart after a panic may be under way while the supervisor shuts down.
    #[tokio::test]
    async fn a_server_that_opens_after_the_shutdown_is_told_of_it() {
        let sum = crate::start(["closed"], Sum::default).await.unwrap();
        let cluster = Arc::clone(&sum.cluster);
        sum.shutdown().await;
        let Err(error) = cluster.open(0).await else { panic!("its store is closed") };
        assert!(matches!(&error, StartError::StoreClosed { server } if *server == "closed"));
        assert!(error.to_string().contains("start the cluster anew"), "{error}");
    }
}
