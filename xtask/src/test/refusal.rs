//! Machines that cannot be used, and archives that cannot: one line says why, then the end.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::micro::{self, Guest};
use super::{Case, Scenario, Script, Tier, Transcript};
use crate::image::Extras;
use crate::machine::{Boot, Firmware, Kind, Spec};
use crate::run::watch::End;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "no-vtx-bios",
        tier: Tier::Qemu,
        about: "from BIOS on a CPU without VT-x: one line of refusal, power off",
        limit: Duration::from_secs(90),
        run: bios,
    },
    Scenario {
        name: "no-vtx-uefi",
        tier: Tier::Qemu,
        about: "the same from UEFI",
        limit: Duration::from_secs(120),
        run: uefi,
    },
    Scenario {
        name: "no-vtx-kernel",
        tier: Tier::Qemu,
        about: "the same by QEMU's -kernel",
        limit: Duration::from_secs(90),
        run: kernel,
    },
    Scenario {
        name: "no-ept",
        tier: Tier::Bochs,
        about: "a CPU with VT-x but without EPT: what is missing is named",
        limit: Duration::from_secs(90),
        run: no_ept,
    },
    Scenario {
        name: "unknown-mask",
        tier: Tier::Bochs,
        about: "vmx.mask= with a name that does not exist: the known ones are listed",
        limit: Duration::from_secs(90),
        run: unknown_mask,
    },
    Scenario {
        name: "corrupt-archive",
        tier: Tier::Bochs,
        about: "a boot archive with one byte changed is refused by its checksum",
        limit: Duration::from_secs(90),
        run: corrupt_archive,
    },
    Scenario {
        name: "truncated-archive",
        tier: Tier::Bochs,
        about: "half a boot archive is refused",
        limit: Duration::from_secs(90),
        run: truncated_archive,
    },
    Scenario {
        name: "too-much-memory",
        tier: Tier::Bochs,
        about: "a domain with more memory than the machine is refused by name",
        limit: Duration::from_secs(90),
        run: too_much_memory,
    },
];

pub(super) fn hello(case: &Case<'_>) -> String {
    micro::description(case.artifacts, &[Guest::new("hello")])
}

/// Boots and checks that the run ends by power-off after an error line with all of `words`.
pub(super) fn refused(case: &Case<'_>, spec: &Spec, words: &[&str]) -> Result<()> {
    refused_with(case, spec, words, &End::PowerOff).map(drop)
}

/// The same with another end; gives all that was said.
pub(super) fn refused_with(
    case: &Case<'_>,
    spec: &Spec,
    words: &[&str],
    end: &End,
) -> Result<Transcript> {
    let said = Script::for_case(case, spec)?.finish()?;
    said.without_panic()?;
    let mut wanted = vec!["error: "];
    wanted.extend(words);
    said.line_with(&wanted)?;
    let errors = said
        .lines()
        .filter(|line| line.starts_with('[') && line.contains("error: "))
        .count();
    ensure!(errors == 1, "{errors} lines say what one should");
    let last = said.last_words()?;
    ensure!(last.end == *end, "the end was {:?}, not {end:?}", last.end);
    for word in words {
        ensure!(
            last.reason.contains(word),
            "the last words miss {word:?}: {}",
            last.reason
        );
    }
    Ok(said)
}

pub(super) const NO_VTX: &[&str] = &["Tessera needs Intel VT-x", "this CPU reports no VMX"];

pub(super) fn without_vtx(boot: Boot, firmware: Firmware) -> Spec {
    // A model by name: what the host could do does not matter.
    let cpu_model = Some("Skylake-Client,-vmx".to_owned());
    Spec {
        firmware,
        cpu_model,
        ..Spec::new(Kind::Qemu, boot)
    }
}

fn bios(case: &Case<'_>) -> Result<()> {
    let iso = case.artifacts.iso(case.scenario.name, &hello(case))?;
    refused(case, &without_vtx(Boot::Iso(iso), Firmware::Bios), NO_VTX)
}

fn uefi(case: &Case<'_>) -> Result<()> {
    let iso = case.artifacts.iso(case.scenario.name, &hello(case))?;
    refused(case, &without_vtx(Boot::Iso(iso), Firmware::Uefi), NO_VTX)
}

fn kernel(case: &Case<'_>) -> Result<()> {
    let archive = case.artifacts.archive(case.scenario.name, &hello(case))?;
    let boot = Boot::Kernel {
        image: case.artifacts.hypervisor().to_path_buf(),
        archive,
    };
    refused(case, &without_vtx(boot, Firmware::Bios), NO_VTX)
}

fn no_ept(case: &Case<'_>) -> Result<()> {
    let iso = case.artifacts.iso(case.scenario.name, &hello(case))?;
    let cpu_model = Some("core2_penryn_t9600".to_owned());
    let spec = Spec {
        cpu_model,
        ..Spec::new(Kind::Bochs, Boot::Iso(iso))
    };
    let said = Script::for_case(case, &spec)?.finish()?;
    said.without_panic()?;
    said.line_with(&[
        "error: ",
        "Tessera needs",
        "extended page tables",
        "this CPU reports",
    ])?;
    let last = said.last_words()?;
    ensure!(last.end == End::PowerOff, "the end was {:?}", last.end);
    Ok(())
}

fn unknown_mask(case: &Case<'_>) -> Result<()> {
    let name = case.scenario.name;
    let archive = case.artifacts.archive(name, &hello(case))?;
    let extras = Extras {
        cmdline: "vmx.mask=vpid,ept-3g",
        ..Extras::default()
    };
    let iso = case.artifacts.iso_with(name, Some(&archive), &extras)?;
    let words = &[
        "vmx.mask: unknown VMX feature \"ept-3g\"",
        "known: ",
        "ept-1g",
    ];
    refused(case, &Spec::new(Kind::Bochs, Boot::Iso(iso)), words)
}

/// Boots an archive that `spoil` changed.
fn spoiled(case: &Case<'_>, spoil: fn(&mut Vec<u8>), words: &[&str], end: &End) -> Result<()> {
    let name = case.scenario.name;
    let archive = case.artifacts.archive(name, &hello(case))?;
    let mut bytes = fs::read(&archive).with_context(|| format!("reading {}", archive.display()))?;
    spoil(&mut bytes);
    fs::write(&archive, bytes).with_context(|| format!("writing {}", archive.display()))?;
    let iso = case.artifacts.iso_of(name, &archive)?;
    refused_with(case, &Spec::new(Kind::Bochs, Boot::Iso(iso)), words, end).map(drop)
}

fn corrupt_archive(case: &Case<'_>) -> Result<()> {
    let flip = |bytes: &mut Vec<u8>| {
        let middle = bytes.len() / 2;
        if let Some(byte) = bytes.get_mut(middle) {
            *byte ^= 0x10;
        }
    };
    let words = &["boot archive is corrupt", "damaged"];
    spoiled(case, flip, words, &End::PowerOff)
}

fn truncated_archive(case: &Case<'_>) -> Result<()> {
    // The configured end is in what cannot be read; without one the machine halts.
    let halve = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2);
    spoiled(case, halve, &["boot archive is truncated"], &End::Halt)
}

fn too_much_memory(case: &Case<'_>) -> Result<()> {
    let toml = hello(case).replace("16M", "4G");
    let iso = case.artifacts.iso(case.scenario.name, &toml)?;
    let spec = Spec {
        memory_mib: 256,
        ..Spec::new(Kind::Bochs, Boot::Iso(iso))
    };
    refused(case, &spec, &["hello", "memory"])
}
