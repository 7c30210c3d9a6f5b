//! Two vCPUs hand a baton to each other and spin for it, on one CPU. Who spins with PAUSE lets its
//! sibling run; who spins without keeps the CPU for its whole turn.
#![no_std]
#![no_main]

use core::hint;
use core::sync::atomic::{AtomicU32, Ordering};

use guests::apic::Apic;
use guests::report::Report;
use guests::xen::SharedInfo;
use guests::{check, check_eq, say, smp};

guests::main!(run);

/// How often each vCPU gets the baton, in each of the two ways to wait.
const ROUNDS: u32 = 20;
/// How much faster it must go with PAUSE, at the least.
const GAIN: u64 = 4;

/// Whose the baton is.
static BATON: AtomicU32 = AtomicU32::new(0);
static TURNS: AtomicU32 = AtomicU32::new(0);

/// Takes and hands on the baton, waiting for it by `spin`.
fn rounds(me: u32, spin: impl Fn()) {
    for _ in 0..ROUNDS {
        while BATON.load(Ordering::Acquire) != me {
            spin();
        }
        TURNS.fetch_add(1, Ordering::Relaxed);
        BATON.store(1 - me, Ordering::Release);
    }
}

/// Spins without PAUSE.
fn stubborn() {
    hint::black_box(());
}

fn second() {
    rounds(1, hint::spin_loop);
    rounds(1, stubborn);
}

fn run(t: &mut Report) {
    let shared = SharedInfo::map();
    smp::start_by_sipi(Apic::current(), second);
    // vCPU 1 has arrived when the baton comes back.
    let begun = shared.now();
    rounds(0, hint::spin_loop);
    let paused = shared.now() - begun;
    rounds(0, stubborn);
    let stubborn = shared.now() - begun - paused;
    let turns = u64::from(2 * ROUNDS);
    say!(
        "a turn with PAUSE {} us, without {} us",
        paused / turns / 1000,
        stubborn / turns / 1000
    );
    check!(
        t,
        paused * GAIN < stubborn,
        "{paused} ns with PAUSE, {stubborn} without"
    );
    while TURNS.load(Ordering::Acquire) < 4 * ROUNDS {
        hint::spin_loop();
    }
    check_eq!(t, TURNS.load(Ordering::Acquire), 4 * ROUNDS, "all turns");
}
