//! Machines with something broken: VT-x that firmware left wrong, CPUs that do not start, ACPI
//! tables that lie, no serial port. Each has its line in the log and its defined end.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::micro::{self, Guest};
use super::refusal::{self, hello, refused};
use super::{Case, Scenario, Script, Tier, Transcript};
use crate::image::Extras;
use crate::machine::{self, Boot, Firmware, Kind, Spec};
use crate::run::watch::End;

const LIMIT: Duration = Duration::from_secs(120);

const fn bochs(
    name: &'static str,
    about: &'static str,
    run: fn(&Case<'_>) -> Result<()>,
) -> Scenario {
    Scenario {
        name,
        tier: Tier::Bochs,
        about,
        limit: LIMIT,
        run,
    }
}

const fn qemu(
    name: &'static str,
    about: &'static str,
    run: fn(&Case<'_>) -> Result<()>,
) -> Scenario {
    Scenario {
        tier: Tier::Qemu,
        ..bochs(name, about, run)
    }
}

pub(super) const SCENARIOS: &[Scenario] = &[
    bochs(
        "vtx-open",
        "firmware forgot IA32_FEATURE_CONTROL: it is set and locked",
        vtx_open,
    ),
    bochs(
        "vtx-locked",
        "firmware locked VT-x off, on all CPUs or on one",
        vtx_locked,
    ),
    bochs("vmxon-fails", "VMXON fails on the second CPU", vmxon_fails),
    bochs(
        "no-unrestricted",
        "a CPU with EPT but without unrestricted guest",
        no_unrestricted,
    ),
    bochs(
        "dead-cpu",
        "one of three CPUs does not start: the others go on",
        dead_cpu,
    ),
    bochs("no-archive", "the boot medium has no archive", no_archive),
    bochs(
        "no-serial",
        "no serial port: guests run and the machine powers off",
        no_serial,
    ),
    bochs(
        "acpi-broken",
        "a root table shorter than its header, and one without entries",
        acpi_broken,
    ),
    qemu("acpi-missing", "no ACPI tables at all", acpi_missing),
    bochs(
        "little-memory",
        "machines of 6 to 16 MiB: a guest runs, or the need is named",
        little_memory,
    ),
];

/// A machine with these faults that boots one guest.
fn faulty(case: &Case<'_>, cpus: u32, faults: &[&str]) -> Result<Spec> {
    let iso = case.artifacts.iso(case.scenario.name, &hello(case))?;
    Ok(Spec {
        cpus,
        faults: faults.iter().map(|&fault| fault.to_owned()).collect(),
        memory_mib: 256,
        ..Spec::new(Kind::Bochs, Boot::Iso(iso))
    })
}

/// Boots, and checks that the guest ran and the machine powered off.
fn runs(case: &Case<'_>, spec: &Spec) -> Result<Transcript> {
    let said = Script::for_case(case, spec)?.finish()?;
    micro::verdicts(&said, "hello", &[Guest::new("hello")])?;
    said.ended_well()?;
    Ok(said)
}

fn vtx_open(case: &Case<'_>) -> Result<()> {
    let spec = faulty(case, 2, &["feature-control-open"])?;
    runs(case, &spec).map(drop)
}

fn vtx_locked(case: &Case<'_>) -> Result<()> {
    let words = [
        "Tessera needs Intel VT-x",
        "locked it off",
        "IA32_FEATURE_CONTROL = 0x1",
    ];
    refused(case, &faulty(case, 1, &["feature-control-locked"])?, &words)?;
    let on_one = ["cpu1: Tessera needs Intel VT-x", "locked it off"];
    refused(
        case,
        &faulty(case, 2, &["feature-control-locked-1"])?,
        &on_one,
    )
}

fn vmxon_fails(case: &Case<'_>) -> Result<()> {
    let words = ["cpu1: Tessera needs Intel VT-x", "VMXON failed"];
    refused(case, &faulty(case, 2, &["vmxon-fails-1"])?, &words)
}

fn no_unrestricted(case: &Case<'_>) -> Result<()> {
    let spec = Spec {
        cpu_model: Some("corei5_lynnfield_750".to_owned()),
        ..faulty(case, 1, &[])?
    };
    refused(
        case,
        &spec,
        &["Tessera needs unrestricted guest", "this CPU reports"],
    )
}

fn dead_cpu(case: &Case<'_>) -> Result<()> {
    let said = runs(case, &faulty(case, 3, &["sipi-ignored-1"])?)?;
    said.line_with(&["smp: CPU with APIC id 1 does not come up: going on without it"])?;
    said.line_with(&["smp: 2 of 3 CPUs run"]).map(drop)
}

fn no_archive(case: &Case<'_>) -> Result<()> {
    let boot = |extras: &Extras<'_>| -> Result<Spec> {
        let iso = case.artifacts.iso_with(case.scenario.name, None, extras)?;
        Ok(Spec::new(Kind::Bochs, Boot::Iso(iso)))
    };
    // What follows a refusal is told by the archive; without one the machine halts,
    let halts = boot(&Extras::default())?;
    refusal::refused_with(case, &halts, &["no boot archive"], &End::Halt)?;
    // unless the command line tells.
    let told = Extras {
        cmdline: "on-panic=poweroff",
        ..Extras::default()
    };
    refused(case, &boot(&told)?, &["no boot archive"])
}

/// Nobody hears what happens: that the machine powers off by itself tells that the guest came to its
/// end, since a refusal or a panic leaves it on.
fn no_serial(case: &Case<'_>) -> Result<()> {
    let toml = format!("[host]\non_panic = \"halt\"\n{}", hello(case));
    let spec = Spec {
        serial_port: false,
        ..Spec::new(
            Kind::Bochs,
            Boot::Iso(case.artifacts.iso(case.scenario.name, &toml)?),
        )
    };
    let mut running = machine::start(case.artifacts.workspace(), &spec)?;
    let limit = Instant::now() + case.scenario.limit;
    while running.status()?.is_none() {
        ensure!(Instant::now() < limit, "the machine is still on");
        thread::sleep(Duration::from_millis(50));
    }
    let said = running.emulator_messages();
    ensure!(
        said.contains("soft power off"),
        "the machine ended by: {said}"
    );
    Ok(())
}

fn acpi_broken(case: &Case<'_>) -> Result<()> {
    let short = acpi(case, 20)?;
    short.line_with(&["acpi: table RSDT says it has 20 bytes: ignored"])?;
    short.line_with(&["acpi: no tables", "one CPU, no soft-off"])?;
    let empty = acpi(case, 36)?;
    empty.line_with(&["acpi: no MADT", "one CPU"])?;
    empty.line_with(&["acpi: no FADT", "no soft-off"]).map(drop)
}

/// Runs with a root table that has `length` bytes in all, its checksum right.
fn acpi(case: &Case<'_>, length: u8) -> Result<Transcript> {
    const MEMORY_MIB: u32 = 256;
    // The firmware of Bochs puts its tables into the last 64 KiB of memory, the root first.
    const ROOT: u32 = (MEMORY_MIB << 20) - (64 << 10);
    let mut table = *b"RSDT\0\0\0\0\x01\0BOCHS BXPCRSDT\x01\0\0\0BXPC\x01\0\0\0";
    table[4] = length;
    let sum = table
        .iter()
        .take(length.into())
        .fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    table[9] = sum.wrapping_neg();
    let commands = poke(ROOT, &table);
    let extras = Extras {
        commands: &commands,
        modules: &["memrw"],
        ..Extras::default()
    };
    let archive = case.artifacts.archive(case.scenario.name, &hello(case))?;
    let iso = case
        .artifacts
        .iso_with(case.scenario.name, Some(&archive), &extras)?;
    let spec = Spec {
        cpus: 2,
        memory_mib: MEMORY_MIB,
        ..Spec::new(Kind::Bochs, Boot::Iso(iso))
    };
    runs(case, &spec)
}

/// Commands by which GRUB writes `bytes` to memory.
fn poke(address: u32, bytes: &[u8]) -> String {
    let words = bytes.chunks_exact(4).zip((address..).step_by(4));
    words
        .map(|(word, at)| {
            let value = word
                .iter()
                .rev()
                .fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte));
            format!("write_dword {at:#x} {value:#x}\n")
        })
        .collect()
}

