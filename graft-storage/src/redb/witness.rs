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
//! Two slots, each in a sector of its own, are written in turn, so that one that cannot be read
//! leaves the other.

use std::io;

use super::codec::{In, Malformed, Out, unseal};
use crate::medium::{Medium, MediumFile, Open, SECTOR};

pub(super) const NAME: &str = "witness";

const SLOTS: u64 = 2;
const PLACE: &[u8] = b"witness";

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

#[derive(Debug)]
pub(super) struct Witness {
    file: Box<dyn MediumFile>,
    latest: Acknowledged,
}

impl Witness {
    /// A new witness of nothing, durable under its name.
    pub(super) fn create(medium: &dyn Medium) -> io::Result<Self> {
        let file = medium.open(NAME, Open::Create)?;
        let mut witness = Self { file, latest: Acknowledged::default() };
        for slot in 0..SLOTS {
            witness.write(slot, Acknowledged::default())?;
        }
        witness.file.sync_data()?;
        medium.sync_names()?;
        witness.latest = Acknowledged::default();
        Ok(witness)
    }

    /// The witness on `medium`, or `None` where there is none.
    pub(super) fn open(
        medium: &dyn Medium,
        how: Open,
    ) -> io::Result<Option<Result<Self, Malformed>>> {
        let file = match medium.open(NAME, how) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut latest = None;
        let mut problem = Malformed::default();
        for slot in 0..SLOTS {
            match read(&*file, slot) {
                Ok(found) => latest = latest.max(Some(found)),
                Err(found) => problem = found,
            }
        }
        Ok(Some(latest.map(|latest| Self { file, latest }).ok_or(problem)))
    }

    pub(super) fn latest(&self) -> Acknowledged {
        self.latest
    }

    /// Remembers a commit whose sync has returned, for whoever opens the store after this process.
    pub(super) fn acknowledge(&mut self, commit: Acknowledged) -> io::Result<()> {
        self.write(commit.sequence % SLOTS, commit)?;
        self.latest = commit;
        Ok(())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&mut self, slot: u64, commit: Acknowledged) -> io::Result<()> {
        let mut out = Out(Vec::with_capacity(28));
        out.u64(commit.sequence).u64(commit.segment).u64(commit.length);
        self.file.write_at(slot * SECTOR as u64, &out.seal(PLACE))
    }
}

fn read(file: &dyn MediumFile, slot: u64) -> Result<Acknowledged, Malformed> {
    let mut bytes = [0; 28];
    file.read_at(slot * SECTOR as u64, &mut bytes).map_err(|error| error.to_string())?;
    let mut fields = In::new(unseal(PLACE, &bytes)?);
    Ok(Acknowledged { sequence: fields.u64()?, segment: fields.u64()?, length: fields.u64()? })
}
