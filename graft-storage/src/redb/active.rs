//! The file that is written, as it is on the disk: redb answers from its own memory what it has written or
//! read before, so a bit that turned around below would show only once the store is opened again.

use std::{fmt, io, ops::ControlFlow, sync::Arc};

use graft_core::StoreError;

use super::{
    reader::SEALED_CACHE_BYTES,
    segment::Segment,
    shared::{Published, Shared},
    witness::{self, Witness},
};
use crate::medium::{MediumFile, Open};

/// How often the next file is looked at where the log has gone on in it meanwhile. What was left is sealed,
/// and read like any other.
const MAX_FILES: usize = 3;

/// What was read of the file that is written.
pub(super) struct Checked {
    /// How many bytes it had: zero where the log goes on in new files faster than one is read.
    pub(super) bytes: u64,
    /// What the store was when it was that file. Entries before its own are in files that are sealed.
    pub(super) published: Arc<Published>,
}

/// Reads the file that is written, all of it, and the witness of `shared`, and checks what was read as it is
/// when a store is opened. `None` where `step`, which is told how many bytes were read, says that it is enough.
///
/// Writers wait only while the blocks are read that they wrote in the meantime.
pub(super) fn check(
    shared: &Shared,
    mut step: impl FnMut(usize) -> bool,
) -> Result<Option<Checked>, StoreError> {
    let published = || shared.published().ok_or(StoreError::NotBorn);
    for _ in 0..MAX_FILES {
        let published = published()?;
        let checked = check_published(shared, &published, &mut step);
        let has_moved = || {
            let now = shared.published();
            now.is_none_or(|now| now.active.number != published.active.number)
        };
        match checked {
            // A file that was left may have been purged and be in use again.
            Err(_) if has_moved() => {}
            Err(error) => return Err(error),
            Ok(bytes) => {
                return Ok(bytes.map(|bytes| Checked { bytes, published }));
            }
        }
    }
    Ok(Some(Checked { bytes: 0, published: published()? }))
}

fn check_published(
    shared: &Shared,
    published: &Published,
    step: &mut dyn FnMut(usize) -> bool,
) -> Result<Option<u64>, StoreError> {
    let active = &published.active;
    let action = "read the file that is written";
    let copied = active.backend().copy(step);
    let Some(bytes) = copied.map_err(|source| StoreError::Io { action, source })? else {
        return Ok(None);
    };
    let length = bytes.len() as u64;
    let file = Box::new(Copied(bytes));
    let copy = Segment::open_file(&shared.medium, active.number, file, SEALED_CACHE_BYTES, None)?;
    let view = copy.view()?;
    view.check_owner(&published.identity)?;
    let state = view.state()?;
    if state.sequence < published.sequence {
        return Err(StoreError::Corrupt {
            location: copy.place_of_head(),
            reason: format!(
                "it is of commit {}, commit {} was acknowledged",
                state.sequence, published.sequence
            ),
        });
    }
    let outline = &state.outline;
    outline.decoded_memberships()?;
    let first = state.begin.max(outline.compacted.index.next());
    if first <= outline.last.index {
        let mut stale = None;
        let _: ControlFlow<()> = view.entries(first..outline.last.index.next(), &mut |entry| {
            let log_id = entry.log_id;
            if outline.term_at(log_id.index) == Some(log_id.term) {
                return ControlFlow::Continue(());
            }
            stale = Some(log_id);
            ControlFlow::Break(())
        })?;
        if let Some(found) = stale {
            let reason = format!("it is of term {}, the log has another there", found.term);
            return Err(view.corrupt_entry(found.index, reason));
        }
    }
    check_witness(shared, published)?;
    Ok(Some(length))
}

/// What the witness says may be less than what was acknowledged: it is written behind. But it must say
/// something, and be this store's.
fn check_witness(shared: &Shared, published: &Published) -> Result<(), StoreError> {
    let corrupt = |reason| StoreError::Corrupt { location: witness::NAME.into(), reason };
    let opened = Witness::open(&*shared.medium, Open::Read);
    let opened = opened.map_err(|source| StoreError::Io { action: "read the witness", source })?;
    let missing = || corrupt("the file is missing".into());
    let mut found = opened.ok_or_else(missing)?.map_err(corrupt)?;
    let active = &published.active;
    found.check_owner(&published.identity, active.number, active.version).map_err(corrupt)
}

