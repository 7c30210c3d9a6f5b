//! CPUID: Xen's leaves, and what the ordinary leaves say about a virtual CPU.
#![no_std]
#![no_main]

use abi::cpuid::{
    BASE, HYPERCALL_MSR, LEAF_HVM, LEAF_HYPERCALL_PAGE, LEAF_TIME, LEAF_VERSION, hvm,
};
use guests::cpu::{self, Fault, cpuid};
use guests::report::Report;
use guests::{check, check_eq, say, xen};
use pv_drivers::hypercall::{Bare, bare};

guests::main!(run);

fn run(t: &mut Report) {
    check!(t, xen::present(), "Xen's signature at {BASE:#x}");
    let [max, ..] = cpuid(BASE, 0);
    check!(
        t,
        (BASE + LEAF_HVM..BASE + 0x100).contains(&max),
        "last leaf {max:#x} covers HVM"
    );

    let [version, ..] = cpuid(BASE + LEAF_VERSION, 0);
    say!("Xen version {}.{}", version >> 16, version & 0xffff);
    check!(t, version >> 16 >= 4, "version at least 4");
    check_eq!(
        t,
        bare(Bare::XenVersion),
        Ok(u64::from(version)),
        "xen_version says the same"
    );

    let [pages, msr, ..] = cpuid(BASE + LEAF_HYPERCALL_PAGE, 0);
    check_eq!(
        t,
        (pages, msr),
        (1, HYPERCALL_MSR),
        "one hypercall page by its MSR"
    );

    let [flags, vcpu, domid, _] = cpuid(BASE + LEAF_HVM, 0);
    let wanted = hvm::VCPU_ID_PRESENT | hvm::DOMID_PRESENT;
    check_eq!(t, flags & wanted, wanted, "vCPU and domain ids are there");
    check_eq!(t, vcpu, 0, "this is vCPU 0");
    check!(t, domid < 0x7ff0, "domain id {domid} is a real one");
    let [_, _, khz, _] = cpuid(BASE + LEAF_TIME, 0);
    check!(t, khz > 1000, "TSC frequency of {khz} kHz");

    ordinary(t);
}

/// The leaves every CPU has.
fn ordinary(t: &mut Report) {
    const VMX: u32 = 1 << 5;
    const HYPERVISOR: u32 = 1 << 31;
    // APIC, MTRR, PAT, PGE, FXSR, SSE, SSE2: what a 64-bit kernel wants to see.
    const NEEDED: u32 = 1 << 9 | 1 << 12 | 1 << 13 | 1 << 16 | 1 << 24 | 1 << 25 | 1 << 26;
    let [max, ..] = cpuid(0, 0);
    check!(t, max >= 0xb, "basic leaves up to topology ({max:#x})");
    let [_, misc, ecx, edx] = cpuid(1, 0);
    check_eq!(t, misc >> 24, 0, "initial APIC id");
    check!(t, ecx & HYPERVISOR != 0, "hypervisor bit");
    check!(t, ecx & VMX == 0, "no VMX");
    check_eq!(t, edx & NEEDED, NEEDED, "features a 64-bit kernel needs");
    check_eq!(
        t,
        cpu::vmxon(),
        Err(Fault::UD),
        "VMXON is no instruction here"
    );

    // MCE or MCA may only show when their registers answer.
    if edx & (1 << 7 | 1 << 14) != 0 {
        check!(t, cpu::rdmsr(0x179).is_ok(), "machine-check capability MSR");
    }
    // The current CR4.OSXSAVE shows in CPUID.
    const XSAVE: u32 = 1 << 26;
    const OSXSAVE: u32 = 1 << 27;
    check!(t, ecx & OSXSAVE == 0, "OSXSAVE is off before CR4 says so");
    if ecx & XSAVE != 0 && cpu::write_cr4(cpu::cr4() | 1 << 18).is_ok() {
        let [_, _, ecx, _] = cpuid(1, 0);
        check!(t, ecx & OSXSAVE != 0, "OSXSAVE follows CR4");
        let [valid, enabled_size, max_size, _] = cpuid(0xd, 0);
        check!(t, valid & 3 == 3, "XCR0 may hold x87 and SSE ({valid:#x})");
        check!(
            t,
            enabled_size >= 576 && max_size >= enabled_size,
            "XSAVE sizes make sense"
        );
        check_eq!(t, cpu::xsetbv(0), Err(Fault::GP), "XCR0 without x87");
        check_eq!(
            t,
            cpu::xsetbv(1 << 62 | 3),
            Err(Fault::GP),
            "XCR0 with a bit unknown"
        );
        check_eq!(t, cpu::xsetbv(3), Ok(()), "XCR0 with x87 and SSE");
    }
    let [_, _, _, id] = cpuid(0xb, 0);
    check_eq!(t, id, 0, "x2APIC id");
    let [_, _, extended, long] = cpuid(0x8000_0001, 0);
    check!(t, long & 1 << 29 != 0, "long mode");
    check!(t, extended & 1 << 2 == 0, "no SVM");
}
