//! MSRs: those that exist keep their rules, all others raise #GP.
#![no_std]
#![no_main]

use abi::cpuid::HYPERCALL_MSR;
use guests::cpu::{Fault, cpuid, rdmsr, wrmsr};
use guests::report::Report;
use guests::{check, check_eq};

guests::main!(run);

const FEATURE_CONTROL: u32 = 0x3a;
const SYSENTER_EIP: u32 = 0x176;
const MISC_ENABLE: u32 = 0x1a0;
const DEBUGCTL: u32 = 0x1d9;
const PAT: u32 = 0x277;
const MTRR_CAP: u32 = 0xfe;
const MTRR_DEF_TYPE: u32 = 0x2ff;
const EFER: u32 = 0xc000_0080;
const STAR: u32 = 0xc000_0081;
const LSTAR: u32 = 0xc000_0082;
const SFMASK: u32 = 0xc000_0084;
const FS_BASE: u32 = 0xc000_0100;
const KERNEL_GS_BASE: u32 = 0xc000_0102;

const NON_CANONICAL: u64 = 0x8000_0000_0000;

/// MSRs nobody has, or nobody shows to a guest.
const ABSENT: [u32; 10] = [
    0x1234_5678,
    0xffff_ffff,
    // Outside the range of the VMX bitmap, and just past each of its halves.
    0x0000_2000,
    0xc000_2000,
    // VMX capabilities, first and last.
    0x480,
    0x491,
    // SMM, core capabilities, memory encryption.
    0x9e,
    0xcf,
    0x982,
    // A model-specific curiosity.
    0x1ad,
];

fn run(t: &mut Report) {
    for msr in ABSENT {
        check_eq!(t, rdmsr(msr), Err(Fault::GP), "reading MSR {msr:#x}");
        check_eq!(t, wrmsr(msr, 0), Err(Fault::GP), "writing MSR {msr:#x}");
    }
    for msr in [0x800_u32, 0x802, 0x80b, 0x83f, 0x8ff] {
        check_eq!(
            t,
            rdmsr(msr),
            Err(Fault::GP),
            "x2APIC MSR {msr:#x} in xAPIC mode"
        );
    }
    check_eq!(t, rdmsr(HYPERCALL_MSR), Ok(0), "hypercall MSR reads 0");
    check_eq!(
        t,
        wrmsr(HYPERCALL_MSR, 0x20_0001),
        Err(Fault::GP),
        "hypercall page index 1"
    );
    check_eq!(
        t,
        wrmsr(HYPERCALL_MSR, 1 << 45),
        Err(Fault::GP),
        "hypercall page beyond memory"
    );

    check_eq!(
        t,
        rdmsr(FEATURE_CONTROL).map(|value| value & !1),
        Ok(0),
        "no feature is enabled"
    );
    check_eq!(
        t,
        wrmsr(FEATURE_CONTROL, 5),
        Err(Fault::GP),
        "feature control is locked"
    );

    let misc = rdmsr(MISC_ENABLE);
    check!(
        t,
        misc.is_ok_and(|value| value & 0x1800 == 0x1800),
        "no BTS, no PEBS ({misc:x?})"
    );
    check_eq!(
        t,
        misc.and_then(|same| wrmsr(MISC_ENABLE, same)),
        Ok(()),
        "same value again"
    );
    check_eq!(
        t,
        wrmsr(DEBUGCTL, 1 << 20),
        Err(Fault::GP),
        "reserved bit of DEBUGCTL"
    );

    memory_types(t);
    kept(t);
    efer(t);
}

fn memory_types(t: &mut Report) {
    const RESET: u64 = 0x0007_0406_0007_0406;
    check_eq!(t, rdmsr(PAT), Ok(RESET), "PAT after reset");
    check_eq!(
        t,
        wrmsr(PAT, 0x0007_0506_0007_0106),
        Ok(()),
        "PAT with other types"
    );
    check_eq!(
        t,
        rdmsr(PAT),
        Ok(0x0007_0506_0007_0106),
        "PAT keeps what was written"
    );
    check_eq!(t, wrmsr(PAT, 2), Err(Fault::GP), "PAT with a reserved type");
    check_eq!(t, wrmsr(PAT, RESET), Ok(()), "PAT as it was");
    let cap = rdmsr(MTRR_CAP);
    check!(
        t,
        cap.is_ok_and(|cap| cap & 0xff <= 16),
        "MTRR capabilities ({cap:x?})"
    );
    let default = rdmsr(MTRR_DEF_TYPE);
    check!(
        t,
        default.is_ok_and(|value| value & 0x8ff == 0x806),
        "MTRRs on, memory write-back by default ({default:x?})"
    );
}

/// Registers that keep what is written, and refuse addresses that are none.
fn kept(t: &mut Report) {
    for msr in [LSTAR, FS_BASE, KERNEL_GS_BASE, SYSENTER_EIP] {
        let value = 0xffff_8000_1234_5000 | u64::from(msr & 0xff);
        check_eq!(t, wrmsr(msr, value), Ok(()), "writing MSR {msr:#x}");
        check_eq!(t, rdmsr(msr), Ok(value), "MSR {msr:#x} keeps its value");
        check_eq!(
            t,
            wrmsr(msr, NON_CANONICAL),
            Err(Fault::GP),
            "MSR {msr:#x}, bad address"
        );
        check_eq!(
            t,
            rdmsr(msr),
            Ok(value),
            "MSR {msr:#x} after a refused write"
        );
    }
    check_eq!(t, wrmsr(FS_BASE, 0), Ok(()), "FS base back");
    for msr in [STAR, SFMASK] {
        check_eq!(t, wrmsr(msr, 0x0004_7700), Ok(()), "writing MSR {msr:#x}");
        check_eq!(
            t,
            rdmsr(msr),
            Ok(0x0004_7700),
            "MSR {msr:#x} keeps its value"
        );
    }
}

fn efer(t: &mut Report) {
    const SCE: u64 = 1;
    const LME: u64 = 1 << 8;
    const LMA: u64 = 1 << 10;
    const NXE: u64 = 1 << 11;
    check_eq!(t, rdmsr(EFER), Ok(LME | LMA), "EFER in long mode");
    check_eq!(t, wrmsr(EFER, SCE | LME | LMA), Ok(()), "EFER.SCE");
    check_eq!(t, rdmsr(EFER), Ok(SCE | LME | LMA), "EFER keeps SCE");
    let [_, _, _, features] = cpuid(0x8000_0001, 0);
    if features & 1 << 20 != 0 {
        check_eq!(t, wrmsr(EFER, NXE | LME | LMA), Ok(()), "EFER.NXE");
        check_eq!(t, rdmsr(EFER), Ok(NXE | LME | LMA), "EFER keeps NXE");
    }
    check_eq!(
        t,
        wrmsr(EFER, LMA),
        Err(Fault::GP),
        "EFER.LME off while paging"
    );
    check_eq!(
        t,
        wrmsr(EFER, 1 << 63 | LME),
        Err(Fault::GP),
        "EFER with a reserved bit"
    );
}
