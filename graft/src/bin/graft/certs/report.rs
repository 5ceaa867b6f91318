//! What was written and what was kept, for whoever ran the tool.

use std::fmt;

use graft_transport::quic::tls::CertifiedName;

use super::files::Pair;

/// A line a file.
#[derive(Debug, Default)]
pub(crate) struct Report {
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    is_kept: bool,
    path: String,
    what: String,
}

impl Report {
    pub(super) fn authority(&mut self, files: &Pair, cluster: &str, is_kept: bool) {
        let what = format!("authority of cluster `{cluster}`, for everybody");
        self.pair(files, is_kept, what, "its private key: give it to nobody");
    }

    /// `kept`: for how many days it is still good.
    pub(super) fn certificate(&mut self, files: &Pair, name: &CertifiedName, kept: Option<u64>) {
        let what = match kept {
            None => name.to_string(),
            Some(1) => format!("{name}, valid for 1 day"),
            Some(days) => format!("{name}, valid for {days} days"),
        };
        self.pair(files, kept.is_some(), what, "its private key, for it alone");
    }

    fn pair(&mut self, files: &Pair, is_kept: bool, certificate: String, key: &str) {
        let [first, second] = files.both().map(|path| path.display().to_string());
        self.lines.push(Line { is_kept, path: first, what: certificate });
        self.lines.push(Line { is_kept, path: second, what: key.to_owned() });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.lines.iter().map(|line| line.path.chars().count()).max().unwrap_or(0);
        for Line { is_kept, path, what } in &self.lines {
            let done = if *is_kept { "kept" } else { "wrote" };
            writeln!(f, "{done:<5} {path:<width$}  {what}")?;
        }
        Ok(())
    }
}
