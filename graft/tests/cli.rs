//! The operator's tool, as it is run.

#![allow(clippy::unwrap_used, reason = "this is test code")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use graft_transport::quic::tls::{CertifiedName, Tls};
use tempfile::TempDir;

const SERVERS: [&str; 3] = ["server1", "server2", "server3"];

/// What a run of the tool left behind.
struct Ran {
    code: i32,
    out: String,
    error: String,
}

impl Ran {
    fn fails_with(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{}{}", self.out, self.error);
        for word in words {
            assert!(self.error.contains(word), "{word} is missing: {}", self.error);
        }
    }

    fn succeeds(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.error);
        self
    }

    /// The files in the lines that begin with `what`.
    fn files(&self, what: &str) -> Vec<String> {
        let lines = self.out.lines().filter_map(|line| line.strip_prefix(what));
        let paths = lines.filter_map(|line| line.split_whitespace().next());
        let names = paths.map(|path| Path::new(path).file_name().unwrap());
        names.map(|name| name.to_str().unwrap().to_owned()).collect()
    }
}

fn graft(arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_graft"));
    let ran = command.args(arguments).stdin(Stdio::null()).output().unwrap();
    Ran {
        code: ran.status.code().unwrap(),
        out: String::from_utf8(ran.stdout).unwrap(),
        error: String::from_utf8(ran.stderr).unwrap(),
    }
}

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join("certs").join(name)
    }

    /// `graft certs --out certs ...`
    fn certs(&self, arguments: &[&str]) -> Ran {
        let out = self.path("");
        let mut all = vec!["certs", "--out", out.to_str().unwrap()];
        all.extend(arguments);
        graft(&all)
    }

    fn tls(&self, name: &str) -> Tls {
        let [cert, key] = [format!("{name}.pem"), format!("{name}-key.pem")];
        Tls::from_files(self.path("ca.pem"), self.path(&cert), self.path(&key)).unwrap()
    }

    fn contents(&self) -> BTreeMap<String, Vec<u8>> {
        let files = fs::read_dir(self.path("")).unwrap().map(Result::unwrap);
        let contents = files.map(|file| {
            let name = file.file_name().into_string().unwrap();
            (name, fs::read(file.path()).unwrap())
        });
        contents.collect()
    }
}

#[test]
fn what_it_writes_serves_the_servers_and_a_client() {
    let place = Place::new();
    let ran = place.certs(&SERVERS).succeeds();
    let contents = place.contents();
    assert_eq!(contents.len(), 10);
    let mut written = ran.files("wrote");
    written.sort_unstable();
    assert_eq!(written, contents.into_keys().collect::<Vec<_>>(), "{}", ran.out);
    assert_eq!(ran.files("kept"), Vec::<String>::new());
    for server in SERVERS {
        let name = CertifiedName::server(server, "graft").unwrap();
        assert_eq!(*place.tls(server).identity(), name);
    }
    let client = CertifiedName::client("client", "graft").unwrap();
    assert_eq!(*place.tls("client").identity(), client);
    assert!(place.tls("server1").warnings().is_empty());
}

