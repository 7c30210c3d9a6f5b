//! Exits to the outer hypervisor in a Debian guest's boot, from histograms that KVM's trace points
//! fill.

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::machine::{Boot, Kind, Spec};
use crate::nested::Outer;

/// What a boot came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Debian {
    /// All exits to KVM, by reason, the most frequent first.
    pub(crate) exits: Vec<Reason>,
    /// Those that KVM handed on to Tessera.
    pub(crate) handed_on: Vec<Reason>,
}

/// How often there was an exit for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Reason {
    pub(crate) reason: String,
    pub(crate) count: u64,
}

/// The event that each exit fills, the event of those handed on, and the fields with the reason.
const ALL: (&str, &str) = ("kvm_exit", "exit_reason");
const HANDED_ON: (&str, &str) = ("kvm_nested_vmexit_inject", "exit_code");
const EVENTS: &str = "/sys/kernel/tracing/events/kvm";

/// Boots the Debian guest of `archive`, which runs `poweroff` at its first prompt.
pub(super) fn count(outer: &mut Outer, archive: &str) -> Result<Debian> {
    for (event, field) in [ALL, HANDED_ON] {
        outer.ask(&format!(
            "echo 'hist:keys={field}:size=256' >{EVENTS}/{event}/trigger"
        ))?;
    }
    outer.start_qemu(&Spec {
        memory_mib: 512,
        ..Spec::new(
            Kind::Qemu,
            Boot::Kernel {
                image: "tessera".into(),
                archive: archive.into(),
            },
        )
    })?;
    let line = outer.line();
    line.expect("~ # ")?;
    line.type_line("poweroff")?;
    outer.qemu_ended()?.ended_well()?;
    let mut read = |(event, _)| outer.ask(&format!("cat {EVENTS}/{event}/hist"));
    let debian = Debian {
        exits: histogram(&read(ALL)?),
        handed_on: histogram(&read(HANDED_ON)?),
    };
    ensure!(total(&debian.handed_on) > 0, "KVM handed no exits on");
    Ok(debian)
}

/// Lines of the form `{ FIELD: NUMBER } hitcount: NUMBER`.
fn histogram(text: &str) -> Vec<Reason> {
    let parse = |line: &str| {
        let (key, count) = line.trim().strip_prefix('{')?.split_once("} hitcount:")?;
        let (_, number) = key.split_once(':')?;
        Some(Reason {
            reason: name(number.trim()),
            count: count.trim().parse().ok()?,
        })
    };
    let mut reasons: Vec<Reason> = text.lines().filter_map(parse).collect();
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.count));
    reasons
}

/// The names that KVM gives the basic exit reasons, as far as they occur here (SDM 3D, "VMX Basic
/// Exit Reasons").
fn name(number: &str) -> String {
    let name = match number {
        "0" => "EXCEPTION_NMI",
        "1" => "EXTERNAL_INTERRUPT",
        "7" => "INTERRUPT_WINDOW",
        "10" => "CPUID",
        "12" => "HLT",
        "18" => "VMCALL",
        "19" => "VMCLEAR",
        "20" => "VMLAUNCH",
        "21" => "VMPTRLD",
        "23" => "VMREAD",
        "24" => "VMRESUME",
        "25" => "VMWRITE",
        "27" => "VMXON",
        "28" => "CR_ACCESS",
        "30" => "IO_INSTRUCTION",
        "31" => "MSR_READ",
        "32" => "MSR_WRITE",
        "48" => "EPT_VIOLATION",
        "49" => "EPT_MISCONFIG",
        "50" => "INVEPT",
        "52" => "PREEMPTION_TIMER",
        "53" => "INVVPID",
        "54" => "WBINVD",
        "55" => "XSETBV",
        other => return format!("reason {other}"),
    };
    name.to_owned()
}

fn total(reasons: &[Reason]) -> u64 {
    reasons.iter().map(|reason| reason.count).sum()
}

/// The figures for people.
pub(super) fn render(debian: &Debian) -> String {
    let mut out = String::new();
    for (title, reasons) in [
        ("exits to KVM in a Debian boot", &debian.exits),
        ("of these handed on to Tessera", &debian.handed_on),
    ] {
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(out, "\n{title:32} {:>8}", total(reasons));
        for Reason { reason, count } in reasons {
            let _ = writeln!(out, "  {reason:30} {count:>8}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{Reason, histogram};

    #[test]
    fn histograms_are_read() {
        let text = "# event histogram\n\n{ exit_reason:         48 } hitcount:         12\r\n\
                    { exit_reason:         24 } hitcount:        900\n\nTotals:\n    Hits: 912\n";
        let reason = |reason: &str, count| Reason {
            reason: reason.to_owned(),
            count,
        };
        assert_eq!(
            histogram(text),
            [reason("VMRESUME", 900), reason("EPT_VIOLATION", 12)]
        );
    }
}
