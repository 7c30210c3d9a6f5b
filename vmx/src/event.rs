//! Events: what a VM entry injects and what a VM exit cut short.
//!
//! One format serves three VMCS words: SDM 3C, "VM-Entry Controls for Event Injection",
//! "Information for VM Exits Due to Vectored Events" and "Information for VM Exits That Occur
//! During Event Delivery".

/// Bit 31 of an interruption-information word: the word describes an event.
pub const VALID: u32 = 1 << 31;
/// Bit 11: the event pushes an error code.
pub const ERROR_CODE_VALID: u32 = 1 << 11;
/// Bit 12 of the VM-exit interruption information: the fault hit an IRET that had already ended
/// NMI blocking.
pub const NMI_UNBLOCKED_BY_IRET: u32 = 1 << 12;

/// How an event is delivered: bits 10:8 of an interruption-information word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// An interrupt from outside the CPU.
    External,
    /// A non-maskable interrupt.
    Nmi,
    /// An exception the CPU raised (`#GP`, `#PF`, ...).
    HardException,
    /// `INT n`.
    SoftInt,
    /// `INT1` (ICEBP).
    PrivSoftException,
    /// `INT3` or `INTO`.
    SoftException,
}

impl EventKind {
    /// Decodes bits 10:8; 1 is reserved, 7 ("other event") is no event that can be injected again.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Option<Self> {
        Some(match bits {
            0 => Self::External,
            2 => Self::Nmi,
            3 => Self::HardException,
            4 => Self::SoftInt,
            5 => Self::PrivSoftException,
            6 => Self::SoftException,
            _ => return None,
        })
    }

    /// The value for bits 10:8.
    #[must_use]
    pub const fn bits(self) -> u32 {
        match self {
            Self::External => 0,
            Self::Nmi => 2,
            Self::HardException => 3,
            Self::SoftInt => 4,
            Self::PrivSoftException => 5,
            Self::SoftException => 6,
        }
    }

    /// True when an instruction raised the event: its delivery pushes the address after that
    /// instruction, so injecting it needs the instruction's length.
    #[must_use]
    pub const fn is_software(self) -> bool {
        matches!(
            self,
            Self::SoftInt | Self::PrivSoftException | Self::SoftException
        )
    }
}

/// An event to inject at the next VM entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Interrupt or exception vector.
    pub vector: u8,
    /// How it is delivered.
    pub kind: EventKind,
    /// The error code it pushes.
    pub error: Option<u32>,
    /// Length of the instruction that raised it; 0 unless [`EventKind::is_software`].
    pub length: u8,
}

/// `#DB`.
pub const VECTOR_DB: u8 = 1;
/// NMI.
pub const VECTOR_NMI: u8 = 2;
/// `#BP`.
pub const VECTOR_BP: u8 = 3;
/// `#UD`.
pub const VECTOR_UD: u8 = 6;
/// `#NM`.
pub const VECTOR_NM: u8 = 7;
/// `#DF`.
pub const VECTOR_DF: u8 = 8;
/// `#TS`.
pub const VECTOR_TS: u8 = 10;
/// `#NP`.
pub const VECTOR_NP: u8 = 11;
/// `#SS`.
pub const VECTOR_SS: u8 = 12;
/// `#GP`.
pub const VECTOR_GP: u8 = 13;
/// `#PF`.
pub const VECTOR_PF: u8 = 14;
/// `#AC`.
pub const VECTOR_AC: u8 = 17;
/// `#MC`.
pub const VECTOR_MC: u8 = 18;

impl Event {
    /// An external interrupt.
    #[must_use]
    pub const fn external(vector: u8) -> Self {
        Self {
            vector,
            kind: EventKind::External,
            error: None,
            length: 0,
        }
    }

    /// An NMI.
    #[must_use]
    pub const fn nmi() -> Self {
        Self {
            vector: VECTOR_NMI,
            kind: EventKind::Nmi,
            error: None,
            length: 0,
        }
    }

    /// A hardware exception, with an error code where the vector has one.
    ///
    /// In real mode no exception pushes an error code, and a VM entry that tries fails; pass
    /// `None` there.
    #[must_use]
    pub const fn exception(vector: u8, error: Option<u32>) -> Self {
        Self {
            vector,
            kind: EventKind::HardException,
            error,
            length: 0,
        }
    }

    /// The VM-entry interruption-information word.
    #[inline]
    #[must_use]
    pub const fn to_entry_info(self) -> u32 {
        let error = if self.error.is_some() {
            ERROR_CODE_VALID
        } else {
            0
        };
        VALID | error | self.kind.bits() << 8 | self.vector as u32
    }

    /// Decodes an interruption-information word; `None` when it is not valid or no event that
    /// can be injected again.
    ///
    /// `length` is the VM-exit instruction length and is kept for software events only.
    #[must_use]
    pub fn from_info(info: u32, error: u32, length: u32) -> Option<Self> {
        if info & VALID == 0 {
            return None;
        }
        let kind = EventKind::from_bits(info >> 8 & 7)?;
        let [vector, ..] = info.to_le_bytes();
        let [length, ..] = length.to_le_bytes();
        Some(Self {
            vector,
            kind,
            error: (info & ERROR_CODE_VALID != 0).then_some(error),
            length: if kind.is_software() { length } else { 0 },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Event, EventKind, VALID};
    use proptest::prelude::{any, proptest};

    #[test]
    fn known_words() {
        assert_eq!(Event::external(0xf3).to_entry_info(), 0x8000_00f3);
        assert_eq!(Event::nmi().to_entry_info(), 0x8000_0202);
        assert_eq!(Event::exception(13, Some(0)).to_entry_info(), 0x8000_0b0d);
        assert_eq!(Event::exception(6, None).to_entry_info(), 0x8000_0306);
    }

    #[test]
    fn software_events_keep_their_length() {
        let int80 = Event::from_info(0x8000_0480, 0, 2);
        assert_eq!(
            int80,
            Some(Event {
                vector: 0x80,
                kind: EventKind::SoftInt,
                error: None,
                length: 2
            })
        );
        let page_fault = Event::from_info(0x8000_0b0e, 0x6, 5);
        assert_eq!(page_fault, Some(Event::exception(14, Some(6))));
    }

    #[test]
    fn invalid_words_are_no_event() {
        assert_eq!(Event::from_info(0x0000_0b0e, 0, 0), None);
        assert_eq!(Event::from_info(VALID | 1 << 8, 0, 0), None);
        assert_eq!(Event::from_info(VALID | 7 << 8, 0, 0), None);
    }

    proptest! {
        #[test]
        fn a_decoded_event_encodes_to_the_same_word(info in any::<u32>(), error in any::<u32>(), length in 0u32..16) {
            if let Some(event) = Event::from_info(info, error, length) {
                assert_eq!(event.to_entry_info(), info & 0x8000_0fff);
                assert_eq!(event.error.is_some(), info & 1 << 11 != 0);
            }
        }
    }
}
