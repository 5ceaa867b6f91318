//! A machine of one's own under the simulator: accounts, between which money is moved.
//!
//! ```text
//! cargo run --release -p graft-sim --example own_machine                # all is well, or which seeds failed, and why
//! cargo run --release -p graft-sim --example own_machine -- --seed 3    # what happened in one
//! ```
//!
//! What every machine must keep is checked anyway: replicas agree, nothing is applied twice or lost, each
//! request takes effect between its sending and its answer. What only this one must keep stands in
//! [`Workload::response`]: the money is always the same.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example has its say")]

use std::{num::NonZeroUsize, process::ExitCode, time::Duration};

use clap::Parser;
use graft::{Archive, Deserialize, Entry, Machine, Serialize};
use graft_sim::{Options, Outcome, Rng, Workload, simulate, simulate_all};

const ACCOUNTS: u8 = 5;
const MONEY: u64 = 1_000;

#[derive(Archive, Serialize, Deserialize, Debug)]
#[rkyv(crate = graft::rkyv)]
enum BankEntry {
    Move { from: u8, to: u8, amount: u64 },
    Audit,
}

#[derive(Archive, Serialize, Deserialize, Debug)]
#[rkyv(crate = graft::rkyv)]
enum BankReply {
    Moved,
    TooPoor,
    Balances(Vec<u64>),
}

impl Entry for BankEntry {
    type Response = BankReply;
}

struct Bank(Vec<u64>);

impl Machine for Bank {
    type Entry = BankEntry;

    fn handle_entry(&mut self, entry: BankEntry) -> BankReply {
        match entry {
            BankEntry::Audit => BankReply::Balances(self.0.clone()),
            BankEntry::Move { from, to, amount } => {
                let (from, to) = (usize::from(from), usize::from(to));
                // Look first whether it can be done, then do it.
                if self.0[from] < amount {
                    return BankReply::TooPoor;
                }
                self.0[from] -= amount;
                self.0[to] += amount;
                BankReply::Moved
            }
        }
    }
}

/// Who asks the bank, and what it knows to be true of the answers.
struct Customers;

impl Workload for Customers {
    type Machine = Bank;
    type Open = ();

    fn machine(&self) -> Bank {
        Bank(vec![MONEY; usize::from(ACCOUNTS)])
    }

    fn request(&mut self, rng: &mut Rng) -> (BankEntry, ()) {
        let mut account = || rng.u8(..ACCOUNTS);
        let (from, to) = (account(), account());
        let entry = match rng.u32(..4) {
            0 => BankEntry::Audit,
            _ => BankEntry::Move { from, to, amount: rng.u64(1..MONEY) },
        };
        (entry, ())
    }

    fn response(&mut self, (): (), response: &BankReply) -> Result<(), String> {
        let BankReply::Balances(balances) = response else { return Ok(()) };
        let total: u64 = balances.iter().sum();
        let all = MONEY * u64::from(ACCOUNTS);
        if total == all { Ok(()) } else { Err(format!("there is {total} money, there was {all}")) }
    }

    fn state_hash(machine: &Bank) -> u64 {
        machine.0.iter().fold(0, |hash, balance| hash.wrapping_mul(31).wrapping_add(*balance))
    }
}

/// Runs a bank under the simulator.
#[derive(Parser)]
struct Arguments {
    /// Run this seed alone, and say all that happened in it.
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    // A replay must be as long as the run was.
    let options = Options::default().length(Duration::from_secs(60));
    let failures = if let Some(seed) = Arguments::parse().seed {
        let outcome = simulate(seed, &options.trace(true), |_| Customers);
        outcome.trace.iter().for_each(|line| println!("{line}"));
        println!("seed={seed} hash={:016x} ops={}", outcome.hash, outcome.answered);
        vec![outcome]
    } else {
        let summary = simulate_all(0..20, NonZeroUsize::MIN, &options, |_| Customers, |_| false);
        println!("{summary}");
        summary.failures
    };
    let told: Vec<bool> = failures.iter().map(tell_failure).collect();
    if told.contains(&true) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Says what did not hold, if anything, and how to see more of it.
fn tell_failure(outcome: &Outcome) -> bool {
    let Some(violation) = &outcome.violation else { return false };
    let (seed, hash) = (outcome.seed, outcome.hash);
    eprintln!("seed {seed} failed: {violation}");
    eprintln!("    {}", violation.checker.meaning());
    eprintln!("    hash={hash:016x}");
    eprintln!(
        "    replay it: cargo run --release -p graft-sim --example own_machine -- --seed {seed}"
    );
    true
}
