//! Arbitrary bytes as messages of a controller, into an agent's replica.

#![no_main]

use clusterlink_proto::fuzzing;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzzing::replica(input));
