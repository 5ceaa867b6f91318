//! Clients: their requests, the replies, and what they hear of servers that are full or gone.

use std::collections::BTreeSet;

use bytes::Bytes;
use graft_core::{
    EntryKind, Envelope, InboxLimits, LinkError, RejectReason, Reply, ReplyEnvelope, Request,
};

use super::{
    Fixture, Verdict, ensure, ensure_eq, list_checks,
    samples::{bytes, replies},
    servers::{Client, Cluster, News, Server},
};

list_checks![
    requests_arrive_whole,
    a_request_arrives_once,
    every_kind_of_reply_reaches_its_link,
    replies_reach_the_link_they_are_for_and_no_other,
    replies_that_are_sent_together_all_arrive,
    a_request_that_is_refused_is_known_to_be,
    a_link_hears_that_a_server_is_gone,
];

const CLIENT_KINDS: [EntryKind; 5] = [
    EntryKind::Plain,
    EntryKind::SessionOpen,
    EntryKind::SessionKeepAlive,
    EntryKind::SessionClose,
    EntryKind::SessionCommand,
];

async fn requests_arrive_whole(fixture: &dyn Fixture) -> Verdict {
    let mut cluster = Cluster::start(fixture).await?;
    let client = cluster.client().await;
    let mut request_id = u64::MAX - 1000;
    for length in [0, 1, 16, 17, 4096, 1 << 20] {
        for kind in CLIENT_KINDS {
            request_id += 1;
            let payload = bytes(length, 3);
            let sent_at = cluster.runtime.now();
            let found = cluster.request(&client, 0, request_id, kind, payload.clone()).await?;
            let what = format!("request {request_id} of {length} bytes");
            ensure_eq(&found.request_id, &request_id, &what)?;
            ensure_eq(&found.kind, &kind, &what)?;
            ensure(found.payload == payload, format_args!("{what} keeps its payload"))?;
            // Across machines the deadline is translated, which is never exact.
            let patience = cluster.limits.patience;
            let latest = cluster.runtime.now() + patience * 2;
            let deadline = found.deadline;
            let sound = deadline > sent_at && deadline <= latest;
            ensure(sound, format_args!("{what} keeps its deadline, found {deadline:?}"))?;
        }
    }
    Ok(())
}

async fn a_request_arrives_once(fixture: &dyn Fixture) -> Verdict {
    const COUNT: u64 = 500;
    let mut cluster = Cluster::start(fixture).await?;
    let client = cluster.client().await;
    cluster.request(&client, 0, 0, EntryKind::Plain, Bytes::new()).await?;
    let node = cluster.node(0);
    for request_id in 1..=COUNT {
        let _may_be_lost = client.send(node, request_id, EntryKind::Plain, bytes(20, 1));
    }
    cluster.rest().await;
    let (quiet, patience) = (cluster.limits.quiet, cluster.limits.patience);
    cluster.gather(0, patience, |server| !server.requests.is_empty()).await;
    cluster.gather(0, quiet, |_| false).await;
    let mut seen = BTreeSet::new();
    for Request { request_id, .. } in &cluster.servers[0].requests {
        let is_new = seen.insert(*request_id);
        ensure(is_new, format_args!("request {request_id} arrives once"))?;
    }
    ensure(!seen.is_empty(), "requests arrive")
}

async fn every_kind_of_reply_reaches_its_link(fixture: &dyn Fixture) -> Verdict {
    let mut cluster = Cluster::start(fixture).await?;
    let client = cluster.client().await;
    let node = cluster.node(0);
    for (request_id, reply) in (1..).zip(replies()) {
        let found = cluster.request(&client, 0, request_id, EntryKind::Plain, Bytes::new()).await?;
        answer(&cluster.servers[0], &found, reply.clone());
        let wanted = News::Reply(node, request_id, reply);
        let heard = client.hears(|news| *news == wanted).await;
        let promise = format_args!("reply {request_id} arrives as it was sent");
        ensure(heard, promise)?;
        client.forget();
    }
    Ok(())
}

fn answer(server: &Server, request: &Request, reply: Reply) {
    let Request { link, request_id, .. } = *request;
    server.transport.send(Envelope::Reply(ReplyEnvelope { link, request_id, reply }));
}

async fn replies_reach_the_link_they_are_for_and_no_other(fixture: &dyn Fixture) -> Verdict {
    let mut cluster = Cluster::start(fixture).await?;
    let clients: [Client; 3] =
        [cluster.client().await, cluster.client().await, cluster.client().await];
    // All use the same numbers, and each talks to two servers.
    for (at, client) in clients.iter().enumerate() {
        for to in 0..2 {
            let payload = bytes(8, at);
            let found = cluster.request(client, to, 7, EntryKind::Plain, payload).await?;
            answer(&cluster.servers[to], &found, Reply::Applied(bytes(100, at * 10 + to)));
        }
    }
    for (at, client) in clients.iter().enumerate() {
        let wanted = |to: usize| {
            let reply = Reply::Applied(bytes(100, at * 10 + to));
            News::Reply(cluster.node(to), 7, reply)
        };
        for to in 0..2 {
            let heard = client.hears(|news| *news == wanted(to)).await;
            ensure(heard, format_args!("link {at} hears server {to}"))?;
        }
    }
    cluster.rest().await;
    for (at, client) in clients.iter().enumerate() {
        let own = |news: &News| match news {
            News::Reply(_, _, Reply::Applied(found)) => {
                (0..2).any(|to| *found == bytes(100, at * 10 + to))
            }
            _ => false,
        };
        let heard = client.heard();
        let promise = format_args!("link {at} hears its own replies alone, found {heard:?}");
        ensure(heard.iter().all(own), promise)?;
    }
    Ok(())
}

