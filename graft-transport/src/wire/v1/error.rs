//! Why bytes are not what they should be.

use graft_core::{ClusterId, GroupId, MembershipError};

use super::Kind;

/// Why a frame cannot be read or written. A connection that brought one is closed: where the next frame
/// would begin is no longer known.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The bytes are not graft's.
    #[error("no frame of graft begins with {found:02x?}: something else speaks on this connection")]
    NotGraft {
        /// What is there instead of the magic number.
        found: [u8; 4],
    },
    /// The header was changed on its way, or is not one.
    #[error("a frame's header has checksum {stored:08x}, its bytes have {computed:08x}")]
    Checksum {
        /// What the header states.
        stored: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// The frame is of another version of the format.
    #[error("a frame has version {found}, this connection speaks {known}: upgrade the older side")]
    UnknownVersion {
        /// The frame's version.
        found: u8,
        /// The version this module reads.
        known: u8,
    },
    /// The frame is of a kind that this build does not know.
    #[error("a frame has kind {found}, which this build does not know: upgrade it")]
    UnknownKind {
        /// The number of the kind.
        found: u8,
    },
    /// Bytes that must be zero are not.
    #[error("a frame's header uses bytes that version 1 does not: upgrade this side")]
    Reserved,
    /// The other side archives differently.
    #[error(
        "a frame is archived in form {found:08x}, this build's is {own:08x}: one side switches a format feature of rkyv \
         (`unaligned`, `big_endian`, `pointer_width_*`); switch it off"
    )]
    OtherFormat {
        /// The form of the frame.
        found: u32,
        /// The form of this build.
        own: u32,
    },
    /// The frame belongs to another cluster.
    #[error("a frame is of cluster {found:?}, this connection is of cluster {expected:?}")]
    WrongCluster {
        /// The frame's cluster.
        found: ClusterId,
        /// The connection's.
        expected: ClusterId,
    },
    /// The frame belongs to a group that is not served.
    #[error("a frame of {kind} is of group {found}, only group 0 is served")]
    WrongGroup {
        /// The kind of the frame.
        kind: Kind,
        /// The frame's group.
        found: GroupId,
    },
    /// A frame of a kind that does not belong here, or not yet.
    #[error("a frame of {kind} is not welcome on this stream, or not now")]
    Unexpected {
        /// The kind of the frame.
        kind: Kind,
    },
    /// A part of the frame is larger than its kind may be.
    #[error("a frame of {kind} has a {part} of {bytes} bytes, {limit} are the limit")]
    TooLarge {
        /// The kind of the frame.
        kind: Kind,
        /// Which part: "body" or "payload".
        part: &'static str,
        /// How large it is.
        bytes: u64,
        /// How large it may be.
        limit: u64,
    },
    /// The frame contradicts itself or what a value of its kind can be.
    #[error("a frame of {kind} is malformed: {what}")]
    Malformed {
        /// The kind of the frame.
        kind: Kind,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A membership in the frame cannot be read.
    #[error("a frame of {kind} brings a membership that cannot be read")]
    Membership {
        /// The kind of the frame.
        kind: Kind,
        /// Why not.
        #[source]
        source: MembershipError,
    },
    /// The stream ended inside a frame.
    #[error("the stream ended {missing} bytes before the end of a frame")]
    Truncated {
        /// How many bytes of the frame, or of its header, did not come.
        missing: usize,
    },
    /// A message that this version of the format has no place for.
    #[error("a message cannot be written in version 1: {what}")]
    Unwritable {
        /// What it is.
        what: &'static str,
    },
}
