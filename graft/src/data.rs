//! A server as it is now, in the words of the Raft paper.

use std::{collections::BTreeMap, fmt};

use graft_core::{EntryKind, EntryRef, NodeId, node::Detail, session::Payload};

use crate::{Role, ServerName, Status};

/// What [`data`](crate::data()) shows of a server. Its `Display` is for people, a line for each word.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ServerData {
    /// The server.
    pub me: ServerName,
    /// Whether it runs, and if not, why not.
    pub status: Status,
    /// The names of all servers of its cluster.
    pub servers: Vec<ServerName>,
    /// The type of its machine's entries, and their version.
    pub machine: String,
    /// Its state; `None` while it does not run.
    pub state: Option<ServerState>,
}

/// The state of a server that runs: Raft's Figure 2.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ServerState {
    /// What it is in its term.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// Whom it voted for in that term.
    pub voted_for: Option<ServerName>,
    /// The leader, if it knows one.
    pub leader: Option<ServerName>,
    /// The first entry that it still has, or would have.
    pub first_index: u64,
    /// The last entry of its log.
    pub last_index: u64,
    /// The last entries of its log, at most 20 of them.
    pub log: Vec<LogLine>,
    /// How much of its log is durable.
    pub durable_index: u64,
    /// How much it knows to be committed.
    pub commit_index: u64,
    /// How much its machine has applied.
    pub last_applied: u64,
    /// What it will send next to each peer, if it leads.
    pub next_index: BTreeMap<ServerName, u64>,
    /// How much of its log each peer is known to have, if it leads.
    pub match_index: BTreeMap<ServerName, u64>,
    /// The answers to its campaign, if it campaigns.
    pub votes: BTreeMap<ServerName, bool>,
    /// Requests it has taken in and not answered.
    pub open_requests: usize,
    /// Whether its disk has stopped answering.
    pub stalled: bool,
}

/// An entry of the log as a line of text.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LogLine {
    /// Its position.
    pub index: u64,
    /// The term of the leader that took it in.
    pub term: u64,
    /// What it is for.
    pub kind: &'static str,
    /// What it says: for an entry of the machine, its `Debug`, cut where it is long.
    pub text: String,
}

/// How entries of a machine are shown: [`describe`](crate::adaptor::describe) of their type.
pub(crate) type Describe = fn(version: u16, body: &[u8]) -> String;

/// How many entries of the log are shown.
pub(crate) const LINES: usize = 20;
/// How many characters of an entry are shown.
const WIDTH: usize = 120;

impl ServerState {
    pub(crate) fn new(
        detail: &Detail,
        describe: Describe,
        name: impl Fn(NodeId) -> ServerName,
    ) -> Self {
        let raft = &detail.raft;
        let peers = |index: fn(&graft_core::raft::PeerStatus) -> u64| {
            raft.peers.iter().map(|peer| (name(peer.node), index(peer))).collect()
        };
        let shown = detail.tail.len().saturating_sub(LINES);
        Self {
            role: Role::of(raft.role),
            term: raft.term.0,
            voted_for: raft.voted_for.map(&name),
            leader: raft.leader.map(&name),
            first_index: raft.compacted.index.next().0,
            last_index: raft.last.index.0,
            log: detail
                .tail
                .iter()
                .skip(shown)
                .map(|entry| LogLine::new(entry, describe))
                .collect(),
            durable_index: raft.durable.0,
            commit_index: raft.commit_index.0,
            last_applied: raft.last_applied.0,
            next_index: peers(|peer| peer.next_index.0),
            match_index: peers(|peer| peer.match_index.0),
            votes: raft.votes.iter().map(|(node, granted)| (name(*node), *granted)).collect(),
            open_requests: detail.open_requests,
            stalled: raft.stalled,
        }
    }
}

impl LogLine {
    fn new(entry: EntryRef<'_>, describe: Describe) -> Self {
        let (kind, text) = match Payload::parse(entry.kind, entry.payload) {
            Ok(payload) => Self::read(entry, &payload, describe),
            Err(error) => (kind_name(entry.kind), format!("<{error}>")),
        };
        Self { index: entry.log_id.index.0, term: entry.log_id.term.0, kind, text: cut(text) }
    }

