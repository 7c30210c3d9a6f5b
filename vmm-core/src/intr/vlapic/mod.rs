//! The virtual local APIC: one state behind the xAPIC page and the x2APIC MSRs.
//!
//! The vCPU that owns a [`VLapic`] calls it on its own exits; others reach it through its
//! [`Inbox`]. Time is the guest's TSC, passed in. There is no I/O APIC and no level-triggered
//! source, so the trigger-mode register always reads zero and an EOI is broadcast to nobody.
//!
//! SDM 3A, "Advanced Programmable Interrupt Controller (APIC)".
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm
)]

mod base;
mod icr;
mod registers;
mod timer;

use alloc::sync::Arc;

use super::inbox::{Address, FIRST_LEGAL_VECTOR, Inbox, LogicalModel};
use super::vectors::VectorSet;

pub use base::DEFAULT_BASE;
pub use icr::{DeliveryMode, Destination, Ipi};
pub use timer::TIMER_KHZ;

use base::{ApicBase, Mode};
use registers::{Lvt, SVR_ENABLED, SVR_RESET};
use timer::Timer;

/// Errors in ESR (SDM 3A, "Error Handling").
mod esr {
    pub(super) const SENT_ILLEGAL_VECTOR: u32 = 1 << 5;
    pub(super) const RECEIVED_ILLEGAL_VECTOR: u32 = 1 << 6;
    pub(super) const ILLEGAL_REGISTER: u32 = 1 << 7;
}

/// What a local APIC needs to know about its vCPU and its machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// The APIC id: twice the vCPU's number.
    pub apic_id: u32,
    /// True for the vCPU that starts the domain.
    pub bootstrap: bool,
    /// The rate of the guest's TSC.
    pub tsc_khz: u32,
    /// Bits of a guest-physical address.
    pub phys_bits: u8,
}

/// What the caller has to do after a register write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[must_use]
pub struct Actions {
    /// A message to deliver; [`route`](super::inbox::route) finds its receivers.
    pub ipi: Option<Ipi>,
    /// The APIC was software-enabled by this write: an event channel upcall that is delivered as
    /// an APIC vector has to be asserted again.
    pub software_enabled: bool,
}

/// A virtual local APIC.
#[derive(Debug)]
pub struct VLapic {
    config: Config,
    inbox: Arc<Inbox>,
    base: ApicBase,
    irr: VectorSet,
    isr: VectorSet,
    tpr: u8,
    svr: u32,
    ldr: u32,
    dfr: u32,
    icr_low: u32,
    icr_high: u32,
    esr: u32,
    /// Errors since the last write to ESR.
    errors: u32,
    lvt: [u32; Lvt::COUNT],
    timer: Timer,
}

