//! The binary `clusterlink-agent`.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    clusterlink_agent::node::main()
}
