//! One cluster whose servers keep their logs in three ways, chosen at run time: in memory, on the disk, and in a
//! store that is written here.
//!
//! `cargo run --release --example mixed`

#![allow(clippy::print_stdout)]

use std::{
    error::Error,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use graft::{Bytes, LogStore, StoreError};
use graft_core::{Identity, Index, Loaded, Recovered, SnapshotChunk, Write};
use graft_storage::MemoryStore;

/// A store that counts what it is given. It keeps the log in another one: whoever writes one from scratch
/// finds an example in `embed_node`, and a suite that checks it in `graft_storage::conformance`.
struct Counting {
    inner: MemoryStore,
    entries: Arc<AtomicU64>,
}

#[async_trait::async_trait]
impl LogStore for Counting {
    async fn create(&self, identity: &Identity) -> Result<(), StoreError> {
        self.inner.create(identity).await
    }

    async fn recover(&self) -> Result<Option<Recovered>, StoreError> {
        self.inner.recover().await
    }

    /// Forwarded, so that somebody else's store is refused before it is changed.
    async fn identity(&self) -> Result<Option<Identity>, StoreError> {
        self.inner.identity().await
    }

    fn place(&self) -> Option<String> {
        self.inner.place()
    }

    async fn write(&self, writes: Vec<Write>) -> Result<Vec<Write>, StoreError> {
        let count = |write: &Write| match write {
            Write::Append(entries) => entries.len() as u64,
            _ => 0,
        };
        let entries: u64 = writes.iter().map(count).sum();
        let buffer = self.inner.write(writes).await?;
        self.entries.fetch_add(entries, Ordering::Relaxed);
        Ok(buffer)
    }

    async fn read(&self, range: Range<Index>, max_bytes: usize) -> Result<Loaded, StoreError> {
        self.inner.read(range, max_bytes).await
    }

    async fn stage(&self, chunk: SnapshotChunk) -> Result<(), StoreError> {
        self.inner.stage(chunk).await
    }

    async fn read_snapshot(&self, id: u64, offset: u64, max: usize) -> Result<Bytes, StoreError> {
        self.inner.read_snapshot(id, offset, max).await
    }
}

#[derive(graft::Archive, graft::Serialize, graft::Deserialize, Debug)]
#[rkyv(crate = graft::rkyv)]
struct Add(u64);

impl graft::Entry for Add {
    type Response = u64;
}

#[derive(Default)]
struct Counter(u64);

impl graft::Machine for Counter {
    type Entry = Add;

    fn handle_entry(&mut self, Add(amount): Add) -> u64 {
        self.0 += amount;
        self.0
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::temp_dir().join(format!("graft-mixed-{}", std::process::id()));
    let entries = Arc::new(AtomicU64::new(0));
    let (path, counted) = (directory.clone(), Arc::clone(&entries));
    let counter = graft::cluster(["memory", "disk", "own"])
        .stores(move |name| match name.as_str() {
            "memory" => Ok(graft::store::memory()),
            "disk" => Ok(graft::store::redb(&path)?),
            _ => {
                let entries = Arc::clone(&counted);
                Ok(Box::new(Counting { inner: MemoryStore::new(), entries }))
            }
        })
        .start(Counter::default)
        .await?;

    // Each of them leads for a while: whatever the others store their logs in, they agree.
    let mut total = 0;
    for leader in ["memory", "disk", "own"] {
        if counter.leader().await? != leader {
            counter.transfer_leadership(leader).await?;
        }
        for amount in 1..=100 {
            total += amount;
            assert_eq!(graft::request("disk", Add(amount)).await?, total);
        }
        println!("with `{leader}` in the lead the count is {total}");
    }
    counter.shutdown().await;
    println!("the store written here took {} entries", entries.load(Ordering::Relaxed));
    std::fs::remove_dir_all(&directory)?;
    Ok(())
}
