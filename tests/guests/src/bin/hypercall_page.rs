//! The hypercall page: its stubs, calls through them, writing it again.
#![no_std]
#![no_main]

use abi::Errno;
use abi::hypercall::{IRET_SLOT, PAGE_SLOTS, STUB_SIZE, XEN_VERSION};
use guests::memory::Page;
use guests::report::Report;
use guests::{check, check_eq, xen};
use pv_drivers::hypercall::{Bare, bare};

guests::main!(run);

static PAGE: Page = Page::new();
static SECOND: Page = Page::new();

fn run(t: &mut Report) {
    let page = match xen::hypercall_page(&PAGE) {
        Ok(page) => page,
        Err(fault) => {
            check!(t, false, "the MSR takes a page ({fault:?})");
            return;
        }
    };
    for (slot, number) in (0..PAGE_SLOTS).zip(0_u8..) {
        let mut stub = [0; STUB_SIZE];
        PAGE.view().read(slot * STUB_SIZE, &mut stub);
        if slot == IRET_SLOT {
            check_eq!(
                t,
                stub.first_chunk(),
                Some(&[0x0f, 0x0b]),
                "the stub of iret is no instruction"
            );
        } else if slot < 64 {
            // mov eax, slot; vmcall; ret
            let wanted = [0xb8, number, 0, 0, 0, 0x0f, 0x01, 0xc1, 0xc3];
            check_eq!(t, stub.first_chunk(), Some(&wanted), "stub {slot}");
        }
    }
    let version = bare(Bare::XenVersion);
    let nr = usize::try_from(XEN_VERSION).unwrap_or(0);
    check_eq!(
        t,
        xen::call_through(page, nr, [0; 5]),
        version,
        "xen_version through the page"
    );
    let unknown = xen::call_through(page, 63, [0; 5]);
    check!(
        t,
        unknown.is_err_and(|refused| refused == Errno::Enosys),
        "slot 63 ({unknown:?})"
    );

    let second = xen::hypercall_page(&SECOND);
    let through_second = second.map(|page| xen::call_through(page, nr, [0; 5]));
    check_eq!(t, through_second, Ok(version), "a second page works too");
    check_eq!(
        t,
        xen::call_through(page, nr, [0; 5]),
        version,
        "and the first one still does"
    );
}
