//! What a server tells its clients of the cluster.

use std::{iter, sync::Arc};

use graft_core::{ClusterId, GroupId, Membership, NodeId, Term};
use rkyv::{Archive, Serialize};

use super::{Frame, Kind, Limits, Outgoing, WireError, outgoing::Payload};

/// The membership and the leader as a server knows them. It is pushed to each client as it connects
/// and on every change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Members {
    /// The server's term: of two such frames from different servers, the one of the higher term is newer.
    pub term: Term,
    /// Who leads in that term, where it is known.
    pub leader: Option<NodeId>,
    /// The servers.
    pub membership: Arc<Membership>,
}

#[derive(Archive, Serialize)]
struct MembersBody {
    term: u64,
    leader: Option<u64>,
    membership: Vec<u8>,
}

/// Appends `members` to what goes out.
///
/// # Errors
///
/// [`WireError::TooLarge`] where the membership is larger than any may be; then nothing is appended.
pub fn encode_members(
    members: &Members,
    cluster: ClusterId,
    out: &mut Outgoing,
) -> Result<(), WireError> {
    let body = MembersBody {
        term: members.term.0,
        leader: members.leader.map(|leader| leader.0),
        membership: members.membership.encode().into(),
    };
    let header = (Kind::Members, cluster, GroupId(0));
    out.frame(header, &body, iter::empty::<Payload<'_>>(), &Limits::default())
}

/// The membership in a frame.
///
/// # Errors
///
/// [`WireError`] says what is wrong with it.
pub fn decode_members(frame: &Frame) -> Result<Members, WireError> {
    let body = frame.access_in_group_0::<ArchivedMembersBody>(Kind::Members)?;
    frame.payloads().finish()?;
    Ok(Members {
        term: Term(body.term.to_native()),
        leader: body.leader.as_ref().map(|leader| NodeId(leader.to_native())),
        membership: Arc::new(membership(&body.membership, frame)?),
    })
}

/// Reads a membership in a body. It has the form that it has in the log.
pub(super) fn membership(bytes: &[u8], frame: &Frame) -> Result<Membership, WireError> {
    Membership::decode(bytes).map_err(|source| WireError::Membership { kind: frame.kind(), source })
}
