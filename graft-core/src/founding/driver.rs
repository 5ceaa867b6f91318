//! The driver of a founding: gives the store its birth, lets founders talk, and writes what they come to.

use std::{fmt, future::poll_fn, sync::Arc, task::Poll, time::Duration};

use tokio::sync::watch;

use super::{Founding, FoundingRefusal, Progress};
use crate::{
    Arrivals, Birth, ClusterId, Envelope, Epoch, GroupId, Identity, Inbox, InboxLimits,
    InboxReceiver, Incarnation, Index, LeaderHint, LogStore, Membership, NodeId, NodeInfo,
    PeerEnvelope, Recovered, RejectReason, Reply, ReplyEnvelope, Request, Runtime, StoreError,
    Transport, node::within,
};

/// What a founder says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Described {
    /// Its name.
    pub name: String,
    /// Its number: [`NodeId::of_name`] of the name.
    pub node: NodeId,
    /// The cluster that it founds.
    pub cluster: ClusterId,
    /// The generation of that cluster.
    pub epoch: Epoch,
    /// The group; 0 today.
    pub group: GroupId,
    /// Whether it founds the cluster or joins one that is founded.
    pub birth: Birth,
    /// The name of the entry type of its machine.
    pub machine: String,
    /// The fingerprint of the format in which commands are archived.
    pub format: u64,
    /// Where its peers reach it.
    pub peer_address: String,
    /// Where clients reach it.
    pub client_address: String,
}

/// What [`found`] works with.
pub struct FoundingParts {
    /// This server.
    pub own: Described,
    /// All founders with their names, this server included. The list must be the same for all.
    pub founders: Vec<(NodeId, String)>,
    /// The server's store, through a handle that nobody else writes by. The node opens another.
    pub store: Arc<dyn LogStore>,
    /// A handle for the founding alone, which closes it. The node gets another.
    pub transport: Arc<dyn Transport>,
    /// Time and randomness.
    pub runtime: Arc<dyn Runtime>,
    /// How often this server says where it is, on average. 100 ms is good: a founding then takes a few
    /// of them after the last founder has come, even where messages are lost.
    pub interval: Duration,
    /// How long to wait for the others; `None` waits for as long as it takes.
    pub timeout: Option<Duration>,
    /// Told whenever it changes.
    pub progress: Option<watch::Sender<Progress>>,
}

/// A store that has its birth.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Born {
    /// Whose it is.
    pub identity: Identity,
    /// The latest membership, where the store has a log.
    pub membership: Option<Membership>,
}

/// A store that has its founding membership.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Founded {
    /// Whose it is.
    pub identity: Identity,
    /// The latest membership that the store holds.
    pub membership: Membership,
    /// Whether it was founded just now. If not, the store had a log before, and what it holds counts:
    /// the list of founders was not looked at.
    pub newly: bool,
}

/// Why a server did not come to found, or to take part in what was founded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FoundingError {
    /// What it heard, or was given, forbids it.
    #[error(transparent)]
    Refused(#[from] FoundingRefusal),
    /// The store belongs to somebody else.
    #[error(
        "the store{} belongs to {field} {stored}, this server is {described}: give it its own store or \
         correct the configuration", at(.place)
    )]
    WrongIdentity {
        /// Which part of the identity differs.
        field: &'static str,
        /// What the store says.
        stored: String,
        /// What the server was described as.
        described: String,
        /// Where the store is, if it says so.
        place: Option<String>,
    },
    /// The founders did not agree in time. Nothing is lost: start again to go on.
    #[error("the cluster was not founded within {waited:?}: {progress}")]
    TimedOut {
        /// How long was waited.
        waited: Duration,
        /// How far it came.
        progress: Progress,
    },
    /// The store failed. What it was doing is not known to have happened, and was not tried again.
    #[error("the store{} failed to {action}", at(.place))]
    Store {
        /// What it was asked for.
        action: &'static str,
        /// Where the store is, if it says so.
        place: Option<String>,
        /// What it said.
        #[source]
        source: StoreError,
    },
}

fn at(place: &Option<String>) -> String {
    place.as_ref().map(|place| format!(" at {place}")).unwrap_or_default()
}

impl fmt::Debug for FoundingParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { own, founders, interval, timeout, .. } = self;
        f.debug_struct("FoundingParts")
            .field("own", own)
            .field("founders", founders)
            .field("interval", interval)
            .field("timeout", timeout)
            .finish_non_exhaustive()
    }
}

