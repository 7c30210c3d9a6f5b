//! Changes of a domain's memory by lists of extents: `XENMEM_populate_physmap` and
//! `XENMEM_decrease_reservation` (`public/memory.h`).
//!
//! The result is the number of extents done, whatever stopped the rest. Work is done in batches;
//! between two of them the guest repeats its call with the progress in the upper bits of the
//! command. It counts pages, since a large extent of small pages takes several batches to give back.

use abi::memory::{
    CMD_BITS, CompatReservation, DOMU_MAX_ORDER, MAX_EXTENTS, MEMF_ADDRESS_BITS, MEMF_EXACT_NODE,
    MEMF_NODE_MASK, MEMF_NODE_SHIFT, MEMF_POPULATE_ON_DEMAND, MEMF_VNODE, Reservation,
};
use abi::{Errno, Gfn, PAGE_SHIFT};

use super::{Args, Ctx, HypercallOutcome, memory};
use crate::domain::Domain;
use crate::mm::guest_mem::GuestMemory;
use crate::mm::p2m::{Backing, P2m};

/// What one batch may cost, in instructions, roughly.
const BUDGET: u64 = 16_000;
/// What filling an extent costs besides its pages.
const EXTENT_COST: u64 = 1_200;
/// What a page of it costs that is not zeroed yet.
const PAGE_COST: u64 = 25;
/// What zeroing a page costs.
const ZEROING_COST: u64 = 700;
/// Extents of up to 2^this pages are zeroed at once: the guest is about to use them. Larger ones
/// are at their first touch, a page at a time.
const EAGER_ORDER: u32 = 4;

/// What happens to each extent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// Its frames are given back.
    Decrease,
    /// It is filled with zeroed memory.
    Populate,
}

/// `XENMEM_increase_reservation`: memory without a place in the guest's physical map would be
/// out of its reach, so none is given.
pub(super) const fn increase([command, ..]: Args) -> HypercallOutcome {
    HypercallOutcome::Done(command >> CMD_BITS)
}

/// Carries out one batch of a change.
pub(super) fn change(ctx: &Ctx<'_, '_>, change: Change, args: Args) -> HypercallOutcome {
    let [command, arg, a, b, c] = args;
    let start = command >> CMD_BITS;
    let Ok(reservation) = ctx.read_either::<Reservation, CompatReservation>(arg) else {
        return HypercallOutcome::Done(start);
    };
    if !acceptable(&reservation, change, start) || ctx.check_own(reservation.domid).is_err() {
        return HypercallOutcome::Done(extents(start, &reservation));
    }
    match batch(ctx, change, &reservation, start) {
        Progress::Stopped(done) => HypercallOutcome::Done(extents(done, &reservation)),
        Progress::Paused(done) => {
            let command = done << CMD_BITS | memory::operation(command);
            HypercallOutcome::Preempted([command, arg, a, b, c])
        }
    }
}

/// How many whole extents so many pages are.
fn extents(pages: u64, list: &Reservation) -> u64 {
    pages.checked_shr(list.extent_order).unwrap_or(0)
}

/// True for a list that can be worked on from page `start` on. Wishes about the memory's place are
/// checked as Xen checks them, and then granted by leaving the choice to the allocator.
const fn acceptable(list: &Reservation, change: Change, start: u64) -> bool {
    let flags = list.mem_flags;
    let bits = flags & MEMF_ADDRESS_BITS;
    let no_memory_so_low = bits != 0 && bits <= PAGE_SHIFT;
    let node = flags >> MEMF_NODE_SHIFT & MEMF_NODE_MASK;
    let needs_node = node != 0 && flags & MEMF_EXACT_NODE != 0 && flags & MEMF_VNODE == 0;
    // No domain may leave holes of its own to be filled when it touches them.
    let on_demand = matches!(change, Change::Populate) && flags & MEMF_POPULATE_ON_DEMAND != 0;
    list.nr_extents <= MAX_EXTENTS
        && list.extent_order <= DOMU_MAX_ORDER
        && start >> list.extent_order < list.nr_extents
        && !no_memory_so_low
        && !needs_node
        && !on_demand
}

enum Progress {
    /// So many pages are done, and no more will be.
    Stopped(u64),
    /// So many pages are done for now.
    Paused(u64),
}

/// What filling an extent costs, in instructions, roughly.
const fn cost(order: u32) -> u64 {
    let zeroing = if order <= EAGER_ORDER {
        ZEROING_COST
    } else {
        0
    };
    EXTENT_COST.saturating_add(PAGE_COST.saturating_add(zeroing) << order)
}

