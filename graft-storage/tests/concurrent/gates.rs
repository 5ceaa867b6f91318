//! A medium whose calls can be held up, one by one, and which remembers what became of names.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::Duration,
};

use graft_storage::medium::{LockGuard, Medium, MediumFile, Open};

/// Far above what anything here takes. Held calls go on after it, so that a test that fails ends.
const LIMIT: Duration = Duration::from_secs(60);

/// A call that can be held up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Pass {
    /// Opening this file for reading alone.
    Open(String),
    /// Reading from this file, which was opened for reading alone.
    Read(String),
    /// Writing to this file.
    Write(String),
    /// Giving a file this name.
    Name(String),
}

#[derive(Clone, Debug)]
pub(crate) struct Gated {
    inner: Arc<dyn Medium>,
    gates: Arc<Gates>,
}

#[derive(Debug, Default)]
struct Gates {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    closed: Vec<Pass>,
    /// Calls that came to a closed gate.
    reached: Vec<Pass>,
    /// Openings of files for reading alone, held up or not.
    came: Vec<Pass>,
    renamed: Vec<(String, String)>,
    removed: Vec<String>,
    synced: Vec<String>,
}

impl Gates {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn pass(&self, pass: &Pass) {
        let mut state = self.lock();
        if matches!(pass, Pass::Open(_)) {
            state.came.push(pass.clone());
        }
        if state.closed.contains(pass) {
            state.reached.push(pass.clone());
            self.changed.notify_all();
            let is_closed = |state: &mut State| state.closed.contains(pass);
            drop(self.changed.wait_timeout_while(state, LIMIT, is_closed).unwrap());
        }
    }
}

impl Gated {
    pub(crate) fn new(inner: impl Medium) -> Self {
        Self { inner: Arc::new(inner), gates: Arc::default() }
    }

    /// From now on such calls are held up.
    pub(crate) fn close(&self, pass: &Pass) {
        self.gates.lock().closed.push(pass.clone());
    }

    /// Waits until such a call is held up.
    pub(crate) fn reached(&self, pass: &Pass) {
        let is_missing = |state: &mut State| !state.reached.contains(pass);
        let waited = self.gates.changed.wait_timeout_while(self.gates.lock(), LIMIT, is_missing);
        assert!(!waited.unwrap().1.timed_out(), "nobody came to {pass:?}");
    }

    /// Such calls go on.
    pub(crate) fn open(&self, pass: &Pass) {
        self.gates.lock().closed.retain(|closed| closed != pass);
        self.gates.changed.notify_all();
    }

    pub(crate) fn open_all(&self) {
        self.gates.lock().closed.clear();
        self.gates.changed.notify_all();
    }

    /// What the file of this name was renamed to, if it was.
    pub(crate) fn renamed(&self, from: &str) -> Option<String> {
        let state = self.gates.lock();
        let found = state.renamed.iter().find(|(before, _)| before == from);
        found.map(|(_, to)| to.clone())
    }

    /// How often the file of this name was opened for reading alone, or somebody tried.
    pub(crate) fn opened(&self, name: &str) -> usize {
        let state = self.gates.lock();
        state
            .came
            .iter()
            .filter(|pass| matches!(pass, Pass::Open(opened) if opened == name))
            .count()
    }

    pub(crate) fn was_removed(&self, name: &str) -> bool {
        self.gates.lock().removed.iter().any(|removed| removed == name)
    }

    pub(crate) fn was_synced(&self, name: &str) -> bool {
        self.gates.lock().synced.iter().any(|synced| synced == name)
    }
}

impl Medium for Gated {
    fn open(&self, name: &str, how: Open) -> io::Result<Box<dyn MediumFile>> {
        if how == Open::Read {
            self.gates.pass(&Pass::Open(name.to_owned()));
        }
        let inner = self.inner.open(name, how)?;
        let (name, gates) = (name.to_owned(), Arc::clone(&self.gates));
        Ok(Box::new(GatedFile { inner, name, how, gates }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.gates.pass(&Pass::Name(to.to_owned()));
        self.inner.rename(from, to)?;
        self.gates.lock().renamed.push((from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)?;
        self.gates.lock().removed.push(name.to_owned());
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        self.inner.sync_names()
    }

    fn lock(&self) -> io::Result<LockGuard> {
        self.inner.lock()
    }

    fn poison(&self, reason: &str) {
        self.inner.poison(reason);
    }

    fn poisoned(&self) -> Option<String> {
        self.inner.poisoned()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

#[derive(Debug)]
struct GatedFile {
    inner: Box<dyn MediumFile>,
    /// As it was when it was opened.
    name: String,
    how: Open,
    gates: Arc<Gates>,
}

impl MediumFile for GatedFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        if self.how == Open::Read {
            self.gates.pass(&Pass::Read(self.name.clone()));
        }
        self.inner.read_at(offset, into)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.gates.pass(&Pass::Write(self.name.clone()));
        self.inner.write_at(offset, bytes)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.inner.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()?;
        self.gates.lock().synced.push(self.name.clone());
        Ok(())
    }
}
