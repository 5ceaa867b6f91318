//! What a client can be told to do: on the command line, or line by line.

use std::io::{self, BufRead, Read};

use clap::Parser;

use super::{Failure, KvEntry};

/// The longest line of a script, in bytes: the largest value, each of its bytes quoted, and room for the key.
const LINE_BYTES: u64 = 4 << 20;

/// A command.
#[derive(clap::Subcommand, Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Shows the value of a key
    Get {
        /// Which key
        key: String,
    },
    /// Gives a key a value
    Put {
        /// Which key
        key: String,
        /// Its value from now on
        #[arg(allow_negative_numbers = true)]
        value: String,
    },
    /// Takes a key away
    Delete {
        /// Which key
        key: String,
    },
    /// Compare and swap: gives a key a value if it has the expected one now
    #[command(group(clap::ArgGroup::new("expected").required(true)))]
    Cas {
        /// Which key
        key: String,
        /// Its value after the swap
        #[arg(allow_negative_numbers = true)]
        value: String,
        /// The value that the key must have now
        #[arg(long, value_name = "VALUE", group = "expected", allow_negative_numbers = true)]
        expect: Option<String>,
        /// The key must have no value now
        #[arg(long, group = "expected")]
        absent: bool,
    },
    /// Lists the keys that begin with a prefix, and their values, in the order of the keys
    List {
        /// What the keys begin with; all keys if it is left out
        #[arg(default_value = "", hide_default_value = true)]
        prefix: String,
        /// Begins behind this key
        #[arg(long, value_name = "KEY")]
        after: Option<String>,
        /// Ends after so many pages, of at most a thousand pairs each. Each page is read at one moment, and the next
        /// one at a later
        #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
        pages: Option<u64>,
    },
}

impl Command {
    /// What to ask first.
    #[must_use]
    pub fn entry(&self) -> KvEntry {
        match self.clone() {
            Self::Get { key } => KvEntry::Get { key },
            Self::Put { key, value } => KvEntry::Put { key, value },
            Self::Delete { key } => KvEntry::Delete { key },
            Self::Cas { key, value, expect: expected, .. } => {
                KvEntry::CompareAndSwap { key, expected, value }
            }
            Self::List { prefix, after, .. } => KvEntry::List { prefix, after },
        }
    }
}

/// A line of a script, after its words were told apart.
#[derive(Parser)]
#[command(no_binary_name = true, disable_help_flag = true, name = "line", bin_name = "")]
#[command(
    about = "A command a line, words quoted as in a shell; the end of the input ends it (Ctrl-D)"
)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

/// Commands, one a line. Words are told apart by spaces, and quoted as in a shell; empty lines are skipped, and what
/// is behind a `#` at the beginning of a word.
#[derive(Debug)]
pub struct Script<R> {
    lines: R,
    number: u64,
}

impl<R: BufRead> Script<R> {
    /// The script that these lines are.
    pub const fn new(lines: R) -> Self {
        Self { lines, number: 0 }
    }

    /// The number of the line that was read last, counted from 1.
    #[must_use]
    pub const fn line_number(&self) -> u64 {
        self.number
    }

    /// The next command; `None` at the end.
    ///
    /// # Errors
    ///
    /// [`Failure::Input`], after which there is nothing more to read; [`Failure::Usage`] where a line is no command: the
    /// next one may be.
    pub fn next_command(&mut self) -> Result<Option<Command>, Failure> {
        loop {
            let Some(line) = self.read_line().map_err(Failure::Input)? else { return Ok(None) };
            let text = String::from_utf8(line)
                .map_err(|_| Failure::Usage("the line is no UTF-8".to_owned()))?;
            let words = shlex::split(&text).ok_or_else(|| {
                Failure::Usage("a quote is not closed, or nothing is behind a `\\`".to_owned())
            })?;
            if words.is_empty() {
                continue;
            }
            let parsed = Line::try_parse_from(words);
            return parsed.map(|line| Some(line.command)).map_err(|error| misunderstood(&error));
        }
    }

    fn read_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        (&mut self.lines).take(LINE_BYTES + 1).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        self.number += 1;
        if line.len() as u64 > LINE_BYTES {
            let reason = format!("line {} is longer than {LINE_BYTES} bytes", self.number);
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        Ok(Some(line))
    }
}

