//! What a program is waiting for: one line that changes on a terminal, plain lines elsewhere.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tracing_subscriber::fmt::MakeWriter;

/// How often it is repeated where it cannot change in place.
const REPEAT: Duration = Duration::from_secs(30);

/// How much of a text fits on a line of any terminal, with the time behind it.
const WIDTH: usize = 66;

/// The line on which a program says what it waits for. Clones are the same line.
///
/// It is a writer for logs, too: on a terminal their lines then stand above it.
#[derive(Clone)]
pub struct StatusLine(Arc<Mutex<State>>);

struct State {
    out: Box<dyn Write + Send>,
    is_terminal: bool,
    waiting: Option<Waiting>,
}

struct Waiting {
    text: String,
    since: Instant,
    repeated: Instant,
}

impl StatusLine {
    /// The line on standard error.
    #[must_use]
    pub fn stderr() -> Self {
        Self::on(Box::new(io::stderr()), io::stderr().is_terminal())
    }

    fn on(out: Box<dyn Write + Send>, is_terminal: bool) -> Self {
        Self(Arc::new(Mutex::new(State { out, is_terminal, waiting: None })))
    }

    /// Whether somebody watches, so that colours make sense, too.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.lock().is_terminal
    }

    /// Says what is waited for from now on.
    pub fn wait_for(&self, text: impl Into<String>) {
        let text = text.into();
        self.with(|state| {
            if state.waiting.as_ref().is_some_and(|waiting| waiting.text == text) {
                return Ok(());
            }
            let now = Instant::now();
            if !state.is_terminal {
                writeln!(state.out, "{text}")?;
            }
            state.waiting = Some(Waiting { text, since: now, repeated: now });
            state.draw()
        });
    }

    /// Shows that time passes; to be called every second or so.
    pub fn tick(&self) {
        self.with(|state| {
            if state.is_terminal {
                return state.draw();
            }
            let Some(waiting) = &mut state.waiting else { return Ok(()) };
            if waiting.repeated.elapsed() < REPEAT {
                return Ok(());
            }
            waiting.repeated = Instant::now();
            writeln!(state.out, "{} ({} s)", waiting.text, waiting.since.elapsed().as_secs())
        });
    }

    /// Says something that stays, and that nothing is waited for any more.
    pub fn say(&self, text: impl fmt::Display) {
        self.with(|state| {
            state.clear()?;
            state.waiting = None;
            writeln!(state.out, "{text}")
        });
    }

    /// Says nothing more: nothing is waited for any more.
    pub fn clear(&self) {
        self.with(|state| {
            state.clear()?;
            state.waiting = None;
            Ok(())
        });
    }

    /// What cannot be shown is nobody's loss: the program goes on.
    fn with(&self, show: impl FnOnce(&mut State) -> io::Result<()>) {
        let mut state = self.lock();
        let _ = show(&mut state).and_then(|()| state.out.flush());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Writes the line anew, without an end, so that the next one takes its place.
    fn draw(&mut self) -> io::Result<()> {
        let Some(waiting) = self.waiting.as_ref().filter(|_| self.is_terminal) else {
            return Ok(());
        };
        let mut text: String = waiting.text.chars().take(WIDTH).collect();
        if text.len() < waiting.text.len() {
            text.push('…');
        }
        write!(self.out, "\r\x1b[2K{text} ({} s)", waiting.since.elapsed().as_secs())
    }

    fn clear(&mut self) -> io::Result<()> {
        if self.is_terminal && self.waiting.is_some() {
            self.out.write_all(b"\r\x1b[2K")?;
        }
        Ok(())
    }
}

impl fmt::Debug for StatusLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        let waiting = state.waiting.as_ref().map(|waiting| &waiting.text);
        f.debug_struct("StatusLine").field("waiting", &waiting).finish_non_exhaustive()
    }
}

/// Writes above a [`StatusLine`], which comes back when this is dropped.
pub struct Above<'a>(MutexGuard<'a, State>);

impl Write for Above<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.clear()?;
        self.0.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.out.flush()
    }
}

impl Drop for Above<'_> {
    fn drop(&mut self) {
        let _ = self.0.draw().and_then(|()| self.0.out.flush());
    }
}

impl fmt::Debug for Above<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Above")
    }
}

impl<'a> MakeWriter<'a> for StatusLine {
    type Writer = Above<'a>;

    fn make_writer(&'a self) -> Above<'a> {
        Above(self.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Page {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn shown(is_terminal: bool) -> String {
        let page = Page::default();
        let line = StatusLine::on(Box::new(page.clone()), is_terminal);
        line.wait_for("waiting for a");
        line.tick();
        line.wait_for("waiting for a");
        line.wait_for("waiting for b");
        line.make_writer().write_all(b"a log\n").unwrap();
        line.say("there");
        line.tick();
        page.text()
    }

    #[test]
    fn elsewhere_each_change_is_a_line_and_nothing_is_repeated_soon() {
        assert_eq!(shown(false), "waiting for a\nwaiting for b\na log\nthere\n");
    }

    #[test]
    fn on_a_terminal_one_line_changes_and_logs_stand_above_it() {
        let new = "\r\x1b[2K";
        let a = format!("{new}waiting for a (0 s)");
        let b = format!("{new}waiting for b (0 s)");
        assert_eq!(shown(true), format!("{a}{a}{b}{new}a log\n{b}{new}there\n"));
    }

    #[test]
    fn a_long_text_stays_on_its_line() {
        let page = Page::default();
        let line = StatusLine::on(Box::new(page.clone()), true);
        line.wait_for("ä".repeat(500));
        let text = page.text();
        assert!(text.ends_with("ä… (0 s)"), "{text}");
        assert!(text.chars().count() < 80, "{text}");
    }
}