fn batch(ctx: &Ctx<'_, '_>, change: Change, list: &Reservation, start: u64) -> Progress {
    let domain = ctx.domain();
    let size = 1_u64 << list.extent_order;
    // Beyond, a narrow command would have no room for the progress.
    let end = list.nr_extents.saturating_mul(size);
    let limit = end.min(MAX_EXTENTS);
    let mut budget = BUDGET;
    let mut done = start;
    let mut failed = false;
    let mut p2m = domain.p2m.write();
    let mut duty = p2m.batch();
    while done < limit && budget != 0 {
        let extent = extent(ctx, &p2m, list.extent_start, extents(done, list));
        let pages = extent.and_then(|first| match change {
            Change::Decrease => {
                let offset = done & size.wrapping_sub(1);
                let at = first.checked_add(offset).ok_or(Errno::Einval)?;
                p2m.remove_extent(at, size.saturating_sub(offset), &mut budget, &mut duty)
            }
            Change::Populate => {
                budget = budget.saturating_sub(cost(list.extent_order));
                populate(&mut p2m, first, list.extent_order, domain).map(|()| size)
            }
        });
        let Ok(pages) = pages else {
            failed = true;
            break;
        };
        done = done.saturating_add(pages);
    }
    drop(p2m);
    domain.complete(duty);
    if failed || done >= limit {
        Progress::Stopped(done)
    } else {
        Progress::Paused(done)
    }
}

/// Reads one entry of the list, with the p2m at hand.
fn extent(ctx: &Ctx<'_, '_>, p2m: &P2m, list: u64, index: u64) -> Result<Gfn, Errno> {
    ctx.read_element_in::<u64, u32>(&GuestMemory::new(p2m, &ctx.v.cpu.pages), list, index)
        .map(Gfn::new)
}

fn populate(p2m: &mut P2m, first: Gfn, order: u32, domain: &Domain) -> Result<(), Errno> {
    let after = domain.memory().saturating_add(1 << order);
    if after > domain.max_pages {
        return Err(Errno::Enomem);
    }
    let backing = if order <= EAGER_ORDER {
        Backing::Now
    } else {
        Backing::OnTouch
    };
    let order = u8::try_from(order).map_err(|_| Errno::Einval)?;
    p2m.populate_extent(first, order, backing)
}

#[cfg(test)]
mod tests {
    use super::{BUDGET, Change, Reservation, acceptable, cost};
    use abi::memory::{
        DOMU_MAX_ORDER, MAX_EXTENTS, MEMF_EXACT_NODE, MEMF_POPULATE_ON_DEMAND, MEMF_VNODE,
    };
    use zerocopy::FromZeros;

    fn list(change: impl Fn(&mut Reservation)) -> Reservation {
        let mut list = Reservation::new_zeroed();
        list.nr_extents = 3;
        change(&mut list);
        list
    }

    fn accepts(change: impl Fn(&mut Reservation)) -> bool {
        acceptable(&list(change), Change::Populate, 0)
    }

    #[test]
    fn what_xen_refuses_is_refused() {
        assert!(accepts(|_| ()));
        assert!(!acceptable(&list(|_| ()), Change::Populate, 3));
        assert!(accepts(|list| list.nr_extents = MAX_EXTENTS));
        assert!(!accepts(|list| list.nr_extents = MAX_EXTENTS + 1));
        assert!(accepts(|list| list.extent_order = DOMU_MAX_ORDER));
        assert!(!accepts(|list| list.extent_order = DOMU_MAX_ORDER + 1));
        assert!(accepts(|list| list.mem_flags = 32));
        assert!(!accepts(|list| list.mem_flags = 12));
    }

    #[test]
    fn a_node_may_be_wished_for_but_not_insisted_on() {
        // Every node there can be.
        assert!((0..=0xff).all(|node| accepts(|list| list.mem_flags = node << 8)));
        assert!(!accepts(|list| list.mem_flags = 1 << 8 | MEMF_EXACT_NODE));
        assert!(accepts(
            |list| list.mem_flags = 1 << 8 | MEMF_EXACT_NODE | MEMF_VNODE
        ));
        assert!(accepts(|list| list.mem_flags = MEMF_EXACT_NODE));
    }

    #[test]
    fn memory_on_demand_is_not_for_oneself() {
        let list = list(|list| list.mem_flags = MEMF_POPULATE_ON_DEMAND);
        assert!(!acceptable(&list, Change::Populate, 0));
        assert!(acceptable(&list, Change::Decrease, 0));
    }

    #[test]
    fn an_extent_keeps_within_the_budget() {
        for order in 0..=DOMU_MAX_ORDER {
            assert!(cost(order) <= BUDGET);
        }
    }
}
