//! The redb store: what every store promises, and what only a store on a disk can.

#![cfg(feature = "redb")]
// Helpers of tests panic like tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod checks;
mod commits;
#[path = "../common/mod.rs"]
mod common;
mod damage;
mod fixture;
mod foreign;
mod opening;
mod outages;
mod places;
#[cfg(unix)]
mod rights;
mod space;
mod support;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use graft_core::LogStore;
use graft_storage::{
    RedbStore, conformance,
    medium::{Disk, FaultyMedium, Medium},
    redb::Options,
};
use support::{Directory, LIMIT, small};

/// A medium for the suite, with the store that is open on it.
struct Fixture {
    medium: Arc<dyn Medium>,
    options: Options,
    store: Mutex<Option<RedbStore>>,
    _directory: Option<Directory>,
}

#[async_trait]
impl conformance::Fixture for Fixture {
    async fn open(&self) -> Arc<dyn LogStore> {
        let mut store = self.store.lock().unwrap();
        let open = || RedbStore::open_on(Arc::clone(&self.medium), &self.options).unwrap();
        Arc::new(store.get_or_insert_with(open).clone())
    }

    async fn reopen(&self) -> Arc<dyn LogStore> {
        *self.store.lock().unwrap() = None;
        self.open().await
    }
}

fn keeps_every_promise(make: impl Fn() -> Fixture) {
    let suite = conformance::run(make);
    let failures = conformance::block_on(LIMIT, suite).expect("a store hangs");
    assert!(failures.is_empty(), "{failures:#?}");
}

fn on_disk(options: Options) -> Fixture {
    let directory = Directory::new("redb");
    let medium = Arc::new(Disk::create(directory.path()).unwrap());
    Fixture { medium, options, store: Mutex::default(), _directory: Some(directory) }
}

fn in_memory(options: Options) -> Fixture {
    let medium = Arc::new(FaultyMedium::new(1));
    Fixture { medium, options, store: Mutex::default(), _directory: None }
}

#[test]
fn on_a_real_disk_it_keeps_every_promise() {
    keeps_every_promise(|| on_disk(Options::default()));
}

#[test]
fn with_small_segments_it_keeps_every_promise() {
    keeps_every_promise(|| on_disk(small()));
}

#[test]
fn on_a_medium_in_memory_it_keeps_every_promise() {
    keeps_every_promise(|| in_memory(small()));
}
