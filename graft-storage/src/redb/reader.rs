//! The thread that does everything that may take long and is no commit: it reads, stages snapshots
//! and removes files.

use std::{ops::ControlFlow, ops::Range, sync::Arc};

use bytes::Bytes;
use graft_core::{Entries, Entry, Index, Loaded, SnapshotChunk, StoreError};
use tokio::sync::{
    mpsc::{self, error::TryRecvError},
    oneshot,
};

use super::{
    check::Pacer,
    facts::Sealed,
    segment::{self, Segment},
    shared::{Beside, Published, Shared},
    view::View,
};
use crate::{medium::Open, outline::term_in};

/// How many sealed segments are kept open.
const MAX_OPEN: usize = 4;

/// How much memory redb may use for pages of a sealed segment: what is read is read in order, once.
pub(super) const SEALED_CACHE_BYTES: usize = 1 << 20;

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the thread is asked for.
pub(super) enum Load {
    Read(Range<Index>, usize, Reply<Loaded>),
    ReadSnapshot {
        id: u64,
        offset: u64,
        max_bytes: usize,
        reply: Reply<Bytes>,
    },
    Stage {
        generation: u64,
        chunk: Box<SnapshotChunk>,
        reply: Reply<()>,
    },
    Remove(Vec<String>),
    /// A file for the next segment.
    MakeSpare,
}