/// Sees to it that the store has a birth, as a founder or as a joiner, and says what it holds. An empty one is given a
/// random birth; one that has an identity keeps it. Whoever must state the birth before it can
/// reach the others calls this first; [`found`] then goes on with it.
///
/// # Errors
///
/// [`FoundingError::WrongIdentity`] where it belongs to somebody else, and then nothing has been
/// changed as far as the store can tell whose it is by looking; [`FoundingError::Store`].
pub async fn give_birth(
    store: &dyn LogStore,
    own: &Described,
    runtime: &dyn Runtime,
) -> Result<Born, FoundingError> {
    let failed =
        |action| move |source| FoundingError::Store { action, place: store.place(), source };
    // Before it is recovered, which may write: the store of somebody else stays as it is.
    if let Some(found) = store.identity().await.map_err(failed("say whose it is"))? {
        check_identity(store, own, &found)?;
    }
    if let Some(recovered) = store.recover().await.map_err(failed("recover"))? {
        check_identity(store, own, &recovered.identity)?;
        let membership = latest_membership(&recovered);
        return Ok(Born { identity: recovered.identity, membership });
    }
    let identity = Identity {
        cluster: own.cluster,
        epoch: own.epoch,
        node: own.node,
        name: own.name.clone(),
        // Zero means that a birth is not known.
        incarnation: Incarnation(runtime.random().max(1)),
        birth: own.birth,
        machine: own.machine.clone(),
        format: own.format,
    };
    store.create(&identity).await.map_err(failed("take its identity"))?;
    tracing::info!(node = %own.name, birth = %identity.incarnation, "its store was empty and is born");
    Ok(Born { identity, membership: None })
}

/// Founds a cluster together with the other founders, or goes on with what the store holds: see the
/// [module](super). When this returns, the store is ready for a [`Node`](crate::Node), and the
/// transport of the founding is closed.
///
/// A store that has a log is returned at once. Otherwise this waits until all founders agree, at most
/// [`timeout`](FoundingParts::timeout); dropping it is harmless at any time, and starting again goes
/// on with the same birth. Requests of clients are answered that nobody leads; whatever else arrives
/// and belongs to no founding is dropped.
///
/// # Errors
///
/// [`FoundingError`]. Nothing has been written to the log then.
///
/// # Panics
///
/// Where the server is described as a joiner: it has nothing to found.
pub async fn found(parts: FoundingParts) -> Result<Founded, FoundingError> {
    let transport = Arc::clone(&parts.transport);
    let runtime = Arc::clone(&parts.runtime);
    let founded = found_by(parts).await;
    // A transport that does not come to its end holds up no founding.
    let deadline = runtime.now().saturating_add(CLOSE_TIMEOUT);
    within(&*runtime, deadline, transport.close()).await;
    founded
}

/// How long closing the transport may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

async fn found_by(parts: FoundingParts) -> Result<Founded, FoundingError> {
    let FoundingParts { own, founders, store, transport, runtime, .. } = &parts;
    assert_eq!(own.birth, Birth::Founder, "a joiner founds nothing");
    let Born { identity, membership } = give_birth(&**store, own, &**runtime).await?;
    if let Some(membership) = membership {
        return Ok(Founded { identity, membership, newly: false });
    }
    let info = NodeInfo {
        name: own.name.clone(),
        peer_address: own.peer_address.clone(),
        client_address: own.client_address.clone(),
        incarnation: identity.incarnation,
        priority: 0,
    };
    let life = runtime.random().max(1);
    let founding = Founding::new(own.group, own.node, info, founders, life)?;
    // Reports are small. An empty class takes in anything, so each of the others takes in one message.
    let limits = InboxLimits {
        control_bytes: 1 << 20,
        append_bytes: 0,
        snapshot_bytes: 0,
        request_bytes: 0,
    };
    let (inbox, receiver) = Inbox::new(limits);
    transport.attach(inbox);
    let mut talk = Talk {
        parts: &parts,
        founding,
        receiver,
        arrivals: Arrivals::default(),
        messages: Vec::new(),
        known: Progress::default(),
    };
    let membership = talk.until_agreed().await?;
    let written = store.write(membership.founding_writes()).await;
    written.map_err(|source| FoundingError::Store {
        action: "write the founding membership",
        place: store.place(),
        source,
    })?;
    // Others may still wait for this server's word, and its node is not up yet.
    talk.founding.tick();
    talk.send();
    tracing::info!(node = %own.name, founders = membership.nodes.len(), "the cluster is founded");
    Ok(Founded { identity, membership, newly: true })
}

