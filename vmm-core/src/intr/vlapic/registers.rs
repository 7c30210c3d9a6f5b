//! The registers, by the number they share: bits 11:4 of their offset in the xAPIC page, and
//! their MSR number less 0x800 in x2APIC mode.
//!
//! SDM 3A, "Local APIC Register Address Map" and "x2APIC Register Address Space".
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm
)]

use super::base::Mode;
use super::icr::{Ipi, LOW_WRITABLE, XAPIC_HIGH_WRITABLE};
use super::{Actions, DeliveryMode, Destination, VLapic, esr, timer};
use crate::fault::GuestFault;
use crate::intr::inbox::x2apic_ldr;

const IA32_APIC_BASE: u32 = 0x1b;
const IA32_TSC_DEADLINE: u32 = 0x6e0;
const X2APIC_FIRST: u32 = 0x800;
const X2APIC_LAST: u32 = 0x8ff;

const ID: u32 = 0x02;
const VERSION: u32 = 0x03;
const TPR: u32 = 0x08;
const ARBITRATION_PRIORITY: u32 = 0x09;
const PPR: u32 = 0x0a;
const EOI: u32 = 0x0b;
const REMOTE_READ: u32 = 0x0c;
const LDR: u32 = 0x0d;
const DFR: u32 = 0x0e;
const SVR: u32 = 0x0f;
const ISR: u32 = 0x10;
const ISR_LAST: u32 = 0x17;
const TMR: u32 = 0x18;
const TMR_LAST: u32 = 0x1f;
const IRR: u32 = 0x20;
const IRR_LAST: u32 = 0x27;
const ESR: u32 = 0x28;
const ICR_LOW: u32 = 0x30;
const ICR_HIGH: u32 = 0x31;
const LVT_TIMER: u32 = 0x32;
const LVT_THERMAL: u32 = 0x33;
const LVT_PERFORMANCE: u32 = 0x34;
const LVT_LINT0: u32 = 0x35;
const LVT_LINT1: u32 = 0x36;
const LVT_ERROR: u32 = 0x37;
const TIMER_INITIAL: u32 = 0x38;
const TIMER_CURRENT: u32 = 0x39;
const TIMER_DIVIDE: u32 = 0x3e;
const SELF_IPI: u32 = 0x3f;

/// An integrated APIC with six LVT entries and no directed EOI.
const VERSION_VALUE: u32 = 0x0005_0014;

pub(super) const SVR_ENABLED: u32 = 1 << 8;
pub(super) const SVR_RESET: u32 = 0xff;
const SVR_X2APIC_WRITABLE: u32 = 0x1ff;
/// The xAPIC keeps the focus-checking bit too.
const SVR_XAPIC_WRITABLE: u32 = 0x3ff;
const DIVIDE_WRITABLE: u32 = 0b1011;

pub(super) const LVT_MASKED: u32 = 1 << 16;

/// The entries of the local vector table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lvt {
    Timer,
    Thermal,
    Performance,
    Lint0,
    Lint1,
    Error,
}

impl Lvt {
    pub(super) const COUNT: usize = 6;

    pub(super) fn index(self) -> usize {
        self as usize
    }

    fn of_register(register: u32) -> Option<Self> {
        match register {
            LVT_TIMER => Some(Self::Timer),
            LVT_THERMAL => Some(Self::Thermal),
            LVT_PERFORMANCE => Some(Self::Performance),
            LVT_LINT0 => Some(Self::Lint0),
            LVT_LINT1 => Some(Self::Lint1),
            LVT_ERROR => Some(Self::Error),
            _ => None,
        }
    }

    /// The bits a guest may set (SDM 3A, "Local Vector Table").
    fn writable(self) -> u32 {
        match self {
            Self::Timer => 0x0007_00ff,
            Self::Thermal | Self::Performance => 0x0001_07ff,
            Self::Lint0 | Self::Lint1 => 0x0001_a7ff,
            Self::Error => 0x0001_00ff,
        }
    }
}

impl VLapic {
    /// Reads `size` bytes at `offset` of the xAPIC page. An access that leaves a register, or its
    /// first four bytes, reads zero.
    pub fn mmio_read(&mut self, offset: u64, size: usize, now: u64) -> u64 {
        let Some((register, shift, mask)) = mmio_register(offset, size) else {
            return 0;
        };
        let value = self.mmio_register_value(register, now);
        u64::from(value.wrapping_shr(shift) & mask)
    }

    /// Writes `size` bytes at `offset` of the xAPIC page. A write narrower than the register
    /// keeps its other bytes; one that [`mmio_read`](Self::mmio_read) would not read is dropped.
    pub fn mmio_write(&mut self, offset: u64, size: usize, value: u64, now: u64) -> Actions {
        let Some((register, shift, mask)) = mmio_register(offset, size) else {
            return Actions::default();
        };
        let value = u32::try_from(value & u64::from(mask)).unwrap_or(0);
        let value = if mask == u32::MAX {
            value
        } else {
            let kept = self.mmio_register_value(register, now) & !mask.wrapping_shl(shift);
            kept | value.wrapping_shl(shift)
        };
        self.write_xapic(register, value, now)
    }