/// The thread that reads.
pub(super) struct Reader {
    shared: Arc<Shared>,
    /// Sealed segments that are open, least recently used first.
    open: Vec<Arc<Segment>>,
    /// Where it is to read slowly.
    pacer: Option<Arc<Pacer>>,
    /// Where it is not the thread that removes files. Let go of behind the segments that are open.
    _beside: Option<Beside>,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, open: Vec::new(), pacer: None, _beside: None }
    }

    /// One for another thread, which rests while it reads the files of sealed segments.
    pub(super) fn paced(shared: Arc<Shared>, pacer: Arc<Pacer>) -> Self {
        let beside = Some(Beside::new(Arc::clone(&shared)));
        Self { shared, open: Vec::new(), pacer: Some(pacer), _beside: beside }
    }

    /// Does what it is asked for until nobody is left who could ask.
    pub(super) fn run(mut self, mut loads: mpsc::Receiver<Load>) {
        let mut filling = None;
        loop {
            let load = if filling.is_none() {
                loads.blocking_recv().ok_or(TryRecvError::Disconnected)
            } else {
                loads.try_recv()
            };
            match load {
                Ok(Load::MakeSpare) => {
                    let Shared { medium, spare, options, .. } = &*self.shared;
                    // What was wanted earlier and is still being made is as good.
                    let begin = || spare.begin(&**medium, options.preallocated_bytes);
                    filling = filling.or_else(begin);
                }
                Ok(load) => self.serve(load),
                Err(TryRecvError::Empty) => {
                    let Shared { medium, spare, .. } = &*self.shared;
                    filling = filling.and_then(|filling| spare.go_on(&**medium, filling));
                }
                Err(TryRecvError::Disconnected) => return,
            }
        }
    }

    fn serve(&mut self, load: Load) {
        // Whoever does not wait any more does not mind.
        match load {
            Load::Read(range, max_bytes, reply) => {
                let _ = reply.send(self.read(&range, max_bytes));
            }
            Load::ReadSnapshot { id, offset, max_bytes, reply } => {
                let _ = reply.send(self.read_snapshot(id, offset, max_bytes));
            }
            Load::Stage { generation, chunk, reply } => {
                let _ = reply.send(self.stage(generation, *chunk));
            }
            Load::Remove(names) => self.remove(&names),
            Load::MakeSpare => {}
        }
    }

    pub(super) fn published(&self) -> Result<Arc<Published>, StoreError> {
        self.shared.published().ok_or(StoreError::NotBorn)
    }

    fn stage(&self, generation: u64, chunk: SnapshotChunk) -> Result<(), StoreError> {
        self.published()?;
        self.shared.check_sound()?;
        // Under the lock: a recovery fences, and forgets what was staged, in one step.
        let mut snapshots = self.shared.snapshots();
        self.shared.check_owner(generation)?;
        snapshots.stage(&*self.shared.medium, chunk)
    }

    fn read_snapshot(&self, id: u64, offset: u64, max_bytes: usize) -> Result<Bytes, StoreError> {
        let published = self.published()?;
        let snapshot = published.snapshot.as_ref();
        let snapshot = snapshot.filter(|snapshot| snapshot.installed.meta.id == id);
        snapshot.ok_or(StoreError::NoSnapshot { id })?.read(offset, max_bytes)
    }

    /// Files that cannot be removed now are removed when the store is recovered by the next process.
    fn remove(&mut self, names: &[String]) {
        self.open.retain(|segment| !names.iter().any(|name| name == segment.name()));
        let Shared { medium, spare, options, .. } = &*self.shared;
        for name in names {
            let can_be_used = segment::number_of(name).is_some() && self.shared.has_one_reader();
            if !can_be_used || !spare.recycle(&**medium, name, options.preallocated_bytes) {
                let _ = medium.remove(name);
            }
        }
    }

    /// What [`LogStore::read`](graft_core::LogStore::read) promises.
    ///
    /// The entries are those that are published, by index and term, which say which entry it is.
    /// They are taken from the active segment as it is, and that may be a commit ahead. Where that
    /// commit took one of them away there is no answer before it is published itself.
    ///
    /// An error counts unless it is explained by what was purged or truncated meanwhile: commits that did
    /// neither leave what is read as it was, and do not excuse anything.
    pub(super) fn read(
        &mut self,
        range: &Range<Index>,
        max_bytes: usize,
    ) -> Result<Loaded, StoreError> {
        /// Commits may take entries away and bring the same ones back between two looks, if hardly twice.
        const MOST_UNEXPLAINED: u32 = 8;
        let mut unexplained = 0;
        loop {
            let published = self.published()?;
            let Published { compacted, last, .. } = *published;
            if range.is_empty() || range.start > last.index {
                return Err(StoreError::OutOfRange { range: range.clone(), last: last.index });
            }
            if range.start <= compacted.index {
                return Ok(Loaded::Compacted(compacted));
            }
            let range = range.start..range.end.min(last.index.next());
            let Failed { sealed, error } =
                match self.read_published(&published, range.clone(), max_bytes) {
                    Ok(entries) => return Ok(Loaded::Entries(entries)),
                    Err(failed) => failed,
                };
            if let Some(sealed) = sealed {
                // Its file goes after it was published that nothing refers to it any more.
                if self.published()?.sealed.contains(&sealed) {
                    return Err(error);
                }
                continue;
            }
            if self.is_latest(&published) {
                if !is_behind(&published) {
                    return Err(error);
                }
                self.shared.wait_for_news(&published)?;
            }
            if !published.differs_in(&range, &*self.published()?) {
                unexplained += 1;
                if unexplained == MOST_UNEXPLAINED {
                    return Err(error);
                }
            }
        }
    }

    fn is_latest(&self, published: &Published) -> bool {
        self.shared.published().is_some_and(|now| now.sequence == published.sequence)
    }

    fn read_published(
        &mut self,
        published: &Published,
        range: Range<Index>,
        max_bytes: usize,
    ) -> Result<Entries, Failed> {
        let mut taken = Taken::new(published, max_bytes);
        let mut next = range.start;
        while next < range.end.min(published.begin) {
            let found = published.sealed.iter().find(|sealed| next <= sealed.last);
            let Some(sealed) = found.filter(|sealed| sealed.first <= next) else {
                let place = "table facts, record sealed segments";
                let location = format!("{}, {place}", published.active.name());
                let reason = format!("no segment holds entry {next}");
                let error = StoreError::Corrupt { location, reason };
                return Err(Failed { sealed: None, error });
            };
            let end = sealed.last.next().min(range.end);
            let segment = self.sealed(sealed);
            let taken_all = segment.and_then(|segment| taken.from(&segment.view()?, next..end));
            let taken_all = taken_all.map_err(|error| Failed { sealed: Some(*sealed), error })?;
            if taken_all.is_break() {
                return Ok(taken.entries.into());
            }
            next = end;
        }
        if next < range.end {
            let view = published.active.view();
            let taken_all = view.and_then(|view| taken.from(&view, next..range.end));
            let _: ControlFlow<()> = taken_all.map_err(|error| Failed { sealed: None, error })?;
        }
        Ok(taken.entries.into())
    }

    /// A sealed segment, opened where it is not open yet.
    fn sealed(&mut self, sealed: &Sealed) -> Result<Arc<Segment>, StoreError> {
        // redb does not go on with a file once a read of it has failed, which is no reason not to try again.
        self.open.retain(|segment| segment.backend().failure().is_none());
        let at = self.open.iter().position(|segment| segment.number == sealed.segment);
        let segment = match at {
            Some(at) => self.open.remove(at),
            None => Arc::new(self.open_sealed(sealed)?),
        };
        if self.open.len() == MAX_OPEN {
            self.open.remove(0);
        }
        self.open.push(Arc::clone(&segment));
        Ok(segment)
    }

    /// A sealed segment, every page of it checked, as of the commit with which it was sealed.
    fn open_sealed(&self, sealed: &Sealed) -> Result<Segment, StoreError> {
        let Sealed { segment, sequence, .. } = *sealed;
        let pacer = self.pacer.as_ref().map(|pacer| (Arc::clone(pacer), Arc::clone(&self.shared)));
        let medium = &self.shared.medium;
        let segment = Segment::open(medium, segment, Open::Read, SEALED_CACHE_BYTES, pacer)?;
        let view = segment.view()?;
        view.check_owner(&self.published()?.identity)?;
        let found = view.head()?.sequence;
        drop(view);
        if found == sequence {
            return Ok(segment);
        }
        Err(StoreError::Corrupt {
            location: segment.place_of_head(),
            reason: format!(
                "it is of commit {found}, the segment was sealed with commit {sequence}"
            ),
        })
    }
}

