//! A store that was written once is read by every later build.
//!
//! `tests/fixtures/redb-v1` is a store in format 1, as a build of that format left it, and so are those
//! beside it. None is ever written again: what a later build cannot read any more shows here. A new
//! format gets a directory of its own beside them, written by `GRAFT_WRITE_FIXTURE=1`.

use std::{env, fs, ops::Range, path::PathBuf, sync::Arc};

use bytes::Bytes;
use graft_core::{
    Birth, ClusterId, Entries, Entry, EntryKind, Epoch, GroupId, HardState, Identity, Incarnation,
    Index, Loaded, LogId, LogStore, LogTime, Membership, NodeId, NodeInfo, Recovered, SessionId,
    SnapshotChunk, SnapshotMeta, StoreError, Term, Write,
    session::{CommandHeader, encode_command},
};
use graft_storage::{
    RedbStore,
    medium::{Disk, FaultyMedium, Medium, Open},
    redb::{OpenError, Options, verify},
};

use crate::support::{Directory, read_all, settle, wait};

/// The format that this build writes.
const VERSION: u32 = 3;

/// As small as the files of a store get.
fn options() -> Options {
    Options::default().segment_bytes(64 << 10).preallocated_bytes(u64::MAX).cache_bytes(1 << 20)
}

fn stored(version: u32) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/redb-v{version}"))
}

/// A copy of the stored directory that may be written.
fn copy(version: u32) -> Directory {
    let directory = Directory::new("fixture");
    for file in fs::read_dir(stored(version)).unwrap().map(Result::unwrap) {
        let bytes = fs::read(file.path()).unwrap();
        fs::write(directory.path().join(file.file_name()), bytes).unwrap();
    }
    directory
}

fn identity() -> Identity {
    Identity {
        cluster: ClusterId(0x1122_3344_5566_7788),
        epoch: Epoch(2),
        node: NodeId(3),
        name: "sërver-3".into(),
        incarnation: Incarnation(0xfedc_ba98_7654_3210),
        birth: Birth::Joiner,
        machine: "fixture::Machine".into(),
        format: 0x0102_0304_0506_0708,
    }
}

fn info(node: u64) -> (NodeId, NodeInfo) {
    let info = NodeInfo {
        name: format!("sërver-{node}"),
        peer_address: format!("10.0.0.{node}:4400"),
        client_address: format!("10.0.1.{node}:4401"),
        incarnation: Incarnation(node << 40),
        priority: 5,
    };
    (NodeId(node), info)
}

fn founders() -> Membership {
    Membership::of_voters([1, 2, 3].map(info))
}

/// What a store of format 3 and later has behind what those of all formats have: the commands that are a chain.
const CHAINED: Range<u64> = 120..160;

/// One of every part.
fn joint() -> Membership {
    Membership {
        voters: [1, 3, 4].map(NodeId).into(),
        outgoing: [1, 2, 3].map(NodeId).into(),
        learners: [5].map(NodeId).into(),
        target: Some([3, 4].map(NodeId).into()),
        nodes: [1, 2, 3, 4, 5].map(info).into(),
    }
}

/// `size` bytes that belong to a place.
fn bytes(place: u64, size: u64) -> Bytes {
    (0..size).map(|at| ((at ^ place) * 131 + at / 256).to_le_bytes()[0]).collect()
}

fn entry(term: u64, index: u64) -> Entry {
    let kinds = [
        EntryKind::Blank,
        EntryKind::Plain,
        EntryKind::SessionOpen,
        EntryKind::SessionKeepAlive,
        EntryKind::SessionClose,
        EntryKind::SessionCommand,
    ];
    let kind = kinds[usize::try_from(index).unwrap() % kinds.len()];
    if CHAINED.contains(&index) {
        return chained(index);
    }
    let (kind, payload) = match index {
        1 => (EntryKind::Membership, founders().encode()),
        113 => (EntryKind::Membership, joint().encode()),
        8 => (kind, Bytes::new()),
        // A chunk of several parts.
        73 => (kind, bytes(index, 20_500)),
        _ => (kind, bytes(index ^ term << 8, index * 5)),
    };
    Entry { log_id: LogId::new(term, index), time: LogTime(index * 7), kind, payload }
}