    /// Reads one of the MSRs this APIC answers for: IA32_APIC_BASE, IA32_TSC_DEADLINE and the
    /// x2APIC range.
    ///
    /// # Errors
    /// #GP for any other MSR, and for an x2APIC register that cannot be read.
    pub fn msr_read(&mut self, msr: u32, now: u64) -> Result<u64, GuestFault> {
        match msr {
            IA32_APIC_BASE => Ok(self.base_value()),
            IA32_TSC_DEADLINE => Ok(self.timer.tsc_deadline()),
            X2APIC_FIRST..=X2APIC_LAST if self.base.mode() == Mode::X2Apic => {
                let register = msr & 0xff;
                match register {
                    ICR_LOW => Ok(u64::from(self.icr_high) << 32 | u64::from(self.icr_low)),
                    ARBITRATION_PRIORITY | EOI | REMOTE_READ | DFR | ICR_HIGH => {
                        Err(GuestFault::GP0)
                    }
                    _ => self
                        .read(register, now)
                        .map(u64::from)
                        .ok_or(GuestFault::GP0),
                }
            }
            _ => Err(GuestFault::GP0),
        }
    }

    /// Writes one of the MSRs this APIC answers for.
    ///
    /// # Errors
    /// #GP for any other MSR, a read-only one, reserved bits, and an illegal change of mode.
    pub fn msr_write(&mut self, msr: u32, value: u64, now: u64) -> Result<Actions, GuestFault> {
        match msr {
            IA32_APIC_BASE => self.set_base(value).map(|()| Actions::default()),
            IA32_TSC_DEADLINE => {
                self.timer.set_tsc_deadline(value);
                Ok(Actions::default())
            }
            X2APIC_FIRST..=X2APIC_LAST if self.base.mode() == Mode::X2Apic => {
                self.write_x2apic(msr & 0xff, value, now)
            }
            _ => Err(GuestFault::GP0),
        }
    }

    fn mmio_register_value(&mut self, register: u32, now: u64) -> u32 {
        match register {
            ARBITRATION_PRIORITY | EOI | REMOTE_READ => 0,
            DFR => self.dfr,
            ICR_LOW => self.icr_low,
            ICR_HIGH => self.icr_high,
            _ => self.read(register, now).unwrap_or_else(|| {
                self.raise_error(esr::ILLEGAL_REGISTER);
                0
            }),
        }
    }

    /// The registers that both modes can read, but for ICR.
    fn read(&mut self, register: u32, now: u64) -> Option<u32> {
        self.fold();
        Some(match register {
            ID => self.id_register(),
            VERSION => VERSION_VALUE,
            TPR => u32::from(self.tpr),
            PPR => u32::from(self.processor_priority()),
            LDR => self.ldr_register(),
            SVR => self.svr,
            ISR..=ISR_LAST => self.isr.register(register.wrapping_sub(ISR)),
            TMR..=TMR_LAST => 0,
            IRR..=IRR_LAST => self.irr.register(register.wrapping_sub(IRR)),
            ESR => self.esr,
            TIMER_INITIAL => self.timer.initial_count(),
            TIMER_CURRENT => {
                // A periodic timer that is late has already begun its next period.
                self.expire(now);
                self.timer.current_count(now)
            }
            TIMER_DIVIDE => self.timer.divide_configuration(),
            _ => self.lvt(Lvt::of_register(register)?),
        })
    }

    fn id_register(&self) -> u32 {
        match self.base.mode() {
            Mode::X2Apic => self.config.apic_id,
            Mode::XApic | Mode::Disabled => self.config.apic_id.wrapping_shl(24),
        }
    }

    fn ldr_register(&self) -> u32 {
        match self.base.mode() {
            Mode::X2Apic => x2apic_ldr(self.config.apic_id),
            Mode::XApic | Mode::Disabled => self.ldr,
        }
    }

    /// A write to the xAPIC page: reserved bits are dropped, read-only registers stay.
    fn write_xapic(&mut self, register: u32, value: u32, now: u64) -> Actions {
        match register {
            LDR => {
                self.ldr = value & 0xff00_0000;
                self.publish();
            }
            DFR => {
                self.dfr = value | 0x0fff_ffff;
                self.publish();
            }
            ICR_HIGH => self.icr_high = value & XAPIC_HIGH_WRITABLE,
            ICR_LOW => {
                self.icr_low = value & LOW_WRITABLE;
                return self.send(match self.icr_high >> 24 {
                    0xff => u32::MAX,
                    id => id,
                });
            }
            EOI => self.end_of_interrupt(),
            SVR => return self.set_svr(value & SVR_XAPIC_WRITABLE),
            ID | VERSION | PPR | ARBITRATION_PRIORITY | REMOTE_READ | TIMER_CURRENT => {}
            ISR..=IRR_LAST => {}
            _ if self.write(register, value, now) => {}
            _ => self.raise_error(esr::ILLEGAL_REGISTER),
        }
        Actions::default()
    }

