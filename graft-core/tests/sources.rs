//! Reads the sources: time, tasks and randomness come in through `Runtime` alone, so that a simulator
//! can own them, and the same inputs give the same effects.

#![allow(clippy::expect_used)]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The crates that run under a simulated runtime, and the parts of them that never do: the runtime
/// itself, a transport of sockets, and certificates, which the calendar dates.
const CRATES: [&str; 4] = ["graft-core", "graft-client", "graft-transport", "graft"];
const REAL_ONLY: [&str; 3] =
    ["graft-core/src/doors/runtime.rs", "graft-transport/src/quic", "graft-transport/src/certs.rs"];

/// What must not appear, and why.
const FORBIDDEN: [(&str, &str); 13] = [
    ("RandomState", "its order differs from run to run"),
    ("DefaultHasher", "its order differs from run to run"),
    ("HashMap::new(", "its order differs from run to run: use a BTreeMap or name a hasher"),
    ("HashMap::with_capacity(", "its order differs from run to run: name a hasher"),
    ("HashSet::new(", "its order differs from run to run: use a BTreeSet or name a hasher"),
    ("HashSet::with_capacity(", "its order differs from run to run: name a hasher"),
    ("Instant::now", "ask `Runtime::now`"),
    ("SystemTime::now", "ask `Runtime::unix_millis`"),
    ("tokio::spawn", "ask `Runtime::spawn`"),
    ("tokio::task", "ask `Runtime`"),
    ("tokio::time", "ask `Runtime::sleep_until`"),
    ("thread::sleep", "ask `Runtime::sleep_until`"),
    ("thread::spawn", "ask `Runtime::spawn_blocking`"),
];

#[test]
fn time_tasks_and_randomness_come_through_the_runtime_alone() {
    let mut files = 0;
    let mut faults = Vec::new();
    for name in CRATES {
        for (path, code) in sources(&workspace().join(name).join("src")) {
            files += 1;
            let shown = path.strip_prefix(workspace()).unwrap_or(&path).display().to_string();
            if REAL_ONLY.iter().any(|real| shown.starts_with(real)) {
                continue;
            }
            faults.extend(faults_in(&code).into_iter().map(|fault| format!("{shown}{fault}")));
        }
    }
    assert!(files > 20, "only {files} sources were found");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_reader_sees_what_it_must_and_nothing_else() {
    let bad = [
        "let map: HashMap<u8, u8> = HashMap::new();",
        "let now = std::time::Instant::now();",
        "tokio::select! {\n    _ = a => {}\n}",
        "tokio::select! {\n    // biased;\n    _ = a => {}\n}",
        "handle.spawn_blocking(work);",
    ];
    for code in bad {
        assert_eq!(faults_in(&without_tests(code).code).len(), 1, "{code}");
    }
    let good = [
        "// Instant::now is not for us.",
        "/// tokio::time is not for us.",
        "tokio::select! {\n    // In this order.\n    biased;\n    _ = a => {}\n}",
        "#[cfg(test)]\nmod tests {\n    fn f() { tokio::spawn(async {}); }\n}",
        "#[cfg(test)]\nfn f() {\n    tokio::spawn(async {});\n}",
        "self.runtime.spawn_blocking(work);",
        "fn spawn_blocking(&self);",
    ];
    for code in good {
        assert_eq!(faults_in(&without_tests(code).code), Vec::<String>::new(), "{code}");
    }
    let split = without_tests("#[cfg(test)]\nmod model;\nlet now = Instant::now();");
    assert_eq!(split.test_modules, ["model"]);
    assert_eq!(faults_in(&split.code).len(), 1, "what follows a test module is still read");
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("crates live in a workspace").to_owned()
}

/// The Rust sources below `directory` without comments and tests.
fn sources(directory: &Path) -> Vec<(PathBuf, String)> {
    let mut paths = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for item in fs::read_dir(&directory).expect("a source directory") {
            let path = item.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                paths.push(path);
            }
        }
    }
    paths.sort();
    let mut excluded = Vec::new();
    let mut read = Vec::new();
    for path in paths {
        let split = without_tests(&fs::read_to_string(&path).expect("a source file"));
        let home = match path.file_stem().and_then(|stem| stem.to_str()) {
            Some("mod" | "lib" | "main") | None => path.with_file_name(""),
            Some(_) => path.with_extension(""),
        };
        for module in split.test_modules {
            excluded.push(home.join(&module));
            excluded.push(home.join(format!("{module}.rs")));
        }
        read.push((path, split.code));
    }
    read.retain(|(path, _)| !excluded.iter().any(|test| path.starts_with(test)));
    read
}

/// A source without comments and without what is compiled for tests only.
struct Split {
    code: String,
    /// Modules for tests in files of their own.
    test_modules: Vec<String>,
}

fn without_tests(source: &str) -> Split {
    let mut split = Split { code: String::new(), test_modules: Vec::new() };
    let lines = source.lines().map(|line| line.split("//").next().unwrap_or(""));
    let mut lines = lines.peekable();
    while let Some(line) = lines.next() {
        // Line numbers stay as they are.
        split.code.push('\n');
        if line.trim() != "#[cfg(test)]" {
            split.code.push_str(line);
            continue;
        }
        let mut depth = 0_usize;
        for item in lines.by_ref() {
            split.code.push('\n');
            depth += item.matches('{').count();
            depth = depth.saturating_sub(item.matches('}').count());
            let module = item.trim().strip_suffix(';').and_then(|item| item.split("mod ").nth(1));
            split.test_modules.extend(module.filter(|_| depth == 0).map(str::to_owned));
            if depth == 0 && (item.contains('}') || item.contains(';')) {
                break;
            }
        }
    }
    split
}

/// What is wrong with this code, each with its line.
fn faults_in(code: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut fault = |at: usize, what: &str| {
        let line = code[..at].matches('\n').count();
        faults.push(format!(":{line}: {what}"));
    };
    for (word, why) in FORBIDDEN {
        for (at, _) in code.match_indices(word) {
            fault(at, &format!("`{word}`: {why}"));
        }
    }
    for (at, word) in code.match_indices("spawn_blocking(") {
        let through_runtime = ["runtime.", "runtime().", "fn "];
        if !through_runtime.iter().any(|before| code[..at].ends_with(before)) {
            fault(at, &format!("`{word}`: ask `Runtime::spawn_blocking`"));
        }
    }
    for (at, word) in code.match_indices("select!") {
        let inside = code[at + word.len()..].trim_start().trim_start_matches(['{', '(']);
        if !inside.trim_start().starts_with("biased;") {
            fault(at, "`select!` without `biased;`: its order differs from run to run");
        }
    }
    faults
}