/// A command that differs from the one before it in its sequence and its body: what format 3 writes as a chain.
fn chained(index: u64) -> Entry {
    let (session, sequence) = (SessionId(14), 1000 + index);
    let header = CommandHeader { session, sequence, floor: 900, version: 2 };
    let payload = encode_command(&header, &bytes(index, index % 8));
    let (log_id, kind) = (LogId::new(5, index), EntryKind::SessionCommand);
    Entry { log_id, time: LogTime(833), kind, payload }
}

/// The entries of the log in the end: nothing of the truncated ones.
fn entries(from: u64, to: u64) -> Entries {
    let term_of = |index| match index {
        ..41 => 1,
        41..97 => 2,
        97..114 => 3,
        114..120 => 4,
        _ => 5,
    };
    (from..to).map(|index| entry(term_of(index), index)).collect()
}

fn snapshot() -> (SnapshotMeta, Bytes) {
    let meta = SnapshotMeta {
        id: 5,
        cluster: identity().cluster,
        epoch: identity().epoch,
        group: GroupId(0),
        last: LogId::new(2, 60),
        time: LogTime(420),
        membership: (LogId::new(1, 1), founders()),
        schema: 3,
        size: 70_000,
        digest: 0xd1_6e57,
        format: identity().format,
    };
    (meta, bytes(5, 70_000))
}

fn expected(version: u32) -> Recovered {
    let first_formats = Recovered {
        identity: identity(),
        hard_state: HardState { term: Term(5), voted_for: Some(NodeId(4)), commit: Index(117) },
        compacted: LogId::new(2, 50),
        last: LogId::new(4, 119),
        last_time: LogTime(833),
        terms: [(51, 2), (97, 3), (114, 4)].map(|(at, term)| (Index(at), Term(term))).into(),
        memberships: vec![(LogId::new(3, 113), joint())],
        snapshot: Some(snapshot().0),
    };
    if version < 3 {
        return first_formats;
    }
    let mut terms = first_formats.terms.clone();
    terms.push((Index(CHAINED.start), Term(5)));
    Recovered { last: LogId::new(5, CHAINED.end - 1), terms, ..first_formats }
}

/// The life that leads there, in all formats.
async fn live(store: &RedbStore) -> Result<(), StoreError> {
    let write = async |writes: Vec<Write>| store.write(writes).await.map(drop);
    store.create(&identity()).await?;
    let hard_state = HardState { term: Term(1), voted_for: None, commit: Index(0) };
    write(vec![Write::HardState(hard_state), Write::Append(entries(1, 9))]).await?;
    for first in (9..97).step_by(8) {
        write(vec![Write::Append(entries(first, first + 8))]).await?;
    }
    // A leader that was not to be.
    let lost: Entries = (90..110).map(|index| entry(2, index)).collect();
    write(vec![Write::Append(lost)]).await?;
    write(vec![Write::Append(entries(97, 114))]).await?;
    let (meta, bytes) = snapshot();
    for offset in [0, 30_000, 60_000] {
        let piece = bytes.slice(offset..bytes.len().min(offset + 30_000));
        let (meta, offset) = (meta.clone(), offset as u64);
        store.stage(SnapshotChunk { meta, offset, bytes: piece }).await?;
    }
    write(vec![Write::InstallSnapshot(meta), Write::Compact(LogId::new(2, 50))]).await?;
    let hard_state = expected(VERSION).hard_state;
    write(vec![Write::Append(entries(114, 120)), Write::HardState(hard_state)]).await
}

/// Everything that it holds is what was written.
fn holds_everything(store: &RedbStore, version: u32) {
    let expected = expected(version);
    let end = expected.last.index.0 + 1;
    assert_eq!(wait(store.recover()).unwrap(), Some(expected));
    assert!(read_all(store, 51, end).unwrap() == entries(51, end));
    // One in the midst of a chain is read as others are.
    for index in 51..end {
        assert!(read_all(store, index, index + 1).unwrap() == entries(index, index + 1));
    }
    let before = wait(store.read(Index(50)..Index(60), usize::MAX)).unwrap();
    assert_eq!(before, Loaded::Compacted(LogId::new(2, 50)));
    let (meta, bytes) = snapshot();
    let mut found = Vec::new();
    while found.len() < bytes.len() {
        let at = found.len() as u64;
        found.extend(wait(store.read_snapshot(meta.id, at, usize::MAX)).unwrap());
    }
    assert!(found == bytes);
}

