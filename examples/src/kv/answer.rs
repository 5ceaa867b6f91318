//! How a client shows what it was answered: to people, or as JSON to programs.

use std::io;

use graft::{ConnectError, Outcome, RequestError, tls::TlsError};
use serde_json::{Value, json};

use super::{Command, KvRefusal, KvReply, config::ConfigError, with_causes};

/// How many characters of a value are shown beside something else.
const GLIMPSE: usize = 60;

/// For whom answers are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// For people, and for shells: what was asked for stands on standard output, and nothing else does.
    Plain,
    /// For programs: an object a line on standard output, errors too.
    Json,
}

/// What to show of a reply.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Answer {
    /// For standard output, with the ends of its lines.
    pub out: String,
    /// For standard error.
    pub note: String,
    /// Whether the answer is no: the key is absent, or its value was not the expected one.
    pub is_no: bool,
    /// Behind which key the next page begins, where there is one.
    pub next: Option<String>,
}

impl Answer {
    /// What `reply` says to somebody who gave this command.
    ///
    /// # Errors
    ///
    /// [`Failure::Refused`], and [`Failure::Unexpected`] where it is no reply to this command.
    pub fn new(command: &Command, reply: KvReply, format: Format) -> Result<Self, Failure> {
        let is_json = format == Format::Json;
        let answer = match (command, reply) {
            (_, KvReply::Refused(refusal)) => return Err(Failure::Refused(refusal)),
            (Command::Get { key }, KvReply::Found(value)) => {
                let json = json!({ "value": value });
                match value {
                    Some(value) => Self::of(&json, value + "\n", is_json),
                    None => {
                        let note = format!("`{key}` is absent");
                        Self { note, is_no: true, ..Self::of(&json, String::new(), is_json) }
                    }
                }
            }
            (Command::Put { .. }, KvReply::Previous(previous)) => {
                let text = said(("replaced", "created"), previous.as_deref());
                Self::of(&json!({ "previous": previous }), text, is_json)
            }
            (Command::Delete { .. }, KvReply::Previous(previous)) => {
                let text = said(("deleted", "was absent"), previous.as_deref());
                Self::of(&json!({ "previous": previous }), text, is_json)
            }
            (Command::Cas { key, .. }, KvReply::Compared { swapped, found }) => {
                let json = json!({ "swapped": swapped, "found": found });
                match (swapped, found.as_deref()) {
                    (true, found) => Self::of(&json, said(("swapped", "created"), found), is_json),
                    (false, found) => {
                        let found = found.map_or_else(|| "absent".to_owned(), glimpse);
                        let note = format!("not swapped: `{key}` is {found}");
                        Self { note, is_no: true, ..Self::of(&json, String::new(), is_json) }
                    }
                }
            }
            (Command::List { .. }, KvReply::Page { pairs, more }) => page(pairs, more, is_json),
            _ => return Err(Failure::Unexpected),
        };
        // What is in the object need not be said beside it.
        Ok(if is_json { Self { note: String::new(), ..answer } } else { answer })
    }

    fn of(json: &Value, plain: String, is_json: bool) -> Self {
        let out = if is_json { json.to_string() + "\n" } else { plain };
        Self { out, ..Self::default() }
    }
}

/// What was done: to a value, or where there was none.
fn said(done: (&str, &str), previous: Option<&str>) -> String {
    let (to_value, to_none) = done;
    let value = |value: &str| format!("{to_value} {}\n", glimpse(value));
    previous.map_or_else(|| format!("{to_none}\n"), value)
}

/// So much of a value as people want to see beside something else.
fn glimpse(value: &str) -> String {
    match value.char_indices().nth(GLIMPSE) {
        Some((end, _)) => format!("{:?}… ({} bytes)", &value[..end], value.len()),
        None => format!("{value:?}"),
    }
}

fn page(pairs: Vec<(String, String)>, more: bool, is_json: bool) -> Answer {
    let next = if more { pairs.last().map(|(key, _)| key.clone()) } else { None };
    let lines =
        pairs.iter().map(|(key, value)| format!("{}\t{}\n", on_a_line(key), on_a_line(value)));
    let plain = if is_json { String::new() } else { lines.collect() };
    let pairs = pairs.into_iter().map(|(key, value)| json!({ "key": key, "value": value }));
    let json = json!({ "pairs": pairs.collect::<Vec<_>>(), "more": more });
    Answer { next, ..Answer::of(&json, plain, is_json) }
}

