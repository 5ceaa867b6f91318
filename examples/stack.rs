//! A stack on three servers: requests, an entry of the wrong machine, the loss of the leader, and a look inside.
//!
//! `cargo run --release --example stack`

#![allow(clippy::print_stdout)]

use std::{
    collections::BTreeSet,
    error::Error,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use graft::{RequestError, Supervisor};
use tokio::{sync::Notify, task::JoinSet};

const SERVERS: [&str; 3] = ["server1", "server2", "server3"];
/// How many tasks send requests at once.
const TASKS: usize = 64;
/// How many values each of them puts onto the stack.
const VALUES: usize = 100;

/// What the stack is asked.
#[derive(graft::Archive, graft::Serialize, graft::Deserialize, Debug)]
#[rkyv(crate = graft::rkyv)]
enum StackEntry {
    Put(String),
    Pop,
    Other(String),
}

/// What it answers.
#[derive(graft::Archive, graft::Serialize, graft::Deserialize, Debug)]
#[rkyv(crate = graft::rkyv)]
enum StackReply {
    Ok,
    Noop,
    Value(String),
    InvalidRequest,
}

impl graft::Entry for StackEntry {
    type Response = StackReply;
}

impl fmt::Display for StackReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Noop => "noop",
            Self::Value(value) => value,
            Self::InvalidRequest => "invalid_request",
        })
    }
}

#[derive(Default)]
struct Stack(Vec<String>);

impl graft::Machine for Stack {
    type Entry = StackEntry;

    fn handle_entry(&mut self, entry: StackEntry) -> StackReply {
        match entry {
            StackEntry::Put(value) => {
                self.0.push(value);
                StackReply::Ok
            }
            StackEntry::Pop => self.0.pop().map_or(StackReply::Noop, StackReply::Value),
            StackEntry::Other(_) => StackReply::InvalidRequest,
        }
    }
}

/// An entry that belongs to some other machine.
#[derive(graft::Archive, graft::Serialize, graft::Deserialize, Debug)]
#[rkyv(crate = graft::rkyv)]
struct CounterEntry(u64);

impl graft::Entry for CounterEntry {
    type Response = u64;
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let stack = graft::start(SERVERS, Stack::default).await?;

    println!("{}", graft::request("server1", StackEntry::Pop).await?);
    println!("{}", graft::request("server2", StackEntry::Put("foo".into())).await?);
    println!("{}", graft::request("server3", StackEntry::Pop).await?);
    println!("{}", graft::request("server1", StackEntry::Other("bar".into())).await?);

    match graft::request("server1", CounterEntry(1)).await {
        Err(error @ RequestError::WrongEntry { .. }) => {
            println!("\nRequestError::WrongEntry: {error} ({:?})", error.outcome());
        }
        other => return Err(format!("an entry of another machine gave {other:?}").into()),
    }

    println!();
    lose_the_leader(&stack).await?;

    for server in SERVERS {
        println!("\n{}", graft::data(server).await?);
    }
    stack.shutdown().await;
    Ok(())
}

/// Stops the leader while many tasks put values onto the stack, and then checks that every value is
/// there exactly once.
async fn lose_the_leader(stack: &Supervisor<Stack>) -> Result<(), Box<dyn Error>> {
    let (answered, midway) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let mut puts = JoinSet::new();
    for task in 0..TASKS {
        let (answered, midway) = (Arc::clone(&answered), Arc::clone(&midway));
        puts.spawn(async move {
            for value in 0..VALUES {
                let entry = StackEntry::Put(format!("{task}.{value}"));
                graft::request(SERVERS[task % SERVERS.len()], entry).await?;
                if answered.fetch_add(1, Ordering::Relaxed) + 1 == TASKS * VALUES / 2 {
                    midway.notify_one();
                }
            }
            Ok::<(), RequestError>(())
        });
    }

    midway.notified().await;
    let old = stack.leader().await?;
    stack.stop_server(&old).await?;
    println!("stopped the leader, {old}, after {} requests", answered.load(Ordering::Relaxed));
    let new = stack.leader().await?;
    println!("{new} leads now");
    while let Some(put) = puts.join_next().await {
        put??;
    }
    stack.restart_server(&old).await?;

    let mut found = BTreeSet::new();
    while let StackReply::Value(value) = graft::request(&old, StackEntry::Pop).await? {
        if !found.insert(value.clone()) {
            return Err(format!("{value} was applied twice").into());
        }
    }
    let expected = TASKS * VALUES;
    println!("{expected} values were put, {} different ones were found", found.len());
    if found.len() != expected {
        return Err(format!("{} values were lost", expected - found.len()).into());
    }
    println!("nothing was lost, nothing was applied twice");
    Ok(())
}
