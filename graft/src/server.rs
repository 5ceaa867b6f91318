//! One server of a cluster as its supervisor sees it.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
};

use graft_core::{LogStore, NodeId, node::Handle};
use tokio::sync::watch;

use crate::{Overview, Role, ServerName, Status};

/// What outlives the runs of a server: its name, its store, its status.
pub(crate) struct Server {
    name: ServerName,
    node: NodeId,
    store: Mutex<Option<Arc<dyn LogStore>>>,
    overview: watch::Sender<Overview>,
    run: Mutex<Run>,
    /// Set while the server is to stop, so that a panic on the way does not start it again.
    stop_wanted: watch::Sender<bool>,
    /// Held by whoever stops or starts it, so that these never mix.
    pub(crate) admin: tokio::sync::Mutex<()>,
}

/// The run that is the latest.
#[derive(Default)]
struct Run {
    number: u64,
    handle: Option<Handle>,
    /// The handle of the latest node, also after its end.
    latest: Option<Handle>,
}

impl Server {
    pub(crate) fn new(name: ServerName) -> Self {
        Self {
            node: NodeId::of_name(name.as_str()),
            name,
            store: Mutex::default(),
            overview: watch::Sender::new(Overview {
                status: Status::Stopped,
                role: None,
                term: 0,
                leader: None,
            }),
            run: Mutex::default(),
            stop_wanted: watch::Sender::new(false),
            admin: tokio::sync::Mutex::new(()),
        }
    }

    pub(crate) const fn name(&self) -> &ServerName {
        &self.name
    }

    pub(crate) const fn node(&self) -> NodeId {
        self.node
    }

    /// The store, from when the cluster has opened it until it is shut down.
    pub(crate) fn store(&self) -> Option<Arc<dyn LogStore>> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets go of the store, so that somebody else can open it: the tasks of a cluster that has ended
    /// may outlive it by a moment.
    pub(crate) fn release_store(&self) {
        let store = self.store.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A store may take its time to close, and nobody should wait for a lock meanwhile.
        drop(store);
    }

    pub(crate) fn set_store(&self, store: Arc<dyn LogStore>) {
        *self.store.lock().unwrap_or_else(PoisonError::into_inner) = Some(store);
    }

    pub(crate) fn overview(&self) -> Overview {
        self.overview.borrow().clone()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Overview> {
        self.overview.subscribe()
    }

    /// The node that runs now.
    pub(crate) fn handle(&self) -> Option<Handle> {
        self.run().handle.clone()
    }

    /// The node that runs now or ran last: its machine may still be at work on its thread.
    pub(crate) fn latest(&self) -> Option<Handle> {
        self.run().latest.clone()
    }

    /// From now on the server may run again.
    pub(crate) fn allow_start(&self) {
        self.stop_wanted.send_replace(false);
    }

    /// Asks the server to stop, and its supervisor not to start it again on the way.
    pub(crate) fn stop(&self) {
        self.stop_wanted.send_replace(true);
        if let Some(handle) = self.handle() {
            handle.stop();
        }
    }

    /// Whether a task of the server lives.
    pub(crate) fn is_up(&self) -> bool {
        self.overview.borrow().status.is_up()
    }

    pub(crate) fn is_stop_wanted(&self) -> bool {
        *self.stop_wanted.borrow()
    }

    /// What `future` gives, or `None` where the server is to stop first: a disk that does not answer holds up
    /// its start and nothing else.
    pub(crate) async fn unless_stopped<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let mut wanted = self.stop_wanted.subscribe();
        let mut stopped = pin!(wanted.wait_for(|wanted| *wanted));
        let mut future = pin!(future);
        poll_fn(|context| {
            if stopped.as_mut().poll(context).is_ready() {
                return Poll::Ready(None);
            }
            future.as_mut().poll(context).map(Some)
        })
        .await
    }

    /// A node begins to run. Gives the number of the run.
    pub(crate) fn on_start(&self, handle: &Handle) -> u64 {
        let mut run = self.run();
        run.number += 1;
        run.handle = Some(handle.clone());
        run.latest = Some(handle.clone());
        let number = run.number;
        drop(run);
        self.overview.send_modify(|overview| overview.status = Status::Running);
        // A stop that came while the node was being opened found nothing to stop.
        if self.is_stop_wanted() {
            handle.stop();
        }
        number
    }

    /// What the node of run `number` says of itself; of no interest once it has ended.
    pub(crate) fn on_node(&self, number: u64, role: Role, term: u64, leader: Option<ServerName>) {
        let run = self.run();
        if run.number != number || run.handle.is_none() {
            return;
        }
        self.overview.send_if_modified(|overview| {
            let seen = Overview { status: overview.status.clone(), role: Some(role), term, leader };
            let changed = *overview != seen;
            *overview = seen;
            changed
        });
    }

    /// The node has ended, and this is how.
    pub(crate) fn set_status(&self, status: Status) {
        let mut run = self.run();
        run.handle = None;
        self.overview.send_modify(|overview| {
            overview.status = status;
            overview.role = None;
            overview.leader = None;
        });
    }

    fn run(&self) -> MutexGuard<'_, Run> {
        // Nothing of a user's runs under this lock, so a poisoned one is as good as any.
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
