//! The way into the server: open from the attaching of a run's inbox until that run is closed.
//!
//! Who offers holds the gate for reading, and who closes it takes it for writing: after that no offer is
//! under way, and none will be.

use std::sync::{PoisonError, RwLock};

use graft_core::{Class, Inbound, Inbox, PeerEnvelope, Request};

use super::stats::Counters;

/// The number of a run: one transport of this server, from
/// [`Network::transport`](super::Network::transport) until it is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Run(u64);

/// Lets what arrives into the inbox of the latest run, if that is open.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How many runs there were.
    runs: u64,
    inbox: Option<Inbox>,
    /// Whether the latest run is over.
    closed: bool,
}

impl Gate {
    /// Begins the next run, which ends the one before.
    pub(super) fn begin(&self) -> Run {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        *state = State { runs: state.runs + 1, inbox: None, closed: false };
        Run(state.runs)
    }

    /// Opens the gate to the inbox of this run. One that is over stays over.
    pub(super) fn attach(&self, run: Run, inbox: Inbox) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.runs == run.0 && !state.closed {
            assert!(state.inbox.is_none(), "a transport is attached once");
            state.inbox = Some(inbox);
        }
    }

    /// Ends this run. Once it returns nothing of it is offered any more. Says whether it was the latest.
    pub(super) fn end(&self, run: Run) -> bool {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let is_latest = state.runs == run.0 && !state.closed;
        let inbox = is_latest.then(|| {
            state.closed = true;
            state.inbox.take()
        });
        drop(state);
        drop(inbox);
        is_latest
    }

    /// Ends the latest run, whichever it is.
    pub(super) fn close(&self) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.closed = true;
        let inbox = state.inbox.take();
        drop(state);
        drop(inbox);
    }

    /// The run whose inbox is open.
    pub(super) fn open_run(&self) -> Option<Run> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.inbox.is_some().then_some(Run(state.runs))
    }

    /// Whether this run can still send.
    pub(super) fn is_running(&self, run: Run) -> bool {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.runs == run.0 && !state.closed
    }

    /// Offers messages of peers and leaves none. What is refused is counted and dropped.
    pub(super) fn offer_peers(&self, messages: &mut Vec<PeerEnvelope>, counters: &Counters) {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let Some(inbox) = &state.inbox else {
            let nobody = messages.len() as u64;
            messages.clear();
            counters.unattended.add(nobody);
            return;
        };
        for envelope in messages.drain(..) {
            let class = envelope.message.class();
            if inbox.offer(Inbound::Peer(envelope)).is_err() {
                counters.refused_by_inbox[class as usize].add(1);
            }
        }
    }

    /// Offers requests of clients of this run and leaves none. What is refused goes to `refused`, as long
    /// as the run is open: after that nobody may be told that nothing was done by it. Says how many were taken.
    pub(super) fn offer_requests(
        &self,
        run: Run,
        requests: &mut Vec<Request>,
        counters: &Counters,
        mut refused: impl FnMut(&Request),
    ) -> usize {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let inbox = state.inbox.as_ref().filter(|_| state.runs == run.0);
        let Some(inbox) = inbox else {
            counters.unattended.add(requests.len() as u64);
            requests.clear();
            return 0;
        };
        let mut taken = requests.len();
        for request in requests.drain(..) {
            if let Err(Inbound::Request(request)) = inbox.offer(Inbound::Request(request)) {
                counters.refused_by_inbox[Class::Request as usize].add(1);
                refused(&request);
                taken -= 1;
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use graft_core::InboxLimits;

    use super::*;

    #[test]
    fn only_the_latest_run_opens_the_gate_and_only_once() {
        let gate = Gate::default();
        let (inbox, _receiver) = Inbox::new(InboxLimits::default());
        let first = gate.begin();
        assert_eq!(gate.open_run(), None);
        gate.attach(first, inbox.clone());
        assert_eq!(gate.open_run(), Some(first));
        let second = gate.begin();
        assert!(!gate.is_running(first) && gate.is_running(second));
        assert_eq!(gate.open_run(), None, "the second has no inbox yet");
        assert!(!gate.end(first), "the end of an earlier run harms nobody");
        gate.attach(second, inbox.clone());
        assert_eq!(gate.open_run(), Some(second));
        assert!(gate.end(second) && !gate.end(second));
        gate.attach(second, inbox);
        assert_eq!(gate.open_run(), None, "what is over stays over");
    }
}
