//! One server of a replicated map of texts, for three machines or three terminals.
//!
//! `cargo run --release --example kv_server -- --config examples/kv.toml --name server1 --data data/server1`
//!
//! It prints `ready NAME ADDRESS` once it serves. SIGINT or SIGTERM ends it after it has handed over, a second one at
//! once; SIGHUP makes it read its certificates again.
//!
//! Exit codes: 0 ended on request; 1 it could not start, or has stopped by itself, and why is said; 2 the command line
//! or the configuration is wrong; 128 and the number of the signal where a second one has ended it.

use std::{
    io::{self, Write},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use clap::Parser;
use graft::{
    Overview, Server, StartError, Status, Tls, store::OpenError, tls::TlsError,
    transport::NetworkError,
};
use graft_examples::kv::{
    Kv, StatusLine,
    config::{ConfigError, ServerFlags, ServerSettings},
    with_causes,
};
use tokio::time::{Instant, sleep, sleep_until};
use tracing_subscriber::EnvFilter;

/// A server without a leader for longer than this says so: elections are over sooner.
const UNEASY: Duration = Duration::from_secs(2);

const HELP: &str = "\
It prints `ready NAME ADDRESS` once it serves, and logs to standard error (RUST_LOG chooses what). SIGINT or SIGTERM ends
it after it has handed over, a second one at once; SIGHUP makes it read its certificates again.

Exit codes: 0 ended on request; 1 it could not start, or has stopped by itself, and why is said; 2 the command line or the
configuration is wrong.";

/// Runs a server of the key-value example
#[derive(Parser)]
#[command(name = "kv_server", after_help = HELP)]
struct Arguments {
    #[command(flatten)]
    flags: ServerFlags,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { flags } = Arguments::parse();
    let line = StatusLine::stderr();
    log_above(&line);
    tokio::spawn(tick(line.clone()));
    match run(flags, &line).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            line.say(format_args!("kv_server: {}", with_causes(&failure)));
            failure.code()
        }
    }
}

/// Why there is no server, or not any more.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("the certificates of the server cannot be used")]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Store(#[from] OpenError),
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("`{server}` has stopped by itself: {status}")]
    Stopped { server: String, status: Status },
    #[error("the system tells this process of no signals")]
    Signals(#[from] io::Error),
}

impl Failure {
    fn code(&self) -> ExitCode {
        let is_told_wrong =
            matches!(self, Self::Config(_) | Self::Start(StartError::DuplicateAddress { .. }));
        ExitCode::from(if is_told_wrong { 2 } else { 1 })
    }
}

/// Logs, with the status line below them.
fn log_above(line: &StatusLine) {
    // How the founding goes is what the status line says.
    let usual = || EnvFilter::new("info,graft_core::founding=warn");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| usual());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(line.is_terminal())
        .with_writer(line.clone())
        .init();
}

async fn tick(line: StatusLine) {
    loop {
        sleep(Duration::from_secs(1)).await;
        line.tick();
    }
}

async fn run(flags: ServerFlags, line: &StatusLine) -> Result<(), Failure> {
    let settings = ServerSettings::load(flags)?;
    let mut stop = Stop::new()?;
    let files = &settings.files;
    let tls = Tls::from_files(&files.ca, &files.cert, &files.key)?;
    reload_when_asked(tls.clone())?;
    let starting = start(&settings, tls, line);
    let started = tokio::select! {
        biased;
        _ = stop.asked() => None,
        started = starting => Some(started?),
    };
    let name = &settings.name;
    let Some(server) = started else {
        line.say(format_args!(
            "{name} has stopped before its cluster was founded: start it again to go on"
        ));
        return Ok(());
    };
    serve(&settings, &server, line, &mut stop).await?;
    line.wait_for("handing over and shutting down; a second signal ends it at once");
    tokio::select! {
        biased;
        signal = stop.asked() => std::process::exit(128 + signal),
        () = server.shutdown() => line.say(format_args!("{name} has shut down")),
    }
    Ok(())
}

