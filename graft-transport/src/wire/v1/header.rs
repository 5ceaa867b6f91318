//! The first 48 bytes of a frame.

use std::{any::TypeId, fmt};

use graft_core::{ClusterId, GroupId};
use rkyv::{Archived, rend};

use super::{Limits, WireError};

/// What a frame begins with.
pub const MAGIC: [u8; 4] = *b"GRFT";

/// The version of the format that this module reads and writes.
pub const VERSION: u8 = 1;

/// What a frame carries. The numbers are part of the format and never change.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
#[non_exhaustive]
pub enum Kind {
    /// The first frame of either side: who it is.
    Hello = 1,
    /// Why a connection is refused.
    Refusal = 2,
    /// A message between servers that has no payload: votes, heartbeats, all answers.
    Message = 3,
    /// `AppendEntries`.
    Append = 4,
    /// `InstallSnapshot`: a chunk.
    Snapshot = 5,
    /// What founders say to each other.
    Birth = 6,
    /// Requests of a client.
    Requests = 7,
    /// Replies to a client.
    Replies = 8,
    /// The membership and the leader, pushed to clients.
    Members = 9,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 9] = [
        Self::Hello,
        Self::Refusal,
        Self::Message,
        Self::Append,
        Self::Snapshot,
        Self::Birth,
        Self::Requests,
        Self::Replies,
        Self::Members,
    ];

    /// The kind with this number, or `None`: an unknown kind ends a connection.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Hello,
            2 => Self::Refusal,
            3 => Self::Message,
            4 => Self::Append,
            5 => Self::Snapshot,
            6 => Self::Birth,
            7 => Self::Requests,
            8 => Self::Replies,
            9 => Self::Members,
            _ => return None,
        })
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Refusal => "refusal",
            Self::Message => "message",
            Self::Append => "append",
            Self::Snapshot => "snapshot",
            Self::Birth => "birth",
            Self::Requests => "requests",
            Self::Replies => "replies",
            Self::Members => "members",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kind {} ({})", *self as u8, self.name())
    }
}

/// A set of kinds: those that may arrive on a stream.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Kinds(u16);

impl Kinds {
    /// Every kind.
    pub const ALL: Self = Self::of(&Kind::ALL);
    /// The first frame of a connection.
    pub const HANDSHAKE: Self = Self::of(&[Kind::Hello, Kind::Refusal]);
    /// What a peer sends after its hello: everything that [`encode_peer`](super::encode_peer) writes.
    pub const PEER: Self =
        Self::of(&[Kind::Message, Kind::Append, Kind::Snapshot, Kind::Birth, Kind::Refusal]);
    /// What a client sends after its hello. It refuses a server that says in its hello what cannot be.
    pub const FROM_CLIENT: Self = Self::of(&[Kind::Requests, Kind::Refusal]);
    /// What a server sends to a client after its hello.
    pub const TO_CLIENT: Self = Self::of(&[Kind::Replies, Kind::Members, Kind::Refusal]);

    /// These kinds.
    #[must_use]
    pub const fn of(kinds: &[Kind]) -> Self {
        let mut bits = 0;
        let mut at = 0;
        while at < kinds.len() {
            bits |= 1 << kinds[at] as u8;
            at += 1;
        }
        Self(bits)
    }

    /// Whether `kind` is one of them.
    #[must_use]
    pub const fn contains(self, kind: Kind) -> bool {
        self.0 & (1 << kind as u8) != 0
    }
}

impl fmt::Debug for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(Kind::ALL.iter().filter(|kind| self.contains(**kind))).finish()
    }
}

/// The form in which this build archives: the width of a relative pointer, the alignment of a 64-bit
/// number, and 1 where numbers are big endian, as `0x00_EE_AA_PP`. Any crate of the final program can
/// change it by a feature of rkyv's, hence every frame states it.
#[must_use]
pub fn archive_format() -> u32 {
    let own = TypeId::of::<Archived<u16>>();
    let big =
        own == TypeId::of::<rend::u16_be>() || own == TypeId::of::<rend::unaligned::u16_ube>();
    let small = |bytes| u32::try_from(bytes).unwrap_or(u32::MAX);
    let pointer = small(size_of::<Archived<usize>>());
    let alignment = small(align_of::<Archived<u64>>());
    pointer | alignment << 8 | u32::from(big) << 16
}

