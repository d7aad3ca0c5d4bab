//! Arbitrary bytes as a resource of the push protocol.

#![no_main]

use clusterlink_proto::fuzzing;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzzing::resource(input));
