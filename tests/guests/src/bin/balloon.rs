//! Memory that goes from one domain to another: the taker takes all there is, the first domain gives
//! some of its own, full of secrets, and the taker gets that, zeroed.
#![no_std]
#![no_main]

use abi::hypercall::MEMORY_OP;
use abi::memory::{
    CURRENT_RESERVATION, DECREASE_RESERVATION, DomainArg, MAXIMUM_RESERVATION, POPULATE_PHYSMAP,
    Reservation,
};
use abi::{DomId, PAGE_SIZE};
use guests::pair::Pair;
use guests::report::Report;
use guests::{check, check_eq, cpu, xen};
use pv_drivers::hypercall::{Reply, command};
use zerocopy::FromZeros;

guests::main!(run);

/// Frames that change hands, above everything that the runtime uses.
const GIVEN: u64 = 1024;
const GIVEN_AT: u64 = 2048;
/// Where the taker puts large extents, small ones, and those that it is given.
const LARGE_AT: u64 = 0x1_0000;
const SMALL_AT: u64 = 0x8_0000;
const TAKEN_AT: u64 = 0xa_0000;
/// Frames that page tables and the like may take of what is given.
const OVERHEAD: u64 = 128;
/// Frames of a large extent.
const LARGE: u64 = 512;
const SECRET: u64 = 0xdead_beef_0bad_cafe;
/// Frames one call names.
const LIST: usize = 512;

fn run(t: &mut Report) {
    let pair = Pair::meet();
    let list = &mut [0; LIST];
    if pair.first {
        give(t, pair, list);
    } else {
        take(t, pair, list);
    }
}

fn reservation(cmd: u64) -> u64 {
    let mut argument = DomainArg {
        domid: DomId::SELF.0,
    };
    command(MEMORY_OP, cmd, &mut argument).unwrap_or(0)
}

/// Changes `count` extents of `2^order` frames that follow each other from `first` on.
fn change(cmd: u64, list: &mut [u64; LIST], first: u64, count: u64, order: u32) -> Reply {
    for (slot, extent) in list.iter_mut().zip(0..count) {
        *slot = first + (extent << order);
    }
    let mut argument = Reservation::new_zeroed();
    argument.extent_start = list.as_ptr() as u64;
    argument.nr_extents = count;
    argument.extent_order = order;
    argument.domid = DomId::SELF.0;
    xen::command(MEMORY_OP, cmd, &mut argument)
}

/// Does so with the frames that change hands; answers how many did.
fn change_given(cmd: u64, list: &mut [u64; LIST], first: u64) -> u64 {
    (0..GIVEN)
        .step_by(LIST)
        .map(|at| change(cmd, list, first + at, LIST as u64, 0).unwrap_or(0))
        .sum()
}

fn words(first: u64, count: u64) -> impl Iterator<Item = u64> {
    (first * PAGE_SIZE as u64..(first + count) * PAGE_SIZE as u64).step_by(8)
}

fn all_zero(first: u64, count: u64) -> bool {
    words(first, count).all(|address| cpu::read64(address) == Ok(0))
}

fn scribble(first: u64, count: u64) {
    for address in words(first, count) {
        let _ = cpu::write64(address, SECRET);
    }
}

fn give(t: &mut Report, pair: Pair, list: &mut [u64; LIST]) {
    // A page of its own had to go where the shared one appeared.
    let (start, now) = (
        reservation(CURRENT_RESERVATION),
        reservation(MAXIMUM_RESERVATION),
    );
    let over = change(POPULATE_PHYSMAP, list, LARGE_AT, 3, 0);
    check_eq!(t, over, Ok(now - start), "three pages more than it had");
    check_eq!(t, reservation(CURRENT_RESERVATION), now, "all it may have");
    scribble(GIVEN_AT, GIVEN);
    // Until nothing is left.
    pair.sync();
    let given = change_given(DECREASE_RESERVATION, list, GIVEN_AT);
    check_eq!(t, given, GIVEN, "frames given");
    check_eq!(t, reservation(CURRENT_RESERVATION), now - GIVEN, "the rest");
    let gone = cpu::read64(GIVEN_AT * PAGE_SIZE as u64);
    check_eq!(t, gone, Ok(u64::MAX), "a frame given");
    pair.sync();
    // Until the taker has given them back.
    pair.sync();
    let back = change_given(POPULATE_PHYSMAP, list, GIVEN_AT);
    check_eq!(t, back, GIVEN, "frames asked back");
    check!(t, all_zero(GIVEN_AT, GIVEN), "what the other left in them");
    check_eq!(t, reservation(CURRENT_RESERVATION), now, "as before");
    pair.sync();
}

fn take(t: &mut Report, pair: Pair, list: &mut [u64; LIST]) {
    let (start, most) = (
        reservation(CURRENT_RESERVATION),
        reservation(MAXIMUM_RESERVATION),
    );
    check!(
        t,
        most > start + LARGE * LARGE / 2,
        "room above {start}: {most}"
    );
    let large = change(POPULATE_PHYSMAP, list, LARGE_AT, LIST as u64, 9).unwrap_or(0);
    check!(
        t,
        large > 16 && large < 500,
        "large extents, until there are no more: {large}"
    );
    let mut small = 0;
    loop {
        let some = change(POPULATE_PHYSMAP, list, SMALL_AT + small, LIST as u64, 0);
        small += some.unwrap_or(0);
        if some != Ok(LIST as u64) {
            break;
        }
    }
    let taken = start + large * LARGE + small;
    check_eq!(t, reservation(CURRENT_RESERVATION), taken, "what was taken");
    check!(t, taken < most, "memory ran out, not the right to it");
    let none = change(POPULATE_PHYSMAP, list, TAKEN_AT, 1, 0);
    check_eq!(t, none, Ok(0), "one more");
    // The first touch of a frame may be long after it was given.
    let touched = cpu::read64((LARGE_AT + LARGE + 3) * PAGE_SIZE as u64);
    check_eq!(t, touched, Ok(0), "a large extent");
    pair.sync();
    // Until the first domain has given.
    pair.sync();
    let got = change_given(POPULATE_PHYSMAP, list, TAKEN_AT);
    // Some went where the hypervisor needed them to map all this.
    check!(
        t,
        (GIVEN - OVERHEAD..=GIVEN).contains(&got),
        "frames taken: {got}"
    );
    check!(t, all_zero(TAKEN_AT, got), "what the first left in them");
    scribble(TAKEN_AT, got);
    let back = change_given(DECREASE_RESERVATION, list, TAKEN_AT);
    check_eq!(t, back, got, "frames given back");
    let back = change(DECREASE_RESERVATION, list, LARGE_AT, large, 9);
    check_eq!(t, back, Ok(large), "large extents given back");
    check_eq!(
        t,
        reservation(CURRENT_RESERVATION),
        start + small,
        "the rest"
    );
    pair.sync();
    pair.sync();
}
