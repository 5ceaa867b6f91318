//! Messages between servers: whole or not at all, once, and to the one they are for.

use std::collections::BTreeSet;

use graft_core::{Class, Envelope, LinkId, NodeId, Reply, ReplyEnvelope};

use super::{
    Fixture, Verdict, ensure, ensure_eq, list_checks,
    samples::{bulky_messages, bytes, describe, envelope, heartbeat, messages, small},
    servers::Cluster,
};

list_checks![
    every_kind_of_message_arrives_whole,
    large_messages_arrive_whole_or_not_at_all,
    everyone_reaches_everyone,
    nothing_arrives_twice_or_at_another_server,
    sending_to_nobody_is_harmless,
];

async fn every_kind_of_message_arrives_whole(fixture: &dyn Fixture) -> Verdict {
    let mut cluster = Cluster::start(fixture).await?;
    let (from, to) = (cluster.node(0), cluster.node(1));
    for message in messages() {
        let sent = envelope(from, to, message);
        cluster.deliver(&sent).await?;
        for found in cluster.servers[1].peers.drain(..) {
            ensure_eq(&found, &sent, "what arrives is what was sent")?;
        }
    }
    Ok(())
}

async fn large_messages_arrive_whole_or_not_at_all(fixture: &dyn Fixture) -> Verdict {
    let mut cluster = Cluster::start(fixture).await?;
    let (from, to) = (cluster.node(0), cluster.node(1));
    let sent: Vec<_> =
        bulky_messages().into_iter().map(|message| envelope(from, to, message)).collect();
    for message in &sent {
        cluster.deliver(message).await?;
        for found in cluster.servers[1].peers.drain(..) {
            let promise = format!("{} was never sent like this", describe(&found));
            ensure(sent.contains(&found), promise)?;
        }
    }
    Ok(())
}

async fn everyone_reaches_everyone(fixture: &dyn Fixture) -> Verdict {
    let mut cluster = Cluster::start(fixture).await?;
    let nodes: Vec<NodeId> = cluster.servers.iter().map(|server| server.node).collect();
    for from in &nodes {
        for to in nodes.iter().filter(|to| *to != from) {
            for class in [Class::Control, Class::Append, Class::Snapshot] {
                cluster.deliver(&envelope(*from, *to, small(class, 9))).await?;
            }
        }
    }
    Ok(())
}

async fn nothing_arrives_twice_or_at_another_server(fixture: &dyn Fixture) -> Verdict {
    const COUNT: u64 = 500;
    let mut cluster = Cluster::start(fixture).await?;
    let nodes: Vec<NodeId> = cluster.servers.iter().map(|server| server.node).collect();
    for number in 1..=COUNT {
        for (at, from) in nodes.iter().enumerate() {
            let to = nodes[(at + 1) % nodes.len()];
            for class in [Class::Control, Class::Append, Class::Snapshot] {
                cluster.send(at, envelope(*from, to, small(class, number)));
            }
        }
    }
    cluster.rest().await;
    for at in 0..nodes.len() {
        let (quiet, patience) = (cluster.limits.quiet, cluster.limits.patience);
        cluster.gather(at, patience, |server| !server.peers.is_empty()).await;
        cluster.gather(at, quiet, |_| false).await;
        let server = &cluster.servers[at];
        ensure(!server.peers.is_empty(), format_args!("{} hears something", server.node))?;
        let mut seen = BTreeSet::new();
        let sender = nodes[(at + nodes.len() - 1) % nodes.len()];
        for found in &server.peers {
            let what = describe(found);
            let is_meant = found.to == server.node && found.from == sender;
            ensure(is_meant, format_args!("{} gets only its own, not {what}", server.node))?;
            let is_new = seen.insert((found.from, found.message.class(), found.message.term()));
            ensure(is_new, format_args!("{what} arrives once"))?;
        }
    }
    Ok(())
}

async fn sending_to_nobody_is_harmless(fixture: &dyn Fixture) -> Verdict {
    let mut cluster = Cluster::start(fixture).await?;
    let (from, to) = (cluster.node(0), cluster.node(1));
    let client = cluster.client().await;
    cluster.send(0, envelope(from, NodeId(0xdead), heartbeat(1)));
    cluster.servers[0].transport.send(Envelope::Reply(ReplyEnvelope {
        link: LinkId(0xdead_dead),
        request_id: 1,
        reply: Reply::Applied(bytes(10, 1)),
    }));
    cluster.rest().await;
    for server in &mut cluster.servers {
        server.take();
        let nothing = server.peers.is_empty() && server.requests.is_empty();
        ensure(nothing, format_args!("{} gets nothing that is for nobody", server.node))?;
    }
    ensure_eq(&client.heard(), &Vec::new(), "what a client hears of a reply to nobody")?;
    cluster.deliver(&envelope(from, to, heartbeat(2))).await
}
