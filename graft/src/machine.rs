//! What a user brings: a state machine, and the closure that makes it.

use crate::{Entry, RestoreError, Snapshot, SnapshotReader};

/// The response of a machine to its entries.
pub type Response<M> = <<M as Machine>::Entry as Entry>::Response;

/// A state machine. graft runs a copy of it on every server and gives each copy the same entries in the same order.
///
/// ```
/// # #[derive(graft::Archive, graft::Serialize, graft::Deserialize, Debug)]
/// # #[rkyv(crate = graft::rkyv)]
/// # enum CounterEntry { Add(u64), Read }
/// # impl graft::Entry for CounterEntry { type Response = u64; }
/// #[derive(Default)]
/// struct Counter(u64);
///
/// impl graft::Machine for Counter {
///     type Entry = CounterEntry;
///     fn handle_entry(&mut self, entry: CounterEntry) -> u64 {
///         if let CounterEntry::Add(amount) = entry {
///             self.0 += amount;
///         }
///         self.0
///     }
/// }
/// ```
///
/// # What breaks replicas
///
/// The same entries must make the same state and the same responses on every server, today and when the log is
/// replayed after a restart. So in `handle_entry` there are
/// - **no clocks**: take the time from [`At`], which is the same on every server;
/// - **no randomness**: put the random number, or a seed, into the entry;
/// - **no order of a `HashMap` or `HashSet`** in responses or snapshots: it differs from server to server; use a `BTreeMap`, or sort;
/// - **no I/O, no threads, no environment, no globals**: neither what they read nor what they do is the same on every
///   server, and an effect outside the machine happens once a server and again at every replay. Let the caller do it with the response;
/// - **no addresses, thread ids, or floating-point results that differ between processors** in what is kept or answered.
///
/// graft compares a running checksum of all responses every 1,024 entries. A server whose machine
/// answers otherwise than the leader's is stopped with [`StopReason::Diverged`](crate::StopReason::Diverged).
///
/// # Check, then change
///
/// A panic in `handle_entry` is caught and becomes the answer to that one request
/// ([`RequestError::MachinePanicked`](crate::RequestError::MachinePanicked)), on every server alike. The machine then **keeps whatever it had
/// done before the panic**: look first whether the entry can be carried out, then change the state.
/// Where the program is built with `panic = "abort"` nothing can be caught: such an entry ends the
/// process, and every server that replays it. `start` warns of it.
pub trait Machine: Send + Sized + 'static {
    /// What this machine is asked.
    type Entry: Entry;

    /// Where this machine runs. Say [`Apply::Thread`] where one entry may take as long as a heartbeat (50 ms)
    /// or block.
    const APPLY: Apply = Apply::Inline;

    /// Carries out one entry and answers it. See above for what it must not do.
    fn handle_entry(&mut self, entry: Self::Entry) -> Response<Self>;

    /// The same with the entry's place and time, for machines that need them. As provided it calls
    /// [`handle_entry`](Self::handle_entry); where you write it, graft never calls the other.
    fn handle_entry_at(&mut self, entry: Self::Entry, at: &At) -> Response<Self> {
        let _ = at;
        self.handle_entry(entry)
    }

    /// **Not called by this version.** Answers an entry that only reads, without a place in the log; `None` where it is no query. As
    /// provided no entry is one.
    fn query(&self, entry: Self::Entry) -> Option<Response<Self>> {
        let _ = entry;
        None
    }

    /// **Not called by this version**, which keeps the whole log. A picture of the state, so that the log
    /// up to it need not be kept: for state that rkyv can
    /// write, `Some(Snapshot::of(self.0.clone()))`. As provided there is none, and the whole log is
    /// kept and replayed.
    ///
    /// It must be quick: what takes long belongs into the closure of
    /// [`Snapshot::write_with`], which runs elsewhere. The same state must make the same bytes.
    fn snapshot(&self) -> Option<Snapshot> {
        None
    }

    /// **Not called by this version.** Replaces the state by a snapshot's: `self.0 = snapshot.read()?`. As provided it refuses.
    ///
    /// # Errors
    ///
    /// Any [`RestoreError`] stops this server.
    fn restore(&mut self, snapshot: SnapshotReader) -> Result<(), RestoreError> {
        let _ = snapshot;
        Err(RestoreError::Unsupported)
    }
}

/// Where a machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Apply {
    /// In the server's own task, in slices of at most 1 ms: the fastest, for machines that never
    /// block and whose entries each take far less than a heartbeat.
    Inline,
    /// On a thread where it may block: no entry, however slow, delays a heartbeat.
    Thread,
}

/// The place and the time of an entry, the same on every server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct At {
    /// Its position in the log. Rises with every entry, not always by one.
    pub index: u64,
    /// The term of the leader that took it in.
    pub term: u64,
    /// The leader's wall clock as it took it in, in milliseconds since the Unix epoch. Never goes
    /// back in the log. Leaders' clocks may differ, so it may stand still or leap where the leader changes.
    pub unix_millis: u64,
    /// Milliseconds of the cluster's life: no wall clock, never goes back, and stands still while there is no leader.
    pub cluster_millis: u64,
}

/// How a server makes its machine: the `init(args)` of a state machine, as a closure that holds the
/// arguments.
///
/// `Counter::default`, `move || Kv::new(limit)`, or a closure that returns a `Result`. It runs once for each server at
/// every start and restart and must make the same state each time; the log is then replayed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not make a machine",
    label = "give `MyMachine::default`, or `move || MyMachine::new(args)`, or a closure that returns `Result<MyMachine, _>`",
    note = "the closure is `Fn`, `Send`, `Sync` and `'static`: it runs again at every restart of a server"
)]
pub trait Init<M, Kind>: Send + Sync + 'static {
    /// Makes a machine.
    ///
    /// # Errors
    ///
    /// [`InitError`] with what the closure returned.
    fn init(&self) -> Result<M, InitError>;
}

impl<M: Machine, F: Fn() -> M + Send + Sync + 'static> Init<M, ()> for F {
    fn init(&self) -> Result<M, InitError> {
        Ok(self())
    }
}

impl<M, E, F> Init<M, (E,)> for F
where
    M: Machine,
    E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    F: Fn() -> Result<M, E> + Send + Sync + 'static,
{
    fn init(&self) -> Result<M, InitError> {
        self().map_err(|error| InitError(error.into()))
    }
}

/// A machine could not be made: what its `init` said.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct InitError(#[source] pub(crate) Box<dyn std::error::Error + Send + Sync>);
