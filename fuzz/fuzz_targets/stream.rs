//! Any bytes as a stream of frames.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| graft_fuzz::targets::stream(input));
