//! The local APIC of this vCPU, by memory (xAPIC) or by MSR (x2APIC).

use crate::cpu::{self, Fault};

/// `IA32_APIC_BASE`.
pub const APIC_BASE: u32 = 0x1b;
/// `IA32_APIC_BASE`: this is the boot CPU.
pub const BASE_BSP: u64 = 1 << 8;
/// `IA32_APIC_BASE`: x2APIC mode.
pub const BASE_EXTD: u64 = 1 << 10;
/// `IA32_APIC_BASE`: the APIC is on.
pub const BASE_ENABLE: u64 = 1 << 11;
/// Where the registers are in xAPIC mode.
pub const MMIO: u64 = 0xfee0_0000;

/// Register numbers: the MSR less 0x800, the memory offset divided by 16.
pub mod register {
    /// Local APIC ID.
    pub const ID: u32 = 0x02;
    /// Version.
    pub const VERSION: u32 = 0x03;
    /// Task priority.
    pub const TPR: u32 = 0x08;
    /// End of interrupt.
    pub const EOI: u32 = 0x0b;
    /// Logical destination.
    pub const LDR: u32 = 0x0d;
    /// Destination format, xAPIC only.
    pub const DFR: u32 = 0x0e;
    /// Spurious interrupt vector.
    pub const SPIV: u32 = 0x0f;
    /// In service, eight registers.
    pub const ISR: u32 = 0x10;
    /// Requested, eight registers.
    pub const IRR: u32 = 0x20;
    /// Error status.
    pub const ESR: u32 = 0x28;
    /// Interrupt command, low half (the whole in x2APIC mode).
    pub const ICR: u32 = 0x30;
    /// Interrupt command, high half, xAPIC only.
    pub const ICR2: u32 = 0x31;
    /// Timer entry.
    pub const LVT_TIMER: u32 = 0x32;
    /// First pin's entry.
    pub const LVT_LINT0: u32 = 0x35;
    /// Timer's initial count.
    pub const TIMER_INITIAL: u32 = 0x38;
    /// Timer's current count.
    pub const TIMER_CURRENT: u32 = 0x39;
    /// Timer's divider.
    pub const TIMER_DIVIDE: u32 = 0x3e;
    /// Self IPI, x2APIC only.
    pub const SELF_IPI: u32 = 0x3f;
}

/// Delivery mode bits of an interrupt command.
pub mod icr {
    /// NMI.
    pub const NMI: u64 = 0x400;
    /// INIT, asserted.
    pub const INIT: u64 = 0x4500;
    /// Start-up.
    pub const STARTUP: u64 = 0x4600;
    /// To oneself.
    pub const SELF: u64 = 1 << 18;
    /// To all but oneself.
    pub const OTHERS: u64 = 3 << 18;
}

/// How the registers are reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Apic {
    /// In memory.
    Mmio,
    /// As MSRs.
    Msr,
}

impl Apic {
    /// The way that is in force now.
    #[must_use]
    pub fn current() -> Self {
        match cpu::rdmsr(APIC_BASE) {
            Ok(base) if base & BASE_EXTD != 0 => Self::Msr,
            _ => Self::Mmio,
        }
    }

    /// Reads a register.
    ///
    /// # Errors
    /// The fault the access raised.
    pub fn try_read(self, register: u32) -> Result<u64, Fault> {
        match self {
            Self::Mmio => cpu::read32(MMIO + 16 * u64::from(register)).map(u64::from),
            Self::Msr => cpu::rdmsr(0x800 + register),
        }
    }

    /// Writes a register.
    ///
    /// # Errors
    /// The fault the access raised.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "xAPIC registers have 32 bits"
    )]
    pub fn try_write(self, register: u32, value: u64) -> Result<(), Fault> {
        match self {
            Self::Mmio => cpu::write32(MMIO + 16 * u64::from(register), value as u32),
            Self::Msr => cpu::wrmsr(0x800 + register, value),
        }
    }

    /// Reads a register that exists.
    ///
    /// # Panics
    /// When the access faults.
    #[must_use]
    pub fn read(self, register: u32) -> u64 {
        match self.try_read(register) {
            Ok(value) => value,
            Err(fault) => panic!("reading APIC register {register:#x}: {fault:?}"),
        }
    }

    /// Writes a register that exists.
    ///
    /// # Panics
    /// When the access faults.
    pub fn write(self, register: u32, value: u64) {
        if let Err(fault) = self.try_write(register, value) {
            panic!("writing {value:#x} to APIC register {register:#x}: {fault:?}");
        }
    }

    /// Turns the APIC on by its spurious vector register.
    pub fn enable(self) {
        self.write(register::SPIV, 0x1ff);
    }

    /// Ends the interrupt in service.
    pub fn eoi(self) {
        self.write(register::EOI, 0);
    }

    /// Sends `command` to the APIC `target`.
    pub fn send(self, target: u32, command: u64) {
        match self {
            Self::Mmio => {
                self.write(register::ICR2, u64::from(target) << 24);
                self.write(register::ICR, command);
            }
            Self::Msr => self.write(register::ICR, (u64::from(target) << 32) | command),
        }
    }

    /// Sends INIT.
    pub fn send_init(self, target: u32) {
        self.send(target, icr::INIT);
    }

    /// Sends a start-up IPI with the page to start at.
    pub fn send_startup(self, target: u32, page: u8) {
        self.send(target, icr::STARTUP | u64::from(page));
    }

    /// Whether bit `vector` of eight registers from `first` on is set.
    #[must_use]
    pub fn vector_bit(self, first: u32, vector: u8) -> bool {
        let word = self.read(first + u32::from(vector) / 32);
        word & (1 << (vector % 32)) != 0
    }
}
