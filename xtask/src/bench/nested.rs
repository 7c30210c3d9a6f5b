//! Exits to the outer hypervisor, counted from the trace of KVM in the outer system.
//!
//! The micro-guest `exits` does each operation many times between two marks (its own module
//! comment says how). KVM traces every exit, of the hypervisor and of its guest alike, with reason
//! and address; what lies between two marks, divided by the rounds, is what an operation costs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::nested_boot::{self, Debian};
use crate::machine::{Boot, Kind, Spec};
use crate::nested::{Layout, Outer};
use crate::symbols::Functions;
use crate::test::{Artifacts, Transcript};

/// What one operation costs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Phase {
    pub(crate) name: String,
    /// Operations between the marks.
    pub(crate) rounds: u64,
    /// Exits for one operation.
    pub(crate) exits: f64,
    /// The same by reason and place, the most frequent first.
    pub(crate) parts: Vec<Part>,
}

/// Exits that come to the hypervisor unasked: KVM's own interrupts, and its first mapping of a page.
const UNASKED: [&str; 2] = ["EXTERNAL_INTERRUPT", "EPT_VIOLATION"];

impl Phase {
    /// Exits that instructions of the hypervisor cost for one operation.
    pub(crate) fn of_hypervisor(&self) -> f64 {
        self.parts
            .iter()
            .filter(|part| part.function.is_some() && !UNASKED.contains(&part.reason.as_str()))
            .map(|part| part.exits)
            .sum()
    }
}

/// Exits of one kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Part {
    /// KVM's name.
    pub(crate) reason: String,
    /// The function of the hypervisor that caused it; nothing for its guest.
    pub(crate) function: Option<String>,
    /// For one operation.
    pub(crate) exits: f64,
}

/// Adds up the trace: one line for each mark, reason and address, with the number of exits.
const COUNT: &str = r#"
/ kvm_exit: / {
    for (i = 1; i < NF; i++) if ($i == "reason") { reason = $(i + 1); rip = $(i + 3); info = $(i + 5) }
    port = substr(info, 11, 4)
    if (reason == "IO_INSTRUCTION" && port ~ /^5e/) { mark = port ~ /[02468ace]$/ ? port : ""; next }
    if (mark != "") n[mark " " reason " " rip]++
}
END { for (key in n) print "exits: " key " " n[key] }
"#;

/// Files that the outer system needs beside the hypervisor.
const ARCHIVE: &str = "exits.tsa";
const PROGRAM: &str = "count.awk";
const TRACE: &str = "/sys/kernel/tracing";
const LIMIT: Duration = Duration::from_secs(900);

/// Boots an outer system and counts.
pub(super) fn run(artifacts: &Artifacts) -> Result<(Vec<Phase>, Debian)> {
    let own = files(artifacts)?;
    let debian = artifacts.archive("bench-nested-debian", super::DEBIAN)?;
    let mut files = vec![("tessera", artifacts.hypervisor()), ("debian.tsa", &debian)];
    files.extend(own.iter().map(|(name, path)| (*name, path.as_path())));
    let log = artifacts.log("bench-nested");
    let mut outer = Outer::boot(artifacts.workspace(), &Layout::new(&files), &log, LIMIT)?;
    outer.ask("modprobe kvm_intel")?;
    let phases = count(artifacts, &mut outer)?;
    Ok((phases, nested_boot::count(&mut outer, "debian.tsa")?))
}

