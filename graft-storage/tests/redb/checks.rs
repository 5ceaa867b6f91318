//! Verifying a store, and scrubbing one at work.

use std::{
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use graft_core::{LogId, LogStore, StoreError};
use graft_storage::{
    RedbStore,
    medium::{Disk, FaultyMedium, Medium, Open},
    redb::{OpenError, Options, Pace, Report, verify},
};

use crate::support::{
    Directory, LIMIT, Watched, append, born, compact, identity, is_long, read_all, settle, small,
    wait, write,
};

const FAST: Pace = Pace { bytes_per_step: 64 << 10, pause: Duration::ZERO };

fn filled(directory: &Directory) -> RedbStore {
    let medium: Arc<dyn Medium> = Arc::new(Disk::create(directory.path()).unwrap());
    let store = born(medium, &small());
    for batch in 0..100 {
        let next = batch * 50 + 1;
        write(&store, vec![append(1, next..next + 50, 200)]);
    }
    compact(&store, LogId::new(1, 1000), 300_000).unwrap();
    settle(&store);
    store
}

fn is_whole(report: &Report) -> bool {
    report.entries == 4000 && report.entry_bytes == 4000 * 232 && report.snapshot_bytes == 300_000
}

#[test]
fn every_record_is_read_and_nothing_is_changed() {
    let directory = Directory::new("redb");
    let store = filled(&directory);
    let report = wait(store.scrub(FAST)).unwrap();
    assert!(is_whole(&report), "{report:?}");
    drop(store);
    let before = directory.content();
    let report = verify(directory.path()).unwrap();
    assert!(is_whole(&report), "{report:?}");
    assert!(directory.content() == before, "verifying changed a file");
}

#[test]
fn a_directory_that_is_not_there_is_not_made_by_verifying_it() {
    let directory = Directory::new("redb");
    let path = directory.at("store");
    let error = verify(&path).unwrap_err();
    assert!(matches!(error, OpenError::Inaccessible { .. }), "{error:?}");
    assert!(!path.exists());
    RedbStore::open(&path).unwrap();
    assert!(path.exists(), "by opening it, it is");
}

/// What is not there cannot be sound.
#[test]
fn where_there_is_no_store_there_is_nothing_to_verify() {
    let directory = Directory::new("redb");
    let is_refused = |path: &std::path::Path| {
        let error = verify(path).unwrap_err();
        assert!(matches!(error, OpenError::NoStore { .. }), "{error:?}");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        assert_eq!(fs::read_dir(path).unwrap().count(), 0, "it made a file");
    };
    is_refused(directory.path());
    let path = directory.at("wiped");
    let store = RedbStore::open(&path).unwrap();
    is_refused_while_open(&path);
    wait(store.create(&identity())).unwrap();
    drop(store);
    verify(&path).unwrap();
    for file in fs::read_dir(&path).unwrap() {
        fs::remove_file(file.unwrap().path()).unwrap();
    }
    is_refused(&path);
}

fn is_refused_while_open(path: &std::path::Path) {
    let error = verify(path).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error:?}");
}

/// Turns a bit of a payload in the oldest file around.
fn damage(directory: &Directory) -> String {
    let content = directory.content();
    let (name, bytes) = content.iter().find(|(name, _)| name.starts_with("log-")).unwrap();
    let mut bytes = bytes.clone();
    // The payloads of entry 1100 are all of this byte.
    let payload = [1100_u64.to_le_bytes()[0]; 100];
    let at = bytes.windows(100).position(|window| window == payload).unwrap();
    bytes[at] ^= 1;
    fs::write(directory.at(name), bytes).unwrap();
    name.clone()
}

#[test]
fn damage_is_found_and_named() {
    let directory = Directory::new("redb");
    let store = filled(&directory);
    let name = damage(&directory);
    let error = wait(store.scrub(FAST)).unwrap_err();
    let StoreError::Corrupt { location, .. } = &error else { panic!("{error:?}") };
    assert!(location.contains(&name), "{error}");
    // The store goes on: it is what is damaged that cannot be read.
    write(&store, vec![append(1, 5001..5002, 1)]);
    drop(store);
    let error = verify(directory.path()).unwrap_err();
    assert!(matches!(&error, OpenError::Corrupt { .. }), "{error:?}");
    assert!(error.to_string().contains(&name), "{error}");
}

/// Where a payload of 100 bytes and more, all of them `byte`, is in a file of the log, newest file first.
fn place_of(directory: &Directory, byte: u8) -> (String, u64) {
    let content = directory.content();
    let logs = content.iter().rev().filter(|(name, _)| name.starts_with("log-"));
    let mut found = logs.filter_map(|(name, bytes)| {
        let at = bytes.windows(100).position(|window| window == [byte; 100])?;
        Some((name.clone(), at as u64))
    });
    found.next().unwrap()
}

