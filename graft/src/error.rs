//! What can go wrong around the servers. What can go wrong with a request is [`RequestError`](crate::RequestError).

use std::time::Duration;

use graft_core::{StoreError, founding::FoundingError};

use crate::{ConfigError, InitError, ServerName, transport::NetworkError};

/// Why servers could not be started. Nothing of what was begun is left running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The list of servers is empty.
    #[error("no servers were named: give at least one name, three to survive the loss of one")]
    NoServers,
    /// A name is empty.
    #[error("server {position} of the list has an empty name: give each server a name")]
    EmptyName {
        /// Its place in the list, counted from 1.
        position: usize,
    },
    /// A name stands twice in the list.
    #[error("the name `{name}` stands twice in the list: give each server a name of its own")]
    DuplicateName {
        /// The name.
        name: ServerName,
    },
    /// Two different names have the same hash, by which servers are told apart.
    #[error("the names `{one}` and `{other}` have the same hash: rename one of them")]
    NameCollision {
        /// A name.
        one: ServerName,
        /// The other.
        other: ServerName,
    },
    /// A server of this runtime has that name already.
    #[error(
        "a server called `{name}` runs on this runtime already: shut its supervisor down first, or choose another name"
    )]
    NameInUse {
        /// The name.
        name: ServerName,
    },
    /// Not called from within a tokio runtime.
    #[error(
        "servers run on a tokio runtime and there is none here: call this inside `#[tokio::main]`, `#[tokio::test]` or `Runtime::block_on`"
    )]
    NoRuntime,
    /// The tokio runtime has no timers.
    #[error(
        "the tokio runtime around this call has no timers: build it with `enable_time` or `enable_all`"
    )]
    NoTimers,
    /// A value of the configuration is out of its range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The closure that makes the machine failed.
    #[error("the machine of server `{server}` could not be made")]
    Init {
        /// Whose.
        server: ServerName,
        /// What the closure said.
        #[source]
        source: InitError,
    },
    /// The store holds the log of another type of machine.
    #[error(
        "the store of server `{server}`{} holds entries of type `{stored}`, this machine takes `{given}`: give the server \
         its own store, or say the old name in `Entry::name` if the type was only renamed",
        at(place)
    )]
    WrongMachine {
        /// Whose store.
        server: ServerName,
        /// The name of the entry type in the store.
        stored: String,
        /// The name of the machine's.
        given: String,
        /// Where that is, if the store says so.
        place: Option<String>,
    },
    /// The store was written with rkyv set to another byte order, pointer width or alignment.
    #[error(
        "the store of server `{server}`{} was written in another format of rkyv (fingerprint {stored:016x}, this build has \
         {given:016x}): some dependency switches a format feature of rkyv (`unaligned`, `big_endian`, `pointer_width_*`) \
         on or off; build as before",
        at(place)
    )]
    WrongFormat {
        /// Whose store.
        server: ServerName,
        /// The fingerprint in the store.
        stored: u64,
        /// This build's.
        given: u64,
        /// Where that is, if the store says so.
        place: Option<String>,
    },
    /// The store belongs to another server.
    #[error(
        "the store given for server `{server}`{} belongs to `{stored}`: give each server the store it had before",
        at(place)
    )]
    WrongServer {
        /// The server that was to be started.
        server: ServerName,
        /// The server the store belongs to.
        stored: String,
        /// Where that is, if the store says so.
        place: Option<String>,
    },
    /// The store belongs to a cluster of another name, or of other founders.
    #[error(
        "the store of server `{server}`{} belongs to a cluster of another name or of other founders: give the cluster the \
         name and the founders that it had at this server's first start, or give the server its own store",
        at(place)
    )]
    WrongCluster {
        /// Whose store.
        server: ServerName,
        /// Where that is, if the store says so.
        place: Option<String>,
    },
    /// The store is empty, or was born anew, while the cluster it should belong to lives on in others.
    #[error(
        "the store of server `{server}`{} is empty although that of `{other}` holds the cluster's log: a server that lost \
         its store could vote twice; give it its own store as it was when the server stopped, not a copy or a backup",
        at(place)
    )]
    LostStore {
        /// Whose store.
        server: ServerName,
        /// A server that has its log.
        other: ServerName,
        /// Where that is, if the store says so.
        place: Option<String>,
    },
    /// A server across machines is not among its own members.
    #[error(
        "`{server}` is none of the members given ({}): name all founders of the cluster, this server among \
         them, or say `.join(address)` if others founded it",
        list(members)
    )]
    NotAMember {
        /// The server that was to be started.
        server: ServerName,
        /// The members given.
        members: Vec<ServerName>,
    },
    /// Two servers are to be reached at one address.
    #[error(
        "`{one}` and `{other}` are both given the address {address}: give each server the address at which it is reached \
         itself"
    )]
    DuplicateAddress {
        /// A server.
        one: ServerName,
        /// The other.
        other: ServerName,
        /// The address of both.
        address: String,
    },
    /// A server is to join a cluster that it is a founder of.
    #[error(
        "server `{server}` is to join, and it is one of the founders given: leave out `.join(..)`, or take it off the \
         founders if others founded the cluster without it"
    )]
    FounderJoins {
        /// The server.
        server: ServerName,
    },
    /// A server across machines was given no store.
    #[error(
        "server `{server}` was given no store: give it one on the disk, by `.store(graft::store::redb(path)?)`, or say          `.store(graft::store::memory())` if it need not survive its process"
    )]
    NoStore {
        /// The server.
        server: ServerName,
    },
    /// A server across machines was given no way to reach the others.
    #[error(
        "server `{server}` was given no transport: give it one, by `.transport(network)`: see `graft::transport`"
    )]
    NoTransport {
        /// The server.
        server: ServerName,
    },
    /// The network is not this server's.
    #[error("the network of server `{server}` cannot be opened")]
    Network {
        /// The server.
        server: ServerName,
        /// What is wrong.
        #[source]
        source: NetworkError,
    },
    /// The servers could not found their cluster, or this one is not of those that did.
    #[error("server `{server}` does not take part in its cluster")]
    Founding {
        /// The server.
        server: ServerName,
        /// Why not.
        #[source]
        source: Box<FoundingError>,
    },
    /// Its supervisor has shut down meanwhile, and closed the store.
    #[error(
        "the store of server `{server}` is closed because its supervisor was shut down meanwhile: start the cluster anew"
    )]
    StoreClosed {
        /// Whose store.
        server: ServerName,
    },
    /// The log of the store begins later than this build can make use of.
    #[error("the store of server `{server}` cannot be used by this build: {reason}")]
    Unusable {
        /// Whose store.
        server: ServerName,
        /// What is wrong with it.
        reason: String,
    },
    /// A store failed.
    #[error("the store of server `{server}`{} failed", at(place))]
    Store {
        /// Whose store.
        server: ServerName,
        /// Where that is, if the store says so; where it could not be opened, `source` does.
        place: Option<String>,
        /// What it said.
        #[source]
        source: StoreError,
    },
}

