//! The witness: how far commits have been acknowledged, kept outside the file they are in.
//!
//! redb's one-phase commit needs one sync because recovery may fall back: where the pages of the
//! latest commit do not match their checksums, the one before it counts. That is right for a commit
//! which a crash tore, and wrong for one that was acknowledged and then rotted, and the file alone
//! cannot tell them apart. So after each commit's sync and before its acknowledgement the commit's
//! number is put here. It is not synced: what the disk has of it is then never too high, and a
//! lower number than the true one only makes the check weaker, not wrong. The end of a process,
//! however sudden, loses nothing of it.
//!
//! It says whose it is, so that the one of another store is not taken for its own: that would vouch for
//! less than was acknowledged here. In version 1 of the format it did not.
//!
//! Two slots, each in a sector of its own, are written in turn, so that one that cannot be read
//! leaves the other.

use std::{fmt, io};

use graft_core::{ClusterId, Identity, Incarnation, NodeId};

use super::{
    codec::{In, Malformed, Out, unseal},
    facts::VERSION_1,
};
use crate::medium::{Medium, MediumFile, Open, SECTOR};

pub(super) const NAME: &str = "witness";

const SLOTS: u64 = 2;
const PLACE: &[u8] = b"witness 2";
const PLACE_1: &[u8] = b"witness";

/// The bytes of a slot, with their checksum.
const LENGTH: usize = 52;
const LENGTH_1: usize = 28;

/// What was acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(super) struct Acknowledged {
    /// The number of the latest commit.
    pub(super) sequence: u64,
    /// The segment it is in.
    pub(super) segment: u64,
    /// How long that segment's file was.
    pub(super) length: u64,
}

/// Whose a witness is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Owner {
    cluster: ClusterId,
    node: NodeId,
    incarnation: Incarnation,
}

impl Owner {
    fn of(identity: &Identity) -> Self {
        let Identity { cluster, node, incarnation, .. } = *identity;
        Self { cluster, node, incarnation }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, node, incarnation } = self;
        write!(f, "server {node} of cluster {cluster}, born as {incarnation}")
    }
}

/// What a slot says. Nobody is named in version 1.
#[derive(Clone, Copy, Debug)]
struct Slot {
    acknowledged: Acknowledged,
    owner: Option<Owner>,
}

#[derive(Debug)]
pub(super) struct Witness {
    file: Box<dyn MediumFile>,
    latest: Acknowledged,
    /// What was found in it.
    found: Vec<Slot>,
    /// Who is named in what is written; nobody as long as the store is in version 1.
    owner: Option<Owner>,
    /// The same once it is in this build's version.
    next_owner: Option<Owner>,
}

impl Witness {
    /// A new witness of nothing, durable under its name.
    pub(super) fn create(medium: &dyn Medium, identity: &Identity) -> io::Result<Self> {
        let file = medium.open(NAME, Open::Create)?;
        let owner = Some(Owner::of(identity));
        let latest = Acknowledged::default();
        let witness = Self { file, latest, found: Vec::new(), owner, next_owner: owner };
        for slot in 0..SLOTS {
            witness.write(slot, latest)?;
        }
        witness.file.sync_data()?;
        medium.sync_names()?;
        Ok(witness)
    }

    /// The witness on `medium`, or `None` where there is none. Whose it is is [to be
    /// checked](Self::check_owner).
    pub(super) fn open(
        medium: &dyn Medium,
        how: Open,
    ) -> io::Result<Option<Result<Self, Malformed>>> {
        let file = match medium.open(NAME, how) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut found = Vec::new();
        let mut problem = Malformed::default();
        for slot in 0..SLOTS {
            match read(&*file, slot) {
                Ok(slot) => found.push(slot),
                Err(said) => problem = said,
            }
        }
        let latest = found.iter().map(|slot| slot.acknowledged).max();
        let witness = |latest| Self { file, latest, found, owner: None, next_owner: None };
        Ok(Some(latest.map(witness).ok_or(problem)))
    }

    /// Checks that it is the witness of the store of this identity, whose newest segment has this number
    /// and is in this version. From now on it is written in that.
    pub(super) fn check_owner(
        &mut self,
        identity: &Identity,
        segment: u64,
        version: u32,
    ) -> Result<(), Malformed> {
        let owner = Owner::of(identity);
        for slot in &self.found {
            match slot.owner {
                Some(found) if found == owner => {}
                Some(found) => {
                    return Err(format!("it is of {found}, the store of {owner}"));
                }
                // Of a segment before the newest: that may have been in version 1.
                None if version == VERSION_1 || slot.acknowledged.segment < segment => {}
                None => {
                    return Err(format!(
                        "it is in format {VERSION_1}, the segment that it names in format {version}"
                    ));
                }
            }
        }
        self.next_owner = Some(owner);
        self.owner = (version != VERSION_1).then_some(owner);
        Ok(())
    }

    pub(super) fn latest(&self) -> Acknowledged {
        self.latest
    }

    /// Remembers a commit whose sync has returned, for whoever opens the store after this process.
    pub(super) fn acknowledge(&mut self, commit: Acknowledged) -> io::Result<()> {
        if commit.segment != self.latest.segment {
            // It was begun by this build.
            self.owner = self.next_owner;
        }
        self.write(commit.sequence % SLOTS, commit)?;
        self.latest = commit;
        Ok(())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, slot: u64, commit: Acknowledged) -> io::Result<()> {
        let mut out = Out(Vec::with_capacity(LENGTH));
        out.u64(commit.sequence).u64(commit.segment).u64(commit.length);
        let place = match self.owner {
            Some(Owner { cluster, node, incarnation }) => {
                out.u64(cluster.0).u64(node.0).u64(incarnation.0);
                PLACE
            }
            None => PLACE_1,
        };
        self.file.write_at(slot * SECTOR as u64, &out.seal(place))
    }
}

fn read(file: &dyn MediumFile, slot: u64) -> Result<Slot, Malformed> {
    let mut bytes = [0; LENGTH];
    let offset = slot * SECTOR as u64;
    let words = |error: io::Error| error.to_string();
    // One of version 1 may end where its last slot does.
    let there = file.len().map_err(words)?.saturating_sub(offset);
    let there = usize::try_from(there).unwrap_or(LENGTH).min(LENGTH);
    if there < LENGTH_1 {
        return Err(format!("it ends at byte {there} of slot {slot}"));
    }
    file.read_at(offset, &mut bytes[..there]).map_err(words)?;
    let acknowledged = |fields: &mut In<'_>| {
        let (sequence, segment) = (fields.u64()?, fields.u64()?);
        Ok::<_, Malformed>(Acknowledged { sequence, segment, length: fields.u64()? })
    };
    let problem = match unseal(PLACE, &bytes) {
        Ok(bytes) => {
            let fields = &mut In::new(bytes);
            let acknowledged = acknowledged(fields)?;
            let (cluster, node) = (ClusterId(fields.u64()?), NodeId(fields.u64()?));
            let owner = Owner { cluster, node, incarnation: Incarnation(fields.u64()?) };
            return Ok(Slot { acknowledged, owner: Some(owner) });
        }
        Err(problem) => problem,
    };
    let bytes = unseal(PLACE_1, &bytes[..LENGTH_1]).map_err(|_| problem)?;
    Ok(Slot { acknowledged: acknowledged(&mut In::new(bytes))?, owner: None })
}
