//! gdb on the hypervisor in QEMU/KVM while a guest runs: idle, in the midst of its code, and with
//! pages of another mapped.

use std::time::Duration;

use anyhow::{Context, Result};

use super::relay::{self, Relay};
use super::session::{Expected, check, run};
use crate::machine::{Boot, Spec};
use crate::nested::Outer;
use crate::test::nested::{PROMPT, check as in_outer, machine, trace_symbols};
use crate::test::{Case, Scenario, Tier, micro};

pub(in crate::test) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "nested-gdb",
    tier: Tier::Nested,
    about: "gdb through QEMU's gdbstub while a guest idles, is busy, uses another's pages",
    limit: Duration::from_secs(900),
    run: session,
}];

/// Where QEMU's gdbstub listens in the outer system.
const STUB_PORT: u16 = 1234;

const IDLE: &str = include_str!("idle.gdb");
const BUSY: &str = include_str!("busy.gdb");
const GRANTS: &str = include_str!("grants.gdb");

fn session(case: &Case<'_>) -> Result<()> {
    in_outer(case, |outer| {
        relay::install(outer, STUB_PORT)?;
        outer.start_qemu(&debugged("one", &[]))?;
        outer.line().expect(PROMPT).context("no shell came up")?;
        attach(case, outer, ("idle", IDLE, EXPECTED_IDLE))?;
        // A word of its own tells that the shell has taken the line and is at it.
        outer
            .line()
            .type_line("echo bu\"\"sy; while :; do :; done")?;
        outer.line().expect("busy")?;
        attach(case, outer, ("busy", BUSY, EXPECTED_BUSY))?;
        // The guest has noticed nothing.
        outer.line().type_keys(b"\x03")?;
        outer.line().expect(PROMPT)?;
        outer.line().type_line("poweroff")?;
        outer.qemu_ended()?.ended_well()?;

        outer.start_qemu(&debugged("grants", &["-S"]))?;
        attach(case, outer, ("grants", GRANTS, EXPECTED_GRANTS))?;
        micro::passed(&outer.qemu_ended()?, &micro::GRANTS)
    })
}

/// A machine with a gdbstub that runs the hypervisor whose symbols are kept.
fn debugged(system: &str, arguments: &[&str]) -> Spec {
    let stub = format!("tcp:127.0.0.1:{STUB_PORT}");
    let mut spec = machine(system);
    spec.extra_args = ["-gdb", &stub]
        .iter()
        .chain(arguments)
        .map(|&word| word.to_owned())
        .collect();
    if let Boot::Kernel { image, .. } = &mut spec.boot {
        *image = "tessera-trace".into();
    }
    spec
}

fn attach(
    case: &Case<'_>,
    outer: &mut Outer,
    (name, script, expected): (&str, &str, Expected),
) -> Result<()> {
    let relay = Relay::start(outer.debug_line()?)?;
    let symbols = trace_symbols(case.artifacts).display().to_string();
    let options = ["--attach", &relay.address, "--symbols", &symbols];
    let said = match run(case, &format!("nested-gdb-{name}"), script, &options) {
        Ok(said) => said,
        Err(error) => {
            // What the machine says last may explain it.
            outer.line().linger(Duration::from_secs(5));
            return Err(error);
        }
    };
    relay.end()?;
    check(&said, expected)
}

const EXPECTED_IDLE: Expected = &[
    (
        "idle",
        &[
            &["0", "0x0", "1", "halted", "d1v0"],
            &["1", "debian", "running", "1/1", "32768/32769"],
            &["d1v0", "debian", "blocked", "0", "yes"],
            &["debian: domain 1: 128 MiB, 1 vCPU"],
            &["FIFO, 6 ports open"],
            &["1", "service Store", "v0"],
            &["2", "service Console", "v0"],
            &["virq TIMER", "v0"],
            &["V1, 1 of at most 64 frames"],
            &["0", "access", "d0", "0xfefff"],
            &["PML4", "[  0]", "slots in use"],
            &["0x1000000 -> 0x", "in a page of 2 MiB"],
            &["HLT", "0x"],
            &["VMCALL", "0xffffffff81", "0x"],
            &["refused: tessera vmcs: pCPU 0 waits in HLT: `tessera root 0`"],
            &["refused: tessera ept: 0x1000000000000: four levels"],
            &["refused: tessera vmcs: there is no domain 7"],
        ],
    ),
    (
        "root mode",
        &[
            &["0", "0x0", "1", "root", "d1v0"],
            &["vmm_core::sched::idle (cpu="],
            &["vmm_core::sched::cpu_loop"],
            &["d1v0, VMCS 0x", "pCPU 0"],
            &["GUEST_RIP ", "0xffffffff81"],
            &["EXIT_REASON ", "0x0000000c  HLT"],
            &["VMCS_LINK_POINTER", "0xffffffffffffffff"],
            &["HOST_RIP ", "0xffffffff80"],
            &["GUEST_CS_ACCESS_RIGHTS ", "0x0000a09b"],
        ],
    ),
    (
        "break",
        &[&["#0", "entry::vm_exit"], &["EXIT_REASON ", "  "]],
    ),
];
const EXPECTED_BUSY: Expected = &[
    (
        "guest",
        &[
            &["0", "0x0", "1", "guest", "d1", "d1v0"],
            &["1", "debian", "running", "1/1"],
            &["refused: tessera vmcs: pCPU 0 runs a guest: `tessera root 0`"],
        ],
    ),
    (
        "root mode",
        &[
            &["entry::vm_exit"],
            &["0", "0x0", "1", "root", "d1", "d1v0"],
            &["EXIT_REASON ", "  "],
            &["GUEST_CR3 ", "0x"],
        ],
    ),
];
const EXPECTED_GRANTS: Expected = &[(
    "grants",
    &[
        &["1", "grantor", "running"],
        &["3", "leaver"],
        &["access", "d3", "reading writing", "0 read, 1 write"],
    ],
)];
