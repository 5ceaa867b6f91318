//! What a seed draws: the cluster, its numbers, what goes wrong and how often.

use std::time::Duration;

use graft::Config;
use graft_client::ClientConfig;

use crate::{Options, disk::Pace, faults::FaultKind, network::Weather, oracle::Bounds};

/// Everything about a run that does not change while it lasts.
#[derive(Clone, Debug)]
pub(crate) struct Swarm {
    pub(crate) servers: usize,
    /// Machines with clients, and how many ask on each at once.
    pub(crate) clients: usize,
    pub(crate) customers: usize,
    /// How many ask in the process of each server, by its own client.
    pub(crate) residents: usize,
    /// How long a customer thinks between two requests, on average.
    pub(crate) think: Duration,
    pub(crate) deadline: Duration,
    pub(crate) client: ClientConfig,
    pub(crate) config: Config,
    /// Whether the machine runs on a thread.
    pub(crate) threaded: bool,
    pub(crate) blocking_delay: Duration,
    pub(crate) weather: Weather,
    pub(crate) pace: Pace,
    pub(crate) clocks: Clocks,
    /// What the nemesis does, and how likely each.
    pub(crate) menu: Vec<(FaultKind, u32)>,
    /// How long it waits between two deeds, on average.
    pub(crate) calm: Duration,
    /// How long what it does lasts, on average.
    pub(crate) lasting: Duration,
    /// How long a server that ended stays down, on average.
    pub(crate) downtime: Duration,
    /// How likely a request makes the machine panic, and its caller not wait for it.
    pub(crate) panics: f64,
    pub(crate) cancels: f64,
    /// How many come at once where the servers are to be overloaded.
    pub(crate) burst: usize,
}

/// How wrong clocks are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clocks {
    /// By how much a clock runs too fast or too slow at most, as a part of its pace.
    pub(crate) drift: f64,
    /// By how much wall clocks differ at most.
    pub(crate) skew_millis: i64,
    /// By how much an uneven clock changes its pace at most.
    pub(crate) uneven: f64,
}

/// What a nemesis can do, and how likely it does it where it can.
const MENU: &[(FaultKind, u32)] = &[
    (FaultKind::Clogging, 3),
    (FaultKind::OneWayCut, 4),
    (FaultKind::Partition, 4),
    (FaultKind::Bridge, 2),
    (FaultKind::Chain, 2),
    (FaultKind::IsolatedLeader, 4),
    (FaultKind::Flapping, 2),
    (FaultKind::ClientCut, 2),
    (FaultKind::Crash, 6),
    (FaultKind::CrashOfAll, 1),
    (FaultKind::CrashInRecovery, 3),
    (FaultKind::Pause, 4),
    (FaultKind::DriverPanic, 2),
    (FaultKind::ClientCrash, 1),
    (FaultKind::SyncError, 2),
    (FaultKind::FullDisk, 2),
    (FaultKind::ReadError, 2),
    (FaultKind::BitRot, 2),
    (FaultKind::SlowDisk, 3),
    (FaultKind::StalledDisk, 3),
    (FaultKind::WipedDisk, 1),
    (FaultKind::ClockUneven, 2),
    (FaultKind::ClockJump, 2),
    (FaultKind::WallClockStep, 2),
    (FaultKind::Transfer, 4),
    (FaultKind::StopRestart, 3),
    (FaultKind::Overload, 4),
];

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl Swarm {
    pub(crate) fn draw(rng: &mut fastrand::Rng, options: &Options) -> Self {
        let servers = [1, 2, 3, 3, 3, 3, 3, 4, 5, 5, 5, 6, 7][rng.usize(..13)];
        let servers = options.servers.map_or(servers, |servers| servers.clamp(1, 7));
        let config = draw_config(rng);
        let shortest = *config.election_timeout.start();
        let clients = rng.usize(1..=3);
        let customers = rng.usize(1..=4);
        let residents = if rng.bool() { 0 } else { rng.usize(1..=2) };
        // About as many requests a second, however many ask.
        let rate = [2.0, 5.0, 10.0, 25.0, 50.0][rng.usize(..5)];
        let rate = options.rate.map_or(rate, |rate| rate.clamp(0.01, 10_000.0));
        #[expect(clippy::cast_precision_loss, reason = "a handful")]
        let think =
            Duration::from_secs_f64((clients * customers + servers * residents) as f64 / rate);
        let (deadline, client) = draw_client(rng, *config.election_timeout.end());
        let mut menu: Vec<_> = MENU.iter().copied().filter(|_| rng.u32(..5) < 2).collect();
        if menu.is_empty() {
            menu.push((FaultKind::Crash, 1));
        }
        Self {
            servers,
            clients,
            customers,
            residents,
            think,
            deadline,
            client,
            threaded: rng.u32(..4) == 0,
            blocking_delay: if rng.bool() { Duration::ZERO } else { millis(rng.u64(1..40)) },
            weather: draw_weather(rng, shortest),
            pace: draw_pace(rng, shortest),
            clocks: Clocks {
                drift: [0.0, 1e-4, 1e-2, 0.1][rng.usize(..4)],
                skew_millis: [0, 50, 5_000, 3_600_000][rng.usize(..4)],
                uneven: [0.02, 0.2, 0.5][rng.usize(..3)],
            },
            menu,
            // Now and then a storm: leaders that do not last.
            calm: millis(if rng.u32(..5) == 0 {
                rng.u64(300..1_500)
            } else {
                rng.u64(1_500..15_000)
            }),
            lasting: millis(rng.u64(500..6_000)),
            downtime: millis(rng.u64(100..8_000)),
            panics: if rng.u32(..3) == 0 { 0.02 } else { 0.0 },
            cancels: if rng.u32(..3) == 0 { 0.05 } else { 0.0 },
            burst: rng.usize(50..400),
            config,
        }
    }

    /// How many entries a leader sends in the time of a round trip, at least, to a peer that is behind: a window full
    /// of them, but not so many that they are no small matter themselves.
    pub(crate) fn least_together(&self) -> u32 {
        /// An entry is mostly smaller.
        const ENTRY_BYTES: usize = 192;
        const MOST: usize = 8;
        let in_bytes = self.config.window_bytes / ENTRY_BYTES;
        let window = in_bytes.min(self.config.window_entries).clamp(1, MOST);
        u32::try_from(window).unwrap_or(1)
    }

    /// What the servers of this run are bounded by.
    pub(crate) fn bounds(&self) -> Bounds {
        Bounds {
            window_entries: self.config.window_entries,
            uncommitted_bytes: self.config.max_uncommitted_bytes,
            unapplied_bytes: self.config.max_unapplied_bytes,
            election_timeout: self.election_timeout(),
        }
    }

    /// The longest time without a leader after which a server campaigns.
    pub(crate) fn election_timeout(&self) -> Duration {
        *self.config.election_timeout.end()
    }
}

