//! graft across machines as its users see it: `graft::server` thrice and `graft::Client`, over QUIC.

use std::{net::SocketAddr, path::Path};

use graft::{Client, LogStore, Server, transport};
use tempfile::TempDir;

use super::{
    face::{Command, Idle},
    loopback::{CLUSTER, Certificates, addresses},
};
use crate::{Caller, Deployment, Failure, Workload, disk};

const NAMES: [&str; 3] = ["server1", "server2", "server3"];

/// Three servers, each on its own address.
pub(super) struct Served<C: Command> {
    servers: [Server<Idle<C>>; 3],
    addresses: [SocketAddr; 3],
    certificates: Certificates,
    payload: usize,
}

impl<C: Command> Deployment for Served<C> {
    const NAME: &'static str = "graft::Client over QUIC";

    type Caller = Asker<C>;

    async fn found(work: Workload) -> Result<Self, Failure> {
        Self::found_on(work.payload, |_name| Ok(graft::store::memory())).await
    }

    async fn connect(&self) -> Result<Asker<C>, Failure> {
        let tls = self.certificates.client().map_err(failure)?;
        let addresses = self.addresses.map(|address| address.to_string());
        let client = Client::connect(addresses, tls).await.map_err(failure)?;
        Ok(Asker { client, payload: self.payload })
    }

    async fn close(self) {
        let [one, two, three] = self.servers.map(Server::shutdown);
        tokio::join!(one, two, three);
    }
}

impl<C: Command> Served<C> {
    /// Starts the servers at once: they found the cluster together.
    async fn found_on(
        payload: usize,
        store: impl Fn(&str) -> Result<Box<dyn LogStore>, disk::Error>,
    ) -> Result<Self, Failure> {
        let certificates = Certificates::new().map_err(failure)?;
        let addresses = addresses::<3>().map_err(failure)?;
        let start = |at: usize| {
            let (name, address) = (NAMES[at], addresses[at]);
            let members = NAMES.iter().zip(addresses).map(|(name, at)| (*name, at.to_string()));
            let network = transport::quic(address, certificates.server(name)?)?;
            let server = graft::server(name).cluster(CLUSTER).members(members);
            let starting = server.store(store(name)?).transport(network).start(Idle::default);
            Ok::<_, disk::Error>(starting)
        };
        let (one, two, three) = tokio::try_join!(
            start(0).map_err(failure)?,
            start(1).map_err(failure)?,
            start(2).map_err(failure)?
        )
        .map_err(failure)?;
        one.leader().await.map_err(failure)?;
        Ok(Self { servers: [one, two, three], addresses, certificates, payload })
    }
}

/// The same with every log on the disk.
pub(super) struct ServedOnDisk<C: Command> {
    served: Served<C>,
    directory: TempDir,
}

impl<C: Command> Deployment for ServedOnDisk<C> {
    const NAME: &'static str = "graft::Client over QUIC, on redb";

    type Caller = Asker<C>;

    async fn found(work: Workload) -> Result<Self, Failure> {
        let directory = disk::scratch().map_err(failure)?;
        let open = |path: &Path| Ok(graft::store::redb(path)?);
        let served =
            Served::found_on(work.payload, |name| open(&directory.path().join(name))).await?;
        Ok(Self { served, directory })
    }

    async fn connect(&self) -> Result<Asker<C>, Failure> {
        self.served.connect().await
    }

    async fn close(self) {
        self.served.close().await;
        drop(self.directory);
    }
}

fn failure(error: impl std::fmt::Display) -> Failure {
    Failure::of("graft::Client over QUIC", error)
}

/// A task that asks by a client it shares with all others.
pub(super) struct Asker<C: Command> {
    client: Client<C>,
    payload: usize,
}

impl<C: Command> Clone for Asker<C> {
    fn clone(&self) -> Self {
        Self { client: self.client.clone(), payload: self.payload }
    }
}

impl<C: Command> Caller for Asker<C> {
    async fn call(&mut self) -> Result<(), Failure> {
        self.client.request(C::of(self.payload)).await.map_err(failure)
    }

    async fn leave(self) {
        self.client.shutdown().await;
    }
}
