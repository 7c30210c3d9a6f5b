//! The table of feature bits a guest may see. What is not here reads zero.
//!
//! Left out on purpose: VMX and SMX, machine check, the PMU and the debug store, MONITOR, thermal
//! and power control, TSC_ADJUST, TSX, SGX, processor trace, CET, MPX, LA57, user interrupts.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm
)]

use super::{OSPKE, OSXSAVE, Usable};
use crate::policy::cpuid::xstate;

/// One of the four registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Register {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

/// What has to hold for a row of the table to count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Need {
    Nothing,
    Xsave,
    Xsaves,
    Avx,
    Avx512,
    Amx,
    Pkru,
    Invpcid,
    Rdtscp,
    SpecCtrl,
}

/// The needs that are met in a domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Conditions {
    usable: Usable,
    xcr0: u64,
}

impl Conditions {
    pub(super) fn new(usable: &Usable, xcr0: u64) -> Self {
        Self {
            usable: *usable,
            xcr0,
        }
    }

    fn meet(self, need: Need) -> bool {
        let has = |components: u64| self.xcr0 & components == components;
        match need {
            Need::Nothing => true,
            Need::Xsave => has(xstate::LEGACY),
            Need::Xsaves => has(xstate::LEGACY) && self.usable.xsaves,
            Need::Avx => has(xstate::AVX),
            Need::Avx512 => has(xstate::AVX512),
            Need::Amx => has(xstate::AMX),
            Need::Pkru => has(xstate::PKRU),
            Need::Invpcid => self.usable.invpcid,
            Need::Rdtscp => self.usable.rdtscp,
            Need::SpecCtrl => self.usable.spec_ctrl,
        }
    }
}

/// Bits of one register of one subleaf that a guest may see.
struct Row {
    leaf: u32,
    subleaf: u32,
    register: Register,
    need: Need,
    bits: u32,
}

const fn row(leaf: u32, subleaf: u32, register: Register, need: Need, bits: &[u32]) -> Row {
    Row {
        leaf,
        subleaf,
        register,
        need,
        bits: mask(bits),
    }
}

const fn mask(mut bits: &[u32]) -> u32 {
    let mut mask = 0;
    while let [bit, rest @ ..] = bits {
        mask |= 1_u32.rotate_left(*bit);
        bits = rest;
    }
    mask
}

/// XSAVEC or XSAVES: the instructions that give the compacted size a meaning.
pub(super) const COMPACTED: u32 = 1 << 1 | 1 << 3;
pub(super) const INVARIANT_TSC: u32 = 1 << 8;

