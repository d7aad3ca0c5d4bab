//! The binary `clusterlink-controller`.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    clusterlink_controller::app::main()
}
