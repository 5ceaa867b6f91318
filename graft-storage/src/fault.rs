//! Switches that make a [`MemoryStore`](crate::MemoryStore) slow, deaf or broken, for tests of
//! whatever stands on it.
//!
//! They are part of the library because the tests that need them are in other crates. All are off
//! until one is turned, and then nothing depends on time or chance: what is held is released by a
//! call, and a held write is a future that this call wakes.
//!
//! ```
//! # use graft_storage::{MemoryStore, conformance::block_on, fault::Fate};
//! let store = MemoryStore::new();
//! let disk = store.faults();
//! disk.hold_writes();
//! // ... a server writes, and dies before its disk has answered:
//! assert_eq!(disk.held_writes(), 0);
//! disk.crash(Fate::Lost);
//! disk.release_writes();
//! ```

use std::fmt;

use crate::memory::{Shared, Told};

/// What becomes of a write that nobody saw complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It never happened.
    Lost,
    /// It is durable all the same.
    Kept,
}

/// The switches of one store. Clones turn the same ones.
#[derive(Clone)]
pub struct Faults {
    shared: Shared,
}

impl Faults {
    pub(crate) fn new(shared: Shared) -> Self {
        Self { shared }
    }

    /// From now on a write waits, not yet durable and invisible to every read, until it is released,
    /// the store crashes, or another handle recovers (which it does not survive). Dropping the future
    /// of a held write does not take the write back. Staging waits too.
    ///
    /// Held for ever, this is a disk that has stopped answering.
    pub fn hold_writes(&self) {
        self.turn(|switches| switches.hold_writes = true);
    }

    /// Does the held writes in the order they came, and holds no more.
    pub fn release_writes(&self) {
        let told = {
            let mut state = self.shared.lock();
            state.switches.hold_writes = false;
            state.release(usize::MAX)
        };
        self.tell(told);
    }

    /// Does the oldest held write and goes on holding. Says whether there was one.
    pub fn release_write(&self) -> bool {
        let told = self.shared.lock().release(1);
        let any = !told.is_empty();
        self.tell(told);
        any
    }

    /// How many writes are held.
    #[must_use]
    pub fn held_writes(&self) -> usize {
        self.shared.lock().switches.held()
    }

    /// Waits until at least `count` writes are held.
    pub async fn until_held(&self, count: usize) {
        self.shared.until(|switches| switches.held() >= count).await;
    }

    /// From now on reads of the log and of the snapshot wait until they are released.
    pub fn hold_reads(&self) {
        self.turn(|switches| switches.hold_reads = true);
    }

    /// Lets the held reads go on, and holds no more.
    pub fn release_reads(&self) {
        self.turn(|switches| switches.hold_reads = false);
    }

    /// The disk stops answering: holds both writes and reads.
    pub fn stall(&self) {
        self.hold_writes();
        self.hold_reads();
    }

    /// Ends [`stall`](Self::stall).
    pub fn resume(&self) {
        self.release_reads();
        self.release_writes();
    }

    /// The next write given to the store fails as a failed sync does: its batch is lost or kept as a
    /// whole, and from then on the store is [`Poisoned`](graft_core::StoreError::Poisoned) until it
    /// [`crash`](Self::crash)es.
    pub fn fail_next_write(&self, fate: Fate) {
        self.turn(|switches| switches.fail_write = Some(fate));
    }

    /// The next read of the log or the snapshot fails.
    pub fn fail_next_read(&self) {
        self.turn(|switches| switches.fail_read = true);
    }

    /// The next recovery fails, and fences nobody.
    pub fn fail_next_recover(&self) {
        self.turn(|switches| switches.fail_recover = true);
    }

    /// The process ends here: every handle is fenced, what was staged is gone, and the held writes are
    /// all lost or all kept. The next process knows nothing of a poisoned store. The switches stay as
    /// they are.
    pub fn crash(&self, held: Fate) {
        let told = self.shared.lock().crash(held);
        self.tell(told);
    }

    fn turn(&self, change: impl FnOnce(&mut crate::memory::Switches)) {
        change(&mut self.shared.lock().switches);
        self.tell(Vec::new());
    }

    /// Wakes everybody who may now go on, without the lock.
    fn tell(&self, told: Vec<Told>) {
        let waiting = self.shared.lock().switches.take_waiting();
        for told in told {
            told.tell();
        }
        for waker in waiting {
            waker.wake();
        }
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").field("held_writes", &self.held_writes()).finish_non_exhaustive()
    }
}
