//! Which names mean which clusters, in the whole process.
//!
//! Readers keep a snapshot of the table in their thread and look at one counter to see whether it is
//! still the latest, so a look-up takes no lock and shares no cache line that anybody writes. The
//! table holds no cluster alive.

use std::{
    any::{TypeId, type_name},
    cell::RefCell,
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use graft_client::{Client, WeakClient};
use tokio::runtime::{Handle, Id};

use crate::{
    Entry, RequestError, ServerName, StartError,
    cluster::{Cluster, EntryType},
};

static CLUSTERS: Registry<Cluster> = Registry::new();

thread_local! {
    static SEEN: Snapshot<Cluster> = const { RefCell::new((0, None)) };
}

/// The names of a cluster in the registry of this process.
pub(crate) type ClusterClaim = Claim<Cluster>;

/// The cluster that has a server called `name`, as the caller here sees it.
pub(crate) fn find(name: &str) -> Result<Arc<Cluster>, RequestError> {
    look(name, |home| home.owner.upgrade())
}

/// The client of that cluster, for entries of type `E`, and how large such an entry may be.
pub(crate) fn find_client<E: Entry>(name: &str) -> Result<(Client, usize), RequestError> {
    look(name, |home| {
        // The cluster's end is that of its names, though a request that is open keeps the client.
        let is_there = home.owner.strong_count() > 0;
        is_there.then(|| home.door.enter::<E>()).flatten()
    })?
}

fn look<R>(name: &str, take: impl Fn(&Home<Cluster>) -> Option<R>) -> Result<R, RequestError> {
    let found = SEEN.try_with(|seen| CLUSTERS.look(seen, name, &take));
    // A thread that is ending has no snapshot any more.
    let found = found.unwrap_or_else(|_| CLUSTERS.look(&Snapshot::default(), name, &take));
    found.map_err(|why| {
        let name = name.to_owned();
        match why {
            NotFound::Unknown => RequestError::UnknownServer { name },
            NotFound::Ambiguous => RequestError::AmbiguousServer { name },
        }
    })
}

/// What a request must know of a cluster. It is found beside the cluster: counting who uses the cluster, and then who
/// uses its client, would cost a request twice as much.
#[derive(Clone)]
pub(crate) struct Door {
    client: WeakClient,
    entry: TypeId,
    entry_name: &'static str,
    limit: usize,
}

impl Door {
    pub(crate) fn new(client: &Client, entry: &EntryType, limit: usize) -> Self {
        let client = client.downgrade();
        Self { client, entry: entry.id, entry_name: entry.rust_name, limit }
    }

    /// The client, and how large an entry may be. Entries of another machine are refused before they are archived;
    /// `None`: the client is gone.
    fn enter<E: Entry>(&self) -> Option<Result<(Client, usize), RequestError>> {
        if TypeId::of::<E>() != self.entry {
            let (expected, found) = (self.entry_name.to_owned(), type_name::<E>().to_owned());
            return Some(Err(RequestError::WrongEntry { expected, found }));
        }
        self.client.upgrade().map(|client| Ok((client, self.limit)))
    }
}

/// Gives `cluster` the names of its servers in the runtime `home`.
pub(crate) fn claim(home: Id, cluster: &Arc<Cluster>) -> Result<ClusterClaim, StartError> {
    let names: Vec<ServerName> =
        cluster.servers().iter().map(|server| server.name().clone()).collect();
    CLUSTERS.claim(home, &names, cluster).map_err(|name| StartError::NameInUse { name })
}

/// Who has names.
pub(crate) trait Owner: 'static {
    /// What is found beside it.
    type Door: Clone;

    fn door(&self) -> Self::Door;
}

/// The names of the servers of `T`s. There is one in a process; tests have their own.
pub(crate) struct Registry<T: Owner> {
    /// Counts the changes of the table.
    generation: AtomicU64,
    table: Mutex<Option<Arc<Table<T>>>>,
}

