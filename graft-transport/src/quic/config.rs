//! What a network or a link is told when it is made.

use std::time::Duration;

use graft_core::{ClusterId, Epoch, Incarnation};

use crate::wire::v1::{Limits as FrameLimits, Schema};

/// What a server tells of itself, and what it holds others to.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// The server's name: that of its certificate.
    pub name: String,
    /// The cluster's name and founding list, as a number. Servers of another are refused.
    pub cluster: ClusterId,
    /// The generation of the cluster. Servers of another are refused.
    pub epoch: Epoch,
    /// The birth of the server's store. It may be told [later](super::Network::set_incarnation).
    pub incarnation: Option<Incarnation>,
    /// The name of the entries' type. Servers with another are refused, and clients that state another; a
    /// client may state none.
    pub machine: String,
    /// The fingerprint of the form in which entries are archived; it is held to as the name of their type.
    pub format: u64,
    /// The versions of entries that this server reads.
    pub schema: Schema,
    /// The server's shortest election timeout. Told to the others, who say so where theirs differs.
    pub election_timeout: Duration,
    /// How large frames may be.
    pub frames: FrameLimits,
    /// How much of everything there may be.
    pub bounds: Bounds,
    /// How long everything may take.
    pub timing: Timing,
}

impl NetworkConfig {
    /// The configuration of the server `name` with the defaults of everything else.
    #[must_use]
    pub fn new(name: impl Into<String>, cluster: ClusterId) -> Self {
        Self {
            name: name.into(),
            cluster,
            epoch: Epoch(0),
            incarnation: None,
            machine: String::new(),
            format: 0,
            schema: Schema::default(),
            election_timeout: Duration::from_millis(300),
            frames: FrameLimits::default(),
            bounds: Bounds::default(),
            timing: Timing::default(),
        }
    }
}

/// How much of everything a server takes upon itself. Each is a bound on memory that others can use up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// What may wait for a peer of votes and heartbeats, in bytes. Default 1 MiB: some thousands.
    pub control_bytes: usize,
    /// What may wait for a peer of entries and acknowledgements, in bytes. Default 8 MiB: twice what a
    /// leader sends ahead.
    pub append_bytes: usize,
    /// What may wait for a peer of snapshot chunks, in bytes. Default 4 MiB: as much again as its stream has on its
    /// way.
    pub snapshot_bytes: usize,
    /// What may wait for a client of replies, in bytes. From half of it on no more requests are taken from
    /// that client, and one that lets more wait is disconnected. Default 32 MiB: half of it is a session's window of
    /// 4,096 replies of 4 KiB.
    pub reply_bytes: usize,
    /// What may be let in of one client's requests and not be answered yet, in bytes; a small request counts for
    /// 1 KiB. Who has so much under way is not listened to until some of it is answered. Default 4 MiB: as much as a
    /// leader sends ahead to a follower, and 4,096 small requests.
    pub client_request_bytes: usize,
    /// The same of all clients together. Default 8 MiB: two that have their whole share under way keep every disk busy, and
    /// the more is let in, the longer everybody waits. As much of it as `contended_request_bytes`, but at most a quarter, is kept for
    /// those who ask for much, however many ask for little; and one request that is larger than the others leave comes in beside
    /// it.
    pub request_bytes: usize,
    /// What all clients that ask for much may have let in together while more than one asks, in bytes, and all that ask for
    /// little. Who has at most a 64th of its share under way, with what it asks for, and had no more in the last half second, asks for
    /// little (a small request counts for 1 KiB, so with a share below 64 KiB nobody does). Among those of a kind each
    /// gets the same; a request that is larger comes in once nothing else of theirs is in. Default 2 MiB: that keeps every disk
    /// busy.
    pub contended_request_bytes: usize,
    /// What those who ask for much have together while somebody asks for little or was answered in the last 100 ms, at least: on a
    /// server that takes some time for an answer in any case, because its disks or its network do, 64 KiB for each millisecond, up
    /// to `contended_request_bytes`. Default 64 KiB: who asks for little stands behind no more than that, and they still get a
    /// good part of what the server can do. With as much as `contended_request_bytes` they get all of it, and who asks for
    /// little waits several times as long.
    pub yielding_request_bytes: usize,
    /// What large frames of all clients may hold from when they begin until what they ask for is let in, in bytes; those of
    /// 16 KiB and less are free, and an eighth of it is for those who ask for little. Who gets no room is not read, and who
    /// has some and does not go on is disconnected: after [`Timing::idle_timeout`] without a byte, or [`Timing::agreement`] and
    /// a second for each 100 KiB. Default 8 MiB: as much as is let in of their requests.
    pub begun_bytes: usize,
    /// How many peers may be connected. Default 64, far above any cluster.
    pub peers: usize,
    /// How many clients may be connected. Default 1024: they take less than 64 MiB while they ask for
    /// little, and 200 that each begin the largest request and do not end it take no more, which tests show.
    pub clients: usize,
    /// How many connections may be between their first packet and the agreement of both sides. Default 256: what
    /// one address may begin at once, and some more.
    pub handshakes: usize,
    /// From how many such connections on each sender must first prove its address. Default 32: all peers and a few
    /// clients come at once without the round trip that it costs; whoever sends in others' names gets no further.
    pub unproven_handshakes: usize,
    /// How many handshakes an address may begin in a second, on average. Default 50: nobody keeps this server busy
    /// with handshakes alone, and who is turned away comes again. Half of it, and of the burst, is for senders that
    /// have proven their address.
    pub handshakes_per_second: u32,
    /// How many handshakes an address may begin at once. Default 200: as many clients on one machine, started
    /// together.
    pub handshake_burst: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            control_bytes: 1 << 20,
            append_bytes: 8 << 20,
            snapshot_bytes: 4 << 20,
            reply_bytes: 32 << 20,
            client_request_bytes: 4 << 20,
            request_bytes: 8 << 20,
            contended_request_bytes: 2 << 20,
            yielding_request_bytes: 64 << 10,
            begun_bytes: 8 << 20,
            peers: 64,
            clients: 1024,
            handshakes: 256,
            unproven_handshakes: 32,
            handshakes_per_second: 50,
            handshake_burst: 200,
        }
    }
}

