//! Raft as a library: bring a state machine, get a replicated service.
//!
//! You write two types and one function: what can be asked, what is answered, and how the state
//! changes. graft runs the machine on several servers, keeps their logs the same (Raft, by Ongaro and
//! Ousterhout), and answers each request once a majority has it: no acknowledged request is lost while a
//! majority of the servers keeps its stores, and none is applied twice.
//!
//! ```
//! #[derive(graft::Archive, graft::Serialize, graft::Deserialize, Debug)]
//! #[rkyv(crate = graft::rkyv)]
//! enum StackEntry { Put(String), Pop }
//!
//! #[derive(graft::Archive, graft::Serialize, graft::Deserialize, Debug, PartialEq)]
//! #[rkyv(crate = graft::rkyv)]
//! enum StackReply { Ok, Noop, Value(String) }
//!
//! impl graft::Entry for StackEntry {
//!     type Response = StackReply;
//! }
//!
//! #[derive(Default)]
//! struct Stack(Vec<String>);
//!
//! impl graft::Machine for Stack {
//!     type Entry = StackEntry;
//!     fn handle_entry(&mut self, entry: StackEntry) -> StackReply {
//!         match entry {
//!             StackEntry::Put(value) => {
//!                 self.0.push(value);
//!                 StackReply::Ok
//!             }
//!             StackEntry::Pop => self.0.pop().map_or(StackReply::Noop, StackReply::Value),
//!         }
//!     }
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let stack = graft::start(["server1", "server2", "server3"], Stack::default).await?;
//!     // By name, from anywhere in the process, to any of the servers:
//!     graft::request("server2", StackEntry::Put("foo".into())).await?;
//!     let reply = graft::request("server3", StackEntry::Pop).await?;
//!     assert_eq!(reply, StackReply::Value("foo".into()));
//!     println!("{}", graft::data("server1").await?);
//!     stack.shutdown().await;
//!     Ok(())
//! }
//! ```
//!
//! | to | see |
//! | --- | --- |
//! | write a machine | [`Machine`]: and what it must not do |
//! | say what it is asked | [`Entry`]: versions of it, too |
//! | start servers | [`start()`], or [`cluster`] with stores and numbers of your own |
//! | start one of several machines | [`server()`], with a [`store`] and a [`transport`] |
//! | ask it from elsewhere | `Client`, with the feature `quic` |
//! | ask them | [`request()`]; what can go wrong is in [`RequestError`] |
//! | look at them | [`data()`], [`Supervisor::servers`], [`Supervisor::watch`] |
//! | stop, restart, hand over | [`Supervisor`] |
//!
//! # Names
//!
//! A name means a server of the caller's own tokio runtime; in other runtimes it may mean other servers,
//! so tests that all start a `server1` run side by side. From a place that has no server of that name in
//! its own runtime, the name is found if exactly one runtime of the process has it.

#[doc(hidden)]
pub use rkyv;
#[doc(no_inline)]
pub use rkyv::{Archive, Deserialize, Serialize};

mod adaptor;
mod admin;
mod birth;
mod builder;
#[cfg(feature = "quic")]
mod client;
mod cluster;
mod config;
mod data;
mod embedding;
mod encode;
mod entry;
mod error;
mod founding;
mod machine;
mod member;
mod member_builder;
mod members;
mod name;
mod panics;
mod registry;
mod request;
mod server;
mod snapshot;
mod status;
pub mod store;
mod supervision;
mod supervisor;
#[cfg(feature = "quic")]
pub mod tls;
pub mod transport;
mod wire;

use std::future::Future;

pub use builder::ClusterBuilder;
pub use bytes::Bytes;
#[cfg(feature = "quic")]
pub use client::{Client, ClientBuilder, ConnectError};
pub use config::{Config, ConfigError};
pub use data::{LogLine, ServerData, ServerState};
pub use entry::{Entry, EntryError, decode};
pub use error::{StartError, SupervisorError};
pub use graft_client::{Outcome, RequestError};
pub use graft_core::{
    RestoreError,
    founding::{FoundingError, Progress as FoundingProgress},
};
pub use machine::{Apply, At, Init, InitError, Machine, Response};
pub use member::Server;
pub use member_builder::ServerBuilder;
pub use name::ServerName;
pub use request::Request;
pub use snapshot::{Snapshot, SnapshotReader};
pub use status::{Overview, Role, Status, StopReason};
#[doc(no_inline)]
pub use store::{LogStore, StoreError};
pub use supervisor::Supervisor;
#[cfg(feature = "quic")]
#[doc(no_inline)]
pub use tls::Tls;
pub use wire::Wire;

/// Starts one server for each name, in this process and on the tokio runtime of the caller, and
/// returns their supervisor. `init` makes the machine of each; see [`Init`].
///
/// The servers keep their logs in memory. For other stores, or other numbers, see [`cluster`].
///
/// # Errors
///
/// [`StartError`]: among others where a name is empty, stands twice or is taken, and
/// [`StartError::NoRuntime`] outside of a tokio runtime.
pub fn start<M: Machine, K>(
    servers: impl IntoIterator<Item = impl Into<ServerName>>,
    init: impl Init<M, K>,
) -> impl Future<Output = Result<Supervisor<M>, StartError>> + Send {
    cluster(servers).start(init)
}

/// A cluster of servers in this process, with stores or a configuration of your own.
pub fn cluster(servers: impl IntoIterator<Item = impl Into<ServerName>>) -> ClusterBuilder {
    ClusterBuilder::new(servers.into_iter().map(Into::into).collect())
}

/// One server of a cluster whose other servers run elsewhere, on other machines as a rule.
pub fn server(name: impl Into<ServerName>) -> ServerBuilder {
    ServerBuilder::new(name.into())
}

/// Asks the machine that `server` is a copy of. Any server of the cluster takes a request: it reaches the
/// leader, waits for one where there is none, and is answered once a majority has it.
///
/// The response is the machine's. A [`RequestError`] says what went wrong and, by
/// [`outcome`](RequestError::outcome), what is known about the entry.
#[expect(clippy::needless_pass_by_value, reason = "an entry is sent, and it is gone then")]
pub fn request<E: Entry>(server: impl AsRef<str>, entry: E) -> Request<E> {
    match registry::find_client::<E>(server.as_ref()) {
        Ok((client, limit)) => Request::of(client, limit, &entry),
        Err(error) => Request::refused(error),
    }
}

/// What `server` is and has now, in the words of the Raft paper. Print it.
///
/// # Errors
///
/// [`RequestError::UnknownServer`], [`RequestError::AmbiguousServer`]; [`RequestError::Timeout`] where something
/// blocks the server for seconds. A server that was stopped or has failed is no error: its
/// [`status`](ServerData::status) says so, and why.
pub fn data(
    server: impl AsRef<str>,
) -> impl Future<Output = Result<ServerData, RequestError>> + Send + 'static {
    let name = server.as_ref().to_owned();
    async move {
        let cluster = registry::find(&name)?;
        let at = cluster.position(&name);
        cluster.data(at.ok_or(RequestError::UnknownServer { name })?).await
    }
}

/// The program that the README shows, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
