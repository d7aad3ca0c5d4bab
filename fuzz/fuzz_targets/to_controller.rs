//! Arbitrary bytes as what an agent sends.

#![no_main]

use clusterlink_proto::fuzzing;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzzing::to_controller(input));
