//! A medium that counts what becomes of spare files, which it knows by their names.

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use graft_storage::medium::{LockGuard, Medium, MediumFile, Open};

/// What became of spare files, on all media that count here.
#[derive(Debug, Default)]
pub struct Spares {
    /// New files.
    made: AtomicU64,
    /// Files of segments that were purged.
    recycled: AtomicU64,
    /// Those of them that became segments.
    used: AtomicU64,
    /// Segments whose file was new when they were begun.
    unprepared: AtomicU64,
}

impl Spares {
    /// Each way that a segment's file can go was gone.
    pub fn check_all_ways(&self) {
        for count in [&self.made, &self.recycled, &self.used, &self.unprepared] {
            assert!(count.load(Ordering::Relaxed) > 0, "{self}");
        }
    }

    /// How many files of purged segments became spare files.
    pub fn recycled(&self) -> u64 {
        self.recycled.load(Ordering::Relaxed)
    }
}

impl fmt::Display for Spares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [made, recycled, used, unprepared] =
            [&self.made, &self.recycled, &self.used, &self.unprepared]
                .map(|count| count.load(Ordering::Relaxed));
        write!(f, "spares: made={made} recycled={recycled} used={used} unprepared={unprepared}")
    }
}

fn is_spare(name: &str) -> bool {
    name.starts_with("spare")
}

/// The medium `inner`, counting.
#[derive(Debug)]
pub struct Counted {
    inner: Arc<dyn Medium>,
    spares: Arc<Spares>,
}

impl Counted {
    pub fn new(inner: Arc<dyn Medium>, spares: &Arc<Spares>) -> Self {
        Self { inner, spares: Arc::clone(spares) }
    }
}

impl Medium for Counted {
    fn open(&self, name: &str, how: Open) -> io::Result<Box<dyn MediumFile>> {
        let file = self.inner.open(name, how)?;
        if is_spare(name) && how == Open::CreateNew {
            self.spares.made.fetch_add(1, Ordering::Relaxed);
        }
        Ok(file)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)?;
        let count = match (is_spare(from), is_spare(to)) {
            (false, true) => &self.spares.recycled,
            (true, false) => &self.spares.used,
            _ => &self.spares.unprepared,
        };
        count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.inner.sync_names()
    }

    fn lock(&self) -> io::Result<LockGuard> {
        self.inner.lock()
    }

    fn poison(&self, reason: &str) {
        self.inner.poison(reason);
    }

    fn poisoned(&self) -> Option<String> {
        self.inner.poisoned()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
