//! The saved corpus of the fuzz targets, run as the targets run it.

use std::{fs, path::PathBuf};

use graft_transport::wire::v1::{Header, Kind};

use crate::{
    samples::{fixed, written},
    targets,
};

/// What is done with a file of the corpus.
type Target = Box<dyn Fn(&[u8])>;

/// The directories of the corpus, and what is done with the files in each.
fn all() -> Vec<(&'static str, Target)> {
    let of = |kind| -> Target { Box::new(move |input| targets::body(kind, input)) };
    vec![
        ("stream", Box::new(targets::stream)),
        ("hello", of(Kind::Hello)),
        ("refusal", of(Kind::Refusal)),
        ("message", of(Kind::Message)),
        ("append", of(Kind::Append)),
        ("snapshot", of(Kind::Snapshot)),
        ("birth", of(Kind::Birth)),
        ("requests", of(Kind::Requests)),
        ("replies", of(Kind::Replies)),
        ("members", of(Kind::Members)),
    ]
}

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus")
}

#[test]
fn nothing_in_the_fuzz_corpus_breaks_anything() {
    for (name, run) in all() {
        let mut files = 0;
        for file in fs::read_dir(corpus().join(name)).unwrap() {
            run(&fs::read(file.unwrap().path()).unwrap());
            files += 1;
        }
        assert!(files > 0, "the corpus of {name} is empty");
    }
}

#[test]
fn every_kind_has_a_target_and_every_target_a_program() {
    let programs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/fuzz_targets");
    for (name, _) in all() {
        assert!(programs.join(format!("{name}.rs")).exists(), "{name} has no program");
    }
    assert_eq!(all().len(), Kind::ALL.len() + 1);
}

/// Each stored frame is in the corpus of its kind, and all of them are a stream:
/// `GRAFT_WRITE_FIXTURE=1` puts new ones there.
#[test]
fn the_fuzz_corpus_begins_with_the_stored_frames() {
    let write = std::env::var_os("GRAFT_WRITE_FIXTURE").is_some();
    for (name, value) in fixed() {
        let bytes = written(&value);
        let header = Header::decode(bytes[..Header::BYTES].try_into().unwrap()).unwrap();
        let kind = format!("{:?}", header.kind).to_lowercase();
        let body = header.body_bytes as usize;
        let rest = &bytes[Header::BYTES..];
        let mut of_kind = u16::try_from(body).unwrap().to_le_bytes().to_vec();
        of_kind.extend_from_slice(&rest[..body]);
        of_kind.extend_from_slice(&rest[body.next_multiple_of(16)..]);
        let stream = [&[60][..], &bytes].concat();
        for (directory, input) in [(kind.as_str(), of_kind), ("stream", stream)] {
            let directory = corpus().join(directory);
            let path = directory.join(&name);
            if write && !path.exists() {
                fs::create_dir_all(&directory).unwrap();
                fs::write(&path, &input).unwrap();
            }
            assert_eq!(fs::read(&path).unwrap(), input, "{}", path.display());
        }
    }
}
