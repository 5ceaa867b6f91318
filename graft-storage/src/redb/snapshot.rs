//! Snapshots: the installed one, and those that are still coming in, each a file of its own.
//!
//! A snapshot is written once, from its beginning to its end, and read the same way, so a tree
//! would do nothing for it: the file is the snapshot's bytes in blocks of 64 KiB, each with a
//! checksum behind it that also covers which snapshot and which block it is: all that describes the
//! snapshot, its cluster and the digest of its bytes included, so that a file of another store, or
//! with other bytes, is not taken for it. A staged file is
//! synced before its last chunk is acknowledged, so that installing it is a small write like any
//! other.

use std::{io, sync::Arc};

use bytes::Bytes;
use graft_core::{SnapshotChunk, SnapshotMeta, StoreError};

use super::{
    codec::Out,
    facts::{Installed, VERSION, VERSION_1},
};
use crate::{
    medium::{Medium, MediumFile, Open},
    plan,
};

/// A block with its checksum.
const BLOCK: u64 = 64 * 1024;
const CHECKSUM: u64 = 4;
/// The bytes of the snapshot in a block.
const DATA: u64 = BLOCK - CHECKSUM;

/// How much of a staged file may wait for a sync, so that the last one does not take long.
const UNSYNCED: u64 = 16 << 20;

/// What a read of a snapshot returns at most.
const MAX_READ: usize = 4 << 20;

/// The number of an empty snapshot's file: it needs none.
const NO_FILE: u64 = 0;

pub(super) fn file_name(number: u64) -> String {
    format!("snapshot-{number:020}")
}

/// The number in a name that [`file_name`] made.
pub(super) fn number_of(name: &str) -> Option<u64> {
    let number = name.strip_prefix("snapshot-")?.parse().ok()?;
    (file_name(number) == name).then_some(number)
}

/// A snapshot that is complete.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) installed: Installed,
    file: Option<Box<dyn MediumFile>>,
}

impl Snapshot {
    /// The installed snapshot on `medium`. Its length is checked, its blocks when they are read.
    pub(super) fn open(medium: &dyn Medium, installed: &Installed) -> Result<Self, StoreError> {
        let installed = installed.clone();
        if installed.file == NO_FILE {
            return Ok(Self { installed, file: None });
        }
        let name = file_name(installed.file);
        let corrupt = |reason| StoreError::Corrupt { location: name.clone(), reason };
        let file = medium.open(&name, Open::Read).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => corrupt("the file is missing".into()),
            _ => StoreError::Io { action: "open a snapshot", source },
        })?;
        let length =
            file.len().map_err(|source| StoreError::Io { action: "open a snapshot", source })?;
        let expected = file_length(installed.meta.size);
        if length != expected {
            return Err(corrupt(format!("it has {length} bytes of {expected}")));
        }
        Ok(Self { installed, file: Some(file) })
    }

    /// The name of its file, if it has one.
    pub(super) fn name(&self) -> Option<String> {
        self.file.as_ref().map(|_| file_name(self.installed.file))
    }

    /// At most `max_bytes` from `offset`; empty at the end.
    pub(super) fn read(&self, offset: u64, max_bytes: usize) -> Result<Bytes, StoreError> {
        let size = self.installed.meta.size;
        let Some(file) = self.file.as_ref().filter(|_| offset < size) else {
            return Ok(Bytes::new());
        };
        let wanted = (size - offset).min(max_bytes.min(MAX_READ) as u64);
        let mut out = Vec::new();
        let mut block = vec![0; to_usize(BLOCK)];
        let mut at = offset;
        while at < offset + wanted {
            let data = self.read_block(&**file, at / DATA, &mut block)?;
            let begin = to_usize(at % DATA);
            let taken = (data.len() - begin).min(to_usize(offset + wanted - at));
            out.extend_from_slice(&data[begin..begin + taken]);
            at += taken as u64;
        }
        Ok(out.into())
    }

    /// Checks every block. Returns how many bytes were read.
    pub(super) fn verify_block(
        &self,
        number: u64,
        buffer: &mut Vec<u8>,
    ) -> Result<u64, StoreError> {
        buffer.resize(to_usize(BLOCK), 0);
        match &self.file {
            Some(file) => Ok(self.read_block(&**file, number, buffer)?.len() as u64),
            None => Ok(0),
        }
    }

    /// How many blocks it has.
    pub(super) fn blocks(&self) -> u64 {
        self.installed.meta.size.div_ceil(DATA)
    }

    fn read_block<'a>(
        &self,
        file: &dyn MediumFile,
        number: u64,
        buffer: &'a mut [u8],
    ) -> Result<&'a [u8], StoreError> {
        let length = to_usize(DATA.min(self.installed.meta.size - number * DATA));
        let whole = &mut buffer[..length + to_usize(CHECKSUM)];
        let action = "read a snapshot";
        file.read_at(number * BLOCK, whole).map_err(|source| StoreError::Io { action, source })?;
        let (data, stored) = whole.split_at(length);
        let found = block_checksum(&self.installed, number, data);
        if stored == found.to_le_bytes() {
            return Ok(data);
        }
        Err(StoreError::Corrupt {
            location: format!("{}, block {number}", file_name(self.installed.file)),
            reason: format!("its checksum is {found:08x}, another was written"),
        })
    }
}

