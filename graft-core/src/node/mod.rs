//! The driver: one future that carries out what [`Raft`] orders.
//!
//! A turn goes from left to right, and nothing calls backwards:
//!
//! ```text
//! inbox ──┐                       ┌─ messages ─> transport
//! write ──┤                       ├─ answers  ─> transport
//! loads ──┼─> time, step, drain ──┼─ write    ─> store ── durable ──> step, drain again
//! timer ──┤                       ├─ loads    ─> store ── loaded ───> step, drain again
//! orders ─┘                       └─ apply    ─> machine ─ applied ─> step, drain again
//! ```
//!
//! - The time is read after waking and stepped first; then everything that waits is stepped, all
//!   requests as one proposal; then it is drained until nothing more can be done without waiting. So
//!   batches grow by themselves while the node is busy, and a quiet one answers at once.
//! - What the store does is polled here, inside the node's own future: a store that is ready at once is
//!   done within the turn, and a slow one wakes the node like a message does.
//! - The machine runs in the turn, a millisecond at most before the inbox is looked at again, or on a
//!   thread of its own ([`ApplyMode::Thread`](crate::ApplyMode)).
//! - A turn ends by giving the thread to other tasks, so one busy server starves no neighbour.
//!
//! A [`Handle`] watches the node and gives it orders. A store error stops it ([`StopReason`]) and is
//! never tried again; a panic in the driver passes through to whoever polls [`Node::run`].

mod apply;
mod clock;
mod config;
mod desk;
mod driver;
mod events;
mod handle;
mod lanes;
mod pace;
mod requests;

use std::{fmt, future::poll_fn, sync::Arc};

pub use config::{NodeConfig, NodeParts, Observer, OpenError, StopReason};
pub use handle::{Detail, Handle, HandleError, NodeStatus};

pub(crate) use handle::within;

use crate::{Identity, Inbox, InboxReceiver, Raft, Recovered, raft, session::Applier};
use apply::{ApplyLane, Works};
use clock::{Clock, Timer};
use desk::{Desk, DeskOwner};
use driver::Driver;
use events::Events;
use lanes::Lanes;
use pace::Pace;
use requests::Admission;

/// Drives one server: see the [module](self).
pub struct Node {
    parts: NodeParts,
    raft: Raft,
    inbox: InboxReceiver,
    desk: DeskOwner,
    events: Events,
}

impl Node {
    /// Recovers the store and makes a server of it that is reachable, but does nothing before
    /// [`run`](Self::run).
    ///
    /// # Errors
    ///
    /// [`OpenError`] where the configuration is out of range, or the store was never born, belongs to
    /// somebody else or fails.
    pub async fn open(parts: NodeParts) -> Result<(Self, Handle), OpenError> {
        parts.config.validate()?;
        // Before it is recovered, which may write: the store of somebody else stays as it is.
        if let Some(found) = parts.store.identity().await.map_err(OpenError::Store)? {
            check_identity(&parts.config, &found)?;
        }
        let durable = parts.store.recover().await.map_err(OpenError::Store)?;
        let durable = durable.ok_or(OpenError::NotBorn)?;
        check_ours(&parts.config, &durable)?;
        let node = durable.identity.node;
        let name: Arc<str> = durable.identity.name.as_str().into();
        // The runtime's clock is older than a server that is started again.
        let start = parts.runtime.now();
        let config = raft::Config { start, ..parts.config.raft.clone() };
        let raft = Raft::recover(config, durable);
        let (inbox, receiver) = Inbox::new(parts.config.inbox);
        let desk = Desk::new(inbox.clone());
        let (events, status) = Events::new(node, name, &raft);
        parts.transport.attach(inbox);
        let handle = Handle::new(Arc::clone(&desk), status, Arc::clone(&parts.runtime));
        let node = Self { parts, raft, inbox: receiver, desk: DeskOwner(desk), events };
        Ok((node, handle))
    }

    /// Runs the server until it is asked to stop or must. It then has answered everyone who waited, as
    /// far as the transport let it, and closed the transport.
    ///
    /// # Panics
    ///
    /// A panic in here passes through; the transport is then still open.
    pub async fn run(self) -> StopReason {
        let Self { parts, raft, inbox, desk, events } = self;
        let NodeParts { config, store, transport, machine, runtime, observer } = parts;
        let switch = raft::Switch::of(&config.raft);
        let admission = Admission::new(machine.check(), &config);
        let works = Works {
            machine,
            applier: Applier::with_switch(switch, raft.status().commit_index),
            transport: Arc::clone(&transport),
            runtime: Arc::clone(&runtime),
            pace: Pace::new(config.heartbeat()),
            replies: Vec::new(),
            switch,
        };
        let mut driver = Driver {
            raft,
            transport: &*transport,
            runtime: &runtime,
            observer,
            inbox,
            apply: ApplyLane::new(works, Arc::clone(&desk.0)),
            desk,
            lanes: Lanes::new(&*store, switch),
            admission,
            events,
            clock: Clock::default(),
            timer: Timer::default(),
            arrivals: Default::default(),
            backlog: Default::default(),
            woken: Default::default(),
            asked: Default::default(),
            effects: Default::default(),
            unfinished: true,
        };
        let reason = poll_fn(|context| driver.poll(context)).await;
        driver.finish(&reason, config.stop_timeout).await;
        reason
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("node", &self.parts.config.raft.node).finish_non_exhaustive()
    }
}

/// Checks that the store is this server's and that its machine can be built from it.
fn check_ours(config: &NodeConfig, durable: &Recovered) -> Result<(), OpenError> {
    check_identity(config, &durable.identity)?;
    let compacted = durable.compacted.index;
    if compacted.0 > 0 || durable.snapshot.is_some() {
        return Err(OpenError::Compacted { compacted });
    }
    Ok(())
}

fn check_identity(config: &NodeConfig, found: &Identity) -> Result<(), OpenError> {
    let Identity { cluster, epoch, node, .. } = found;
    let wanted = &config.raft;
    let parts = [
        ("cluster", cluster.0 == wanted.cluster.0, cluster.to_string(), wanted.cluster.to_string()),
        ("epoch", epoch.0 == wanted.epoch.0, epoch.to_string(), wanted.epoch.to_string()),
        ("server", node.0 == wanted.node.0, node.to_string(), wanted.node.to_string()),
    ];
    for (field, same, stored, configured) in parts {
        if !same {
            return Err(OpenError::WrongIdentity { field, stored, configured });
        }
    }
    Ok(())
}