#[cfg(unix)]
#[test]
fn keys_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;

    let place = Place::new();
    place.certs(&SERVERS).succeeds();
    let keys: Vec<_> = place.contents().into_keys().filter(|name| name.contains("-key")).collect();
    assert_eq!(keys.len(), 5);
    for key in keys {
        let mode = fs::metadata(place.path(&key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
}

#[test]
fn a_second_run_adds_who_is_new_and_changes_nothing_else() {
    let place = Place::new();
    let first = ["--cluster", "shop", "--client", "alice", "server1"];
    place.certs(&first).succeeds();
    let before = place.contents();
    let second =
        ["--cluster", "shop", "--client", "alice", "--client", "bob", "server1", "server2"];
    let ran = place.certs(&second).succeeds();
    let new = ["server2.pem", "server2-key.pem", "bob.pem", "bob-key.pem"];
    assert_eq!(ran.files("wrote"), new, "{}", ran.out);
    assert_eq!(ran.files("kept").len(), before.len(), "{}", ran.out);
    let after = place.contents();
    for (name, bytes) in &before {
        assert_eq!(after.get(name), Some(bytes), "{name}");
    }
    // One authority for all: each accepts the others' certificates, so any of them loads beside it.
    assert_eq!(place.tls("bob").identity().name(), "bob");
    assert!(ran.out.contains("valid for"), "{}", ran.out);
}

#[test]
fn renewing_keeps_the_authority_and_those_who_are_not_named() {
    let place = Place::new();
    place.certs(&SERVERS).succeeds();
    let before = place.contents();
    let ran = place.certs(&["--renew", "server2"]).succeeds();
    let renewed = ["server2.pem", "server2-key.pem"];
    assert_eq!(ran.files("wrote"), renewed, "{}", ran.out);
    for (name, bytes) in place.contents() {
        let same = before.get(&name) == Some(&bytes);
        assert_eq!(same, !renewed.contains(&name.as_str()), "{name}");
    }
    place.tls("server2");
    let ran = place.certs(&["--renew", "--client", "client"]).succeeds();
    assert_eq!(ran.files("wrote"), ["client.pem", "client-key.pem"], "{}", ran.out);
    place.tls("client");
}

#[test]
fn a_bad_name_is_refused_before_anything_is_written() {
    let place = Place::new();
    for (arguments, words) in [
        (&["server1", "a.b"][..], &["`a.b`", "letters, digits"][..]),
        (&["--client", "", "server1"], &["``", "empty"]),
        (&["--cluster", "my shop", "server1"], &["`my shop`", "cluster"]),
        (&["../server1"], &["`../server1`"]),
        (&["server1", "server1"], &["`server1`", "twice"]),
        (&["--client", "server1", "server1"], &["server1.pem", "both"]),
        (&["ca"], &["ca.pem", "authority"]),
        (&["a", "a-key"], &["a-key.pem"]),
    ] {
        place.certs(arguments).fails_with(1, words);
        assert!(!place.path("").exists(), "{arguments:?}");
    }
}

#[test]
fn what_is_there_and_of_no_use_is_named_and_left_alone() {
    let place = &Place::new();
    place.certs(&SERVERS).succeeds();
    let same_without = |change: &dyn Fn(), arguments: &[&str], words: &[&str]| {
        let whole = place.contents();
        change();
        let before = place.contents();
        place.certs(arguments).fails_with(1, words);
        assert_eq!(place.contents(), before, "{words:?}");
        for (name, bytes) in whole {
            fs::write(place.path(&name), bytes).unwrap();
        }
    };
    let remove = |name: &'static str| move || fs::remove_file(place.path(name)).unwrap();
    let garble = |name: &'static str| move || fs::write(place.path(name), "nothing").unwrap();
    same_without(&|| {}, &["--cluster", "other", "server1"], &["`graft`", "`other`"]);
    same_without(
        &|| {},
        &["client", "--client", "x"],
        &["client.pem", "client `client`", "--renew"],
    );
    same_without(&remove("server2-key.pem"), &SERVERS, &["server2-key.pem", "--renew"]);
    same_without(&remove("server2.pem"), &SERVERS, &["server2.pem", "--renew"]);
    same_without(&garble("server3.pem"), &SERVERS, &["server3.pem", "--renew"]);
    same_without(&remove("ca-key.pem"), &SERVERS, &["ca-key.pem"]);
    same_without(&remove("ca.pem"), &SERVERS, &["ca.pem"]);
    same_without(&garble("ca.pem"), &["server4"], &["ca.pem"]);
    same_without(&garble("ca-key.pem"), &["server4"], &["ca-key.pem"]);
    place.certs(&SERVERS).succeeds();
}

#[test]
fn a_directory_that_cannot_be_is_named() {
    let place = Place::new();
    let file = place.0.path().join("file");
    fs::write(&file, "a file").unwrap();
    let ran = graft(&["certs", "--out", file.to_str().unwrap(), "server1"]);
    ran.fails_with(1, &["graft: ", "file", "directory"]);
    assert_eq!(fs::read(&file).unwrap(), b"a file");
}

#[test]
fn usage_is_explained() {
    let place = Place::new();
    graft(&[]).fails_with(2, &["certs"]);
    graft(&["certs", "server1"]).fails_with(2, &["--out"]);
    place.certs(&[]).fails_with(2, &["SERVER"]);
    place.certs(&["--nonsense", "server1"]).fails_with(2, &["--nonsense"]);
    let help = graft(&["certs", "--help"]).succeeds();
    for word in ["--out", "--cluster", "--client", "--renew", "ca-key.pem"] {
        assert!(help.out.contains(word), "{word}: {}", help.out);
    }
}
