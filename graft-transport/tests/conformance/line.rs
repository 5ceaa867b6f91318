//! One queue for all classes, and what comes of that.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use graft_core::{Arrivals, Inbound, Inbox, InboxReceiver, Runtime};

/// What is the matter with the line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    /// The head waits for room, and everything behind it too.
    WaitsForRoom,
    /// What is large takes its time, and everything behind it waits: up to some seconds.
    Narrow,
}

/// Carries all that arrives on to `inbox`, in order, until it is closed or `ended`.
pub(crate) async fn relay_in_order(
    runtime: Arc<dyn Runtime>,
    mut receiver: InboxReceiver,
    inbox: Inbox,
    ended: Arc<AtomicBool>,
    line: Line,
) {
    let mut queue: VecDeque<Inbound> = VecDeque::new();
    while !ended.load(Ordering::Relaxed) && !inbox.is_closed() {
        let mut arrivals = Arrivals::default();
        poll_fn(|_| {
            receiver.take_now(&mut arrivals);
            Poll::Ready(())
        })
        .await;
        queue.extend(arrivals.peers.into_iter().map(Inbound::Peer));
        queue.extend(arrivals.requests.into_iter().map(Inbound::Request));
        while let Some(head) = queue.pop_front() {
            let size = match &head {
                Inbound::Peer(envelope) => envelope.message.size(),
                Inbound::Request(request) => request.size(),
            };
            if line == Line::Narrow && size > 1000 {
                runtime.sleep_until(runtime.now() + Duration::from_millis(10)).await;
            }
            // What a narrow line brings where there is no room is lost.
            if let (Err(refused), Line::WaitsForRoom) = (inbox.offer(head), line) {
                queue.push_front(refused);
                break;
            }
        }
        runtime.sleep_until(runtime.now() + Duration::from_millis(5)).await;
    }
}
