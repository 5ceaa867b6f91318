//! The table and the applier as bytes, for snapshots.
//!
//! Equal states give equal bytes, and what is read is checked: bytes that are accepted are those that
//! writing the state again would give. Format 1, all numbers little endian:
//!
//! | bytes | what |
//! | --- | --- |
//! | 1 | the format |
//! | 16 | the last applied entry: `term: u64`, `index: u64` |
//! | 8 | the running checksum |
//! | 24 | the wall clock: `unix_millis: u64` told by a leader, `at: u64` in log time, and the `latest: u64` given out |
//! | 8 | the log's time |
//! | 4 | how many sessions; then each, the one idle for longest first: |
//! | 32 | `id: u64`, `floor: u64`, `last_active: u64`, `ttl_millis: u64` |
//! | 8 | `window: u32`, and how many replies; then each, sequences rising: |
//! | 17 | `sequence: u64`, `panicked: u8`, `length: u64`; then its bytes |

use super::{
    Applier, SessionSettings, SessionTable,
    apply::WallClock,
    checksum::Checksum,
    replies::{Kept, KeptReply, Replies},
    table::{Limits, Session},
};
use crate::{LogId, LogTime, SessionId};

const FORMAT: u8 = 1;

/// Why bytes are not the state of an [`Applier`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Written by another build.
    #[error(
        "the session table has format {found}, this build knows {known}: upgrade this server first"
    )]
    UnknownFormat {
        /// The format found.
        found: u8,
        /// The latest format this build reads.
        known: u8,
    },
    /// The bytes end too early or go on too long, or contradict each other.
    #[error("a session table of {length} bytes is malformed at byte {at}: {reason}")]
    Malformed {
        /// How many bytes there were.
        length: usize,
        /// Where the first problem is.
        at: usize,
        /// What it is.
        reason: &'static str,
    },
}

impl Applier {
    /// The whole state as bytes; equal states give equal bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let sessions = &self.sessions;
        let about = 64 + 64 * sessions.len() as u64 + sessions.reply_bytes();
        let mut out = Vec::with_capacity(usize::try_from(about).unwrap_or(0));
        out.push(FORMAT);
        for number in [
            self.last.term.0,
            self.last.index.0,
            self.checksum.0,
            self.clock.unix_millis,
            self.clock.at.0,
            self.clock.latest,
            sessions.now.0,
        ] {
            put_u64(&mut out, number);
        }
        put_count(&mut out, sessions.len());
        for slot in sessions.idle.iter() {
            put_session(&mut out, &sessions.slots[slot as usize]);
        }
        out
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    ///
    /// [`StateError`] says what is wrong with the bytes. Nothing is allocated by a count that the bytes
    /// do not back.
    pub fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        Self::decode_with(bytes, Limits::default())
    }

    pub(super) fn decode_with(bytes: &[u8], limits: Limits) -> Result<Self, StateError> {
        let mut reader = Reader { bytes, at: 0 };
        let [found] = reader.array()?;
        if found != FORMAT {
            return Err(StateError::UnknownFormat { found, known: FORMAT });
        }
        let last = LogId::new(reader.u64()?, reader.u64()?);
        let checksum = Checksum(reader.u64()?);
        let clock = WallClock {
            unix_millis: reader.u64()?,
            at: LogTime(reader.u64()?),
            latest: reader.u64()?,
        };
        let mut sessions = SessionTable::with_limits(limits);
        sessions.now = LogTime(reader.u64()?);
        let count = reader.u32()?;
        reader.check(count <= SessionSettings::MAX_SESSIONS, "more sessions than a table holds")?;
        let mut active = LogTime(0);
        for _ in 0..count {
            let session = reader.session()?;
            let id = session.id;
            reader.check((1..=last.index.0).contains(&id.0), "an id not in the log")?;
            reader.check(!sessions.contains(id), "a session twice")?;
            reader.check(
                (active..=sessions.now).contains(&session.last_active),
                "sessions out of order",
            )?;
            reader.check(session.deadline() >= sessions.now.0, "a session past its time")?;
            active = session.last_active;
            sessions.insert(session);
        }
        reader.check(reader.at == bytes.len(), "trailing bytes")?;
        Ok(Self { last, checksum, clock, sessions, ..Self::default() })
    }
}

fn put_session(out: &mut Vec<u8>, session: &Session) {
    for number in [session.id.0, session.floor, session.last_active.0, session.ttl_millis] {
        put_u64(out, number);
    }
    out.extend_from_slice(&session.window.to_le_bytes());
    put_count(out, session.replies.len());
    for Kept { sequence, reply } in session.replies.iter() {
        put_u64(out, *sequence);
        out.push(u8::from(matches!(reply, KeptReply::Panicked(_))));
        put_u64(out, reply.len() as u64);
        reply.with_bytes(|bytes| out.extend_from_slice(bytes));
    }
}

fn put_u64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

/// Sessions and windows are bounded far below 32 bits.
fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn session(&mut self) -> Result<Session, StateError> {
        let mut session = Session {
            id: SessionId(self.u64()?),
            floor: self.u64()?,
            last_active: LogTime(self.u64()?),
            ttl_millis: self.u64()?,
            window: self.u32()?,
            ..Session::default()
        };
        let settings = SessionSettings {
            ttl_millis: session.ttl_millis,
            window: session.window,
            max_sessions: 1,
        };
        self.check(settings == settings.clamped(), "settings out of range")?;
        session.replies = self.replies(session.floor, session.window)?;
        Ok(session)
    }

    fn replies(&mut self, floor: u64, window: u32) -> Result<Replies, StateError> {
        let mut replies = Replies::default();
        let mut lowest = floor;
        for _ in 0..self.u32()? {
            let sequence = self.u64()?;
            self.check(
                sequence >= lowest && sequence - floor < u64::from(window),
                "a reply outside its window",
            )?;
            // Within the window there is always a next one, but at the very end of all numbers.
            lowest = sequence.saturating_add(1);
            let [panicked] = self.array()?;
            self.check(panicked <= 1, "a reply of an unknown kind")?;
            let length = usize::try_from(self.u64()?).unwrap_or(usize::MAX);
            let bytes = self.take(length)?;
            match panicked {
                0 => replies.keep(sequence, bytes),
                _ => replies.keep_panic(sequence, bytes),
            }
        }
        Ok(replies)
    }

    fn check(&self, holds: bool, reason: &'static str) -> Result<(), StateError> {
        if holds {
            return Ok(());
        }
        Err(StateError::Malformed { length: self.bytes.len(), at: self.at, reason })
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], StateError> {
        let left = &self.bytes[self.at..];
        self.check(count <= left.len(), "it ends too early")?;
        self.at += count;
        Ok(&left[..count])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StateError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u64(&mut self) -> Result<u64, StateError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, StateError> {
        Ok(u32::from_le_bytes(self.array()?))
    }
}

#[cfg(test)]
mod tests;
