//! Tessera in QEMU/KVM, as its users run it: all checks in one boot of the outer system.
//!
//! A check that fails takes the outer system with it; the next one boots another.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Case, Scenario, Tier, Transcript};
use crate::build;
use crate::machine::{Boot, Kind, Spec};
use crate::nested::{Layout, Outer};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "nested-linux",
    tier: Tier::Nested,
    about: "a Debian guest to its shell, a command answered, poweroff",
    limit: LIMIT,
    run: linux,
}];

/// Whether plain `cargo xtask test` runs it: the short form of the nested ones.
pub(super) fn by_default(scenario: &Scenario) -> bool {
    scenario.tier != Tier::Nested || matches!(scenario.name, "nested-linux" | "nested-off")
}

/// For one check in the running outer system.
pub(super) const LIMIT: Duration = Duration::from_secs(300);
/// For the outer system's boot.
const BOOT_LIMIT: Duration = Duration::from_secs(240);

pub(super) const PROMPT: &str = "~ # ";

/// The systems that Tessera is given, by the name of their archive.
const SYSTEMS: &[(&str, &[(&str, u32)])] = &[
    ("one", &[("debian", 1)]),
    ("two", &[("debian", 2), ("second", 1)]),
];

/// Runs a check in the outer system, which is booted if there is none.
pub(super) fn check(case: &Case<'_>, run: impl FnOnce(&mut Outer) -> Result<()>) -> Result<()> {
    let mut slot = case.outer.borrow_mut();
    let mut outer = match slot.take() {
        Some(outer) => outer,
        None => boot(case)?,
    };
    let log = case.artifacts.log(case.scenario.name);
    outer.line().renew(&log, case.scenario.limit)?;
    run(&mut outer)?;
    *slot = Some(outer);
    Ok(())
}

fn boot(case: &Case<'_>) -> Result<Outer> {
    let archives: Vec<(String, PathBuf)> = SYSTEMS
        .iter()
        .map(|(name, domains)| {
            let toml: String = domains
                .iter()
                .map(|&(name, vcpus)| domain(name, vcpus))
                .collect();
            let path = case.artifacts.archive(&format!("nested-{name}"), &toml)?;
            Ok((format!("{name}.tsa"), path))
        })
        .collect::<Result<_>>()?;
    let tracing = build::tracing_hypervisor(case.artifacts.workspace())?.image;
    let mut files = vec![
        ("tessera", case.artifacts.hypervisor()),
        ("tessera-trace", &tracing),
    ];
    files.extend(
        archives
            .iter()
            .map(|(name, path)| (name.as_str(), path.as_path())),
    );
    let log = case.artifacts.log("nested-outer");
    let ws = case.artifacts.workspace();
    let mut outer = Outer::boot(ws, &Layout::new(&files), &log, BOOT_LIMIT)?;
    outer.ask("modprobe kvm_intel")?;
    Ok(outer)
}

fn domain(name: &str, vcpus: u32) -> String {
    format!(
        "[[domain]]\nname = \"{name}\"\nkernel = \"debian:cloud\"\ninitrd = \"debian:cloud\"\n\
         cmdline = \"console=hvc0 quiet\"\nmemory = \"128M\"\nvcpus = {vcpus}\n"
    )
}

/// A machine in QEMU that starts the hypervisor by `-kernel` with one of [`SYSTEMS`].
pub(super) fn machine(system: &str) -> Spec {
    let boot = Boot::Kernel {
        image: "tessera".into(),
        archive: format!("{system}.tsa").into(),
    };
    Spec {
        memory_mib: 512,
        ..Spec::new(Kind::Qemu, boot)
    }
}

/// Boots `spec` to a guest's shell, has a command answered, and powers the guest off.
fn to_shell_and_off(outer: &mut Outer, spec: &Spec) -> Result<Transcript> {
    outer.start_qemu(spec)?;
    let line = outer.line();
    line.expect(PROMPT).context("no shell came up")?;
    line.type_line("echo $((6 * 7)) is it")?;
    line.expect("42 is it")?;
    line.expect(PROMPT)?;
    line.type_line("poweroff")?;
    let said = outer.qemu_ended()?;
    said.ended_well()?;
    Ok(said)
}

fn linux(case: &Case<'_>) -> Result<()> {
    check(case, |outer| {
        to_shell_and_off(outer, &machine("one")).map(drop)
    })
}
