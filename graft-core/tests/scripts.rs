//! Golden scripts: scenarios of the Raft paper, and what the servers do in them, line by line.
//!
//! `scripts/<name>.script` is a list of commands, `scripts/<name>.trace` what came of each, in the
//! paper's words. `GRAFT_UPDATE_TRACES=1 cargo test -p graft-core --test scripts` writes the traces
//! anew; read every line of the difference before keeping it, for a trace is only worth what its
//! reader has checked.
//!
//! | command | what happens |
//! | --- | --- |
//! | `servers a b c` | these found a cluster; the next three only before anything happens |
//! | `set window_entries 4` | a field of every server's `Config` |
//! | `log a 1 1 4 4` | the terms of the entries that are on a's disk |
//! | `term a 7`, `term a 7 c` | the term on a's disk, and whom it voted for |
//! | `tick a 5`, `tick all 5` | so many ticks pass at once, for one server or each in turn |
//! | `elect a` | a is elected and all hear of it; the trace shows only what comes of it |
//! | `campaign a` | a campaigns by order |
//! | `propose a x y` | clients hand these commands to a |
//! | `transfer a b` | a is ordered to hand over to b |
//! | `deliver`, `deliver a->b`, `deliver a->b 1` | what is on all wires, on one, or its oldest message arrives |
//! | `drop`, `drop a->b` | what is on all wires or on one is lost |
//! | `persist`, `persist a` | the write under way on all disks or on one becomes durable |
//! | `load a` | a's disk answers a read |
//! | `settle` | disks and wires do all they can until nothing moves |
//! | `hold-disk a`, `release-disk a` | while held, `settle` leaves the disk alone |
//! | `hold a->b`, `release a->b`, `release` | while held, `settle` leaves the wire alone |
//! | `cut a b`, `cut a->b`, `isolate a`, `heal` | links are cut, in both directions or one; all are healed |
//! | `crash a`, `restart a` | a loses all but its disk; it starts from there |
//! | `status`, `logs` | how every server stands; the terms in every log |
//!
//! A line that begins with `#` is the story and stands in the trace as well.

#![allow(clippy::expect_used, reason = "helpers of tests")]

mod common;

use std::{collections::BTreeMap, fs, path::PathBuf};

use common::*;
use graft_core::{NodeId, raft::Config};

/// A script as it runs.
#[derive(Default)]
struct Runner {
    nodes: Vec<NodeId>,
    settings: Vec<(String, String)>,
    disks: BTreeMap<NodeId, Disk>,
    cluster: Option<Cluster>,
}

