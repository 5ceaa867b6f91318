//! The birth of a cluster whose servers are all started together, and the check of stores that were
//! born before.
//!
//! First every store gets an identity, then every store gets the same founding membership, which
//! names the births of all. A process may end anywhere between: the next start goes on from there, because
//! the membership follows from the identities. Once a log has begun, an empty or newborn store beside
//! it is a lost one, and a server that lost its store could vote twice.

use std::sync::Arc;

use graft_core::{
    Birth, ClusterId, Epoch, Identity, Incarnation, Index, LogStore, Membership, NodeId, NodeInfo,
    Recovered, Runtime, StoreError,
};

use crate::{ServerName, StartError, cluster::EntryType};

/// A server that is to be born, or was.
pub(crate) struct Founder<'a> {
    pub(crate) name: &'a ServerName,
    pub(crate) node: NodeId,
    pub(crate) store: Arc<dyn LogStore>,
}

impl Founder<'_> {
    fn failed(&self, source: StoreError) -> StartError {
        StartError::Store { server: self.name.clone(), place: self.store.place(), source }
    }
}

/// Makes every store one of this cluster's. Says whether the cluster was founded just now.
pub(crate) async fn found(
    founders: &[Founder<'_>],
    cluster: ClusterId,
    entry: &EntryType,
    runtime: &dyn Runtime,
) -> Result<bool, StartError> {
    // Before the first is recovered, which may write: a store of somebody else stays as it is found.
    for founder in founders {
        let identity = founder.store.identity().await.map_err(|error| founder.failed(error))?;
        if let Some(identity) = identity {
            check_identity(founder, &identity, cluster, entry)?;
        }
    }
    let mut stores = Vec::with_capacity(founders.len());
    for founder in founders {
        let recovered = founder.store.recover().await.map_err(|error| founder.failed(error))?;
        if let Some(recovered) = &recovered {
            // Not every store can tell before.
            check_identity(founder, &recovered.identity, cluster, entry)?;
        }
        stores.push(recovered);
    }
    // Before anything is written: a store that should not be empty must stay as it is found.
    let log = stores.iter().position(|found| found.as_ref().is_some_and(has_log));
    if let (Some(log), Some(lost)) = (log, stores.iter().position(Option::is_none)) {
        return Err(lost_store(founders, lost, log));
    }
    let mut identities = Vec::with_capacity(founders.len());
    for (founder, recovered) in founders.iter().zip(&stores) {
        identities.push(match recovered {
            Some(recovered) => recovered.identity.clone(),
            None => give_birth(founder, cluster, entry, runtime).await?,
        });
    }
    let membership = founding_membership(&identities);
    if let Some(log) = log {
        check_founding(founders, &stores, log, &membership)?;
    }
    for (founder, recovered) in founders.iter().zip(&stores) {
        if !recovered.as_ref().is_some_and(has_log) {
            let written = founder.store.write(membership.founding_writes()).await;
            written.map_err(|error| founder.failed(error))?;
        }
    }
    Ok(log.is_none())
}

fn has_log(recovered: &Recovered) -> bool {
    recovered.last.index > Index(0)
}

fn lost_store(founders: &[Founder<'_>], lost: usize, log: usize) -> StartError {
    StartError::LostStore {
        server: founders[lost].name.clone(),
        other: founders[log].name.clone(),
        place: founders[lost].store.place(),
    }
}

async fn give_birth(
    founder: &Founder<'_>,
    cluster: ClusterId,
    entry: &EntryType,
    runtime: &dyn Runtime,
) -> Result<Identity, StartError> {
    let identity = Identity {
        cluster,
        epoch: Epoch(0),
        node: founder.node,
        name: founder.name.to_string(),
        // Zero means that a birth is not known.
        incarnation: Incarnation(runtime.random().max(1)),
        birth: Birth::Founder,
        machine: entry.name.clone(),
        format: entry.format,
    };
    let created = founder.store.create(&identity).await;
    created.map_err(|error| founder.failed(error))?;
    Ok(identity)
}

fn founding_membership(identities: &[Identity]) -> Membership {
    Membership::of_voters(identities.iter().map(|identity| {
        let info = NodeInfo {
            name: identity.name.clone(),
            incarnation: identity.incarnation,
            ..NodeInfo::default()
        };
        (identity.node, info)
    }))
}

/// Where a founding was interrupted, the stores without a log must be those it was begun with.
fn check_founding(
    founders: &[Founder<'_>],
    stores: &[Option<Recovered>],
    log: usize,
    membership: &Membership,
) -> Result<(), StartError> {
    let without = stores.iter().position(|found| !found.as_ref().is_some_and(has_log));
    let Some(without) = without else { return Ok(()) };
    let begun = stores[log].as_ref().and_then(|found| found.memberships.first());
    match begun {
        Some((_, begun)) if begun == membership => Ok(()),
        _ => Err(lost_store(founders, without, log)),
    }
}

fn check_identity(
    founder: &Founder<'_>,
    stored: &Identity,
    cluster: ClusterId,
    entry: &EntryType,
) -> Result<(), StartError> {
    let (server, place) = (founder.name.clone(), founder.store.place());
    if stored.node != founder.node {
        return Err(StartError::WrongServer { server, stored: stored.name.clone(), place });
    }
    if stored.cluster != cluster {
        return Err(StartError::WrongCluster { server, place });
    }
    if stored.machine != entry.name {
        return Err(StartError::WrongMachine {
            server,
            stored: stored.machine.clone(),
            given: entry.name.clone(),
            place,
        });
    }
    if stored.format != entry.format {
        let (stored, given) = (stored.format, entry.format);
        return Err(StartError::WrongFormat { server, stored, given, place });
    }
    Ok(())
}
