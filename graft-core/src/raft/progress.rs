//! What a leader knows of one peer, and how fast it may send to it.

use std::collections::VecDeque;

use crate::Index;

/// A leader's view of a peer (Raft §5.3 `nextIndex`, `matchIndex`; flow control as in thesis §10.2.1).
///
/// Invariants: `match_index < next_index`; `in_flight` is empty while probing and its indexes rise.
#[derive(Debug)]
pub(crate) struct Progress {
    /// The peer's log equals ours up to here, durably.
    pub(super) match_index: Index,
    /// The next entry to send.
    pub(super) next_index: Index,
    pub(super) state: ProgressState,
    /// When the peer last answered in this term, in ticks.
    pub(super) last_answer: u64,
    /// How far the peer had applied when it last said so.
    pub(super) applied: Index,
    /// Whether the peer said that its disk is stalled.
    pub(super) stalled: bool,
    /// A heartbeat round, and how far had been sent when it left: a peer that answers a later round
    /// and has not received that much has lost it.
    mark: Option<(u64, Index)>,
    window: Window,
}

/// How a leader sends to a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ProgressState {
    /// One message at a time, until it is known where the logs agree.
    Probe {
        /// What is on its way.
        sent: Option<Sent>,
    },
    /// As many as the window holds.
    Replicate,
}

/// What is on its way unanswered, bounded in entries and bytes.
#[derive(Debug, Default)]
struct Window {
    in_flight: VecDeque<Sent>,
    entries: usize,
    bytes: usize,
}

/// An `AppendEntries` on its way: the last entry it brings the peer to, and its weight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sent {
    last: Index,
    entries: usize,
    bytes: usize,
}

impl Progress {
    /// A peer of which nothing is known but that `last` is the end of our own log.
    pub(super) fn new(last: Index, now: u64) -> Self {
        Self {
            match_index: Index(0),
            next_index: last.next(),
            state: ProgressState::Probe { sent: None },
            last_answer: now,
            applied: Index(0),
            stalled: false,
            mark: None,
            window: Window::default(),
        }
    }

    /// How many entries and bytes may be sent now; `None` where nothing may.
    pub(super) fn allowance(&self, max_entries: usize, max_bytes: usize) -> Option<(usize, usize)> {
        match self.state {
            ProgressState::Probe { sent } => sent.is_none().then_some((max_entries, max_bytes)),
            ProgressState::Replicate => {
                let entries = max_entries.saturating_sub(self.window.entries);
                let bytes = max_bytes.saturating_sub(self.window.bytes);
                (entries > 0 && bytes > 0).then_some((entries, bytes))
            }
        }
    }

    /// Whether a message of `bytes` may follow what is on its way. A run cut to an allowance holds one
    /// entry at least, however large: it travels alone, and does not stretch a window that is in use.
    pub(super) fn fits(&self, bytes: usize, max_bytes: usize) -> bool {
        self.window.in_flight.is_empty() || self.window.bytes.saturating_add(bytes) <= max_bytes
    }

    /// Notes that entries up to `last` were sent.
    pub(super) fn on_sent(&mut self, last: Index, entries: usize, bytes: usize) {
        let message = Sent { last, entries, bytes };
        match &mut self.state {
            // A probe may carry entries, but it goes on from there only once it is answered.
            ProgressState::Probe { sent } => *sent = Some(message),
            ProgressState::Replicate if entries == 0 => {}
            ProgressState::Replicate => self.go_on_behind(message),
        }
    }

    /// The peer holds everything up to `matched`. Says whether that is news.
    pub(super) fn on_matched(&mut self, matched: Index) -> bool {
        self.window.free_to(matched);
        // An old acknowledgement must not end a probe that it says nothing of, except that it can
        // only ever be true: what matched once in this term matches for ever.
        let ends_probe = matched.next() >= self.next_index || matched > self.match_index;
        if let ProgressState::Probe { sent } = self.state
            && ends_probe
        {
            self.state = ProgressState::Replicate;
            // The entries came with the probe. Perhaps not all of them are durable yet, but they
            // need not be sent again; should they be lost, the next append or round shows it.
            if let Some(message) = sent.filter(|message| message.last > matched) {
                self.go_on_behind(message);
            }
        }
        self.next_index = self.next_index.max(matched.next());
        let news = matched > self.match_index;
        self.match_index = self.match_index.max(matched);
        news
    }

    /// The peer refused what followed `rejected`; the logs may agree up to `hint`.
    pub(super) fn on_conflict(&mut self, rejected: Index, hint: Index) {
        let stale = match self.state {
            ProgressState::Replicate => rejected <= self.match_index,
            ProgressState::Probe { .. } => rejected != self.next_index.previous(),
        };
        if !stale {
            self.probe_from(hint.next().min(rejected).max(self.match_index.next()));
        }
    }

    /// What a known bug did: it takes every rejection for news.
    pub(super) fn believe_conflict(&mut self, rejected: Index, hint: Index) {
        self.probe_from(self.next_index);
        self.next_index = hint.next().min(rejected).max(Index(1));
    }

    /// Goes back to one message at a time from `next`.
    pub(super) fn probe_from(&mut self, next: Index) {
        self.state = ProgressState::Probe { sent: None };
        self.next_index = next.max(self.match_index.next());
        self.window = Window::default();
        self.mark = None;
    }

