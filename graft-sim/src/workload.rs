//! What the clients of a simulation ask, and of which machine.

mod registers;

use std::fmt;

use graft::{Machine, Response};

pub use registers::{RegisterEntry, RegisterReply, RegisterStore, Registers};

/// The source of chance that a [`Workload`] draws from: the same seed, the same draws.
pub type Rng = fastrand::Rng;

/// The entries of a workload's machine.
pub(crate) type EntryOf<W> = <<W as Workload>::Machine as Machine>::Entry;
/// Its responses.
pub(crate) type ResponseOf<W> = Response<<W as Workload>::Machine>;

/// A machine, what it is asked, and what is known about its answers.
///
/// Whatever the machine is, the simulator checks that all replicas carry out the same requests in the same
/// order and answer alike, that no request is carried out twice, that none that was answered is lost,
/// and that each takes effect between its sending and its answer. What only you know of its answers
/// you check in [`response`](Self::response). See `examples/own_machine.rs`.
pub trait Workload: Send + 'static {
    /// The machine under test.
    type Machine: Machine;

    /// What is to be remembered of a request until its response comes.
    type Open: Send + 'static;

    /// The machine in its first state. Called at every start of every server.
    fn machine(&self) -> Self::Machine;

    /// The next request of some client.
    fn request(&mut self, rng: &mut Rng) -> (<Self::Machine as Machine>::Entry, Self::Open);

    /// A request was answered. As many may be under way as there are clients; a request of which this is
    /// never called may have been carried out or not.
    ///
    /// # Errors
    ///
    /// In words, why this cannot be the answer: it ends the run as a failure of
    /// [`Checker::ResponseFits`](crate::Checker::ResponseFits).
    fn response(
        &mut self,
        open: Self::Open,
        response: &Response<Self::Machine>,
    ) -> Result<(), String>;

    /// A number for the machine's state, the same for the same state: it is compared after every
    /// request, so it should be kept up to date and not computed from all there is. As provided states are
    /// compared by the responses alone.
    fn state_hash(machine: &Self::Machine) -> u64 {
        let _ = machine;
        0
    }

    /// A number for a response, the same for the same response. As provided it is made of what `Debug` says.
    fn response_hash(response: &Response<Self::Machine>) -> u64 {
        let mut hash = TextHash(0xcbf2_9ce4_8422_2325);
        // Writing into a hash cannot fail.
        let _ = fmt::write(&mut hash, format_args!("{response:?}"));
        hash.0
    }
}

/// A hash of text as it is written.
struct TextHash(u64);

impl fmt::Write for TextHash {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}
