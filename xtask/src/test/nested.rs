//! Tessera in QEMU/KVM, as its users run it: all checks in one boot of the outer system.
//!
//! A check that fails takes the outer system with it; the next one boots another.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Artifacts, Case, Scenario, Tier, Transcript, micro, nested_run};
use crate::bench::nested as bench;
use crate::build;
use crate::machine::{Boot, Firmware, Kind, Spec};
use crate::nested::{self, Layout, Outer};

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario(
        "nested-linux",
        "a Debian guest to its shell, a command answered, poweroff; the feature report",
        linux,
    ),
    scenario(
        "nested-exits",
        "how many exits to KVM the frequent operations cost",
        exits,
    ),
    scenario(
        "nested-time",
        "a guest's timers and clock against the outer system's",
        time,
    ),
    scenario(
        "nested-crowd",
        "two guests with three vCPUs on one CPU, on QEMU's older machine",
        crowd,
    ),
    scenario("nested-smp", "two guests with three vCPUs on two CPUs", smp),
    scenario(
        "nested-model",
        "a named CPU model with VT-x instead of the host's",
        model,
    ),
    scenario(
        "nested-refusal",
        "a CPU model without unrestricted guest: one line names it",
        refusal,
    ),
    scenario("nested-iso", "from the ISO through BIOS and GRUB", iso),
    scenario("nested-uefi", "from the ISO through UEFI and GRUB", uefi),
];

/// What plain `cargo xtask test` runs of these.
const SHORT: &[&str] = &["nested-linux", "nested-exits", "nested-off"];

const fn scenario(
    name: &'static str,
    about: &'static str,
    run: fn(&Case<'_>) -> Result<()>,
) -> Scenario {
    Scenario {
        name,
        tier: Tier::Nested,
        about,
        limit: LIMIT,
        run,
    }
}

/// Whether plain `cargo xtask test` runs it.
pub(super) fn by_default(scenario: &Scenario) -> bool {
    scenario.tier != Tier::Nested || SHORT.contains(&scenario.name)
}

/// For one check in the running outer system.
pub(super) const LIMIT: Duration = Duration::from_secs(600);
/// For the outer system's boot.
const BOOT_LIMIT: Duration = Duration::from_secs(600);

pub(super) const PROMPT: &str = "~ # ";

/// A machine type without PCI Express, as an argument after the usual one.
const OLDER: [&str; 2] = ["-machine", "pc"];

/// The systems that Tessera is given: archive, and its domains with their vCPUs.
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
    let artifacts = case.artifacts;
    let tracing = build::tracing_hypervisor(artifacts.workspace())?;
    let symbols = trace_symbols(artifacts);
    fs::copy(&tracing.debug, &symbols)
        .with_context(|| format!("cannot write {}", symbols.display()))?;
    let mut files: Vec<(String, PathBuf)> = vec![
        ("tessera".into(), artifacts.hypervisor().into()),
        ("tessera-trace".into(), tracing.image),
    ];
    for (name, domains) in SYSTEMS {
        let toml: String = domains
            .iter()
            .map(|&(name, vcpus)| domain(name, vcpus))
            .collect();
        let archive = artifacts.archive(&format!("nested-{name}"), &toml)?;
        if *name == "one" {
            files.push((
                "tessera.iso".into(),
                artifacts.iso_of("nested-one", &archive)?,
            ));
        }
        files.push((format!("{name}.tsa"), archive));
    }
    let grants = micro::description(artifacts, &micro::GRANTS);
    files.push((
        "grants.tsa".into(),
        artifacts.archive("nested-grants", &grants)?,
    ));
    for (name, path) in bench::files(artifacts)? {
        files.push((name.into(), path));
    }
    files.extend(nested_run::files(artifacts)?);
    let files: Vec<_> = files
        .iter()
        .map(|(name, path)| (name.as_str(), path.as_path()))
        .collect();
    let layout = Layout::new(&files);
    let log = artifacts.log("nested-outer");
    let mut outer = Outer::boot(artifacts.workspace(), &layout, &log, BOOT_LIMIT)?;
    outer.ask("modprobe kvm_intel")?;
    Ok(outer)
}

