//! Stores outlive clusters, know whom they belong to, and refuse to be somebody else's.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is test code")]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use common::{Disks, Note, Notes, SERVERS, add, soon};
use graft::{LogStore, StartError, StoreError, Supervisor};
use graft_core::{Identity, Index, Loaded, Recovered, SnapshotChunk, Write};
use graft_storage::MemoryStore;

async fn start_on(disks: &Disks, servers: &[&str]) -> Result<Supervisor<Notes>, StartError> {
    let cluster = graft::cluster(servers.iter().copied()).stores(disks.opener());
    cluster.start(Notes::default).await
}

/// Stores of a cluster that wrote two notes and was shut down.
async fn used_disks() -> Disks {
    let disks = Disks::default();
    let notes = start_on(&disks, &SERVERS).await.unwrap();
    for note in ["a", "b"] {
        soon(notes.request("server1", add(note))).await.unwrap();
    }
    soon(notes.shutdown()).await;
    disks
}

#[tokio::test]
async fn a_cluster_goes_on_from_its_stores() {
    let disks = used_disks().await;
    for round in 0..3 {
        let notes = start_on(&disks, &SERVERS).await.unwrap();
        let read = soon(notes.request("server2", add("more"))).await.unwrap();
        assert_eq!(read.len(), 3 + round);
        assert_eq!(read[..2], ["a", "b"]);
        soon(notes.shutdown()).await;
    }
}

#[tokio::test]
async fn a_restarted_server_replays_its_log_into_a_new_machine() {
    let notes = graft::start(["replay"], Notes::default).await.unwrap();
    soon(notes.request("replay", add("a"))).await.unwrap();
    notes.stop_server("replay").await.unwrap();
    notes.restart_server("replay").await.unwrap();
    assert_eq!(soon(notes.request("replay", add("b"))).await.unwrap(), ["a", "b"]);
    // A server that runs is stopped first.
    notes.restart_server("replay").await.unwrap();
    assert_eq!(soon(notes.request("replay", Note::Read)).await.unwrap(), ["a", "b"]);
}

#[tokio::test]
async fn restarting_all_servers_keeps_the_log() {
    let notes = graft::start(SERVERS, Notes::default).await.unwrap();
    for note in ["a", "b", "c"] {
        soon(notes.request("server1", add(note))).await.unwrap();
    }
    for server in SERVERS {
        notes.stop_server(server).await.unwrap();
    }
    for server in SERVERS {
        notes.restart_server(server).await.unwrap();
    }
    assert_eq!(soon(notes.request("server3", Note::Read)).await.unwrap(), ["a", "b", "c"]);
}

#[tokio::test]
async fn the_store_of_another_machine_is_refused() {
    #[derive(Debug, graft::Archive, graft::Serialize, graft::Deserialize)]
    #[rkyv(crate = graft::rkyv)]
    struct Other(u64);
    impl graft::Entry for Other {
        type Response = u64;
    }
    struct Machine;
    impl graft::Machine for Machine {
        type Entry = Other;
        fn handle_entry(&mut self, Other(number): Other) -> u64 {
            number
        }
    }
    let disks = used_disks().await;
    let start = graft::cluster(SERVERS).stores(disks.opener()).start(|| Machine).await;
    let error = start.unwrap_err();
    let StartError::WrongMachine { stored, given, .. } = &error else { panic!("{error}") };
    assert_eq!((stored.as_str(), given.as_str()), ("Note", "Other"));
}

#[tokio::test]
async fn the_stores_of_another_cluster_or_server_are_refused() {
    let disks = used_disks().await;
    let error = start_on(&disks, &["server1", "server2"]).await.unwrap_err();
    assert!(matches!(error, StartError::WrongCluster { .. }), "{error}");
    let (one, two) = (disks.of("server1"), disks.of("server2"));
    disks.replace("server1", &two);
    disks.replace("server2", &one);
    let error = start_on(&disks, &SERVERS).await.unwrap_err();
    let StartError::WrongServer { server, stored, .. } = &error else { panic!("{error}") };
    assert_eq!((server.as_str(), stored.as_str()), ("server1", "server2"));
}

#[tokio::test]
async fn a_store_written_in_another_format_is_refused() {
    let disks = used_disks().await;
    let strange = MemoryStore::new();
    let mut identity = disks.of("server2").peek().unwrap().unwrap().identity;
    identity.format ^= 1;
    strange.create(&identity).await.unwrap();
    disks.replace("server2", &strange);
    let error = start_on(&disks, &SERVERS).await.unwrap_err();
    let StartError::WrongFormat { server, stored, given, .. } = &error else { panic!("{error}") };
    assert_eq!((server.as_str(), *stored), ("server2", given ^ 1));
}

