//! gdb from the first instruction on, on a machine without VT-x.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::session::{Expected, check, run};
use crate::build;
use crate::test::refusal::hello;
use crate::test::{Case, Scenario, Tier};

pub(in crate::test) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "gdb",
    tier: Tier::Qemu,
    about: "gdb from the first instruction to the refusal, on two CPUs, with the commands",
    limit: Duration::from_secs(180),
    run: session,
}];

/// What the session does.
const BOOT: &str = include_str!("boot.gdb");

/// The end of the mangled name of `vmm_core::start::start`, the core's first function.
const CORE_START: &str = "8vmm_core5start5start";

/// Its address: the debugger would place a breakpoint by name behind the function's first lines,
/// which need not be on the way that is taken.
fn core_start(debug: &Path) -> Result<String> {
    let done = Command::new("nm")
        .arg(debug)
        .output()
        .context("cannot run nm (Debian package binutils)")?;
    let out = String::from_utf8_lossy(&done.stdout);
    let line = out.lines().find(|line| line.ends_with(CORE_START));
    let address = line.and_then(|line| line.split(' ').next());
    Ok(address
        .context("the hypervisor has no function vmm_core::start::start")?
        .to_owned())
}

fn session(case: &Case<'_>) -> Result<()> {
    let artifacts = case.artifacts;
    let name = case.scenario.name;
    let config = artifacts.file(name, "toml");
    fs::write(&config, hello(case)).context("writing the system")?;
    let debug = build::tracing_hypervisor(artifacts.workspace())?.debug;
    let script = BOOT.replace("@CORE_START@", &core_start(&debug)?);
    let config = config.display().to_string();
    let said = run(case, name, &script, &["--config", &config, "--cpus", "2"])?;
    check(&said, EXPECTED)
}

const EXPECTED: Expected = &[
    (
        "first Rust line",
        &[
            &["boot_start (protocol=2,", "boot/src/start.rs:"],
            &["early_long_mode"],
            // Both CPUs are threads; neither is a pCPU yet.
            &["-", "1", "boot"],
            &["Thread 1.2", "CPU#1"],
        ],
    ),
    (
        "entry code, after a reset",
        &[
            &["32-bit code"],
            &["=>", "<pvh_entry>", "mov", "edi,0x2"],
            &["=>", "<early_long_mode>", "mov", "eax,0x10"],
        ],
    ),
    (
        "start of the second CPU",
        &[
            &["tessera::smp::Page ("],
            &["16-bit code <start_up_begin>"],
            &["0", "0x0", "1", "root"],
            &["-", "2", "boot"],
            &["* 2", "CPU#1"],
        ],
    ),
    (
        "core",
        &[
            &["#0", "vmm_core::start::start", "vmm-core/src/start.rs:"],
            &["#1", "on_own_stack", "boot/src/start.rs:"],
            &["::start::start", "in section .text"],
            &["tessera::smp::arrive", "boot/src/smp.rs:"],
            &["0", "0x0", "1", "root"],
            &["1", "0x1", "2", "root"],
            &["pCPU 1 is in root mode"],
            // The printers: host-physical addresses, and arrays of enumerations, which gdb alone
            // cannot print.
            &["image: ", "start: Hpa(0x208000)"],
            &["power: ", "Some(tessera::port::Port"],
        ],
    ),
    (
        "refusal",
        &[
            &["vmm_core: error: Tessera needs Intel VT-x"],
            &["id", "name", "state", "vcpus"],
            &["pcpu", "runs", "ready"],
            &["1", "no", "-"],
            &["= 18446603336221196288"],
            &["$", "= 1"],
            &["refused: tessera ept: usage: tessera ept DOMAIN GPA"],
            &["refused: tessera ept: there is no domain 1"],
            &["refused: tessera evtchn: there is no domain nobody"],
            &["refused: tessera grants: there is no domain 1"],
            &["refused: tessera exits: there is no domain 1"],
            &["refused: tessera exits: 7: a vCPU is written as d1v0"],
            &["refused: tessera log: many: not a number of lines"],
            &["refused: tessera vmcs: the selected pCPU has run no vCPU"],
            &["refused: tessera vmcs: there is no domain 1"],
            &["refused: tessera root: there is no pCPU 2"],
            &["refused: tessera root: x: not the number of a pCPU"],
        ],
    ),
];