fn latest_membership(recovered: &Recovered) -> Option<Membership> {
    if recovered.last.index == Index(0) {
        return None;
    }
    let in_log = recovered.memberships.last().map(|(_, membership)| membership);
    let snapshot = recovered.snapshot.as_ref().map(|snapshot| &snapshot.membership.1);
    // A log without any was not founded by a membership: its server has no members.
    Some(in_log.or(snapshot).cloned().unwrap_or_default())
}

fn check_identity(
    store: &dyn LogStore,
    own: &Described,
    found: &Identity,
) -> Result<(), FoundingError> {
    let hex = |number: u64| format!("{number:016x}");
    let parts = [
        ("cluster", found.cluster.to_string(), own.cluster.to_string()),
        ("epoch", found.epoch.to_string(), own.epoch.to_string()),
        ("server", found.name.clone(), own.name.clone()),
        ("number", found.node.to_string(), own.node.to_string()),
        ("birth", format!("{:?}", found.birth), format!("{:?}", own.birth)),
        ("machine", found.machine.clone(), own.machine.clone()),
        ("format", hex(found.format), hex(own.format)),
    ];
    for (field, stored, described) in parts {
        if stored != described {
            let place = store.place();
            return Err(FoundingError::WrongIdentity { field, stored, described, place });
        }
    }
    Ok(())
}

/// The talk of one newborn with the others.
struct Talk<'a> {
    parts: &'a FoundingParts,
    founding: Founding,
    receiver: InboxReceiver,
    arrivals: Arrivals,
    messages: Vec<PeerEnvelope>,
    /// What was last told of the progress.
    known: Progress,
}

impl Talk<'_> {
    async fn until_agreed(&mut self) -> Result<Membership, FoundingError> {
        let runtime = &*self.parts.runtime;
        let began = runtime.now();
        let until = self.parts.timeout.map(|timeout| began.saturating_add(timeout));
        let mut next = began;
        loop {
            let now = runtime.now();
            if now >= next {
                self.founding.tick();
                next = now.saturating_add(self.pause());
            }
            self.send();
            self.tell();
            match self.founding.outcome() {
                Some(Ok(membership)) => return Ok(membership.clone()),
                Some(Err(refusal)) => return Err(refusal.clone().into()),
                None => {}
            }
            if until.is_some_and(|until| now >= until) {
                let progress = self.founding.progress();
                return Err(FoundingError::TimedOut {
                    waited: now.saturating_sub(began),
                    progress,
                });
            }
            let wake = until.map_or(next, |until| until.min(next));
            self.receive(wake).await;
        }
    }

    /// Between half and one and a half intervals, so that founders do not speak all at once.
    fn pause(&self) -> Duration {
        let interval = self.parts.interval;
        let spread = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).max(1);
        interval / 2 + Duration::from_nanos(self.parts.runtime.random() % spread)
    }

    fn send(&mut self) {
        self.founding.drain(&mut self.messages);
        for envelope in self.messages.drain(..) {
            self.parts.transport.send(Envelope::Peer(envelope));
        }
    }

    /// Tells those who watch, if anything is new.
    fn tell(&mut self) {
        let progress = self.founding.progress();
        if progress == self.known {
            return;
        }
        tracing::info!(node = %self.parts.own.name, %progress, "founds its cluster");
        if let Some(watching) = &self.parts.progress {
            watching.send_replace(progress.clone());
        }
        self.known = progress;
    }

    /// Takes in what arrives, or waits until `wake`.
    async fn receive(&mut self, wake: Duration) {
        let (receiver, arrivals) = (&mut self.receiver, &mut self.arrivals);
        let arrival = poll_fn(|context| receiver.poll_take(context, arrivals));
        within(&*self.parts.runtime, wake, arrival).await;
        for envelope in self.arrivals.peers.drain(..) {
            self.founding.step(&envelope);
        }
        for Request { link, request_id, .. } in self.arrivals.requests.drain(..) {
            let reply = Reply::Rejected(RejectReason::NotLeader(LeaderHint::default()));
            let reply = ReplyEnvelope { link, request_id, reply };
            self.parts.transport.send(Envelope::Reply(reply));
        }
        yield_once().await;
    }
}

/// Lets other tasks run: whoever floods the inbox starves nobody.
async fn yield_once() {
    let mut yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
