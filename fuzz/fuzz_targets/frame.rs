//! Arbitrary bytes as a frame's header and message.

#![no_main]

use clusterlink_gateway::tunnel::fuzzing;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzzing::frame(input));