/// The text without what would end its line, its column, or the peace of a terminal.
fn on_a_line(text: &str) -> String {
    let escaped = text.chars().map(|one| match one {
        '\\' => "\\\\".to_owned(),
        one if one.is_control() => one.escape_default().to_string(),
        one => one.to_string(),
    });
    escaped.collect()
}

/// Why a command has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The configuration is incomplete or wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The client's certificates cannot be used.
    #[error("the certificates of the client cannot be used")]
    Tls(#[from] TlsError),
    /// No server was reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The request failed.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The map did not carry the command out.
    #[error(transparent)]
    Refused(KvRefusal),
    /// The reply is to another question.
    #[error("the answer is to another question: run a client and servers of the same build")]
    Unexpected,
    /// A line is no command.
    #[error("{0}")]
    Usage(String),
    /// A line asked for help.
    #[error("{0}")]
    Help(String),
    /// The system gives this process no threads.
    #[error("the system gives this process no threads or no sockets: see its limits")]
    Runtime(#[source] io::Error),
    /// The commands cannot be read.
    #[error("the commands cannot be read")]
    Input(#[source] io::Error),
    /// The answer cannot be written.
    #[error("the answer cannot be written")]
    Output(#[source] io::Error),
}

impl Failure {
    /// The code to exit with.
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self {
            Self::Help(_) => 0,
            Self::Config(_) | Self::Usage(_) => 2,
            _ => 1,
        }
    }

    /// What is known about the command: did it happen? `None` where that goes without saying.
    #[must_use]
    pub fn outcome(&self) -> Option<&'static str> {
        let outcome = match self {
            Self::Request(error) => error.outcome(),
            Self::Connect(_) => Outcome::NotApplied,
            Self::Refused(_) => return Some("Refused"),
            _ => return None,
        };
        Some(match outcome {
            Outcome::NotApplied => "NotApplied",
            Outcome::Applied => "Applied",
            Outcome::Unknown => "Unknown",
        })
    }

    /// The text for people.
    #[must_use]
    pub fn to_plain(&self) -> String {
        let text = with_causes(self);
        match self.outcome() {
            Some(outcome) => format!("{text} (outcome: {outcome})"),
            None => text,
        }
    }

    /// The object for programs.
    #[must_use]
    pub fn to_json(&self) -> String {
        let is_retryable = match self {
            Self::Request(error) => error.is_retryable(),
            Self::Connect(_) => true,
            _ => false,
        };
        json!({ "error": with_causes(self), "outcome": self.outcome(), "retryable": is_retryable })
            .to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::kv::KvEntry;

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn get() -> Command {
        Command::Get { key: "k".into() }
    }

    fn swap() -> Command {
        Command::Cas { key: "k".into(), value: "v".into(), expect: None, absent: true }
    }

    fn list() -> Command {
        Command::List { prefix: String::new(), after: None, pages: None }
    }

    #[test]
    fn people_and_programs_are_told_the_same() {
        let put = Command::Put { key: "k".into(), value: "v".into() };
        let delete = Command::Delete { key: "k".into() };
        let compared = |swapped, found| KvReply::Compared { swapped, found };
        for (command, reply, out, note, json) in [
            (get(), KvReply::Found(text("a\nb")), "a\nb\n", "", r#"{"value":"a\nb"}"#),
            (get(), KvReply::Found(None), "", "`k` is absent", r#"{"value":null}"#),
            (get(), KvReply::Found(text("")), "\n", "", r#"{"value":""}"#),
            (put.clone(), KvReply::Previous(None), "created\n", "", r#"{"previous":null}"#),
            (put, KvReply::Previous(text("a")), "replaced \"a\"\n", "", r#"{"previous":"a"}"#),
            (delete.clone(), KvReply::Previous(None), "was absent\n", "", r#"{"previous":null}"#),
            (delete, KvReply::Previous(text("a")), "deleted \"a\"\n", "", r#"{"previous":"a"}"#),
            (swap(), compared(true, None), "created\n", "", r#"{"found":null,"swapped":true}"#),
            (
                swap(),
                compared(false, text("a")),
                "",
                "not swapped: `k` is \"a\"",
                r#"{"found":"a","swapped":false}"#,
            ),
        ] {
            let plain = Answer::new(&command, reply.clone(), Format::Plain).unwrap();
            assert_eq!((plain.out.as_str(), plain.note.as_str()), (out, note), "{reply:?}");
            assert_eq!(plain.is_no, !note.is_empty(), "{reply:?}");
            let shown = Answer::new(&command, reply, Format::Json).unwrap();
            assert_eq!((shown.out, shown.note.as_str()), (format!("{json}\n"), ""));
            assert_eq!(shown.is_no, plain.is_no);
        }
    }

    #[test]
    fn a_page_has_a_pair_a_line_whatever_is_in_it() {
        let pairs = || vec![("a".to_owned(), "1\n2".to_owned()), ("\x1b[31m".into(), "\\".into())];
        let reply = |more| KvReply::Page { pairs: pairs(), more };
        let plain = Answer::new(&list(), reply(true), Format::Plain).unwrap();
        assert_eq!(plain.out, "a\t1\\n2\n\\u{1b}[31m\t\\\\\n");
        assert_eq!(plain.next, text("\x1b[31m"));
        let last = Answer::new(&list(), reply(false), Format::Json).unwrap();
        assert_eq!(last.next, None);
        let value: Value = serde_json::from_str(&last.out).unwrap();
        assert_eq!(value["more"], false);
        assert_eq!(value["pairs"][1], json!({ "key": "\x1b[31m", "value": "\\" }));
        let none = KvReply::Page { pairs: Vec::new(), more: false };
        assert_eq!(Answer::new(&list(), none, Format::Plain).unwrap(), Answer::default());
    }

    #[test]
    fn of_a_long_value_people_see_the_beginning_and_programs_all() {
        let put = Command::Put { key: "k".into(), value: "v".into() };
        let reply = || KvReply::Previous(Some("ä".repeat(100)));
        let plain = Answer::new(&put, reply(), Format::Plain).unwrap().out;
        assert_eq!(plain, format!("replaced \"{}\"… (200 bytes)\n", "ä".repeat(60)));
        let json = Answer::new(&put, reply(), Format::Json).unwrap().out;
        assert_eq!(json, format!("{{\"previous\":\"{}\"}}\n", "ä".repeat(100)));
    }

    #[test]
    fn a_failure_says_what_is_known_about_the_command() {
        let waited = Duration::from_secs(5);
        let unknown = RequestError::Timeout { waited, outcome: Outcome::Unknown };
        let refusal = KvRefusal::KeyTooLong { bytes: 2000 };
        for (failure, code, outcome) in [
            (Failure::Request(unknown), 1, Some("Unknown")),
            (Failure::Request(RequestError::NoLeader { waited }), 1, Some("NotApplied")),
            (Failure::Connect(ConnectError::NoAddress), 1, Some("NotApplied")),
            (Failure::Refused(refusal), 1, Some("Refused")),
            (Failure::Usage("what?".into()), 2, None),
        ] {
            assert_eq!((failure.code(), failure.outcome()), (code, outcome), "{failure}");
            let shown = failure.to_plain();
            assert_eq!(shown.contains("(outcome: "), outcome.is_some(), "{shown}");
            let json: Value = serde_json::from_str(&failure.to_json()).unwrap();
            assert_eq!(json["outcome"], json!(outcome));
            assert_eq!(json["error"], json!(with_causes(&failure)));
        }
    }

    #[test]
    fn a_refusal_and_a_reply_to_something_else_are_no_answers() {
        let refused = KvReply::Refused(KvRefusal::Full { limit: 10 });
        assert!(matches!(
            Answer::new(&get(), refused, Format::Plain),
            Err(Failure::Refused(KvRefusal::Full { limit: 10 }))
        ));
        let other = KvReply::Previous(None);
        assert!(matches!(swap().entry(), KvEntry::CompareAndSwap { .. }));
        assert!(matches!(Answer::new(&swap(), other, Format::Plain), Err(Failure::Unexpected)));
    }
}