    /// A heartbeat of `round` leaves now.
    pub(super) fn on_round(&mut self, round: u64) {
        self.mark.get_or_insert((round, self.next_index.previous()));
    }

    /// The peer answered the heartbeat of `round` and holds entries up to `received`. What was sent
    /// before an earlier round and is not there had a whole round to arrive: it is lost.
    pub(super) fn on_round_answer(&mut self, round: u64, received: Index) {
        let Some((_, sent)) = self.mark.filter(|(marked, _)| *marked < round) else {
            return;
        };
        self.mark = None;
        match &mut self.state {
            ProgressState::Replicate if received < sent => self.probe_from(self.match_index.next()),
            ProgressState::Replicate => {}
            // What was received waits only for the peer's disk; the answer comes with a heartbeat's.
            ProgressState::Probe { sent } => *sent = sent.filter(|probe| received >= probe.last),
        }
    }

    /// A message is on its way, and sending goes on behind it without waiting.
    fn go_on_behind(&mut self, message: Sent) {
        self.next_index = message.last.next();
        if message.entries > 0 {
            self.window.push(message);
        }
    }

    /// Entries on their way unanswered.
    pub(super) fn in_flight(&self) -> usize {
        self.window.entries
    }

    /// Checks the struct's invariants.
    pub(super) fn check(&self) {
        assert!(self.match_index < self.next_index, "what matched need not be sent");
        let probing = matches!(self.state, ProgressState::Probe { .. });
        assert!(!probing || self.window.in_flight.is_empty(), "a probe has no window");
    }
}

impl Window {
    fn push(&mut self, sent: Sent) {
        self.entries += sent.entries;
        self.bytes += sent.bytes;
        self.in_flight.push_back(sent);
    }

    fn free_to(&mut self, matched: Index) {
        while self.in_flight.front().is_some_and(|sent| sent.last <= matched) {
            if let Some(sent) = self.in_flight.pop_front() {
                self.entries -= sent.entries;
                self.bytes -= sent.bytes;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replicating() -> Progress {
        let mut progress = Progress::new(Index(10), 0);
        assert!(progress.on_matched(Index(10)));
        progress
    }

    #[test]
    fn a_window_closes_in_entries_and_in_bytes_and_opens_again() {
        let mut progress = replicating();
        progress.on_sent(Index(14), 4, 100);
        assert_eq!(progress.allowance(6, 1000), Some((2, 900)));
        assert_eq!(progress.allowance(4, 1000), None);
        assert_eq!(progress.allowance(6, 100), None);
        progress.on_matched(Index(13));
        assert_eq!(progress.allowance(4, 1000), None, "a part of a message frees nothing");
        progress.on_matched(Index(14));
        assert_eq!(progress.allowance(4, 100), Some((4, 100)));
    }

    #[test]
    fn a_large_message_waits_until_it_is_alone() {
        let mut progress = replicating();
        assert!(progress.fits(1000, 100), "nothing is on its way");
        progress.on_sent(Index(11), 1, 60);
        assert!(progress.fits(40, 100));
        assert!(!progress.fits(41, 100));
        progress.on_matched(Index(11));
        assert!(progress.fits(1000, 100));
    }

    #[test]
    fn a_rejection_at_or_below_the_match_is_stale() {
        let mut progress = replicating();
        progress.on_sent(Index(14), 4, 100);
        progress.on_conflict(Index(10), Index(2));
        assert_eq!(progress.state, ProgressState::Replicate);
        progress.on_conflict(Index(12), Index(2));
        assert_eq!(progress.state, ProgressState::Probe { sent: None });
        assert_eq!(progress.next_index, Index(11), "what matched is never sent again");
    }

    #[test]
    fn entries_that_came_with_a_probe_are_not_sent_twice() {
        let mut progress = Progress::new(Index(10), 0);
        progress.on_sent(Index(14), 4, 100);
        assert_eq!(progress.allowance(6, 1000), None, "one probe at a time");
        progress.on_matched(Index(10));
        assert_eq!(progress.state, ProgressState::Replicate);
        assert_eq!((progress.next_index, progress.in_flight()), (Index(15), 4));
        progress.on_matched(Index(14));
        assert_eq!(progress.in_flight(), 0);
    }

    #[test]
    fn a_probe_is_repeated_only_where_it_was_lost() {
        let mut progress = Progress::new(Index(10), 0);
        progress.on_sent(Index(14), 4, 100);
        progress.on_round(1);
        progress.on_round_answer(2, Index(14));
        assert_eq!(progress.allowance(6, 1000), None, "received, if not yet durable");
        progress.on_round(3);
        progress.on_round_answer(4, Index(0));
        assert_eq!(progress.allowance(6, 1000), Some((6, 1000)));
    }

    #[test]
    fn what_is_missing_for_a_whole_round_is_sent_again() {
        let mut progress = replicating();
        progress.on_sent(Index(14), 4, 100);
        progress.on_round(1);
        progress.on_round_answer(1, Index(10));
        assert_eq!(progress.state, ProgressState::Replicate, "it may still be on its way");
        progress.on_round(2);
        progress.on_round_answer(2, Index(14));
        assert_eq!(progress.state, ProgressState::Replicate, "received, if not yet durable");
        progress.on_round(3);
        progress.on_round(4);
        progress.on_round_answer(4, Index(12));
        assert_eq!(progress.state, ProgressState::Probe { sent: None });
    }
}
