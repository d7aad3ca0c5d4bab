//! Builds the kernel programs and puts the object where the datapath includes it from.
//!
//! Where a tool is missing the object is empty, and loading it says so; with
//! `CLUSTERLINK_REQUIRE_EBPF=1`, as for releases, that is an error.

#[path = "../ebpf/build_object.rs"]
mod build_object;

use std::{env, fs, path::PathBuf, process::ExitCode};

use build_object::{
    ObjectBuild, build_object, linker, object_sources, object_target_dir, tools_dir,
};

fn main() -> ExitCode {
    let variable = |name: &str| env::var_os(name).unwrap_or_default();
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("..");
    let root = root.canonicalize().unwrap_or(root);
    for source in object_sources(&root) {
        println!("cargo:rerun-if-changed={}", source.display());
    }
    // A file that does not exist makes cargo run this each time, which is right only as long as
    // there is no linker at all: then one that is installed is found.
    let linker = linker().unwrap_or_else(|| tools_dir().join("bpf-linker"));
    println!("cargo:rerun-if-changed={}", linker.display());
    println!("cargo:rerun-if-env-changed=CLUSTERLINK_REQUIRE_EBPF");
    println!("cargo:rerun-if-env-changed=PATH");

    let built = build_object(&ObjectBuild {
        target_dir: object_target_dir(&root),
        root,
        cargo: variable("CARGO"),
        rustc: variable("RUSTC"),
        arch: env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default(),
    });
    let place = PathBuf::from(variable("OUT_DIR")).join("clusterlink-ebpf");
    let required = env::var_os("CLUSTERLINK_REQUIRE_EBPF").is_some_and(|value| value == "1");
    let written = match built {
        Ok(object) => fs::copy(object, &place).map(|_| ()),
        Err(error) if error.is_tool_missing() && !required => {
            println!("cargo:warning=building without kernel programs: {error}");
            fs::write(&place, [])
        }
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot write {}: {error}", place.display());
            ExitCode::FAILURE
        }
    }
}