#[rustfmt::skip]
const ALLOWED: &[Row] = &[
    row(1, 0, Register::Edx, Need::Nothing, &[
        0 /* FPU */, 1 /* VME */, 2 /* DE */, 3 /* PSE */, 4 /* TSC */, 5 /* MSR */, 6 /* PAE */,
        8 /* CX8 */, 9 /* APIC */, 11 /* SEP */, 12 /* MTRR */, 13 /* PGE */, 15 /* CMOV */,
        16 /* PAT */, 17 /* PSE36 */, 19 /* CLFSH */, 23 /* MMX */, 24 /* FXSR */, 25 /* SSE */,
        26 /* SSE2 */, 27 /* SS */,
    ]),
    row(1, 0, Register::Ecx, Need::Nothing, &[
        0 /* SSE3 */, 1 /* PCLMULQDQ */, 9 /* SSSE3 */, 13 /* CX16 */, 17 /* PCID */,
        19 /* SSE4.1 */, 20 /* SSE4.2 */, 22 /* MOVBE */, 23 /* POPCNT */, 25 /* AES */,
        30 /* RDRAND */,
    ]),
    row(1, 0, Register::Ecx, Need::Xsave, &[26 /* XSAVE */]),
    row(1, 0, Register::Ecx, Need::Avx, &[12 /* FMA */, 28 /* AVX */, 29 /* F16C */]),

    row(7, 0, Register::Ebx, Need::Nothing, &[
        0 /* FSGSBASE */, 3 /* BMI1 */, 6 /* FDP_EXCPTN_ONLY */, 7 /* SMEP */, 8 /* BMI2 */,
        9 /* ERMS */, 13 /* no FPU CS/DS */, 18 /* RDSEED */, 19 /* ADX */, 20 /* SMAP */,
        23 /* CLFLUSHOPT */, 24 /* CLWB */, 29 /* SHA */,
    ]),
    row(7, 0, Register::Ebx, Need::Invpcid, &[10 /* INVPCID */]),
    row(7, 0, Register::Ebx, Need::Avx, &[5 /* AVX2 */]),
    row(7, 0, Register::Ebx, Need::Avx512, &[
        16 /* F */, 17 /* DQ */, 21 /* IFMA */, 28 /* CD */, 30 /* BW */, 31 /* VL */,
    ]),
    row(7, 0, Register::Ecx, Need::Nothing, &[
        2 /* UMIP */, 8 /* GFNI */, 25 /* CLDEMOTE */, 27 /* MOVDIRI */, 28 /* MOVDIR64B */,
    ]),
    row(7, 0, Register::Ecx, Need::Pkru, &[3 /* PKU */]),
    row(7, 0, Register::Ecx, Need::Rdtscp, &[22 /* RDPID */]),
    row(7, 0, Register::Ecx, Need::Avx, &[9 /* VAES */, 10 /* VPCLMULQDQ */]),
    row(7, 0, Register::Ecx, Need::Avx512, &[
        1 /* VBMI */, 6 /* VBMI2 */, 11 /* VNNI */, 12 /* BITALG */, 14 /* VPOPCNTDQ */,
    ]),
    row(7, 0, Register::Edx, Need::Nothing, &[
        4 /* FSRM */, 10 /* MD_CLEAR */, 14 /* SERIALIZE */, 29 /* ARCH_CAPABILITIES */,
    ]),
    row(7, 0, Register::Edx, Need::SpecCtrl, &[
        26 /* IBRS and IBPB */, 27 /* STIBP */, 31 /* SSBD */,
    ]),
    row(7, 0, Register::Edx, Need::Avx512, &[
        2 /* 4VNNIW */, 3 /* 4FMAPS */, 8 /* VP2INTERSECT */, 23 /* FP16 */,
    ]),
    row(7, 0, Register::Edx, Need::Amx, &[22 /* BF16 */, 24 /* TILE */, 25 /* INT8 */]),
    row(7, 1, Register::Eax, Need::Nothing, &[
        7 /* CMPCCXADD */, 10 /* FZRM */, 11 /* FSRS */, 12 /* FSRCS */,
    ]),
    row(7, 1, Register::Eax, Need::Avx, &[
        0 /* SHA512 */, 1 /* SM3 */, 2 /* SM4 */, 4 /* AVX_VNNI */, 23 /* AVX_IFMA */,
    ]),
    row(7, 1, Register::Eax, Need::Avx512, &[5 /* BF16 */]),
    row(7, 1, Register::Eax, Need::Amx, &[21 /* FP16 */]),
    row(7, 1, Register::Edx, Need::Nothing, &[14 /* PREFETCHI */]),
    row(7, 1, Register::Edx, Need::Avx, &[
        4 /* VNNI_INT8 */, 5 /* NE_CONVERT */, 10 /* VNNI_INT16 */,
    ]),
    row(7, 1, Register::Edx, Need::Amx, &[8 /* COMPLEX */]),
    row(7, 2, Register::Edx, Need::Nothing, &[5 /* MCDT_NO */]),
    row(7, 2, Register::Edx, Need::SpecCtrl, &[
        0 /* PSFD */, 1 /* IPRED_CTRL */, 2 /* RRSBA_CTRL */, 4 /* BHI_CTRL */,
    ]),

    row(0xd, 1, Register::Eax, Need::Xsave, &[
        0 /* XSAVEOPT */, 1 /* XSAVEC */, 2 /* XGETBV with ECX 1 */,
    ]),
    row(0xd, 1, Register::Eax, Need::Xsaves, &[3 /* XSAVES */]),

    row(0x8000_0001, 0, Register::Ecx, Need::Nothing, &[
        0 /* LAHF in 64-bit mode */, 5 /* LZCNT */, 8 /* PREFETCHW */,
    ]),
    row(0x8000_0001, 0, Register::Edx, Need::Nothing, &[
        11 /* SYSCALL */, 20 /* NX */, 26 /* 1 GiB pages */, 29 /* LM */,
    ]),
    row(0x8000_0001, 0, Register::Edx, Need::Rdtscp, &[27 /* RDTSCP */]),
    row(0x8000_0007, 0, Register::Edx, Need::Nothing, &[8 /* invariant TSC */]),
];

/// Bits a guest sees whatever the host has: they are the hypervisor's own doing.
#[rustfmt::skip]
const FORCED: &[Row] = &[
    row(1, 0, Register::Ecx, Need::Nothing, &[
        21 /* x2APIC */, 24 /* TSC_DEADLINE */, 31 /* hypervisor */,
    ]),
    row(6, 0, Register::Eax, Need::Nothing, &[2 /* ARAT */]),
];

/// The bits of a register that may be passed on from the host.
pub(super) fn allowed(leaf: u32, subleaf: u32, register: Register, met: Conditions) -> u32 {
    ALLOWED
        .iter()
        .filter(|row| (row.leaf, row.subleaf, row.register) == (leaf, subleaf, register))
        .filter(|row| met.meet(row.need))
        .fold(0, |bits, row| bits | row.bits)
}

/// The bits of a register that are set whatever the host has.
pub(super) fn forced(leaf: u32, subleaf: u32, register: Register) -> u32 {
    FORCED
        .iter()
        .filter(|row| (row.leaf, row.subleaf, row.register) == (leaf, subleaf, register))
        .fold(0, |bits, row| bits | row.bits)
}

/// The bit of ECX that says a feature is enabled in CR4: set here when the guest has the feature,
/// cleared for a vCPU that has it off.
pub(super) fn enabled_in_cr4(leaf: u32, subleaf: u32, ecx: u32) -> u32 {
    const XSAVE: u32 = 1 << 26;
    const PKU: u32 = 1 << 3;
    match (leaf, subleaf) {
        (1, 0) if ecx & XSAVE != 0 => OSXSAVE,
        (7, 0) if ecx & PKU != 0 => OSPKE,
        _ => 0,
    }
}
