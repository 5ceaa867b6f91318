//! Frames as they were first written. A server of any later build must still read them, and write the
//! same: another meaning needs another version.
//!
//! `GRAFT_WRITE_FIXTURE=1` writes those that are not there yet; what is there is never written again.

use std::{env, fs, path::PathBuf};

use graft_transport::wire::v1::archive_format;

use crate::{
    samples::{fixed, frame, written},
    targets::Value,
};

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wire-v1")
}

#[test]
fn stored_frames_of_version_1_are_read_and_written_as_they_were() {
    let write = env::var_os("GRAFT_WRITE_FIXTURE").is_some();
    for (name, value) in fixed() {
        let path = directory().join(format!("{name}.bin"));
        if write && !path.exists() {
            fs::create_dir_all(directory()).unwrap();
            fs::write(&path, written(&value)).unwrap();
        }
        let stored = fs::read(&path).unwrap_or_else(|error| {
            panic!("{}: {error}; GRAFT_WRITE_FIXTURE=1 writes what is new", path.display())
        });
        assert_eq!(Value::decode(&frame(&stored)).unwrap(), value, "{name} reads as another value");
        assert!(stored == written(&value), "{name} is written otherwise than before");
    }
}

#[test]
fn every_stored_frame_is_tested() {
    let mut stored: Vec<_> = fs::read_dir(directory())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    let mut tested: Vec<_> = fixed().into_iter().map(|(name, _)| format!("{name}.bin")).collect();
    stored.sort();
    tested.sort();
    assert_eq!(stored, tested);
}

/// Pointers of 32 bits, numbers aligned and little endian: what rkyv does unless a crate of the
/// program switches a feature, which would make it talk to nobody.
#[test]
fn the_form_of_the_archive_is_the_stored_one() {
    assert_eq!(archive_format(), 0x0000_0804);
}
