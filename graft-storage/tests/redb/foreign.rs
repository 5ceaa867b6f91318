//! Files of another store are not taken for a store's own, however alike the two are.

use std::{fs, path::PathBuf};

use bytes::Bytes;
use graft_core::{
    ClusterId, Entries, Entry, EntryKind, Epoch, GroupId, Identity, Incarnation, Index, LogId,
    LogStore, LogTime, Membership, NodeId, NodeInfo, SnapshotChunk, SnapshotMeta, StoreError,
    Write, stable_hash,
};
use graft_storage::{
    RedbStore,
    redb::{OpenError, Pace, verify},
};

use crate::support::{Directory, identity, read_all, settle, small, wait, write};

/// A store in many files whose history is the same for all but for who it is and what `fill` is.
fn lived(directory: &Directory, name: &str, identity: &Identity, fill: u8) -> PathBuf {
    let path = directory.at(name);
    let store = RedbStore::open_with(&path, &small()).unwrap();
    wait(store.create(identity)).unwrap();
    for batch in 0..20 {
        let entry = |index| Entry {
            log_id: LogId::new(1, index),
            time: LogTime(index),
            kind: EntryKind::Plain,
            payload: vec![fill; 128].into(),
        };
        let entries: Entries = (batch * 100 + 1..batch * 100 + 101).map(entry).collect();
        write(&store, vec![Write::Append(entries)]);
    }
    let info = NodeInfo { name: "server1".into(), ..NodeInfo::default() };
    let bytes: Bytes = vec![fill; 100_000].into();
    let meta = SnapshotMeta {
        id: 9,
        cluster: identity.cluster,
        epoch: Epoch(0),
        group: GroupId(0),
        last: LogId::new(1, 100),
        time: LogTime(1),
        membership: (LogId::new(1, 1), Membership::of_voters([(NodeId(1), info)])),
        schema: 1,
        size: bytes.len() as u64,
        digest: stable_hash(&bytes),
        format: 1,
    };
    wait(store.stage(SnapshotChunk { meta: meta.clone(), offset: 0, bytes })).unwrap();
    write(&store, vec![Write::InstallSnapshot(meta), Write::Compact(LogId::new(1, 100))]);
    settle(&store);
    drop(store);
    verify(&path).unwrap();
    path
}

/// Others whose stores have the same history: of another cluster, and the same server, born again.
fn others() -> [Identity; 2] {
    [
        Identity { cluster: ClusterId(22), ..identity() },
        Identity { incarnation: Incarnation(99), ..identity() },
    ]
}

/// The store of `mine`, into which `file` of the other one was put.
fn mixed(directory: &Directory, other: &Identity, file: &str) -> PathBuf {
    let mine = lived(directory, "mine", &identity(), 1);
    let theirs = lived(directory, "theirs", other, 2);
    fs::copy(theirs.join(file), mine.join(file)).unwrap();
    mine
}

/// What is wrong, where `file` must be named.
fn said(error: &str, file: &str) {
    assert!(error.contains(file), "{file} is not named: {error}");
}

#[test]
fn a_sealed_file_of_another_store_is_refused_by_whoever_reads_it() {
    const FILE: &str = "log-00000000000000000001.redb";
    for other in others() {
        let directory = Directory::new("redb");
        let path = mixed(&directory, &other, FILE);
        let error = verify(&path).unwrap_err().to_string();
        said(&error, FILE);
        assert!(error.contains("table facts, record identity"), "{error}");
        let store = RedbStore::open(&path).unwrap();
        wait(store.recover()).unwrap();
        let pace = Pace { bytes_per_step: 1 << 20, pause: std::time::Duration::ZERO };
        for error in [
            wait(store.read(Index(101)..Index(102), 1)).map(drop).unwrap_err(),
            wait(store.scrub(pace)).map(drop).unwrap_err(),
        ] {
            assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
            said(&error.to_string(), FILE);
        }
        // What is its own is read as before.
        assert_eq!(read_all(&store, 1990, 2001).unwrap().first().unwrap().payload[0], 1);
    }
}

#[test]
fn a_witness_of_another_store_is_refused() {
    for other in others() {
        let directory = Directory::new("redb");
        let path = mixed(&directory, &other, "witness");
        for error in [RedbStore::open(&path).map(drop), verify(&path).map(drop)] {
            let error = error.unwrap_err();
            assert!(matches!(error, OpenError::Corrupt { .. }), "{error:?}");
            said(&error.to_string(), "witness");
            assert!(error.to_string().contains("it is of server"), "{error}");
        }
    }
}

#[test]
fn a_snapshot_of_another_store_is_refused_by_whoever_reads_it() {
    const FILE: &str = "snapshot-00000000000000000001";
    for other in others() {
        let directory = Directory::new("redb");
        let path = mixed(&directory, &other, FILE);
        said(&verify(&path).unwrap_err().to_string(), FILE);
        let store = RedbStore::open(&path).unwrap();
        wait(store.recover()).unwrap();
        let error = wait(store.read_snapshot(9, 0, 1 << 20)).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
        said(&error.to_string(), FILE);
    }
}
