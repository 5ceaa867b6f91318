//! The tables of a segment, their keys, and what redb's errors mean.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
};

use graft_core::{GroupId, Index, StoreError};
use redb::TableDefinition;

use super::{backend::Backend, pages::Pages};

/// Chunks by group, first index and part; and the head.
pub(super) const LOG: TableDefinition<'_, &[u8; 20], &[u8]> = TableDefinition::new("log");
/// Facts by group and kind.
pub(super) const FACTS: TableDefinition<'_, &[u8; 9], &[u8]> = TableDefinition::new("facts");

/// What an error in the pages of the one or the other names.
pub(super) const LOG_PAGES: Pages = Pages::of("log");
pub(super) const FACTS_PAGES: Pages = Pages::of("facts");
pub(super) const BALLAST_PAGES: Pages = Pages::of("ballast");

/// One value that does nothing but take space.
pub(super) const BALLAST: TableDefinition<'_, u8, &[u8]> = TableDefinition::new("ballast");

/// The head is kept among the chunks, behind all of them: a table of its own would cost each commit
/// two more pages. No group has this number.
pub(super) const HEAD: [u8; 20] = [0xff; 20];

/// Where a segment of one group is kept.
pub(super) const GROUP: GroupId = GroupId(0);

pub(super) fn key(group: GroupId, first: Index, part: u32) -> [u8; 20] {
    let mut key = [0; 20];
    key[..8].copy_from_slice(&group.0.to_be_bytes());
    key[8..16].copy_from_slice(&first.0.to_be_bytes());
    key[16..].copy_from_slice(&part.to_be_bytes());
    key
}

/// Group, first index and part of a key.
pub(super) fn place_of(key: &[u8; 20]) -> (GroupId, Index, u32) {
    let mut fields = [0; 8];
    fields.copy_from_slice(&key[..8]);
    let group = GroupId(u64::from_be_bytes(fields));
    fields.copy_from_slice(&key[8..16]);
    let first = Index(u64::from_be_bytes(fields));
    let mut part = [0; 4];
    part.copy_from_slice(&key[16..]);
    (group, first, u32::from_be_bytes(part))
}

/// What redb's own words mean, where it was at these pages.
pub(super) fn translate(
    backend: &Backend,
    pages: &Pages,
    action: &'static str,
    error: impl Into<redb::Error>,
) -> StoreError {
    match error.into() {
        // The disk is asked for what it does not have only where a page names a page that cannot
        // be.
        redb::Error::Io(source) if source.kind() != io::ErrorKind::UnexpectedEof => {
            StoreError::Io { action, source }
        }
        redb::Error::PreviousIo | redb::Error::DatabaseClosed => match backend.failure() {
            Some(failure) => StoreError::Io { action: failure.action, source: failure.error() },
            None => corrupt_pages(backend, pages, "an earlier read failed".into()),
        },
        other => corrupt_pages(backend, pages, other.to_string()),
    }
}

pub(super) fn corrupt_pages(backend: &Backend, pages: &Pages, reason: String) -> StoreError {
    StoreError::Corrupt { location: format!("{}, {pages}", backend.name()), reason }
}

/// Runs what reads `pages`, of which none was checked since it was read: where they are not what
/// was written, redb may panic.
pub(super) fn guarded<T>(
    backend: &Backend,
    pages: &Pages,
    work: impl FnOnce() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let reason = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "redb panicked".to_owned());
        Err(corrupt_pages(backend, pages, reason))
    })
}
