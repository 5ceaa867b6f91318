//! The trace of a run, in words.

use std::time::Duration;

/// What happened: as a number, and a line an event. Nothing is put into words unless somebody is going to
/// read it.
#[derive(Debug)]
pub(crate) struct Journal {
    hash: u64,
    lines: Option<Vec<String>>,
}

impl Journal {
    pub(crate) const fn new(read: bool) -> Self {
        Self { hash: 0, lines: if read { Some(Vec::new()) } else { None } }
    }

    pub(crate) const fn is_read(&self) -> bool {
        self.lines.is_some()
    }

    /// Mixes what happened into the hash.
    pub(crate) fn mix(&mut self, numbers: &[u64]) {
        for number in numbers {
            let mixed = (self.hash ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            self.hash = mixed ^ (mixed >> 32);
        }
    }

    pub(crate) const fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn write(&mut self, now: u64, line: &str) {
        if let Some(lines) = &mut self.lines {
            let at = Duration::from_nanos(now).as_secs_f64();
            lines.push(format!("{at:>12.6}  {line}"));
        }
    }

    pub(crate) fn take(&mut self) -> Vec<String> {
        self.lines.take().unwrap_or_default()
    }
}