/// The header of a frame, without what every frame of this build has in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// What the frame carries.
    pub kind: Kind,
    /// The cluster of who sent it; zero from a client that does not know it yet.
    pub cluster: ClusterId,
    /// The group; 0 today.
    pub group: GroupId,
    /// How long the body is, in bytes, without its padding.
    pub body_bytes: u32,
    /// How long the payloads are together, in bytes, with the padding of each: a multiple of 16.
    pub payload_bytes: u32,
}

impl Header {
    /// How long a header is, in bytes.
    pub const BYTES: usize = 48;

    const CHECKED: usize = Self::BYTES - 4;

    /// The bytes of the header.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = VERSION;
        bytes[5] = self.kind as u8;
        bytes[8..16].copy_from_slice(&self.cluster.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.group.0.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[32..36].copy_from_slice(&archive_format().to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[..Self::CHECKED]);
        bytes[Self::CHECKED..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads a header. The lengths are as stated: [`Header::check`] tells whether they may be.
    ///
    /// # Errors
    ///
    /// The first of these that is wrong: the magic number, the version, the checksum, the kind, the
    /// bytes that must be zero, the form of the archive.
    pub fn decode(bytes: &[u8; Self::BYTES]) -> Result<Self, WireError> {
        let found: [u8; 4] = array(bytes, 0);
        if found != MAGIC {
            return Err(WireError::NotGraft { found });
        }
        if bytes[4] != VERSION {
            return Err(WireError::UnknownVersion { found: bytes[4], known: VERSION });
        }
        let stored = u32::from_le_bytes(array(bytes, Self::CHECKED));
        let computed = crc32c::crc32c(&bytes[..Self::CHECKED]);
        if stored != computed {
            return Err(WireError::Checksum { stored, computed });
        }
        let kind = Kind::from_u8(bytes[5]).ok_or(WireError::UnknownKind { found: bytes[5] })?;
        if bytes[6..8] != [0; 2] || bytes[36..44] != [0; 8] {
            return Err(WireError::Reserved);
        }
        let (found, own) = (u32::from_le_bytes(array(bytes, 32)), archive_format());
        if found != own {
            return Err(WireError::OtherFormat { found, own });
        }
        Ok(Self {
            kind,
            cluster: ClusterId(u64::from_le_bytes(array(bytes, 8))),
            group: GroupId(u64::from_le_bytes(array(bytes, 16))),
            body_bytes: u32::from_le_bytes(array(bytes, 24)),
            payload_bytes: u32::from_le_bytes(array(bytes, 28)),
        })
    }

    /// Checks that the lengths are within the limits of the kind.
    ///
    /// # Errors
    ///
    /// [`WireError::TooLarge`], or [`WireError::Malformed`] where no frame can be that long.
    pub fn check(&self, limits: &Limits) -> Result<(), WireError> {
        let kind = self.kind;
        let parts = [
            ("body", self.body_bytes, limits.body(kind)),
            ("payload", self.payload_bytes, limits.payload(kind)),
        ];
        for (part, bytes, limit) in parts {
            if bytes > limit {
                let (bytes, limit) = (bytes.into(), limit.into());
                return Err(WireError::TooLarge { kind, part, bytes, limit });
            }
        }
        if self.body_bytes == 0 {
            return Err(WireError::Malformed { kind, what: "it has no body" });
        }
        if !(self.payload_bytes as usize).is_multiple_of(ALIGNMENT) {
            return Err(WireError::Malformed { kind, what: "its payloads are not padded" });
        }
        Ok(())
    }

    /// How long the frame is behind its header, in bytes.
    #[must_use]
    pub const fn rest(&self) -> usize {
        padded(self.body_bytes as usize) + self.payload_bytes as usize
    }
}

/// Bodies and payloads begin at multiples of this many bytes.
pub(super) const ALIGNMENT: usize = 16;

/// `bytes`, up to the next multiple of [`ALIGNMENT`].
pub(super) const fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGNMENT)
}

fn array<const N: usize>(bytes: &[u8; Header::BYTES], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}