fn draw_config(rng: &mut fastrand::Rng) -> Config {
    let heartbeat = millis([25, 50, 50, 80, 100, 150][rng.usize(..6)]);
    let shortest = heartbeat * rng.u32(4..=8);
    let longest = shortest.mul_f64(1.5 + rng.f64()).max(shortest + heartbeat);
    let small = rng.bool();
    let bytes = |rng: &mut fastrand::Rng, usual: usize, least: usize| {
        if rng.bool() { usual } else { rng.usize(least..least * 16) }
    };
    let mut config = Config::default()
        .heartbeat(heartbeat)
        .election_timeout(shortest..=longest)
        .stalled_write(longest.mul_f64(0.7 + rng.f64()).max(heartbeat))
        .max_entry_bytes(2 << 10)
        .max_batch_bytes(bytes(rng, 1 << 20, 256))
        .window_entries(if rng.bool() { 8192 } else { rng.usize(8..64) })
        .window_bytes(bytes(rng, 4 << 20, 512))
        .memory_log_bytes(bytes(rng, 16 << 20, 1 << 10));
    if small {
        config = config
            .max_uncommitted_bytes(rng.usize(4 << 10..32 << 10))
            .max_unapplied_bytes(rng.usize(4 << 10..32 << 10))
            .max_waiting_bytes(rng.usize(4 << 10..32 << 10));
    }
    config
}

/// How long callers wait, and their clients.
fn draw_client(rng: &mut fastrand::Rng, timeout: Duration) -> (Duration, ClientConfig) {
    let usual = ClientConfig::default();
    let attempt_timeout = timeout.mul_f64(1.0 + rng.f64() * 2.0);
    // Some give up before an attempt does.
    let deadline = match rng.u32(..4) {
        0 => attempt_timeout.mul_f64(0.4 + rng.f64() * 0.6).max(millis(500)),
        _ => millis(rng.u64(1_000..10_000)),
    };
    let config = ClientConfig {
        deadline,
        attempt_timeout,
        session_window: if rng.bool() { usual.session_window } else { rng.u32(1..16) },
        session_ttl: if rng.bool() { usual.session_ttl } else { millis(rng.u64(1_000..20_000)) },
        max_sessions: if rng.u32(..4) > 0 { usual.max_sessions } else { rng.u32(1..4) },
        ..usual
    };
    (deadline, config)
}

fn draw_weather(rng: &mut fastrand::Rng, shortest_timeout: Duration) -> Weather {
    let most = shortest_timeout / 20;
    let delay_min = Duration::from_micros(rng.u64(50..3_000)).min(most);
    let delay_more = Duration::from_micros(rng.u64(0..10_000)).min(most);
    let chance =
        |rng: &mut fastrand::Rng, most: f64| if rng.bool() { 0.0 } else { rng.f64() * most };
    Weather {
        delay_min,
        delay_more,
        loss: chance(rng, 0.1),
        duplication: chance(rng, 0.1),
        reorders: rng.bool(),
        spikes: chance(rng, 0.03),
        spike: shortest_timeout * rng.u32(1..6),
        ghosts: if rng.u32(..6) == 0 { rng.f64() * 0.05 } else { chance(rng, 0.002) },
    }
}

fn draw_pace(rng: &mut fastrand::Rng, shortest_timeout: Duration) -> Pace {
    let micros = |rng: &mut fastrand::Rng, most: u64| Duration::from_micros(rng.u64(0..most));
    match rng.u32(..5) {
        0 => Pace::default(),
        // A spinning disk under other load: many writes are caught under way.
        4 => Pace {
            sync: micros(rng, 60_000).min(shortest_timeout / 6),
            jitter: micros(rng, 60_000).min(shortest_timeout / 6),
            read: micros(rng, 4_000),
        },
        1 => Pace { sync: micros(rng, 200), jitter: micros(rng, 400), read: micros(rng, 100) },
        _ => {
            Pace { sync: micros(rng, 4_000), jitter: micros(rng, 10_000), read: micros(rng, 2_000) }
        }
    }
}
