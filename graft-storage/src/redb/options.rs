//! The sizes of a store, and how it is looked after.

use std::time::Duration;

use super::check::Pace;

/// The sizes of a store, and how it is looked after. [`Default`] is right for servers; tests make
/// everything smaller.
///
/// They may differ from one opening of a store to the next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    pub(super) segment_bytes: u64,
    pub(super) preallocated_bytes: u64,
    pub(super) cache_bytes: usize,
    pub(super) scrubs: Option<(Duration, Pace)>,
}

impl Options {
    /// The sizes that servers use.
    #[must_use]
    pub fn new() -> Self {
        Self {
            segment_bytes: SEGMENT_BYTES,
            preallocated_bytes: file_bytes(SEGMENT_BYTES),
            cache_bytes: CACHE_BYTES,
            scrubs: None,
        }
    }

    /// How long a file of the log becomes before the next one is begun, in bytes; at least 64 KiB and at most 16 GiB.
    /// What is opened after a crash is one file of this size; a snapshot frees space in steps of
    /// this size.
    #[must_use]
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes.clamp(64 << 10, 16 << 30);
        self.preallocated_bytes = self.preallocated_bytes.min(file_bytes(self.segment_bytes));
        self
    }

    /// How much of a new file of the log is written ahead, in bytes: writing into space that a file
    /// has is faster than growing it. At most an eighth more than
    /// [`segment_bytes`](Self::segment_bytes), and zero for none.
    #[must_use]
    pub fn preallocated_bytes(mut self, bytes: u64) -> Self {
        self.preallocated_bytes = bytes.min(file_bytes(self.segment_bytes));
        self
    }

    /// [Scrubs](super::RedbStore::scrub) the store by itself, for the first time when it has been open for
    /// `interval`, and again so long after each scrub. What is found is logged: damage as an error of
    /// `tracing`, with the store, the file and the record. Without this it is read only when it is asked for.
    #[must_use]
    pub fn scrub_every(mut self, interval: Duration, pace: Pace) -> Self {
        self.scrubs = Some((interval, pace));
        self
    }

    /// How long the file of a segment may become.
    pub(super) fn file_bytes(&self) -> u64 {
        file_bytes(self.segment_bytes)
    }

    /// How many bytes the ballast of a segment has: its page is not to be the next larger one.
    pub(super) fn ballast_bytes(&self) -> usize {
        usize::try_from(ballast_page(self.segment_bytes) - 64).unwrap_or(0)
    }

    /// How much memory redb may use for pages of the file that is written, in bytes.
    #[must_use]
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

/// Opening after a crash reads one segment whole, so it should be small; beginning a new one costs
/// a few syncs and the writing of its space, so it should not be tiny.
const SEGMENT_BYTES: u64 = 16 << 20;

/// How long the file of a segment becomes: redb begins with 68 KiB and room for the ballast twice,
/// then doubles that, and has a page of its own before it.
const fn file_bytes(segment_bytes: u64) -> u64 {
    let first = FIRST_BYTES + 2 * ballast_page(segment_bytes);
    let mut bytes = first;
    while bytes < segment_bytes {
        bytes *= 2;
    }
    bytes + PAGE
}

/// What redb begins with.
const FIRST_BYTES: u64 = 68 << 10;

const PAGE: u64 = 4096;

/// The page that the ballast of a segment takes: a thirty-second part of it, so that five doublings
/// lead to little more than the whole.
const fn ballast_page(segment_bytes: u64) -> u64 {
    let page = (segment_bytes / 64 + 1).next_power_of_two();
    if page < PAGE { PAGE } else { page }
}

/// As much as the segment that is written has: half of it may hold what a commit writes.
const CACHE_BYTES: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_of_any_size_is_one_that_can_be_made() {
        let of = |bytes| Options::new().segment_bytes(bytes);
        assert_eq!(of(0).segment_bytes, 64 << 10);
        assert_eq!(of(u64::MAX).segment_bytes, 16 << 30);
        assert!(of(u64::MAX).file_bytes() >= 16 << 30);
    }
}
