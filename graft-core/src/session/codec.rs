//! The payloads of entries: what a client, a leader and a server agree on byte by byte.
//!
//! The formats are listed in the documentation of [the module above](super). They are stored in logs
//! and never change; what they mean for the table is in [`SessionTable`](super::SessionTable).

use bytes::{Bytes, BytesMut};

use crate::{EntryKind, SessionId};

/// The bytes in front of the body of an [`EntryKind::SessionCommand`]. A multiple of 16, so that a
/// body keeps the alignment of its payload.
pub const COMMAND_HEADER: usize = 32;

/// The bytes in front of the body of an [`EntryKind::Plain`]. A multiple of 16 as well.
pub const PLAIN_HEADER: usize = 16;

/// What stands in front of a command's body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommandHeader {
    /// The session it runs under.
    pub session: SessionId,
    /// The client's number for it within the session, the same in every copy it sends.
    pub sequence: u64,
    /// The lowest sequence whose answer the client still wants; never above `sequence`.
    pub floor: u64,
    /// The version of the user's entry type that wrote the body.
    pub version: u16,
}

/// What a session asks for as it is opened. It stands in the log, so every server applies the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionSettings {
    /// How long the session may be idle, in milliseconds of log time. 10 minutes by default.
    pub ttl_millis: u64,
    /// How far a sequence may be above the floor: so many requests may be on their way at once.
    /// 4,096 by default.
    pub window: u32,
    /// How many sessions the cluster is to hold; where there are more, the ones idle for longest make
    /// room. 100,000 by default.
    pub max_sessions: u32,
}

impl SessionSettings {
    /// The least time to live, in milliseconds: below it a client could not keep a session alive.
    pub const MIN_TTL_MILLIS: u64 = 1_000;
    /// The greatest time to live, in milliseconds: a week.
    pub const MAX_TTL_MILLIS: u64 = 7 * 24 * 60 * 60 * 1_000;
    /// The widest window.
    pub const MAX_WINDOW: u32 = 16_384;
    /// The largest table.
    pub const MAX_SESSIONS: u32 = 1_000_000;

    /// The bytes of an [`EntryKind::SessionOpen`].
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = [0; 16];
        put(&mut out, 0, &self.ttl_millis.to_le_bytes());
        put(&mut out, 8, &self.window.to_le_bytes());
        put(&mut out, 12, &self.max_sessions.to_le_bytes());
        Bytes::copy_from_slice(&out)
    }

    /// These settings with every value moved into its range, as the table uses them. What a client
    /// asks for can neither make a session useless nor the table unbounded.
    #[must_use]
    pub fn clamped(self) -> Self {
        Self {
            ttl_millis: self.ttl_millis.clamp(Self::MIN_TTL_MILLIS, Self::MAX_TTL_MILLIS),
            window: self.window.clamp(1, Self::MAX_WINDOW),
            max_sessions: self.max_sessions.clamp(1, Self::MAX_SESSIONS),
        }
    }
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self { ttl_millis: 10 * 60 * 1_000, window: 4_096, max_sessions: 100_000 }
    }
}

/// An entry's payload, taken apart by its kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Payload<'a> {
    /// Of [`EntryKind::Blank`].
    Blank {
        /// The leader's wall clock as it was elected, in milliseconds since the Unix epoch. Zero where
        /// it is not known.
        unix_millis: u64,
    },
    /// Of [`EntryKind::Membership`]: what [`Membership::decode`](crate::Membership::decode) reads.
    Membership(&'a [u8]),
    /// Of [`EntryKind::Plain`].
    Plain {
        /// The version of the user's entry type that wrote the body.
        version: u16,
        /// The user's bytes.
        body: &'a [u8],
    },
    /// Of [`EntryKind::SessionOpen`], as the client wrote it.
    SessionOpen(SessionSettings),
    /// Of [`EntryKind::SessionKeepAlive`].
    SessionKeepAlive {
        /// Which session.
        session: SessionId,
        /// The lowest sequence whose answer is still wanted.
        floor: u64,
    },
    /// Of [`EntryKind::SessionClose`].
    SessionClose {
        /// Which session.
        session: SessionId,
    },
    /// Of [`EntryKind::SessionCommand`].
    SessionCommand {
        /// What stands in front.
        header: CommandHeader,
        /// The user's bytes.
        body: &'a [u8],
    },
}

