//! The state that `VCPUOP_initialise` gives a vCPU (`public/hvm/hvm_vcpu.h`), checked so that a
//! VM entry accepts it.

use abi::Errno;
use abi::hvm::{VcpuHvmContext, VcpuHvmX86_32, VcpuHvmX86_64, context_mode};
use vmx::GuestRegs;
use vmx::vmcs::Segment;
use zerocopy::FromBytes;

use crate::vcpu::InitialState;
use crate::vcpu::initial::{flat, unpack_access};

const CR0_PE: u64 = 1 << 0;
const CR0_NW: u64 = 1 << 29;
const CR0_CD: u64 = 1 << 30;
const CR0_PG: u64 = 1 << 31;
/// Bits of CR0 that exist.
const CR0_KNOWN: u64 = 0xe005_003f;
const CR4_PAE: u64 = 1 << 5;
const EFER_SCE: u64 = 1 << 0;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const EFER_NXE: u64 = 1 << 11;
/// RFLAGS bits that a vCPU may start with: all that exist but VM, and the one that is always set.
const RFLAGS_KNOWN: u64 = 0x3d_7fd7;
const RFLAGS_FIXED: u64 = 1 << 1;

/// A 64-bit code segment, and flat data.
const CODE64: u16 = 0xa9b;
const DATA: u16 = 0xc93;
/// A busy TSS.
const TSS_BUSY: u16 = 0x8b;
const TSS_LIMIT: u32 = 0x67;

/// What bounds a vCPU's registers beside the architecture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// CR4 bits the guest may set.
    pub(super) cr4_allowed: u64,
    /// The first address beyond the guest's physical address space.
    pub(super) cr3_end: u64,
}

/// Takes a context apart.
pub(super) fn parse(context: &VcpuHvmContext, limits: Limits) -> Result<InitialState, Errno> {
    if context.pad != 0 {
        return Err(Errno::Einval);
    }
    match context.mode {
        context_mode::MODE_32B => {
            let regs = VcpuHvmX86_32::read_from_prefix(&context.regs);
            mode_32(&regs.map_err(|_| Errno::Einval)?.0, limits)
        }
        context_mode::MODE_64B => {
            let regs = VcpuHvmX86_64::read_from_prefix(&context.regs);
            mode_64(&regs.map_err(|_| Errno::Einval)?.0, limits)
        }
        _ => Err(Errno::Einval),
    }
}

fn mode_32(from: &VcpuHvmX86_32, limits: Limits) -> Result<InitialState, Errno> {
    check(from.pad1 == 0 && from.pad2 == [0; 3])?;
    let control = Control {
        cr0: from.cr0.into(),
        cr3: from.cr3.into(),
        cr4: from.cr4.into(),
        efer: from.efer,
        rflags: from.eflags.into(),
    };
    control.check(limits)?;
    // With both set the CPU would be in 64-bit mode.
    check(control.efer & EFER_LME == 0 || control.cr0 & CR0_PG == 0)?;
    check(from.eip <= from.cs_limit)?;
    let mut regs = GuestRegs::new();
    [regs.rax, regs.rbx, regs.rcx, regs.rdx] =
        [from.eax, from.ebx, from.ecx, from.edx].map(u64::from);
    [regs.rbp, regs.rsi, regs.rdi] = [from.ebp, from.esi, from.edi].map(u64::from);
    let ds = data_segment(from.ds_base, from.ds_limit, from.ds_ar)?;
    Ok(InitialState {
        regs,
        rsp: from.esp.into(),
        rip: from.eip.into(),
        rflags: control.rflags | RFLAGS_FIXED,
        cr0: control.cr0,
        cr3: control.cr3,
        cr4: control.cr4,
        efer: control.efer,
        cs: segment(Use::Code, from.cs_base, from.cs_limit, from.cs_ar)?,
        ds,
        es: data_segment(from.es_base, from.es_limit, from.es_ar)?,
        ss: segment(Use::Stack, from.ss_base, from.ss_limit, from.ss_ar)?,
        fs_gs: flat(DATA),
        tr: segment(Use::Task, from.tr_base, from.tr_limit, from.tr_ar)?,
        full_reset: true,
    })
}

