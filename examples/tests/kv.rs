//! Three servers of the kv example, in one process and over a network in memory.

#![allow(clippy::unwrap_used, reason = "this is test code")]

use std::{future::Future, time::Duration};

use graft::{Server, transport::Memory};
use graft_examples::kv::{Kv, KvEntry, KvReply};

const MEMBERS: [(&str, &str); 3] = [("server1", "one"), ("server2", "two"), ("server3", "three")];

async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), work).await.unwrap()
}

async fn start(network: &Memory) -> Vec<Server<Kv>> {
    let start = |name| {
        graft::server(name)
            .cluster("kv")
            .members(MEMBERS)
            .store(graft::store::memory())
            .transport(network.clone())
            .start(Kv::default)
    };
    let [one, two, three] = MEMBERS.map(|(name, _)| start(name));
    let (one, two, three) = soon(async { tokio::join!(one, two, three) }).await;
    vec![one.unwrap(), two.unwrap(), three.unwrap()]
}

fn text(text: &str) -> Option<String> {
    Some(text.into())
}

#[tokio::test]
async fn what_one_server_is_told_the_others_know() {
    let servers = start(&Memory::default()).await;
    let key = || "colour".to_owned();
    for (at, entry, reply) in [
        (0, KvEntry::Put { key: key(), value: "green".into() }, KvReply::Previous(None)),
        (1, KvEntry::Get { key: key() }, KvReply::Found(text("green"))),
        (
            2,
            KvEntry::CompareAndSwap { key: key(), expected: text("green"), value: "blue".into() },
            KvReply::Compared { swapped: true, found: text("green") },
        ),
        (
            0,
            KvEntry::CompareAndSwap { key: key(), expected: None, value: "red".into() },
            KvReply::Compared { swapped: false, found: text("blue") },
        ),
        (
            1,
            KvEntry::List { prefix: "col".into(), after: None },
            KvReply::Page { pairs: vec![(key(), "blue".into())], more: false },
        ),
        (2, KvEntry::Delete { key: key() }, KvReply::Previous(text("blue"))),
        (0, KvEntry::Get { key: key() }, KvReply::Found(None)),
    ] {
        assert_eq!(soon(servers[at].request(entry.clone())).await.unwrap(), reply, "{entry:?}");
    }
    for server in servers {
        soon(server.shutdown()).await;
    }
}

#[tokio::test]
async fn of_many_swaps_from_the_same_value_one_is_made() {
    let servers = start(&Memory::default()).await;
    let swap = |number: usize| {
        let entry = KvEntry::CompareAndSwap {
            key: "owner".into(),
            expected: None,
            value: format!("client {number}"),
        };
        servers[number % servers.len()].request(entry)
    };
    let tasks: Vec<_> = (0..16).map(|number| tokio::spawn(swap(number))).collect();
    let mut winners = Vec::new();
    for (number, task) in tasks.into_iter().enumerate() {
        match soon(task).await.unwrap().unwrap() {
            KvReply::Compared { swapped: true, found } => {
                assert_eq!(found, None);
                winners.push(number);
            }
            KvReply::Compared { swapped: false, found } => assert!(found.is_some()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(winners.len(), 1, "{winners:?}");
}
