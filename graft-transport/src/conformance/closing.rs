//! The end of a transport, and the next one of the same server.

use std::sync::Arc;

use graft_core::{Class, EntryKind, Envelope, InboxLimits, Reply, ReplyEnvelope};

use super::{
    Fixture, Verdict, ensure, list_checks,
    samples::{bytes, envelope, heartbeat, small},
    servers::{Cluster, News, Server},
};

list_checks![
    close_ends_what_is_offered,
    close_ends_what_is_sent,
    a_server_that_is_restarted_is_reached_again,
    the_end_of_an_earlier_transport_does_not_harm_its_successor,
];

async fn close_ends_what_is_offered(fixture: &dyn Fixture) -> Verdict {
    let mut cluster = Cluster::start(fixture).await?;
    let client = cluster.client().await;
    let (from, to) = (cluster.node(0), cluster.node(1));
    cluster.request(&client, 1, 1, EntryKind::Plain, bytes(10, 1)).await?;
    let send = |cluster: &Cluster<'_>, base: u64| {
        for number in base..base + 100 {
            for class in [Class::Control, Class::Append, Class::Snapshot] {
                cluster.send(0, envelope(from, to, small(class, number)));
            }
            let _gone = client.send(to, number, EntryKind::Plain, bytes(10, 1));
        }
    };
    // Some of these may be on their way when the transport closes.
    send(&cluster, 1000);
    cluster.servers[1].transport.close().await;
    cluster.servers[1].take();
    cluster.servers[1].forget();
    send(&cluster, 2000);
    cluster.rest().await;
    let server = &mut cluster.servers[1];
    server.take();
    let found = server.peers.len() + server.requests.len();
    let promise = format!("nothing is offered after `close`, found {found} arrivals");
    ensure(found == 0, promise)?;
    // Closing again is harmless, and returns.
    server.transport.close().await;
    let (from, to) = (cluster.node(2), cluster.node(0));
    cluster.deliver(&envelope(from, to, heartbeat(5))).await
}

async fn close_ends_what_is_sent(fixture: &dyn Fixture) -> Verdict {
    let mut cluster = Cluster::start(fixture).await?;
    let client = cluster.client().await;
    let (from, to) = (cluster.node(0), cluster.node(1));
    let open = cluster.request(&client, 0, 1, EntryKind::Plain, bytes(10, 1)).await?;
    cluster.servers[0].transport.close().await;
    cluster.rest().await;
    cluster.servers[1].take();
    cluster.servers[1].forget();
    for class in [Class::Control, Class::Append, Class::Snapshot] {
        cluster.send(0, envelope(from, to, small(class, 9)));
    }
    cluster.servers[0].transport.send(Envelope::Reply(ReplyEnvelope {
        link: open.link,
        request_id: open.request_id,
        reply: Reply::SessionDone,
    }));
    cluster.rest().await;
    cluster.servers[1].take();
    let found = cluster.servers[1].peers.len();
    ensure(found == 0, format_args!("a closed transport sends nothing, found {found} messages"))?;
    let replied = client.heard().iter().any(|news| matches!(news, News::Reply(..)));
    ensure(!replied, "a closed transport answers nobody")
}

async fn a_server_that_is_restarted_is_reached_again(fixture: &dyn Fixture) -> Verdict {
    let mut cluster = Cluster::start(fixture).await?;
    let client = cluster.client().await;
    for round in 1..4 {
        cluster.servers[1].transport.close().await;
        let node = cluster.node(1);
        let next = Server::start(fixture, node, InboxLimits::default()).await;
        drop(std::mem::replace(&mut cluster.servers[1], next));
        is_reached(&mut cluster, round * 10).await?;
        let found = cluster.request(&client, 1, round, EntryKind::Plain, bytes(9, 1)).await?;
        let reply = Reply::SessionDone;
        let wanted = News::Reply(node, round, reply.clone());
        cluster.servers[1].transport.send(Envelope::Reply(ReplyEnvelope {
            link: found.link,
            request_id: found.request_id,
            reply,
        }));
        let heard = client.hears(|news| *news == wanted).await;
        ensure(heard, format_args!("a client hears {node} after restart {round}"))?;
        cluster.servers[1].forget();
    }
    Ok(())
}

async fn the_end_of_an_earlier_transport_does_not_harm_its_successor(
    fixture: &dyn Fixture,
) -> Verdict {
    let mut cluster = Cluster::start(fixture).await?;
    let node = cluster.node(1);
    cluster.servers[1].transport.close().await;
    let next = Server::start(fixture, node, InboxLimits::default()).await;
    let earlier = std::mem::replace(&mut cluster.servers[1], next);
    is_reached(&mut cluster, 10).await?;
    let transport = Arc::clone(&earlier.transport);
    transport.close().await;
    is_reached(&mut cluster, 20).await?;
    drop((transport, earlier));
    is_reached(&mut cluster, 30).await
}

/// Checks that server 1 hears the others and is heard.
async fn is_reached(cluster: &mut Cluster<'_>, number: u64) -> Verdict {
    for (from, to) in [(0, 1), (1, 2), (2, 1), (1, 0)] {
        let (from, to) = (cluster.node(from), cluster.node(to));
        cluster.deliver(&envelope(from, to, heartbeat(number))).await?;
    }
    Ok(())
}
