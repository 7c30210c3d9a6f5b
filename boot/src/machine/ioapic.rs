//! Interrupt routing: the old interrupt controllers silent, lines through the IOAPIC.
#![expect(unsafe_code, reason = "names ports; the IOAPIC's registers are memory")]

use core::ptr::NonNull;

use abi::Hpa;
use boot::madt::{IoApic, IsaLine, Madt};
use vmm_core::mm::directmap;
use vmm_core::platform::VECTOR_ISA;

use crate::port::Port;

// SAFETY: the two 8259s only ever raise interrupts.
const PIC1_COMMAND: Port = unsafe { Port::new(0x20) };
// SAFETY: see `PIC1_COMMAND`.
const PIC1_DATA: Port = unsafe { Port::new(0x21) };
// SAFETY: see `PIC1_COMMAND`.
const PIC2_COMMAND: Port = unsafe { Port::new(0xa0) };
// SAFETY: see `PIC1_COMMAND`.
const PIC2_DATA: Port = unsafe { Port::new(0xa1) };

/// The index register's distance to the data register.
const DATA: usize = 0x10;
/// The register that holds version and number of inputs.
const VERSION: u32 = 1;
/// The first of the redirection entries, two registers each.
const REDIRECTION: u32 = 0x10;
const MASKED: u32 = 1 << 16;
const LEVEL: u32 = 1 << 15;
const ACTIVE_LOW: u32 = 1 << 13;

/// Silences the 8259s. Should one still let something through, it comes as an ISA vector.
pub(crate) fn silence_pics() {
    for (command, data, first, wiring) in [
        (PIC1_COMMAND, PIC1_DATA, VECTOR_ISA, 1 << 2),
        (PIC2_COMMAND, PIC2_DATA, VECTOR_ISA + 8, 2),
    ] {
        command.write8(0x11); // initialise; four words follow
        data.write8(first);
        data.write8(wiring);
        data.write8(0x01);
        data.write8(0xff); // all lines masked
    }
}

/// Masks every input of every IOAPIC.
pub(crate) fn mask_all(madt: &Madt) {
    for ioapic in &madt.ioapics {
        for input in 0..inputs(ioapic) {
            write(ioapic, REDIRECTION + 2 * input, MASKED);
        }
    }
}

/// How an ISA line is wired when an ISA device drives it.
pub(crate) fn isa_line(madt: &Madt, line: u8) -> Option<IsaLine> {
    madt.isa.get(usize::from(line)).copied()
}

/// How it is wired when a PCI function does: its line is shared and active low, unless firmware
/// says otherwise.
pub(crate) fn pci_line(madt: &Madt, line: u8) -> Option<IsaLine> {
    let wiring = isa_line(madt, line)?;
    let said = wiring.level;
    Some(IsaLine {
        level: true,
        active_low: !said || wiring.active_low,
        ..wiring
    })
}

/// Sends what comes on a line to the CPU with this local APIC, as `vector`. False when no IOAPIC
/// has the line, or cannot name that CPU.
pub(crate) fn route(madt: &Madt, wiring: IsaLine, vector: u8, apic_id: u32) -> bool {
    let ioapic = madt.ioapics.iter().find(|ioapic| {
        wiring.gsi >= ioapic.first_gsi && wiring.gsi - ioapic.first_gsi < inputs(ioapic)
    });
    // Without interrupt remapping an entry has eight bits for the local APIC's id.
    let (Some(ioapic), Ok(destination @ 0..=0xfe)) = (ioapic, u8::try_from(apic_id)) else {
        return false;
    };
    let register = REDIRECTION + 2 * (wiring.gsi - ioapic.first_gsi);
    let mut entry = u32::from(vector);
    entry |= if wiring.level { LEVEL } else { 0 };
    entry |= if wiring.active_low { ACTIVE_LOW } else { 0 };
    write(ioapic, register, MASKED);
    write(ioapic, register + 1, u32::from(destination) << 24);
    write(ioapic, register, entry);
    true
}

fn inputs(ioapic: &IoApic) -> u32 {
    (read(ioapic, VERSION) >> 16 & 0xff) + 1
}

fn read(ioapic: &IoApic, register: u32) -> u32 {
    let [index, data] = registers(ioapic);
    // SAFETY: the index register takes any value.
    unsafe { index.write_volatile(register) };
    // SAFETY: reading an IOAPIC register has no side effect.
    unsafe { data.read_volatile() }
}

fn write(ioapic: &IoApic, register: u32, value: u32) {
    let [index, data] = registers(ioapic);
    // SAFETY: the index register takes any value.
    unsafe { index.write_volatile(register) };
    // SAFETY: redirection entries only ever lead to vectors that have handlers.
    unsafe { data.write_volatile(value) };
}

fn registers(ioapic: &IoApic) -> [NonNull<u32>; 2] {
    let page = directmap::ptr(Hpa::new(ioapic.address.into()));
    // SAFETY: the MADT says the IOAPIC's registers are here; the direct map has all below 4 GiB.
    let data = unsafe { page.add(DATA) };
    [page.cast(), data.cast()]
}
