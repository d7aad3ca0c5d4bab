//! The binary `clusterlink`.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    clusterlink_cli::main()
}
