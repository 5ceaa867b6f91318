//! What the tables of a segment hold beside records: the head, and the facts it vouches for.
//!
//! The head is one small value that every commit writes. A fact is written when it changes, and
//! carries the number of the commit that wrote it; the head lists these numbers. So whoever has the
//! right head, and the witness tells whether it is, has all the right facts or an error.

use bytes::Bytes;
use graft_core::{
    GroupId, HardState, Identity, Index, LogId, LogTime, Recovered, SnapshotMeta, StoreError, Term,
    stable_hash,
};

use super::codec::{In, Malformed, Out, unseal};
use crate::outline::Outline;

/// The version of the format that a build writes. It reads that and the ones before, and refuses newer
/// ones. What was begun in an earlier version is continued in it, file by file: a segment says in which
/// it is, and what is beside the segments follows the one that is written. So a store becomes one of this
/// version when its next segment begins, and until then it is what it was.
///
/// Version 2 says in the witness whose it is, and ties each block of a snapshot to all that describes the
/// snapshot: in version 1 those of another store could be taken for its own.
///
/// Version 3 has records that are chains: commands that differ in their sequences alone are written as one.
pub(super) const VERSION: u32 = 3;

/// The first version that knows chains.
pub(super) const VERSION_3: u32 = 3;

/// The version that knew neither of what version 2 brought.
pub(super) const VERSION_1: u32 = 1;

/// The layouts in words, by version. The hash of one is stored beside the version, so that two layouts which
/// by mistake share a version are not taken for each other. Change both together.
const LAYOUTS: [&str; VERSION as usize] = [LAYOUT_1, LAYOUT_2, LAYOUT_3];

const LAYOUT_1: &str = "\
    redb 3; log: group be64, first be64, part be32 -> chunk; head: ff x 20; facts: group \
    be64, kind u8; ballast: u8; chunk: first, count, length, crc32c of group and these; \
    record: crc32c of group, index, length, term, time, kind, payload; 16 aligned; head: \
    sequence, hard state, compacted, last, time, begin, written, stamps; witness: sequence, \
    segment, length; snapshots: blocks of 64k";

const LAYOUT_2: &str = "\
    redb 3; log: group be64, first be64, part be32 -> chunk; head: ff x 20; facts: group \
    be64, kind u8; ballast: u8; chunk: first, count, length, crc32c of group and these; \
    record: crc32c of group, index, length, term, time, kind, payload; 16 aligned; head: \
    sequence, hard state, compacted, last, time, begin, written, stamps; witness: sequence, \
    segment, length, cluster, node, incarnation; snapshots: version of its file; blocks of 64k, \
    crc32c of file, meta, block, data";

const LAYOUT_3: &str = "\
    redb 3; log: group be64, first be64, part be32 -> chunk; head: ff x 20; facts: group \
    be64, kind u8; ballast: u8; chunk: first, count, length, crc32c of group and these; \
    record: crc32c of group, index, length, term, time, kind, count, payload; 16 aligned; chain: \
    header of the first, lengths u8, bodies; head: \
    sequence, hard state, compacted, last, time, begin, written, stamps; witness: sequence, \
    segment, length, cluster, node, incarnation; snapshots: version of its file; blocks of 64k, \
    crc32c of file, meta, block, data";

const MAGIC: &[u8; 8] = b"graftlog";

/// A fact, by the number under which it is stored. The numbers are part of the format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Fact {
    /// Which format all others are in. Read before anything else: its place and form never change.
    Format = 0,
    Identity = 1,
    Sealed = 2,
    Terms = 3,
    Memberships = 4,
    Snapshot = 5,
}

impl Fact {
    /// All facts.
    pub(super) const ALL: [Self; 6] = [
        Self::Format,
        Self::Identity,
        Self::Sealed,
        Self::Terms,
        Self::Memberships,
        Self::Snapshot,
    ];

    /// Those that the head vouches for.
    pub(super) const STAMPED: [Self; 5] =
        [Self::Identity, Self::Sealed, Self::Terms, Self::Memberships, Self::Snapshot];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Format => "format",
            Self::Identity => "identity",
            Self::Sealed => "sealed segments",
            Self::Terms => "terms",
            Self::Memberships => "memberships",
            Self::Snapshot => "snapshot",
        }
    }

    /// The key of this fact of `group`. What belongs to the store is under group 0.
    pub(super) fn key(self, group: GroupId) -> [u8; 9] {
        let mut key = [0; 9];
        key[..8].copy_from_slice(&group.0.to_be_bytes());
        key[8] = self as u8;
        key
    }

    const fn slot(self) -> usize {
        (self as usize).saturating_sub(1)
    }
}

/// The numbers of the commits that last wrote each fact; zero where it was never written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Stamps([u64; Fact::STAMPED.len()]);

impl Stamps {
    pub(super) fn of(&self, fact: Fact) -> u64 {
        self.0[fact.slot()]
    }

    pub(super) fn set(&mut self, fact: Fact, sequence: u64) {
        self.0[fact.slot()] = sequence;
    }
}

