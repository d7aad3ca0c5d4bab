//! Arbitrary bytes as what the kernel says of connections and sockets.

#![no_main]

use clusterlink_agent::host::fuzzing;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzzing::netlink(input));
