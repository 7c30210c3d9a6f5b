//! Memory in pages of 1 GiB, in a domain that is given all of it zeroed at its start: nothing is
//! touched for the first time, and what changes in the midst of such a page changes nothing beside.
//! Restarts until its domain's id is `last=`.
#![no_std]
#![no_main]

use abi::grant_table::status;
use abi::sched::reason;
use abi::{GrantRef, PAGE_SHIFT, PAGE_SIZE};
use guests::grants;
use guests::memory::Page;
use guests::report::Report;
use guests::xen::{self, SharedInfo};
use guests::{check, check_eq, cpu, runtime, say};

guests::main!(run);

/// Behind this guest's image and whatever the builder puts there.
const FIRST: u64 = 16 << 20;
/// A word is looked at in each 512 KiB.
const STRIDE: usize = 512 << 10;
/// A page in the midst of the second GiB, and 2 MiB elsewhere in it.
const SMALL: u64 = 0x5_4321;
const LARGE: u64 = 0x6_0000;
const LARGE_ORDER: u32 = 9;
const GREF: GrantRef = GrantRef(8);

static PAGE: Page = Page::new();

fn run(t: &mut Report) {
    let end = runtime::option("mib").unwrap_or(0) << 20;
    check!(t, end > (SMALL + 1) << PAGE_SHIFT, "memory beyond 1 GiB");
    let mut worst = 0;
    for word in words(end) {
        let before = cpu::rdtsc();
        let found = cpu::read64(word);
        worst = worst.max(cpu::rdtsc() - before);
        if found != Ok(0) || cpu::write64(word, word) != Ok(()) {
            check!(t, false, "a zero to begin with at {word:#x}: {found:?}");
            return;
        }
    }
    say!("worst access {worst} ticks");
    one_page(t);
    is_as_it_was(t, end, &[SMALL]);
    large_page(t);
    is_as_it_was(t, end, &[SMALL]);
    if u64::from(xen::domid().0) < runtime::option("last").unwrap_or(0) {
        // Whoever asks sooner is not restarted.
        let shared = SharedInfo::map();
        shared.spin_until(shared.now() + 1_100_000_000);
        runtime::end(reason::REBOOT);
    }
}

/// The words that are looked at: the last ones of their pages.
fn words(end: u64) -> impl Iterator<Item = u64> {
    (FIRST..end)
        .step_by(STRIDE)
        .map(|at| at + PAGE_SIZE as u64 - 8)
}

/// All memory but these frames is what it was made, at their borders too.
fn is_as_it_was(t: &mut Report, end: u64, but: &[u64]) {
    let bad = words(end)
        .filter(|word| !but.contains(&(word >> PAGE_SHIFT)))
        .filter(|word| cpu::read64(*word) != Ok(*word))
        .count();
    check_eq!(t, bad, 0, "words that changed");
}

/// A page goes, another one appears in its place by grant, and one comes back.
fn one_page(t: &mut Report) {
    let [before, at, behind] = [SMALL - 1, SMALL, SMALL + 1].map(|gfn| gfn << PAGE_SHIFT);
    for page in [before, at, behind] {
        check_eq!(t, cpu::write64(page, page), Ok(()), "a mark");
    }
    let start = cpu::rdtsc();
    let gone = xen::decrease_reservation(&[SMALL]);
    say!("split {} ticks", cpu::rdtsc() - start);
    check_eq!(t, gone, Ok(1), "giving a page back");
    check_eq!(t, cpu::read64(at), Ok(u64::MAX), "the page given back");

    check!(t, grants::table().is_ok(), "the grant table");
    let me = xen::domid();
    grants::write_entry(GREF, abi::grant_table::flags::PERMIT_ACCESS, me, PAGE.gfn());
    let gfn = abi::Gfn::new(SMALL);
    let mapped = grants::map(me, GREF, gfn, false);
    check!(t, mapped.is_ok(), "a grant in its place: {mapped:?}");
    check_eq!(t, cpu::write64(at, 0x1234), Ok(()), "writing it");
    check_eq!(t, cpu::read64(PAGE.address()), Ok(0x1234), "one page");
    let unmapped = grants::unmap(mapped.unwrap_or(u32::MAX), gfn);
    check_eq!(t, unmapped, status::OKAY, "and unmapping");
    check_eq!(t, cpu::read64(at), Ok(u64::MAX), "the grant is gone");

    check_eq!(t, xen::populate_physmap(&[SMALL]), Ok(1), "a page back");
    check_eq!(t, cpu::read64(at), Ok(0), "zeroed");
    for page in [before, behind] {
        check_eq!(t, cpu::read64(page), Ok(page), "its neighbours");
    }
}

/// 2 MiB go at once and come back.
fn large_page(t: &mut Report) {
    let [before, at, behind] = [LARGE - 1, LARGE, LARGE + (1 << LARGE_ORDER)];
    let [before, at, behind] = [before, at, behind].map(|gfn| gfn << PAGE_SHIFT);
    for page in [before, behind] {
        check_eq!(t, cpu::write64(page, page), Ok(()), "a mark");
    }
    let gone = xen::decrease_by_extents(&[LARGE], LARGE_ORDER);
    check_eq!(t, gone, Ok(1), "giving 2 MiB back");
    for word in [at, at + (1 << 20), behind - 8] {
        check_eq!(t, cpu::read64(word), Ok(u64::MAX), "what was given back");
    }
    let back = xen::populate_extents(&[LARGE], LARGE_ORDER);
    check_eq!(t, back, Ok(1), "2 MiB back");
    for word in words(behind).filter(|word| *word >= at) {
        check_eq!(t, cpu::read64(word), Ok(0), "zeroed");
        let _ = cpu::write64(word, word);
    }
    for page in [before, behind] {
        check_eq!(t, cpu::read64(page), Ok(page), "its neighbours");
    }
}
