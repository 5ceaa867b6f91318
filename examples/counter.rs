//! The smallest machine: a number that three servers agree on.
//!
//! `cargo run --release --example counter`

#![allow(clippy::print_stdout)]

/// What the counter is asked: to grow.
#[derive(graft::Archive, graft::Serialize, graft::Deserialize, Debug)]
#[rkyv(crate = graft::rkyv)]
struct Add(u64);

impl graft::Entry for Add {
    type Response = u64;
}

#[derive(Default)]
struct Counter(u64);

impl graft::Machine for Counter {
    type Entry = Add;

    fn handle_entry(&mut self, Add(amount): Add) -> u64 {
        self.0 = self.0.saturating_add(amount);
        self.0
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let counter = graft::start(["server1", "server2", "server3"], Counter::default).await?;
    println!("{}", graft::request("server1", Add(2)).await?);
    println!("{}", graft::request("server2", Add(40)).await?);
    counter.shutdown().await;
    Ok(())
}