#[test]
fn a_store_in_format_1_is_read_to_the_last_byte_and_goes_on() {
    is_read_to_the_last_byte_and_goes_on(1);
}

#[test]
fn a_store_in_format_2_is_read_to_the_last_byte_and_goes_on() {
    is_read_to_the_last_byte_and_goes_on(2);
}

#[test]
fn a_store_in_format_3_is_read_to_the_last_byte_and_goes_on() {
    is_read_to_the_last_byte_and_goes_on(3);
}

fn is_read_to_the_last_byte_and_goes_on(version: u32) {
    let end = expected(version).last.index.0 + 1;
    let directory = copy(version);
    let report = verify(directory.path()).unwrap();
    assert_eq!((report.entries, report.snapshot_bytes), (end - 51, 70_000));
    let store = RedbStore::open(directory.path()).unwrap();
    holds_everything(&store, version);
    let next = entry(5, end);
    wait(store.write(vec![Write::Append(vec![next.clone()].into())])).unwrap();
    drop(store);
    let store = RedbStore::open(directory.path()).unwrap();
    assert_eq!(wait(store.recover()).unwrap().unwrap().last, next.log_id);
    let mut all = entries(51, end);
    all.append(vec![next].into());
    assert!(read_all(&store, 51, end + 1).unwrap() == all);
}

/// What is stored is what this test would store, so the test above looks at all of the format.
#[test]
fn a_new_store_with_the_same_life_holds_the_same() {
    let directory = Directory::new("fixture");
    let medium = Arc::new(Disk::create(directory.path()).unwrap());
    let store = RedbStore::open_on(medium, &options()).unwrap();
    wait(live(&store)).unwrap();
    wait(store.write(vec![Write::Append(CHAINED.map(chained).collect())])).unwrap();
    holds_everything(&store, VERSION);
    settle(&store);
    drop(store);
    let names = |content: Vec<String>, start: &str| {
        content.into_iter().filter(|name| name.starts_with(start)).count()
    };
    let files = || directory.content().into_keys().collect();
    // Sealed segments of which one is cut off in front, and the first one gone.
    assert!(names(files(), "log-") >= 3 && names(files(), "snapshot-") == 1);
    assert!(!directory.at("log-00000000000000000001.redb").exists());
    if env::var_os("GRAFT_WRITE_FIXTURE").is_some() {
        let to = stored(VERSION);
        fs::create_dir(&to).expect("what is stored of a format is never written again");
        let content = directory.content().into_iter();
        for (name, bytes) in content.filter(|(name, _)| !name.ends_with(".tmp")) {
            fs::write(to.join(name), bytes).unwrap();
        }
    }
}

/// The file of the log that is written.
fn newest(directory: &Directory) -> String {
    let names = directory.content().into_keys();
    names.filter(|name| name.starts_with("log-")).max().unwrap()
}

/// Writes what a build of format `version` would write over the format of the store.
fn claim(directory: &Directory, version: u32) {
    use ::redb::ReadableTable;

    let facts = ::redb::TableDefinition::<&[u8; 9], &[u8]>::new("facts");
    let path = directory.at(&newest(directory));
    let length = fs::metadata(&path).unwrap().len();
    let database = ::redb::Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut facts = transaction.open_table(facts).unwrap();
        let mut value = facts.get(&[0; 9]).unwrap().unwrap().value().to_vec();
        assert_eq!(value[..8], *b"graftlog");
        value[8..12].copy_from_slice(&version.to_le_bytes());
        let end = value.len() - 4;
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&[0; 9]), &value[..end]);
        value[end..].copy_from_slice(&checksum.to_le_bytes());
        facts.insert(&[0; 9], value.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
    drop(database);
    // redb cuts off what is empty when it closes a file, a store never does.
    fs::File::options().write(true).open(&path).unwrap().set_len(length).unwrap();
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let directory = copy(VERSION);
    claim(&directory, VERSION + 1);
    let before = directory.content();
    for error in [
        RedbStore::open(directory.path()).map(drop).unwrap_err(),
        verify(directory.path()).map(drop).unwrap_err(),
    ] {
        let OpenError::NewerFormat { file, found, known } = &error else { panic!("{error:?}") };
        assert_eq!((*found, *known), (VERSION + 1, VERSION));
        assert!(file.contains(&newest(&directory)), "{error}");
        assert!(error.to_string().contains("upgrade this server first"), "{error}");
    }
    assert!(directory.content() == before);
    // It is for the number alone.
    claim(&directory, VERSION);
    holds_everything(&RedbStore::open(directory.path()).unwrap(), VERSION);
}

