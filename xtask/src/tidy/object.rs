//! Whether the built object has every map and program that it should, by name and with types.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use clusterlink_ebpf_common::{maps, programs};
use object::{Object as _, ObjectSection as _};

/// What a kernel object says of its types: the names of functions and of variables.
#[derive(Debug, Default, PartialEq, Eq)]
struct Names {
    functions: BTreeSet<String>,
    variables: BTreeSet<String>,
}

/// Fails where a map or program named in `ebpf-common` has no BTF in the object.
pub(super) fn check(path: &Path) -> Result<()> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let elf = object::File::parse(&*bytes)
        .with_context(|| format!("{} is no ELF object", path.display()))?;
    let section = elf
        .section_by_name(".BTF")
        .context("the object has no section .BTF")?;
    let names = names(section.data().context("the section .BTF cannot be read")?)?;
    let mut missing = Vec::new();
    for map in maps::ALL {
        if !names.variables.contains(map.name) {
            missing.push(format!("map {}", map.name));
        }
    }
    for program in programs::ALL {
        if !names.functions.contains(program.name) {
            missing.push(format!("program {}", program.name));
        }
    }
    if !missing.is_empty() {
        bail!("the object lacks {}", missing.join(", "));
    }
    Ok(())
}

/// Reads the names out of BTF, as <https://docs.kernel.org/bpf/btf.html> lays it out.
fn names(btf: &[u8]) -> Result<Names> {
    let word = |at: usize| -> Result<u32> {
        let bytes = btf.get(at..at + 4).context("the BTF is cut short")?;
        Ok(u32::from_le_bytes(
            bytes.try_into().context("four bytes are a word")?,
        ))
    };
    let offset =
        |at: usize| -> Result<usize> { usize::try_from(word(at)?).context("an offset fits") };
    if btf.get(..2) != Some(&[0x9f, 0xeb]) {
        bail!("the BTF does not begin with its magic number");
    }
    let header = offset(4)?;
    let (types, types_length) = (header + offset(8)?, offset(12)?);
    let strings = header + offset(16)?;
    let string = |at: usize| -> Result<String> {
        let bytes = btf
            .get(strings + at..)
            .context("a name is outside of the strings")?;
        let end = bytes
            .iter()
            .position(|byte| *byte == 0)
            .context("a name has no end")?;
        Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
    };
    let mut found = Names::default();
    let mut at = types;
    while at < types + types_length {
        let name = string(offset(at)?)?;
        let info = offset(at + 4)?;
        let (kind, count) = ((info >> 24) & 0x1f, info & 0xffff);
        match kind {
            12 => drop(found.functions.insert(name)),
            14 => drop(found.variables.insert(name)),
            _ => {}
        }
        at += 12 + tail_length(kind, count)?;
    }
    Ok(found)
}

/// The length of what follows the 12 bytes that all types have.
fn tail_length(kind: usize, count: usize) -> Result<usize> {
    Ok(match kind {
        // Pointer, forward, typedef, volatile, const, restrict, function, float, type tag.
        2 | 7..=12 | 16 | 18 => 0,
        // Integer, variable, declaration tag.
        1 | 14 | 17 => 4,
        // Array.
        3 => 12,
        // Structure, union, data section, enumeration of 64 bits.
        4 | 5 | 15 | 19 => 12 * count,
        // Enumeration, prototype of a function.
        6 | 13 => 8 * count,
        other => bail!("the BTF has a type of the unknown kind {other}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn btf(types: &[u32], strings: &[u8]) -> Vec<u8> {
        let length = |count: usize| u32::try_from(count).unwrap();
        let header = [
            24,
            0,
            length(types.len() * 4),
            length(types.len() * 4),
            length(strings.len()),
        ];
        let mut bytes = vec![0x9f, 0xeb, 1, 0];
        bytes.extend(
            header
                .iter()
                .chain(types)
                .flat_map(|word| word.to_le_bytes()),
        );
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn names_of_functions_and_variables_are_found_behind_other_types() {
        let structure = [1, 4 << 24 | 1, 4, 1, 1, 0];
        let variable = [3, 14 << 24, 1, 1];
        let function = [8, 12 << 24, 1];
        let types = [&structure[..], &variable, &function].concat();
        let names = names(&btf(&types, b"\0s\0FOWS\0hook\0")).unwrap();
        assert_eq!(names.variables, BTreeSet::from(["FOWS".to_owned()]));
        assert_eq!(names.functions, BTreeSet::from(["hook".to_owned()]));
    }

    #[test]
    fn btf_that_is_cut_short_is_an_error() {
        let whole = btf(&[3, 14 << 24, 1, 1], b"\0s\0FOWS\0");
        for length in 0..whole.len() {
            assert!(names(&whole[..length]).is_err(), "{length}");
        }
    }
}
