//! What an outer KVM has to be right for: seen from the host as `run` sees it, and from inside.

use anyhow::{Result, ensure};

use super::nested::{LIMIT, check, machine};
use super::nested_run::{self, JOIN, LEAVE, RUN, UDEV, as_user};
use super::{Case, Scenario, Tier};
use crate::machine::Spec;
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
        about: "a host with KVM as `run` sees it: nesting on, off, the module gone, no permission",
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
        nested_run::install(outer)?;
        let root = format!("{RUN} --machine qemu --dry-run");
        let user = as_user(&root);
        good(outer, &root)?;
        outer.ask("rmmod kvm_intel")?;
        wrong(
            outer,
            &root,
            "kvm_intel is not loaded",
            "sudo modprobe kvm_intel nested=1",
        )?;
        outer.ask("modprobe kvm_intel nested=0")?;
        wrong(
            outer,
            &root,
            "kvm_intel has nested=0",
            "end all virtual machines",
        )?;
        outer.ask("rmmod kvm_intel")?;
        outer.ask("modprobe kvm_intel")?;
        good(outer, &root)?;
        let denied = "/dev/kvm may not be used by this user";
        wrong(outer, &user, denied, "sudo chown $USER /dev/kvm\n")?;
        outer.ask("chown user /dev/kvm")?;
        good(outer, &user)?;
        // A new device, as the module makes it.
        outer.ask("rmmod kvm_intel && modprobe kvm_intel")?;
        outer.ask(UDEV)?;
        wrong(
            outer,
            &user,
            denied,
            "sudo usermod -aG kvm $USER, and log in again",
        )?;
        outer.ask(JOIN)?;
        good(outer, &user)?;
        // As the tests after this one found it.
        outer.ask(LEAVE).map(drop)
    })
}

/// Everything is right, and KVM will be used.
fn good(outer: &mut Outer, dry_run: &str) -> Result<()> {
    let said = outer.ask(dry_run)?.replace('\r', "");
    for words in [
        "accel=kvm",
        "ok       CPU has VT-x",
        "ok       kvm_intel has nested=1",
        "ok       /dev/kvm can be used",
    ] {
        ensure!(said.contains(words), "it does not say {words:?}: {said}");
    }
    ensure!(!said.contains("MISSING"), "something is wrong: {said}");
    Ok(())
}

/// One thing is wrong and has its remedy; KVM will not be used.
fn wrong(outer: &mut Outer, dry_run: &str, found: &str, remedy: &str) -> Result<()> {
    let said = outer.ask(dry_run)?.replace('\r', "") + "\n";
    let words = format!("MISSING  {found}\n         remedy: {remedy}");
    ensure!(said.contains(&words), "it does not say {words:?}: {said}");
    ensure!(said.contains("accel=tcg"), "it takes KVM: {said}");
    Ok(())
}
