//! A user's machine behind a witness, who tells the oracle what it does.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use graft::{
    Apply, Archive, At, Deserialize, Entry, Machine, RestoreError, Serialize, Snapshot,
    SnapshotReader,
};

use crate::{
    oracle::{Application, Checker, Oracle},
    workload::{EntryOf, ResponseOf, Workload},
};

/// A request with the number by which the oracle knows it.
#[derive(Archive, Serialize, Deserialize, Debug)]
#[rkyv(crate = graft::rkyv)]
pub(crate) struct Tagged<E> {
    /// Counted by the clients of one run.
    operation: u64,
    /// Whether the machine is to panic over it.
    panics: bool,
    entry: E,
}

/// A response with the place in the log where it was made.
#[derive(Archive, Serialize, Deserialize, Debug)]
#[rkyv(crate = graft::rkyv)]
pub(crate) struct Placed<R> {
    pub(crate) index: u64,
    pub(crate) response: R,
}

impl<E> Tagged<E> {
    pub(crate) const fn new(operation: u64, panics: bool, entry: E) -> Self {
        Self { operation, panics, entry }
    }
}

impl<E: Entry> Entry for Tagged<E> {
    type Response = Placed<E::Response>;
    const VERSION: u16 = E::VERSION;
}

/// What a panic says, if it says anything.
pub(crate) fn words_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("something")
}

/// A machine under watch. `THREAD` runs it on a thread whatever it says itself.
pub(crate) struct Witness<W: Workload, const THREAD: bool> {
    machine: W::Machine,
    oracle: Oracle,
    server: usize,
    /// By which of the server's machines the oracle knows this one.
    number: u64,
}

impl<W: Workload, const THREAD: bool> Witness<W, THREAD> {
    pub(crate) fn new(machine: W::Machine, oracle: Oracle, server: usize) -> Self {
        let number = oracle.on_new_machine(server);
        Self { machine, oracle, server, number }
    }

    fn tell(&self, operation: u64, at: &At, response: Option<u64>) {
        let application = Application {
            index: at.index,
            term: at.term,
            operation,
            unix_millis: at.unix_millis,
            response,
            state: W::state_hash(&self.machine),
        };
        self.oracle.on_applied(self.server, self.number, &application);
    }
}

impl<W: Workload, const THREAD: bool> Machine for Witness<W, THREAD> {
    type Entry = Tagged<EntryOf<W>>;

    const APPLY: Apply = if THREAD { Apply::Thread } else { <W::Machine as Machine>::APPLY };

    fn handle_entry(&mut self, _: Self::Entry) -> Placed<ResponseOf<W>> {
        unreachable!("a witness wants to know where it is")
    }

    fn handle_entry_at(&mut self, tagged: Self::Entry, at: &At) -> Placed<ResponseOf<W>> {
        let Tagged { operation, panics, entry } = tagged;
        if panics {
            self.tell(operation, at, None);
            // Without the hook that tells the user of a panic: this one is meant.
            resume_unwind(Box::new("the simulator wants a panic over this entry"));
        }
        let machine = &mut self.machine;
        match catch_unwind(AssertUnwindSafe(|| machine.handle_entry_at(entry, at))) {
            Ok(response) => {
                self.tell(operation, at, Some(W::response_hash(&response)));
                Placed { index: at.index, response }
            }
            Err(panic) => {
                let (index, words) = (at.index, words_of(&*panic));
                let what = format!(
                    "the machine panicked by itself over request {operation}, entry {index}: {words}"
                );
                self.oracle.accuse(Checker::NothingUnexplained, what);
                self.tell(operation, at, None);
                resume_unwind(panic)
            }
        }
    }

    fn snapshot(&self) -> Option<Snapshot> {
        self.machine.snapshot()
    }

    fn restore(&mut self, snapshot: SnapshotReader) -> Result<(), RestoreError> {
        self.machine.restore(snapshot)
    }
}