/// Why a read found nothing, and in which sealed segment, if in one.
struct Failed {
    sealed: Option<Sealed>,
    error: StoreError,
}

/// Whether the active segment holds a commit that is not published yet. Where it does not, what was
/// read of it before was what is published.
fn is_behind(published: &Published) -> bool {
    let head = published.active.view().and_then(|view| view.head());
    head.is_ok_and(|head| head.sequence != published.sequence)
}

/// The entries that a read has found so far.
struct Taken<'a> {
    published: &'a Published,
    max_bytes: usize,
    bytes: usize,
    entries: Vec<Entry>,
}

impl<'a> Taken<'a> {
    fn new(published: &'a Published, max_bytes: usize) -> Self {
        Self { published, max_bytes, bytes: 0, entries: Vec::new() }
    }

    /// Takes what fits of `range`, and says whether it all did.
    fn from(
        &mut self,
        view: &View<'_>,
        range: Range<Index>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let mut stale = None;
        let taken = view.entries(range, &mut |entry| {
            let log_id = entry.log_id;
            if term_in(&self.published.terms, log_id.index) != Some(log_id.term) {
                stale = Some(log_id);
                return ControlFlow::Break(());
            }
            self.bytes = self.bytes.saturating_add(entry.size());
            if self.bytes > self.max_bytes && !self.entries.is_empty() {
                return ControlFlow::Break(());
            }
            self.entries.push(entry);
            ControlFlow::Continue(())
        })?;
        match stale {
            None => Ok(taken),
            Some(found) => {
                let reason = format!("it is of term {}, the log has another there", found.term);
                Err(view.corrupt_entry(found.index, reason))
            }
        }
    }
}