async fn start(
    settings: &ServerSettings,
    tls: Tls,
    line: &StatusLine,
) -> Result<Server<Kv>, Failure> {
    let members = settings.members.iter();
    let members = members.map(|member| (member.name.clone(), member.address.to_string()));
    let (progress, has_waited) = (line.clone(), Arc::new(AtomicBool::new(false)));
    let waits = Arc::clone(&has_waited);
    let server = graft::server(settings.name.clone())
        .cluster(settings.cluster.clone())
        .members(members)
        .store(graft::store::redb(&settings.data)?)
        .transport(graft::transport::quic(settings.listen.as_str(), tls)?)
        .on_waiting(move |founding| {
            waits.store(true, Ordering::Relaxed);
            progress.wait_for(founding.to_string());
        })
        .start(Kv::default)
        .await?;
    if has_waited.load(Ordering::Relaxed) {
        line.say("the cluster is founded");
    }
    Ok(server)
}

/// Says when it serves and when nobody leads, until somebody asks it to stop.
async fn serve(
    settings: &ServerSettings,
    server: &Server<Kv>,
    line: &StatusLine,
    stop: &mut Stop,
) -> Result<(), Failure> {
    let mut watch = server.watch();
    let (mut is_ready, mut was_led) = (false, false);
    // When to say that nobody leads; `None` where somebody does, or once it is said.
    let mut uneasy_at = Some(Instant::now() + UNEASY);
    loop {
        let Overview { status, leader, .. } = watch.borrow_and_update().clone();
        if !status.is_up() {
            return Err(Failure::Stopped { server: settings.name.clone(), status });
        }
        let is_led = leader.is_some();
        if is_led && !was_led {
            line.clear();
            uneasy_at = None;
            if !is_ready {
                announce(settings);
            }
            is_ready = true;
        } else if was_led && !is_led {
            uneasy_at = Some(Instant::now() + UNEASY);
        }
        was_led = is_led;
        tokio::select! {
            biased;
            _ = stop.asked() => return Ok(()),
            // Its sender lives as long as the server.
            _ = watch.changed() => {}
            () = sleep_until(uneasy_at.unwrap_or_else(Instant::now)), if uneasy_at.is_some() => {
                line.wait_for(majority_of(settings));
                uneasy_at = None;
            }
        }
    }
}

/// Says on standard output, for whoever has started it, that it serves.
fn announce(settings: &ServerSettings) {
    let own = settings.members.iter().find(|member| member.name == settings.name);
    let address = own.map_or(&settings.listen, |member| &member.address);
    let mut out = io::stdout().lock();
    // Where nobody reads it, nobody waits for it.
    let _ = writeln!(out, "ready {} {address}", settings.name).and_then(|()| out.flush());
}

fn majority_of(settings: &ServerSettings) -> String {
    let members: Vec<&str> = settings.members.iter().map(|member| member.name.as_str()).collect();
    let majority = members.len() / 2 + 1;
    format!("waiting for a leader: that takes {majority} of {}", members.join(", "))
}

#[cfg(unix)]
use on_unix::{Stop, reload_when_asked};

#[cfg(unix)]
mod on_unix {
    use std::io;

    use graft::Tls;
    use tokio::signal::unix::{Signal, SignalKind, signal};

    /// The signals that ask a program to stop.
    pub(super) struct Stop {
        interrupt: Signal,
        terminate: Signal,
    }

    impl Stop {
        pub(super) fn new() -> io::Result<Self> {
            let interrupt = signal(SignalKind::interrupt())?;
            Ok(Self { interrupt, terminate: signal(SignalKind::terminate())? })
        }

        /// The number of the next one.
        pub(super) async fn asked(&mut self) -> i32 {
            tokio::select! {
                biased;
                _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
                _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
            }
        }
    }

    /// Reads the certificates again at each SIGHUP. What is of no use changes nothing.
    pub(super) fn reload_when_asked(tls: Tls) -> io::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                // It logs what came of it.
                let _ = tls.reload();
            }
        });
        Ok(())
    }
}

#[cfg(not(unix))]
use elsewhere::{Stop, reload_when_asked};

#[cfg(not(unix))]
mod elsewhere {
    use std::{future::pending, io};

    use graft::Tls;

    /// Ctrl-C asks a program to stop.
    pub(super) struct Stop;

    impl Stop {
        pub(super) fn new() -> io::Result<Self> {
            Ok(Self)
        }

        /// The number of the next signal.
        pub(super) async fn asked(&mut self) -> i32 {
            match tokio::signal::ctrl_c().await {
                Ok(()) => 2,
                Err(_) => pending().await,
            }
        }
    }

    /// There is no signal for it.
    pub(super) fn reload_when_asked(_: Tls) -> io::Result<()> {
        Ok(())
    }
}
