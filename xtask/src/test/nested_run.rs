//! `run` as a user has it on a host whose KVM offers nested VT-x: this very program in the outer system,
//! with an image made before, since there is no toolchain.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::nested::{LIMIT, answer_and_off, check};
use super::{Artifacts, Case, Scenario, Tier, Transcript};
use crate::build;
use crate::nested::Outer;
use crate::setup::outer::libraries;

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "nested-run",
    tier: Tier::Nested,
    about: "`run` itself picks QEMU/KVM and boots an image to a Debian guest's shell",
    limit: LIMIT,
    run,
}];

/// Starts emulators for `run`; busybox's has not all of its options.
const SETPRIV: &str = "/usr/bin/setpriv";

/// Puts the programs where they are found, and the libraries that the outer system does not have;
/// once.
const INSTALL: &str = "[ -x xtask ] || { chmod +x xtask setpriv && mv setpriv /sbin/ && \
                       for l in lib*.so*; do [ -e /lib/x86_64-linux-gnu/$l ] || \
                       mv $l /lib/x86_64-linux-gnu/; done; }";

/// For a machine that fits into the outer system.
pub(super) const RUN: &str = "./xtask run --image tessera.iso --memory 512";

/// Adds a user, who is no member of the device's group.
const ADD_USER: &str = "grep -q ^user /etc/passwd || { echo 'user:x:1000:1000::/tmp:/bin/sh' \
                        >>/etc/passwd && echo 'kvm:x:105:' >>/etc/group; }";
/// What `usermod -aG kvm user` does.
pub(super) const JOIN: &str = "sed -i s/^kvm:x:105:.*/kvm:x:105:user/ /etc/group";
/// Undoes it.
pub(super) const LEAVE: &str = "sed -i s/^kvm:x:105:.*/kvm:x:105:/ /etc/group";
/// What udev does with `/dev/kvm` on Debian, which the outer system has not.
pub(super) const UDEV: &str = "chgrp kvm /dev/kvm && chmod 660 /dev/kvm";

/// Puts this program into the outer system, and adds a user there.
pub(super) fn install(outer: &mut Outer) -> Result<()> {
    outer.ask(INSTALL)?;
    outer.ask(ADD_USER).map(drop)
}

/// A command as the user who logs in and types it.
pub(super) fn as_user(command: &str) -> String {
    format!("su user -c '{command}'")
}

/// The files it needs there: this program and what starts emulators, with their libraries.
pub(super) fn files(artifacts: &Artifacts) -> Result<Vec<(String, PathBuf)>> {
    let program = artifacts.file("xtask", "stripped");
    let own = env::current_exe().context("cannot find this program")?;
    build::strip(&own, &program)?;
    let mut files = Vec::new();
    for program in [program.as_path(), Path::new(SETPRIV)] {
        let list = Command::new("ldd").arg(program).output();
        let list = list.context("cannot run ldd")?;
        for (name, path) in libraries(&String::from_utf8_lossy(&list.stdout)) {
            files.push((name.to_owned(), path.to_owned()));
        }
    }
    files.push(("xtask".to_owned(), program));
    files.push(("setpriv".to_owned(), SETPRIV.into()));
    files.sort();
    files.dedup();
    Ok(files)
}

fn run(case: &Case<'_>) -> Result<()> {
    check(case, |outer| {
        install(outer)?;
        outer.ask("rmmod kvm_intel")?;
        falls_back(outer, RUN, "kvm_intel is not loaded: sudo modprobe")?;
        outer.ask("modprobe kvm_intel nested=0")?;
        falls_back(
            outer,
            RUN,
            "kvm_intel has nested=0: end all virtual machines",
        )?;
        outer.ask("rmmod kvm_intel && modprobe kvm_intel")?;
        let run = as_user(RUN);
        let denied = "/dev/kvm may not be used by this user: ";
        falls_back(outer, &run, &format!("{denied}sudo chown"))?;
        outer.ask(UDEV)?;
        falls_back(outer, &run, &format!("{denied}sudo usermod -aG kvm"))?;
        outer.ask(JOIN)?;
        boots(outer, &run)?;
        // As the tests after this one found it.
        outer.ask(LEAVE).map(drop)
    })
}

/// It takes QEMU/KVM by itself and comes to a guest's shell.
fn boots(outer: &mut Outer, run: &str) -> Result<()> {
    outer.begin(run)?;
    let line = outer.line();
    line.expect("Machine: qemu (KVM on this host offers nested VT-x)")?;
    answer_and_off(outer, 1)?;
    let (status, said) = outer.end()?;
    ensure!(status == 0, "`{run}` ended with status {status}: {said}");
    let said = Transcript::parse(said);
    // It is KVM's VT-x: its timer counts like this.
    said.line_with(&["preemption timer counts TSC >> 5"])?;
    said.ended_well()
}

/// Where KVM does not serve it says why it takes Bochs, which is not there.
fn falls_back(outer: &mut Outer, run: &str, reason: &str) -> Result<()> {
    let (status, said) = outer.run(run)?;
    ensure!(status == 1, "`{run}` ended with status {status}: {said}");
    for words in [
        &format!("Machine: bochs ({reason}"),
        "error: no Bochs on this machine",
    ] {
        ensure!(said.contains(words), "it does not say {words:?}: {said}");
    }
    Ok(())
}
