//! The first frame of either side, and the last one to who is refused.

use std::{fmt, iter, time::Duration};

use graft_core::{ClusterId, Epoch, GroupId, Incarnation, NodeId};
use rkyv::{Archive, Serialize};

use super::{Frame, Kind, Limits, Outgoing, VERSION, WireError, outgoing::Payload};

/// Who somebody is, and how it speaks. It is always framed in the lowest version that its sender speaks;
/// what follows it, in the highest that both do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// The cluster; zero from a client that does not know it yet.
    pub cluster: ClusterId,
    /// The versions of the format that the sender speaks.
    pub protocol: Protocol,
    /// Server or client.
    pub role: Role,
    /// The cluster's generation; zero from a client that does not know it.
    pub epoch: Epoch,
    /// The server; zero from a client.
    pub node: NodeId,
    /// The name: of a server the one that `node` is the hash of.
    pub name: String,
    /// The birth of the server's store; zero from a client.
    pub incarnation: Incarnation,
    /// A number that the client has drawn, so that its connections are told apart; from a server, one that its process has
    /// drawn, so that one that was started again is told from a copy of its store. Zero says nothing.
    pub client: u64,
    /// The name of the type of the entries.
    pub machine: String,
    /// The fingerprint of the form in which they are archived.
    pub format: u64,
    /// The versions of that type that the sender reads.
    pub schema: Schema,
    /// The largest payload of an entry that the sender takes in, in bytes.
    pub max_entry_bytes: u32,
    /// The largest frame that the sender takes in, in bytes.
    pub max_frame_bytes: u32,
    /// The largest payload of a reply that the sender sends, or takes in, in bytes.
    pub max_reply_bytes: u32,
    /// The election timeout of a server, to the millisecond; zero from a client.
    pub election_timeout: Duration,
}

/// A range of versions of the format, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Protocol {
    /// The lowest; at least 1.
    pub min: u8,
    /// The highest; at least `min`.
    pub max: u8,
}

impl Protocol {
    /// What this build speaks.
    pub const OWN: Self = Self { min: VERSION, max: VERSION };

    /// The highest version that both speak, or `None`.
    #[must_use]
    pub fn common(self, other: Self) -> Option<u8> {
        let highest = self.max.min(other.max);
        (highest >= self.min.max(other.min)).then_some(highest)
    }
}

/// A range of versions of the entry type, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Schema {
    /// The lowest; at most `highest`.
    pub lowest: u16,
    /// The highest.
    pub highest: u16,
}

impl Schema {
    /// The versions that both read, or `None`.
    #[must_use]
    pub fn common(self, other: Self) -> Option<Self> {
        let lowest = self.lowest.max(other.lowest);
        let highest = self.highest.min(other.highest);
        (lowest <= highest).then_some(Self { lowest, highest })
    }
}

/// The part that somebody plays on a connection. The numbers are part of the format.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Role {
    /// A server of the cluster.
    Server = 1,
    /// A client.
    Client = 2,
}

#[derive(Archive, Serialize)]
struct HelloBody {
    protocol_min: u8,
    protocol_max: u8,
    role: u8,
    epoch: u64,
    node: u64,
    name: String,
    incarnation: u64,
    client: u64,
    machine: String,
    format: u64,
    schema_lowest: u16,
    schema_highest: u16,
    max_entry_bytes: u32,
    max_frame_bytes: u32,
    max_reply_bytes: u32,
    election_timeout_ms: u32,
}