/// QEMU without VT-x gets as far as the refusal for that: what was said of ACPI comes before.
fn acpi_missing(case: &Case<'_>) -> Result<()> {
    let iso = case.artifacts.iso(case.scenario.name, &hello(case))?;
    // A BIOS makes tables of its own where QEMU has none for it.
    let spec = Spec {
        extra_args: ["-machine", "acpi=off"].map(str::to_owned).into(),
        ..refusal::without_vtx(Boot::Iso(iso), Firmware::Uefi)
    };
    let said = refusal::refused_with(case, &spec, refusal::NO_VTX, &End::PowerOff)?;
    said.line_with(&["acpi: no tables", "one CPU, no soft-off"])
        .map(drop)
}

/// From where nothing is left for guests to where all is: each machine runs or names the need.
fn little_memory(case: &Case<'_>) -> Result<()> {
    let small = hello(case).replace("16M", "4M");
    let iso = case.artifacts.iso(case.scenario.name, &small)?;
    let mut ran = 0;
    let mut refused = 0;
    for memory_mib in [6, 7, 8, 9, 10, 12, 16] {
        let spec = Spec {
            memory_mib,
            ..Spec::new(Kind::Bochs, Boot::Iso(iso.clone()))
        };
        let said = Script::for_case(case, &spec)?.finish()?;
        said.without_panic()?;
        let last = said.last_words()?;
        ensure!(
            last.good() || last.reason.contains("memory"),
            "{memory_mib} MiB: {}",
            last.reason
        );
        if last.good() {
            ran += 1;
        } else {
            refused += 1;
        }
    }
    ensure!(ran > 0 && refused > 0, "{ran} ran, {refused} were refused");
    Ok(())
}
