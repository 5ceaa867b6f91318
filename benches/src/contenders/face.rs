//! graft as its users see it: `graft::start` and `graft::request`, on memory and on the disk.

use std::{
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use graft::{Archive, Deserialize, Entry, Machine, Serialize, Supervisor};
use tempfile::TempDir;

use crate::{Caller, Deployment, Failure, Workload, disk};

/// A command that the idle machine takes.
pub(super) trait Command: Entry<Response = ()> {
    /// One that carries so many bytes.
    fn of(payload: usize) -> Self;
}

/// A command without content.
#[derive(Archive, Serialize, Deserialize, Debug)]
#[rkyv(crate = graft::rkyv)]
pub(super) struct Nothing;

impl Entry for Nothing {
    type Response = ();
}

impl Command for Nothing {
    fn of(_payload: usize) -> Self {
        Self
    }
}

/// A command that carries bytes.
#[derive(Archive, Serialize, Deserialize, Debug)]
#[rkyv(crate = graft::rkyv)]
pub(super) struct Filled(Vec<u8>);

impl Entry for Filled {
    type Response = ();
}

impl Command for Filled {
    fn of(payload: usize) -> Self {
        Self(vec![0xA5; payload])
    }
}

/// A machine that does nothing.
pub(super) struct Idle<C>(PhantomData<fn(C)>);

impl<C> Default for Idle<C> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<C: Command> Machine for Idle<C> {
    type Entry = C;

    fn handle_entry(&mut self, _command: C) {}
}

/// Three servers by name.
pub(super) struct Face<C: Command> {
    supervisor: Supervisor<Idle<C>>,
    server: Arc<str>,
    payload: usize,
}

impl<C: Command> Deployment for Face<C> {
    const NAME: &'static str = "graft::request";

    type Caller = Asker<C>;

    async fn found(work: Workload) -> Result<Self, Failure> {
        let names = names();
        let server = Arc::from(names[0].as_str());
        let supervisor = graft::start(names, Idle::default).await.map_err(failure)?;
        Ok(Self { supervisor, server, payload: work.payload })
    }

    async fn connect(&self) -> Result<Asker<C>, Failure> {
        let (server, payload) = (Arc::clone(&self.server), self.payload);
        Ok(Asker { server, payload, command: PhantomData })
    }

    async fn close(self) {
        self.supervisor.shutdown().await;
    }
}

/// Three servers by name, with every log on the disk.
pub(super) struct FaceOnDisk<C: Command> {
    face: Face<C>,
    directory: TempDir,
}

impl<C: Command> Deployment for FaceOnDisk<C> {
    const NAME: &'static str = "graft::request on redb";

    type Caller = Asker<C>;

    async fn found(work: Workload) -> Result<Self, Failure> {
        let directory = disk::scratch().map_err(failure)?;
        let path = directory.path().to_owned();
        let names = names();
        let server = Arc::from(names[0].as_str());
        let cluster = graft::cluster(names)
            .stores(move |name| Ok(graft::store::redb(path.join(name.to_string()))?));
        let supervisor = cluster.start(Idle::default).await.map_err(failure)?;
        Ok(Self { face: Face { supervisor, server, payload: work.payload }, directory })
    }

    async fn connect(&self) -> Result<Asker<C>, Failure> {
        self.face.connect().await
    }

    async fn close(self) {
        self.face.close().await;
        drop(self.directory);
    }
}

/// Clusters that run at the same time must differ in name where clients ask from elsewhere.
fn names() -> [String; 3] {
    static CLUSTERS: AtomicU64 = AtomicU64::new(0);
    let cluster = CLUSTERS.fetch_add(1, Ordering::Relaxed);
    [1, 2, 3].map(|server| format!("cluster{cluster}-server{server}"))
}

fn failure(error: impl std::fmt::Display) -> Failure {
    Failure::of("graft::request", error)
}

/// A task that asks a server by its name.
pub(super) struct Asker<C> {
    server: Arc<str>,
    payload: usize,
    command: PhantomData<fn() -> C>,
}

impl<C> Clone for Asker<C> {
    fn clone(&self) -> Self {
        Self { server: Arc::clone(&self.server), ..*self }
    }
}

impl<C: Command> Caller for Asker<C> {
    async fn call(&mut self) -> Result<(), Failure> {
        graft::request(&self.server, C::of(self.payload)).await.map_err(failure)
    }
}
