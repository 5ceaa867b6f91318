//! `InstallSnapshot`: a description, and a chunk as the payload.

use graft_core::{
    ClusterId, Epoch, GroupId, InstallSnapshot, LogTime, Message, PeerEnvelope, SnapshotMeta, Term,
};
use rkyv::{Archive, Serialize};

use super::{
    Frame, Kind, Limits, Outgoing, WireError, members,
    outgoing::Payload,
    peer::{Address, LogPlace},
};

#[derive(Archive, Serialize)]
struct SnapshotBody {
    address: Address,
    term: u64,
    meta: MetaBody,
    offset: u64,
    chunk_bytes: u32,
    last: bool,
}

#[derive(Archive, Serialize)]
struct MetaBody {
    id: u64,
    cluster: u64,
    epoch: u64,
    group: u64,
    last: LogPlace,
    time: u64,
    membership_at: LogPlace,
    membership: Vec<u8>,
    schema: u16,
    size: u64,
    digest: u64,
    format: u64,
}

pub(super) fn encode(
    envelope: &PeerEnvelope,
    install: &InstallSnapshot,
    header: (Kind, ClusterId, GroupId),
    limits: &Limits,
    out: &mut Outgoing,
) -> Result<(), WireError> {
    let InstallSnapshot { term, meta, offset, chunk, last } = install;
    let (membership_at, membership) = &meta.membership;
    let body = SnapshotBody {
        address: envelope.into(),
        term: term.0,
        meta: MetaBody {
            id: meta.id,
            cluster: meta.cluster.0,
            epoch: meta.epoch.0,
            group: meta.group.0,
            last: meta.last.into(),
            time: meta.time.0,
            membership_at: (*membership_at).into(),
            membership: membership.encode().into(),
            schema: meta.schema,
            size: meta.size,
            digest: meta.digest,
            format: meta.format,
        },
        offset: *offset,
        // A chunk that is too long for the number is refused by its length in the header.
        chunk_bytes: u32::try_from(chunk.len()).unwrap_or(u32::MAX),
        last: *last,
    };
    out.frame(header, &body, std::iter::once(Payload::Shared(chunk)), limits)
}

pub(super) fn decode(frame: &Frame) -> Result<PeerEnvelope, WireError> {
    let body = frame.access::<ArchivedSnapshotBody>(Kind::Snapshot)?;
    let mut payloads = frame.payloads();
    let chunk = payloads.shared(body.chunk_bytes.to_native())?;
    payloads.finish()?;
    let install = InstallSnapshot {
        term: Term(body.term.to_native()),
        meta: body.meta.meta(frame)?,
        offset: body.offset.to_native(),
        chunk,
        last: body.last,
    };
    Ok(body.address.envelope(frame, Message::InstallSnapshot(Box::new(install))))
}

impl ArchivedMetaBody {
    fn meta(&self, frame: &Frame) -> Result<SnapshotMeta, WireError> {
        let membership = members::membership(&self.membership, frame)?;
        Ok(SnapshotMeta {
            id: self.id.to_native(),
            cluster: ClusterId(self.cluster.to_native()),
            epoch: Epoch(self.epoch.to_native()),
            group: GroupId(self.group.to_native()),
            last: (&self.last).into(),
            time: LogTime(self.time.to_native()),
            membership: ((&self.membership_at).into(), membership),
            schema: self.schema.to_native(),
            size: self.size.to_native(),
            digest: self.digest.to_native(),
            format: self.format.to_native(),
        })
    }
}
