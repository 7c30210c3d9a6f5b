//! Giving memory back and asking for it: what is gone reads as ones, what comes is zeroed.
#![no_std]
#![no_main]

use abi::hypercall::MEMORY_OP;
use abi::memory::{
    CURRENT_RESERVATION, DomainArg, MAXIMUM_RESERVATION, REMOVE_FROM_PHYSMAP, RemoveFromPhysmap,
};
use abi::{DomId, PAGE_SIZE};
use guests::memory::Page;
use guests::report::Report;
use guests::{check, check_eq, cpu, xen};
use pv_drivers::hypercall::{Reply, command};
use zerocopy::FromZeros;

guests::main!(run);

const PAGES: usize = 8;
static BALLOON: [Page; PAGES] = [const { Page::new() }; PAGES];

fn reservation(cmd: u64) -> Reply {
    command(
        MEMORY_OP,
        cmd,
        &mut DomainArg {
            domid: DomId::SELF.0,
        },
    )
}

fn run(t: &mut Report) {
    let Ok(start) = reservation(CURRENT_RESERVATION) else {
        check!(t, false, "current reservation");
        return;
    };
    let maximum = reservation(MAXIMUM_RESERVATION);
    check!(
        t,
        maximum.is_ok_and(|pages| pages >= start),
        "maximum {maximum:?}, now {start}"
    );

    let mut frames = [0_u64; PAGES];
    for (frame, page) in frames.iter_mut().zip(&BALLOON) {
        *frame = page.gfn().raw();
        for offset in (0..PAGE_SIZE).step_by(8) {
            let _ = cpu::write64(page.address() + offset as u64, 0xdead_beef_dead_beef);
        }
    }
    check_eq!(
        t,
        xen::decrease_reservation(&frames),
        Ok(PAGES as u64),
        "giving pages back"
    );
    let now = reservation(CURRENT_RESERVATION);
    check_eq!(t, now, Ok(start - PAGES as u64), "the reservation shrank");
    for page in &BALLOON {
        check_eq!(
            t,
            cpu::read64(page.address()),
            Ok(u64::MAX),
            "a page given back"
        );
    }
    let again = xen::decrease_reservation(&frames);
    check_eq!(t, again, Ok(0), "giving back what is not there");
    refill(t, &frames, start);
}

/// Asks for the pages again.
fn refill(t: &mut Report, frames: &[u64; PAGES], start: u64) {
    check_eq!(
        t,
        xen::populate_physmap(frames),
        Ok(PAGES as u64),
        "asking for pages"
    );
    check_eq!(
        t,
        reservation(CURRENT_RESERVATION),
        Ok(start),
        "the reservation is as before"
    );
    for page in &BALLOON {
        let clean = (0..PAGE_SIZE)
            .step_by(8)
            .all(|offset| cpu::read64(page.address() + offset as u64) == Ok(0));
        check!(t, clean, "page {} comes zeroed", page.gfn());
        check_eq!(
            t,
            cpu::write64(page.address(), 1),
            Ok(()),
            "and can be written"
        );
    }

    let mut remove = RemoveFromPhysmap::new_zeroed();
    remove.domid = DomId::SELF.0;
    remove.gpfn = frames[0];
    check_eq!(
        t,
        xen::command(MEMORY_OP, REMOVE_FROM_PHYSMAP, &mut remove),
        Ok(0),
        "removing"
    );
    check_eq!(
        t,
        cpu::read64(BALLOON[0].address()),
        Ok(u64::MAX),
        "a page removed"
    );
}
