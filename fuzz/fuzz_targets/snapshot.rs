//! Any bytes behind the header of a frame of this kind.
#![no_main]

use graft_transport::wire::v1::Kind;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| graft_fuzz::targets::body(Kind::Snapshot, input));
