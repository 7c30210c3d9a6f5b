//! The local APIC: reset values, registers in memory, priorities, its timer, then x2APIC mode.
#![no_std]
#![no_main]

use guests::apic::{APIC_BASE, Apic, BASE_BSP, BASE_ENABLE, BASE_EXTD, MMIO, icr, register};
use guests::cpu::{self, Fault, rdmsr, wrmsr};
use guests::interrupts::{self, Frame};
use guests::report::Report;
use guests::{check, check_eq};

guests::main!(run);

const LOW: u8 = 0x45;
const HIGH: u8 = 0x95;
const TIMER: u8 = 0x75;
const MASKED: u64 = 1 << 16;

fn end_of_interrupt(_frame: &mut Frame) {
    Apic::current().eoi();
}

fn run(t: &mut Report) {
    for vector in [LOW, HIGH, TIMER] {
        interrupts::on(vector, end_of_interrupt);
    }
    base(t);
    reset(t);
    Apic::Mmio.enable();
    widths(t);
    priorities(t, Apic::Mmio);
    timer(t, Apic::Mmio);
    if !to_x2apic(t) {
        return;
    }
    x2apic(t);
    priorities(t, Apic::Msr);
    timer(t, Apic::Msr);
}

fn base(t: &mut Report) {
    let reset = MMIO | BASE_ENABLE | BASE_BSP;
    check_eq!(t, rdmsr(APIC_BASE), Ok(reset), "APIC base after reset");
    check_eq!(t, wrmsr(APIC_BASE, reset), Ok(()), "the same base again");
    check_eq!(
        t,
        wrmsr(APIC_BASE, reset | 1),
        Err(Fault::GP),
        "a reserved bit"
    );
    check_eq!(
        t,
        wrmsr(APIC_BASE, reset | 1 << 52),
        Err(Fault::GP),
        "an address too wide"
    );
    let illegal = (reset | BASE_EXTD) & !BASE_ENABLE;
    check_eq!(
        t,
        wrmsr(APIC_BASE, illegal),
        Err(Fault::GP),
        "x2APIC without the APIC"
    );
    check_eq!(
        t,
        rdmsr(APIC_BASE),
        Ok(reset),
        "APIC base after refused writes"
    );
}

fn reset(t: &mut Report) {
    let apic = Apic::Mmio;
    check_eq!(t, apic.read(register::ID), 0, "id");
    let version = apic.read(register::VERSION);
    check_eq!(t, version & 0xff, 0x14, "version");
    check!(
        t,
        version >> 16 & 0xff >= 5,
        "six local vectors ({version:#x})"
    );
    check_eq!(t, apic.read(register::SPIV), 0xff, "software-disabled");
    check_eq!(t, apic.read(register::TPR), 0, "task priority");
    check_eq!(
        t,
        apic.read(register::DFR),
        0xffff_ffff,
        "flat destinations"
    );
    check_eq!(t, apic.read(register::LDR), 0, "no logical destination");
    check_eq!(
        t,
        apic.read(register::LVT_TIMER) & MASKED,
        MASKED,
        "timer masked"
    );
    check_eq!(
        t,
        apic.read(register::LVT_LINT0) & MASKED,
        MASKED,
        "first pin masked"
    );
    for index in 0..8 {
        check_eq!(t, apic.read(register::ISR + index), 0, "nothing in service");
        check_eq!(t, apic.read(register::IRR + index), 0, "nothing requested");
    }
}

/// Accesses in other widths and by other instructions than a plain 32-bit move.
fn widths(t: &mut Report) {
    let spiv = MMIO + 16 * u64::from(register::SPIV);
    let tpr = MMIO + 16 * u64::from(register::TPR);
    check_eq!(t, cpu::read8(spiv), Ok(0xff), "byte read");
    check_eq!(t, cpu::read16(spiv), Ok(0x1ff), "word read");
    check_eq!(
        t,
        cpu::read8_zero_extended(spiv + 1),
        Ok(1),
        "second byte with MOVZX"
    );
    check_eq!(t, cpu::write32(tpr, 0x20), Ok(()), "task priority written");
    check_eq!(t, cpu::or32(tpr, 0x05), Ok(()), "OR with the register");
    check_eq!(t, cpu::read32(tpr), Ok(0x25), "task priority keeps both");
    check_eq!(t, cpu::write32(tpr, 0), Ok(()), "task priority back");
    Apic::Mmio.write(register::LDR, 0x0300_0000);
    check_eq!(
        t,
        Apic::Mmio.read(register::LDR),
        0x0300_0000,
        "logical destination kept"
    );
}

