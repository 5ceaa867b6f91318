//! The first start of a server whose cluster is founded across machines, and all later ones.

use std::{future::poll_fn, ops::ControlFlow, pin::pin, sync::Arc, task::Poll, time::Duration};

use graft_core::{
    Birth, Epoch, GroupId, Incarnation, Membership, NodeId, NodeInfo, Term,
    founding::{Described, FoundingError, FoundingParts, Progress, found, give_birth},
};
use tokio::sync::watch;

use crate::{ServerName, StartError, cluster::Cluster, store::LogStore, transport::View};

/// How often a founder says where it is: a founding takes a few of these after the last has come.
const REPORTS: Duration = Duration::from_millis(100);

/// Who is told whom a founder waits for.
pub(crate) type OnWaiting = dyn Fn(&Progress) + Send + Sync;

/// With whom a server is to found its cluster.
pub(crate) struct Birthplace {
    /// All founders, and where each is reached.
    pub(crate) members: Vec<(ServerName, String)>,
    /// Where this server is reached, if it is no founder.
    pub(crate) joins_at: Option<String>,
    pub(crate) patience: Option<Duration>,
    pub(crate) on_waiting: Option<Box<OnWaiting>>,
}

impl Birthplace {
    fn birth(&self) -> Birth {
        if self.joins_at.is_some() { Birth::Joiner } else { Birth::Founder }
    }

    fn address_of(&self, name: &ServerName) -> String {
        if let Some(address) = &self.joins_at {
            return address.clone();
        }
        let own = self.members.iter().find(|(other, _)| other == name);
        own.map(|(_, address)| address.clone()).unwrap_or_default()
    }

    /// The founders as they are known before any of them has said anything.
    fn listed(&self, own: NodeId, incarnation: Incarnation) -> Membership {
        Membership::of_voters(self.members.iter().map(|(name, address)| {
            let node = NodeId::of_name(name.as_str());
            let info = NodeInfo {
                name: name.to_string(),
                peer_address: address.clone(),
                client_address: address.clone(),
                incarnation: if node == own { incarnation } else { Incarnation(0) },
                priority: 0,
            };
            (node, info)
        }))
    }

    /// Says what of the list is not in force any more.
    fn compare(&self, own: &ServerName, members: &Membership) {
        for (name, address) in &self.members {
            let in_log = members.nodes.get(&NodeId::of_name(name.as_str()));
            if in_log.is_none_or(|info| info.peer_address != *address) {
                let in_log = in_log.map(|info| info.peer_address.as_str());
                tracing::warn!(
                    node = %own, member = %name, given = %address, in_log,
                    "the members given are not those of the log, which counts: change them by a membership change"
                );
            }
        }
    }
}

impl Cluster {
    /// Starts the only server here: founds its cluster with the others where that is new.
    pub(crate) async fn begin_alone(self: &Arc<Self>, place: Birthplace) -> Result<(), StartError> {
        let server = self.server(0);
        let (name, node) = (server.name().clone(), server.node());
        let Some(store) = server.store() else {
            return Err(StartError::StoreClosed { server: name });
        };
        let failed = |error| StartError::of_founding(name.clone(), error);
        let own = self.described(&place.address_of(&name), &name, place.birth());
        let born = give_birth(&*store, &own, &**self.runtime()).await.map_err(failed)?;
        let incarnation = born.identity.incarnation;
        self.port().on_birth(incarnation);
        let members = match born.membership {
            Some(members) => {
                place.compare(&name, &members);
                members
            }
            None => place.listed(node, incarnation),
        };
        self.port().on_view(&View { members: Arc::new(members), leader: None, term: Term(0) });
        if place.birth() == Birth::Founder {
            self.found_alone(own, store, place).await?;
        } else {
            tracing::info!(
                node = %name, birth = %incarnation,
                "joins: it follows and votes once a membership change has named it"
            );
        }
        let opened = self.open(0).await?;
        self.launch(0, opened);
        self.keep_alive();
        Ok(())
    }

    async fn found_alone(
        &self,
        own: Described,
        store: Arc<dyn LogStore>,
        place: Birthplace,
    ) -> Result<(), StartError> {
        let server = self.server(0);
        let failed = |error| StartError::of_founding(server.name().clone(), error);
        let (progress, watching) = watch::channel(Progress::default());
        let founders = place.members.iter();
        let parts = FoundingParts {
            own,
            founders: founders
                .map(|(name, _)| (NodeId::of_name(name.as_str()), name.to_string()))
                .collect(),
            store,
            transport: self.port().transport(server.node()),
            runtime: Arc::clone(self.runtime()),
            interval: REPORTS,
            timeout: place.patience,
            progress: Some(progress),
        };
        let founding = found(parts);
        let founded = told_of(founding, watching, place.on_waiting.as_deref()).await;
        founded.map(drop).map_err(failed)
    }

    fn described(&self, address: &str, name: &ServerName, birth: Birth) -> Described {
        Described {
            name: name.to_string(),
            node: NodeId::of_name(name.as_str()),
            birth,
            cluster: self.id(),
            epoch: Epoch(0),
            group: GroupId(0),
            machine: self.entry().name.clone(),
            format: self.entry().format,
            peer_address: address.to_owned(),
            client_address: address.to_owned(),
        }
    }
}

/// What `founding` comes to, while whoever wants to know hears how far it is.
async fn told_of<T>(
    founding: impl Future<Output = Result<T, FoundingError>>,
    mut watching: watch::Receiver<Progress>,
    tell: Option<&OnWaiting>,
) -> Result<T, FoundingError> {
    let mut founding = pin!(founding);
    loop {
        let step = {
            let mut change = pin!(watching.changed());
            poll_fn(|context| {
                if let Poll::Ready(founded) = founding.as_mut().poll(context) {
                    return Poll::Ready(ControlFlow::Break(founded));
                }
                // Once nobody tells any more, only the end is waited for.
                match change.as_mut().poll(context) {
                    Poll::Ready(Ok(())) => Poll::Ready(ControlFlow::Continue(())),
                    Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
                }
            })
            .await
        };
        if let ControlFlow::Break(founded) = step {
            return founded;
        }
        if let Some(tell) = tell {
            tell(&watching.borrow_and_update());
        }
    }
}
