//! A server in a process of its own, and how it speaks with the one that started it.
//!
//! It says a line each of: `ready`; `leads TERM` or `follows TERM`, whenever that changes; `reached INDEX`, as
//! an answer to the same word. At the end of its input it ends, so that it does not outlive whoever listens.

use std::{
    fmt::Display,
    io::{self, BufRead as _, Write as _},
    path::PathBuf,
    process, thread,
};

use clap::Args;
use graft::{Archive, Deserialize, Entry, Machine, Role, Serialize, Tls, transport};
use graft_benches::{contenders::CLUSTER, disk::Error};
use tokio::{
    runtime::{Builder, Handle},
    sync::watch,
};

#[derive(Args, Debug)]
pub(crate) struct Serve {
    pub(super) name: String,
    /// Where its store is.
    #[arg(long)]
    pub(super) store: PathBuf,
    /// Where the certificates are.
    #[arg(long)]
    pub(super) certificates: PathBuf,
    /// All servers, each with its address: `NAME=ADDRESS`.
    #[arg(long, value_delimiter = ',')]
    pub(super) members: Vec<String>,
}

/// A command whose answer is its place in the log.
#[derive(Archive, Serialize, Deserialize, Debug)]
#[rkyv(crate = graft::rkyv)]
pub(super) struct Mark;

impl Entry for Mark {
    type Response = u64;
}

/// A machine that is nothing but how far it is.
struct Marks(watch::Sender<u64>);

impl Machine for Marks {
    type Entry = Mark;

    fn handle_entry(&mut self, _mark: Mark) -> u64 {
        *self.0.borrow()
    }

    fn handle_entry_at(&mut self, _mark: Mark, at: &graft::At) -> u64 {
        self.0.send_replace(at.index);
        at.index
    }
}

/// Runs a server until this process is killed.
pub(crate) fn serve(options: &Serve) -> Result<String, Error> {
    Builder::new_multi_thread().enable_all().build()?.block_on(run(options))
}

async fn run(options: &Serve) -> Result<String, Error> {
    let Serve { name, store, certificates, members } = options;
    let file = |end: &str| certificates.join(format!("{name}{end}.pem"));
    let tls = Tls::from_files(certificates.join("ca.pem"), file(""), file("-key"))?;
    let members = members.iter().map(|member| member.split_once('=')).collect::<Option<Vec<_>>>();
    let members = members.ok_or("--members: give NAME=ADDRESS")?;
    let own = members.iter().find(|(member, _)| member == name);
    let (_, address) = own.ok_or("--members: the server itself is one, too")?;
    let network = transport::quic(*address, tls)?;
    let marks = watch::Sender::new(0);
    let machine = marks.clone();
    let server = graft::server(name.as_str())
        .cluster(CLUSTER)
        .members(members)
        .store(graft::store::redb(store)?)
        .transport(network)
        .start(move || Marks(machine.clone()))
        .await?;
    say("ready")?;
    let here = Handle::current();
    thread::spawn(move || listen(&here, &marks));
    let mut view = server.watch();
    loop {
        let overview = view.borrow_and_update().clone();
        let verb = if overview.role == Some(Role::Leader) { "leads" } else { "follows" };
        say(format_args!("{verb} {}", overview.term))?;
        if !overview.status.is_up() {
            return Err(format!("{name}: {}", overview.status).into());
        }
        view.changed().await?;
    }
}

/// Does as it is told until nobody tells it any more.
fn listen(tasks: &Handle, marks: &watch::Sender<u64>) {
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let index: Option<u64> = line.strip_prefix("reached ").and_then(|rest| rest.parse().ok());
        let Some(index) = index else { continue };
        let mut marks = marks.subscribe();
        tasks.spawn(async move {
            if marks.wait_for(|reached| *reached >= index).await.is_ok() {
                // Who does not hear it notices.
                let _ = say(format_args!("reached {index}"));
            }
        });
    }
    process::exit(0);
}

fn say(line: impl Display) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush()
}