/// Appends a hello to what goes out.
///
/// # Errors
///
/// [`WireError::TooLarge`] where its names are longer than 4 KiB together; then nothing is appended.
pub fn encode_hello(hello: &Hello, out: &mut Outgoing) -> Result<(), WireError> {
    let body = HelloBody {
        protocol_min: hello.protocol.min,
        protocol_max: hello.protocol.max,
        role: hello.role as u8,
        epoch: hello.epoch.0,
        node: hello.node.0,
        name: hello.name.clone(),
        incarnation: hello.incarnation.0,
        client: hello.client,
        machine: hello.machine.clone(),
        format: hello.format,
        schema_lowest: hello.schema.lowest,
        schema_highest: hello.schema.highest,
        max_entry_bytes: hello.max_entry_bytes,
        max_frame_bytes: hello.max_frame_bytes,
        max_reply_bytes: hello.max_reply_bytes,
        election_timeout_ms: u32::try_from(hello.election_timeout.as_millis()).unwrap_or(u32::MAX),
    };
    let header = (Kind::Hello, hello.cluster, GroupId(0));
    out.frame(header, &body, iter::empty::<Payload<'_>>(), &Limits::default())
}

/// The hello in a frame. Whether its sender belongs here is for the connection to judge.
///
/// # Errors
///
/// [`WireError`] says what is wrong with it.
pub fn decode_hello(frame: &Frame) -> Result<Hello, WireError> {
    let body = frame.access_in_group_0::<ArchivedHelloBody>(Kind::Hello)?;
    frame.payloads().finish()?;
    let protocol = Protocol { min: body.protocol_min, max: body.protocol_max };
    if protocol.min == 0 || protocol.min > protocol.max {
        return Err(frame.malformed("its range of protocol versions is empty"));
    }
    let schema =
        Schema { lowest: body.schema_lowest.to_native(), highest: body.schema_highest.to_native() };
    if schema.lowest > schema.highest {
        return Err(frame.malformed("its range of entry versions is empty"));
    }
    let role = match body.role {
        1 => Role::Server,
        2 => Role::Client,
        _ => return Err(frame.malformed("its role is unknown")),
    };
    Ok(Hello {
        cluster: frame.header().cluster,
        protocol,
        role,
        epoch: Epoch(body.epoch.to_native()),
        node: NodeId(body.node.to_native()),
        name: body.name.as_str().to_owned(),
        incarnation: Incarnation(body.incarnation.to_native()),
        client: body.client.to_native(),
        machine: body.machine.as_str().to_owned(),
        format: body.format.to_native(),
        schema,
        max_entry_bytes: body.max_entry_bytes.to_native(),
        max_frame_bytes: body.max_frame_bytes.to_native(),
        max_reply_bytes: body.max_reply_bytes.to_native(),
        election_timeout: Duration::from_millis(body.election_timeout_ms.to_native().into()),
    })
}

/// Why a connection is refused, in a form to act on and in words to show.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{code}: {text}")]
pub struct Refusal {
    /// The reason.
    pub code: RefusalCode,
    /// What was wrong, where, and what to do. At most [`Refusal::MAX_TEXT_BYTES`] bytes are sent.
    pub text: String,
}

impl Refusal {
    /// What of the text is sent.
    pub const MAX_TEXT_BYTES: usize = 1024;
}

/// Declares the reasons with their numbers, which are part of the format and never change.
macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $words:literal;)*) => {
        /// Why a connection is refused. The numbers are part of the format and never change.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[non_exhaustive]
        pub enum RefusalCode {
            $($(#[$doc])* $name,)*
            /// A reason that this build does not know; the text says it.
            Other(u16),
        }

        impl RefusalCode {
            /// The number of the reason.
            #[must_use]
            pub const fn number(self) -> u16 {
                match self {
                    $(Self::$name => $number,)*
                    Self::Other(number) => number,
                }
            }

            /// The reason with this number.
            #[must_use]
            pub const fn from_number(number: u16) -> Self {
                match number {
                    $($number => Self::$name,)*
                    other => Self::Other(other),
                }
            }
        }

        impl fmt::Display for RefusalCode {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$name => f.write_str($words),)*
                    Self::Other(number) => write!(f, "refused for reason {number}"),
                }
            }
        }
    };
}

codes! {
    /// The cluster is another.
    WrongCluster = 1, "wrong cluster";
    /// The cluster's generation is an earlier one.
    WrongEpoch = 2, "wrong epoch";
    /// The server is not the one that was asked for, or not the one its certificate names.
    WrongServer = 3, "wrong server";
    /// The store of that server is of another birth than the one known here.
    WrongIncarnation = 4, "wrong incarnation";
    /// A client where a server belongs, or the other way around.
    WrongRole = 5, "wrong role";
    /// No version of the format that both speak.
    UnknownVersion = 6, "unknown version";
    /// A kind of frame that is unknown, or does not belong on the stream.
    UnknownKind = 7, "unknown kind";
    /// Bytes that are no frame, or a frame that makes no sense.
    Malformed = 8, "malformed";
    /// Another form of archive.
    WrongFormat = 9, "wrong format";
    /// A frame, or what is in it, is too large.
    TooLarge = 10, "too large";
    /// Too many connections, or too many from there.
    TooMany = 11, "too many";
    /// The hello, or an answer to it, took too long.
    TooSlow = 12, "too slow";
    /// The server is stopping.
    Closing = 13, "closing";
    /// The certificate is not valid any more, or was revoked.
    Revoked = 14, "revoked";
    /// A newer connection between the same two took this one's place.
    Replaced = 15, "replaced";
    /// Another entry type, or no version of it that both read.
    WrongEntry = 16, "wrong entry";
}

#[derive(Archive, Serialize)]
struct RefusalBody {
    code: u16,
    text: String,
}

/// Appends a refusal to what goes out. A text that is too long is cut.
///
/// # Errors
///
/// None in practice: a refusal always fits.
pub fn encode_refusal(
    refusal: &Refusal,
    cluster: ClusterId,
    out: &mut Outgoing,
) -> Result<(), WireError> {
    let mut text = refusal.text.clone();
    let fits = |end: &usize| text.is_char_boundary(*end);
    text.truncate((0..=Refusal::MAX_TEXT_BYTES.min(text.len())).rev().find(fits).unwrap_or(0));
    let body = RefusalBody { code: refusal.code.number(), text };
    let header = (Kind::Refusal, cluster, GroupId(0));
    out.frame(header, &body, iter::empty::<Payload<'_>>(), &Limits::default())
}

/// The refusal in a frame.
///
/// # Errors
///
/// [`WireError`] says what is wrong with it.
pub fn decode_refusal(frame: &Frame) -> Result<Refusal, WireError> {
    let body = frame.access_in_group_0::<ArchivedRefusalBody>(Kind::Refusal)?;
    frame.payloads().finish()?;
    if body.text.len() > Refusal::MAX_TEXT_BYTES {
        return Err(frame.malformed("its text is too long"));
    }
    Ok(Refusal {
        code: RefusalCode::from_number(body.code.to_native()),
        text: body.text.as_str().to_owned(),
    })
}
