//! A client of the servers that `kv_server` runs. It needs to know one of them that is up.
//!
//! `cargo run --release --example kv_client -- --server 127.0.0.1:4401 --certs certs put colour green`
//!
//! Exit codes: 0 done; 1 refused or failed, and what is known about the command is said; 2 the command line or the
//! configuration is wrong; 3 the answer is no: `get` found nothing, `cas` something else than it expected.

use std::{
    future::Future,
    io::{self, IsTerminal, Write},
    pin::pin,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::{Parser, Subcommand};
use graft::{Client, RequestError, Tls};
use graft_examples::kv::{
    Answer, Command, Failure, Format, KvEntry, KvReply, Script, StatusLine,
    config::{ClientFlags, ClientSettings},
};
use tokio::{
    runtime::{Builder, Runtime},
    time::timeout,
};
use tracing_subscriber::EnvFilter;

/// Connecting is worth a line on a terminal if it takes longer than this.
const PROMPT: Duration = Duration::from_millis(500);

/// The answer is no.
const NO: u8 = 3;

const HELP: &str = "\
A key is a text of at most 1024 bytes, a value one of at most about 1 MiB. All servers of the cluster are found from the one
that --server names, or from the [members] of the configuration file.

Exit codes: 0 done; 1 refused or failed, and what is known about the command is said; 2 the command line or the
configuration is wrong; 3 the answer is no: `get` found nothing, `cas` something else than it expected.";

/// Asks the servers of the key-value example
#[derive(Parser)]
#[command(name = "kv_client", after_help = HELP)]
struct Arguments {
    /// Answers in JSON, for programs: an object a line, errors too; a list has one for each of its pages
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten, next_help_heading = "Whom to ask, and as whom")]
    flags: ClientFlags,
    #[command(subcommand)]
    order: Order,
}

#[derive(Subcommand)]
enum Order {
    #[command(flatten)]
    Command(Command),
    /// Reads commands from standard input, one a line, and gives them over one connection
    ///
    /// They are written as on the command line, without the flags of the client: `put colour 'light green'`. From a
    /// terminal it goes on after a command that failed; otherwise it ends there.
    Shell {
        /// Goes on after a command that failed, in any case
        #[arg(long)]
        keep_going: bool,
    },
}

