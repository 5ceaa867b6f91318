//! A map of texts that is kept by several servers: what can be asked, what is answered, and the machine.
//!
//! `kv_server` runs one of its servers and `kv_client` asks them. A client process needs [`KvEntry`] alone:
//! the reply hangs on it.
//!
//! Reads go through the log like everything else. That makes them linearizable (a read shows every write that was
//! acknowledged before it began) at the price of a write.

mod answer;
mod command;
pub mod config;
mod entry;
mod status_line;

use std::{
    collections::BTreeMap,
    error::Error,
    ops::Bound::{Excluded, Included, Unbounded},
};

pub use answer::{Answer, Failure, Format};
pub use command::{Command, Script};
pub use entry::{KvEntry, KvRefusal, KvReply};
pub use status_line::StatusLine;

/// The longest key, in bytes. Values are bounded by the largest entry a cluster takes, 1 MiB by default.
pub const MAX_KEY_BYTES: usize = 1024;

/// How many pairs one page of a list has at most.
pub const PAGE_PAIRS: usize = 1000;

/// After how many bytes of keys and values a page of a list ends. Its last pair may pass this, so that the
/// largest value fits on a page, too.
pub const PAGE_BYTES: usize = 64 << 10;

/// The machine: a map in memory, bounded in bytes.
#[derive(Debug)]
pub struct Kv {
    map: BTreeMap<String, String>,
    /// Of all keys and values.
    bytes: usize,
    limit: usize,
}

impl Kv {
    /// How many bytes of keys and values the map of [`Kv::default`] may hold.
    pub const DEFAULT_LIMIT: usize = 1 << 30;

    /// An empty map. All servers must be given the same `limit`, today and when the log is replayed: another one
    /// answers otherwise.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self { map: BTreeMap::new(), bytes: 0, limit }
    }

    fn get(&self, key: &str) -> Option<String> {
        self.map.get(key).cloned()
    }

    fn put(&mut self, key: String, value: String) -> Result<Option<String>, KvRefusal> {
        let before = self.map.get(&key).map_or(0, |old| key.len() + old.len());
        let bytes = self.bytes - before + key.len() + value.len();
        // What makes the map smaller is always allowed.
        if bytes > self.limit && bytes > self.bytes {
            return Err(KvRefusal::Full { limit: self.limit as u64 });
        }
        self.bytes = bytes;
        Ok(self.map.insert(key, value))
    }

    fn delete(&mut self, key: &str) -> Option<String> {
        let previous = self.map.remove(key)?;
        self.bytes -= key.len() + previous.len();
        Some(previous)
    }

    fn compare_and_swap(
        &mut self,
        key: String,
        expected: Option<&str>,
        value: String,
    ) -> Result<KvReply, KvRefusal> {
        if self.map.get(&key).map(String::as_str) != expected {
            return Ok(KvReply::Compared { swapped: false, found: self.get(&key) });
        }
        let found = self.put(key, value)?;
        Ok(KvReply::Compared { swapped: true, found })
    }

    fn list(&self, prefix: &str, after: Option<&str>) -> KvReply {
        let start = match after {
            Some(after) if after >= prefix => Excluded(after),
            Some(_) | None => Included(prefix),
        };
        let rest = self.map.range::<str, _>((start, Unbounded));
        let mut rest = rest.take_while(|(key, _)| key.starts_with(prefix)).peekable();
        let (mut pairs, mut bytes) = (Vec::new(), 0);
        while pairs.len() < PAGE_PAIRS && bytes < PAGE_BYTES {
            let Some((key, value)) = rest.next() else { break };
            bytes += key.len() + value.len();
            pairs.push((key.clone(), value.clone()));
        }
        KvReply::Page { pairs, more: rest.peek().is_some() }
    }
}

impl Default for Kv {
    fn default() -> Self {
        Self::new(Self::DEFAULT_LIMIT)
    }
}

impl graft::Machine for Kv {
    type Entry = KvEntry;

    fn handle_entry(&mut self, entry: KvEntry) -> KvReply {
        if let Some(key) = entry.key()
            && key.len() > MAX_KEY_BYTES
        {
            return KvReply::Refused(KvRefusal::KeyTooLong { bytes: key.len() as u64 });
        }
        let done = match entry {
            KvEntry::Get { key } => Ok(KvReply::Found(self.get(&key))),
            KvEntry::Put { key, value } => self.put(key, value).map(KvReply::Previous),
            KvEntry::Delete { key } => Ok(KvReply::Previous(self.delete(&key))),
            KvEntry::CompareAndSwap { key, expected, value } => {
                self.compare_and_swap(key, expected.as_deref(), value)
            }
            KvEntry::List { prefix, after } => Ok(self.list(&prefix, after.as_deref())),
        };
        done.unwrap_or_else(KvReply::Refused)
    }
}

/// An error with everything behind it, on one line.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(behind) = cause {
        let behind_it = behind.to_string();
        // Some errors say what is behind them by themselves.
        if !text.contains(&behind_it) {
            text = format!("{text}: {behind_it}");
        }
        cause = behind.source();
    }
    text
}

#[cfg(test)]
mod tests;