fn file_length(size: u64) -> u64 {
    size + size.div_ceil(DATA) * CHECKSUM
}

fn block_checksum(installed: &Installed, number: u64, data: &[u8]) -> u32 {
    let Installed { meta, file, version } = installed;
    let mut place = Out::default();
    place.u64(*file);
    if u32::from(*version) == VERSION_1 {
        place.u64(meta.id).log_id(meta.last).u64(meta.size);
    } else {
        place.snapshot_meta(meta);
    }
    place.u64(number);
    crc32c::crc32c_append(crc32c::crc32c(&place.0), data)
}

fn to_u8(version: u32) -> u8 {
    u8::try_from(version).unwrap_or(u8::MAX)
}

fn to_usize(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// A snapshot that is coming in.
#[derive(Debug)]
struct Staged {
    installed: Installed,
    file: Box<dyn MediumFile>,
    /// How many bytes came.
    size: u64,
    /// Those of them that do not fill a block yet.
    tail: Vec<u8>,
    unsynced: u64,
}

impl Staged {
    /// Takes `bytes`. An error says what was tried.
    fn add(&mut self, bytes: &[u8]) -> Result<(), (&'static str, io::Error)> {
        let failed = |action| move |error| (action, error);
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = rest.len().min(to_usize(DATA) - self.tail.len());
            self.tail.extend_from_slice(&rest[..taken]);
            rest = &rest[taken..];
            self.size += taken as u64;
            if self.tail.len() as u64 == DATA {
                self.write_tail().map_err(failed("write a snapshot"))?;
            }
        }
        let is_complete = self.size == self.installed.meta.size;
        if is_complete && !self.tail.is_empty() {
            self.write_tail().map_err(failed("write a snapshot"))?;
        }
        if is_complete || self.unsynced >= UNSYNCED {
            self.file.sync_data().map_err(failed("sync a snapshot"))?;
            self.unsynced = 0;
        }
        Ok(())
    }

    fn write_tail(&mut self) -> io::Result<()> {
        let number = (self.size - 1) / DATA;
        let checksum = block_checksum(&self.installed, number, &self.tail);
        self.tail.extend_from_slice(&checksum.to_le_bytes());
        self.file.write_at(number * BLOCK, &self.tail)?;
        self.unsynced += self.tail.len() as u64;
        self.tail.clear();
        Ok(())
    }
}