fn mode_64(from: &VcpuHvmX86_64, limits: Limits) -> Result<InitialState, Errno> {
    let control = Control {
        cr0: from.cr0,
        cr3: from.cr3,
        cr4: from.cr4,
        efer: from.efer,
        rflags: from.rflags,
    };
    control.check(limits)?;
    let long = control.cr0 & CR0_PG != 0
        && control.cr4 & CR4_PAE != 0
        && control.efer & EFER_LME != 0
        && is_canonical(from.rip);
    check(long)?;
    let mut regs = GuestRegs::new();
    [regs.rax, regs.rbx, regs.rcx, regs.rdx] = [from.rax, from.rbx, from.rcx, from.rdx];
    [regs.rbp, regs.rsi, regs.rdi] = [from.rbp, from.rsi, from.rdi];
    let tr = Segment {
        selector: 0,
        base: 0,
        limit: TSS_LIMIT,
        access_rights: unpack_access(TSS_BUSY),
    };
    Ok(InitialState {
        regs,
        rsp: from.rsp,
        rip: from.rip,
        rflags: control.rflags | RFLAGS_FIXED,
        cr0: control.cr0,
        cr3: control.cr3,
        cr4: control.cr4,
        efer: control.efer | EFER_LMA,
        cs: flat(CODE64),
        ds: flat(DATA),
        es: flat(DATA),
        ss: flat(DATA),
        fs_gs: flat(DATA),
        tr,
        full_reset: true,
    })
}

const fn check(holds: bool) -> Result<(), Errno> {
    if holds { Ok(()) } else { Err(Errno::Einval) }
}

/// True for an address whose upper 17 bits agree.
const fn is_canonical(address: u64) -> bool {
    let top = address >> 47;
    top == 0 || top == 0x1_ffff
}

struct Control {
    cr0: u64,
    cr3: u64,
    cr4: u64,
    efer: u64,
    rflags: u64,
}

impl Control {
    /// SDM 3A, "Control Registers"; SDM 3C, "Checks on Guest Control Registers, Debug Registers,
    /// and MSRs".
    fn check(&self, limits: Limits) -> Result<(), Errno> {
        let paging = self.cr0 & CR0_PG == 0 || self.cr0 & CR0_PE != 0;
        let caching = self.cr0 & CR0_NW == 0 || self.cr0 & CR0_CD != 0;
        check(paging && caching)?;
        check(self.cr0 & !CR0_KNOWN == 0)?;
        check(self.cr4 & !limits.cr4_allowed == 0 && self.cr3 < limits.cr3_end)?;
        check(self.efer & EFER_LMA == 0 || self.efer & EFER_LME != 0)?;
        check(self.efer & !(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE) == 0)?;
        check(self.rflags & !RFLAGS_KNOWN == 0)
    }
}

/// What a segment register holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Use {
    Code,
    Data,
    Stack,
    Task,
}

/// DS or ES, which may be null.
fn data_segment(base: u32, limit: u32, packed: u16) -> Result<Segment, Errno> {
    if packed == 0 {
        return Ok(Segment {
            selector: 0,
            base: 0,
            limit: 0,
            access_rights: Segment::UNUSABLE,
        });
    }
    segment(Use::Data, base, limit, packed)
}

/// Checks a segment (SDM 3C, "Checks on Guest Segment Registers"). The packed format has the
/// type in bits 3:0, S in 4, DPL in 6:5, P in 7 and AVL, L, D, G in 11:8.
fn segment(for_use: Use, base: u32, limit: u32, packed: u16) -> Result<Segment, Errno> {
    const ACCESSED: u16 = 1 << 0;
    const WRITABLE: u16 = 1 << 1;
    const BUSY: u16 = 1 << 1;
    const EXPAND_DOWN: u16 = 1 << 2;
    const CODE: u16 = 1 << 3;
    const NO_SYSTEM: u16 = 1 << 4;
    const DPL: u16 = 3 << 5;
    const PRESENT: u16 = 1 << 7;
    const LONG: u16 = 1 << 9;
    const GRANULAR: u16 = 1 << 11;
    let has = |bit: u16| packed & bit != 0;
    check(packed >> 12 == 0 && has(PRESENT) && packed & DPL == 0)?;
    check(has(NO_SYSTEM) == (for_use != Use::Task))?;
    let fits = match for_use {
        Use::Code => has(CODE) && !has(EXPAND_DOWN) && !has(LONG),
        Use::Data => !has(CODE) || has(WRITABLE),
        Use::Stack => !has(CODE) && has(WRITABLE),
        Use::Task => (packed | BUSY) & 0xf == TSS_BUSY & 0xf,
    };
    check(fits)?;
    // A loaded segment has been accessed, a loaded task state segment is busy.
    let packed = packed | if for_use == Use::Task { BUSY } else { ACCESSED };
    check(if has(GRANULAR) {
        limit & 0xfff == 0xfff
    } else {
        limit >> 20 == 0
    })?;
    Ok(Segment {
        selector: 0,
        base: base.into(),
        limit,
        access_rights: unpack_access(packed),
    })
}

