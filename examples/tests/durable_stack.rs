//! The durable stack as its users run it.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "this is test code")]

#[allow(dead_code, reason = "most of it is for the kv example")]
mod processes;

use std::{fs, path::Path};

use processes::Process;

#[test]
fn a_second_run_finds_what_the_first_one_left() {
    let place = tempfile::tempdir().unwrap();
    // All that is missing above it is made.
    let directory = place.path().join("logs/stack");
    let path = directory.to_str().unwrap();
    let first = r#"["foo of run 1", "bar of run 1"]"#;
    let second = r#"["foo of run 1", "bar of run 1", "foo of run 2", "bar of run 2"]"#;
    let out = format!("found in {path}: []\nleft there: {first}\n");
    Process::start("durable_stack", &[path]).ends().is(0, &out);
    let out = format!("found in {path}: {first}\nleft there: {second}\n");
    Process::start("durable_stack", &[path]).ends().is(0, &out);
}

#[test]
fn what_is_no_directory_for_logs_is_refused_with_the_usage() {
    let place = tempfile::tempdir().unwrap();
    let (one, two) = (place.path().join("one"), place.path().join("two"));
    let (one, two) = (one.to_str().unwrap(), two.to_str().unwrap());
    for arguments in [&[][..], &[""], &["--nonsense"], &[one, two]] {
        let ran = Process::start("durable_stack", arguments).ends();
        ran.fails(2, &["--help"]);
    }
    let help = Process::start("durable_stack", &["--help"]).ends();
    assert!(help.code == Some(0) && help.out.contains("Usage: durable_stack <DIR>"), "{help:?}");
    assert!(fs::read_dir(place.path()).unwrap().next().is_none(), "a directory was made");
    for name in ["--help", "--nonsense", "server1"] {
        assert!(!Path::new(name).exists(), "{name} was made");
    }
}

#[test]
fn a_file_in_the_way_is_named() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("file");
    fs::write(&file, "a letter").unwrap();
    let file = file.to_str().unwrap();
    let words = [format!("{file} is not a directory"), format!("there can be no {file}/server")];
    let words = words.each_ref().map(String::as_str);
    Process::start("durable_stack", &[file]).ends().fails(1, &words);
}
