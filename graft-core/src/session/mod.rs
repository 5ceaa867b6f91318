//! Sessions: exactly-once semantics as a pure, replicated table (thesis §6.3).
//!
//! A client whose request got no answer cannot know whether it was applied, and can only send it
//! again. So that this does no harm, commands run under a *session*: the client numbers them, every
//! server remembers the replies by number, and a copy of a command that was applied is answered from
//! memory. The table is part of the replicated state: it changes by committed entries alone, travels in
//! snapshots, and is the same on every server at the same index. Nothing here reads a clock, a
//! configuration or a random number.
//!
//! [`Applier`] puts it together: it takes committed entries one by one, keeps the [`SessionTable`],
//! runs the machine, catches its panics, and sums up what it answered, so that replicas can be compared.
//!
//! # Payloads
//!
//! All numbers are little endian. These bytes are stored in logs and never change; what is reserved is
//! zero, and refused at the door where it is not, so that it can be given a meaning later.
//!
//! | kind | payload |
//! | --- | --- |
//! | [`Blank`](crate::EntryKind::Blank) | `unix_millis: u64`; of any other length, or zero: not known |
//! | [`Membership`](crate::EntryKind::Membership) | [`Membership::encode`](crate::Membership::encode) |
//! | [`Plain`](crate::EntryKind::Plain) | 16 bytes `version: u16`, 14 reserved; then the body |
//! | [`SessionOpen`](crate::EntryKind::SessionOpen) | `ttl_millis: u64`, `window: u32`, `max_sessions: u32` |
//! | [`SessionKeepAlive`](crate::EntryKind::SessionKeepAlive) | `session: u64`, `floor: u64` |
//! | [`SessionClose`](crate::EntryKind::SessionClose) | `session: u64` |
//! | [`SessionCommand`](crate::EntryKind::SessionCommand) | 32 bytes `session: u64`, `sequence: u64`, `floor: u64`, `version: u16`, 6 reserved; then the body |

mod apply;
mod checksum;
mod codec;
mod idle;
mod outcome;
mod replies;
mod state;
mod table;

#[cfg(test)]
mod model;

pub use apply::{Applier, ApplyError};
pub use codec::{
    COMMAND_HEADER, CommandHeader, PLAIN_HEADER, Payload, PayloadError, SessionSettings,
    check_payload, encode_blank, encode_close, encode_command, encode_keep_alive, encode_plain,
    following_header, write_command_header, write_plain_header,
};
pub use outcome::Outcome;
pub use state::StateError;
pub use table::{Admission, SessionTable, Ticket};
