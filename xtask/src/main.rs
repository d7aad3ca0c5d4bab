//! `cargo xtask`: what it takes to build, check, test and show the project, on a fresh machine too.
#![forbid(unsafe_code)]

mod build_ebpf;
mod crds;
mod demo;
mod kubernetes;
mod release;
mod setup;
mod step;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    about = "Builds, generated files, tests, demo and tidy checks"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Finds out what this machine lacks, names it and installs it; the other commands do so by themselves.
    Setup,
    /// Builds the object with the kernel programs and prints where it is.
    BuildEbpf,
    /// Builds the programs of a Kubernetes control plane, which the stories start, and prints where they are.
    Kubernetes,
    /// Writes the CRD manifests into deploy/crds.
    Crds {
        /// Only compares, and fails where they differ.
        #[arg(long)]
        check: bool,
    },
    /// Runs unit and property tests, then the stories on this kernel against the release build.
    Test(test::Test),
    /// Shows the whole path at work, from manifests to measurements, in under a minute after building.
    Demo(demo::Demo),
    /// Checks format, lints, generated files, the object's maps and programs, and the tree.
    Tidy,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // What went wrong is in its words; a backtrace would bury what to do about it.
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    match Arguments::parse().command {
        Command::Setup => setup::run(),
        Command::BuildEbpf => {
            println!("{}", build_ebpf::run()?.display());
            Ok(())
        }
        Command::Kubernetes => {
            println!("{}", kubernetes::control_plane()?.display());
            Ok(())
        }
        Command::Crds { check: true } => crds::check(),
        Command::Crds { check: false } => crds::write(),
        Command::Test(test) => test.run(),
        Command::Demo(demo) => demo.run(),
        Command::Tidy => tidy::run(),
    }
}
