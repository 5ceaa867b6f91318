//! How values are put into bytes: little endian, lengths before what they count, a crc32c at the
//! end.

use bytes::Bytes;
use graft_core::{
    Birth, ClusterId, Epoch, GroupId, HardState, Identity, Incarnation, Index, LogId, LogTime,
    Membership, NodeId, SnapshotMeta, Term,
};

/// Why bytes are not what they should be, in words.
pub(super) type Malformed = String;

/// Puts values into bytes.
#[derive(Default)]
pub(super) struct Out(pub(super) Vec<u8>);

impl Out {
    pub(super) fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    pub(super) fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(super) fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Lengths are 32 bits. What is put here is far shorter: entries are bounded, names are names.
    pub(super) fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.u32(u32::try_from(value.len()).unwrap_or(u32::MAX));
        self.0.extend_from_slice(value);
        self
    }

    pub(super) fn log_id(&mut self, value: LogId) -> &mut Self {
        self.u64(value.term.0).u64(value.index.0)
    }

    pub(super) fn hard_state(&mut self, value: &HardState) -> &mut Self {
        self.u64(value.term.0);
        self.u8(u8::from(value.voted_for.is_some()));
        self.u64(value.voted_for.map_or(0, |node| node.0)).u64(value.commit.0)
    }

    pub(super) fn identity(&mut self, value: &Identity) -> &mut Self {
        self.u64(value.cluster.0).u64(value.epoch.0).u64(value.node.0);
        self.bytes(value.name.as_bytes()).u64(value.incarnation.0);
        self.u8(match value.birth {
            Birth::Founder => 0,
            Birth::Joiner => 1,
        });
        self.bytes(value.machine.as_bytes()).u64(value.format)
    }

    pub(super) fn snapshot_meta(&mut self, value: &SnapshotMeta) -> &mut Self {
        self.u64(value.id).u64(value.cluster.0).u64(value.epoch.0).u64(value.group.0);
        self.log_id(value.last).u64(value.time.0);
        self.log_id(value.membership.0).bytes(&value.membership.1.encode());
        self.u32(u32::from(value.schema)).u64(value.size).u64(value.digest).u64(value.format)
    }

    /// The bytes with their checksum behind them. `place` is where they will stand: bytes that are
    /// found in another place do not match.
    pub(super) fn seal(mut self, place: &[u8]) -> Vec<u8> {
        let checksum = checksum(place, &self.0);
        self.u32(checksum);
        self.0
    }
}

fn checksum(place: &[u8], bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(place), bytes)
}

/// The bytes of what [`Out::seal`] made for `place`, without the checksum.
pub(super) fn unseal<'a>(place: &[u8], sealed: &'a [u8]) -> Result<&'a [u8], Malformed> {
    let Some((bytes, stored)) = sealed.split_last_chunk::<4>() else {
        return Err(format!("{} bytes are too few for a checksum", sealed.len()));
    };
    let (stored, computed) = (u32::from_le_bytes(*stored), checksum(place, bytes));
    if stored == computed {
        return Ok(bytes);
    }
    Err(format!("its checksum is {computed:08x}, {stored:08x} was written"))
}

/// Takes values out of bytes again.
pub(super) struct In<'a> {
    bytes: &'a [u8],
    length: usize,
}

impl<'a> In<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, length: bytes.len() }
    }

    fn malformed(&self) -> Malformed {
        format!(
            "its {} bytes are malformed at byte {}",
            self.length,
            self.length - self.bytes.len()
        )
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.bytes.split_first_chunk::<N>().ok_or_else(|| self.malformed())?;
        self.bytes = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        let [value] = self.array()?;
        Ok(value)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u32()? as usize;
        let (taken, rest) = self.bytes.split_at_checked(length).ok_or_else(|| self.malformed())?;
        self.bytes = rest;
        Ok(taken)
    }

    fn text(&mut self) -> Result<String, Malformed> {
        let bytes = self.bytes()?;
        String::from_utf8(bytes.to_vec()).map_err(|_| self.malformed())
    }

    pub(super) fn log_id(&mut self) -> Result<LogId, Malformed> {
        Ok(LogId { term: Term(self.u64()?), index: Index(self.u64()?) })
    }

    pub(super) fn hard_state(&mut self) -> Result<HardState, Malformed> {
        let term = Term(self.u64()?);
        let has_voted = self.u8()? != 0;
        let voted_for = NodeId(self.u64()?);
        let commit = Index(self.u64()?);
        Ok(HardState { term, voted_for: has_voted.then_some(voted_for), commit })
    }

    pub(super) fn identity(&mut self) -> Result<Identity, Malformed> {
        Ok(Identity {
            cluster: ClusterId(self.u64()?),
            epoch: Epoch(self.u64()?),
            node: NodeId(self.u64()?),
            name: self.text()?,
            incarnation: Incarnation(self.u64()?),
            birth: match self.u8()? {
                0 => Birth::Founder,
                1 => Birth::Joiner,
                _ => return Err(self.malformed()),
            },
            machine: self.text()?,
            format: self.u64()?,
        })
    }

    pub(super) fn snapshot_meta(&mut self) -> Result<SnapshotMeta, Malformed> {
        Ok(SnapshotMeta {
            id: self.u64()?,
            cluster: ClusterId(self.u64()?),
            epoch: Epoch(self.u64()?),
            group: GroupId(self.u64()?),
            last: self.log_id()?,
            time: LogTime(self.u64()?),
            membership: (self.log_id()?, self.membership()?),
            schema: u16::try_from(self.u32()?).map_err(|_| self.malformed())?,
            size: self.u64()?,
            digest: self.u64()?,
            format: self.u64()?,
        })
    }

    fn membership(&mut self) -> Result<Membership, Malformed> {
        Membership::decode(self.bytes()?).map_err(|error| error.to_string())
    }

    /// A list whose elements `element` takes out.
    pub(super) fn list<T>(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = self.u32()?;
        // Not allocated ahead: the count is not trusted.
        (0..count).map(|_| element(self)).collect()
    }

    pub(super) fn owned_bytes(&mut self) -> Result<Bytes, Malformed> {
        Ok(Bytes::copy_from_slice(self.bytes()?))
    }

    /// Nothing may be left.
    pub(super) fn end(&self) -> Result<(), Malformed> {
        if self.bytes.is_empty() { Ok(()) } else { Err(self.malformed()) }
    }
}