/// The symbols of the hypervisor that the outer system has as `tessera-trace`, whatever was built since.
pub(super) fn trace_symbols(artifacts: &Artifacts) -> PathBuf {
    artifacts.file("nested-trace", "debug")
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

/// Boots `spec` to a guest's shell with so many CPUs, has a command answered, and powers off.
fn to_shell_and_off(outer: &mut Outer, spec: &Spec, vcpus: u32) -> Result<Transcript> {
    outer.start_qemu(spec)?;
    answer_and_off(outer, vcpus)?;
    let said = outer.qemu_ended()?;
    said.ended_well()?;
    Ok(said)
}

/// Has the guest's shell answer with its number of CPUs and power off.
pub(super) fn answer_and_off(outer: &mut Outer, vcpus: u32) -> Result<()> {
    let line = outer.line();
    line.expect(PROMPT).context("no shell came up")?;
    line.type_line("echo $((6 * 7)) is it on $(nproc)")?;
    line.expect(&format!("42 is it on {vcpus}"))?;
    line.expect(PROMPT)?;
    line.type_line("poweroff")
}

fn linux(case: &Case<'_>) -> Result<()> {
    check(case, |outer| {
        let said = to_shell_and_off(outer, &machine("one"), 1)?;
        // KVM emulates the timer, which then counts every 32 ticks of the TSC.
        said.line_with(&["preemption timer counts TSC >> 5"])?;
        let wanted = said.line_with(&["VMX: wanted:"])?;
        for feature in [
            "preemption-timer",
            "vpid",
            "virtual-nmi",
            "ack-intr-on-exit",
        ] {
            ensure!(wanted.contains(feature), "KVM has {feature}: {wanted}");
        }
        Ok(())
    })
}

/// What the hypervisor may add to an operation's own exits: the VMRESUME for each, and for a timer
/// that wakes an idle guest its own timer, its HLT, and the end of the interrupt.
const OWN_EXITS: &[(&str, f64)] = &[
    ("nothing", 0.0),
    ("hypercall", 1.0),
    ("cpuid", 1.0),
    ("rdmsr", 1.0),
    ("yield", 1.0),
    ("event_to_self", 1.0),
    ("set_timer", 1.0),
    ("set_timer_and_tick_while_busy", 2.0),
    ("set_timer_and_tick_while_idle", 5.0),
];

fn exits(case: &Case<'_>) -> Result<()> {
    check(case, |outer| {
        let phases = bench::count(case.artifacts, outer)?;
        for (name, allowed) in OWN_EXITS {
            let phase = phases.iter().find(|phase| phase.name == *name);
            let own = phase
                .with_context(|| format!("no phase {name}"))?
                .of_hypervisor();
            // An exit of the guest's cannot end without the hypervisor's VMRESUME.
            ensure!(
                *allowed == 0.0 || own >= 0.95,
                "{name} costs {own:.2} exits to KVM: most went uncounted"
            );
            // The first mark's VMRESUME counts as well.
            ensure!(
                own <= allowed + 0.05,
                "{name} costs {own:.2} exits to KVM beside its own, not {allowed}"
            );
        }
        Ok(())
    })
}

fn crowd(case: &Case<'_>) -> Result<()> {
    let spec = Spec {
        extra_args: OLDER.map(str::to_owned).into(),
        ..machine("two")
    };
    check(case, |outer| two_guests(outer, &spec))
}

fn smp(case: &Case<'_>) -> Result<()> {
    let spec = Spec {
        cpus: 2,
        ..machine("two")
    };
    check(case, |outer| two_guests(outer, &spec))
}

/// Both guests come to their shells, answer and power off.
fn two_guests(outer: &mut Outer, spec: &Spec) -> Result<()> {
    outer.start_qemu(spec)?;
    answer_and_off(outer, 2)?;
    let line = outer.line();
    line.expect("tessera: console: second")?;
    line.type_line("")?;
    answer_and_off(outer, 1)?;
    let said = outer.qemu_ended()?;
    said.line_with(&[&format!("smp: {0} of {0} CPUs run", spec.cpus)])?;
    said.ended_well()
}

fn model(case: &Case<'_>) -> Result<()> {
    let spec = Spec {
        cpu_model: Some("IvyBridge,+vmx".to_owned()),
        ..machine("one")
    };
    check(case, |outer| to_shell_and_off(outer, &spec, 1).map(drop))
}

fn refusal(case: &Case<'_>) -> Result<()> {
    let spec = Spec {
        cpu_model: Some("Nehalem,+vmx".to_owned()),
        ..machine("one")
    };
    check(case, |outer| {
        outer.start_qemu(&spec)?;
        let said = outer.qemu_ended()?;
        said.without_panic()?;
        said.line_with(&["tessera: end: poweroff", "unrestricted guest"])?;
        Ok(())
    })
}

fn iso(case: &Case<'_>) -> Result<()> {
    let spec = Spec {
        boot: Boot::Iso("tessera.iso".into()),
        ..machine("one")
    };
    check(case, |outer| to_shell_and_off(outer, &spec, 1).map(drop))
}

fn uefi(case: &Case<'_>) -> Result<()> {
    let spec = Spec {
        boot: Boot::Iso("tessera.iso".into()),
        firmware: Firmware::Uefi,
        ..machine("one")
    };
    check(case, |outer| to_shell_and_off(outer, &spec, 1).map(drop))
}

/// Puts the outer system's clock before each line that has a stamp in it.
const STAMPED: &str = "while IFS= read -r line; do case \"$line\" in *stamp*) \
                       read now rest </proc/uptime; echo \"at $now $line\";; \
                       *) echo \"$line\";; esac; done";

/// Prints the guest's clock.
const STAMP: &str = "echo \"st\"amp $(cut -d ' ' -f 1 /proc/uptime)";

/// How far a span may be off: the stamps' resolution and their way through the serial line, and
/// one in a hundred.
fn about(guest: f64, outer: f64) -> bool {
    (guest - outer).abs() <= 0.1 + 0.01 * outer
}

fn time(case: &Case<'_>) -> Result<()> {
    check(case, |outer| {
        outer.begin(&format!(
            "{} | {STAMPED}",
            nested::qemu_line(&machine("one"))?
        ))?;
        let line = outer.line();
        line.expect("built-in shell")?;
        line.type_line(&format!(
            "{STAMP}; sleep 10; {STAMP}; for i in 1 2 3 4 5 6 7 8; do sleep 0.25; done; {STAMP}; \
             awk 'BEGIN {{ for (i = 0; i < 50000; i++) s += i }}'; {STAMP}; poweroff"
        ))?;
        let said = outer.qemu_ended()?;
        said.ended_well()?;
        let stamps: Vec<(f64, f64)> = said.lines().filter_map(stamps).collect();
        let [a, b, c, d] = stamps.as_slice() else {
            anyhow::bail!("no four stamps: {stamps:?}");
        };
        for (what, (from, to)) in [
            ("a sleep", (a, b)),
            ("short sleeps", (b, c)),
            ("work", (c, d)),
        ] {
            let (guest, outer) = (to.1 - from.1, to.0 - from.0);
            ensure!(
                about(guest, outer),
                "{what} took the guest {guest:.2} s and the outer system {outer:.2} s"
            );
        }
        ensure!(
            about(b.1 - a.1, 10.0),
            "a sleep of 10 s took {:.2} s",
            b.1 - a.1
        );
        Ok(())
    })
}

/// The outer system's and the guest's clock in a line, in seconds.
fn stamps(line: &str) -> Option<(f64, f64)> {
    let (outer, guest) = line.strip_prefix("at ")?.split_once(" stamp ")?;
    Some((outer.parse().ok()?, guest.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::{about, stamps};

    #[test]
    fn stamps_name_both_clocks() {
        assert_eq!(stamps("at 12.50 stamp 3.25\r"), Some((12.5, 3.25)));
        assert_eq!(stamps("~ # echo stamp"), None);
    }

    #[test]
    fn a_clock_may_be_off_a_little() {
        assert!(about(10.05, 10.0));
        assert!(!about(10.5, 10.0));
    }
}
