//! The state a vCPU starts with: PVH entry, a start-up IPI, or what `VCPUOP_initialise` names.

use vmx::GuestRegs;
use vmx::vmcs::Segment;

/// A segment over the whole address space, with access rights in the packed format.
#[must_use]
pub const fn flat(packed: u16) -> Segment {
    Segment {
        selector: 0,
        base: 0,
        limit: u32::MAX,
        access_rights: unpack_access(packed),
    }
}

/// A real-mode segment, with access rights in the packed format.
#[must_use]
pub const fn real_mode(selector: u16, packed: u16) -> Segment {
    let base = (selector as u64) << 4;
    Segment {
        selector,
        base,
        limit: 0xffff,
        access_rights: unpack_access(packed),
    }
}

/// Access rights in the VMCS format from the 12-bit packed one of
/// `public/arch-x86/hvm/vcpu_context.h`, which leaves out the limit bits.
#[must_use]
pub const fn unpack_access(packed: u16) -> u32 {
    (packed as u32 & 0xff) | (packed as u32 & 0xf00) << 4
}

/// A vCPU's registers as it starts; what is not named here has its reset value.
#[derive(Clone, Debug)]
pub struct InitialState {
    /// General-purpose registers but RSP.
    pub regs: GuestRegs,
    /// RSP.
    pub rsp: u64,
    /// RIP.
    pub rip: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// CR0 as the guest sees it.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4 as the guest sees it.
    pub cr4: u64,
    /// IA32_EFER.
    pub efer: u64,
    /// CS.
    pub cs: Segment,
    /// DS.
    pub ds: Segment,
    /// ES.
    pub es: Segment,
    /// SS.
    pub ss: Segment,
    /// FS and GS.
    pub fs_gs: Segment,
    /// TR.
    pub tr: Segment,
    /// True when the local APIC and the MSRs are reset as well; false for a start-up IPI, which
    /// leaves them as INIT did.
    pub full_reset: bool,
}

/// CR0.PE and CR0.ET.
const CR0_PE_ET: u64 = 0x11;
/// CR0 after INIT: caches off, ET.
const CR0_INIT: u64 = 0x6000_0010;
/// RFLAGS with only the bit that always reads one.
const RFLAGS_FIXED: u64 = 0x2;
/// A flat 32-bit code segment, execute and read, accessed.
const CODE32: u16 = 0xc9b;
/// A flat 32-bit data segment, read and write, accessed.
const DATA32: u16 = 0xc93;
/// A busy 32-bit TSS.
const TSS32_BUSY: u16 = 0x8b;

impl InitialState {
    /// The boot vCPU of a PVH guest (`public/arch-x86/hvm/start_info.h`): 32-bit protected mode,
    /// paging off, EBX pointing at the start info.
    #[must_use]
    pub fn pvh(entry: u32, start_info: u32) -> Self {
        let mut regs = GuestRegs::new();
        regs.rbx = u64::from(start_info);
        Self {
            regs,
            rsp: 0,
            rip: u64::from(entry),
            rflags: RFLAGS_FIXED,
            cr0: CR0_PE_ET,
            cr3: 0,
            cr4: 0,
            efer: 0,
            cs: flat(CODE32),
            ds: flat(DATA32),
            es: flat(DATA32),
            ss: flat(DATA32),
            fs_gs: flat(DATA32),
            tr: Segment {
                selector: 0,
                base: 0,
                limit: 0x67,
                access_rights: unpack_access(TSS32_BUSY),
            },
            full_reset: true,
        }
    }

    /// A vCPU that receives a start-up IPI: real mode at `vector` pages
    /// (SDM 3A, "Initialization Protocol Example"; "IA-32 Processor States Following Power-up,
    /// Reset, or INIT").
    #[must_use]
    pub fn startup(vector: u8, signature: u32) -> Self {
        let data = real_mode(0, 0x93);
        let mut regs = GuestRegs::new();
        regs.rdx = u64::from(signature);
        Self {
            regs,
            rsp: 0,
            rip: 0,
            rflags: RFLAGS_FIXED,
            cr0: CR0_INIT,
            cr3: 0,
            cr4: 0,
            efer: 0,
            cs: real_mode(u16::from(vector) << 8, 0x9b),
            ds: data,
            es: data,
            ss: data,
            fs_gs: data,
            tr: Segment {
                selector: 0,
                base: 0,
                limit: 0xffff,
                access_rights: unpack_access(TSS32_BUSY),
            },
            full_reset: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::InitialState;

    #[test]
    fn a_startup_ipi_names_a_page() {
        let state = InitialState::startup(0x9a, 0);
        assert_eq!(
            (state.cs.selector, state.cs.base, state.rip),
            (0x9a00, 0x9a000, 0)
        );
    }

    #[test]
    fn access_rights_leave_room_for_the_limit() {
        assert_eq!(super::unpack_access(0xc9b), 0xc09b);
        assert_eq!(super::unpack_access(0x8b), 0x8b);
    }

    #[test]
    fn a_pvh_guest_finds_its_start_info_in_ebx() {
        let state = InitialState::pvh(0x100_0850, 0x4a0_0000);
        assert_eq!((state.rip, state.regs.rbx), (0x100_0850, 0x4a0_0000));
    }
}
