//! One commit: what its writes change, and the segment that it begins where the last one is full.

use std::{io, mem, sync::Arc};

use graft_core::{Entries, Index, LogId, StoreError};

use super::{
    facts::{Fact, Sealed, State, VERSION},
    segment::{self, Changes, Segment},
    shared::Shared,
    snapshot::Snapshot,
    spare::{self, Unnamed},
    writer::Born,
};

/// What the name of a file ends with until it is complete.
pub(super) const UNNAMED: &str = ".tmp";

/// The next segment for `state`, with `changes` as its first commit: complete, and durable under
/// its name. Until it has that, the one before is the store.
pub(super) fn begin_segment(
    shared: &Shared,
    state: &mut State,
    mut changes: Changes,
) -> Result<Arc<Segment>, StoreError> {
    let medium = &shared.medium;
    let io = |source: io::Error| {
        medium.poison(&format!("the beginning of a segment: {source}"));
        StoreError::Io { action: "begin a segment", source }
    };
    state.active += 1;
    state.written = changes.lay_out(VERSION);
    state.advance(&Fact::STAMPED);
    changes.facts = Fact::ALL.to_vec();
    let name = segment::file_name(state.active);
    let Unnamed { name: unnamed, file } = match shared.spare.take() {
        Some(spare) => spare,
        None => new_file(shared, state, &name).map_err(io)?,
    };
    let sizes = (shared.options.cache_bytes, shared.options.ballast_bytes());
    let segment = Segment::create(medium, &name, file, sizes, &changes, state)
        .inspect_err(|error| medium.poison(&format!("the beginning of a segment: {error}")))?;
    medium.rename(&unnamed, &name).map_err(io)?;
    medium.sync_names().map_err(io)?;
    tracing::debug!(store = medium.describe(), segment = state.active, "began a segment");
    Ok(Arc::new(segment))
}

/// A file for a segment that is to be called `name`, under another name. Only the first one has
/// space ahead: then nobody waits for a commit yet.
fn new_file(shared: &Shared, state: &State, name: &str) -> io::Result<Unnamed> {
    let unnamed = Unnamed::create(&*shared.medium, format!("{name}{UNNAMED}"))?;
    let length = if state.active == 1 { shared.options.preallocated_bytes } else { 0 };
    spare::fill(unnamed, length)
}

/// What one commit changes.
pub(super) struct Commit {
    pub(super) is_empty: bool,
    pub(super) changes: Changes,
    /// Whether the state's sealed segments, its snapshot or the outline's lists changed.
    pub(super) sealed: bool,
    snapshot: bool,
    pub(super) terms: bool,
    memberships: bool,
    /// Whether a file that it refers to was created.
    pub(super) has_new_file: bool,
    /// Files that nothing refers to once it is durable.
    pub(super) garbage: Vec<String>,
}

impl Default for Commit {
    fn default() -> Self {
        Self {
            is_empty: true,
            changes: Changes::default(),
            sealed: false,
            snapshot: false,
            terms: false,
            memberships: false,
            has_new_file: false,
            garbage: Vec::new(),
        }
    }
}

impl Commit {
    pub(super) fn append(&mut self, state: &mut State, entries: Entries) {
        let Some(first) = entries.first_index() else {
            return;
        };
        self.is_empty = false;
        if first <= state.outline.last.index {
            self.truncate(state, first);
        }
        self.outline(state, |state| state.outline.append(&entries));
        self.changes.entries.append(entries);
    }

    /// The log ends before `index`.
    fn truncate(&mut self, state: &mut State, index: Index) {
        self.changes.entries.truncate_from(index);
        if self.changes.entries.is_empty() {
            let lowest = self.changes.truncate_from.unwrap_or(index).min(index);
            self.changes.truncate_from = Some(lowest);
        }
        if index < state.begin {
            state.begin = index;
            self.keep_sealed(state, |sealed| sealed.first < index);
            if let Some(sealed) = state.sealed.last_mut() {
                sealed.last = sealed.last.min(index.previous());
            }
        }
    }

    /// Lets go of the sealed segments of which nothing counts any more.
    fn keep_sealed(&mut self, state: &mut State, keep: impl Fn(&Sealed) -> bool) {
        self.sealed = true;
        let gone = state.sealed.iter().filter(|sealed| !keep(sealed));
        self.garbage.extend(gone.map(|sealed| segment::file_name(sealed.segment)));
        state.sealed.retain(keep);
    }

    pub(super) fn install(
        &mut self,
        state: &mut State,
        snapshot: &Snapshot,
        before: Option<&Snapshot>,
    ) {
        self.is_empty = false;
        self.snapshot = true;
        self.has_new_file = true;
        self.garbage.extend(before.and_then(Snapshot::name));
        let meta = &snapshot.installed.meta;
        if state.outline.term_at(meta.last.index) != Some(meta.last.term) {
            self.outline(state, |state| state.outline.restart_after(meta.last, meta.time));
            self.changes.entries = Entries::new();
            self.changes.truncate_from = Some(Index(0));
            self.keep_sealed(state, |_| false);
            state.begin = meta.last.index.next();
        }
        state.snapshot = Some(snapshot.installed.clone());
    }

    pub(super) fn compact(&mut self, state: &mut State, upto: LogId) {
        if upto.index <= state.outline.compacted.index {
            return;
        }
        self.is_empty = false;
        self.outline(state, |state| state.outline.compact(upto));
        if state.sealed.first().is_some_and(|sealed| sealed.last <= upto.index) {
            self.keep_sealed(state, |sealed| sealed.last > upto.index);
        }
    }

    /// Puts the commit into a new segment. What still counts of the one before is sealed.
    pub(super) fn rotate(&mut self, born: &mut Born, shared: &Shared) -> Result<(), StoreError> {
        let state = &mut born.state;
        let mut changes = mem::take(&mut self.changes);
        // There is nothing in a new segment that would have to go.
        changes.truncate_from = None;
        let begin = changes.entries.first_index().unwrap_or(state.outline.last.index.next());
        let sealed = Sealed {
            segment: state.active,
            sequence: state.sequence,
            first: state.begin,
            last: begin.previous(),
        };
        if sealed.first <= sealed.last && sealed.last > state.outline.compacted.index {
            state.sealed.push(sealed);
        } else {
            self.garbage.push(segment::file_name(sealed.segment));
        }
        state.begin = begin;
        let active = begin_segment(shared, state, changes)?;
        mem::replace(&mut born.active, active).freeze();
        Ok(())
    }

    fn outline(&mut self, state: &mut State, change: impl FnOnce(&mut State)) {
        let versions =
            |state: &State| (state.outline.terms_version, state.outline.memberships_version);
        let before = versions(state);
        change(state);
        let after = versions(state);
        self.terms |= before.0 != after.0;
        self.memberships |= before.1 != after.1;
    }

    pub(super) fn changed_facts(&self) -> Vec<Fact> {
        let changed = [
            (Fact::Sealed, self.sealed),
            (Fact::Terms, self.terms),
            (Fact::Memberships, self.memberships),
            (Fact::Snapshot, self.snapshot),
        ];
        changed.into_iter().filter(|(_, is_changed)| *is_changed).map(|(fact, _)| fact).collect()
    }
}