/// Of each name, the runtimes that have it.
pub(crate) type Table<T> = BTreeMap<ServerName, Vec<Home<T>>>;

/// A runtime that has a name.
pub(crate) struct Home<T: Owner> {
    runtime: Id,
    owner: Weak<T>,
    door: T::Door,
}

impl<T: Owner> Clone for Home<T> {
    fn clone(&self) -> Self {
        Self { runtime: self.runtime, owner: Weak::clone(&self.owner), door: self.door.clone() }
    }
}

/// A thread's snapshot of the table.
pub(crate) type Snapshot<T> = RefCell<(u64, Option<Arc<Table<T>>>)>;

/// Why a name means no server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotFound {
    /// Nothing has it.
    Unknown,
    /// Several runtimes have it, and the caller is in none of them.
    Ambiguous,
}

impl<T: Owner> Registry<T> {
    pub(crate) const fn new() -> Self {
        Self { generation: AtomicU64::new(0), table: Mutex::new(None) }
    }

    /// What `name` means to a caller here: the server of its own runtime, else that of the only
    /// runtime that has one. `snapshot` is the calling thread's, for this registry alone.
    ///
    /// Gives what `take` takes there; `None` is as good as nobody.
    fn look<R>(
        &self,
        snapshot: &Snapshot<T>,
        name: &str,
        take: impl FnOnce(&Home<T>) -> Option<R>,
    ) -> Result<R, NotFound> {
        let mut snapshot = snapshot.borrow_mut();
        let (seen, table) = &mut *snapshot;
        if *seen != self.generation.load(Ordering::Acquire) {
            let current = self.lock();
            *seen = self.generation.load(Ordering::Acquire);
            table.clone_from(&current);
        }
        let homes = table.as_ref().and_then(|table| table.get(name));
        let only = match homes.map_or(&[][..], Vec::as_slice) {
            [] => return Err(NotFound::Unknown),
            // The usual case needs no look at the caller's runtime, which costs more than the rest.
            [only] => only,
            several => {
                let here = Handle::try_current().ok().map(|runtime| runtime.id());
                let own = several.iter().find(|home| Some(home.runtime) == here);
                own.ok_or(NotFound::Ambiguous)?
            }
        };
        take(only).ok_or(NotFound::Unknown)
    }

    /// Gives all of `names` in the runtime `home` to `owner`, or says which one is taken there.
    pub(crate) fn claim(
        &'static self,
        home: Id,
        names: &[ServerName],
        owner: &Arc<T>,
    ) -> Result<Claim<T>, ServerName> {
        let mut current = self.lock();
        let mut table = current.as_deref().cloned().unwrap_or_default();
        for name in names {
            let homes = table.entry(name.clone()).or_default();
            if homes.iter().any(|other| other.runtime == home) {
                return Err(name.clone());
            }
            let door = owner.door();
            homes.push(Home { runtime: home, owner: Arc::downgrade(owner), door });
        }
        self.publish(&mut current, table);
        Ok(Claim { registry: self, owner: Arc::downgrade(owner) })
    }

    fn release(&self, owner: &Weak<T>) {
        let mut current = self.lock();
        let mut table = current.as_deref().cloned().unwrap_or_default();
        table.retain(|_, homes| {
            homes.retain(|home| !Weak::ptr_eq(&home.owner, owner));
            !homes.is_empty()
        });
        self.publish(&mut current, table);
    }

