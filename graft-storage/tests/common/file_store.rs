//! A simple store over a medium, for trying the suite on: a journal of batches, a witness of how many of
//! them were acknowledged, and a switch for each of the classic mistakes.

mod batch;

use std::{
    io,
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use graft_core::{
    Identity, Index, Loaded, LogStore, Recovered, SnapshotChunk, SnapshotMeta, StoreError, Write,
    stable_hash,
};
use graft_storage::{
    MemoryStore,
    conformance::{block_on, faults::Opened},
    medium::{LockGuard, Medium, MediumFile, Open},
};

use self::batch::Batch;

/// A mistake to make.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    AcknowledgesBeforeTheSync,
    TrustsTheTail,
    MakesARecordOfEachOrder,
    RewritesInPlace,
    RenamesWhatIsNotSynced,
    ForgetsToSyncTheNames,
    RecoversWhatIsNotSynced,
    TriesAFailedSyncAgain,
    ForgetsThatItIsPoisoned,
    TakesAShortWriteForAWhole,
    ReadsDamageAsTheEnd,
    ChecksNothing,
}

/// Rewritten once the journal is longer than this, in bytes.
const REWRITE: u64 = 30_000;
const HEADER: usize = 28;

pub struct FileStore {
    inner: Mutex<Inner>,
}

/// Opens the store as the suite wants it.
pub fn open(medium: Arc<dyn Medium>, bug: Option<Bug>) -> Opened {
    Ok(Arc::new(FileStore { inner: Mutex::new(Inner::open(medium, bug)?) }))
}

struct Inner {
    medium: Arc<dyn Medium>,
    bug: Option<Bug>,
    journal: Box<dyn MediumFile>,
    witness: Box<dyn MediumFile>,
    generation: u64,
    /// The length of the journal, and how many records are in it.
    end: u64,
    records: u64,
    memory: MemoryStore,
    staged: Vec<SnapshotChunk>,
    _lock: LockGuard,
}

fn io_error(action: &'static str) -> impl Fn(io::Error) -> StoreError {
    move |source| StoreError::Io { action, source }
}

fn corrupt(location: impl Into<String>, reason: &str) -> StoreError {
    StoreError::Corrupt { location: location.into(), reason: reason.to_owned() }
}

fn now<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    block_on(Duration::ZERO, work).expect("a memory store never waits")
}

impl Inner {
    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn open(medium: Arc<dyn Medium>, bug: Option<Bug>) -> Result<Self, StoreError> {
        if let Some(reason) = medium.poisoned() {
            return Err(StoreError::Poisoned { reason });
        }
        let lock = medium.lock().map_err(io_error("lock"))?;
        let names = medium.list().map_err(io_error("list"))?;
        for unfinished in names.iter().filter(|name| name.ends_with(".tmp")) {
            medium.remove(unfinished).map_err(io_error("remove"))?;
        }
        let has = |name: &str| names.iter().any(|known| known == name);
        if !has("journal") {
            if !has("witness") {
                make(&*medium, "witness", &slots(0, 0), bug)?;
            }
            make(&*medium, "journal", &header(0, 0), bug)?;
        }
        let open = |name| medium.open(name, Open::Existing).map_err(io_error("open"));
        let (journal, witness) = (open("journal")?, open("witness")?);
        let mut inner = Self {
            medium,
            bug,
            journal,
            witness,
            generation: 0,
            end: HEADER as u64,
            records: 0,
            memory: MemoryStore::new(),
            staged: Vec::new(),
            _lock: lock,
        };
        inner.replay()?;
        Ok(inner)
    }

