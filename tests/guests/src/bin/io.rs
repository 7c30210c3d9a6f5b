//! Ports and addresses with nothing behind them: reads give ones, writes go nowhere.
#![no_std]
#![no_main]

use guests::check_eq;
use guests::cpu;
use guests::memory::Page;
use guests::report::Report;

guests::main!(run);

/// Ports a PVH domain has nothing at: timers, keyboard, serial, PCI, and some in between.
const PORTS: [u16; 10] = [
    0x20, 0x40, 0x60, 0x71, 0x80, 0x2f8, 0x3f8, 0x1f7, 0x8900, 0xfffc,
];

/// In the hole below 4 GiB, clear of the APIC and of the special pages.
const HOLE: u64 = 0xe000_0000;

static BUFFER: Page = Page::new();

fn run(t: &mut Report) {
    for port in PORTS {
        check_eq!(t, cpu::in8(port), Ok(0xff), "in8 {port:#x}");
        check_eq!(t, cpu::in16(port), Ok(0xffff), "in16 {port:#x}");
        check_eq!(t, cpu::in32(port), Ok(0xffff_ffff), "in32 {port:#x}");
    }
    check_eq!(t, cpu::out8(0x2f8, 0x55), Ok(()), "out8");
    check_eq!(t, cpu::out16(0x2f8, 0x5555), Ok(()), "out16");
    check_eq!(t, cpu::out32(0xcf8, 0x8000_0000), Ok(()), "out32");
    check_eq!(
        t,
        cpu::in32(0xcf8),
        Ok(0xffff_ffff),
        "no PCI address register"
    );

    let mut bytes = [0_u8; 37];
    check_eq!(t, cpu::ins8(0x1f0, &mut bytes), Ok(()), "rep insb");
    check_eq!(t, bytes, [0xff; 37], "rep insb fills with ones");
    let mut words = [0_u32; 9];
    check_eq!(t, cpu::ins32(0x1f0, &mut words), Ok(()), "rep insd");
    check_eq!(t, words, [u32::MAX; 9], "rep insd fills with ones");
    check_eq!(t, cpu::outs8(0x1f0, &bytes), Ok(()), "rep outsb");

    memory(t);
}

fn memory(t: &mut Report) {
    check_eq!(t, cpu::read8(HOLE + 1), Ok(0xff), "read8");
    check_eq!(t, cpu::read16(HOLE + 2), Ok(0xffff), "read16");
    check_eq!(t, cpu::read32(HOLE + 4), Ok(u32::MAX), "read32");
    check_eq!(t, cpu::read64(HOLE + 8), Ok(u64::MAX), "read64");
    check_eq!(t, cpu::read8_zero_extended(HOLE), Ok(0xff), "movzx");
    check_eq!(t, cpu::read16_sign_extended(HOLE), Ok(u64::MAX), "movsx");
    check_eq!(t, cpu::write8(HOLE, 0), Ok(()), "write8");
    check_eq!(t, cpu::write16(HOLE, 0), Ok(()), "write16");
    check_eq!(t, cpu::write32(HOLE, 0), Ok(()), "write32");
    check_eq!(t, cpu::write64(HOLE, 0), Ok(()), "write64");
    check_eq!(t, cpu::or32(HOLE, 5), Ok(()), "or with memory");
    check_eq!(t, cpu::read64(HOLE), Ok(u64::MAX), "writes went nowhere");

    let buffer = BUFFER.address();
    check_eq!(
        t,
        cpu::copy32(HOLE, buffer, 16),
        Ok(()),
        "rep movsd from nowhere"
    );
    let mut copied = [0; 64];
    BUFFER.view().read(0, &mut copied);
    check_eq!(t, copied, [0xff; 64], "rep movsd copied ones");
    check_eq!(
        t,
        cpu::copy32(buffer, HOLE, 16),
        Ok(()),
        "rep movsd to nowhere"
    );
    check_eq!(t, cpu::fill32(HOLE, 7, 16), Ok(()), "rep stosd to nowhere");
    check_eq!(
        t,
        cpu::read32(HOLE + 32),
        Ok(u32::MAX),
        "string writes went nowhere"
    );
}
