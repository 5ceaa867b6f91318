//! Where the servers of a test keep their logs, from one start to the next.

#[cfg(feature = "redb")]
use std::sync::Arc;

use graft::{LogStore, ServerName, StoreError};

use super::Disks;
#[cfg(feature = "redb")]
use super::directory::Directory;

/// A store for each server, found again by its name.
#[derive(Clone)]
pub struct Stores {
    disks: Disks,
    #[cfg(feature = "redb")]
    directory: Arc<Directory>,
    is_on_disk: fn(&str) -> bool,
}

impl Stores {
    /// All in memory, where they outlive their servers.
    pub fn memory() -> Self {
        Self::of(|_| false)
    }

    /// All on the disk.
    #[cfg(feature = "redb")]
    pub fn redb() -> Self {
        Self::of(|_| true)
    }

    /// `server2` in memory, the others on the disk.
    #[cfg(feature = "redb")]
    pub fn mixed() -> Self {
        Self::of(|server| server != "server2")
    }

    fn of(is_on_disk: fn(&str) -> bool) -> Self {
        Self {
            disks: Disks::default(),
            #[cfg(feature = "redb")]
            directory: Arc::new(Directory::new()),
            is_on_disk,
        }
    }

    /// The store of `server`. One on the disk is open in one place at a time.
    pub fn open(&self, server: &str) -> Result<Box<dyn LogStore>, StoreError> {
        #[cfg(feature = "redb")]
        if (self.is_on_disk)(server) {
            return Ok(graft::store::redb(self.directory.of(server))?);
        }
        assert!(!(self.is_on_disk)(server), "this build has no stores on the disk");
        Ok(Box::new(self.disks.of(server)))
    }

    /// For the servers of one process, whose stores are opened together.
    pub fn opener(
        &self,
    ) -> impl Fn(&ServerName) -> Result<Box<dyn LogStore>, StoreError> + Send + Sync + use<> {
        let stores = self.clone();
        move |name| stores.open(name.as_str())
    }
}