    /// Reads the journal, and cuts a tail that was never acknowledged.
    fn replay(&mut self) -> Result<(), StoreError> {
        let bytes = read_all(&*self.journal)?;
        let slots = read_all(&*self.witness)?;
        let seen =
            slots.chunks(24).filter_map(sealed).map(|slot| (u64_at(slot, 0), u64_at(slot, 8)));
        let witness = seen.max().ok_or_else(|| corrupt("witness", "neither slot is readable"));
        let header = bytes.get(..HEADER).and_then(|header| sealed(&header[4..]));
        let header = header.filter(|_| bytes.starts_with(b"GJRN"));
        let header =
            header.ok_or_else(|| corrupt("journal", "its head is not what was written"))?;
        self.generation = u64_at(header, 0);
        let witness = if self.has(Bug::ReadsDamageAsTheEnd) { (0, 0) } else { witness? };
        let mut promised = u64_at(header, 8);
        if witness.0 == self.generation {
            promised = promised.max(witness.1);
        }
        let mut at = HEADER;
        while at < bytes.len() {
            let place = format!("journal, record {}", self.records);
            let Some((record, next)) = self.record(&bytes, at) else {
                if self.records < promised && !self.has(Bug::ReadsDamageAsTheEnd) {
                    return Err(corrupt(place, "it is not what was written"));
                }
                break;
            };
            let Some(batch) = Batch::decode(record) else {
                if self.has(Bug::TrustsTheTail) || self.has(Bug::ReadsDamageAsTheEnd) {
                    break;
                }
                return Err(corrupt(place, "it does not decode"));
            };
            self.apply(&batch).map_err(|error| corrupt(place, &error.to_string()))?;
            self.records += 1;
            at = next;
        }
        if self.records < promised && !self.has(Bug::ReadsDamageAsTheEnd) {
            return Err(corrupt("journal", "its end is missing"));
        }
        self.end = at as u64;
        if at < bytes.len() {
            self.journal.set_len(self.end).map_err(|error| self.poisoned("cut", error))?;
        }
        if !self.has(Bug::RecoversWhatIsNotSynced) {
            self.sync()?;
        }
        self.sync_names()?;
        self.note_witness()
    }

