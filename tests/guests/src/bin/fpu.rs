//! x87, SSE and AVX registers of two vCPUs keep their values across exits, sleep and preemption.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, Ordering};

use guests::apic::Apic;
use guests::fpu::{Avx, Legacy};
use guests::report::Report;
use guests::xen::SharedInfo;
use guests::{check, check_eq, cpu, runtime, say, smp};
use pv_drivers::guest::sched;
use pv_drivers::hypercall::{Bare, bare};

guests::main!(run);

const ROUNDS: u32 = 60;
/// How long each round computes, in nanoseconds; longer than a turn on a CPU takes.
const ROUND_NS: u64 = 1_000_000;

static BAD: AtomicU32 = AtomicU32::new(0);
static DONE: AtomicU32 = AtomicU32::new(0);

/// One vCPU's rounds with patterns of its own; returns how many found a register changed.
fn rounds(seed: u8, avx: bool) -> u32 {
    let shared = SharedInfo::mapped();
    let mut bad = 0;
    for (round, salt) in (0..ROUNDS).zip((0_u8..=255).cycle()) {
        let seed = seed ^ salt;
        let (legacy, wide) = (Legacy::pattern(seed), Avx::pattern(u64::from(seed)));
        legacy.load();
        if avx {
            wide.load();
        }
        match round % 4 {
            0 => shared.spin_until(shared.now() + ROUND_NS),
            1 => {
                // Neither call can be refused; the registers are what counts here.
                let _ = sched::yield_now();
                let _ = bare(Bare::XenVersion);
            }
            2 => {
                let _ = cpu::cpuid(0, 0);
                let _ = cpu::rdmsr(0x1b);
                let _ = cpu::in8(0x71);
            }
            _ => {
                let _ = sched::poll(&[], shared.now() + 100_000);
            }
        }
        let same = if avx {
            Avx::store() == wide
        } else {
            Legacy::store().same(&legacy)
        };
        // With AVX on, the x87 half is still the legacy pattern's; the rest is covered above.
        if !same {
            bad += 1;
        }
    }
    bad
}

fn second() {
    let avx = Avx::enable();
    BAD.fetch_add(rounds(0xa5, avx), Ordering::AcqRel);
    DONE.store(1, Ordering::Release);
}

fn run(t: &mut Report) {
    let shared = SharedInfo::map();
    let fresh = Legacy::store();
    // x87 as RESET leaves it, or as FNINIT and the extended state's initial values have it.
    let initial = [0x0040, 0x037f].map(Legacy::initial);
    check!(
        t,
        initial.iter().any(|state| fresh.same(state)),
        "x87 and SSE start in their initial state"
    );
    check_eq!(
        t,
        rounds(0x3c, false),
        0,
        "x87 and SSE registers changed, alone"
    );

    if runtime::option("vcpus") == Some(1) {
        return;
    }
    smp::start_by_sipi(Apic::current(), second);
    let avx = Avx::enable();
    say!("AVX {}", if avx { "on" } else { "not there" });
    check_eq!(
        t,
        rounds(0x5a, avx),
        0,
        "registers changed beside another vCPU"
    );
    let end = shared.now() + 5_000_000_000;
    while DONE.load(Ordering::Acquire) == 0 && shared.now() < end {
        core::hint::spin_loop();
    }
    check_eq!(t, DONE.load(Ordering::Acquire), 1, "vCPU 1 came to its end");
    check_eq!(
        t,
        BAD.load(Ordering::Acquire),
        0,
        "registers changed on vCPU 1"
    );
}