fn priorities(t: &mut Report, apic: Apic) {
    let (low, high) = (interrupts::count(LOW), interrupts::count(HIGH));
    cpu::disable_interrupts();
    for vector in [LOW, HIGH] {
        apic.send(0, icr::SELF | u64::from(vector));
        check!(
            t,
            apic.vector_bit(register::IRR, vector),
            "vector {vector:#x} is requested"
        );
    }
    apic.write(register::TPR, 0x50);
    cpu::enable_interrupts();
    let after = (interrupts::count(LOW), interrupts::count(HIGH));
    check_eq!(
        t,
        after,
        (low, high + 1),
        "the task priority holds the low one back"
    );
    apic.write(register::TPR, 0);
    check_eq!(
        t,
        interrupts::count(LOW),
        low + 1,
        "and lets it through when it falls"
    );
    check!(
        t,
        !apic.vector_bit(register::IRR, LOW),
        "nothing is requested any more"
    );
    check!(t, !apic.vector_bit(register::ISR, LOW), "nor in service");
    cpu::disable_interrupts();

    apic.write(register::ESR, 0);
    apic.send(0, icr::SELF | 3);
    apic.write(register::ESR, 0);
    check!(
        t,
        apic.read(register::ESR) != 0,
        "vector 3 shows as an error"
    );
}

fn timer(t: &mut Report, apic: Apic) {
    apic.write(register::TIMER_DIVIDE, 0b1011);
    apic.write(register::LVT_TIMER, u64::from(TIMER));
    let count = interrupts::count(TIMER);
    cpu::disable_interrupts();
    apic.write(register::TIMER_INITIAL, 2_000_000);
    let first = apic.read(register::TIMER_CURRENT);
    let second = apic.read(register::TIMER_CURRENT);
    check!(
        t,
        second <= first && first <= 2_000_000,
        "the timer counts down"
    );
    cpu::wait_for_interrupt();
    check_eq!(t, interrupts::count(TIMER), count + 1, "it interrupts HLT");
    check_eq!(t, apic.read(register::TIMER_CURRENT), 0, "and stays at 0");

    const PERIODIC: u64 = 1 << 17;
    apic.write(register::LVT_TIMER, PERIODIC | u64::from(TIMER));
    apic.write(register::TIMER_INITIAL, 500_000);
    for _ in 0..3 {
        cpu::wait_for_interrupt();
    }
    apic.write(register::LVT_TIMER, MASKED | u64::from(TIMER));
    apic.write(register::TIMER_INITIAL, 0);
    check!(
        t,
        interrupts::count(TIMER) >= count + 4,
        "the periodic timer goes on"
    );
}

fn to_x2apic(t: &mut Report) -> bool {
    const X2APIC: u32 = 1 << 21;
    let [_, _, features, _] = cpu::cpuid(1, 0);
    if features & X2APIC == 0 {
        guests::say!("no x2APIC here");
        return false;
    }
    let base = MMIO | BASE_ENABLE | BASE_BSP;
    check_eq!(t, wrmsr(APIC_BASE, base | BASE_EXTD), Ok(()), "x2APIC mode");
    check_eq!(
        t,
        wrmsr(APIC_BASE, base),
        Err(Fault::GP),
        "straight back is not allowed"
    );
    rdmsr(APIC_BASE) == Ok(base | BASE_EXTD)
}

fn x2apic(t: &mut Report) {
    let apic = Apic::Msr;
    check_eq!(t, apic.read(register::ID), 0, "x2APIC id");
    check_eq!(t, apic.read(register::LDR), 1, "logical id follows the id");
    check_eq!(
        t,
        apic.read(register::SPIV),
        0x1ff,
        "registers survive the switch"
    );
    check_eq!(
        t,
        apic.try_read(register::DFR),
        Err(Fault::GP),
        "no destination format"
    );
    check_eq!(
        t,
        apic.try_read(register::ICR2),
        Err(Fault::GP),
        "no second command register"
    );
    check_eq!(
        t,
        apic.try_read(register::EOI),
        Err(Fault::GP),
        "EOI is write-only"
    );
    check_eq!(
        t,
        apic.try_read(register::SELF_IPI),
        Err(Fault::GP),
        "so is self IPI"
    );
    check_eq!(
        t,
        apic.try_write(register::EOI, 1),
        Err(Fault::GP),
        "EOI takes 0 only"
    );
    check_eq!(
        t,
        apic.try_write(register::ID, 0),
        Err(Fault::GP),
        "the id is read-only"
    );
    check_eq!(
        t,
        apic.try_write(register::TPR, 0x100),
        Err(Fault::GP),
        "reserved bits of TPR"
    );
    check_eq!(
        t,
        apic.try_write(register::SELF_IPI, 0x100),
        Err(Fault::GP),
        "vector of 9 bits"
    );
    check_eq!(
        t,
        apic.try_read(0x50),
        Err(Fault::GP),
        "a register in a gap"
    );
    check_eq!(t, rdmsr(0x8ff), Err(Fault::GP), "the last of the range");
    check_eq!(t, rdmsr(0x900), Err(Fault::GP), "the first after the range");

    let count = interrupts::count(LOW);
    cpu::enable_interrupts();
    apic.write(register::SELF_IPI, u64::from(LOW));
    cpu::disable_interrupts();
    check_eq!(t, interrupts::count(LOW), count + 1, "self IPI");
}
