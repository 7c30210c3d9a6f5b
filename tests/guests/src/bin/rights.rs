//! Hypercall arguments are held to the rights of the guest's own kernel: SMAP, protection keys.
#![no_std]
#![no_main]

use abi::hypercall::XEN_VERSION;
use abi::{Errno, xen_version};
use guests::memory::{self, Page};
use guests::report::Report;
use guests::rights::{self, CR4_PKE, CR4_SMAP};
use guests::{check_eq, cpu, say};

guests::main!(run);

static ARGUMENT: Page = Page::new();
/// Memory of the guest that holds nothing of its program.
const APART: u64 = 0xa0_0000;
const KEY: u64 = 3;

fn run(t: &mut Report) {
    rights::allow_user_pages();
    let [_, features, more, _] = cpu::cpuid(7, 0);
    if features & 1 << 20 != 0 {
        smap(t);
    } else {
        say!("no SMAP");
    }
    if more & 1 << 3 != 0 {
        keys(t);
    } else {
        say!("no protection keys");
    }
}

/// `XENVER_extraversion`, which writes sixteen bytes.
fn extraversion(at: u64) -> u64 {
    rights::vmcall_without_ac(XEN_VERSION, xen_version::EXTRAVERSION, at)
}

fn refused() -> u64 {
    Errno::Efault.to_rax()
}

fn smap(t: &mut Report) {
    let at = ARGUMENT.address();
    check_eq!(t, extraversion(at), 0, "without SMAP any page will do");
    let cr4 = cpu::cr4();
    check_eq!(t, cpu::write_cr4(cr4 | CR4_SMAP), Ok(()), "CR4.SMAP");
    check_eq!(t, extraversion(at), refused(), "a user page under SMAP");
    let allowed = guests::xen::call(XEN_VERSION, [xen_version::EXTRAVERSION, at, 0, 0, 0]);
    check_eq!(t, allowed, Ok(0), "a user page under SMAP with AC");
    check_eq!(t, cpu::write_cr4(cr4), Ok(()), "CR4 as it was");
}

fn keys(t: &mut Report) {
    let cr4 = cpu::cr4();
    check_eq!(t, cpu::write_cr4(cr4 | CR4_PKE), Ok(()), "CR4.PKE");
    rights::set_key(APART, KEY);
    memory::write(APART, b"untouched");
    check_eq!(t, extraversion(APART), 0, "a key that allows");
    rights::set_pkru(2 << (2 * KEY));
    check_eq!(
        t,
        extraversion(APART),
        refused(),
        "a key that forbids writing"
    );
    rights::set_pkru(1 << (2 * KEY));
    check_eq!(
        t,
        extraversion(APART),
        refused(),
        "a key that forbids access"
    );
    rights::set_pkru(0);
    rights::set_key(APART, 0);
    check_eq!(t, cpu::write_cr4(cr4), Ok(()), "CR4 as it was");
}