/// What is wrong with a line, on one line.
fn misunderstood(error: &clap::Error) -> Failure {
    let text = error.to_string();
    if !error.use_stderr() {
        return Failure::Help(text.trim().to_owned());
    }
    let (problem, _usage) = text.split_once("Usage:").unwrap_or((&text, ""));
    let words: Vec<&str> =
        problem.split_whitespace().skip_while(|word| *word == "error:").collect();
    Failure::Usage(format!("{}; `help` lists the commands", words.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that a script says.
    fn read(text: &str) -> Vec<Result<Command, Failure>> {
        let mut script = Script::new(text.as_bytes());
        std::iter::from_fn(|| script.next_command().transpose()).collect()
    }

    fn words(words: &[&str]) -> Result<Command, clap::Error> {
        Line::try_parse_from(words).map(|line| line.command)
    }

    #[test]
    fn each_command_becomes_its_entry() {
        let text = |text: &str| text.to_owned();
        for (given, entry) in [
            (&["get", "a"][..], KvEntry::Get { key: text("a") }),
            (&["put", "a", "-5"], KvEntry::Put { key: text("a"), value: text("-5") }),
            (&["put", "a", ""], KvEntry::Put { key: text("a"), value: text("") }),
            (&["put", "--", "-a", "--b"], KvEntry::Put { key: text("-a"), value: text("--b") }),
            (&["delete", "a"], KvEntry::Delete { key: text("a") }),
            (
                &["cas", "a", "2", "--expect", "1"],
                KvEntry::CompareAndSwap {
                    key: text("a"),
                    expected: Some(text("1")),
                    value: text("2"),
                },
            ),
            (
                &["cas", "a", "2", "--absent"],
                KvEntry::CompareAndSwap { key: text("a"), expected: None, value: text("2") },
            ),
            (&["list"], KvEntry::List { prefix: text(""), after: None }),
            (
                &["list", "a", "--after", "ab"],
                KvEntry::List { prefix: text("a"), after: Some(text("ab")) },
            ),
        ] {
            assert_eq!(words(given).unwrap().entry(), entry, "{given:?}");
        }
    }

    #[test]
    fn a_swap_says_what_it_expects_in_one_way() {
        for (given, word) in [
            (&["cas", "a", "2"][..], "--expect"),
            (&["cas", "a", "2", "--absent", "--expect", "1"], "cannot be used"),
            (&["list", "--pages", "0"], "0 is not in"),
            (&["fetch", "a"], "fetch"),
        ] {
            let error = words(given).unwrap_err().to_string();
            assert!(error.contains(word), "{given:?}: {error}");
        }
    }

    #[test]
    fn a_script_has_a_command_a_line_with_words_as_in_a_shell() {
        let found = read("put 'a b' \"c\td\"\n\n  # nothing\nget a\\ b # that one\ndelete x");
        let found: Vec<_> = found.into_iter().map(Result::unwrap).collect();
        assert_eq!(
            found,
            [
                Command::Put { key: "a b".into(), value: "c\td".into() },
                Command::Get { key: "a b".into() },
                Command::Delete { key: "x".into() },
            ]
        );
    }

    #[test]
    fn a_line_that_is_no_command_says_why_and_the_next_one_is_read() {
        let mut script = Script::new(&b"get\nput 'a\nget \xff\nhelp\nget a\n"[..]);
        for (number, word) in [(1, "<KEY>"), (2, "quote"), (3, "UTF-8")] {
            let error = script.next_command().unwrap_err();
            assert!(matches!(error, Failure::Usage(_)), "{error:?}");
            assert!(error.to_string().contains(word), "{error}");
            assert!(!error.to_string().contains("error:"), "{error}");
            assert_eq!(error.to_string().lines().count(), 1, "{error}");
            assert_eq!(script.line_number(), number);
        }
        let help = script.next_command().unwrap_err();
        assert!(matches!(&help, Failure::Help(text) if text.contains("cas")), "{help:?}");
        assert!(matches!(script.next_command(), Ok(Some(Command::Get { .. }))));
        assert!(matches!(script.next_command(), Ok(None)));
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let endless = io::BufReader::new(io::repeat(b'a'));
        let error = Script::new(endless).next_command().unwrap_err();
        assert!(matches!(&error, Failure::Input(_)), "{error:?}");
    }
}
