//! A stack whose servers keep their logs on the disk: a second run finds what the first one put there.
//!
//! `cargo run --release --example durable_stack -- DIR`, twice

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{error::Error, iter, path::PathBuf, process::ExitCode};

#[derive(graft::Archive, graft::Serialize, graft::Deserialize, Debug)]
#[rkyv(crate = graft::rkyv)]
enum StackEntry {
    Put(String),
    Show,
}

impl graft::Entry for StackEntry {
    /// The whole stack.
    type Response = Vec<String>;
}

#[derive(Default)]
struct Stack(Vec<String>);

impl graft::Machine for Stack {
    type Entry = StackEntry;

    fn handle_entry(&mut self, entry: StackEntry) -> Vec<String> {
        if let StackEntry::Put(value) = entry {
            self.0.push(value);
        }
        self.0.clone()
    }
}

/// A stack whose servers keep their logs on the disk: a second run finds what the first one put there.
#[derive(clap::Parser)]
struct Arguments {
    /// Where the servers keep their logs, each in a directory of its own below this one
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    // What is not understood ends with the usage, and exit status 2.
    let Arguments { directory } = clap::Parser::parse();
    let Err(error) = run(directory).await else { return ExitCode::SUCCESS };
    // In words, with all that led to it: what `main` returns is printed for those who debug.
    let first: &dyn Error = &*error;
    let causes = iter::successors(Some(first), |error| (*error).source());
    eprintln!("{}", causes.map(ToString::to_string).collect::<Vec<_>>().join(": "));
    ExitCode::FAILURE
}

async fn run(directory: PathBuf) -> Result<(), Box<dyn Error>> {
    let stores = directory.clone();
    let stack = graft::cluster(["server1", "server2", "server3"])
        .stores(move |name| Ok(graft::store::redb(stores.join(name.as_str()))?))
        .start(Stack::default)
        .await?;

    let found = graft::request("server1", StackEntry::Show).await?;
    println!("found in {}: {found:?}", directory.display());
    for value in ["foo", "bar"] {
        let value = format!("{value} of run {}", found.len() / 2 + 1);
        graft::request("server2", StackEntry::Put(value)).await?;
    }
    println!("left there: {:?}", graft::request("server3", StackEntry::Show).await?);
    stack.shutdown().await;
    Ok(())
}