/// The files that [`count`] needs in the outer system, beside the hypervisor as `tessera`.
pub(crate) fn files(artifacts: &Artifacts) -> Result<[(&'static str, PathBuf); 2]> {
    let toml = format!(
        "[[domain]]\nname = \"exits\"\nkernel = {:?}\nmemory = \"96M\"\n",
        artifacts.guest("exits").display().to_string()
    );
    let archive = artifacts.archive("bench-nested", &toml)?;
    let program = artifacts.file("bench-nested", "awk");
    fs::write(&program, COUNT).context("cannot write the counting program")?;
    Ok([(ARCHIVE, archive), (PROGRAM, program)])
}

/// Counts in an outer system that has KVM.
pub(crate) fn count(artifacts: &Artifacts, outer: &mut Outer) -> Result<Vec<Phase>> {
    let functions = Functions::read(&fs::read(artifacts.debug())?)?;
    outer.ask(&format!(
        "echo 32768 >{TRACE}/buffer_size_kb && echo 1 >{TRACE}/events/kvm/kvm_exit/enable && \
         echo >{TRACE}/trace"
    ))?;
    let boot = Boot::Kernel {
        image: "tessera".into(),
        archive: ARCHIVE.into(),
    };
    outer.start_qemu(&Spec {
        memory_mib: 256,
        ..Spec::new(Kind::Qemu, boot)
    })?;
    let said = outer.qemu_ended()?;
    said.ended_well()?;
    said.line_with(&["verdict: pass"])?;
    let trace = outer.ask(&format!(
        "echo 0 >{TRACE}/events/kvm/kvm_exit/enable; awk -f {PROGRAM} {TRACE}/trace"
    ))?;
    phases(&said, &trace, &functions)
}

/// Joins what the guest did with what KVM saw.
fn phases(said: &Transcript, trace: &str, functions: &Functions) -> Result<Vec<Phase>> {
    let mut seen: BTreeMap<u64, Vec<(String, u64, u64)>> = BTreeMap::new();
    for line in trace.lines() {
        let Some((_, rest)) = line.split_once("exits: ") else {
            continue;
        };
        let (mark, reason, rip, count) = exit(rest.trim()).with_context(|| line.to_owned())?;
        seen.entry(mark).or_default().push((reason, rip, count));
    }
    let done = said
        .lines()
        .filter_map(|line| line.strip_prefix("phase: ")?.split_once('='));
    let mut phases = Vec::new();
    for (index, (name, rounds)) in done.enumerate() {
        let rounds: u64 = rounds.parse()?;
        ensure!(rounds > 0, "phase {name} did nothing");
        let seen = seen.get(&(index as u64)).cloned().unwrap_or_default();
        phases.push(phase(name, rounds, seen, functions));
    }
    ensure!(!phases.is_empty(), "the micro-guest named no phases");
    Ok(phases)
}

/// Mark, reason, address and number of a line of [`COUNT`]'s.
fn exit(line: &str) -> Option<(u64, String, u64, u64)> {
    let mut words = line.split(' ');
    let port = u64::from_str_radix(words.next()?, 16).ok()?;
    let reason = words.next()?.to_owned();
    let rip = u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok()?;
    Some(((port & 0xff) / 2, reason, rip, words.next()?.parse().ok()?))
}

#[expect(clippy::cast_precision_loss, reason = "counts are small")]
fn phase(name: &str, rounds: u64, seen: Vec<(String, u64, u64)>, functions: &Functions) -> Phase {
    let mut parts: BTreeMap<(String, Option<String>), u64> = BTreeMap::new();
    let mut total = 0;
    for (reason, rip, count) in seen {
        let function = functions.at(rip).map(str::to_owned);
        *parts.entry((reason, function)).or_default() += count;
        total += count;
    }
    let each = |count: u64| count as f64 / rounds as f64;
    let mut parts: Vec<Part> = parts
        .into_iter()
        .map(|((reason, function), count)| Part {
            reason,
            function,
            exits: each(count),
        })
        .collect();
    parts.sort_by(|a, b| b.exits.total_cmp(&a.exits));
    Phase {
        name: name.to_owned(),
        rounds,
        exits: each(total),
        parts,
    }
}

/// Parts below this are interrupts that came by chance.
const NOISE: f64 = 0.05;

/// The figures for people.
pub(super) fn render(phases: &[Phase]) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(out, "{:32} {:>8}", "exits to KVM per operation", "exits");
    for phase in phases {
        let _ = writeln!(out, "{:32} {:>8.2}", phase.name, phase.exits);
        for part in phase.parts.iter().filter(|part| part.exits >= NOISE) {
            let place = part.function.as_deref().unwrap_or("the guest");
            let _ = writeln!(out, "  {:7.2}  {:22} {place}", part.exits, part.reason);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{exit, phase};
    use crate::symbols::Functions;

    #[test]
    fn lines_of_the_trace_are_read() {
        assert_eq!(
            exit("5e04 VMRESUME 0xffffffff80001000 101"),
            Some((2, "VMRESUME".to_owned(), 0xffff_ffff_8000_1000, 101))
        );
        assert_eq!(exit("5e04 VMRESUME"), None);
    }

    #[test]
    fn exits_are_for_one_operation() {
        let seen = vec![
            ("VMCALL".to_owned(), 0x1000, 100),
            ("VMRESUME".to_owned(), 0x2000, 100),
            ("VMRESUME".to_owned(), 0x2004, 1),
            ("EPT_VIOLATION".to_owned(), 0x2008, 50),
        ];
        let functions = Functions::from([(0x2000, "vmx::enter".to_owned())]);
        let phase = phase("hypercall", 100, seen, &functions);
        assert_eq!(phase.exits, 2.51);
        assert_eq!(phase.of_hypervisor(), 1.01);
        assert_eq!(phase.parts[0].function.as_deref(), Some("vmx::enter"));
        assert_eq!(phase.parts[1].function, None);
    }
}