#[cfg(test)]
mod tests {
    use super::{CODE64, CR0_PE, CR0_PG, CR4_PAE, EFER_LMA, EFER_LME, Limits, parse};
    use abi::Errno;
    use abi::hvm::{VcpuHvmContext, VcpuHvmX86_32, VcpuHvmX86_64};
    use proptest::prelude::{any, proptest};
    use vmx::vmcs::Segment;
    use zerocopy::{FromZeros, IntoBytes};

    const LIMITS: Limits = Limits {
        cr4_allowed: 0x7ff,
        cr3_end: 1 << 39,
    };

    fn context_32(change: impl Fn(&mut VcpuHvmX86_32)) -> VcpuHvmContext {
        let mut regs = VcpuHvmX86_32::new_zeroed();
        regs.eip = 0x10_0000;
        regs.eflags = 2;
        regs.cr0 = 1;
        [regs.cs_limit, regs.ds_limit, regs.ss_limit, regs.es_limit] = [u32::MAX; 4];
        [regs.cs_ar, regs.ds_ar, regs.ss_ar, regs.es_ar] = [0xc9b, 0xc93, 0xc93, 0xc93];
        (regs.tr_limit, regs.tr_ar) = (0x67, 0x8b);
        change(&mut regs);
        let mut context = VcpuHvmContext::new_zeroed();
        context.regs = zerocopy::transmute!(regs);
        context
    }

    fn context_64(change: impl Fn(&mut VcpuHvmX86_64)) -> VcpuHvmContext {
        let mut regs = VcpuHvmX86_64::new_zeroed();
        regs.cr0 = CR0_PE | CR0_PG;
        regs.cr4 = CR4_PAE;
        regs.efer = EFER_LME;
        regs.rip = 0xffff_ffff_8000_0000;
        change(&mut regs);
        let mut context = VcpuHvmContext::new_zeroed();
        context.mode = 1;
        context.regs[..112].copy_from_slice(regs.as_bytes());
        context
    }

    #[test]
    fn a_flat_32_bit_start_is_taken_as_it_is() {
        let state = parse(&context_32(|regs| regs.ebx = 7), LIMITS).unwrap();
        assert_eq!(
            (state.rip, state.regs.rbx, state.cs.access_rights),
            (0x10_0000, 7, 0xc09b)
        );
        let state = parse(&context_32(|regs| regs.tr_ar = 0x89), LIMITS).unwrap();
        assert_eq!(state.tr.access_rights, 0x8b);
        let state = parse(&context_32(|regs| regs.ds_ar = 0), LIMITS).unwrap();
        assert_eq!(state.ds.access_rights, Segment::UNUSABLE);
    }

    #[test]
    fn a_64_bit_start_has_flat_segments() {
        let state = parse(&context_64(|_| ()), LIMITS).unwrap();
        assert_eq!(state.cs, super::flat(CODE64));
        assert_eq!(state.efer, EFER_LME | EFER_LMA);
    }

    #[test]
    fn states_that_no_cpu_takes_are_refused() {
        let bad_32: [fn(&mut VcpuHvmX86_32); 10] = [
            |regs| regs.efer = EFER_LMA,
            |regs| regs.pad1 = 1,
            |regs| regs.eflags = 1 << 17,
            |regs| regs.cr0 = 1 << 31,
            |regs| regs.cr4 = 1 << 13,
            |regs| regs.cs_ar = 0xc93,
            |regs| regs.ss_ar = 0,
            |regs| regs.cs_limit = 0xffff_f000,
            |regs| regs.tr_ar = 0x81,
            |regs| (regs.efer, regs.cr0) = (EFER_LME, 0x8000_0001),
        ];
        for change in bad_32 {
            assert_eq!(
                parse(&context_32(change), LIMITS).err(),
                Some(Errno::Einval)
            );
        }
        let bad_64: [fn(&mut VcpuHvmX86_64); 5] = [
            |regs| regs.rip = 1 << 47,
            |regs| regs.cr0 = CR0_PE,
            |regs| regs.cr3 = 1 << 40,
            |regs| regs.efer = 0,
            |regs| regs.efer |= 1 << 20,
        ];
        for change in bad_64 {
            assert_eq!(
                parse(&context_64(change), LIMITS).err(),
                Some(Errno::Einval)
            );
        }
        let mut context = context_64(|_| ());
        context.mode = 2;
        assert_eq!(parse(&context, LIMITS).err(), Some(Errno::Einval));
    }

    proptest! {
        #[test]
        fn any_context_is_taken_or_refused(bytes in any::<[[u8; 32]; 4]>()) {
            let context: VcpuHvmContext = zerocopy::transmute!(bytes);
            let _ = parse(&context, LIMITS);
        }
    }
}
