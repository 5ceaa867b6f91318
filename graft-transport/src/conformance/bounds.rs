//! Nothing that a peer does or fails to do uses up this server's memory, time or urgent queues.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use graft_core::{Class, EntryKind, Envelope, InboxLimits, NodeId, Transport};

use super::{
    Fixture, Verdict, ensure, list_checks,
    samples::{append_of, bytes, envelope, heartbeat, install, small},
    servers::{Client, Cluster, Server, ends_in_time},
};

list_checks![
    a_flood_of_one_class_holds_up_no_other,
    what_is_on_its_way_to_a_peer_that_takes_nothing_is_bounded,
    what_is_on_its_way_to_a_peer_that_is_gone_is_bounded,
];

const PEER_CLASSES: [Class; 3] = [Class::Control, Class::Append, Class::Snapshot];

/// What a server's inbox takes in, of each class.
const INBOX_BYTES: usize = 1 << 20;

const INBOX: InboxLimits = InboxLimits {
    control_bytes: INBOX_BYTES,
    append_bytes: INBOX_BYTES,
    snapshot_bytes: INBOX_BYTES,
    request_bytes: INBOX_BYTES,
};

async fn a_flood_of_one_class_holds_up_no_other(fixture: &dyn Fixture) -> Verdict {
    let mut cluster = Cluster::start_with(fixture, INBOX).await?;
    let client = cluster.client().await;
    cluster.request(&client, 1, 0, EntryKind::Plain, Bytes::new()).await?;
    for (round, flood) in (1..).zip(Class::ALL) {
        // Numbers of this round are apart from those of any other.
        holds_up_no_other(&mut cluster, &client, flood, round * 1_000_000).await?;
    }
    Ok(())
}

/// Floods, and looks once whether all the rest is there: what waits behind the flood is not. How long it takes is nobody's
/// promise, so on a machine that has other things to do it is tried again with more time, but not with so much
/// that whoever waits behind a flood of seconds passes.
async fn holds_up_no_other(
    cluster: &mut Cluster<'_>,
    client: &Client,
    flood: Class,
    round: u64,
) -> Verdict {
    let quiet = cluster.limits.quiet;
    let mut found = Ok(());
    for (attempt, rest) in (0..).zip([1, 2, 4]) {
        // Nothing of an earlier attempt counts.
        let base = round + attempt * 100_000;
        pour(cluster, client, flood, base);
        send_beside(cluster, client, flood, base);
        cluster.runtime.sleep_until(cluster.runtime.now() + quiet * rest).await;
        let server = &mut cluster.servers[1];
        server.take();
        found = all_but_the_flood(server, flood, base);
        // What is left of the flood must not spill into the next one.
        cluster.gather(1, quiet * 2, |_| false).await;
        cluster.servers[1].forget();
        if found.is_ok() {
            break;
        }
    }
    found
}

/// Sends a little of every class but that of the flood.
fn send_beside(cluster: &Cluster<'_>, client: &Client, flood: Class, base: u64) {
    for number in base..base + 5 {
        for from in [0, 2] {
            for class in PEER_CLASSES.into_iter().filter(|class| *class != flood) {
                let message = small(class, number);
                cluster.send(from, envelope(cluster.node(from), cluster.node(1), message));
            }
        }
        if flood != Class::Request {
            let _may_be_full = client.send(cluster.node(1), number, EntryKind::Plain, bytes(10, 1));
        }
    }
}

fn all_but_the_flood(server: &Server, flood: Class, base: u64) -> Verdict {
    for class in PEER_CLASSES.into_iter().filter(|class| *class != flood) {
        let arrived = server.peers.iter().any(|found| {
            let message = &found.message;
            message.class() == class && message.term().0 >= base
        });
        ensure(arrived, format_args!("{class:?} arrives in a flood of {flood:?}"))?;
    }
    let arrived = server.requests.iter().any(|request| request.request_id >= base);
    let wanted = flood != Class::Request;
    ensure(arrived || !wanted, format_args!("a request arrives in a flood of {flood:?}"))
}

/// Sends far more of `class` than the inbox takes.
fn pour(cluster: &Cluster<'_>, client: &Client, class: Class, base: u64) {
    let (from, to) = (cluster.node(0), cluster.node(1));
    let bulk = bytes(128 << 10, 1);
    let count = match class {
        Class::Control => 50_000,
        _ => 256,
    };
    for number in base + 10..base + 10 + count {
        let message = match class {
            Class::Control => heartbeat(number),
            Class::Append => append_of(number, bulk.clone()),
            Class::Snapshot => install(number, bulk.clone()),
            Class::Request => {
                let _full = client.send(to, number, EntryKind::Plain, bulk.clone());
                continue;
            }
        };
        cluster.send(0, envelope(from, to, message));
    }
}

