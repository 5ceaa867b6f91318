//! What the tests share.

// Helpers of tests panic like tests, and not every test needs all of them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    dead_code,
    unreachable_pub
)]

#[cfg(feature = "redb")]
pub mod child;
pub mod directory;
pub mod file_store;
pub mod identity;
#[cfg(feature = "redb")]
pub mod sizes;
#[cfg(feature = "redb")]
pub mod spares;

/// Whether the long versions of the tests are wanted.
pub fn is_long() -> bool {
    std::env::var_os("GRAFT_LONG").is_some_and(|value| !value.is_empty() && value != "0")
}

/// The seeds to try, beginning at `from`: `usual` many, `long` many in a long run, or those that
/// `GRAFT_SEEDS=FROM..TO` says, to look at one again.
pub fn seeds(from: u64, usual: u64, long: u64) -> std::ops::Range<u64> {
    let Ok(wanted) = std::env::var("GRAFT_SEEDS") else {
        return from..from + if is_long() { long } else { usual };
    };
    let bounds =
        wanted.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    bounds.unwrap_or_else(|| panic!("GRAFT_SEEDS is `{wanted}`, it should be like `3..4`"))
}

/// The fault half of the suite on redb stores of these sizes.
#[cfg(feature = "redb")]
pub fn redb_suite(sizes: sizes::Sizes) -> graft_storage::conformance::faults::Suite {
    redb_suite_with_spares(sizes, &std::sync::Arc::default())
}

/// The same, counting what becomes of spare files.
#[cfg(feature = "redb")]
pub fn redb_suite_with_spares(
    sizes: sizes::Sizes,
    counts: &std::sync::Arc<spares::Spares>,
) -> graft_storage::conformance::faults::Suite {
    use std::sync::Arc;
    let (options, counts) = (sizes::options(sizes), Arc::clone(counts));
    let suite = graft_storage::conformance::faults::Suite::new(move |medium| {
        let counted = Arc::new(spares::Counted::new(medium, &counts));
        let store = graft_storage::RedbStore::open_on(counted, &options)?;
        Ok(Arc::new(store) as Arc<dyn graft_core::LogStore>)
    });
    suite.naming(names_a_place)
}

/// A file of the store is named, and where it is one of redb, a table with the record that is wrong, or what
/// belongs to none.
#[cfg(feature = "redb")]
pub fn names_a_place(text: &str) -> bool {
    let behind = |words: &str| text.split_once(words).map(|(_, behind)| behind);
    let entry = ["table log, entry ", "table log, entries from "].into_iter().find_map(behind);
    let is_numbered = entry.is_some_and(|entry| entry.starts_with(|c: char| c.is_ascii_digit()));
    let others = ["table log, head", "table facts, record", "table ballast", "redb's own pages"];
    let is_record = is_numbered || others.iter().any(|place| text.contains(place));
    let is_in_segment = text.contains("log-") && (is_record || names_no_record(text));
    is_in_segment || ["witness", "snapshot-"].iter().any(|file| text.contains(file))
}

/// What holds a page of records together is damaged, so that it cannot be told which ones are there.
#[cfg(feature = "redb")]
pub fn names_no_record(text: &str) -> bool {
    ["log", "facts"]
        .iter()
        .any(|table| text.contains(&format!("table {table}, any of its records")))
}
