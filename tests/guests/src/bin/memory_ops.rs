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
/// An extent of 2 MiB, and where two of them lie.
const ORDER: u32 = 9;
const LARGE: u64 = 1 << ORDER;
const LARGE_FROM: u64 = 4 * LARGE;
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
    extents(t);
}

/// Large extents: whole pages of 2 MiB, and the same made of small ones.
fn extents(t: &mut Report) {
    // Behind all that this guest uses.
    let [first, second] = [LARGE_FROM, LARGE_FROM + LARGE];
    let Ok(start) = reservation(CURRENT_RESERVATION) else {
        check!(t, false, "current reservation");
        return;
    };
    let is_now = |t: &mut Report, pages, what: &str| {
        let now = reservation(CURRENT_RESERVATION);
        check!(t, now == Ok(pages), "{what}: {now:?}, not {pages}");
    };
    let gone = xen::decrease_by_extents(&[first, second], ORDER);
    check_eq!(t, gone, Ok(2), "giving large pages back");
    is_now(t, start - 2 * LARGE, "after that");

    let between = first + 100;
    let filled = xen::populate_extents(&[between, between], ORDER);
    check_eq!(t, filled, Ok(1), "an extent across a border, and again");
    is_now(t, start - LARGE, "with it");
    for page in [between, between + 300, between + LARGE - 1] {
        let at = page * PAGE_SIZE as u64;
        check_eq!(t, cpu::read64(at), Ok(0), "zeros in it");
        check_eq!(t, cpu::write64(at, at), Ok(()), "which can be written");
    }
    // A hole in its midst: what comes before that goes, and the extent does not count.
    let hole = between + 400;
    check_eq!(t, xen::decrease_reservation(&[hole]), Ok(1), "a hole");
    let gone = xen::decrease_by_extents(&[between], ORDER);
    check_eq!(t, gone, Ok(0), "giving an extent with a hole back");
    is_now(t, start - LARGE - 401, "after that");
    for page in between + 401..between + LARGE {
        let _ = xen::decrease_reservation(&[page]);
    }
    is_now(t, start - 2 * LARGE, "after the rest");

    let filled = xen::populate_extents(&[between], ORDER);
    check_eq!(t, filled, Ok(1), "the extent once more");
    let gone = xen::decrease_by_extents(&[between], ORDER);
    check_eq!(t, gone, Ok(1), "giving it back in one call");
    let filled = xen::populate_extents(&[first, second], ORDER);
    check_eq!(t, filled, Ok(2), "large pages again");
    is_now(t, start, "at the end");
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
