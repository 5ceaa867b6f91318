//! Directories of tests that keep logs on the disk.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use graft::{ClusterBuilder, LogStore, ServerName, StoreError};

/// A directory of its own for each test, which goes with it.
pub struct Directory {
    path: PathBuf,
    is_own: bool,
}

impl Directory {
    pub fn new() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("graft-durable-{}-{number}", process::id()));
        fs::create_dir(&path).unwrap();
        Self { path, is_own: true }
    }

    /// One that another process has made, and keeps.
    pub fn existing(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), is_own: false }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the log of `server` is.
    pub fn of(&self, server: &str) -> PathBuf {
        self.path.join(server)
    }

    pub fn opener(
        &self,
    ) -> impl Fn(&ServerName) -> Result<Box<dyn LogStore>, StoreError> + Send + Sync + use<> {
        let path = self.path.clone();
        move |name| Ok(graft::store::redb(path.join(name.as_str()))?)
    }

    /// The usual servers, with their logs in this directory.
    pub fn cluster(&self) -> ClusterBuilder {
        graft::cluster(super::SERVERS).stores(self.opener())
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if self.is_own {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// All files at `path` and below with their bytes, and the directories, which have none.
pub fn content(path: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut open = vec![path.to_owned()];
    while let Some(path) = open.pop() {
        let is_file = path.is_file();
        if !is_file {
            open.extend(fs::read_dir(&path).unwrap().map(|inside| inside.unwrap().path()));
        }
        let bytes = is_file.then(|| fs::read(&path).unwrap());
        found.insert(path, bytes);
    }
    found
}