    fn publish(&self, current: &mut MutexGuard<'_, Option<Arc<Table<T>>>>, table: Table<T>) {
        **current = Some(Arc::new(table));
        self.generation.fetch_add(1, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Table<T>>>> {
        // The table is replaced as a whole: a panic elsewhere leaves it as good as it was.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Names that were given to somebody. Dropping it frees them.
pub(crate) struct Claim<T: Owner> {
    registry: &'static Registry<T>,
    owner: Weak<T>,
}

impl<T: Owner> Drop for Claim<T> {
    fn drop(&mut self) {
        self.registry.release(&self.owner);
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::{Builder, Runtime};

    use super::*;

    fn registry() -> &'static Registry<&'static str> {
        Box::leak(Box::new(Registry::new()))
    }

    fn runtime() -> Runtime {
        Builder::new_current_thread().build().unwrap()
    }

    impl Owner for &'static str {
        type Door = Self;

        fn door(&self) -> Self {
            self
        }
    }

    fn find(registry: &Registry<&'static str>, name: &str) -> Result<&'static str, NotFound> {
        // A new snapshot each time, as a new thread would have.
        find_in(registry, &Snapshot::default(), name)
    }

    fn find_in(
        registry: &Registry<&'static str>,
        snapshot: &Snapshot<&'static str>,
        name: &str,
    ) -> Result<&'static str, NotFound> {
        registry.look(snapshot, name, |home| {
            let owner = home.owner.upgrade()?;
            assert_eq!(*owner, home.door, "it stands beside its owner");
            Some(*owner)
        })
    }

    fn names(names: &[&str]) -> Vec<ServerName> {
        names.iter().map(|name| ServerName::from(*name)).collect()
    }

    #[test]
    fn a_name_of_one_runtime_is_found_from_everywhere() {
        let (registry, one, other) = (registry(), runtime(), runtime());
        let owner = Arc::new("one");
        let _claim = registry.claim(one.handle().id(), &names(&["a", "b"]), &owner).ok();
        assert_eq!(find(registry, "a"), Ok("one"));
        let _inside = other.enter();
        assert_eq!(find(registry, "b"), Ok("one"));
    }

    #[test]
    fn a_name_of_two_runtimes_means_the_callers_own_and_is_ambiguous_elsewhere() {
        let (registry, one, two, third) = (registry(), runtime(), runtime(), runtime());
        let (first, second) = (Arc::new("first"), Arc::new("second"));
        let _first = registry.claim(one.handle().id(), &names(&["a"]), &first).ok().unwrap();
        let claim = registry.claim(two.handle().id(), &names(&["a"]), &second).ok().unwrap();
        for (runtime, meant) in [(&one, Ok("first")), (&two, Ok("second"))] {
            let _inside = runtime.enter();
            assert_eq!(find(registry, "a"), meant);
        }
        assert_eq!(find(registry, "a"), Err(NotFound::Ambiguous));
        {
            let _inside = third.enter();
            assert_eq!(find(registry, "a"), Err(NotFound::Ambiguous));
        }
        drop(claim);
        assert_eq!(find(registry, "a"), Ok("first"));
    }

    #[test]
    fn a_taken_name_is_refused_and_nothing_of_the_list_is_kept() {
        let (registry, runtime) = (registry(), runtime());
        let (first, second) = (Arc::new("first"), Arc::new("second"));
        let home = runtime.handle().id();
        let _first = registry.claim(home, &names(&["b"]), &first).ok().unwrap();
        let taken = registry.claim(home, &names(&["a", "b"]), &second).err();
        assert_eq!(taken, Some(ServerName::from("b")));
        assert_eq!(find(registry, "a"), Err(NotFound::Unknown));
    }

    #[test]
    fn a_freed_name_is_gone_at_once_for_threads_that_have_seen_it() {
        let (registry, runtime) = (registry(), runtime());
        let owner = Arc::new("owner");
        let snapshot = Snapshot::default();
        let claim = registry.claim(runtime.handle().id(), &names(&["a"]), &owner).ok();
        assert!(find_in(registry, &snapshot, "a").is_ok());
        drop(claim);
        assert_eq!(find_in(registry, &snapshot, "a"), Err(NotFound::Unknown));
    }

    #[test]
    fn a_dead_owner_is_not_found_even_before_its_names_are_free() {
        let (registry, runtime) = (registry(), runtime());
        let owner = Arc::new("owner");
        let _claim = registry.claim(runtime.handle().id(), &names(&["a"]), &owner).ok();
        drop(owner);
        assert_eq!(find(registry, "a"), Err(NotFound::Unknown));
    }
}