/// Turns a bit around below a store at work, which has the byte in its memory.
fn rot(directory: &Directory, (name, at): &(String, u64), byte: u8) {
    let disk = Disk::open(directory.path()).unwrap();
    disk.open(name, Open::Existing).unwrap().write_at(*at, &[byte ^ 1]).unwrap();
}

/// All is in one file, and in memory.
#[test]
fn a_scrub_finds_what_has_rotted_in_the_file_that_is_written() {
    let directory = Directory::new("redb");
    let store = RedbStore::open(directory.path()).unwrap();
    wait(store.create(&identity())).unwrap();
    for batch in 0..20 {
        write(&store, vec![append(1, batch * 50 + 1..batch * 50 + 51, 200)]);
    }
    let report = wait(store.scrub(FAST)).unwrap();
    assert_eq!(report.entries, 1000);
    assert!(report.active_bytes > 16 << 20, "{report:?}");
    let place = place_of(&directory, 200);
    rot(&directory, &place, 200);
    assert_eq!(read_all(&store, 1, 1001).unwrap().len(), 1000, "in memory all is well");
    let error = wait(store.scrub(FAST)).unwrap_err();
    let StoreError::Corrupt { location, .. } = &error else { panic!("{error:?}") };
    assert!(location.contains(&place.0) && location.contains("table log"), "{error}");
    // What was rotten is mended by whoever restores it, and the scrub says so.
    rot(&directory, &place, 201);
    wait(store.scrub(FAST)).unwrap();
    rot(&directory, &place, 200);
    drop(store);
    let error = verify(directory.path()).unwrap_err();
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error:?}");
}

/// A commit is in the file, its sync is not done: that is what a process that ended there would leave.
#[test]
fn a_scrub_in_the_midst_of_a_commit_finds_the_store_sound_and_waits_for_nobody() {
    let medium = Watched::new(FaultyMedium::new(1));
    let store = born(Arc::new(medium.clone()), &small());
    write(&store, vec![append(1, 1..101, 128)]);
    let before = medium.seen().syncs.load(Ordering::Relaxed);
    medium.hold_syncs(true);
    let mut held = std::pin::pin!(store.write(vec![append(2, 50..151, 128)]));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(held.as_mut().poll(&mut context).is_pending());
    while medium.seen().syncs.load(Ordering::Relaxed) == before {
        std::thread::yield_now();
    }
    let report = wait(store.scrub(FAST)).unwrap();
    assert_eq!(report.entries, 100, "what is durable is what is read");
    assert!(held.as_mut().poll(&mut context).is_pending());
    medium.hold_syncs(false);
    wait(held).unwrap();
    assert_eq!(wait(store.scrub(FAST)).unwrap().entries, 150);
}

/// The story: the log went on in another file while a scrub read. The file that it had left was neither the one that is
/// written, which is read from the disk, nor had it been sealed when its turn came: redb had answered from memory.
#[test]
fn a_scrub_finds_what_has_rotted_in_a_file_that_is_sealed_meanwhile() {
    let options = Options::default().segment_bytes(256 << 10).preallocated_bytes(0);
    let begin =
        |directory: &Directory| born(Arc::new(Disk::create(directory.path()).unwrap()), &options);
    let add = |store: &RedbStore, batch: u64| {
        write(store, vec![append(1, batch * 50 + 1..batch * 50 + 51, 200)]);
    };
    // How many of these fill the first file.
    let other = Directory::new("redb");
    let store = begin(&other);
    let is_first = || other.content().keys().filter(|name| name.starts_with("log-")).count() == 1;
    let mut full = 0;
    while is_first() {
        add(&store, full);
        full += 1;
    }

    let directory = Directory::new("redb");
    let store = begin(&directory);
    (0..full - 1).for_each(|batch| add(&store, batch));
    let place = place_of(&directory, 50);
    rot(&directory, &place, 50);
    // All is read in one step, and in the rest behind it the next file is begun. Where the machine is too slow for that,
    // the scrub comes upon the file while it is written, or sealed, and finds it as well.
    let bytes_per_step = usize::try_from(full - 1).unwrap() * 50 * (200 + 32);
    let pace = Pace { bytes_per_step, pause: Duration::from_millis(200) };
    let mut scrub = std::pin::pin!(store.scrub(pace));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(scrub.as_mut().poll(&mut context).is_pending());
    std::thread::sleep(Duration::from_millis(50));
    add(&store, full - 1);
    let error = wait(scrub).unwrap_err();
    let StoreError::Corrupt { location, .. } = &error else { panic!("{error:?}") };
    assert!(location.contains(&place.0), "{error}");
}

