//! Generates messages and service from `wire/*.proto`, without a protobuf compiler on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=wire");
    let descriptors = protox::compile(["push.proto"], ["wire"])?;
    tonic_prost_build::configure()
        .build_transport(false)
        // Maps in the order of their keys: equal resources have equal encodings, and so versions.
        .btree_map(".")
        .bytes(".")
        .type_attribute(
            ".clusterlink.push.v1.ResourceName",
            "#[derive(PartialOrd, Ord)]",
        )
        .compile_fds(descriptors)?;
    Ok(())
}
