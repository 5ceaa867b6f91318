//! The operator's tool.
//!
//! `graft certs --out DIR server1 server2 server3` makes what servers and clients need to know each other.
//!
//! Exit codes: 0 done, 1 not done (and why, in words), 2 the command line is wrong.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool speaks to whoever runs it")]

mod certs;

use std::{error::Error, process::ExitCode};

use clap::{Parser, Subcommand};

/// The operator's tool of graft.
#[derive(Parser)]
#[command(name = "graft", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes an authority for a cluster, and certificates for its servers and clients
    ///
    /// What is there already is kept, and checked. Each server and client gets ca.pem and its own NAME.pem and
    /// NAME-key.pem; ca-key.pem goes to nobody.
    Certs(certs::Arguments),
}

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let done = match command {
        Command::Certs(arguments) => certs::run(&arguments),
    };
    match done {
        Ok(report) => {
            print!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("graft: {}", with_causes(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error with everything behind it, on one line.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(behind) = cause {
        text = format!("{text}: {behind}");
        cause = behind.source();
    }
    text
}
