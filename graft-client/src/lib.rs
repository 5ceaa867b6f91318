//! The client of a graft cluster: it finds the leader, retries, keeps a session, and holds deadlines.
//!
//! A [`Client`] speaks to the servers through a [`Link`](graft_core::Link), so the same code serves a
//! cluster in this process and one across a network. Many tasks share one client; clones are cheap.
//!
//! # How a request goes
//!
//! [`Client::request`] makes a [`Request`], a future that sends itself when it is first polled. The
//! request takes one slot in the client's table and one buffer: the caller leaves room for a header in front of
//! its body, and the header is written there. To send it again the slot keeps a copy where it is a few bytes, else a
//! share in the buffer. No task, no timer and no box belongs to a request. One
//! *driver* task, spawned on the [`Runtime`](graft_core::Runtime), looks after everything that takes
//! time: deadlines, attempts that nobody answers, backoff, and the life of the session. It ends with
//! the last handle of the client.
//!
//! # Exactly once
//!
//! Requests go under a session (PROTOCOL 4): each command has a sequence number, the servers keep its reply, and a
//! command that is sent again is answered from there. So a request whose fate is not known is simply
//! sent again, to whatever server, until its deadline. Three rules make this sound:
//!
//! - A command that was once handed to the [`Link`](graft_core::Link) is never sent under another session.
//! - What the client says about the lowest sequence it still waits for never covers a request that
//!   is still wanted; a dropped [`Request`] is not wanted.
//! - A request ends as [`Outcome::NotApplied`] only if it was never handed over, or if each attempt
//!   was answered by a server that said it did nothing.
//!
//! The third rule relies on what a [`Link`](graft_core::Link) promises: it may lose a request and may bring a
//! reply twice, but it delivers no request twice.
//!
//! A caller who knows that its command may be applied twice says so by
//! [`RequestOptions::idempotent`] and pays nothing for sessions.
//!
//! # Example
//!
//! A link to one server that answers each command with its own entry, as a network's end would:
//!
//! ```
//! use std::sync::{Arc, OnceLock};
//!
//! use graft_client::{Client, ClientConfig, HEADER_BYTES, RequestOptions};
//! use graft_core::{
//!     ClientRequest, EntryKind, Link, LinkError, NodeId, Replies, Reply, SessionId, TokioRuntime,
//! };
//!
//! #[derive(Default)]
//! struct Echo(OnceLock<Arc<dyn Replies>>);
//!
//! impl Link for Echo {
//!     fn attach(&self, replies: Arc<dyn Replies>) {
//!         self.0.set(replies).ok();
//!     }
//!
//!     fn send(&self, to: NodeId, request: ClientRequest) -> Result<(), LinkError> {
//!         let reply = match request.kind {
//!             EntryKind::SessionOpen => Reply::SessionOpened(SessionId(1)),
//!             EntryKind::SessionCommand => Reply::Applied(request.payload.slice(HEADER_BYTES..)),
//!             _ => Reply::SessionDone,
//!         };
//!         let replies = self.0.get().ok_or(LinkError::Unreachable(to))?;
//!         replies.on_reply(to, request.request_id, reply);
//!         Ok(())
//!     }
//!
//!     fn servers(&self) -> Vec<NodeId> {
//!         vec![NodeId::of_name("server1")]
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let runtime = TokioRuntime::current().ok_or("not in a runtime")?;
//! let client =
//!     Client::new(Arc::new(Echo::default()), Arc::new(runtime), ClientConfig::default())?;
//! let mut body = vec![0; HEADER_BYTES];
//! body.extend_from_slice(b"hello");
//! let answer = client.request(body, RequestOptions::new(0)).await?;
//! assert_eq!(answer, "hello");
//! # Ok(())
//! # }
//! ```

mod client;
mod config;
mod driver;
mod error;
mod kept;
mod mutants;
mod places;
mod replies;
mod request;
mod session;
mod shared;
mod slots;
mod state;
mod upkeep;

pub use client::{Client, Stats, WeakClient};
pub use config::{ClientConfig, ClientConfigError};
pub use error::{Outcome, RequestError};
pub use request::{Body, HEADER_BYTES, Request, RequestOptions};