/// The stored store on a medium that fails.
fn on_a_faulty_medium(version: u32) -> FaultyMedium {
    let medium = FaultyMedium::new(1);
    for file in fs::read_dir(stored(version)).unwrap().map(Result::unwrap) {
        let name = file.file_name().into_string().unwrap();
        let to = medium.open(&name, Open::CreateNew).unwrap();
        to.write_at(0, &fs::read(file.path()).unwrap()).unwrap();
        to.sync_data().unwrap();
    }
    medium.sync_names().unwrap();
    medium
}

/// The later entries of a store that goes on.
fn later(from: u64, to: u64) -> Write {
    Write::Append((from..to).map(|index| entry(5, index)).collect())
}

/// A store goes over to this build's format file by file. Wherever the power goes meanwhile, it is one that can be
/// read, with all that was acknowledged.
#[test]
fn a_store_in_format_1_goes_over_to_format_3_wherever_the_power_goes() {
    let medium = on_a_faulty_medium(1).recording();
    let store = RedbStore::open_on(Arc::new(medium.clone()), &options()).unwrap();
    assert_eq!(wait(store.recover()).unwrap(), Some(expected(1)));
    // At which boundary each last entry was acknowledged.
    let mut acknowledged = vec![(0, 119)];
    for first in (120..200).step_by(8) {
        wait(store.write(vec![later(first, first + 8)])).unwrap();
        acknowledged.push((medium.boundaries(), first + 7));
    }
    drop(store);
    let names: Vec<String> = medium.image().names().map(str::to_owned).collect();
    assert!(names.contains(&"log-00000000000000000007.redb".to_owned()), "{names:?}");
    let trace = medium.trace().unwrap();
    let mut replay = trace.replay();
    loop {
        let at = replay.boundary();
        let promised = acknowledged.iter().rev().find(|(boundary, _)| *boundary <= at).unwrap().1;
        for medium in [replay.exit(at), replay.crash(at)] {
            let store = RedbStore::open_on(Arc::new(medium), &options());
            let store = store.unwrap_or_else(|error| panic!("boundary {at}: {error}"));
            let found = wait(store.recover()).unwrap().unwrap();
            assert!(found.last.index.0 >= promised, "boundary {at}: {} of {promised}", found.last);
            assert!(read_all(&store, 51, 120).unwrap() == entries(51, 120));
            let (meta, bytes) = snapshot();
            let read = wait(store.read_snapshot(meta.id, 0, usize::MAX)).unwrap();
            assert!(bytes.starts_with(&read) && !read.is_empty());
            let next = found.last.index.0 + 1;
            wait(store.write(vec![later(next, next + 1)])).unwrap();
        }
        if !replay.advance() {
            break;
        }
    }
}

/// What was taken from a store of format 1 is not believed in a later one.
#[test]
fn a_witness_in_format_1_does_not_vouch_for_a_store_in_a_later_format() {
    let directory = Directory::new("fixture");
    let store = RedbStore::open_with(directory.path(), &options()).unwrap();
    wait(live(&store)).unwrap();
    drop(store);
    let old = fs::read(stored(1).join("witness")).unwrap();
    fs::write(directory.at("witness"), old).unwrap();
    let error = RedbStore::open(directory.path()).unwrap_err();
    let OpenError::Corrupt { location, reason } = &error else { panic!("{error:?}") };
    assert!(location.starts_with("witness") && reason.contains("format 1"), "{error}");
}
