//! The guest's general-purpose registers, kept outside the VMCS.
//!
//! [`crate::entry`] loads them before a VM entry and stores them at a VM exit; the layout is
//! shared with its assembly. RSP is not here: the VMCS holds it (`GUEST_RSP`).

/// The guest's general-purpose registers except RSP.
///
/// A VM exit stores the registers by pushing them: `HOST_RSP` points just past [`Self::r15`], so
/// it stays constant for as long as the structure does not move. Keep it at a fixed place (boxed,
/// in the vCPU).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuestRegs {
    /// Our own stack pointer while the guest runs; only the assembly reads it.
    host_rsp: u64,
    /// RAX.
    pub rax: u64,
    /// RCX.
    pub rcx: u64,
    /// RDX.
    pub rdx: u64,
    /// RBX.
    pub rbx: u64,
    /// RBP.
    pub rbp: u64,
    /// RSI.
    pub rsi: u64,
    /// RDI.
    pub rdi: u64,
    /// R8.
    pub r8: u64,
    /// R9.
    pub r9: u64,
    /// R10.
    pub r10: u64,
    /// R11.
    pub r11: u64,
    /// R12.
    pub r12: u64,
    /// R13.
    pub r13: u64,
    /// R14.
    pub r14: u64,
    /// R15.
    pub r15: u64,
}

/// The encoding number of RSP, the one register [`GuestRegs`] does not hold.
pub const RSP: u8 = 4;

// The pushes and offsets in `entry` depend on this.
const _: () = assert!(size_of::<GuestRegs>() == 16 * 8);
const _: () = assert!(core::mem::offset_of!(GuestRegs, host_rsp) == 0);
const _: () = assert!(core::mem::offset_of!(GuestRegs, rax) == 8);
const _: () = assert!(core::mem::offset_of!(GuestRegs, r15) == 15 * 8);

impl GuestRegs {
    /// All registers zero.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            host_rsp: 0,
            rax: 0,
            rcx: 0,
            rdx: 0,
            rbx: 0,
            rbp: 0,
            rsi: 0,
            rdi: 0,
            r8: 0,
            r9: 0,
            r10: 0,
            r11: 0,
            r12: 0,
            r13: 0,
            r14: 0,
            r15: 0,
        }
    }

    /// Reads a register by its encoding number; `None` for RSP (4) and numbers above 15.
    #[must_use]
    pub const fn gpr(&self, number: u8) -> Option<u64> {
        Some(match number {
            0 => self.rax,
            1 => self.rcx,
            2 => self.rdx,
            3 => self.rbx,
            5 => self.rbp,
            6 => self.rsi,
            7 => self.rdi,
            8 => self.r8,
            9 => self.r9,
            10 => self.r10,
            11 => self.r11,
            12 => self.r12,
            13 => self.r13,
            14 => self.r14,
            15 => self.r15,
            _ => return None,
        })
    }

    /// Writes a register by its encoding number; `None` for RSP (4) and numbers above 15.
    pub const fn set_gpr(&mut self, number: u8, value: u64) -> Option<()> {
        let register = match number {
            0 => &mut self.rax,
            1 => &mut self.rcx,
            2 => &mut self.rdx,
            3 => &mut self.rbx,
            5 => &mut self.rbp,
            6 => &mut self.rsi,
            7 => &mut self.rdi,
            8 => &mut self.r8,
            9 => &mut self.r9,
            10 => &mut self.r10,
            11 => &mut self.r11,
            12 => &mut self.r12,
            13 => &mut self.r13,
            14 => &mut self.r14,
            15 => &mut self.r15,
            _ => return None,
        };
        *register = value;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::{GuestRegs, RSP};

    #[test]
    fn registers_are_reached_by_their_encoding() {
        let mut regs = GuestRegs::new();
        for number in (0..16).filter(|&n| n != RSP) {
            assert!(regs.set_gpr(number, 100 + u64::from(number)).is_some());
        }
        for number in (0..16).filter(|&n| n != RSP) {
            assert_eq!(regs.gpr(number), Some(100 + u64::from(number)));
        }
        assert_eq!((regs.rcx, regs.rsi, regs.r15), (101, 106, 115));
    }

    #[test]
    fn rsp_and_unknown_numbers_are_refused() {
        let mut regs = GuestRegs::new();
        for number in [RSP, 16, 255] {
            assert_eq!(regs.gpr(number), None);
            assert_eq!(regs.set_gpr(number, 1), None);
        }
        assert_eq!(regs, GuestRegs::default());
    }
}