    /// The record at `at`, and where the next begins.
    fn record<'a>(&self, bytes: &'a [u8], at: usize) -> Option<(&'a [u8], usize)> {
        let head = bytes.get(at..at + 12)?;
        let length = u32::from_le_bytes(head[..4].try_into().ok()?) as usize;
        let body = bytes.get(at + 12..(at + 12).checked_add(length)?)?;
        let is_unchecked = self.has(Bug::TrustsTheTail) || self.has(Bug::ChecksNothing);
        let is_sound = u64_at(head, 4) == check(self.records, body) || is_unchecked;
        is_sound.then_some((body, at + 12 + length))
    }

    fn poisoned(&self, action: &'static str, source: io::Error) -> StoreError {
        if !self.has(Bug::ForgetsThatItIsPoisoned) {
            self.medium.poison(&format!("{action}: {source}"));
        }
        StoreError::Io { action, source }
    }

    fn check_sound(&self) -> Result<(), StoreError> {
        self.medium.poisoned().map_or(Ok(()), |reason| Err(StoreError::Poisoned { reason }))
    }

    fn sync(&self) -> Result<(), StoreError> {
        let mut outcome = self.journal.sync_data();
        if outcome.is_err() && self.has(Bug::TriesAFailedSyncAgain) {
            outcome = self.journal.sync_data();
        }
        outcome.map_err(|error| self.poisoned("sync", error))
    }

    fn sync_names(&self) -> Result<(), StoreError> {
        self.medium.sync_names().map_err(|error| self.poisoned("sync the names", error))
    }

    /// Not synced: after a power cut it says less than is true, which is no harm.
    fn note_witness(&self) -> Result<(), StoreError> {
        let slots = slots(self.generation, self.records);
        for (slot, place) in slots.chunks(24).zip([0, 24]) {
            let written = self.witness.write_at(place, slot);
            written.map_err(|error| self.poisoned("write", error))?;
        }
        Ok(())
    }

    fn append(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let parts = if self.has(Bug::MakesARecordOfEachOrder) { batch.parts() } else { Vec::new() };
        let parts = if parts.is_empty() { vec![batch.clone()] } else { parts };
        for part in parts {
            let record = record(self.records, &part.encode());
            let written = self.journal.write_at(self.end, &record);
            match written {
                Err(_) if self.has(Bug::TakesAShortWriteForAWhole) => {}
                written => written.map_err(|error| self.poisoned("write", error))?,
            }
            self.end += record.len() as u64;
            self.records += 1;
        }
        if !self.has(Bug::AcknowledgesBeforeTheSync) {
            self.sync()?;
        }
        self.note_witness()?;
        self.apply(batch)?;
        if self.end > REWRITE { self.rewrite() } else { Ok(()) }
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), StoreError> {
        if let Some(identity) = &batch.identity {
            return now(self.memory.create(identity));
        }
        for chunk in &batch.chunks {
            now(self.memory.stage(chunk.clone()))?;
        }
        now(self.memory.write(batch.writes.clone())).map(drop)
    }

    /// Replaces the journal by a short one that leads to the same state.
    fn rewrite(&mut self) -> Result<(), StoreError> {
        let batches = self.summary()?;
        let mut bytes = header(self.generation + 1, batches.len() as u64);
        for (number, batch) in batches.iter().enumerate() {
            bytes.extend(record(number as u64, &batch.encode()));
        }
        if self.has(Bug::RewritesInPlace) {
            let file = &self.journal;
            let done = file.set_len(0).and_then(|()| file.write_at(0, &bytes));
            done.and_then(|()| file.sync_data()).map_err(|error| self.poisoned("write", error))?;
        } else {
            let made = make(&*self.medium, "journal", &bytes, self.bug);
            self.journal = made.inspect_err(|error| self.medium.poison(&error.to_string()))?;
        }
        self.generation += 1;
        self.records = batches.len() as u64;
        self.end = bytes.len() as u64;
        self.note_witness()
    }

    fn summary(&self) -> Result<Vec<Batch>, StoreError> {
        let memory = &self.memory;
        let Some(found) = memory.peek()? else { return Ok(Vec::new()) };
        let mut batches =
            vec![Batch { identity: Some(found.identity.clone()), ..Batch::default() }];
        let mut batch = Batch::default();
        let mut begin = Index(1);
        if let Some(meta) = &found.snapshot {
            let bytes = now(memory.read_snapshot(meta.id, 0, usize::MAX))?;
            batch.stage(meta, bytes);
            while let Some(size) = batch.missing(meta) {
                let bytes = now(memory.read_snapshot(meta.id, size, usize::MAX))?;
                batch.stage(meta, bytes);
            }
            batch.writes.push(Write::InstallSnapshot(meta.clone()));
            begin = meta.last.index.next();
        }
        let end = found.last.index.next();
        if begin < end {
            let loaded = now(memory.read(begin..end, usize::MAX))?;
            let Loaded::Entries(entries) = loaded else { unreachable!("{loaded:?}") };
            batch.writes.push(Write::Append(entries));
        }
        batch.writes.push(Write::HardState(found.hard_state));
        batches.push(batch);
        Ok(batches)
    }
}

impl Drop for Inner {
    /// A store that is closed is known to the last record.
    fn drop(&mut self) {
        if self.witness.sync_data().is_err() {
            self.medium.poison("the witness was not synced");
        }
    }
}

/// Makes a file of this content, durable in every respect.
fn make(
    medium: &dyn Medium,
    name: &str,
    bytes: &[u8],
    bug: Option<Bug>,
) -> Result<Box<dyn MediumFile>, StoreError> {
    let make = || {
        let temporary = format!("{name}.tmp");
        let file = medium.open(&temporary, Open::CreateNew)?;
        file.write_at(0, bytes)?;
        let poison = |error: &io::Error| medium.poison(&error.to_string());
        if bug != Some(Bug::RenamesWhatIsNotSynced) {
            file.sync_data().inspect_err(poison)?;
        }
        medium.rename(&temporary, name)?;
        if bug != Some(Bug::ForgetsToSyncTheNames) {
            medium.sync_names().inspect_err(poison)?;
        }
        Ok(file)
    };
    make().map_err(io_error("make a file"))
}

