//! Stock Debian kernels, used as a person would use them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::disks;
use super::micro::{self, ENDINGS, Guest};
use super::{Case, Scenario, Script, Tier};
use crate::machine::{Boot, Kind, Spec};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "linux-side-by-side",
        tier: Tier::Bochs,
        about: "two Debian guests; one panics, beside guests that fail; the other goes on",
        limit: Duration::from_secs(600),
        run: side_by_side,
    },
    Scenario {
        name: "linux-smp",
        tier: Tier::Bochs,
        about: "two vCPUs on two CPUs: nproc, ticks, floating point and a disk's queue on both",
        limit: Duration::from_secs(600),
        run: smp,
    },
    Scenario {
        name: "linux-standard",
        tier: Tier::Bochs,
        about: "Debian's standard kernel, as shipped (XZ), to a shell",
        limit: Duration::from_secs(600),
        run: standard,
    },
    Scenario {
        name: "linux-cloud",
        tier: Tier::Bochs,
        about: "Debian's cloud kernel to a shell: ballooning, disks and a filesystem, reboot, poweroff",
        limit: Duration::from_secs(600),
        run: cloud,
    },
];

pub(super) const PROMPT: &str = "~ # ";

/// One `[[domain]]` with a Debian kernel.
pub(super) fn domain(name: &str, kernel: &str, memory: &str, more: &str) -> String {
    format!(
        "[[domain]]\nname = \"{name}\"\nkernel = \"debian:{kernel}\"\n\
         initrd = \"debian:{kernel}\"\ncmdline = \"console=hvc0\"\nmemory = \"{memory}\"\n{more}"
    )
}

pub(super) fn start(case: &Case<'_>, cpus: u32, memory_mib: u32, toml: &str) -> Result<Script> {
    let iso = case.artifacts.iso(case.scenario.name, toml)?;
    let spec = Spec {
        cpus,
        memory_mib,
        ..Spec::new(Kind::Bochs, Boot::Iso(iso))
    };
    Script::for_case(case, &spec)
}

/// Types a command and waits for what it prints and the next prompt. The echo of what was typed
/// must not look like the answer.
pub(super) fn ask(script: &mut Script, command: &str, answer: &str) -> Result<()> {
    script.type_line(command)?;
    script.expect(answer)?;
    script.expect(PROMPT)
}

/// A command's one line of output.
pub(super) fn answer(script: &mut Script, command: &str) -> Result<String> {
    script.type_line(&format!("echo \"ans\"wer $({command})"))?;
    script.expect("answer ")?;
    let line = script.rest_of_line()?;
    script.expect(PROMPT)?;
    Ok(line)
}

fn power_off(mut script: Script) -> Result<()> {
    script.type_line("poweroff")?;
    script.finish()?.ended_well()
}

fn cloud(case: &Case<'_>) -> Result<()> {
    let disks = disks::describe(case.artifacts, case.scenario.name)?;
    let toml = domain("debian", "cloud", "256M", &disks);
    let mut script = start(case, 1, 512, &toml)?;
    script.expect("on Tessera: 1 CPU")?;
    script.expect(PROMPT)?;
    ask(&mut script, "echo $((6 * 7)) is it", "42 is it")?;
    let source = "cat /sys/devices/system/clocksource/clocksource0/current_clocksource";
    let clock = answer(&mut script, source)?;
    ensure!(
        clock == "xen" || clock == "tsc",
        "the clock source is {clock:?}"
    );
    // Time passes for the guest as for its clock.
    let slept = answer(
        &mut script,
        "a=$(date +%s); sleep 2; echo $(($(date +%s) - a))",
    )?;
    ensure!(
        slept == "2" || slept == "3",
        "a sleep of 2 s took {slept} s"
    );
    balloon(&mut script)?;
    disks::use_them(&mut script)?;
    script.type_line("reboot")?;
    script.expect("on Tessera: 1 CPU")?;
    script.expect(PROMPT)?;
    disks::find_them_anew(&mut script)?;
    // Asked through the xenstore this time.
    wish(&mut script, b'p', "asked for poweroff")?;
    script.finish()?.ended_well()
}

/// Asks the guest shown for something by Ctrl-] and a key.
pub(super) fn wish(script: &mut Script, key: u8, said: &str) -> Result<()> {
    script.type_keys(&[0x1d, key])?;
    script.expect(said)
}

/// The kernel's balloon driver gives memory back and takes it again, as the xenstore tells it.
fn balloon(script: &mut Script) -> Result<()> {
    let full = memory(script)?;
    wish(script, b'-', "asked to have 240 MiB")?;
    wish(script, b'-', "asked to have 224 MiB")?;
    settles(script, full.saturating_sub(32 << 10))?;
    wish(script, b'+', "asked to have 240 MiB")?;
    wish(script, b'+', "asked to have 256 MiB")?;
    settles(script, full)
}

