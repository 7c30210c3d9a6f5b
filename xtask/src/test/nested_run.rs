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

/// Puts the programs where they are found, and the libraries that the outer system does not have.
const INSTALL: &str = "chmod +x xtask setpriv && mv setpriv /sbin/ && for l in lib*.so*; do \
                       [ -e /lib/x86_64-linux-gnu/$l ] || mv $l /lib/x86_64-linux-gnu/; done";

/// For a machine that fits into the outer system.
const RUN: &str = "./xtask run --image tessera.iso --memory 512";

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
        outer.ask(INSTALL)?;
        outer.ask("rmmod kvm_intel")?;
        falls_back(outer)?;
        outer.ask("modprobe kvm_intel")?;
        outer.begin(RUN)?;
        let line = outer.line();
        line.expect("Machine: qemu (KVM on this host offers nested VT-x)")?;
        answer_and_off(outer, 1)?;
        let (status, said) = outer.end()?;
        ensure!(status == 0, "`run` ended with status {status}: {said}");
        let said = Transcript::parse(said);
        // It is KVM's VT-x: its timer counts like this.
        said.line_with(&["preemption timer counts TSC >> 5"])?;
        said.ended_well()
    })
}

/// Without KVM's module it says why it takes Bochs, which is not there.
fn falls_back(outer: &mut Outer) -> Result<()> {
    let (status, said) = outer.run(RUN)?;
    ensure!(status == 1, "`run` ended with status {status}: {said}");
    for words in [
        "Machine: bochs (kvm_intel is not loaded",
        "error: no Bochs on this machine",
    ] {
        ensure!(said.contains(words), "it does not say {words:?}: {said}");
    }
    Ok(())
}
