//! The four fates of an error, one type each.
//!
//! | fate                                   | type                       |
//! |----------------------------------------|----------------------------|
//! | returned to the caller of a hypercall  | [`abi::Errno`]             |
//! | raised in the guest, like hardware     | [`GuestFault`]             |
//! | ends this domain, and only this domain | [`CrashReason`]            |
//! | a bug of the hypervisor: the host dies | `panic!`                   |
//!
//! Input that a guest controls reaches the first three only.

use core::fmt;

use abi::{Gpa, Gva};

/// An exception to raise in the guest instead of completing its instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GuestFault {
    /// #DB; `dr6` holds the condition bits to merge into the guest's DR6.
    Db {
        /// Bits to set in DR6 on delivery.
        dr6: u64,
    },
    /// #UD, invalid opcode.
    Ud,
    /// #NM, device not available.
    Nm,
    /// #TS with an error code (hardware task switches).
    Ts(u32),
    /// #NP with an error code.
    Np(u32),
    /// #SS with an error code.
    Ss(u32),
    /// #GP with an error code.
    Gp(u32),
    /// #PF.
    Pf {
        /// The linear address to put in CR2.
        address: Gva,
        /// The page-fault error code.
        code: u32,
    },
    /// #AC; its error code is always 0.
    Ac,
}

impl GuestFault {
    /// #GP(0), the usual answer to a refused register or MSR access.
    pub const GP0: Self = Self::Gp(0);

    /// The exception's vector.
    #[must_use]
    pub const fn vector(self) -> u8 {
        match self {
            Self::Db { .. } => 1,
            Self::Ud => 6,
            Self::Nm => 7,
            Self::Ts(_) => 10,
            Self::Np(_) => 11,
            Self::Ss(_) => 12,
            Self::Gp(_) => 13,
            Self::Pf { .. } => 14,
            Self::Ac => 17,
        }
    }

    /// The error code that delivery pushes, for the vectors that have one.
    ///
    /// SDM 3A, "Error Code": in real-address mode no error code is pushed; the caller drops it.
    #[must_use]
    pub const fn error_code(self) -> Option<u32> {
        match self {
            Self::Db { .. } | Self::Ud | Self::Nm => None,
            Self::Ts(code) | Self::Np(code) | Self::Ss(code) | Self::Gp(code) => Some(code),
            Self::Pf { code, .. } => Some(code),
            Self::Ac => Some(0),
        }
    }
}

/// Instruction bytes shown in a crash line.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct InsnBytes {
    bytes: [u8; Self::MAX],
    len: u8,
}

impl InsnBytes {
    /// The longest x86 instruction (SDM 2A, "Instruction Format").
    pub const MAX: usize = 15;

    /// Keeps the first 15 bytes of `bytes`.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        let mut kept = Self::default();
        for (slot, &byte) in kept.bytes.iter_mut().zip(bytes) {
            *slot = byte;
            kept.len = kept.len.saturating_add(1);
        }
        kept
    }

    /// The bytes that were kept.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&[])
    }
}

impl fmt::Display for InsnBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.as_slice().iter().enumerate() {
            let space = if at == 0 { "" } else { " " };
            write!(f, "{space}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for InsnBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{self}]")
    }
}

/// Why the hypervisor ends a domain. `Display` gives one line, fit for the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CrashReason {
    /// An access outside RAM by an instruction that is not emulated.
    UnsupportedInstruction {
        /// Where the instruction is.
        rip: Gva,
        /// What it accessed.
        gpa: Gpa,
        /// The instruction itself.
        bytes: InsnBytes,
    },
    /// The vCPU fetched an instruction from outside RAM.
    FetchOutsideMemory {
        /// The instruction pointer.
        rip: Gva,
        /// Where it leads.
        gpa: Gpa,
    },
    /// VM entry failed its checks on guest state.
    InvalidGuestState {
        /// The instruction pointer.
        rip: Gva,
        /// The exit qualification, which names some of the failed checks.
        qualification: u64,
    },
    /// VMLAUNCH or VMRESUME itself failed.
    VmEntryFailed {
        /// The VM-instruction error number.
        error: u32,
    },
    /// An exit that the controls in use should never cause.
    UnexpectedExit {
        /// The basic exit reason.
        reason: u16,
        /// The exit qualification.
        qualification: u64,
        /// The instruction pointer.
        rip: Gva,
    },
    /// An EPT entry the hardware refuses.
    EptMisconfiguration {
        /// The address whose translation met the entry.
        gpa: Gpa,
    },
    /// A machine check while the domain was running.
    MachineCheck {
        /// The instruction pointer.
        rip: Gva,
    },
    /// The host ran out of memory for something this domain needs.
    OutOfMemory {
        /// What was needed.
        what: &'static str,
    },
}

impl fmt::Display for CrashReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnsupportedInstruction { rip, gpa, bytes } => write!(
                f,
                "unsupported instruction accessing {gpa} at rip {rip}: {bytes}"
            ),
            Self::FetchOutsideMemory { rip, gpa } => {
                write!(
                    f,
                    "instruction fetch from {gpa}, outside memory, at rip {rip}"
                )
            }
            Self::InvalidGuestState { rip, qualification } => write!(
                f,
                "invalid guest state on VM entry at rip {rip} (qualification {qualification:#x})"
            ),
            Self::VmEntryFailed { error } => {
                write!(f, "VM entry failed with VM-instruction error {error}")
            }
            Self::UnexpectedExit {
                reason,
                qualification,
                rip,
            } => write!(
                f,
                "unexpected VM exit {reason} (qualification {qualification:#x}) at rip {rip}"
            ),
            Self::EptMisconfiguration { gpa } => write!(f, "EPT misconfiguration at {gpa}"),
            Self::MachineCheck { rip } => write!(f, "machine check at rip {rip}"),
            Self::OutOfMemory { what } => write!(f, "out of host memory for {what}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::{CrashReason, GuestFault, InsnBytes};
    use abi::{Gpa, Gva};

    #[test]
    fn error_codes_follow_the_vector() {
        assert_eq!(GuestFault::GP0.error_code(), Some(0));
        assert_eq!(GuestFault::Ud.error_code(), None);
        let fault = GuestFault::Pf {
            address: Gva::new(0x1000),
            code: 6,
        };
        assert_eq!((fault.vector(), fault.error_code()), (14, Some(6)));
    }

    #[test]
    fn crash_line_is_one_line_with_the_bytes() {
        let reason = CrashReason::UnsupportedInstruction {
            rip: Gva::new(0x10_0000),
            gpa: Gpa::new(0xfee0_0000),
            bytes: InsnBytes::new(&[0x0f, 0xae, 0x38]),
        };
        assert_eq!(
            reason.to_string(),
            "unsupported instruction accessing 0xfee00000 at rip 0x100000: 0f ae 38"
        );
    }

    #[test]
    fn long_instructions_are_cut() {
        assert_eq!(InsnBytes::new(&[0x90; 40]).as_slice().len(), InsnBytes::MAX);
    }
}
