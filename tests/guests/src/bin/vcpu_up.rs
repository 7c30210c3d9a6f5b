//! Two vCPUs: start by `VCPUOP_initialise` and `VCPUOP_up`, stop by `VCPUOP_down`.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use abi::{Errno, VcpuId};
use guests::report::Report;
use guests::xen::SharedInfo;
use guests::{check, check_eq, cpu, smp};
use pv_drivers::hypercall::{Bare, Refused, bare};

guests::main!(run);

const SECOND: VcpuId = VcpuId(1);

/// How often vCPU 1 goes down and up at once.
const ROUNDS: u32 = 20;

static TICKS: AtomicU64 = AtomicU64::new(0);

fn count() {
    // The packaged Bochs, which runs this too, does not let another CPU's interrupt end the turn of
    // a guest that has them off.
    cpu::enable_interrupts();
    loop {
        TICKS.fetch_add(1, Ordering::AcqRel);
        core::hint::spin_loop();
    }
}

fn is<T>(reply: Result<T, Refused>, errno: Errno) -> bool {
    reply.is_err_and(|refused| refused == errno)
}

fn run(t: &mut Report) {
    let shared = SharedInfo::map();
    let early = bare(Bare::VcpuUp(SECOND));
    check!(
        t,
        is(early, Errno::Einval),
        "up before initialise ({early:?})"
    );
    check_eq!(
        t,
        smp::start_by_hypercall(count),
        Ok(0),
        "initialise and up"
    );
    let again = smp::initialise(1);
    check!(t, is(again, Errno::Eexist), "initialise twice ({again:?})");

    let end = shared.now() + 2_000_000_000;
    while TICKS.load(Ordering::Acquire) < 1000 && shared.now() < end {
        core::hint::spin_loop();
    }
    check!(t, TICKS.load(Ordering::Acquire) >= 1000, "vCPU 1 runs");
    check_eq!(t, bare(Bare::VcpuIsUp(SECOND)), Ok(1), "vCPU 1 is up");

    check_eq!(t, bare(Bare::VcpuDown(SECOND)), Ok(0), "down");
    shared.spin_until(shared.now() + 1_000_000);
    check_eq!(t, bare(Bare::VcpuIsUp(SECOND)), Ok(0), "vCPU 1 is down");
    let stopped = TICKS.load(Ordering::Acquire);
    shared.spin_until(shared.now() + 20_000_000);
    check_eq!(
        t,
        TICKS.load(Ordering::Acquire),
        stopped,
        "vCPU 1 stands still"
    );

    check_eq!(t, bare(Bare::VcpuUp(SECOND)), Ok(0), "up again");
    shared.spin_until(shared.now() + 50_000_000);
    check!(
        t,
        TICKS.load(Ordering::Acquire) > stopped,
        "vCPU 1 goes on where it stopped"
    );
    last_word_counts(t, shared);
}

/// Down and up in such quick succession that vCPU 1 has not done what the one asked when the other
/// comes.
fn last_word_counts(t: &mut Report, shared: SharedInfo) {
    for _ in 0..ROUNDS {
        let calls = [Bare::VcpuDown(SECOND), Bare::VcpuUp(SECOND)].map(bare);
        check_eq!(t, calls, [Ok(0), Ok(0)], "down and up");
        check_eq!(t, bare(Bare::VcpuIsUp(SECOND)), Ok(1), "up counts");
    }
    let before = TICKS.load(Ordering::Acquire);
    shared.spin_until(shared.now() + 50_000_000);
    let runs = TICKS.load(Ordering::Acquire) > before;
    check!(t, runs, "vCPU 1 runs after down and up");

    let calls = [Bare::VcpuDown(SECOND), Bare::VcpuUp(SECOND)].map(bare);
    check_eq!(t, calls, [Ok(0), Ok(0)], "down and up");
    check_eq!(t, bare(Bare::VcpuDown(SECOND)), Ok(0), "and down");
    check_eq!(t, bare(Bare::VcpuIsUp(SECOND)), Ok(0), "down counts");
    shared.spin_until(shared.now() + 20_000_000);
    let stopped = TICKS.load(Ordering::Acquire);
    shared.spin_until(shared.now() + 20_000_000);
    let stands = TICKS.load(Ordering::Acquire) == stopped;
    check!(t, stands, "vCPU 1 stands still after down, up and down");
}
