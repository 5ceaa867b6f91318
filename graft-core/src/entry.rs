//! One entry of the log: by itself, and as it lies beside others.

use std::fmt;

use bytes::Bytes;

use crate::LogId;

/// Milliseconds of cluster life: the time of the last entry when a leader was elected plus that
/// leader's monotonic time since. No wall clock, never backwards; sessions age by it alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct LogTime(pub u64);

/// What an entry is for. The numbers are part of the formats and never change.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
#[non_exhaustive]
pub enum EntryKind {
    /// Opens a term (Raft §8). The payload is the leader's wall clock as it was elected, in
    /// milliseconds since the Unix epoch (8 bytes, little endian).
    Blank = 0,
    /// A [`Membership`](crate::Membership), in force from the moment it is in the log.
    Membership = 1,
    /// A command without a session: the caller promised that applying it twice does no harm.
    Plain = 2,
    /// Opens a session (thesis §6.3).
    SessionOpen = 3,
    /// Keeps a session from expiring.
    SessionKeepAlive = 4,
    /// Ends a session.
    SessionClose = 5,
    /// A command under a session: applied at most once.
    SessionCommand = 6,
}

impl EntryKind {
    /// The kind with this number, or `None`: an unknown kind is refused at the door.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Blank,
            1 => Self::Membership,
            2 => Self::Plain,
            3 => Self::SessionOpen,
            4 => Self::SessionKeepAlive,
            5 => Self::SessionClose,
            6 => Self::SessionCommand,
            _ => return None,
        })
    }

    /// Whether a client may propose this kind. Blank and membership entries are the leader's own.
    #[must_use]
    pub const fn is_clients(self) -> bool {
        !matches!(self, Self::Blank | Self::Membership)
    }
}

/// One entry of the log (Raft §5.3), by itself. Beside others it lies in [`Entries`](crate::Entries).
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// The term that created it and its position.
    pub log_id: LogId,
    /// When the leader took it in, in the cluster's own time.
    pub time: LogTime,
    /// What it is for.
    pub kind: EntryKind,
    /// What it carries, in the form its kind defines. Never parsed by `Raft`.
    pub payload: Bytes,
}

impl Entry {
    /// What an entry costs in windows and bounds beside its payload, in bytes.
    pub const OVERHEAD: usize = 32;

    /// The size by which windows, batches and bounds count this entry, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.payload.len() + Self::OVERHEAD
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        EntryRef::from(self).fmt(f)
    }
}

/// One entry of the log where it lies, in [`Entries`](crate::Entries) or in an [`Entry`].
#[derive(Clone, Copy)]
pub struct EntryRef<'a> {
    /// The term that created it and its position.
    pub log_id: LogId,
    /// When the leader took it in, in the cluster's own time.
    pub time: LogTime,
    /// What it is for.
    pub kind: EntryKind,
    /// What it carries, in the form its kind defines.
    pub payload: &'a [u8],
    /// What holds the payload.
    pub(crate) buffer: &'a Bytes,
}

impl EntryRef<'_> {
    /// The size by which windows, batches and bounds count this entry, in bytes: [`Entry::size`].
    #[must_use]
    pub const fn size(self) -> usize {
        self.payload.len() + Entry::OVERHEAD
    }

    /// The payload, sharing memory. It keeps all payloads of its batch in memory as long.
    #[must_use]
    pub fn shared_payload(self) -> Bytes {
        self.buffer.slice_ref(self.payload)
    }

    /// The entry by itself. Its payload is shared, as [`shared_payload`](Self::shared_payload) says.
    #[must_use]
    pub fn to_entry(self) -> Entry {
        let Self { log_id, time, kind, .. } = self;
        Entry { log_id, time, kind, payload: self.shared_payload() }
    }
}

impl<'a> From<&'a Entry> for EntryRef<'a> {
    fn from(entry: &'a Entry) -> Self {
        let Entry { log_id, time, kind, ref payload } = *entry;
        Self { log_id, time, kind, payload, buffer: payload }
    }
}

impl PartialEq for EntryRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.log_id == other.log_id
            && self.time == other.time
            && self.kind == other.kind
            && self.payload == other.payload
    }
}

impl Eq for EntryRef<'_> {}

impl fmt::Debug for EntryRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} {}B", self.log_id, self.kind, self.payload.len())
    }
}
