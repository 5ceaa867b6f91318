//! The baseline: redb and nothing around it.

use std::{
    io,
    ops::Range,
    path::Path,
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
};

use bytes::Bytes;
use graft_storage::medium::{Disk, Medium as _, MediumFile, Open};
use redb::{Builder, Database, StorageBackend, TableDefinition};

const LOG: TableDefinition<'_, &[u8; 20], &[u8]> = TableDefinition::new("log");

/// What the store puts beside each chunk and each entry of it.
const HEADER: usize = 32;
/// The largest value that the store makes of more than one entry.
const CHUNK: usize = 64 * 1024 - 64;

/// A loop around redb: a transaction a batch, one sync each, with values of the sizes that graft's
/// store makes of the same entries, and without everything that makes a store of it: checksums,
/// terms, hard state, what a restart needs to know, segments.
#[derive(Debug)]
pub struct BareRedb {
    database: Database,
    next: u64,
    buffer: Vec<u8>,
}

impl BareRedb {
    /// A new file in `directory` of which `bytes` bytes are written ahead, as those of graft's segments
    /// are, and by the same means.
    ///
    /// # Errors
    ///
    /// Those of the file and of redb.
    pub fn filled(directory: &Path, bytes: usize) -> Result<Self, redb::Error> {
        let file = Disk::create(directory)?.open("bare", Open::CreateNew)?;
        file.write_zeros(0, bytes)?;
        file.sync_data()?;
        let backend = Filled { file, length: AtomicU64::new(0) };
        Self::new(Builder::new().set_cache_size(16 << 20).create_with_backend(backend)?)
    }

    /// A new file at `path` that grows as redb wants it to.
    ///
    /// # Errors
    ///
    /// Those of the file and of redb.
    pub fn growing(path: &Path) -> Result<Self, redb::Error> {
        Self::new(Builder::new().set_cache_size(16 << 20).create(path)?)
    }

    fn new(database: Database) -> Result<Self, redb::Error> {
        let transaction = database.begin_write()?;
        transaction.open_table(LOG)?;
        transaction.commit()?;
        Ok(Self { database, next: 1, buffer: Vec::new() })
    }

    /// Makes `payloads` durable, behind what is there.
    ///
    /// # Errors
    ///
    /// Those of redb.
    pub fn append<P: AsRef<[u8]>>(&mut self, payloads: &[P]) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut log = transaction.open_table(LOG)?;
            let mut rest = payloads;
            while !rest.is_empty() {
                let (chunk, behind) = rest.split_at(chunk_of(rest));
                self.buffer.clear();
                self.buffer.resize(HEADER, 0);
                for payload in chunk {
                    self.buffer.extend_from_slice(&[0; HEADER]);
                    self.buffer.extend_from_slice(payload.as_ref());
                    self.buffer.resize(self.buffer.len().next_multiple_of(16), 0);
                }
                for (number, part) in (0..).zip(parts(self.buffer.len())) {
                    log.insert(&key(self.next, number), &self.buffer[part])?;
                }
                self.next += chunk.len() as u64;
                rest = behind;
            }
        }
        Ok(transaction.commit()?)
    }
}

fn key(index: u64, part: u32) -> [u8; 20] {
    let mut key = [0; 20];
    key[8..16].copy_from_slice(&index.to_be_bytes());
    key[16..].copy_from_slice(&part.to_be_bytes());
    key
}

/// How many of `payloads` fit into one chunk.
fn chunk_of<P: AsRef<[u8]>>(payloads: &[P]) -> usize {
    let mut bytes = HEADER;
    let fits = payloads.iter().take_while(|payload| {
        bytes += HEADER + payload.as_ref().len().next_multiple_of(16);
        bytes <= CHUNK
    });
    fits.count().max(1)
}

/// Where a chunk of `length` bytes is cut, so that pages of powers of two are three quarters full.
fn parts(length: usize) -> impl Iterator<Item = Range<usize>> {
    let mut begin = 0;
    std::iter::from_fn(move || {
        let rest = length - begin;
        let page = (rest + 64).next_power_of_two().max(4096);
        let taken = match rest {
            0 => return None,
            _ if rest > CHUNK => CHUNK,
            _ if page == 4096 || rest + 64 >= page / 4 * 3 => rest,
            _ => page / 2 - 64,
        };
        begin += taken;
        Some(begin - taken..begin)
    })
}

/// A file that is longer than redb knows.
#[derive(Debug)]
struct Filled {
    file: Box<dyn MediumFile>,
    length: AtomicU64,
}

impl StorageBackend for Filled {
    fn len(&self) -> io::Result<u64> {
        Ok(self.length.load(Ordering::Relaxed))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.length.store(length, Ordering::Relaxed);
        if length > self.file.len()? { self.file.set_len(length) } else { Ok(()) }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, data)
    }
}

/// The same loop on a thread of its own, as every store for asynchronous callers must have it.
#[derive(Debug)]
pub struct BareThread {
    orders: Option<mpsc::SyncSender<Vec<Bytes>>>,
    done: mpsc::Receiver<Result<(), redb::Error>>,
    thread: Option<JoinHandle<()>>,
}

impl BareThread {
    /// Gives `bare` a thread.
    ///
    /// # Errors
    ///
    /// Where the system has no thread left.
    pub fn new(mut bare: BareRedb) -> io::Result<Self> {
        let (orders, incoming) = mpsc::sync_channel::<Vec<Bytes>>(1);
        let (answers, done) = mpsc::sync_channel(1);
        let thread = thread::Builder::new().name("bare-redb".into()).spawn(move || {
            while let Ok(payloads) = incoming.recv() {
                if answers.send(bare.append(&payloads)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { orders: Some(orders), done, thread: Some(thread) })
    }

    /// Has `payloads` made durable, and waits.
    ///
    /// # Errors
    ///
    /// Those of redb, and where its thread panicked.
    pub fn append(&mut self, payloads: Vec<Bytes>) -> Result<(), redb::Error> {
        let gone = || redb::Error::Io(io::Error::other("the thread of the bare loop is gone"));
        let orders = self.orders.as_ref().ok_or_else(gone)?;
        orders.send(payloads).map_err(|_| gone())?;
        self.done.recv().map_err(|_| gone())?
    }
}

impl Drop for BareThread {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // A panic was told to whoever waited.
            let _ = thread.join();
        }
    }
}
