//! The redb store on a real disk: what every store promises, and what only a store on a disk can.

#![cfg(feature = "redb")]
// Helpers of tests panic like tests.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use graft_core::LogStore;
use graft_storage::{RedbStore, conformance, redb::Options};
use std::sync::Mutex;

/// A directory that is removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("graft-redb-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct OnDisk {
    directory: Directory,
    options: Options,
    store: Mutex<Option<RedbStore>>,
}

impl OnDisk {
    fn new(options: Options) -> Self {
        Self { directory: Directory::new(), options, store: Mutex::new(None) }
    }
}

#[async_trait]
impl conformance::Fixture for OnDisk {
    async fn open(&self) -> Arc<dyn LogStore> {
        let mut store = self.store.lock().unwrap();
        let opened = store
            .get_or_insert_with(|| RedbStore::open_with(&self.directory.0, &self.options).unwrap());
        Arc::new(opened.clone())
    }

    async fn reopen(&self) -> Arc<dyn LogStore> {
        *self.store.lock().unwrap() = None;
        self.open().await
    }
}

fn small() -> Options {
    Options::default().segment_bytes(64 * 1024).preallocated_bytes(0).cache_bytes(1 << 20)
}

#[test]
fn the_redb_store_keeps_every_promise() {
    for options in [Options::default(), small()] {
        let suite = conformance::run(|| OnDisk::new(options.clone()));
        let failures = conformance::block_on(Duration::from_secs(300), suite).expect("it hangs");
        assert!(failures.is_empty(), "{options:?}: {failures:#?}");
    }
}