impl Runner {
    /// The trace of a whole script.
    fn trace_of(script: &str) -> Result<String, String> {
        let mut runner = Self::default();
        let mut lines = Vec::new();
        for (number, line) in (1..).zip(script.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                lines.push(line.to_owned());
                continue;
            }
            lines.push(format!("> {line}"));
            let words: Vec<&str> = line.split_whitespace().collect();
            runner.run(&words).map_err(|error| format!("line {number}, `{line}`: {error}"))?;
            if let Some(cluster) = &mut runner.cluster {
                lines.extend(cluster.take_trace());
            }
        }
        Ok(lines.join("\n") + "\n")
    }

    fn run(&mut self, words: &[&str]) -> Result<(), String> {
        if self.prepare(words)? {
            return Ok(());
        }
        if self.cluster.is_none() {
            self.cluster = Some(self.start()?);
        }
        self.act(words)
    }

    /// The commands that describe a cluster before anything happens.
    fn prepare(&mut self, words: &[&str]) -> Result<bool, String> {
        match words {
            ["servers", names @ ..] => {
                self.nodes = names.iter().map(|name| node(name)).collect::<Result<_, _>>()?;
                let disks = self.nodes.iter().map(|one| (*one, Disk::founded(*one, &self.nodes)));
                self.disks = disks.collect();
            }
            ["set", field, value] => self.settings.push(((*field).into(), (*value).into())),
            ["log", name, terms @ ..] => {
                let terms: Vec<u64> =
                    terms.iter().map(|term| number(term)).collect::<Result<_, _>>()?;
                let disk = self.disk(name)?;
                *disk = disk.clone().with_terms(&terms);
            }
            ["term", name, term, vote @ ..] => {
                let vote = vote.first().map(|name| node(name)).transpose()?;
                let term = number(term)?;
                let disk = self.disk(name)?;
                *disk = disk.clone().in_term(term, vote);
            }
            _ => return Ok(false),
        }
        if self.cluster.is_some() {
            return Err("comes too late: the servers run already".into());
        }
        Ok(true)
    }

    fn disk(&mut self, name: &str) -> Result<&mut Disk, String> {
        let node = node(name)?;
        self.disks.get_mut(&node).ok_or_else(|| format!("there is no server {name}"))
    }

    fn start(&self) -> Result<Cluster, String> {
        let mut config = Config::new(A);
        for (field, value) in &self.settings {
            set(&mut config, field, value)?;
        }
        Ok(Cluster::with(&self.nodes, |node| {
            let config = Config { node, seed: node.0, ..config.clone() };
            (config, self.disks[&node].clone())
        }))
    }

    fn act(&mut self, words: &[&str]) -> Result<(), String> {
        let nodes = self.nodes.clone();
        let cluster = self.cluster.as_mut().ok_or("there are no servers")?;
        match words {
            ["tick", who, ticks] => {
                let ticks = number(ticks)?;
                let who = if *who == "all" { nodes } else { vec![node(who)?] };
                who.into_iter().for_each(|one| cluster.jump(one, ticks));
            }
            ["elect", who] => {
                let before = cluster.take_trace();
                cluster.elect(node(who)?);
                drop(cluster.take_trace());
                before.into_iter().for_each(|line| cluster.note(line));
                cluster.note_status();
            }
            ["campaign", who] => cluster.campaign(node(who)?),
            ["propose", who, commands @ ..] => drop(cluster.propose(node(who)?, commands)),
            ["transfer", from, to] => drop(cluster.transfer(node(from)?, node(to)?)),
            ["deliver"] => cluster.deliver_all(),
            ["deliver", link, count @ ..] => {
                let (from, to) = wire(link)?;
                let all = cluster.on_wire(from, to).len();
                let count = count.first().map(|count| number(count)).transpose()?;
                let count = count.unwrap_or(all as u64);
                for _ in 0..count {
                    if !cluster.deliver_one(from, to) {
                        return Err("there is nothing on this wire".into());
                    }
                }
            }
            ["drop"] => every_link(&nodes).for_each(|(from, to)| cluster.drop_wire(from, to)),
            ["drop", link] => {
                let (from, to) = wire(link)?;
                cluster.drop_wire(from, to);
            }
            ["persist"] => {
                for one in nodes {
                    cluster.persist(one);
                }
            }
            ["persist", who] => {
                if !cluster.persist(node(who)?) {
                    return Err("there is no write under way".into());
                }
            }
            ["load", who] => {
                if !cluster.load(node(who)?) {
                    return Err("there is no read under way".into());
                }
            }
            ["settle"] => cluster.settle(),
            ["hold-disk", who] => cluster.hold_disk(node(who)?),
            ["release-disk", who] => cluster.release_disk(node(who)?),
            ["hold", link] => {
                let (from, to) = wire(link)?;
                cluster.hold_wire(from, to);
            }
            ["release"] => cluster.release_wires(),
            ["release", link] => {
                let (from, to) = wire(link)?;
                cluster.release_wire(from, to);
            }
            ["cut", link] => {
                let (from, to) = wire(link)?;
                cluster.cut(from, to);
            }
            ["cut", one, other] => {
                let (one, other) = (node(one)?, node(other)?);
                cluster.cut(one, other);
                cluster.cut(other, one);
            }
            ["isolate", who] => cluster.isolate(node(who)?),
            ["heal"] => cluster.heal(),
            ["crash", who] => cluster.crash(node(who)?),
            ["restart", who] => cluster.restart(node(who)?),
            ["status"] => cluster.note_status(),
            ["logs"] => cluster.note_logs(),
            _ => return Err("is no command".into()),
        }
        Ok(())
    }
}

fn node(name: &str) -> Result<NodeId, String> {
    let found = SEVEN.iter().find(|node| name_of(**node).to_string() == name);
    found.copied().ok_or_else(|| format!("`{name}` is no server: they are called a to g"))
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("`{word}` is no number"))
}

fn wire(word: &str) -> Result<(NodeId, NodeId), String> {
    let (from, to) = word.split_once("->").ok_or_else(|| format!("`{word}` is no wire: a->b"))?;
    Ok((node(from)?, node(to)?))
}

