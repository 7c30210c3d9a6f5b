//! What an outer KVM has to be right for: seen from the host as `run` sees it, and from inside.

use anyhow::{Context, Result, ensure};

use super::nested::{LIMIT, check, machine};
use super::{Case, Scenario, Tier};
use crate::machine::Spec;
use crate::machine::host::{CPUINFO, Device, Host, NESTED};
use crate::nested::Outer;
use crate::run::watch::End;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "nested-off",
        tier: Tier::Nested,
        about: "an outer KVM that does not pass VT-x on: the refusal says what to do there",
        limit: LIMIT,
        run: off,
    },
    Scenario {
        name: "nested-host",
        tier: Tier::Nested,
        about: "a host with KVM as `run` sees it: nesting on, off, the module gone",
        limit: LIMIT,
        run: host,
    },
];

fn off(case: &Case<'_>) -> Result<()> {
    check(case, |outer| {
        let spec = Spec {
            cpu_model: Some("host,-vmx".to_owned()),
            ..machine("one")
        };
        outer.start_qemu(&spec)?;
        let said = outer.qemu_ended()?;
        said.without_panic()?;
        let last = said.last_words()?;
        ensure!(last.end == End::PowerOff, "the end was {:?}", last.end);
        for words in ["Tessera needs Intel VT-x", "nested=1", "-cpu host"] {
            ensure!(last.reason.contains(words), "no {words:?}: {}", last.reason);
        }
        Ok(())
    })
}

fn host(case: &Case<'_>) -> Result<()> {
    check(case, |outer| {
        let good = look(outer)?.nested_vtx();
        ensure!(good.is_ok(), "nesting is on, but: {good:?}");
        outer.ask("rmmod kvm_intel")?;
        refused(outer, "kvm_intel is not loaded")?;
        outer.ask("modprobe kvm_intel nested=0")?;
        refused(outer, "kvm_intel has nested=0")?;
        // As the tests after this one found it.
        outer.ask("rmmod kvm_intel")?;
        outer.ask("modprobe kvm_intel").map(drop)
    })
}

fn refused(outer: &mut Outer, words: &str) -> Result<()> {
    let reason = look(outer)?.nested_vtx().err();
    let reason = reason.with_context(|| format!("it does not see that {words}"))?;
    ensure!(reason.starts_with(words), "{reason}");
    Ok(())
}

/// The facts about the outer system.
fn look(outer: &mut Outer) -> Result<Host> {
    let cpuinfo = outer.ask(&format!("cat {CPUINFO}"))?;
    let (status, nested) = outer.run(&format!("cat {NESTED}"))?;
    let nested = (status == 0).then_some(nested.as_str());
    let (status, _) = outer.run("test -r /dev/kvm -a -w /dev/kvm")?;
    let device = if status == 0 {
        Device::Usable
    } else {
        Device::Absent
    };
    Ok(Host::of(&cpuinfo, nested, device))
}