impl StartError {
    /// What founding came to, in the words of a start.
    pub(crate) fn of_founding(server: ServerName, error: FoundingError) -> Self {
        match error {
            FoundingError::Store { place, source, .. } => Self::Store { server, place, source },
            FoundingError::WrongIdentity { field, stored, described, place } => match field {
                "server" => Self::WrongServer { server, stored, place },
                "cluster" => Self::WrongCluster { server, place },
                "machine" => Self::WrongMachine { server, stored, given: described, place },
                _ => {
                    let source = FoundingError::WrongIdentity { field, stored, described, place };
                    Self::Founding { server, source: Box::new(source) }
                }
            },
            source => Self::Founding { server, source: Box::new(source) },
        }
    }
}

/// An error and everything behind it, in one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(behind) = cause {
        text = format!("{text}: {behind}");
        cause = behind.source();
    }
    text
}

fn list(names: &[ServerName]) -> String {
    let names: Vec<&str> = names.iter().map(ServerName::as_str).collect();
    names.join(", ")
}

/// The place of a store, for the middle of a sentence.
fn at(place: &Option<String>) -> String {
    place.as_ref().map(|place| format!(" at {place}")).unwrap_or_default()
}

/// Why a supervisor could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SupervisorError {
    /// It has no server of that name.
    #[error("this supervisor has no server `{name}`, it has {}", .servers.join(", "))]
    UnknownServer {
        /// The name asked for.
        name: String,
        /// Those it has.
        servers: Vec<String>,
    },
    /// The server does not run.
    #[error("server `{name}` does not run: restart it first")]
    NotRunning {
        /// Its name.
        name: ServerName,
    },
    /// The server did not stop in time, or another call stops or starts it and takes longer than that.
    #[error(
        "server `{name}` did not stop within {waited:?}: its runtime is busy, its machine blocks, or it is being started and its disk does not answer; a machine that blocks should run with `Apply::Thread`"
    )]
    NotStopped {
        /// Its name.
        name: ServerName,
        /// How long was waited.
        waited: Duration,
    },
    /// The server could not be started again.
    #[error("server `{name}` could not be started again")]
    Restart {
        /// Its name.
        name: ServerName,
        /// Why not.
        #[source]
        source: StartError,
    },
    /// The servers' runtime has ended, or the supervisor is shutting down.
    #[error("the servers of this supervisor are shut down: start them anew")]
    Shutdown,
    /// Nobody leads, so there is nothing to hand over.
    #[error("no leader was found in {waited:?}: see that a majority of the servers runs")]
    NoLeader {
        /// How long was waited.
        waited: Duration,
    },
    /// Leadership could not be handed over.
    #[error("leadership was not handed to `{to}`: {reason}")]
    Transfer {
        /// Who was to lead.
        to: ServerName,
        /// Why it does not.
        reason: String,
    },
}
