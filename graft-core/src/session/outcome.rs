//! How an entry ended.

use bytes::Bytes;

use crate::SessionId;

/// How an entry of a client ended, on every server alike.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// The command was applied, now or earlier; this is what the machine answered then.
    Applied(Bytes),
    /// The command was applied, now or earlier, and the machine panicked over it. The bytes are the
    /// panic's message, cut at [`Outcome::MAX_PANIC_MESSAGE`]. That it panicked is the same on every
    /// server; the message may hold addresses or times, so it is for people to read and no part of
    /// what replicas compare.
    Panicked(Bytes),
    /// The session is open.
    SessionOpened(SessionId),
    /// The session is alive, or closed as asked.
    SessionDone,
    /// Not applied now; whether it was before is unknown. The session is gone, or never was.
    SessionExpired,
    /// Not applied now: the client said earlier that it no longer wants this sequence's answer.
    Forgotten,
    /// Not applied, now or ever before: the sequence is further above the floor than the session's
    /// window, or the session keeps too many bytes of replies. The same sequence may be sent again
    /// once the floor has moved; at the floor itself a command is never refused in this way.
    SessionFull,
}

impl Outcome {
    /// The longest panic message that is kept, in bytes.
    pub const MAX_PANIC_MESSAGE: usize = 256;
}

#[cfg(feature = "node")]
impl From<Outcome> for crate::Reply {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Applied(reply) => Self::Applied(reply),
            Outcome::Panicked(message) => Self::Panicked(message),
            Outcome::SessionOpened(session) => Self::SessionOpened(session),
            Outcome::SessionDone => Self::SessionDone,
            Outcome::SessionExpired => Self::SessionExpired,
            Outcome::Forgotten => Self::Forgotten,
            Outcome::SessionFull => Self::SessionFull,
        }
    }
}