impl VLapic {
    /// A local APIC as power-up leaves it: globally enabled, software-disabled.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let lapic = Self {
            config,
            inbox: Arc::new(Inbox::new(config.apic_id)),
            base: ApicBase::reset(config.bootstrap),
            irr: VectorSet::default(),
            isr: VectorSet::default(),
            tpr: 0,
            svr: SVR_RESET,
            ldr: 0,
            dfr: u32::MAX,
            icr_low: 0,
            icr_high: 0,
            esr: 0,
            errors: 0,
            lvt: [registers::LVT_MASKED; Lvt::COUNT],
            timer: Timer::new(config.tsc_khz),
        };
        lapic.publish();
        lapic
    }

    /// What other pCPUs post to.
    #[must_use]
    pub fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    /// Puts the registers in their state after INIT; IA32_APIC_BASE and the id stay.
    ///
    /// SDM 3A, "Local APIC State After an INIT Reset" and "x2APIC State Transitions".
    pub fn init(&mut self) {
        // What was posted before the reset is lost with the IRR it was meant for.
        let _ = self.inbox.take();
        let _ = self.inbox.take_nmi();
        self.irr = VectorSet::default();
        self.isr = VectorSet::default();
        self.tpr = 0;
        self.svr = SVR_RESET;
        self.ldr = 0;
        self.dfr = u32::MAX;
        self.icr_low = 0;
        self.icr_high = 0;
        self.esr = 0;
        self.errors = 0;
        self.lvt = [registers::LVT_MASKED; Lvt::COUNT];
        self.timer.reset();
        self.publish();
    }

    /// The guest-physical address of the xAPIC page, while there is one.
    #[must_use]
    pub fn mmio_base(&self) -> Option<u64> {
        (self.base.mode() == Mode::XApic).then(|| self.base.address())
    }

    /// True unless the guest disabled the APIC in IA32_APIC_BASE; CPUID shows it.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.base.mode() != Mode::Disabled
    }

    /// Makes `vector` pending, as if a message had brought it.
    pub fn accept(&mut self, vector: u8) {
        if vector < FIRST_LEGAL_VECTOR {
            self.raise_error(esr::RECEIVED_ILLEGAL_VECTOR);
        } else {
            self.irr.insert(vector);
        }
    }

    /// True when nothing is requested and nothing has been posted: a cheap answer for the usual
    /// VM entry.
    #[inline]
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.irr.is_empty() && !self.inbox.has_news()
    }

    /// The pending vector that may interrupt the guest now, if its priority exceeds what the
    /// task priority and the interrupts in service allow.
    pub fn pending_vector(&mut self) -> Option<u8> {
        self.fold();
        let vector = self.irr.highest()?;
        (vector >> 4 > self.processor_priority() >> 4).then_some(vector)
    }

    /// The guest takes `vector`: it moves from requested to in service.
    pub fn acknowledge(&mut self, vector: u8) {
        self.irr.remove(vector);
        self.isr.insert(vector);
    }

    /// Takes back [`acknowledge`](Self::acknowledge): the delivery was cut short.
    pub fn unacknowledge(&mut self, vector: u8) {
        self.isr.remove(vector);
        self.irr.insert(vector);
    }

    /// The end of the highest interrupt in service.
    pub fn end_of_interrupt(&mut self) {
        if let Some(vector) = self.isr.highest() {
            self.isr.remove(vector);
        }
    }

    /// The task priority, as CR8 shows it.
    #[must_use]
    pub fn cr8(&self) -> u64 {
        u64::from(self.tpr >> 4)
    }

    /// A write to CR8; the caller has refused values above 15.
    pub fn set_cr8(&mut self, value: u64) {
        let [low, ..] = value.to_le_bytes();
        self.tpr = (low & 0xf) << 4;
    }

    /// The guest TSC at which [`expire`](Self::expire) has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        if self.lvt(Lvt::Timer) & registers::LVT_MASKED != 0 {
            return None;
        }
        self.timer.deadline()
    }

    /// Lets the timer fire if its time has come. True when the guest has a new interrupt.
    pub fn expire(&mut self, now: u64) -> bool {
        let entry = self.lvt(Lvt::Timer);
        let fired = self.timer.expire(now) && entry & registers::LVT_MASKED == 0;
        if fired {
            let [vector, ..] = entry.to_le_bytes();
            self.accept(vector);
        }
        fired
    }

    /// Takes over what was posted since the last call.
    fn fold(&mut self) {
        let Some(news) = self.inbox.take() else {
            return;
        };
        for (index, bits) in news.vectors.into_iter().enumerate() {
            self.irr.insert_word(index, bits);
        }
        if news.illegal_vector {
            self.raise_error(esr::RECEIVED_ILLEGAL_VECTOR);
        }
    }

    /// SDM 3A, "Task and Processor Priorities".
    fn processor_priority(&self) -> u8 {
        let in_service = self.isr.highest().unwrap_or(0);
        if self.tpr >> 4 >= in_service >> 4 {
            self.tpr
        } else {
            in_service & 0xf0
        }
    }

    /// Records an error and raises the error interrupt. An illegal vector in that very entry is
    /// one more error, and no more than that: there is no recursion.
    fn raise_error(&mut self, error: u32) {
        self.errors |= error;
        let entry = self.lvt(Lvt::Error);
        if entry & registers::LVT_MASKED != 0 {
            return;
        }
        let [vector, ..] = entry.to_le_bytes();
        if vector < FIRST_LEGAL_VECTOR {
            self.errors |= esr::RECEIVED_ILLEGAL_VECTOR;
        } else {
            self.irr.insert(vector);
        }
    }

    fn lvt(&self, entry: Lvt) -> u32 {
        self.lvt
            .get(entry.index())
            .copied()
            .unwrap_or(registers::LVT_MASKED)
    }

    /// Tells senders how this APIC is addressed from now on.
    fn publish(&self) {
        let [.., logical_id] = self.ldr.to_le_bytes();
        self.inbox.publish(Address {
            logical_id,
            model: match self.dfr >> 28 {
                0xf => LogicalModel::Flat,
                0 => LogicalModel::Cluster,
                _ => LogicalModel::Reserved,
            },
            x2apic: self.base.mode() == Mode::X2Apic,
            enabled: self.is_enabled(),
            software_enabled: self.svr & SVR_ENABLED != 0,
        });
    }
}

#[cfg(test)]
mod tests;