/// The memory that the kernel says it has, in KiB.
fn memory(script: &mut Script) -> Result<u64> {
    let kib = answer(script, "grep -o '[0-9]* kB' /proc/meminfo | head -1")?;
    let kib = kib.trim_end_matches(" kB").parse();
    kib.context("MemTotal is no number")
}

/// Waits until the kernel has as much memory, to a MiB.
fn settles(script: &mut Script, wanted: u64) -> Result<()> {
    let mut found = 0;
    for _ in 0..10 {
        found = memory(script)?;
        if found.abs_diff(wanted) < 1 << 10 {
            return Ok(());
        }
        ask(script, "sleep 1; echo \"lat\"er", "later")?;
    }
    anyhow::bail!("the guest has {found} KiB of memory, not {wanted}")
}

fn standard(case: &Case<'_>) -> Result<()> {
    let toml = domain("debian", "standard", "320M", "repack = false\n");
    let mut script = start(case, 1, 1024, &toml)?;
    script.expect(PROMPT)?;
    ask(&mut script, "echo $((6 * 7)) is it", "42 is it")?;
    power_off(script)
}

/// Rounds of the sum both vCPUs compute at once.
const TERMS: u32 = 30_000;

fn smp(case: &Case<'_>) -> Result<()> {
    let keys = "vcpus = 2\n[[domain.disk]]\nname = \"xvda\"\nsize = \"16M\"\n";
    let toml = domain("debian", "cloud", "256M", keys);
    let mut script = start(case, 2, 512, &toml)?;
    script.expect("on Tessera: 2 CPU")?;
    script.expect(PROMPT)?;
    let cpus = answer(&mut script, "nproc")?;
    ensure!(cpus == "2", "nproc says {cpus}");
    let ticks = "grep -i 'timer0\\|virq.*timer\\|LOC:' /proc/interrupts | head -n 8 | \
                 awk '{a += $2; b += $3} END {print a, b}'";
    let before = ticks_of(&answer(&mut script, ticks)?)?;
    let sum = format!(
        "awk 'BEGIN {{ for (i = 1; i < {TERMS}; i++) s += 1 / i; printf \"%.9f\\n\", s }}'"
    );
    script.type_line(&format!(
        "for c in 1 2; do taskset $c {sum} >/tmp/$c & done; wait; echo sums $(cat /tmp/1 /tmp/2)"
    ))?;
    let wanted = format!("{:.9}", (1..TERMS).map(|i| 1.0 / f64::from(i)).sum::<f64>());
    script.expect(&format!("sums {wanted} {wanted}"))?;
    script.expect(PROMPT)?;
    let after = ticks_of(&answer(&mut script, ticks)?)?;
    for (cpu, (before, after)) in before.into_iter().zip(after).enumerate() {
        ensure!(
            after > before,
            "CPU {cpu} takes no ticks: {before} before, {after} after"
        );
    }
    disks::two_queues(&mut script)?;
    power_off(script)
}

fn ticks_of(line: &str) -> Result<[u64; 2]> {
    let numbers: Vec<u64> = line
        .split(' ')
        .filter_map(|word| word.parse().ok())
        .collect();
    match numbers.as_slice() {
        [a, b] => Ok([*a, *b]),
        _ => anyhow::bail!("no two tick counts in {line:?}"),
    }
}

/// Ctrl-], which the hypervisor's console takes for itself, and a digit: that domain's console.
pub(super) fn show_console(script: &mut Script, number: u8, name: &str) -> Result<()> {
    script.type_keys(&[0x1d, b'0' + number])?;
    script.expect(&format!("tessera: console: {name}"))
}

fn side_by_side(case: &Case<'_>) -> Result<()> {
    let victims: Vec<(Guest, &[&str])> = ENDINGS.iter().copied().take(2).collect();
    let guests: Vec<Guest> = victims.iter().map(|(guest, _)| *guest).collect();
    let toml = domain("steady", "cloud", "192M", "")
        + &domain("frantic", "cloud", "192M", "on_reboot = \"stop\"\n")
        + &micro::description(case.artifacts, &guests);
    let mut script = start(case, 1, 768, &toml)?;
    script.expect(PROMPT)?;
    ask(
        &mut script,
        "touch /tmp/mine; echo $((6 * 7)) is it",
        "42 is it",
    )?;
    show_console(&mut script, 2, "frantic")?;
    script.type_line("")?;
    script.expect(PROMPT)?;
    ask(&mut script, "ls /tmp/mine || echo not \"here\"", "not here")?;
    script.type_line("echo c >/proc/sysrq-trigger")?;
    script.expect("Kernel panic - not syncing: sysrq")?;
    script.expect("frantic: shut down: crash")?;
    script.expect("tessera: console: steady")?;
    ask(
        &mut script,
        "ls /tmp/mine && echo $((7 * 8)) still",
        "56 still",
    )?;
    script.type_line("poweroff")?;
    let said = script.finish()?;
    micro::check_endings(&said, &victims)?;
    said.ended_well()
}