    /// A write to an x2APIC MSR: reserved bits and read-only registers fault.
    fn write_x2apic(&mut self, register: u32, value: u64, now: u64) -> Result<Actions, GuestFault> {
        let writable = match register {
            ICR_LOW => u64::from(LOW_WRITABLE) | 0xffff_ffff_0000_0000,
            TPR | SELF_IPI => 0xff,
            SVR => u64::from(SVR_X2APIC_WRITABLE),
            EOI | ESR => 0,
            TIMER_INITIAL => u64::from(u32::MAX),
            TIMER_DIVIDE => u64::from(DIVIDE_WRITABLE),
            _ => match Lvt::of_register(register) {
                Some(entry) => u64::from(entry.writable()),
                None => return Err(GuestFault::GP0),
            },
        };
        if value & !writable != 0 {
            return Err(GuestFault::GP0);
        }
        let low = u32::try_from(value & 0xffff_ffff).unwrap_or(0);
        let mut actions = Actions::default();
        match register {
            ICR_LOW => {
                self.icr_low = low;
                self.icr_high = u32::try_from(value >> 32).unwrap_or(0);
                actions = self.send(self.icr_high);
            }
            SELF_IPI => {
                let [vector, ..] = low.to_le_bytes();
                let destination = Destination::ToSelf;
                actions = self.send_ipi(Ipi {
                    mode: DeliveryMode::Fixed,
                    vector,
                    destination,
                });
            }
            EOI => self.end_of_interrupt(),
            SVR => actions = self.set_svr(low),
            _ => {
                self.write(register, low, now);
            }
        }
        Ok(actions)
    }

    /// The registers that both modes write alike. False when there is no such register.
    fn write(&mut self, register: u32, value: u32, now: u64) -> bool {
        match register {
            TPR => {
                let [priority, ..] = value.to_le_bytes();
                self.tpr = priority;
            }
            ESR => {
                self.fold();
                self.esr = self.errors;
                self.errors = 0;
            }
            TIMER_INITIAL => self.timer.set_initial_count(value, now),
            TIMER_DIVIDE => self.timer.set_divide_configuration(value, now),
            _ => match Lvt::of_register(register) {
                Some(entry) => self.set_lvt(entry, value, now),
                None => return false,
            },
        }
        true
    }

    fn set_lvt(&mut self, entry: Lvt, value: u32, now: u64) {
        // A deadline that passed under the old entry belongs to that entry.
        self.expire(now);
        let disabled = self.svr & SVR_ENABLED == 0;
        let value = value & entry.writable() | if disabled { LVT_MASKED } else { 0 };
        if entry == Lvt::Timer {
            self.timer.set_mode(match (value >> 17) & 3 {
                0 => timer::Mode::OneShot,
                1 => timer::Mode::Periodic,
                // 3 is reserved; taken as the mode that needs a second register to start.
                _ => timer::Mode::TscDeadline,
            });
        }
        if let Some(slot) = self.lvt.get_mut(entry.index()) {
            *slot = value;
        }
    }

    /// SDM 3A, "Local APIC State After It Has Been Software Disabled": disabling masks the whole
    /// local vector table.
    fn set_svr(&mut self, value: u32) -> Actions {
        // What was posted before the write was posted to the APIC in its old state.
        self.fold();
        let was_enabled = self.svr & SVR_ENABLED != 0;
        let enabled = value & SVR_ENABLED != 0;
        self.svr = value;
        if !enabled {
            for entry in &mut self.lvt {
                *entry |= LVT_MASKED;
            }
        }
        self.publish();
        Actions {
            software_enabled: enabled && !was_enabled,
            ..Actions::default()
        }
    }

    fn send(&mut self, destination: u32) -> Actions {
        match Ipi::decode(self.icr_low, destination) {
            Some(ipi) => self.send_ipi(ipi),
            None => Actions::default(),
        }
    }

    /// An illegal vector is an error of the sender and, as it still goes out, of each receiver.
    fn send_ipi(&mut self, ipi: Ipi) -> Actions {
        if ipi.has_illegal_vector() {
            self.raise_error(esr::SENT_ILLEGAL_VECTOR);
        }
        Actions {
            ipi: Some(ipi),
            ..Actions::default()
        }
    }
}

/// The register an access falls in, with its shift and mask there.
fn mmio_register(offset: u64, size: usize) -> Option<(u32, u32, u32)> {
    let mask = match size {
        1 => 0xff,
        2 => 0xffff,
        4 => u32::MAX,
        _ => return None,
    };
    let byte = u32::try_from(offset & 0xf).ok()?;
    let end = byte.checked_add(u32::try_from(size).ok()?)?;
    if offset > 0xfff || end > 4 {
        return None;
    }
    let register = u32::try_from(offset >> 4).ok()?;
    Some((register, byte.wrapping_shl(3), mask))
}
