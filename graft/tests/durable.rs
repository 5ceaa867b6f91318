//! Servers whose logs are on the disk.

#![cfg(feature = "redb")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is test code")]

mod common;

use std::{
    fs,
    io::{Seek, SeekFrom, Write},
    path::Path,
    time::Duration,
};

use common::{Note, Notes, add, directory::Directory, soon};
use graft::{
    StartError, StoreError,
    store::{Pace, RedbStore},
};

#[tokio::test]
async fn a_cluster_finds_everything_again_and_goes_on() {
    let disk = Directory::new();
    let mut expected = Vec::new();
    for run in 0..3 {
        let notes = disk.cluster().start(Notes::default).await.unwrap();
        assert_eq!(soon(notes.request("server1", Note::Read)).await.unwrap(), expected);
        for note in ["a", "b"] {
            expected.push(format!("{note}{run}"));
            let last = expected.last().unwrap();
            assert_eq!(soon(notes.request("server2", add(last))).await.unwrap(), expected);
        }
        notes.restart_server("server3").await.unwrap();
        notes.shutdown().await;
    }
}

/// Whoever opens the store keeps a handle, and reads it all while its server goes on.
#[tokio::test]
async fn a_store_can_be_scrubbed_while_its_server_serves() {
    let disk = Directory::new();
    let path = disk.of("server1");
    let store = RedbStore::open(&path).unwrap();
    let handle = store.clone();
    let cluster = graft::cluster(["server1"]).stores(move |_| Ok(Box::new(store.clone())));
    let notes = cluster.start(Notes::default).await.unwrap();
    let text = "scrub".repeat(100);
    assert!(soon(notes.request("server1", add(&text))).await.is_ok());
    let pace = Pace { pause: Duration::ZERO, ..Pace::default() };
    let report = soon(handle.scrub(pace)).await.unwrap();
    assert!(report.entries > 1 && report.active_bytes > 0, "{report:?}");

    let file = path.join("log-00000000000000000001.redb");
    let bytes = fs::read(&file).unwrap();
    let places =
        bytes.windows(text.len()).enumerate().filter(|(_, found)| *found == text.as_bytes());
    let disk = fs::File::options().write(true).open(&file).unwrap();
    for (at, _) in places {
        // In place, as a disk rots.
        (&disk).seek(SeekFrom::Start(at as u64)).unwrap();
        (&disk).write_all(b"S").unwrap();
    }
    let error = soon(handle.scrub(pace)).await.unwrap_err();
    let is_named = error.to_string().contains("log-00000000000000000001.redb");
    assert!(matches!(&error, StoreError::Corrupt { .. }) && is_named, "{error}");
    notes.shutdown().await;
}

#[tokio::test]
async fn a_store_in_use_is_refused_and_says_so() {
    let disk = Directory::new();
    let notes = disk.cluster().start(Notes::default).await.unwrap();
    let path = disk.of("server1");
    let others = graft::cluster(["other"])
        .stores(move |_| Ok(graft::store::redb(&path)?))
        .start(Notes::default);
    let Err(StartError::Store { source, .. }) = others.await else { panic!("it is in use") };
    assert!(source.to_string().contains("in use"), "{source}");
    assert!(soon(notes.request("server1", add("a"))).await.is_ok());
}

#[tokio::test]
async fn the_stores_of_two_servers_are_not_confused() {
    let disk = Directory::new();
    disk.cluster().start(Notes::default).await.unwrap().shutdown().await;
    let swap = |from: &Path, to: &Path| fs::rename(from, to).unwrap();
    swap(&disk.of("server1"), &disk.of("aside"));
    swap(&disk.of("server2"), &disk.of("server1"));
    swap(&disk.of("aside"), &disk.of("server2"));
    let error = disk.cluster().start(Notes::default).await.err().unwrap();
    assert!(matches!(error, StartError::WrongServer { .. }), "{error}");
}

#[tokio::test]
async fn a_disk_that_was_wiped_is_noticed() {
    let disk = Directory::new();
    disk.cluster().start(Notes::default).await.unwrap().shutdown().await;
    fs::remove_dir_all(disk.of("server2")).unwrap();
    let error = disk.cluster().start(Notes::default).await.err().unwrap();
    assert!(matches!(error, StartError::LostStore { .. }), "{error}");
    // An older one would have forgotten what it promised since.
    assert!(
        error.to_string().contains("as it was when the server stopped, not a copy or a backup")
    );
}
