//! graft as its users see it: `graft::start` and `graft::request`, on memory and on the disk.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use graft::{Archive, Deserialize, Entry, Machine, Serialize, Supervisor};
use tempfile::TempDir;

use crate::{Caller, Deployment, Failure, disk};

/// A command without content.
#[derive(Archive, Serialize, Deserialize, Debug)]
#[rkyv(crate = graft::rkyv)]
struct Nothing;

impl Entry for Nothing {
    type Response = ();
}

/// A machine that does nothing.
struct Idle;

impl Machine for Idle {
    type Entry = Nothing;

    fn handle_entry(&mut self, _entry: Nothing) {}
}

/// Three servers by name.
pub(super) struct Face {
    supervisor: Supervisor<Idle>,
    server: Arc<str>,
}

impl Deployment for Face {
    const NAME: &'static str = "graft::request";

    type Caller = Asker;

    async fn found() -> Result<Self, Failure> {
        let names = names();
        let server = Arc::from(names[0].as_str());
        let supervisor = graft::start(names, || Idle).await.map_err(failure)?;
        Ok(Self { supervisor, server })
    }

    fn caller(&self) -> Asker {
        Asker { server: Arc::clone(&self.server) }
    }

    async fn close(self) {
        self.supervisor.shutdown().await;
    }
}

/// Three servers by name, with every log on the disk.
pub(super) struct FaceOnDisk {
    face: Face,
    directory: TempDir,
}

impl Deployment for FaceOnDisk {
    const NAME: &'static str = "graft::request on redb";

    type Caller = Asker;

    async fn found() -> Result<Self, Failure> {
        let directory = disk::scratch().map_err(failure)?;
        let path = directory.path().to_owned();
        let names = names();
        let server = Arc::from(names[0].as_str());
        let cluster = graft::cluster(names)
            .stores(move |name| Ok(graft::store::redb(path.join(name.to_string()))?));
        let supervisor = cluster.start(|| Idle).await.map_err(failure)?;
        Ok(Self { face: Face { supervisor, server }, directory })
    }

    fn caller(&self) -> Asker {
        self.face.caller()
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
    Failure::of(Face::NAME, error)
}

/// A task that asks a server by its name.
pub(super) struct Asker {
    server: Arc<str>,
}

impl Caller for Asker {
    async fn call(&mut self) -> Result<(), Failure> {
        graft::request(&self.server, Nothing).await.map_err(failure)
    }
}