fn read_all(file: &dyn MediumFile) -> Result<Vec<u8>, StoreError> {
    let length = file.len().map_err(io_error("read"))?;
    let mut bytes = vec![0; usize::try_from(length).expect("a small file")];
    file.read_at(0, &mut bytes).map_err(io_error("read"))?;
    Ok(bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn check(number: u64, body: &[u8]) -> u64 {
    stable_hash(body) ^ stable_hash(&number.to_le_bytes())
}

fn record(number: u64, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("a small batch");
    [&length.to_le_bytes()[..], &check(number, body).to_le_bytes(), body].concat()
}

/// Two numbers and their checksum.
fn seal(first: u64, second: u64) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&first.to_le_bytes());
    bytes[8..16].copy_from_slice(&second.to_le_bytes());
    let sum = stable_hash(&bytes[..16]);
    bytes[16..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

fn sealed(bytes: &[u8]) -> Option<&[u8]> {
    let is_whole = bytes.len() == 24 && stable_hash(&bytes[..16]) == u64_at(bytes, 16);
    is_whole.then(|| &bytes[..16])
}

fn slots(generation: u64, records: u64) -> Vec<u8> {
    [seal(generation, records), seal(generation, records)].concat()
}

fn header(generation: u64, records: u64) -> Vec<u8> {
    [&b"GJRN"[..], &seal(generation, records)].concat()
}

#[async_trait]
impl LogStore for FileStore {
    async fn create(&self, identity: &Identity) -> Result<(), StoreError> {
        let mut inner = self.inner.lock().unwrap();
        inner.check_sound()?;
        if let Some(found) = inner.memory.peek()? {
            return Err(StoreError::AlreadyBorn { name: found.identity.name });
        }
        inner.append(&Batch { identity: Some(identity.clone()), ..Batch::default() })
    }

    async fn recover(&self) -> Result<Option<Recovered>, StoreError> {
        let mut inner = self.inner.lock().unwrap();
        inner.check_sound()?;
        inner.staged.clear();
        now(inner.memory.recover())
    }

    async fn write(&self, mut writes: Vec<Write>) -> Result<Vec<Write>, StoreError> {
        let mut inner = self.inner.lock().unwrap();
        inner.check_sound()?;
        let installs = |meta: &SnapshotMeta| {
            writes
                .iter()
                .any(|w| matches!(w, Write::InstallSnapshot(installed) if installed == meta))
        };
        let staged = std::mem::take(&mut inner.staged);
        let (chunks, rest) = staged.into_iter().partition(|chunk| installs(&chunk.meta));
        inner.staged = rest;
        let batch = Batch { identity: None, chunks, writes: writes.clone() };
        inner.append(&batch)?;
        writes.clear();
        Ok(writes)
    }

    async fn read(&self, range: Range<Index>, max_bytes: usize) -> Result<Loaded, StoreError> {
        now(self.inner.lock().unwrap().memory.read(range, max_bytes))
    }

    async fn stage(&self, chunk: SnapshotChunk) -> Result<(), StoreError> {
        let mut inner = self.inner.lock().unwrap();
        inner.check_sound()?;
        if chunk.offset == 0 {
            inner.staged.retain(|staged| staged.meta != chunk.meta);
        }
        inner.staged.push(chunk);
        Ok(())
    }

    async fn read_snapshot(
        &self,
        id: u64,
        offset: u64,
        max_bytes: usize,
    ) -> Result<Bytes, StoreError> {
        now(self.inner.lock().unwrap().memory.read_snapshot(id, offset, max_bytes))
    }
}