#[tokio::test]
async fn a_server_that_lost_its_store_is_not_born_again() {
    let disks = used_disks().await;
    disks.replace("server2", &MemoryStore::new());
    for _ in 0..2 {
        let error = start_on(&disks, &SERVERS).await.unwrap_err();
        let StartError::LostStore { server, .. } = &error else { panic!("{error}") };
        assert_eq!(*server, "server2");
    }
}

#[tokio::test]
async fn a_store_that_does_not_open_is_told_with_its_server() {
    let open = |name: &graft::ServerName| -> Result<Box<dyn LogStore>, StoreError> {
        match name.as_str() {
            "server2" => Err(StoreError::Backend { reason: "no such folder".into() }),
            _ => Ok(Box::new(MemoryStore::new())),
        }
    };
    let error = graft::cluster(SERVERS).stores(open).start(Notes::default).await.unwrap_err();
    let StartError::Store { server, .. } = &error else { panic!("{error}") };
    assert_eq!(*server, "server2");
    // Nothing was left behind: the names are free.
    soon(graft::start(SERVERS, Notes::default).await.unwrap().shutdown()).await;
}

/// A store whose process dies before its first write: the write never happens, and the disk is sound.
struct DiesBeforeWriting(MemoryStore, AtomicBool);

#[async_trait]
impl LogStore for DiesBeforeWriting {
    async fn create(&self, identity: &Identity) -> Result<(), StoreError> {
        self.0.create(identity).await
    }
    async fn recover(&self) -> Result<Option<Recovered>, StoreError> {
        self.0.recover().await
    }
    async fn write(&self, writes: Vec<Write>) -> Result<Vec<Write>, StoreError> {
        if self.1.swap(false, Ordering::Relaxed) {
            return Err(StoreError::Backend { reason: "the process was killed".into() });
        }
        self.0.write(writes).await
    }
    async fn read(&self, range: std::ops::Range<Index>, max: usize) -> Result<Loaded, StoreError> {
        self.0.read(range, max).await
    }
    async fn stage(&self, chunk: SnapshotChunk) -> Result<(), StoreError> {
        self.0.stage(chunk).await
    }
    async fn read_snapshot(&self, id: u64, at: u64, max: usize) -> Result<Bytes, StoreError> {
        self.0.read_snapshot(id, at, max).await
    }
}

/// A founding that a crash cut short goes on with the births that were drawn, so nobody votes twice.
#[tokio::test]
async fn a_founding_that_was_interrupted_is_finished_by_the_next_start() {
    for dies_at in SERVERS {
        let disks = Disks::default();
        let open = {
            let disks = disks.clone();
            move |name: &graft::ServerName| -> Result<Box<dyn LogStore>, StoreError> {
                let dies = AtomicBool::new(*name == dies_at);
                Ok(Box::new(DiesBeforeWriting(disks.of(name.as_str()), dies)))
            }
        };
        let start = graft::cluster(SERVERS).stores(open).start(Notes::default).await;
        assert!(matches!(start, Err(StartError::Store { .. })));
        let notes = start_on(&disks, &SERVERS).await.unwrap();
        assert_eq!(soon(notes.request("server1", add("a"))).await.unwrap(), ["a"]);
        soon(notes.shutdown()).await;
    }
}

/// The same, where the store that missed the founding was exchanged for an empty one meanwhile.
#[tokio::test]
async fn an_interrupted_founding_is_not_finished_with_a_lost_store() {
    let disks = Disks::default();
    let open = {
        let disks = disks.clone();
        move |name: &graft::ServerName| -> Result<Box<dyn LogStore>, StoreError> {
            let dies = AtomicBool::new(*name == "server3");
            Ok(Box::new(DiesBeforeWriting(disks.of(name.as_str()), dies)))
        }
    };
    assert!(graft::cluster(SERVERS).stores(open).start(Notes::default).await.is_err());
    let newborn = MemoryStore::new();
    let mut identity = disks.of("server3").peek().unwrap().unwrap().identity;
    identity.incarnation.0 ^= 1;
    newborn.create(&identity).await.unwrap();
    disks.replace("server3", &newborn);
    let error = start_on(&disks, &SERVERS).await.unwrap_err();
    assert!(matches!(error, StartError::LostStore { .. }), "{error}");
}
