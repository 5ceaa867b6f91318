//! The lanes to the store: at most one write, and the loads that are under way.
//!
//! Their futures live here and are polled in the node's own turn, so a store that is ready at once
//! costs no wake-up and no task.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use super::StopReason;
use crate::{
    Entries, Loaded, LogStore, StoreError, Write,
    raft::{Load, LoadId, Mutant, Switch, WriteBatch, WriteId},
};

type Stored<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// The store and what it is doing.
pub(super) struct Lanes<'a> {
    store: &'a dyn LogStore,
    write: Option<(WriteId, Stored<'a, Vec<Write>>)>,
    loads: Vec<(LoadId, Stored<'a, Loaded>)>,
    switch: Switch,
}

impl<'a> Lanes<'a> {
    pub(super) const fn new(store: &'a dyn LogStore, switch: Switch) -> Self {
        Self { store, write: None, loads: Vec::new(), switch }
    }

    /// Begins a write. [`poll_write`](Self::poll_write) must follow in the same turn.
    pub(super) fn begin_write(&mut self, batch: WriteBatch) {
        assert!(self.write.is_none(), "a write was ordered before the last one was durable");
        self.write = Some((batch.id, self.store.write(batch.writes)));
    }

    /// The write that has become durable, if one has.
    ///
    /// # Errors
    ///
    /// The store failed: the node must stop.
    pub(super) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
    ) -> Result<Option<WriteId>, StopReason> {
        let Some((id, write)) = &mut self.write else {
            return Ok(None);
        };
        let id = *id;
        match write.as_mut().poll(context) {
            Poll::Pending => Ok(None),
            Poll::Ready(Ok(_)) => {
                self.write = None;
                Ok(Some(id))
            }
            Poll::Ready(Err(_)) if self.switch.is(Mutant::StoreErrorIgnored) => {
                self.write = None;
                Ok(Some(id))
            }
            Poll::Ready(Err(error)) => {
                self.write = None;
                Err(StopReason::store(self.store.place(), "write", &error))
            }
        }
    }

    /// Begins a load. [`poll_load`](Self::poll_load) must follow in the same turn.
    pub(super) fn begin_load(&mut self, load: Load) {
        let read = self.store.read(load.range, load.max_bytes);
        self.loads.push((load.id, read));
    }

    /// The next load that is over, if one is. Nothing where the range is gone from the log by now.
    ///
    /// # Errors
    ///
    /// The store failed: the node must stop.
    pub(super) fn poll_load(
        &mut self,
        context: &mut Context<'_>,
    ) -> Result<Option<(LoadId, Entries)>, StopReason> {
        for at in 0..self.loads.len() {
            let (id, load) = &mut self.loads[at];
            let id = *id;
            let Poll::Ready(outcome) = load.as_mut().poll(context) else {
                continue;
            };
            // The order of what is left decides only who is looked at first.
            drop(self.loads.swap_remove(at));
            return match outcome {
                Ok(Loaded::Entries(entries)) => Ok(Some((id, entries))),
                Ok(Loaded::Compacted(_)) | Err(StoreError::OutOfRange { .. }) => {
                    Ok(Some((id, Entries::new())))
                }
                Err(error) => Err(StopReason::store(self.store.place(), "read the log", &error)),
            };
        }
        Ok(None)
    }
}