fn main() -> ExitCode {
    let begun = Instant::now();
    let Arguments { flags, json, order } = Arguments::parse();
    let format = if json { Format::Json } else { Format::Plain };
    let line = StatusLine::stderr();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("error"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(line.is_terminal())
        .with_writer(line.clone())
        .init();
    let show = Show { format, line };
    let code = Session::connect(flags, &show).and_then(|session| {
        let code = match order {
            Order::Command(command) => session.carry_out(&command, begun, &show),
            Order::Shell { keep_going } => session.run_script(keep_going, &show),
        };
        // Where nobody has answered in time, nobody would hear the farewell.
        if code.is_ok() {
            session.end();
        }
        code
    });
    ExitCode::from(code.unwrap_or_else(|failure| show.failure(&failure, "")))
}

/// A connected client.
struct Session {
    runtime: Runtime,
    client: Client<KvEntry>,
    /// How long a command may take.
    deadline: Duration,
}

impl Session {
    fn connect(flags: ClientFlags, show: &Show) -> Result<Self, Failure> {
        let settings = ClientSettings::load(flags)?;
        let tls = Tls::from_files(&settings.files.ca, &settings.files.cert, &settings.files.key)?;
        // A worker of its own keeps the connection up while this thread waits for a line.
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(Failure::Runtime)?;
        let deadline = settings.deadline;
        let servers: Vec<String> = settings.servers.iter().map(ToString::to_string).collect();
        let waiting = format!("no answer yet from {}", servers.join(", "));
        let client = runtime.block_on(async {
            let connecting = Client::builder().patience(deadline).connect(servers, tls);
            show.while_waiting(&waiting, connecting).await
        })?;
        Ok(Self { runtime, client, deadline })
    }

    /// Carries out a command that was given at the moment `begun`, and returns the code to exit with.
    fn carry_out(&self, command: &Command, begun: Instant, show: &Show) -> Result<u8, Failure> {
        let mut entry = command.entry();
        let mut pages = 0;
        loop {
            let answer = Answer::new(command, self.ask(entry, begun, show)?, show.format)?;
            show.answer(&answer)?;
            pages += 1;
            let (Command::List { prefix, pages: most, .. }, Some(next)) = (command, answer.next)
            else {
                return Ok(if answer.is_no { NO } else { 0 });
            };
            if most.is_some_and(|most| pages >= most) {
                show.more(&next);
                return Ok(0);
            }
            entry = KvEntry::List { prefix: prefix.clone(), after: Some(next) };
        }
    }

    fn ask(&self, entry: KvEntry, begun: Instant, show: &Show) -> Result<KvReply, Failure> {
        let is_read = entry.is_read();
        let request = self.client.request(entry);
        // One that is applied twice does no harm, and then costs less.
        let request = if is_read { request.idempotent() } else { request };
        let request = request.deadline(self.deadline.saturating_sub(begun.elapsed()));
        let reply = self.runtime.block_on(show.while_waiting("no answer yet", request));
        Ok(reply.map_err(|error| self.whole(error))?)
    }

    /// The error as of the whole command, of which connecting and earlier pages have taken a part.
    fn whole(&self, error: RequestError) -> RequestError {
        let waited = self.deadline;
        match error {
            RequestError::Timeout { outcome, .. } => RequestError::Timeout { waited, outcome },
            RequestError::NoLeader { .. } => RequestError::NoLeader { waited },
            other => other,
        }
    }

    /// Returns the code of the first command that failed; an answer that is no is an answer.
    fn run_script(&self, keep_going: bool, show: &Show) -> Result<u8, Failure> {
        let input = io::stdin();
        let is_terminal = input.is_terminal();
        let mut script = Script::new(input.lock());
        let mut code = 0;
        loop {
            if is_terminal {
                show.prompt();
            }
            let done = match script.next_command() {
                Ok(None) => {
                    if is_terminal {
                        show.line.say("");
                    }
                    return Ok(code);
                }
                Ok(Some(command)) => self.carry_out(&command, Instant::now(), show).map(|_| ()),
                Err(error @ Failure::Input(_)) => return Err(error),
                Err(failure) => Err(failure),
            };
            let Err(failure) = done else { continue };
            let place = format!("line {}: ", script.line_number());
            let failed = show.failure(&failure, if is_terminal { "" } else { &place });
            code = if code == 0 { failed } else { code };
            if matches!(failure, Failure::Output(_)) || code != 0 && !(keep_going || is_terminal) {
                return Ok(code);
            }
        }
    }

    /// Tells the servers that nothing more comes.
    fn end(self) {
        self.runtime.block_on(self.client.shutdown());
    }
}

/// Where everything is shown.
struct Show {
    format: Format,
    line: StatusLine,
}

impl Show {
    /// What `future` gives; somebody at a terminal is told where that takes long.
    async fn while_waiting<T>(&self, text: &str, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let mut pause = PROMPT;
        let done = loop {
            match timeout(pause, &mut future).await {
                Ok(done) => break done,
                Err(_) if self.line.is_terminal() => self.line.wait_for(text),
                Err(_) => {}
            }
            self.line.tick();
            pause = Duration::from_secs(1);
        };
        self.line.clear();
        done
    }

    fn answer(&self, answer: &Answer) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        out.write_all(answer.out.as_bytes()).and_then(|()| out.flush()).map_err(Failure::Output)?;
        if !answer.note.is_empty() {
            self.line.say(format_args!("kv_client: {}", answer.note));
        }
        Ok(())
    }

    /// Says where a list goes on. In JSON that shows from its last page.
    fn more(&self, next: &str) {
        if self.format == Format::Plain {
            self.line.say(format_args!("kv_client: there is more, after {next:?}"));
        }
    }

    fn prompt(&self) {
        let mut out = io::stderr().lock();
        // Without it there is still a cursor.
        let _ = write!(out, "> ").and_then(|()| out.flush());
    }

    /// Returns the code to exit with.
    fn failure(&self, failure: &Failure, place: &str) -> u8 {
        match (failure, self.format) {
            // Whoever listens no more is not told why.
            (Failure::Output(error), _) if error.kind() == io::ErrorKind::BrokenPipe => {}
            (Failure::Help(text), Format::Plain) => self.line.say(text),
            (_, Format::Plain) => {
                self.line.say(format_args!("kv_client: {place}{}", failure.to_plain()));
            }
            (_, Format::Json) => {
                // What cannot be shown is not shown: the code says enough.
                let _ = writeln!(io::stdout(), "{}", failure.to_json());
            }
        }
        failure.code()
    }
}