    fn read(
        entry: EntryRef<'_>,
        payload: &Payload<'_>,
        describe: Describe,
    ) -> (&'static str, String) {
        let kind = kind_name(entry.kind);
        if let Some((version, body)) = payload.command() {
            return (kind, describe(version, body));
        }
        let text = match payload {
            Payload::SessionKeepAlive { session, .. } | Payload::SessionClose { session } => {
                format!("session {session}")
            }
            Payload::SessionOpen(_) => format!("session {}", entry.log_id.index),
            Payload::Membership(bytes) => match graft_core::Membership::decode(bytes) {
                Ok(membership) => {
                    let names: Vec<&str> =
                        membership.nodes.values().map(|info| info.name.as_str()).collect();
                    names.join(" ")
                }
                Err(error) => format!("<{error}>"),
            },
            _ => String::new(),
        };
        (kind, text)
    }
}

const fn kind_name(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Blank => "blank",
        EntryKind::Membership => "membership",
        EntryKind::Plain | EntryKind::SessionCommand => "entry",
        EntryKind::SessionOpen => "open",
        EntryKind::SessionKeepAlive => "keep-alive",
        EntryKind::SessionClose => "close",
        _ => "unknown",
    }
}

/// One line, and not a long one: entries may be as large as a megabyte.
fn cut(text: String) -> String {
    let text = if text.contains(['\n', '\r']) { text.replace(['\n', '\r'], " ") } else { text };
    match text.char_indices().nth(WIDTH) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

impl fmt::Display for LogLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.index, self.term, self.kind)?;
        if self.text.is_empty() { Ok(()) } else { write!(f, " {}", self.text) }
    }
}

impl fmt::Display for ServerData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "me: {}", self.me)?;
        writeln!(f, "status: {}", self.status)?;
        writeln!(f, "servers: {}", list(&self.servers))?;
        write!(f, "machine: {}", self.machine)?;
        match &self.state {
            Some(state) => write!(f, "\n{state}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for ServerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "role: {}", self.role)?;
        writeln!(f, "term: {}", self.term)?;
        writeln!(f, "voted_for: {}", name_or_dash(self.voted_for.as_ref()))?;
        writeln!(f, "leader: {}", name_or_dash(self.leader.as_ref()))?;
        writeln!(f, "commit_index: {}", self.commit_index)?;
        writeln!(f, "last_applied: {}", self.last_applied)?;
        writeln!(f, "next_index: {}", pairs(&self.next_index))?;
        writeln!(f, "match_index: {}", pairs(&self.match_index))?;
        writeln!(f, "votes: {}", pairs(&self.votes))?;
        writeln!(f, "open requests: {}", self.open_requests)?;
        if self.stalled {
            writeln!(f, "stalled: its disk has stopped answering")?;
        }
        let (first, last) = (self.first_index, self.last_index);
        write!(f, "log: {first}..={last}, durable up to {}", self.durable_index)?;
        self.log.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

fn name_or_dash(name: Option<&ServerName>) -> &str {
    name.map_or("-", ServerName::as_str)
}

fn list(names: &[ServerName]) -> String {
    names.iter().map(ServerName::as_str).collect::<Vec<_>>().join(" ")
}

fn pairs<T: fmt::Display>(map: &BTreeMap<ServerName, T>) -> String {
    if map.is_empty() {
        return "-".to_owned();
    }
    let pairs: Vec<String> = map.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_entry_is_cut_to_one_line_between_characters() {
        let long = format!("a\nb{}", "\u{e9}".repeat(500));
        let shown = cut(long);
        assert!(shown.starts_with("a b\u{e9}") && shown.ends_with("\u{e9}..."), "{shown}");
        assert_eq!(shown.chars().count(), WIDTH + 3);
        assert_eq!(cut("short".into()), "short");
    }
}
