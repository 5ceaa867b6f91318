//! What the media promise, and what the faulty one makes of it.

// Helpers of tests panic like tests.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io::ErrorKind;

use common::directory::Directory;
use graft_storage::medium::{Call, Disk, Fault, FaultyMedium, Medium, Open, SECTOR};

fn disk(directory: &Directory) -> Disk {
    Disk::create(directory.path().join("a/b")).unwrap()
}

fn text(medium: &dyn Medium, name: &str) -> String {
    let file = medium.open(name, Open::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// The same on both media.
fn files_are_as_they_were_left(medium: &dyn Medium) {
    let kind = |outcome: std::io::Result<_>| outcome.map(drop).unwrap_err().kind();
    assert_eq!(kind(medium.open("a", Open::Existing)), ErrorKind::NotFound);
    assert_eq!(kind(medium.open("a", Open::Read)), ErrorKind::NotFound);
    let file = medium.open("a", Open::CreateNew).unwrap();
    assert_eq!(kind(medium.open("a", Open::CreateNew)), ErrorKind::AlreadyExists);
    file.write_at(3, b"def").unwrap();
    file.write_at(0, b"abc").unwrap();
    assert_eq!(text(medium, "a"), "abcdef");
    file.set_len(4).unwrap();
    file.set_len(6).unwrap();
    assert_eq!(text(medium, "a"), "abcd\0\0");
    let eof = file.read_at(4, &mut [0; 3]).unwrap_err().kind();
    assert_eq!(eof, ErrorKind::UnexpectedEof);
    file.sync_data().unwrap();
    let same = medium.open("a", Open::Create).unwrap();
    assert!(!same.is_empty().unwrap(), "an existing file is opened as it is");
    assert!(medium.open("a", Open::Read).unwrap().write_at(0, b"x").is_err());

    medium.open("b", Open::Create).unwrap().write_at(0, b"b").unwrap();
    medium.rename("a", "b").unwrap();
    assert_eq!(medium.list().unwrap(), ["b"]);
    assert_eq!(text(medium, "b"), "abcd\0\0", "in place of the other");
    assert_eq!(medium.rename("a", "c").unwrap_err().kind(), ErrorKind::NotFound);
    medium.remove("b").unwrap();
    assert_eq!(medium.remove("b").unwrap_err().kind(), ErrorKind::NotFound);
    same.write_at(0, b"still").unwrap();
    let mut found = [0; 5];
    file.read_at(0, &mut found).unwrap();
    assert_eq!(&found, b"still", "an open file outlives its name");
    medium.sync_names().unwrap();
    assert!(medium.list().unwrap().is_empty());
    for name in ["", ".", "..", "a/b", "/a"] {
        assert_eq!(kind(medium.open(name, Open::Create)), ErrorKind::InvalidInput, "{name:?}");
    }
}

/// The same on both media. `other` is the same directory, opened by itself.
fn one_owner_at_a_time(medium: &dyn Medium, other: &dyn Medium) {
    let guard = medium.lock().unwrap();
    assert_eq!(medium.lock().unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(other.lock().unwrap_err().kind(), ErrorKind::WouldBlock);
    assert!(medium.list().unwrap().is_empty(), "the lock is not among the files");
    drop(guard);
    drop(other.lock().unwrap());
    drop(medium.lock().unwrap());
}

/// The same on both media.
fn poison_stays(medium: &dyn Medium, other: &dyn Medium) {
    assert_eq!(other.poisoned(), None);
    medium.poison("first");
    other.poison("second");
    assert_eq!(medium.poisoned().as_deref(), Some("first"));
    assert_eq!(other.poisoned().as_deref(), Some("first"));
}

#[test]
fn files_are_as_they_were_left_on_a_disk() {
    let directory = Directory::new("medium");
    files_are_as_they_were_left(&disk(&directory));
}

#[test]
fn files_are_as_they_were_left_on_a_faulty_medium() {
    files_are_as_they_were_left(&FaultyMedium::new(1));
}

#[test]
fn a_disk_has_one_owner_at_a_time() {
    let directory = Directory::new("medium");
    one_owner_at_a_time(&disk(&directory), &disk(&directory));
}

#[test]
fn a_disk_has_many_readers_or_one_owner() {
    let directory = Directory::new("medium");
    let (first, second) = (disk(&directory), disk(&directory));
    let readers = [first.lock_shared().unwrap(), second.lock_shared().unwrap()];
    assert_eq!(second.lock().unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(readers);
    let owner = first.lock().unwrap();
    assert_eq!(second.lock_shared().unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(owner);
    drop(second.lock_shared().unwrap());
    assert_eq!(std::fs::read_dir(directory.path().join("a/b")).unwrap().count(), 0);
}

/// The words of the system alone name neither the call nor the file.
#[test]
fn an_error_of_a_disk_says_what_was_tried_with_which_file() {
    let directory = Directory::new("medium");
    let disk = disk(&directory);
    let errors = [
        (disk.open("a", Open::Existing).unwrap_err(), "open a: "),
        (disk.rename("a", "b").unwrap_err(), "rename a to b: "),
        (disk.remove("a").unwrap_err(), "remove a: "),
    ];
    for (error, start) in errors {
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().starts_with(start), "{error}");
    }
}

#[test]
fn a_faulty_medium_has_one_owner_at_a_time() {
    let medium = FaultyMedium::new(1);
    one_owner_at_a_time(&medium, &medium.clone());
    let _held = medium.lock().unwrap();
    assert!(medium.exit().lock().is_ok(), "the next process may have it");
}

#[test]
fn poison_stays_on_a_faulty_medium_for_the_life_of_the_process() {
    let medium = FaultyMedium::new(1);
    poison_stays(&medium, &medium.clone());
    assert_eq!(medium.exit().poisoned(), None);
}

#[test]
fn poison_stays_on_a_disk_by_whatever_path_and_on_no_other() {
    let directory = Directory::new("medium");
    let first = disk(&directory);
    poison_stays(&first, &disk(&directory));
    let by_dots = Disk::open(directory.path().join("a/../a/b/.")).unwrap();
    assert_eq!(by_dots.poisoned().as_deref(), Some("first"));
    #[cfg(unix)]
    {
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(directory.path().join("a"), &link).unwrap();
        let linked = Disk::open(link.join("b")).unwrap();
        assert_eq!(linked.poisoned().as_deref(), Some("first"));
    }
    // A directory made anew after the poisoned one was removed is another one.
    drop((first, by_dots));
    std::fs::remove_dir_all(directory.path().join("a")).unwrap();
    for _ in 0..100 {
        assert_eq!(disk(&directory).poisoned(), None);
        std::fs::remove_dir_all(directory.path().join("a")).unwrap();
    }
}

/// On Unix a medium is the directory that was opened, not whatever is found at its path.
#[cfg(unix)]
#[test]
fn a_disk_stays_in_its_directory_when_that_is_moved_and_another_takes_its_place() {
    let directory = Directory::new("medium");
    let (path, aside) = (directory.path().join("a/b"), directory.path().join("aside"));
    let first = disk(&directory);
    first.open("kept", Open::CreateNew).unwrap().write_at(0, b"first").unwrap();
    std::fs::rename(&path, &aside).unwrap();
    let second = disk(&directory);
    second.open("kept", Open::CreateNew).unwrap().write_at(0, b"second").unwrap();
    let _both = (first.lock().unwrap(), second.lock().unwrap());
    assert_eq!((text(&first, "kept"), text(&second, "kept")), ("first".into(), "second".into()));
    first.open("new", Open::CreateNew).unwrap().write_at(0, b"new").unwrap();
    first.rename("new", "newer").unwrap();
    first.remove("kept").unwrap();
    first.sync_names().unwrap();
    assert_eq!(
        (first.list().unwrap(), second.list().unwrap()),
        (vec!["newer".into()], vec!["kept".into()])
    );
    assert_eq!(std::fs::read(aside.join("newer")).unwrap(), b"new");
    first.poison("moved");
    assert_eq!(Disk::open(&aside).unwrap().poisoned().as_deref(), Some("moved"));
    assert_eq!(second.poisoned(), None);
}

#[test]
fn a_disk_is_a_directory_and_nothing_else() {
    let directory = Directory::new("medium");
    let file = directory.path().join("file");
    std::fs::write(&file, "kept").unwrap();
    assert_eq!(Disk::open(&file).unwrap_err().kind(), ErrorKind::NotADirectory);
    assert_eq!(Disk::create(&file).unwrap_err().kind(), ErrorKind::NotADirectory);
    assert_eq!(std::fs::read(&file).unwrap(), b"kept");
    let missing = directory.path().join("missing");
    assert_eq!(Disk::open(&missing).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(!missing.exists());
}

/// A file that is certainly there.
fn with_file(content: &[u8]) -> (FaultyMedium, Box<dyn graft_storage::medium::MediumFile>) {
    let medium = FaultyMedium::new(1);
    let file = medium.open("a", Open::CreateNew).unwrap();
    file.write_at(0, content).unwrap();
    file.sync_data().unwrap();
    medium.sync_names().unwrap();
    (medium, file)
}

#[test]
fn a_crash_keeps_what_was_synced_and_any_whole_sectors_of_the_rest() {
    let (mut kept, mut lost, mut torn) = (0, 0, 0);
    for seed in 0..300 {
        let (medium, file) = with_file(&[1; 4 * SECTOR]);
        file.write_at(SECTOR as u64 / 2, &[2; 3 * SECTOR]).unwrap();
        let found = medium.crash(seed).image().read("a").unwrap();
        assert_eq!(found.len(), 4 * SECTOR);
        assert!(found[..SECTOR / 2].iter().all(|byte| *byte == 1));
        assert!(found[SECTOR * 7 / 2..].iter().all(|byte| *byte == 1));
        let mut places = vec![SECTOR / 2..SECTOR, SECTOR..2 * SECTOR, 2 * SECTOR..3 * SECTOR];
        places.push(3 * SECTOR..SECTOR * 7 / 2);
        let sectors = places.into_iter().map(|place| {
            let first = found[place.start];
            assert!(found[place].iter().all(|byte| *byte == first), "a sector is whole");
            usize::from(first == 2)
        });
        match sectors.sum() {
            0 => lost += 1,
            4 => kept += 1,
            _ => torn += 1,
        }
    }
    assert!(kept > 20 && lost > 20 && torn > 20, "kept {kept}, lost {lost}, torn {torn}");
}

#[test]
fn a_crash_may_keep_a_length_without_the_bytes_and_the_bytes_of_one_write_without_another() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..500 {
        let (medium, file) = with_file(b"");
        file.set_len(5000).unwrap();
        file.write_at(0, b"first").unwrap();
        file.write_at(4096, b"second").unwrap();
        let found = medium.crash(seed).image().read("a").unwrap();
        let has = |at: usize, text: &[u8]| found.get(at..at + text.len()) == Some(text);
        seen.insert((found.len() == 5000, has(0, b"first"), has(4096, b"second")));
    }
    assert_eq!(seen.len(), 8, "{seen:?}");
}

#[test]
fn names_survive_only_once_they_are_synced_and_renames_are_whole() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..500 {
        let (medium, file) = with_file(b"old");
        let new = medium.open("b", Open::CreateNew).unwrap();
        new.write_at(0, b"new").unwrap();
        new.sync_data().unwrap();
        medium.rename("b", "a").unwrap();
        let found = medium.crash(seed);
        let names = found.list().unwrap();
        assert!(names.contains(&"a".to_owned()), "a rename never takes a name away");
        seen.insert((names.len(), text(&found, "a")));
        drop(file);
    }
    let expected =
        [(1, "new"), (1, "old"), (2, "old")].map(|(count, text)| (count, text.to_owned()));
    assert_eq!(seen, expected.into());
    for seed in 0..100 {
        let (medium, _file) = with_file(b"old");
        let other = medium.open("b", Open::CreateNew).unwrap();
        medium.rename("b", "c").unwrap();
        medium.remove("a").unwrap();
        medium.sync_names().unwrap();
        other.write_at(0, b"lost").unwrap();
        assert_eq!(medium.crash(seed).list().unwrap(), ["c"]);
    }
}

#[test]
fn an_exit_keeps_everything_but_makes_nothing_durable() {
    let (medium, file) = with_file(b"old");
    file.write_at(0, b"new").unwrap();
    let medium = medium.exit();
    assert_eq!(text(&medium, "a"), "new");
    let texts: std::collections::BTreeSet<_> =
        (0..50).map(|seed| text(&medium.exit().crash(seed), "a")).collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(file.sync_data().is_err(), "the old process is gone");
}

#[test]
fn a_failed_sync_shows_everything_and_is_never_made_up_for() {
    let mut lost = 0;
    for seed in 0..100 {
        let medium = FaultyMedium::new(seed);
        let file = medium.open("a", Open::CreateNew).unwrap();
        medium.sync_names().unwrap();
        medium.fail(Fault { call: Some(Call::Sync), after: 0, times: 1 });
        file.write_at(0, b"doubt").unwrap();
        assert!(file.sync_data().is_err());
        file.sync_data().unwrap();
        assert_eq!(text(&medium, "a"), "doubt", "the cache shows it");
        lost += usize::from(medium.crash(seed).image().len("a") == Some(0));
    }
    assert!((20..80).contains(&lost), "{lost}");
}

#[test]
fn calls_fail_when_they_are_told_to_and_then_succeed_again() {
    let (medium, file) = with_file(b"a");
    medium.fail(Fault { call: Some(Call::Write), after: 1, times: 2 });
    let outcomes = [(); 4].map(|()| file.write_at(0, b"b").is_ok());
    assert_eq!(outcomes, [true, false, false, true]);
    assert_eq!((medium.failed(Call::Write), medium.calls(Call::Write)), (2, 5));
    medium.fail(Fault { call: None, after: 0, times: u64::MAX });
    assert!(medium.list().is_err() && file.len().is_err() && medium.lock().is_err());
    medium.heal();
    assert!(medium.list().is_ok() && file.len().is_ok());
}

#[test]
fn a_full_disk_takes_what_fits_and_has_space_for_what_is_there() {
    let (medium, file) = with_file(&[1; 8192]);
    medium.limit_space(4096);
    file.write_at(0, &[2; 8192]).unwrap();
    file.set_len(1 << 30).unwrap();
    let error = file.write_at(8192, &[3; 8192]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    let mut found = [0; 8192];
    file.read_at(8192, &mut found).unwrap();
    assert_eq!((found[0], found[4095], found[4096]), (3, 3, 0));
    assert!(medium.open("b", Open::CreateNew).is_err());
    medium.heal();
    assert!(medium.open("b", Open::CreateNew).is_ok());
}

#[test]
fn the_world_stops_where_it_is_told_to() {
    let (medium, file) = with_file(b"a");
    let passed = medium.boundaries();
    medium.stop_at(passed + 2);
    file.write_at(0, b"b").unwrap();
    file.sync_data().unwrap();
    assert!(file.write_at(0, b"c").is_err() && file.read_at(0, &mut [0]).is_err());
    assert_eq!(medium.boundaries(), passed + 2);
    assert_eq!(text(&medium.crash(1), "a"), "b");
}

/// A crash put into a trace is the crash that would have been.
#[test]
fn a_replay_leads_to_what_really_was() {
    let work = |medium: &FaultyMedium| -> std::io::Result<()> {
        let file = medium.open("a", Open::CreateNew)?;
        for round in 0..20_u8 {
            file.write_at(u64::from(round) * 700, &[round; 1500])?;
            if round % 3 == 0 {
                file.sync_data()?;
            }
            if round % 5 == 0 {
                medium.open("b", Open::Create)?.write_at(0, &[round])?;
                medium.rename("b", "c")?;
            }
            if round % 7 == 0 {
                medium.sync_names()?;
            }
        }
        Ok(())
    };
    let medium = FaultyMedium::new(1).recording();
    work(&medium).unwrap();
    let trace = medium.trace().unwrap();
    assert_eq!(trace.boundaries(), medium.boundaries());
    for boundary in 0..=trace.boundaries() {
        let stopped = FaultyMedium::new(1);
        stopped.stop_at(boundary);
        assert_eq!(work(&stopped).is_err(), boundary < trace.boundaries());
        let replay = trace.at(boundary);
        for seed in 0..5 {
            let (real, replayed) = (stopped.crash(seed).image(), replay.crash(seed).image());
            assert!(real.names().eq(replayed.names()), "boundary {boundary}");
            for name in real.names() {
                assert_eq!(real.read(name), replayed.read(name), "boundary {boundary}, `{name}`");
            }
        }
    }
}
