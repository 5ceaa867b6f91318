//! A directory of a test's own, on the disk that the build is on.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

/// Removed when dropped, unless the test fails: then it stays, to be looked at.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new(what: &str) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{what}-{}-{number}", process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// All files with their bytes, but for the lock.
    pub fn content(&self) -> BTreeMap<String, Vec<u8>> {
        let files = fs::read_dir(&self.0).unwrap().map(Result::unwrap);
        let named = files.map(|file| (file.file_name().into_string().unwrap(), file.path()));
        let known = named.filter(|(name, _)| name != "lock");
        known.map(|(name, path)| (name, fs::read(path).unwrap())).collect()
    }

    /// The sum of the lengths of all files, in bytes.
    pub fn size(&self) -> u64 {
        let files = fs::read_dir(&self.0).unwrap().map(Result::unwrap);
        files.map(|file| file.metadata().map_or(0, |metadata| metadata.len())).sum()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}