/// Commits, truncations and new files, as fast as they come, while a scrub reads again and again.
#[test]
fn scrubs_of_a_store_at_work_find_it_sound_and_what_rots_meanwhile() {
    let directory = Directory::new("redb");
    let options = Options::default().segment_bytes(1 << 20).preallocated_bytes(0);
    let store = born(Arc::new(Disk::create(directory.path()).unwrap()), &options);
    // Their page is not written again.
    write(&store, vec![append(1, 1..51, 251)]);
    let is_done = AtomicBool::new(false);
    let (scrubs, rotten) = if is_long() { (1000, 100) } else { (60, 10) };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut next = 51;
            for term in 2.. {
                if is_done.load(Ordering::Relaxed) {
                    return;
                }
                write(&store, vec![append(term, next..next + 20, 100)]);
                next += if term % 10 == 0 { 5 } else { 20 };
            }
        });
        // Also where something is not as it should be, the writer must end.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut bytes = 0;
            for _ in 0..scrubs {
                bytes += wait(store.scrub(FAST)).unwrap().active_bytes;
            }
            assert!(bytes > 0, "the file that is written was never read");
            let place = place_of(&directory, 50);
            for _ in 0..rotten {
                rot(&directory, &place, 50);
                let error = wait(store.scrub(FAST)).unwrap_err();
                let StoreError::Corrupt { location, .. } = &error else { panic!("{error:?}") };
                assert!(location.contains(&place.0), "{error}");
                rot(&directory, &place, 51);
                wait(store.scrub(FAST)).unwrap();
            }
        }));
        is_done.store(true, Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Remembers what is logged as an error.
struct Errors;

static LOGGED: Mutex<Vec<String>> = Mutex::new(Vec::new());

impl tracing::Subscriber for Errors {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::ERROR
    }

    fn event(&self, event: &tracing::Event<'_>) {
        struct Fields(String);
        impl tracing::field::Visit for Fields {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0 += &format!("{}={value:?} ", field.name());
            }
        }
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        LOGGED.lock().unwrap().push(fields.0);
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

/// Has errors of the whole process remembered. Returns those that name the store at `path`.
fn errors_of(path: &std::path::Path) -> impl Fn() -> Option<String> {
    static SET: std::sync::Once = std::sync::Once::new();
    SET.call_once(|| tracing::subscriber::set_global_default(Errors).unwrap());
    let path = path.display().to_string();
    move || LOGGED.lock().unwrap().iter().find(|text| text.contains(&path)).cloned()
}

#[test]
fn a_store_scrubs_itself_and_logs_what_has_rotted() {
    let directory = Directory::new("redb");
    let options = small().scrub_every(Duration::from_millis(1), FAST);
    let store = born(Arc::new(Disk::create(directory.path()).unwrap()), &options);
    write(&store, vec![append(1, 1..51, 251)]);
    let place = place_of(&directory, 50);
    let logged = errors_of(directory.path());
    assert_eq!(logged(), None);
    rot(&directory, &place, 50);
    let deadline = Instant::now() + LIMIT;
    let error = loop {
        if let Some(error) = logged() {
            break error;
        }
        assert!(Instant::now() < deadline, "nothing was found");
        std::thread::yield_now();
    };
    assert!(error.contains("damaged") && error.contains(&place.0), "{error}");
    // The rest of what was logged until here is of scrubs under way.
    drop(store);
}

#[test]
fn a_store_that_is_closed_is_not_scrubbed_once_more() {
    let directory = Directory::new("redb");
    let options = small().scrub_every(Duration::from_secs(3600), FAST);
    let store = born(Arc::new(Disk::create(directory.path()).unwrap()), &options);
    for batch in 0..100 {
        let next = batch * 50 + 1;
        write(&store, vec![append(1, next..next + 50, 200)]);
    }
    // What a scrub would read first, and not what is in memory.
    let content = directory.content();
    let (name, bytes) = content.iter().find(|(name, _)| name.starts_with("log-")).unwrap();
    let at = bytes.windows(100).position(|window| window == [50; 100]).unwrap();
    rot(&directory, &(name.clone(), at as u64), 50);
    let logged = errors_of(directory.path());
    // It waits for the thread that scrubs.
    drop(store);
    assert_eq!(logged(), None);
}

#[test]
fn a_scrub_that_rests_ends_when_the_store_is_closed() {
    let directory = Directory::new("redb");
    let store = filled(&directory);
    let slow = Pace { bytes_per_step: 1, pause: Duration::from_secs(3600) };
    {
        let scrub = std::pin::pin!(store.scrub(slow));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(scrub.poll(&mut context).is_pending());
    }
    drop(store);
    let store = RedbStore::open(directory.path()).unwrap();
    let found = wait(store.recover()).unwrap().unwrap();
    assert_eq!(found.last, LogId::new(1, 5000));
}
