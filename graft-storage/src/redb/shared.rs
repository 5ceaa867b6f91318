//! What the handles and the threads of one store share.

use std::{
    iter,
    ops::Range,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use graft_core::{Identity, Index, LogId, StoreError, Term};

use super::{
    facts::Sealed,
    options::Options,
    segment::Segment,
    snapshot::{Snapshot, Snapshots},
    spare::Spare,
    writer::Born,
};
use crate::{
    medium::{LockGuard, Medium},
    outline::term_in,
};

/// What the handles and the threads of one store share.
pub(super) struct Shared {
    pub(super) medium: Arc<dyn Medium>,
    pub(super) options: Options,
    /// The generation whose handle may write. It rises with every birth and every recovery.
    generation: AtomicU64,
    published: Mutex<Publication>,
    /// Something was published, or nothing more ever will be.
    news: Condvar,
    /// How many threads [read beside](Beside) the one that removes files.
    beside: AtomicUsize,
    snapshots: Mutex<Snapshots>,
    pub(super) spare: Spare,
    is_closing: AtomicBool,
    _lock: LockGuard,
}

/// What readers may see: always what is durable.
struct Publication {
    latest: Option<Arc<Published>>,
    /// Why nothing more is going to be published, if so.
    end: Option<StoreError>,
}

/// What is durable, as far as readers need it.
#[derive(Clone)]
pub(super) struct Published {
    pub(super) identity: Arc<Identity>,
    pub(super) sequence: u64,
    pub(super) compacted: LogId,
    pub(super) last: LogId,
    pub(super) begin: Index,
    pub(super) active: Arc<Segment>,
    pub(super) sealed: Arc<[Sealed]>,
    pub(super) terms: Arc<[(Index, Term)]>,
    pub(super) snapshot: Option<Arc<Snapshot>>,
}

impl Published {
    /// Whether entries of `range`, all of which this one has, are gone or others in `later`.
    pub(super) fn differs_in(&self, range: &Range<Index>, later: &Self) -> bool {
        let is_there = later.compacted.index < range.start && later.last.index.next() >= range.end;
        let begins = |of: &Self| {
            let within = of.terms.iter().filter(|(begin, _)| range.contains(begin));
            let first = (range.start, term_in(&of.terms, range.start));
            let rest = within.map(|(begin, term)| (*begin, Some(*term)));
            iter::once(first).chain(rest.skip_while(|(begin, _)| *begin == range.start)).collect()
        };
        let [these, those]: [Vec<_>; 2] = [begins(self), begins(later)];
        !is_there || these != those
    }

    pub(super) fn new(born: &Born) -> Self {
        let state = &born.state;
        Self {
            identity: Arc::new(state.identity.clone()),
            sequence: state.sequence,
            compacted: state.outline.compacted,
            last: state.outline.last,
            begin: state.begin,
            active: Arc::clone(&born.active),
            sealed: state.sealed.as_slice().into(),
            terms: state.outline.terms.as_slice().into(),
            snapshot: born.snapshot.clone(),
        }
    }

    /// The same after the commits since, which may have changed the lists only where it is said so.
    pub(super) fn next(&self, born: &Born, new_sealed: bool, new_terms: bool) -> Self {
        let state = &born.state;
        let (sealed, terms) = (state.sealed.as_slice(), state.outline.terms.as_slice());
        Self {
            identity: Arc::clone(&self.identity),
            sequence: state.sequence,
            compacted: state.outline.compacted,
            last: state.outline.last,
            begin: state.begin,
            active: Arc::clone(&born.active),
            sealed: if new_sealed { sealed.into() } else { Arc::clone(&self.sealed) },
            terms: if new_terms { terms.into() } else { Arc::clone(&self.terms) },
            snapshot: born.snapshot.clone(),
        }
    }
}

impl Shared {
    pub(super) fn new(
        medium: Arc<dyn Medium>,
        options: Options,
        lock: LockGuard,
        snapshots: Snapshots,
        published: Option<Published>,
    ) -> Self {
        Self {
            medium,
            options,
            generation: AtomicU64::new(1),
            published: Mutex::new(Publication { latest: published.map(Arc::new), end: None }),
            news: Condvar::new(),
            beside: AtomicUsize::new(0),
            snapshots: Mutex::new(snapshots),
            spare: Spare::default(),
            is_closing: AtomicBool::new(false),
            _lock: lock,
        }
    }

    /// For reading alone.
    pub(super) fn reading(
        medium: Arc<dyn Medium>,
        options: Options,
        lock: LockGuard,
        born: &Born,
    ) -> Self {
        let published = Some(Published::new(born));
        let shared = Self::new(medium, options, lock, Snapshots::new(0), published);
        shared.end(StoreError::Backend { reason: "it is open for reading alone".into() });
        shared
    }

    /// Whether the last handle is gone: what takes long should end.
    pub(super) fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Relaxed)
    }

    pub(super) fn close(&self) {
        self.is_closing.store(true, Ordering::Relaxed);
    }

    fn publication(&self) -> MutexGuard<'_, Publication> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn published(&self) -> Option<Arc<Published>> {
        self.publication().latest.clone()
    }

    pub(super) fn publish(&self, published: Published) {
        let published = Arc::new(published);
        let before = self.publication().latest.replace(published);
        self.news.notify_all();
        // The last reader of a sealed segment closes it; not while others wait.
        drop(before);
    }

    /// The same for a store that was opened again, whatever had ended it.
    pub(super) fn publish_anew(&self, published: Published) {
        self.publication().end = None;
        self.publish(published);
    }

    /// Nothing more is going to be published, and this is why. The first reason stays.
    pub(super) fn end(&self, reason: StoreError) {
        self.publication().end.get_or_insert(reason);
        self.news.notify_all();
    }

    /// Waits until something newer than `seen` is published. That is for whoever has found in the
    /// active segment what is not published yet: it will be, or the store can write no more, and then
    /// this says why. It takes as long as the disk takes to be given the witness.
    pub(super) fn wait_for_news(&self, seen: &Published) -> Result<(), StoreError> {
        let is_new = |publication: &Publication| {
            publication.latest.as_ref().is_none_or(|latest| latest.sequence != seen.sequence)
        };
        let nothing_yet =
            |publication: &mut Publication| publication.end.is_none() && !is_new(publication);
        let waited = self.news.wait_while(self.publication(), nothing_yet);
        let publication = waited.unwrap_or_else(PoisonError::into_inner);
        match &publication.end {
            Some(end) if !is_new(&publication) => self.check_sound().and(Err(copy(end))),
            _ => Ok(()),
        }
    }

    /// Whether nobody but the thread that removes files can have one open that is not published.
    pub(super) fn has_one_reader(&self) -> bool {
        self.beside.load(Ordering::SeqCst) == 0
    }

    pub(super) fn snapshots(&self) -> MutexGuard<'_, Snapshots> {
        self.snapshots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fences all handles. The returned generation is that of the one that is next to own the
    /// store.
    pub(super) fn next_generation(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// An error unless the handle of `generation` owns the store.
    pub(super) fn check_owner(&self, generation: u64) -> Result<(), StoreError> {
        let owner = self.generation.load(Ordering::SeqCst);
        if generation == owner { Ok(()) } else { Err(StoreError::Fenced) }
    }

    /// An error where it is not known any more what the disk holds.
    pub(super) fn check_sound(&self) -> Result<(), StoreError> {
        match self.medium.poisoned() {
            None => Ok(()),
            Some(reason) => Err(StoreError::Poisoned { reason }),
        }
    }
}

/// Held by whoever reads beside the thread that removes files. What it reads may be purged meanwhile:
/// a file that is removed can still be read, one that is used again cannot. So none is used again
/// while somebody holds this. Who takes it afterwards finds the file published no more.
pub(super) struct Beside(Arc<Shared>);

impl Beside {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        shared.beside.fetch_add(1, Ordering::SeqCst);
        Self(shared)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.0.beside.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The same error once more, for everybody else who waits.
pub(super) fn copy(error: &StoreError) -> StoreError {
    match error {
        StoreError::Io { action, source } => {
            let source = std::io::Error::new(source.kind(), source.to_string());
            StoreError::Io { action, source }
        }
        StoreError::Corrupt { location, reason } => {
            StoreError::Corrupt { location: location.clone(), reason: reason.clone() }
        }
        StoreError::Poisoned { reason } => StoreError::Poisoned { reason: reason.clone() },
        other => StoreError::Backend { reason: other.to_string() },
    }
}
