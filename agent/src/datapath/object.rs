//! The object with the kernel programs: loading it, as this kernel needs it.

use aya::{
    Ebpf, EbpfLoader,
    maps::MapType,
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported, is_map_supported, is_program_supported},
};
use clusterlink_ebpf_common::maps;

use super::{DatapathError, pins::Pins};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/clusterlink-ebpf"));

/// Checks what steering cannot do without, so that the error names it and not a failed load.
pub(super) fn check_kernel(service_path: bool) -> Result<(), DatapathError> {
    if OBJECT.is_empty() {
        return Err(DatapathError::ObjectMissing);
    }
    let missing = missing_capabilities(
        &std::fs::read_to_string("/proc/self/status")
            .map_err(|source| DatapathError::path("read", "/proc/self/status", source))?,
    );
    if !missing.is_empty() {
        return Err(DatapathError::Capabilities {
            missing: missing.join(", "),
        });
    }
    let hint = ", with CONFIG_CGROUP_BPF and CONFIG_BPF_SYSCALL";
    let lookup = service_path.then_some((
        ProgramType::SkLookup,
        "BPF programs at socket lookup (sk_lookup), which serve the Service path",
        "5.9",
    ));
    let always = [
        (
            ProgramType::CgroupSockAddr,
            "BPF programs at connect (cgroup/connect4)",
            "4.17",
        ),
        (
            ProgramType::SockOps,
            "BPF programs on TCP events (sock_ops)",
            "4.13",
        ),
    ];
    for (program, feature, since) in always.into_iter().chain(lookup) {
        if !is_program_supported(program).map_err(|source| DatapathError::Load(source.into()))? {
            return Err(DatapathError::Unsupported {
                feature,
                since,
                hint,
            });
        }
    }
    for (map, feature, since) in [
        (MapType::SkStorage, "BPF storage on sockets", "5.2"),
        (MapType::RingBuf, "BPF ring buffers", "5.8"),
        (MapType::SockMap, "BPF maps of sockets", "4.14"),
    ] {
        if !is_map_supported(map).map_err(|source| DatapathError::Load(source.into()))? {
            return Err(DatapathError::Unsupported {
                feature,
                since,
                hint: "",
            });
        }
    }
    Ok(())
}

/// Loads the maps (those that are pinned are used again) and prepares the programs.
pub(super) fn load(pins: &Pins, log_level: u8) -> Result<Ebpf, DatapathError> {
    let has = |program, helper| {
        is_helper_supported(program, helper)
            .map(u32::from)
            .map_err(|source| DatapathError::Load(source.into()))
    };
    let set_retval = has(ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_set_retval)?;
    let netns = has(ProgramType::SockOps, BpfHelper::BPF_FUNC_get_netns_cookie)?;
    let mut loader = EbpfLoader::new();
    loader
        .override_global("HAS_SET_RETVAL", &set_retval, true)
        .override_global("HAS_SOCK_OPS_NETNS", &netns, true)
        // Lines of other levels are not even checked by the verifier.
        .override_global(aya_log::LEVEL, &log_level, false);
    for map in maps::ALL {
        loader.map_pin_path(map.name, pins.map(map.name));
    }
    loader
        .load(OBJECT)
        .map_err(|source| DatapathError::Load(source.into()))
}

/// The capabilities that this process lacks, by the text of `/proc/self/status`.
fn missing_capabilities(status: &str) -> Vec<&'static str> {
    const NET_ADMIN: u64 = 1 << 12;
    const SYS_ADMIN: u64 = 1 << 21;
    const PERFMON: u64 = 1 << 38;
    const BPF: u64 = 1 << 39;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or_default();
    let has = |capability| effective & capability != 0;
    let mut missing = Vec::new();
    if !has(NET_ADMIN) {
        missing.push("CAP_NET_ADMIN");
    }
    if !has(BPF) && !has(SYS_ADMIN) {
        missing.push("CAP_BPF");
    }
    if !has(PERFMON) && !has(SYS_ADMIN) {
        missing.push("CAP_PERFMON");
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_lacks_nothing() {
        assert!(missing_capabilities("Name:\tx\nCapEff:\t000001ffffffffff\n").is_empty());
    }

    #[test]
    fn the_old_administrator_capability_stands_for_the_new_ones() {
        assert!(missing_capabilities("CapEff:\t0000000000201000\n").is_empty());
    }

    #[test]
    fn a_plain_user_is_told_everything_that_is_missing() {
        assert_eq!(
            missing_capabilities("CapEff:\t0000000000000000\n"),
            ["CAP_NET_ADMIN", "CAP_BPF", "CAP_PERFMON"]
        );
        assert_eq!(
            missing_capabilities("CapEff:\t0000008000001000\n"),
            ["CAP_PERFMON"]
        );
    }
}