/// The head of a store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Head {
    /// The number of the commit.
    pub(super) sequence: u64,
    pub(super) hard_state: HardState,
    pub(super) compacted: LogId,
    pub(super) last: LogId,
    pub(super) last_time: LogTime,
    /// The first index that is looked up in this segment and not in a sealed one.
    pub(super) begin: Index,
    /// How many bytes of chunks were written to this segment.
    pub(super) written: u64,
    pub(super) stamps: Stamps,
}

const HEAD: &[u8] = b"head";

impl Head {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Out(Vec::with_capacity(160));
        out.u64(self.sequence).hard_state(&self.hard_state);
        out.log_id(self.compacted).log_id(self.last).u64(self.last_time.0).u64(self.begin.0);
        out.u64(self.written);
        for stamp in self.stamps.0 {
            out.u64(stamp);
        }
        out.seal(HEAD)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut fields = In::new(unseal(HEAD, bytes)?);
        let mut head = Self {
            sequence: fields.u64()?,
            hard_state: fields.hard_state()?,
            compacted: fields.log_id()?,
            last: fields.log_id()?,
            last_time: LogTime(fields.u64()?),
            begin: Index(fields.u64()?),
            written: fields.u64()?,
            stamps: Stamps::default(),
        };
        for stamp in &mut head.stamps.0 {
            *stamp = fields.u64()?;
        }
        fields.end()?;
        Ok(head)
    }
}

/// A segment that is not written any more, and what of it still counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sealed {
    pub(super) segment: u64,
    /// The number of the last commit in it.
    pub(super) sequence: u64,
    pub(super) first: Index,
    pub(super) last: Index,
}

/// The installed snapshot and the number of its file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Installed {
    pub(super) meta: SnapshotMeta,
    pub(super) file: u64,
    /// The version of the format that its file is in.
    pub(super) version: u8,
}

/// The format that a file says it is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Format {
    pub(super) version: u32,
    pub(super) fingerprint: u64,
}

impl Format {
    /// That of a segment that this build begins.
    pub(super) fn own() -> Self {
        Self { version: VERSION, fingerprint: stable_hash(LAYOUT_3.as_bytes()) }
    }

    /// That of a version that this build reads.
    pub(super) fn of(version: u32) -> Option<Self> {
        let layout = LAYOUTS.get(usize::try_from(version.checked_sub(1)?).ok()?)?;
        Some(Self { version, fingerprint: stable_hash(layout.as_bytes()) })
    }

    pub(super) fn encode(self, group: GroupId) -> Vec<u8> {
        let mut out = Out(MAGIC.to_vec());
        out.u32(self.version).u64(self.fingerprint);
        out.seal(&Fact::Format.key(group))
    }

    pub(super) fn decode(group: GroupId, bytes: &[u8]) -> Result<Self, Malformed> {
        let bytes = unseal(&Fact::Format.key(group), bytes)?;
        let rest = bytes.strip_prefix(MAGIC).ok_or("it does not begin as a log of graft does")?;
        let mut fields = In::new(rest);
        Ok(Self { version: fields.u32()?, fingerprint: fields.u64()? })
    }
}

/// Everything a store knows that is not a record, as of its latest commit.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) sequence: u64,
    pub(super) group: GroupId,
    /// The segment that is written.
    pub(super) active: u64,
    pub(super) begin: Index,
    pub(super) written: u64,
    pub(super) identity: Identity,
    pub(super) hard_state: HardState,
    pub(super) outline: Outline,
    pub(super) sealed: Vec<Sealed>,
    pub(super) snapshot: Option<Installed>,
    pub(super) stamps: Stamps,
}

impl State {
    /// The state before the first commit, with no segment yet.
    pub(super) fn newborn(identity: Identity) -> Self {
        Self {
            sequence: 0,
            group: GroupId(0),
            active: 0,
            begin: Index(1),
            written: 0,
            identity,
            hard_state: HardState::default(),
            outline: Outline::default(),
            sealed: Vec::new(),
            snapshot: None,
            stamps: Stamps::default(),
        }
    }

    /// The next commit writes these facts.
    pub(super) fn advance(&mut self, facts: &[Fact]) {
        self.sequence += 1;
        for fact in facts {
            self.stamps.set(*fact, self.sequence);
        }
    }

    pub(super) fn recovered(&self) -> Result<Recovered, StoreError> {
        Ok(Recovered {
            identity: self.identity.clone(),
            hard_state: self.hard_state,
            compacted: self.outline.compacted,
            last: self.outline.last,
            last_time: self.outline.last_time,
            terms: self.outline.terms.clone(),
            memberships: self.outline.decoded_memberships()?,
            snapshot: self.snapshot.as_ref().map(|installed| installed.meta.clone()),
        })
    }

    pub(super) fn head(&self) -> Head {
        Head {
            sequence: self.sequence,
            hard_state: self.hard_state,
            compacted: self.outline.compacted,
            last: self.outline.last,
            last_time: self.outline.last_time,
            begin: self.begin,
            written: self.written,
            stamps: self.stamps,
        }
    }

