//! Damage in redb's own pages is named by file and table.

use std::{collections::BTreeSet, sync::Arc};

use graft_storage::{
    RedbStore,
    medium::{FaultyMedium, Image},
    redb::Options,
};

use crate::support::{append, born, identity, write};

const FILE: &str = "log-00000000000000000001.redb";

const PAGE: usize = 4096;

fn options() -> Options {
    Options::default().segment_bytes(4 << 20).preallocated_bytes(0).cache_bytes(1 << 20)
}

/// A store in one file, with entries in so many pages that there are inner ones above them.
fn closed() -> Image {
    let medium = FaultyMedium::new(1);
    let store = born(Arc::new(medium.clone()), &options());
    for batch in 0..200 {
        write(&store, vec![append(1, batch * 5 + 1..batch * 5 + 6, 400)]);
    }
    drop(store);
    let image = medium.image();
    assert!(image.names().filter(|name| name.starts_with("log-")).eq([FILE]));
    image
}

/// What opening a store says in which a bit of byte `at` is turned around, if anything.
fn said(image: &Image, at: usize) -> Option<String> {
    let mut image = image.clone();
    assert!(image.flip(FILE, at as u64 * 8));
    let opened = RedbStore::open_on(Arc::new(FaultyMedium::holding(image, 1)), &options());
    opened.err().map(|error| error.to_string())
}

/// Where the bytes are in the file, each time.
fn places(image: &Image, bytes: &[u8]) -> Vec<usize> {
    let file = image.read(FILE).unwrap();
    let found = file.windows(bytes.len()).enumerate().filter(|(_, window)| *window == bytes);
    found.map(|(at, _)| at).collect()
}

/// Old pages, which nothing refers to any more, may hold the same bytes: some of the places count.
#[test]
fn what_is_wrong_with_a_record_is_wrong_in_its_table() {
    let image = closed();
    let (payload, name) = ([77; 300], identity().name);
    // The entries with such a payload.
    let entries = [77, 333, 589, 845].map(|index| format!("pages of table log, entry {index}: "));
    let identity = ["pages of table facts, record identity: ".to_owned()];
    let tables = [("log", &payload[..], &entries[..]), ("facts", name.as_bytes(), &identity[..])];
    for (table, bytes, records) in tables {
        let errors: Vec<String> =
            places(&image, bytes).into_iter().filter_map(|at| said(&image, at)).collect();
        assert!(!errors.is_empty(), "nothing in table {table} matters");
        for error in &errors {
            let is_named = |record: &String| {
                error.replace(" in a faulty medium", "").contains(&format!("{FILE}, {record}"))
            };
            assert!(records.iter().any(is_named), "{error}");
        }
        for record in records {
            let is_named =
                |error: &String| error.replace(" in a faulty medium", "").contains(record.as_str());
            assert!(errors.iter().any(is_named), "none names {record}: {errors:?}");
        }
    }
}

#[test]
fn what_belongs_to_no_table_is_redbs_own() {
    let image = closed();
    // What redb files begin with, the size of its pages, and the roots of both commits.
    for at in [0, 12, 64] {
        let error = said(&image, at).unwrap();
        assert!(error.contains(FILE) && error.contains("redb's own pages"), "{at}: {error}");
    }
    // The list of tables has their names.
    let errors = places(&image, b"ballastfactslog").into_iter().filter_map(|at| said(&image, at));
    let errors: Vec<String> = errors.collect();
    assert!(!errors.is_empty());
    for error in errors {
        assert!(error.contains(&format!("{FILE}, redb's own pages")), "{error}");
    }
}

/// One bit in each page of the file, inner ones included, near its beginning.
#[test]
fn every_page_is_somebodys() {
    let image = closed();
    let length = image.read(FILE).unwrap().len();
    let mut seen = BTreeSet::new();
    for page in 0..length / PAGE {
        for at in [0, 2, 21] {
            let Some(error) = said(&image, page * PAGE + at) else {
                continue;
            };
            let places = ["redb's own pages", "table ballast", "table facts", "table log"];
            let place = places.into_iter().find(|place| error.contains(place));
            assert!(error.contains(FILE), "page {page}: {error}");
            seen.insert(place.unwrap_or_else(|| panic!("page {page}: {error}")));
        }
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
}