fn every_link(nodes: &[NodeId]) -> impl Iterator<Item = (NodeId, NodeId)> {
    let pairs = nodes.iter().flat_map(|from| nodes.iter().map(|to| (*from, *to)));
    pairs.filter(|(from, to)| from != to).collect::<Vec<_>>().into_iter()
}

fn set(config: &mut Config, field: &str, value: &str) -> Result<(), String> {
    let size = || number(value).and_then(|size| usize::try_from(size).map_err(|e| e.to_string()));
    match field {
        "pre_vote" => config.pre_vote = value == "true",
        "check_quorum" => config.check_quorum = value == "true",
        "max_batch_bytes" => config.max_batch_bytes = size()?,
        "window_entries" => config.window_entries = size()?,
        "window_bytes" => config.window_bytes = size()?,
        "max_uncommitted_bytes" => config.max_uncommitted_bytes = size()?,
        "tail_bytes" => config.tail_bytes = size()?,
        "stalled_write_ticks" => config.stalled_write_ticks = number(value)?,
        _ => return Err("is no setting that scripts know".into()),
    }
    Ok(())
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scripts")
}

/// Runs a script and compares its trace with the one that is kept beside it.
fn check(name: &str) {
    let script = fs::read_to_string(folder().join(format!("{name}.script"))).expect("a script");
    let trace = Runner::trace_of(&script).unwrap_or_else(|error| panic!("{name}.script, {error}"));
    let path = folder().join(format!("{name}.trace"));
    if std::env::var_os("GRAFT_UPDATE_TRACES").is_some() {
        fs::write(&path, &trace).expect("a trace can be written");
        return;
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    let mut lines = (1..).zip(kept.lines().zip(trace.lines()));
    let different = lines.find(|(_, (kept, now))| kept != now);
    if let Some((number, (kept, now))) = different {
        panic!("{name}.trace, line {number}\n  kept: {kept}\n   now: {now}\n{HINT}");
    }
    assert_eq!(kept.lines().count(), trace.lines().count(), "{name}.trace has another end\n{HINT}");
}

const HINT: &str =
    "where the new trace is right, write it with GRAFT_UPDATE_TRACES=1 and read the difference";

macro_rules! scripts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        $($(#[$doc])* #[test] fn $name() { check(stringify!($name)); })*

        /// No script lies there unrun, and no trace without its script.
        #[test]
        fn every_script_is_run() {
            let names = [$(stringify!($name)),*];
            for file in fs::read_dir(folder()).expect("the folder of the scripts") {
                let path = file.expect("a file").path();
                let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
                assert!(names.contains(&name.as_str()), "{} is not in the list", path.display());
            }
        }
    };
}

scripts! {
    /// Raft §5.2 with thesis §9.6: from three followers to a leader whose blank entry is committed.
    election,
    /// Thesis §9.6: a server that was cut off disturbs nobody when it returns.
    pre_vote,
    /// Raft §5.2: two candidates share the votes; the next election decides.
    split_vote,
    /// Raft Figure 7: a leader brings six followers with all kinds of logs in line.
    figure_7,
    /// Raft Figure 8 (a) to (d): an entry of an older term on a majority is overwritten.
    figure_8,
    /// Raft Figure 8 (e): an entry of the own term commits the older one.
    figure_8_saved,
    /// Raft §5.3, thesis §10.2.2: one message until the logs agree, then many.
    probing,
    /// PROTOCOL 3: a window closes in entries and in bytes, and opens with acknowledgements.
    window,
    /// PROTOCOL 3: lost appends and lost answers are made up for.
    loss,
    /// A follower that was away gets from the leader's disk what is no longer in its memory.
    slow_follower,
    /// Thesis §6.2: a leader without a quorum steps down.
    check_quorum,
    /// Thesis §3.10: a leader hands over, and one that cannot takes commands again.
    transfer,
    /// PROTOCOL 7: a leader whose disk stands still hands over.
    stalled_disk,
    /// A follower and a leader restart, each with a write that was not finished.
    restart_one,
    /// All servers restart at once.
    restart_all,
    /// A cluster of one.
    single_server,
    /// PROTOCOL 1: an acknowledgement held for one leader is not given to the next.
    held_acknowledgement,
    /// PROTOCOL 2: a server that comes back at a higher term.
    higher_term,
}
