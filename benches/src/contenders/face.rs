//! graft as its users see it: `graft::start` and `graft::request`.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use graft::{Archive, Deserialize, Entry, Machine, Serialize, Supervisor};

use crate::{Caller, Deployment, Failure};

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
        // Clusters that run at the same time must differ in name where clients ask from elsewhere.
        static CLUSTERS: AtomicU64 = AtomicU64::new(0);
        let cluster = CLUSTERS.fetch_add(1, Ordering::Relaxed);
        let names = [1, 2, 3].map(|server| format!("cluster{cluster}-server{server}"));
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
