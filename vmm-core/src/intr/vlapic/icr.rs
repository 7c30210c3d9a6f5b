//! The interrupt command register: what message a write to it sends.
//!
//! SDM 3A, "Interrupt Command Register (ICR)" and "x2APIC Interrupt Command Register".

/// How a message is delivered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeliveryMode {
    /// To every receiver, as an interrupt.
    Fixed,
    /// To one of the receivers, as an interrupt.
    LowestPriority,
    /// As an NMI; the vector means nothing.
    Nmi,
    /// As an INIT; the vector means nothing.
    Init,
    /// As a start-up message; the vector is the page to start at.
    Startup,
}

/// Who a message is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Destination {
    /// The sender alone.
    ToSelf,
    /// Every APIC of the domain, the sender too.
    Everyone,
    /// Every APIC but the sender.
    Others,
    /// The APIC with this id.
    Physical(u32),
    /// The APICs whose logical id matches; the receiver's mode decides how it is read.
    Logical(u32),
}

/// An interprocessor message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ipi {
    /// How it is delivered.
    pub mode: DeliveryMode,
    /// Its vector.
    pub vector: u8,
    /// Its receivers.
    pub destination: Destination,
}

/// The bits of the low half that a guest may set.
pub(super) const LOW_WRITABLE: u32 = 0x000c_cfff;
/// The bits of the xAPIC's high half: an 8-bit destination.
pub(super) const XAPIC_HIGH_WRITABLE: u32 = 0xff00_0000;

const LOGICAL: u32 = 1 << 11;
const ASSERT: u32 = 1 << 14;
const LEVEL_TRIGGERED: u32 = 1 << 15;

impl Ipi {
    /// Decodes the message of an ICR write, or `None` when it sends nothing that is supported:
    /// SMI, reserved modes, the INIT de-assert that current processors ignore, and INIT or
    /// start-up messages that would include the sender by shorthand.
    pub(super) fn decode(low: u32, destination: u32) -> Option<Self> {
        let mode = match (low >> 8) & 7 {
            0 => DeliveryMode::Fixed,
            1 => DeliveryMode::LowestPriority,
            4 => DeliveryMode::Nmi,
            5 if low & LEVEL_TRIGGERED != 0 && low & ASSERT == 0 => return None,
            5 => DeliveryMode::Init,
            6 => DeliveryMode::Startup,
            _ => return None,
        };
        let destination = match (low >> 18) & 3 {
            0 if low & LOGICAL != 0 => Destination::Logical(destination),
            0 if destination == u32::MAX => Destination::Everyone,
            0 => Destination::Physical(destination),
            1 => Destination::ToSelf,
            2 => Destination::Everyone,
            _ => Destination::Others,
        };
        let by_shorthand_to_self = matches!((low >> 18) & 3, 1 | 2);
        if by_shorthand_to_self && matches!(mode, DeliveryMode::Init | DeliveryMode::Startup) {
            return None;
        }
        let [vector, ..] = low.to_le_bytes();
        Some(Self {
            mode,
            vector,
            destination,
        })
    }

    /// True when `self` carries a vector that no APIC accepts as an interrupt.
    pub(super) fn has_illegal_vector(self) -> bool {
        let interrupt = match self.mode {
            DeliveryMode::Fixed | DeliveryMode::LowestPriority => true,
            DeliveryMode::Nmi | DeliveryMode::Init | DeliveryMode::Startup => false,
        };
        interrupt && self.vector < crate::intr::inbox::FIRST_LEGAL_VECTOR
    }
}