    /// The value of a fact as it is stored.
    pub(super) fn encode(&self, fact: Fact) -> Vec<u8> {
        let mut out = Out::default();
        out.u64(self.stamps.of(fact));
        match fact {
            Fact::Format => return Format::own().encode(self.group),
            Fact::Identity => {
                out.identity(&self.identity);
            }
            Fact::Sealed => {
                out.u32(length(self.sealed.len()));
                for sealed in &self.sealed {
                    out.u64(sealed.segment).u64(sealed.sequence);
                    out.u64(sealed.first.0).u64(sealed.last.0);
                }
            }
            Fact::Terms => {
                out.u32(length(self.outline.terms.len()));
                for (index, term) in &self.outline.terms {
                    out.u64(index.0).u64(term.0);
                }
            }
            Fact::Memberships => {
                out.u32(length(self.outline.memberships.len()));
                for (at, payload) in &self.outline.memberships {
                    out.log_id(*at).bytes(payload);
                }
            }
            Fact::Snapshot => {
                out.u8(self.snapshot.as_ref().map_or(0, |installed| installed.version));
                if let Some(installed) = &self.snapshot {
                    out.u64(installed.file).snapshot_meta(&installed.meta);
                }
            }
        }
        out.seal(&fact.key(self.group))
    }

    /// Whose the segment is that holds this head, and this value of the fact that says it.
    pub(super) fn decode_identity(
        head: &Head,
        group: GroupId,
        value: &[u8],
    ) -> Result<Identity, (Fact, Malformed)> {
        Value::decode(group, head, Fact::Identity, value)?.all(identity)
    }

    /// The state of which a segment holds this head, and this value of each fact.
    pub(super) fn decode(
        active: u64,
        head: &Head,
        group: GroupId,
        mut value: impl FnMut(Fact) -> Result<Vec<u8>, (Fact, Malformed)>,
    ) -> Result<Self, (Fact, Malformed)> {
        let identity = Self::decode_identity(head, group, &value(Fact::Identity)?)?;
        let mut fact = |fact: Fact| Value::decode(group, head, fact, &value(fact)?);
        let sealed = fact(Fact::Sealed)?.all(|fields| fields.list(sealed))?;
        let terms = fact(Fact::Terms)?
            .all(|fields| fields.list(|run| Ok((Index(run.u64()?), Term(run.u64()?)))))?;
        let memberships: Vec<(LogId, Bytes)> = fact(Fact::Memberships)?
            .all(|fields| fields.list(|entry| Ok((entry.log_id()?, entry.owned_bytes()?))))?;
        let snapshot = fact(Fact::Snapshot)?.all(installed)?;
        let Head { sequence, hard_state, compacted, last, last_time, begin, written, stamps } =
            *head;
        let outline =
            Outline { compacted, last, last_time, terms, memberships, ..Outline::default() };
        Ok(Self {
            sequence,
            group,
            active,
            begin,
            written,
            identity,
            hard_state,
            outline,
            sealed,
            snapshot,
            stamps,
        })
    }
}

fn length(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn identity(fields: &mut In<'_>) -> Result<Identity, Malformed> {
    fields.identity()
}

fn sealed(fields: &mut In<'_>) -> Result<Sealed, Malformed> {
    Ok(Sealed {
        segment: fields.u64()?,
        sequence: fields.u64()?,
        first: Index(fields.u64()?),
        last: Index(fields.u64()?),
    })
}

fn installed(fields: &mut In<'_>) -> Result<Option<Installed>, Malformed> {
    let version = fields.u8()?;
    if version == 0 {
        return Ok(None);
    }
    if u32::from(version) > VERSION {
        return Err(format!("its file is in format {version}"));
    }
    Ok(Some(Installed { file: fields.u64()?, meta: fields.snapshot_meta()?, version }))
}

/// The bytes of a fact, once its checksum and its stamp have been found right.
struct Value {
    fact: Fact,
    bytes: Vec<u8>,
}

impl Value {
    fn decode(
        group: GroupId,
        head: &Head,
        fact: Fact,
        sealed: &[u8],
    ) -> Result<Self, (Fact, Malformed)> {
        let bytes = unseal(&fact.key(group), sealed).map_err(|problem| (fact, problem))?;
        let stamp = In::new(bytes).u64().map_err(|problem| (fact, problem))?;
        let wanted = head.stamps.of(fact);
        if stamp != wanted {
            let problem = format!("it is of commit {stamp}, the head names commit {wanted}");
            return Err((fact, problem));
        }
        Ok(Self { fact, bytes: bytes[8..].to_vec() })
    }

    fn all<T>(
        self,
        decode: impl FnOnce(&mut In<'_>) -> Result<T, Malformed>,
    ) -> Result<T, (Fact, Malformed)> {
        let mut fields = In::new(&self.bytes);
        let value = decode(&mut fields).and_then(|value| fields.end().map(|()| value));
        value.map_err(|problem| (self.fact, problem))
    }
}
