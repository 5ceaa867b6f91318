//! Messages and entries in the words of the paper, for traces and for the messages of failed tests.

use graft_core::{
    AppendOutcome, Entries, EntryKind, EntryRef, HeartbeatResponse, Message, VoteRequest,
    VoteResponse, Write, raft::WriteBatch,
};

use super::name_of;

/// `2@3 blank`: index, term, and what it carries.
pub(crate) fn entry_words(entry: EntryRef<'_>) -> String {
    let what = match entry.kind {
        EntryKind::Blank => "blank".into(),
        EntryKind::Membership => "membership".into(),
        _ => String::from_utf8_lossy(entry.payload).into_owned(),
    };
    // An entry that a script put on a disk is called by its identity alone.
    if what == entry.log_id.to_string() { what } else { format!("{} {what}", entry.log_id) }
}

/// The entries one by one, or only the ends where there are many.
pub(crate) fn entries_words(entries: &Entries) -> String {
    let words: Vec<String> = entries.iter().map(entry_words).collect();
    match &words[..] {
        [first, .., last] if words.len() > 8 => {
            format!("[{first}, ... {last}] ({} entries)", words.len())
        }
        _ => format!("[{}]", words.join(", ")),
    }
}

pub(crate) fn write_words(batch: &WriteBatch) -> String {
    let writes = batch.writes.iter().map(|write| match write {
        Write::HardState(state) => {
            let vote = state.voted_for.map_or("nobody".into(), |node| name_of(node).to_string());
            format!("term {}, vote {vote}, commit {}", state.term, state.commit)
        }
        Write::Append(entries) => format!("entries {}", entries_words(entries)),
        other => format!("{other:?}"),
    });
    writes.collect::<Vec<_>>().join("; ")
}

pub(crate) fn message_words(message: &Message) -> String {
    match message {
        Message::PreVote(request) => format!("PreVote({})", request_words(*request)),
        Message::PreVoteResponse(response) => {
            format!("PreVoteResponse({})", response_words(*response))
        }
        Message::RequestVote(request) => format!("RequestVote({})", request_words(*request)),
        Message::RequestVoteResponse(response) => {
            format!("RequestVoteResponse({})", response_words(*response))
        }
        Message::AppendEntries(append) => format!(
            "AppendEntries(term {}, prev {}, entries {}, commit {})",
            append.term,
            append.prev,
            entries_words(&append.entries),
            append.commit
        ),
        Message::AppendEntriesResponse(response) => {
            format!(
                "AppendEntriesResponse(term {}, {})",
                response.term,
                outcome_words(response.outcome)
            )
        }
        Message::Heartbeat(heartbeat) => format!(
            "Heartbeat(term {}, round {}, commit {})",
            heartbeat.term, heartbeat.round, heartbeat.commit
        ),
        Message::HeartbeatResponse(response) => heartbeat_response_words(response),
        Message::TimeoutNow { term } => format!("TimeoutNow(term {term})"),
        other => format!("{other:?}"),
    }
}

fn request_words(request: VoteRequest) -> String {
    let transfer = if request.transfer { ", by transfer" } else { "" };
    format!("term {}, last {}{transfer}", request.term, request.last)
}

fn response_words(response: VoteResponse) -> String {
    let granted = if response.granted { "granted" } else { "refused" };
    format!("term {}, {granted}", response.term)
}

fn outcome_words(outcome: AppendOutcome) -> String {
    match outcome {
        AppendOutcome::Matched(index) => format!("matched up to {index}"),
        AppendOutcome::Conflict { rejected, index, term } => {
            format!("conflict at {rejected}, may agree at {index}@{term}")
        }
        AppendOutcome::StaleTerm => "stale term".into(),
    }
}

fn heartbeat_response_words(response: &HeartbeatResponse) -> String {
    let HeartbeatResponse { term, round, matched, received, applied, stalled } = *response;
    let stalled = if stalled { ", disk stalled" } else { "" };
    format!(
        "HeartbeatResponse(term {term}, round {round}, matched {matched}, received {received}, \
         applied {applied}{stalled})"
    )
}
