//! Requests on their way to the task that writes them.

use std::time::Duration;

use bytes::Bytes;
use graft_core::{ClientRequest, EntryKind};

use crate::wire::v1::{OutgoingRequest, Payload};

/// A payload of at most so many bytes waits as a copy: the memory that it came in is then free while it is still
/// in the cache, instead of with that of thousands that wait beside it.
const FEW: usize = 64;

/// A request that waits to be written.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) request_id: u64,
    deadline: Duration,
    kind: EntryKind,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Few { length: u8, bytes: [u8; FEW] },
    Many(Bytes),
}

impl Waiting {
    /// About how many bytes a request takes.
    pub(super) fn size(request: &ClientRequest) -> usize {
        64 + request.payload.len()
    }

    /// What is to be written.
    pub(super) fn outgoing(&self) -> OutgoingRequest<'_> {
        let Self { request_id, deadline, kind, content } = self;
        let payload = match content {
            Content::Few { length, bytes } => Payload::Copied(&bytes[..usize::from(*length)]),
            Content::Many(bytes) => Payload::Shared(bytes),
        };
        OutgoingRequest { request_id: *request_id, deadline: *deadline, kind: *kind, payload }
    }

    /// How long the payload is.
    pub(super) fn payload_bytes(&self) -> usize {
        self.outgoing().payload.len()
    }
}

impl From<ClientRequest> for Waiting {
    #[inline]
    fn from(request: ClientRequest) -> Self {
        let ClientRequest { request_id, deadline, kind, payload } = request;
        let content = match u8::try_from(payload.len()) {
            Ok(length) if payload.len() <= FEW => {
                let mut bytes = [0; FEW];
                bytes[..payload.len()].copy_from_slice(&payload);
                Content::Few { length, bytes }
            }
            _ => Content::Many(payload),
        };
        Self { request_id, deadline, kind, content }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_was_sent_whatever_its_size() {
        for length in [0, 1, 48, FEW, FEW + 1, 255, 256, 5000] {
            let payload: Bytes = (0..=250).cycle().take(length).collect();
            let (deadline, kind) = (Duration::from_secs(3), EntryKind::Plain);
            let request = ClientRequest { request_id: 7, deadline, kind, payload };
            let waiting = Waiting::from(request.clone());
            let outgoing = waiting.outgoing();
            assert_eq!((outgoing.request_id, outgoing.deadline), (7, deadline));
            assert_eq!((outgoing.kind, outgoing.payload.bytes()), (kind, &request.payload[..]));
            assert_eq!(waiting.payload_bytes(), length);
        }
    }
}
