//! What a record of the simple store holds, and how it is put into bytes.

use bytes::Bytes;
use graft_core::{
    Birth, ClusterId, Entries, Entry, EntryKind, Epoch, GroupId, HardState, Identity, Incarnation,
    Index, LogId, LogTime, Membership, NodeId, SnapshotChunk, SnapshotMeta, Term, Write,
};

/// What one record holds.
#[derive(Clone, Default)]
pub(super) struct Batch {
    pub(super) identity: Option<Identity>,
    pub(super) chunks: Vec<SnapshotChunk>,
    pub(super) writes: Vec<Write>,
}

impl Batch {
    pub(super) fn stage(&mut self, meta: &SnapshotMeta, bytes: Bytes) {
        let offset = self.staged(meta);
        self.chunks.push(SnapshotChunk { meta: meta.clone(), offset, bytes });
    }

    fn staged(&self, meta: &SnapshotMeta) -> u64 {
        self.chunks.iter().filter(|c| c.meta == *meta).map(|c| c.bytes.len() as u64).sum()
    }

    pub(super) fn missing(&self, meta: &SnapshotMeta) -> Option<u64> {
        Some(self.staged(meta)).filter(|size| *size < meta.size)
    }

    pub(super) fn parts(&self) -> Vec<Self> {
        let of = |write: &Write| Self { writes: vec![write.clone()], ..Self::default() };
        if self.chunks.is_empty() { self.writes.iter().map(of).collect() } else { Vec::new() }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Out(Vec::new());
        out.number(u64::from(self.identity.is_some()));
        if let Some(own) = &self.identity {
            out.numbers(&[own.cluster.0, own.epoch.0, own.node.0, own.incarnation.0, own.format]);
            out.number(u64::from(own.birth == Birth::Joiner));
            out.bytes(own.name.as_bytes());
            out.bytes(own.machine.as_bytes());
        }
        out.number(self.chunks.len() as u64);
        for chunk in &self.chunks {
            out.meta(&chunk.meta);
            out.number(chunk.offset);
            out.bytes(&chunk.bytes);
        }
        out.number(self.writes.len() as u64);
        for write in &self.writes {
            out.write(write);
        }
        out.0
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = In(bytes);
        let mut batch = Self::default();
        if from.number()? != 0 {
            batch.identity = Some(from.identity()?);
        }
        for _ in 0..from.number()? {
            let meta = from.meta()?;
            let offset = from.number()?;
            batch.chunks.push(SnapshotChunk { meta, offset, bytes: from.bytes()? });
        }
        for _ in 0..from.number()? {
            batch.writes.push(from.write()?);
        }
        Some(batch)
    }
}

struct Out(Vec<u8>);

impl Out {
    fn number(&mut self, number: u64) {
        self.0.extend(number.to_le_bytes());
    }

    fn numbers(&mut self, numbers: &[u64]) {
        numbers.iter().for_each(|number| self.number(*number));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend(bytes);
    }

    fn log_id(&mut self, at: LogId) {
        self.numbers(&[at.term.0, at.index.0]);
    }

    fn meta(&mut self, meta: &SnapshotMeta) {
        self.numbers(&[meta.id, meta.cluster.0, meta.epoch.0, meta.group.0]);
        self.log_id(meta.last);
        self.number(meta.time.0);
        self.log_id(meta.membership.0);
        self.bytes(&meta.membership.1.encode());
        self.numbers(&[u64::from(meta.schema), meta.size, meta.digest, meta.format]);
    }

    fn write(&mut self, write: &Write) {
        match write {
            Write::HardState(state) => {
                let vote = state.voted_for.map_or(0, |node| node.0);
                self.numbers(&[0, state.term.0, vote, state.commit.0]);
            }
            Write::Append(entries) => {
                self.numbers(&[1, entries.len() as u64]);
                for entry in entries.iter() {
                    self.log_id(entry.log_id);
                    self.numbers(&[entry.time.0, entry.kind as u64]);
                    self.bytes(entry.payload);
                }
            }
            Write::InstallSnapshot(meta) => {
                self.number(2);
                self.meta(meta);
            }
            Write::Compact(upto) => {
                self.number(3);
                self.log_id(*upto);
            }
            other => unreachable!("an order that this store does not know: {other:?}"),
        }
    }
}

struct In<'a>(&'a [u8]);

impl In<'_> {
    fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*number))
    }

    fn bytes(&mut self) -> Option<Bytes> {
        let length = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(Bytes::copy_from_slice(bytes))
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    fn log_id(&mut self) -> Option<LogId> {
        Some(LogId::new(self.number()?, self.number()?))
    }

    fn identity(&mut self) -> Option<Identity> {
        Some(Identity {
            cluster: ClusterId(self.number()?),
            epoch: Epoch(self.number()?),
            node: NodeId(self.number()?),
            incarnation: Incarnation(self.number()?),
            format: self.number()?,
            birth: if self.number()? == 0 { Birth::Founder } else { Birth::Joiner },
            name: self.text()?,
            machine: self.text()?,
        })
    }

    fn meta(&mut self) -> Option<SnapshotMeta> {
        Some(SnapshotMeta {
            id: self.number()?,
            cluster: ClusterId(self.number()?),
            epoch: Epoch(self.number()?),
            group: GroupId(self.number()?),
            last: self.log_id()?,
            time: LogTime(self.number()?),
            membership: (self.log_id()?, Membership::decode(&self.bytes()?).ok()?),
            schema: u16::try_from(self.number()?).ok()?,
            size: self.number()?,
            digest: self.number()?,
            format: self.number()?,
        })
    }

    fn write(&mut self) -> Option<Write> {
        Some(match self.number()? {
            0 => {
                let (term, vote) = (Term(self.number()?), self.number()?);
                let voted_for = (vote != 0).then_some(NodeId(vote));
                Write::HardState(HardState { term, voted_for, commit: Index(self.number()?) })
            }
            1 => Write::Append(self.entries()?),
            2 => Write::InstallSnapshot(self.meta()?),
            3 => Write::Compact(self.log_id()?),
            _ => return None,
        })
    }

    fn entries(&mut self) -> Option<Entries> {
        let mut entries = Vec::new();
        for _ in 0..self.number()? {
            let log_id = self.log_id()?;
            let time = LogTime(self.number()?);
            let kind = EntryKind::from_u8(u8::try_from(self.number()?).ok()?)?;
            entries.push(Entry { log_id, time, kind, payload: self.bytes()? });
        }
        Entries::checked(entries)
    }
}
