//! What exactly-once costs a command, beside a command that goes without.

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};
use graft_benches::samples;
use graft_core::{
    Entry, EntryKind, SessionId,
    session::{
        Applier, CommandHeader, SessionSettings, encode_blank, encode_command, encode_plain,
    },
};

/// How many commands one iteration applies.
const COMMANDS: u64 = 1024;
/// How many of them are on their way at once.
const OPEN: u64 = 64;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sessions");
    group.throughput(Throughput::Elements(COMMANDS));
    let cases = [
        ("plain_command", (1..=COMMANDS).map(plain).collect::<Vec<_>>()),
        ("session_command", (1..=COMMANDS).map(|number| command(number, number)).collect()),
        // A client that hears nothing sends everything again: answered from the table.
        (
            "repeated_command",
            (1..=COMMANDS).map(|number| command(number, 1 + number % OPEN)).collect(),
        ),
    ];
    for (name, entries) in cases {
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                opened,
                |mut applier| {
                    for entry in &entries {
                        let applied = applier.apply_with(entry, |_| Ok(Bytes::new()));
                        applied.expect("the samples are well-formed");
                    }
                    applier
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// The entry that opens the session; commands follow.
const OPENS: u64 = 2;

/// A table with one session.
fn opened() -> Applier {
    let mut applier = Applier::new();
    let blank = samples::entry(1, EntryKind::Blank, encode_blank(0));
    let open = SessionSettings::default().encode();
    let open = samples::entry(OPENS, EntryKind::SessionOpen, open);
    for entry in [blank, open] {
        let applied = applier.apply_with(&entry, |_| Ok(Bytes::new()));
        applied.expect("the samples are well-formed");
    }
    applier
}

fn plain(number: u64) -> Entry {
    samples::entry(OPENS + number, EntryKind::Plain, encode_plain(0, &[]))
}

/// The command at place `number` in the log, with this sequence in the session.
fn command(number: u64, sequence: u64) -> Entry {
    let header = CommandHeader {
        session: SessionId(OPENS),
        sequence,
        floor: sequence.saturating_sub(OPEN).max(1),
        version: 0,
    };
    samples::entry(OPENS + number, EntryKind::SessionCommand, encode_command(&header, &[]))
}
