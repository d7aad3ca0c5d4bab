//! Arbitrary bytes and frames into a session of either side.

#![no_main]

use clusterlink_gateway::tunnel::fuzzing;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzzing::session(input));
