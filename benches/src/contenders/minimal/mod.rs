//! The baselines: a leader and two followers, and no consensus at all.
//!
//! No terms, no elections, no checks, no sessions, no flow control: commands are numbered, gathered, taken
//! down by all three, and answered once the leader and one more have them, as graft answers. It is about the
//! most that tokio, redb and quinn can give to a replicated log.

mod channels;
mod endpoint;
mod quic;
mod streams;

use std::{
    iter,
    sync::{Arc, mpsc::Receiver},
};

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::{Workload, disk::BareRedb};

pub(super) use channels::{Minimal, MinimalFilled};
pub(super) use quic::{QuicMinimal, QuicMinimalOnDisk};

/// How many commands are taken into one batch.
const MAX_BATCH: usize = 4096;

/// What graft's clients send in front of what a command carries.
const HEADER_BYTES: usize = graft_client::HEADER_BYTES;

/// What was taken in at once.
type Batch = Arc<Vec<Bytes>>;

/// How much of each file is written ahead, as graft's stores do with their first: what comes after grows.
const FILLED: usize = 16 << 20;

/// How much a file needs that never grows while it is measured: more than so much work takes, with what
/// [`BareRedb`] puts beside a command and the pages that it leaves behind.
const fn all_of(work: Workload) -> usize {
    const BESIDE: usize = 32;
    FILLED + 2 * work.operations * (BESIDE + HEADER_BYTES + work.payload)
}

/// A command as graft's clients send it: a header, and so many bytes behind it.
fn command(payload: usize) -> Bytes {
    let mut command = BytesMut::with_capacity(HEADER_BYTES + payload);
    command.put_bytes(0, HEADER_BYTES);
    command.put_bytes(0xA5, payload);
    command.freeze()
}

/// How much each of the three has, and how much was answered.
#[derive(Default)]
struct Quorum {
    written: [u64; 3],
    answered: u64,
}

impl Quorum {
    /// `server` has the first `upto` commands. Says how many more can be answered.
    fn acknowledge(&mut self, server: usize, upto: u64) -> u64 {
        self.written[server] = upto;
        // The leader applies what it holds itself: two followers are not enough.
        let [leader, one, other] = self.written;
        let committed = leader.min(one.max(other));
        let more = committed.saturating_sub(self.answered);
        self.answered += more;
        more
    }
}

/// Writes what comes, all that waits in one transaction, and says how much there is, until nobody wants to
/// know.
fn write(mut bare: BareRedb, orders: &Receiver<Batch>, mut acknowledge: impl FnMut(u64) -> bool) {
    let mut upto = 0;
    while let Ok(first) = orders.recv() {
        let batches: Vec<Batch> = iter::once(first).chain(orders.try_iter()).collect();
        let commands: Vec<&Bytes> = batches.iter().flat_map(|batch| batch.iter()).collect();
        upto += commands.len() as u64;
        if bare.append(&commands).is_err() || !acknowledge(upto) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leader_and_one_more_must_have_what_is_answered() {
        let mut quorum = Quorum::default();
        assert_eq!(quorum.acknowledge(1, 5), 0);
        assert_eq!(quorum.acknowledge(2, 7), 0);
        assert_eq!(quorum.acknowledge(0, 6), 6);
        assert_eq!(quorum.acknowledge(0, 9), 1);
        assert_eq!(quorum.acknowledge(1, 9), 2);
    }
}
