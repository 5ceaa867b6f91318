//! What happened, in words. Nothing is put into words unless somebody is going to read it.

use super::{
    seen::Seen,
    server::{Server, entries_of},
};
use crate::{
    AppendOutcome, Entries, Index, Message, PeerEnvelope, Write,
    raft::{Input, WriteBatch},
};

/// A list of events, if anybody wants one.
#[derive(Debug, Default)]
pub(super) struct Trace {
    lines: Option<Vec<String>>,
}

impl Trace {
    pub(super) const fn kept() -> Self {
        Self { lines: Some(Vec::new()) }
    }

    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            let line = line();
            if !line.is_empty() {
                lines.push(line);
            }
        }
    }

    /// The last `count` events, one a line.
    pub(super) fn last(&self, count: usize) -> String {
        let lines = self.lines.as_deref().unwrap_or_default();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }
}

pub(super) fn start(server: &Server) -> String {
    let disk = &server.disk;
    let (term, vote, commit) =
        (disk.hard_state.term, disk.hard_state.voted_for, disk.hard_state.commit);
    let log: Vec<u64> = disk.log.iter().map(|entry| entry.log_id.term.0).collect();
    format!("{} starts: term {term} vote {vote:?} commit {commit} log {log:?}", server.node)
}

pub(super) fn input(server: &Server, input: &Input) -> String {
    let node = server.node;
    match input {
        Input::Message(message) => envelope("gets", message),
        Input::Propose(proposals) => format!("{node} is proposed {}", proposals.len()),
        Input::Applied { index, .. } => format!("{node} has applied {index}"),
        Input::Loaded { id, entries } => format!("{node} loaded {id:?} {}", run(entries)),
        other => format!("{node} {other:?}"),
    }
}

/// How a server differs from what it was before.
pub(super) fn change(before: &Seen, server: &Server) -> String {
    let now = &server.seen;
    let role = now.role.map(|role| format!("{role:?}")).unwrap_or_default();
    let same = before.hard_state == now.hard_state
        && (before.role, before.last, before.commit) == (now.role, now.last, now.commit);
    if same {
        return String::new();
    }
    let (node, term, vote) = (server.node, now.hard_state.term, now.hard_state.voted_for);
    let (last, commit) = (now.last, now.commit);
    format!("    {node} now {role} in term {term}, vote {vote:?}, last {last}, commit {commit}")
}

pub(super) fn batch(batch: &WriteBatch) -> String {
    let hard_state = batch.writes.iter().find_map(|write| match write {
        Write::HardState(state) => Some(state),
        _ => None,
    });
    let entries = entries_of(batch).map(run).unwrap_or_default();
    match hard_state {
        Some(state) => format!(
            "write {}: term {} vote {:?} commit {} {entries}",
            batch.id.0, state.term, state.voted_for, state.commit
        ),
        None => format!("write {}: {entries}", batch.id.0),
    }
}

fn run(entries: &Entries) -> String {
    let ids: Vec<String> = entries.iter().map(|entry| entry.log_id.to_string()).collect();
    if ids.is_empty() { "nothing".into() } else { format!("entries {}", ids.join(" ")) }
}

pub(super) fn envelope(verb: &str, envelope: &PeerEnvelope) -> String {
    let what = match &envelope.message {
        Message::AppendEntries(append) => format!(
            "AppendEntries term {} prev {} commit {} {}",
            append.term,
            append.prev,
            append.commit,
            run(&append.entries)
        ),
        Message::AppendEntriesResponse(response) => match response.outcome {
            AppendOutcome::Matched(Index(matched)) => {
                format!("Matched {matched} term {}", response.term)
            }
            other => format!("{other:?} term {}", response.term),
        },
        other => format!("{other:?}"),
    };
    let (from, to) = (envelope.from, envelope.to);
    if verb == "gets" {
        format!("{to} < {from} {what}")
    } else {
        format!("    {from} > {to} {what}")
    }
}
