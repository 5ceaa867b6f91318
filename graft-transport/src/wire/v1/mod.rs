//! Version 1 of the wire format.
//!
//! A connection is a sequence of frames: a header of 48 bytes, a body, payloads.
//!
//! ```text
//! offset  size  header (numbers are little endian)
//!      0     4  magic, "GRFT"
//!      4     1  version, 1
//!      5     1  kind
//!      6     2  zero
//!      8     8  cluster
//!     16     8  group
//!     24     4  length of the body, in bytes
//!     28     4  length of the payloads with their padding, in bytes
//!     32     4  the form of the archive: see `archive_format`
//!     36     8  zero
//!     44     4  CRC-32C of the 44 bytes before it
//! ```
//!
//! The body is an rkyv archive, padded to a multiple of 16; each payload is raw bytes, padded to a
//! multiple of 16. Padding is written as zeros and not looked at when read; where a leader passes on what it has from
//! another one, the padding goes with it. So a frame is a multiple of 16 long, its body and payloads are aligned wherever
//! the frame is, and payloads can be shared. Commands that are a chain are not whole in the frame (`runs.rs`): they are
//! put together when they are read.
//!
//! Reading goes in three steps, none of which can panic whatever the bytes are: [`FrameReader`] checks
//! the header before it allocates, and never beyond the [`Limits`] of the kind; the body is accessed by
//! rkyv's validation; and what it says is checked while it becomes values (known numbers, consecutive
//! entries, lengths that add up exactly). Whatever is wrong is a [`WireError`], after which the
//! connection is of no use any more.
//!
//! Bytes on the way are protected by the transport's own encryption; the checksum is there to tell a
//! frame from whatever else may arrive, before a length in it is believed.

mod append;
mod birth;
mod error;
mod handshake;
mod header;
mod limits;
mod members;
mod outgoing;
mod peer;
mod reader;
mod replies;
mod requests;
mod runs;
mod snapshot;

pub use error::WireError;
pub use handshake::{
    Hello, Protocol, Refusal, RefusalCode, Role, Schema, decode_hello, decode_refusal,
    encode_hello, encode_refusal,
};
pub use header::{Header, Kind, Kinds, MAGIC, VERSION, archive_format};
pub use limits::Limits;
pub use members::{Members, decode_members, encode_members};
pub use outgoing::Outgoing;
pub use peer::{decode_peer, encode_peer};
pub use reader::{Frame, FrameReader};
pub use replies::{decode_replies, encode_replies};
pub use requests::{decode_requests, encode_requests};
#[cfg(feature = "quic")]
pub(crate) use {
    outgoing::Payload,
    requests::{OutgoingRequest, encode_outgoing},
};
