//! Whether one whose birth is connected already was started again, or is a copy of that one's store.
//!
//! Both say the same of themselves but for the number that each process draws. Who was started again has left a
//! connection on which nobody answers any more: a new process at the same address says at once that it does not know
//! it. A copy stands beside one that answers.

use std::time::Duration;

use quinn::Connection;
use tokio::time::{sleep, timeout};

use super::{
    limits,
    shared::Shared,
    stream::{self, End},
};
use crate::wire::v1::{Hello, RefusalCode};

/// How often is looked whether an answer has come.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Refuses who comes beside another process of its birth that answers. One that is silent for half of the time for an
/// agreement is not waited for: it may have been started again at another address.
pub(super) async fn check(shared: &Shared, hello: &Hello) -> Result<(), End> {
    let Some(known) = shared.peers.other_process(hello) else { return Ok(()) };
    let (connection, patience) = (&known.connection, shared.config.timing.agreement / 2);
    if !matches!(timeout(patience, answers(connection)).await, Ok(true)) {
        return Ok(());
    }
    let (name, address) = (&hello.name, connection.remote_address());
    let text = format!(
        "{name:?} of this very birth is connected here from {address}, and answers: another process runs with a copy of \
         its store; stop the one that is not to be"
    );
    Err(stream::refuse(RefusalCode::WrongServer, text))
}

/// Whether the other side of a connection answers; false once the connection is over.
async fn answers(connection: &Connection) -> bool {
    // What comes first may have been on its way when its sender ended. What is asked for after that was not.
    for _ in 0..2 {
        let before = connection.stats().udp_rx.datagrams;
        limits::ask_for_sign_of_life(connection);
        while connection.stats().udp_rx.datagrams == before {
            if connection.close_reason().is_some() {
                return false;
            }
            sleep(LOOK_AGAIN).await;
        }
    }
    connection.close_reason().is_none()
}