/// How long everything may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// After so long without a sign of life a connection is over. Default 2.5 s: until then what is sent to one that
    /// is gone is lost, so it is a few elections long; and it is far above a pause of a busy machine and a few lost
    /// packets. One that is idle is kept alive four times as often.
    pub idle_timeout: Duration,
    /// How long a handshake may take, from its first packet. Default 3 s: two round trips across the world, each
    /// packet lost a few times. Each under way takes one of the [`Bounds::handshakes`].
    pub handshake: Duration,
    /// How long the agreement may take after the handshake: the first frames of both sides. Default 2 s: one more
    /// round trip, on the same terms.
    pub agreement: Duration,
    /// How long an attempt to reach an address may take. Default 2 s: a server that starts a moment later is
    /// reached by the packets that are sent again, and one that has moved is not waited for.
    pub dial: Duration,
    /// The pause after the first failed attempt; each is twice as long as the one before, and a random part of it is
    /// left out. Default 50 ms: a process that is started again is back after about so long.
    pub backoff_min: Duration,
    /// The longest pause between two attempts. Default 500 ms, the length of an election: nobody is missed longer.
    pub backoff_max: Duration,
    /// How long a server waits for a peer of a lower number, which calls by itself, before it calls that one; up to half
    /// as much again is added by chance. Default 3 s: by then a connection that is lost has been noticed on both sides
    /// and made anew, so that two calls seldom cross.
    pub await_call: Duration,
    /// How long the end of a connection may take: its last frames and the reason. Default 1 s: a server that stops
    /// waits for it, whether or not the other side still reads.
    pub farewell: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_millis(2500),
            handshake: Duration::from_secs(3),
            agreement: Duration::from_secs(2),
            dial: Duration::from_secs(2),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_millis(500),
            await_call: Duration::from_secs(3),
            farewell: Duration::from_secs(1),
        }
    }
}

/// What a client tells of itself.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// The name of the entries' type. An empty one states none, and is not checked by the servers.
    pub machine: String,
    /// The fingerprint of the form in which entries are archived; zero states none.
    pub format: u64,
    /// The versions of entries that this client writes.
    pub schema: Schema,
    /// How large frames may be.
    pub frames: FrameLimits,
    /// What may wait for a server of requests, in bytes. Default 64 MiB: 1024 requests of 64 KiB.
    pub request_bytes: usize,
    /// How many addresses are tried at most. Default 64.
    pub addresses: usize,
    /// How long everything may take.
    pub timing: Timing,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            machine: String::new(),
            format: 0,
            schema: Schema::default(),
            frames: FrameLimits::default(),
            request_bytes: 64 << 20,
            addresses: 64,
            timing: Timing::default(),
        }
    }
}