/// The bytes of a file at one moment.
struct Copied(Vec<u8>);

impl fmt::Debug for Copied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Copied({} bytes)", self.0.len())
    }
}

impl MediumFile for Copied {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).ok();
        let found = from.and_then(|from| self.0.get(from..from.checked_add(into.len())?));
        into.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, _offset: u64, _bytes: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn set_len(&self, _length: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
mod tests {
    use graft_core::{Entry, EntryKind, Index, LogId, LogTime};

    use super::*;
    use crate::{
        conformance::samples::identity,
        medium::{FaultyMedium, Medium},
        redb::{
            facts::{Fact, State, VERSION},
            segment::{Changes, file_name},
        },
    };

    /// A segment, and what it was given.
    struct Log {
        medium: Arc<dyn Medium>,
        segment: Segment,
        state: State,
    }

    impl Log {
        fn new() -> Self {
            let medium: Arc<dyn Medium> = Arc::new(FaultyMedium::new(1));
            let mut state = State::newborn(identity());
            state.active = 1;
            state.advance(&Fact::STAMPED);
            let name = file_name(1);
            let file = medium.open(&name, Open::CreateNew).unwrap();
            let changes = Changes { facts: Fact::ALL.to_vec(), ..Changes::default() };
            let segment =
                Segment::create(&medium, &name, file, (1 << 20, 4000), &changes, &state).unwrap();
            Self { medium, segment, state }
        }

        /// Puts entries of 3,000 bytes in the place of what the log has from `first` on.
        fn append(&mut self, term: u64, first: u64, count: u64) {
            let entry = |index| Entry {
                log_id: LogId::new(term, index),
                time: LogTime(0),
                kind: EntryKind::Plain,
                payload: vec![term.to_le_bytes()[0]; 3000].into(),
            };
            let entries: graft_core::Entries = (first..first + count).map(entry).collect();
            self.state.outline.append(&entries);
            let facts = vec![Fact::Terms];
            self.state.advance(&facts);
            let truncate_from = Some(Index(first));
            let mut changes = Changes { truncate_from, entries, facts, ..Changes::default() };
            changes.lay_out(VERSION);
            self.segment.commit(&changes, &self.state, &mut Vec::new()).unwrap();
        }
    }

    /// Between two pieces there are so many commits that pages are freed and written again, which no commit that
    /// is in one part of the file could make sense of.
    #[test]
    fn a_copy_that_is_made_while_commits_go_on_is_the_file_at_its_end() {
        let mut log = Log::new();
        for term in 1..40 {
            log.append(term, (term - 1) * 20 + 1, 20);
        }
        let mut term = 40;
        let backend = log.segment.backend().clone();
        let mut steps = 0;
        let copied = backend.copy(&mut |_| {
            steps += 1;
            for _ in 0..10 {
                log.append(term, 780 - term * 3, 60);
                term += 1;
            }
            true
        });
        let bytes = copied.unwrap().unwrap();
        assert!(steps > 4 && bytes.len() as u64 == log.segment.length(), "{steps} steps");
        let copy = Segment::open_file(&log.medium, 1, Box::new(Copied(bytes)), 1 << 20, None);
        let copy = copy.unwrap();
        let view = copy.view().unwrap();
        assert_eq!(view.head().unwrap(), log.state.head());
        let found = view.state().unwrap();
        let mut terms = Vec::new();
        let all = Index(1)..found.outline.last.index.next();
        let end = view.entries(all, &mut |entry| {
            assert_eq!(found.outline.term_at(entry.log_id.index), Some(entry.log_id.term));
            terms.push(entry.log_id.term);
            ControlFlow::Continue(())
        });
        assert!(end.unwrap().is_continue() && terms.len() > 100);
    }

    #[test]
    fn a_copy_ends_where_it_is_enough() {
        let log = Log::new();
        assert!(log.segment.backend().copy(&mut |_| false).unwrap().is_none());
    }
}