async fn what_is_on_its_way_to_a_peer_that_takes_nothing_is_bounded(
    fixture: &dyn Fixture,
) -> Verdict {
    for class in [Class::Append, Class::Snapshot] {
        let cluster = Cluster::start_with(fixture, INBOX).await?;
        let to = cluster.node(1);
        let alive = flood(&cluster, class, to).await?;
        let bound = cluster.limits.in_flight_bytes + INBOX_BYTES + PIECE;
        let found = alive.load(Ordering::Relaxed);
        let what = format!("{found} bytes of {class:?} are held for a peer that takes nothing");
        ensure(found <= bound, format_args!("{what}, {bound} may be"))?;
        close(cluster, &alive).await?;
    }
    Ok(())
}

async fn what_is_on_its_way_to_a_peer_that_is_gone_is_bounded(fixture: &dyn Fixture) -> Verdict {
    for class in [Class::Append, Class::Snapshot] {
        let cluster = Cluster::start_with(fixture, INBOX).await?;
        cluster.servers[1].transport.close().await;
        for (to, who) in [(cluster.node(1), "is gone"), (NodeId(0xdead), "never was")] {
            let alive = flood(&cluster, class, to).await?;
            cluster.rest().await;
            let bound = cluster.limits.in_flight_bytes;
            let found = alive.load(Ordering::Relaxed);
            let what = format!("{found} bytes of {class:?} are held for a peer that {who}");
            ensure(found <= bound, format_args!("{what}, {bound} may be"))?;
        }
        close(cluster, &Arc::default()).await?;
    }
    Ok(())
}

const PIECE: usize = 256 << 10;

/// Sends several times what may be on its way, and returns the count of the bytes that are still held.
/// No call may wait for anything, or the flood does not end in time.
async fn flood(cluster: &Cluster<'_>, class: Class, to: NodeId) -> Verdict<Arc<AtomicUsize>> {
    let alive = Arc::new(AtomicUsize::new(0));
    let count = 4 * (cluster.limits.in_flight_bytes + INBOX_BYTES) / PIECE;
    let from = cluster.node(0);
    let transport = Arc::clone(&cluster.servers[0].transport);
    let counter = Arc::clone(&alive);
    let pour = move || pour_counted(&*transport, class, (from, to), count, &counter);
    let ended = ends_in_time(&*cluster.runtime, cluster.limits.patience, pour).await;
    ensure(ended, format_args!("sending {class:?} to {to} waits for nobody"))?;
    cluster.rest().await;
    Ok(alive)
}

fn pour_counted(
    transport: &dyn Transport,
    class: Class,
    (from, to): (NodeId, NodeId),
    count: usize,
    alive: &Arc<AtomicUsize>,
) {
    for number in 1..=count as u64 {
        let payload = Counted::bytes(PIECE, alive);
        let message = match class {
            Class::Snapshot => install(number, payload),
            _ => append_of(number, payload),
        };
        transport.send(Envelope::Peer(envelope(from, to, message)));
    }
}

/// Closes all servers; nothing may be held after that.
async fn close(cluster: Cluster<'_>, alive: &AtomicUsize) -> Verdict {
    for server in &cluster.servers {
        server.transport.close().await;
    }
    let (runtime, limits) = (Arc::clone(&cluster.runtime), cluster.limits);
    drop(cluster);
    let deadline = runtime.now() + limits.patience;
    while alive.load(Ordering::Relaxed) > 0 {
        ensure(runtime.now() < deadline, "nothing is held once all are closed")?;
        runtime.sleep_until(runtime.now() + limits.quiet).await;
    }
    Ok(())
}

/// Bytes that know how many of their kind are still held.
struct Counted {
    bytes: Vec<u8>,
    alive: Arc<AtomicUsize>,
}

impl Counted {
    fn bytes(length: usize, alive: &Arc<AtomicUsize>) -> Bytes {
        alive.fetch_add(length, Ordering::Relaxed);
        Bytes::from_owner(Self { bytes: vec![0; length], alive: Arc::clone(alive) })
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.alive.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}