impl<'a> Payload<'a> {
    /// Takes the payload of an entry of this kind apart.
    ///
    /// A [`EntryKind::Blank`] is never malformed: what is not 8 bytes long counts as an unknown time.
    ///
    /// # Errors
    ///
    /// [`PayloadError`] says what is wrong with it.
    pub fn parse(kind: EntryKind, payload: &'a [u8]) -> Result<Self, PayloadError> {
        Ok(match kind {
            EntryKind::Blank => {
                Self::Blank { unix_millis: payload.try_into().map_or(0, u64::from_le_bytes) }
            }
            EntryKind::Membership => Self::Membership(payload),
            EntryKind::Plain => {
                let (version, body) = parse_plain(payload)?;
                Self::Plain { version, body }
            }
            EntryKind::SessionOpen => {
                let whole = exactly::<16>(kind, payload)?;
                Self::SessionOpen(SessionSettings {
                    ttl_millis: u64_at(whole, 0),
                    window: u32_at(whole, 8),
                    max_sessions: u32_at(whole, 12),
                })
            }
            EntryKind::SessionKeepAlive => {
                let whole = exactly::<16>(kind, payload)?;
                Self::SessionKeepAlive {
                    session: SessionId(u64_at(whole, 0)),
                    floor: u64_at(whole, 8),
                }
            }
            EntryKind::SessionClose => {
                Self::SessionClose { session: SessionId(u64_at(exactly::<8>(kind, payload)?, 0)) }
            }
            EntryKind::SessionCommand => {
                let (header, body) = parse_command(payload)?;
                Self::SessionCommand { header, body }
            }
        })
    }

    /// The version and the body where this is a command for the machine, or `None`.
    #[must_use]
    pub const fn command(&self) -> Option<(u16, &'a [u8])> {
        match self {
            Self::Plain { version, body } => Some((*version, *body)),
            Self::SessionCommand { header, body } => Some((header.version, *body)),
            _ => None,
        }
    }
}

/// Why a payload must not enter the log.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// Only a leader makes entries of this kind.
    #[error("a client may not propose {kind:?} entries")]
    NotForClients {
        /// The kind.
        kind: EntryKind,
    },
    /// The payload is shorter than its header.
    #[error("a {kind:?} payload has {length} bytes, its header alone takes {header}")]
    TooShort {
        /// The kind.
        kind: EntryKind,
        /// The payload's length in bytes.
        length: usize,
        /// The header's length in bytes.
        header: usize,
    },
    /// The payload has a fixed size, and this is another.
    #[error("a {kind:?} payload has {length} bytes instead of {expected}")]
    WrongLength {
        /// The kind.
        kind: EntryKind,
        /// The payload's length in bytes.
        length: usize,
        /// What it should be.
        expected: usize,
    },
    /// Bytes that must be zero are not: a newer build wrote them.
    #[error("a {kind:?} header uses bytes this build does not know: upgrade this server first")]
    ReservedBytes {
        /// The kind.
        kind: EntryKind,
    },
    /// The command says of itself that its answer is not wanted.
    #[error("a command has sequence {sequence}, below its own floor {floor}")]
    BelowItsFloor {
        /// Its sequence.
        sequence: u64,
        /// Its floor.
        floor: u64,
    },
}

/// The check at the door: whether a client's payload of this kind may enter the log.
///
/// The body of a command is for the machine to check.
///
/// # Errors
///
/// [`PayloadError`] says what is wrong with it.
pub fn check_payload(kind: EntryKind, payload: &[u8]) -> Result<(), PayloadError> {
    if !kind.is_clients() {
        return Err(PayloadError::NotForClients { kind });
    }
    match Payload::parse(kind, payload)? {
        Payload::SessionCommand { header: CommandHeader { sequence, floor, .. }, .. }
            if sequence < floor =>
        {
            Err(PayloadError::BelowItsFloor { sequence, floor })
        }
        _ => Ok(()),
    }
}

/// Writes a command's header into the first [`COMMAND_HEADER`] bytes of `buffer`, for a caller that
/// left this space in front of a body: then a request is one buffer, and no body is copied.
///
/// # Panics
///
/// Where `buffer` is shorter than the header.
pub fn write_command_header(buffer: &mut [u8], header: &CommandHeader) {
    let buffer = &mut buffer[..COMMAND_HEADER];
    put(buffer, 0, &header.session.0.to_le_bytes());
    put(buffer, 8, &header.sequence.to_le_bytes());
    put(buffer, 16, &header.floor.to_le_bytes());
    put(buffer, 24, &header.version.to_le_bytes());
    buffer[26..].fill(0);
}

