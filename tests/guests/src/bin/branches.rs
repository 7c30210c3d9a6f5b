//! Last-branch records are the vCPU's own. The machine is a Skylake, and its registers keep what is
//! written while nothing is recorded; `mark=N` says what this guest writes.
#![no_std]
#![no_main]

use guests::cpu::{Fault, rdmsr, wrmsr};
use guests::report::Report;
use guests::{check_eq, debug, runtime};
use pv_drivers::guest::sched;

guests::main!(run);

const DEBUGCTL: u32 = 0x1d9;
const LBR: u64 = 1;
const BTF: u64 = 2;
const SELECT: u32 = 0x1c8;
const TOS: u32 = 0x1c9;
const FROM: u32 = 0x680;
const TO: u32 = 0x6c0;
const INFO: u32 = 0xdc0;
const DEPTH: u32 = 32;
const NON_CANONICAL: u64 = 0x8000_0000_0000;

const YIELDS: u32 = 20;

/// All registers with the values that belong into them.
fn marked(mark: u64) -> impl Iterator<Item = (u32, u64)> {
    let single = [
        (SELECT, mark),
        (TOS, mark),
        (0x1dd, mark << 20),
        (0x1de, mark << 21),
    ];
    let stack = (0..DEPTH).flat_map(move |entry| {
        let low = mark << 32 | u64::from(entry);
        let high = 0xffff_8000_0000_0000 | low;
        let info = mark << 8 | u64::from(entry);
        [
            (FROM + entry, low),
            (TO + entry, high),
            (INFO + entry, info),
        ]
    });
    single.into_iter().chain(stack)
}

fn run(t: &mut Report) {
    let mark = runtime::option("mark").unwrap_or(1);
    for (msr, _) in marked(mark) {
        check_eq!(t, rdmsr(msr), Ok(0), "MSR {msr:#x} before its first use");
    }
    for (msr, value) in marked(mark) {
        check_eq!(t, wrmsr(msr, value), Ok(()), "writing MSR {msr:#x}");
    }
    others_run();
    for (msr, value) in marked(mark) {
        check_eq!(t, rdmsr(msr), Ok(value), "MSR {msr:#x} after others ran");
    }
    check_eq!(
        t,
        wrmsr(FROM, NON_CANONICAL),
        Err(Fault::GP),
        "a branch from nowhere"
    );
    check_eq!(t, rdmsr(FROM + DEPTH), Err(Fault::GP), "beyond the stack");
    check_eq!(t, wrmsr(INFO + DEPTH, 0), Err(Fault::GP), "beyond it");

    check_eq!(t, wrmsr(DEBUGCTL, LBR | BTF), Ok(()), "recording on");
    others_run();
    check_eq!(t, rdmsr(DEBUGCTL), Ok(LBR | BTF), "recording stays on");
    check_eq!(t, wrmsr(DEBUGCTL, LBR), Ok(()), "recording alone");
    debug::watch();
    let rip = debug::step_over_cpuid();
    check_eq!(t, debug::take().rip, rip, "a single step");
    check_eq!(t, rdmsr(DEBUGCTL), Ok(0), "a #DB ends recording");
}

fn others_run() {
    for _ in 0..YIELDS {
        // Cannot be refused.
        let _ = sched::yield_now();
    }
}
