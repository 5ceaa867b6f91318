//! What servers owe to those who asked: an answer to every request that they have taken in.

use std::collections::BTreeMap;

use super::{Check, Judge, demand};

/// The requests that a run of a server has taken in and not answered, by link and number.
#[derive(Debug, Default)]
pub(super) struct Owed(BTreeMap<(u64, u64), u32>);

impl Judge {
    /// A server has taken in a request.
    pub(super) fn request_taken(&mut self, server: usize, link: u64, number: u64) {
        *self.owed[server].0.entry((link, number)).or_default() += 1;
    }

    /// A server answers a request.
    pub(super) fn request_answered(&mut self, server: usize, link: u64, number: u64) -> Check {
        let owed = self.owed[server].0.get_mut(&(link, number)).filter(|count| **count > 0);
        demand!(
            owed.is_some(),
            AnsweredOnce,
            "{} answers request {number:x} of link {link}, which it does not owe an answer",
            self.nodes[server]
        );
        if let Some(count) = owed {
            *count -= 1;
            if *count == 0 {
                self.owed[server].0.remove(&(link, number));
            }
        }
        Ok(())
    }

    /// Whoever heard in the place of a server hears no more: who asked is told so.
    pub(super) fn forget_owed(&mut self, server: usize) {
        self.owed[server].0.clear();
    }

    /// A server that owes an answer, with how many it owes.
    pub(crate) fn owes(&self) -> Option<(usize, usize)> {
        let mut owing = self.owed.iter().enumerate();
        owing.find(|(_, owed)| !owed.0.is_empty()).map(|(server, owed)| (server, owed.0.len()))
    }
}
