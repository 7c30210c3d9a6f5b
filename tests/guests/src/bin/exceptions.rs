//! Exceptions and single steps around instructions the hypervisor handles.
#![no_std]
#![no_main]

use guests::check_eq;
use guests::cpu::{self, Fault};
use guests::report::Report;

guests::main!(run);

const CR0_NE: u64 = 1 << 5;
const CR0_CD: u64 = 1 << 30;
const CR4_VMXE: u64 = 1 << 13;
const CR4_PGE: u64 = 1 << 7;

fn run(t: &mut Report) {
    faults(t);
    control_register_0(t);
    control_register_4(t);
}

fn faults(t: &mut Report) {
    check_eq!(t, cpu::ud2(), Err(Fault::UD), "UD2");
    check_eq!(t, cpu::vmxon(), Err(Fault::UD), "VMXON");
    check_eq!(
        t,
        cpu::read8(1 << 33),
        Err(Fault {
            vector: 14,
            error: 0
        }),
        "an unmapped page"
    );
    let write = Err(Fault {
        vector: 14,
        error: 2,
    });
    check_eq!(
        t,
        cpu::write8(1 << 33, 0),
        write,
        "writing an unmapped page"
    );
    check_eq!(t, cpu::cr2(), 1 << 33, "its address");
    check_eq!(
        t,
        cpu::read8(1 << 47),
        Err(Fault::GP),
        "an address that is none"
    );
    check_eq!(t, cpu::wbinvd(), Ok(()), "WBINVD");
}

/// CR0: the guest reads what it wrote, also bits the hardware must have otherwise.
fn control_register_0(t: &mut Report) {
    let cr0 = cpu::cr0();
    check_eq!(t, cpu::write_cr0(cr0 & !CR0_NE), Ok(()), "CR0 without NE");
    check_eq!(t, cpu::cr0(), cr0 & !CR0_NE, "reads back without NE");
    check_eq!(t, cpu::write_cr0(cr0), Ok(()), "CR0 with NE");
    check_eq!(t, cpu::cr0(), cr0, "reads back with NE");
    check_eq!(t, cpu::write_cr0(cr0 | CR0_CD), Ok(()), "caches off");
    check_eq!(t, cpu::cr0(), cr0 | CR0_CD, "reads back with CD");
    check_eq!(t, cpu::write_cr0(cr0), Ok(()), "caches on");
    check_eq!(
        t,
        cpu::write_cr0(cr0 & !1),
        Err(Fault::GP),
        "paging without protection"
    );
    check_eq!(
        t,
        cpu::write_cr0(cr0 | 1 << 40),
        Err(Fault::GP),
        "upper half of CR0"
    );
}

fn control_register_4(t: &mut Report) {
    let cr4 = cpu::cr4();
    check_eq!(t, cr4 & CR4_VMXE, 0, "CR4.VMXE reads 0");
    check_eq!(
        t,
        cpu::write_cr4(cr4 | CR4_VMXE),
        Err(Fault::GP),
        "CR4.VMXE is not to be set"
    );
    check_eq!(
        t,
        cpu::write_cr4(cr4 | 1 << 31),
        Err(Fault::GP),
        "a reserved bit of CR4"
    );
    check_eq!(
        t,
        cpu::write_cr4(cr4 & !(1 << 5)),
        Err(Fault::GP),
        "long mode without PAE"
    );
    check_eq!(t, cpu::write_cr4(cr4 | CR4_PGE), Ok(()), "CR4.PGE");
    check_eq!(t, cpu::cr4(), cr4 | CR4_PGE, "reads back with PGE");
    check_eq!(t, cpu::write_cr4(cr4), Ok(()), "CR4 as it was");
}
