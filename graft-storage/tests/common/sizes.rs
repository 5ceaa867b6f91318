//! Stores small enough to be opened ten thousand times.

use graft_storage::redb::Options;

/// The sizes of a store for a test.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    segment_bytes: u64,
    preallocated_bytes: u64,
}

/// A new segment every few batches.
pub const SMALL: Sizes = Sizes { segment_bytes: 128 << 10, preallocated_bytes: 0 };

/// Small segments, each in a file that was made ready before or was another's: spare files come and go.
pub const SPARES: Sizes = Sizes { segment_bytes: 128 << 10, preallocated_bytes: u64::MAX };

/// The same for a life of a few batches: as small as can be.
pub const TINY: Sizes = Sizes { segment_bytes: 64 << 10, preallocated_bytes: u64::MAX };

/// A few segments in a megabyte.
pub const HALF: Sizes = Sizes { segment_bytes: 512 << 10, preallocated_bytes: 128 << 10 };

/// Everything in one segment, whose file grows.
pub const ONE: Sizes = Sizes { segment_bytes: 16 << 20, preallocated_bytes: 256 << 10 };

/// Those of a server.
pub const USUAL: Sizes = Sizes { segment_bytes: 16 << 20, preallocated_bytes: 16 << 20 };

impl Default for Sizes {
    /// For real disks: rotates now and then.
    fn default() -> Self {
        Self { segment_bytes: 1 << 20, preallocated_bytes: 512 << 10 }
    }
}

pub fn options(sizes: Sizes) -> Options {
    Options::new()
        .segment_bytes(sizes.segment_bytes)
        .preallocated_bytes(sizes.preallocated_bytes)
        .cache_bytes(4 << 20)
}