async fn replies_that_are_sent_together_all_arrive(fixture: &dyn Fixture) -> Verdict {
    const EACH: usize = 5;
    let mut cluster = Cluster::start(fixture).await?;
    let clients: [Client; 3] =
        [cluster.client().await, cluster.client().await, cluster.client().await];
    // Runs of replies to one link, and links that take turns.
    let order = [0, 0, 0, 1, 2, 1, 2, 2, 0, 1, 0, 1, 1, 2, 2];
    let mut together = Vec::new();
    for (number, at) in (0_u64..).zip(order) {
        let payload = bytes(8, at);
        let found = cluster.request(&clients[at], 0, number, EntryKind::Plain, payload).await?;
        let Request { link, request_id, .. } = found;
        together.push(ReplyEnvelope { link, request_id, reply: Reply::Applied(bytes(50, at)) });
    }
    cluster.servers[0].transport.send_replies(&mut together);
    ensure(together.is_empty(), "the buffer of replies comes back empty")?;
    for (at, client) in clients.iter().enumerate() {
        let numbers = (0_u64..).zip(order).filter(|(_, of)| *of == at);
        for (number, _) in numbers {
            let wanted = News::Reply(cluster.node(0), number, Reply::Applied(bytes(50, at)));
            let heard = client.hears(|news| *news == wanted).await;
            ensure(heard, format_args!("link {at} hears the reply to request {number}"))?;
        }
    }
    cluster.rest().await;
    for (at, client) in clients.iter().enumerate() {
        let heard = client.heard().len();
        ensure_eq(&heard, &EACH, format_args!("link {at} hears its replies, each once"))?;
    }
    Ok(())
}

async fn a_request_that_is_refused_is_known_to_be(fixture: &dyn Fixture) -> Verdict {
    const COUNT: usize = 100;
    let limits = InboxLimits { request_bytes: 64 << 10, ..InboxLimits::default() };
    let mut cluster = Cluster::start_with(fixture, limits).await?;
    let client = cluster.client().await;
    cluster.request(&client, 0, 0, EntryKind::Plain, Bytes::new()).await?;
    cluster.rest().await;
    cluster.servers[0].take();
    cluster.servers[0].forget();
    client.forget();
    let node = cluster.node(0);
    let mut full = 0;
    for request_id in 1..=COUNT {
        let request_id = request_id as u64;
        match client.send(node, request_id, EntryKind::Plain, bytes(8 << 10, 1)) {
            Ok(()) => {}
            Err(LinkError::Full(_)) => full += 1,
            Err(error) => return ensure(false, format_args!("the server is there: {error}")),
        }
    }
    let overloaded = Reply::Rejected(RejectReason::Overloaded);
    let is_refusal = |news: &News| matches!(news, News::Reply(_, _, reply) if *reply == overloaded);
    if full == 0 {
        // What is taken makes room, so nothing is before that.
        client.hears(is_refusal).await;
    }
    let deadline = cluster.runtime.now() + cluster.limits.patience;
    let (taken, told) = loop {
        cluster.rest().await;
        cluster.servers[0].take();
        let taken = cluster.servers[0].requests.len();
        let told = client.heard().iter().filter(|news| is_refusal(news)).count();
        if taken + full + told == COUNT || cluster.runtime.now() >= deadline {
            break (taken, told);
        }
    };
    let what = format!("{taken} taken, {full} full at once, {told} answered `Overloaded`");
    ensure(taken > 0, format_args!("some requests fit: {what}"))?;
    ensure(full + told > 0, format_args!("some do not: {what}"))?;
    let all = taken + full + told == COUNT;
    ensure(all, format_args!("each of {COUNT} requests is accounted for: {what}"))
}

async fn a_link_hears_that_a_server_is_gone(fixture: &dyn Fixture) -> Verdict {
    let mut cluster = Cluster::start(fixture).await?;
    let client = cluster.client().await;
    let node = cluster.node(1);
    cluster.request(&client, 1, 5, EntryKind::Plain, bytes(10, 1)).await?;
    ensure(!client.heard().contains(&News::Gone(node)), "a server that is there is not gone")?;
    cluster.servers[1].transport.close().await;
    let heard = client.hears(|news| *news == News::Gone(node)).await;
    ensure(heard, "a link hears that a server with an open request is gone")?;
    client.forget();
    // From now on a request fails at once, or the link hears once more that the server is gone.
    if client.send(node, 6, EntryKind::Plain, bytes(10, 1)).is_ok() {
        let heard = client.hears(|news| *news == News::Gone(node)).await;
        ensure(heard, "a link hears that a server it sent to later is gone")?;
    }
    let found = cluster.request(&client, 0, 7, EntryKind::Plain, bytes(10, 1)).await?;
    ensure_eq(&found.request_id, &7, "the other servers are there")
}