/// Writes a plain command's header into the first [`PLAIN_HEADER`] bytes of `buffer`.
///
/// # Panics
///
/// Where `buffer` is shorter than the header.
pub fn write_plain_header(buffer: &mut [u8], version: u16) {
    let buffer = &mut buffer[..PLAIN_HEADER];
    put(buffer, 0, &version.to_le_bytes());
    buffer[2..].fill(0);
}

/// The payload of an [`EntryKind::SessionCommand`] around a copy of `body`.
#[must_use]
pub fn encode_command(header: &CommandHeader, body: &[u8]) -> Bytes {
    let mut out = BytesMut::zeroed(COMMAND_HEADER + body.len());
    write_command_header(&mut out, header);
    put(&mut out, COMMAND_HEADER, body);
    out.freeze()
}

/// The payload of an [`EntryKind::Plain`] around a copy of `body`.
#[must_use]
pub fn encode_plain(version: u16, body: &[u8]) -> Bytes {
    let mut out = BytesMut::zeroed(PLAIN_HEADER + body.len());
    write_plain_header(&mut out, version);
    put(&mut out, PLAIN_HEADER, body);
    out.freeze()
}

/// The payload of an [`EntryKind::SessionKeepAlive`].
#[must_use]
pub fn encode_keep_alive(session: SessionId, floor: u64) -> Bytes {
    let mut out = [0; 16];
    put(&mut out, 0, &session.0.to_le_bytes());
    put(&mut out, 8, &floor.to_le_bytes());
    Bytes::copy_from_slice(&out)
}

/// The payload of an [`EntryKind::SessionClose`].
#[must_use]
pub fn encode_close(session: SessionId) -> Bytes {
    Bytes::copy_from_slice(&session.0.to_le_bytes())
}

/// The payload of an [`EntryKind::Blank`]: the leader's wall clock, in milliseconds since the Unix epoch.
#[must_use]
pub fn encode_blank(unix_millis: u64) -> Bytes {
    Bytes::copy_from_slice(&unix_millis.to_le_bytes())
}

/// The header of the command that comes `by` behind the one with the header `first`: its sequence is so much
/// higher, and nothing else differs. What is stored or sent of many commands in a row can do without it.
#[must_use]
#[inline]
pub fn following_header(first: &[u8; COMMAND_HEADER], by: u64) -> [u8; COMMAND_HEADER] {
    const SEQUENCE: std::ops::Range<usize> = 8..16;
    let mut header = *first;
    let sequence = u64_at(first, SEQUENCE.start).wrapping_add(by);
    header[SEQUENCE].copy_from_slice(&sequence.to_le_bytes());
    header
}

/// Takes the payload of an [`EntryKind::Plain`] apart: its version and its body.
#[inline]
pub(super) fn parse_plain(payload: &[u8]) -> Result<(u16, &[u8]), PayloadError> {
    let (header, body) = split::<PLAIN_HEADER>(EntryKind::Plain, payload)?;
    let [first, second] = [u64_at(header, 0), u64_at(header, 8)];
    let version = version(EntryKind::Plain, first, second)?;
    Ok((version, body))
}

/// Takes the payload of an [`EntryKind::SessionCommand`] apart: its header and its body.
#[inline]
pub(super) fn parse_command(payload: &[u8]) -> Result<(CommandHeader, &[u8]), PayloadError> {
    let (header, body) = split::<COMMAND_HEADER>(EntryKind::SessionCommand, payload)?;
    let header = CommandHeader {
        session: SessionId(u64_at(header, 0)),
        sequence: u64_at(header, 8),
        floor: u64_at(header, 16),
        version: version(EntryKind::SessionCommand, u64_at(header, 24), 0)?,
    };
    Ok((header, body))
}

#[inline]
fn split<const N: usize>(
    kind: EntryKind,
    payload: &[u8],
) -> Result<(&[u8; N], &[u8]), PayloadError> {
    let (length, header) = (payload.len(), N);
    payload.split_first_chunk().ok_or(PayloadError::TooShort { kind, length, header })
}

fn exactly<const N: usize>(kind: EntryKind, payload: &[u8]) -> Result<&[u8; N], PayloadError> {
    payload.try_into().map_err(|_| PayloadError::WrongLength {
        kind,
        length: payload.len(),
        expected: N,
    })
}

/// The version in the low bytes of `word`, where the rest of it and `reserved` are zero.
#[inline]
fn version(kind: EntryKind, word: u64, reserved: u64) -> Result<u16, PayloadError> {
    match u16::try_from(word) {
        Ok(version) if reserved == 0 => Ok(version),
        _ => Err(PayloadError::ReservedBytes { kind }),
    }
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

#[inline]
fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

#[inline]
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

#[inline]
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

#[cfg(test)]
mod tests;
