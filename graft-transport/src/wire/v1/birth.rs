//! What founders say to each other.

use std::collections::BTreeMap;

use graft_core::{
    BirthReport, BirthStage, ClusterId, GroupId, Incarnation, Message, NodeId, NodeInfo,
    PeerEnvelope,
};
use rkyv::{Archive, Serialize};

use super::{Frame, Kind, Limits, Outgoing, WireError, members, outgoing::Payload, peer::Address};

#[derive(Archive, Serialize)]
struct BirthBody {
    address: Address,
    life: u64,
    echo: u64,
    stage: Stage,
}

/// The order of the variants is part of the format.
#[derive(Archive, Serialize)]
enum Stage {
    Newborn { founders: Vec<Founder> },
    Founded { membership: Vec<u8> },
    AlreadyFounded,
}

#[derive(Archive, Serialize)]
struct Founder {
    node: u64,
    incarnation: u64,
    priority: u32,
    name: String,
    peer_address: String,
    client_address: String,
}

pub(super) fn encode(
    envelope: &PeerEnvelope,
    report: &BirthReport,
    header: (Kind, ClusterId, GroupId),
    limits: &Limits,
    out: &mut Outgoing,
) -> Result<(), WireError> {
    let stage = match &report.stage {
        BirthStage::Newborn { founders } => {
            Stage::Newborn { founders: founders.iter().map(Founder::of).collect() }
        }
        BirthStage::Founded { membership } => {
            Stage::Founded { membership: membership.encode().into() }
        }
        BirthStage::AlreadyFounded => Stage::AlreadyFounded,
        _ => {
            return Err(WireError::Unwritable {
                what: "a founder's stage is newer than the format",
            });
        }
    };
    let (life, echo) = (report.life, report.echo);
    let body = BirthBody { address: envelope.into(), life, echo, stage };
    out.frame(header, &body, std::iter::empty::<Payload<'_>>(), limits)
}

pub(super) fn decode(frame: &Frame) -> Result<PeerEnvelope, WireError> {
    let body = frame.access::<ArchivedBirthBody>(Kind::Birth)?;
    frame.payloads().finish()?;
    let stage = match &body.stage {
        ArchivedStage::Newborn { founders } => {
            let mut map = BTreeMap::new();
            for founder in founders.iter() {
                if map.insert(NodeId(founder.node.to_native()), founder.info()).is_some() {
                    return Err(frame.malformed("a founder comes twice"));
                }
            }
            BirthStage::Newborn { founders: map }
        }
        ArchivedStage::Founded { membership } => {
            BirthStage::Founded { membership: members::membership(membership, frame)? }
        }
        ArchivedStage::AlreadyFounded => BirthStage::AlreadyFounded,
    };
    let report = BirthReport { life: body.life.to_native(), echo: body.echo.to_native(), stage };
    Ok(body.address.envelope(frame, Message::Birth(Box::new(report))))
}

impl Founder {
    fn of((node, info): (&NodeId, &NodeInfo)) -> Self {
        Self {
            node: node.0,
            incarnation: info.incarnation.0,
            priority: info.priority,
            name: info.name.clone(),
            peer_address: info.peer_address.clone(),
            client_address: info.client_address.clone(),
        }
    }
}

impl ArchivedFounder {
    fn info(&self) -> NodeInfo {
        NodeInfo {
            name: self.name.as_str().to_owned(),
            peer_address: self.peer_address.as_str().to_owned(),
            client_address: self.client_address.as_str().to_owned(),
            incarnation: Incarnation(self.incarnation.to_native()),
            priority: self.priority.to_native(),
        }
    }
}