/// The snapshots that are still coming in, least recently touched first.
#[derive(Debug)]
pub(super) struct Snapshots {
    staged: Vec<Staged>,
    next_file: u64,
    /// The version of the format that their files are in.
    version: u8,
}

impl Snapshots {
    /// None yet; their files get numbers above `highest_file`.
    pub(super) fn new(highest_file: u64) -> Self {
        Self { staged: Vec::new(), next_file: highest_file + 1, version: to_u8(VERSION) }
    }

    /// The same for a store that goes on in a file of this version.
    pub(super) fn in_version(mut self, version: u32) -> Self {
        self.version = to_u8(version);
        self
    }

    /// Keeps `chunk`. One that begins at 0 begins its snapshot anew.
    ///
    /// After an error of the medium the store is poisoned.
    pub(super) fn stage(
        &mut self,
        medium: &dyn Medium,
        chunk: SnapshotChunk,
    ) -> Result<(), StoreError> {
        let at = self.staged.iter().position(|staged| staged.installed.meta == chunk.meta);
        plan::check_chunk(&chunk, at.map_or(0, |at| self.staged[at].size))?;
        let SnapshotChunk { meta, offset, bytes } = chunk;
        let io = |(action, source): (&'static str, io::Error)| {
            medium.poison(&format!("{action}: {source}"));
            StoreError::Io { action, source }
        };
        let begun = at.map(|at| self.staged.remove(at));
        let mut staged = match begun {
            Some(staged) if offset != 0 => staged,
            replaced => {
                self.discard(medium, replaced);
                self.begin(medium, meta).map_err(|error| io(("begin a snapshot", error)))?
            }
        };
        staged.add(&bytes).map_err(io)?;
        if self.staged.len() == plan::MAX_STAGED {
            let oldest = self.staged.remove(0);
            self.discard(medium, Some(oldest));
        }
        self.staged.push(staged);
        Ok(())
    }

    /// Whether all bytes of this snapshot are staged.
    pub(super) fn is_complete(&self, meta: &SnapshotMeta) -> bool {
        let staged = self.staged.iter().find(|staged| staged.installed.meta == *meta);
        staged.map_or(0, |staged| staged.size) == meta.size
    }

    fn begin(&mut self, medium: &dyn Medium, meta: SnapshotMeta) -> io::Result<Staged> {
        let number = self.next_file;
        self.next_file += 1;
        let file = medium.open(&file_name(number), Open::CreateNew)?;
        let installed = Installed { meta, file: number, version: self.version };
        Ok(Staged { installed, file, size: 0, tail: Vec::new(), unsynced: 0 })
    }

    /// What cannot be removed now is removed when the store is opened again.
    fn discard(&self, medium: &dyn Medium, staged: Option<Staged>) {
        if let Some(staged) = staged {
            let _ = medium.remove(&file_name(staged.installed.file));
        }
    }

    pub(super) fn forget_staged(&mut self, medium: &dyn Medium) {
        for staged in std::mem::take(&mut self.staged) {
            self.discard(medium, Some(staged));
        }
    }

    /// Takes a complete snapshot out of those that are coming in. What was staged of older ones
    /// goes.
    pub(super) fn install(&mut self, medium: &dyn Medium, meta: SnapshotMeta) -> Arc<Snapshot> {
        let at = self.staged.iter().position(|staged| staged.installed.meta == meta);
        let last = meta.last.index;
        let (file, installed) = match at.map(|at| self.staged.remove(at)) {
            Some(staged) => (Some(staged.file), staged.installed),
            // An empty snapshot is complete without a chunk.
            None => (None, Installed { meta, file: NO_FILE, version: self.version }),
        };
        let (newer, older) = std::mem::take(&mut self.staged)
            .into_iter()
            .partition(|staged| staged.installed.meta.last.index > last);
        self.staged = newer;
        let older: Vec<Staged> = older;
        for staged in older {
            self.discard(medium, Some(staged));
        }
        Arc::new(Snapshot { installed, file })
    }
}
