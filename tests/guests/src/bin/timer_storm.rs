//! A local APIC timer with the shortest period there is: the guest gets on all the same, and so
//! do its neighbours.
#![no_std]
#![no_main]

use guests::apic::{Apic, register};
use guests::cpu;
use guests::report::Report;
use guests::xen::SharedInfo;
use guests::{check, say};

guests::main!(run);

const VECTOR: u64 = 0x75;
const PERIODIC: u64 = 1 << 17;
const MASKED: u64 = 1 << 16;
const DIVIDE_BY_1: u64 = 0b1011;
const STORM_NS: u64 = 5_000_000;

fn run(t: &mut Report) {
    let shared = SharedInfo::map();
    let apic = Apic::Mmio;
    apic.enable();
    cpu::disable_interrupts();
    apic.write(register::TIMER_DIVIDE, DIVIDE_BY_1);
    apic.write(register::LVT_TIMER, PERIODIC | VECTOR);
    let end = shared.now() + STORM_NS;
    say!("the storm begins");
    apic.write(register::TIMER_INITIAL, 1);
    shared.spin_until(end);
    apic.write(register::LVT_TIMER, MASKED | VECTOR);
    apic.write(register::TIMER_INITIAL, 0);
    check!(t, shared.now() >= end, "time went by");
}
