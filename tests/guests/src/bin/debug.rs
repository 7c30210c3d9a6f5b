//! Debug registers are the vCPU's own, and debug exceptions come exactly where they belong.
#![no_std]
#![no_main]

use guests::debug::{self, BD, BS, DR7_GD, Seen};
use guests::report::Report;
use guests::{check, check_eq, cpu};
use pv_drivers::guest::sched;

guests::main!(run);

const YIELDS: u32 = 20;

fn run(t: &mut Report) {
    check_eq!(t, debug::dr6(), debug::DR6_CLEAR, "DR6 at the start");
    check_eq!(t, debug::dr7(), 0x400, "DR7 at the start");
    registers_stay(t);
    debug::watch();
    let rip = debug::step_over_cpuid();
    let stepped = Seen {
        count: 1,
        rip,
        dr6: debug::DR6_CLEAR | BS,
    };
    check_eq!(t, debug::take(), stepped, "a single step over CPUID");

    check_eq!(t, debug::step_branches_only(), Ok(()), "IA32_DEBUGCTL.BTF");
    let rip = debug::step_over_cpuid();
    let seen = debug::take();
    check!(
        t,
        seen.rip != rip,
        "no trap behind CPUID while only branches are stepped ({seen:x?})"
    );

    let rip = debug::int1_in_shadow();
    let seen = debug::take();
    check!(t, seen.count >= 1, "INT1 behind MOV SS raises #DB");
    check_eq!(t, seen.rip, rip, "INT1's #DB comes after it");

    let rip = debug::cpuid_behind_watched_stack();
    let seen = debug::take();
    check_eq!(
        t,
        (seen.count, seen.rip),
        (1, rip),
        "a watched MOV SS traps an instruction later"
    );
    check_eq!(t, seen.dr6 & 0xf, 1, "it was DR0's breakpoint");

    let rip = debug::guarded_read();
    let seen = debug::take();
    check_eq!(
        t,
        (seen.count, seen.rip),
        (1, rip),
        "a guarded debug register"
    );
    check_eq!(t, seen.dr6 & BD, BD, "DR6.BD");
    check_eq!(t, debug::dr7() & DR7_GD, 0, "DR7.GD is clear afterwards");
}

/// No other vCPU sees or changes them.
fn registers_stay(t: &mut Report) {
    debug::set_dr0(0x1000_0001);
    debug::set_dr1(0x2000_0002);
    debug::set_dr2(0x3000_0003);
    debug::set_dr3(0x4000_0004);
    for _ in 0..YIELDS {
        // Cannot be refused; whoever else is ready runs.
        let _ = sched::yield_now();
        let _ = cpu::cpuid(0, 0);
    }
    let addresses = [debug::dr0(), debug::dr1(), debug::dr2(), debug::dr3()];
    let expected = [0x1000_0001, 0x2000_0002, 0x3000_0003, 0x4000_0004];
    check_eq!(t, addresses, expected, "DR0 to DR3 after others have run");
}
