//! Why there is no socket, in words to act on.

use std::io::ErrorKind;

use graft_transport::quic::NetworkError as BindError;

use crate::transport::NetworkError;

/// What the network said about `given`, the address as the user gave it.
pub(super) fn of_bind(error: BindError, given: &str) -> NetworkError {
    let BindError::Bind { address, source } = error else {
        return NetworkError::with_source(format!("it cannot listen at `{given}`"), error);
    };
    let advice = match source.kind() {
        ErrorKind::AddrInUse => {
            "another program has it, perhaps this server's former process: end that, or choose another port"
        }
        ErrorKind::AddrNotAvailable => {
            "it is no address of this machine: listen at one of its own, or at 0.0.0.0 for all of them, and name \
             the one that others reach among the members"
        }
        ErrorKind::PermissionDenied => "this user may not have it: choose a port of 1024 or more",
        _ => "choose another one",
    };
    let shown = address.to_string();
    let place = if shown == given { shown } else { format!("{shown} (`{given}`)") };
    NetworkError::with_source(format!("it cannot listen at {place}: {advice}"), source)
}
