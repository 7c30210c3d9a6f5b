//! Changes of a domain's memory by lists of extents: `XENMEM_populate_physmap` and
//! `XENMEM_decrease_reservation` (`public/memory.h`).
//!
//! The result is the number of extents done, whatever stopped the rest. Work is done in batches;
//! between two of them the guest repeats its call with the progress in the upper bits of the
//! command.

use abi::memory::{CMD_BITS, CompatReservation, DOMU_MAX_ORDER, Reservation};
use abi::{Errno, Gfn};

use super::{Args, Ctx, HypercallOutcome};
use crate::domain::Domain;
use crate::mm::guest_mem::GuestMemory;
use crate::mm::p2m::{Backing, Flush, P2m, PageKind};

/// Frames changed in one batch, unless a single extent has more.
const BATCH_FRAMES: u64 = 512;

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
    let acceptable = ctx.check_own(reservation.domid).is_ok()
        && reservation.nr_extents <= u64::MAX >> CMD_BITS
        && reservation.extent_order <= DOMU_MAX_ORDER;
    if !acceptable {
        return HypercallOutcome::Done(start);
    }
    match batch(ctx, change, &reservation, start) {
        Progress::Stopped(done) => HypercallOutcome::Done(done),
        Progress::Paused(done) => {
            let operation = command & ((1 << CMD_BITS) - 1);
            HypercallOutcome::Preempted([done << CMD_BITS | operation, arg, a, b, c])
        }
    }
}

enum Progress {
    /// So many extents are done, and no more will be.
    Stopped(u64),
    /// So many extents are done for now.
    Paused(u64),
}

fn batch(ctx: &Ctx<'_, '_>, change: Change, list: &Reservation, start: u64) -> Progress {
    let domain = ctx.domain();
    let frames = 1u64 << list.extent_order;
    let mut budget = BATCH_FRAMES;
    let mut done = start;
    let mut duties = Duties::default();
    let mut failed = false;
    let mut p2m = domain.p2m.write();
    while done < list.nr_extents && budget != 0 {
        let extent = extent(ctx, &p2m, list.extent_start, done);
        let changed = extent.and_then(|gfn| match change {
            Change::Decrease => decrease(&mut p2m, gfn, frames, &mut duties),
            Change::Populate => populate(&mut p2m, gfn, frames, domain),
        });
        if changed.is_err() {
            failed = true;
            break;
        }
        done = done.saturating_add(1);
        budget = budget.saturating_sub(frames);
    }
    drop(p2m);
    for flush in duties.all() {
        domain.complete(flush);
    }
    if failed || done >= list.nr_extents {
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

fn decrease(p2m: &mut P2m, first: Gfn, frames: u64, duties: &mut Duties) -> Result<(), Errno> {
    for offset in 0..frames {
        let gfn = first.checked_add(offset).ok_or(Errno::Einval)?;
        // Pages that the hypervisor shares with the guest are not the guest's to give back.
        match p2m.lookup(gfn) {
            Some(entry) if entry.kind == PageKind::Ram => {}
            Some(_) | None => return Err(Errno::Enoent),
        }
        let flush = p2m.remove(gfn)?;
        duties.add(flush)?;
    }
    Ok(())
}

fn populate(p2m: &mut P2m, gfn: Gfn, frames: u64, domain: &Domain) -> Result<(), Errno> {
    let after = domain.memory().checked_add(frames).ok_or(Errno::Enomem)?;
    if after > domain.max_pages {
        return Err(Errno::Enomem);
    }
    p2m.populate(gfn, frames, Backing::Now)
}

/// What the changes of a batch leave to do: one duty, or two when memory to merge them is short.
#[derive(Default)]
struct Duties {
    first: Option<Flush>,
    second: Option<Flush>,
}

impl Duties {
    fn add(&mut self, flush: Flush) -> Result<(), Errno> {
        let Some(first) = &mut self.first else {
            self.first = Some(flush);
            return Ok(());
        };
        match first.merge(flush) {
            Ok(()) => Ok(()),
            Err(flush) => {
                self.second = Some(flush);
                Err(Errno::Enomem)
            }
        }
    }

    fn all(self) -> impl Iterator<Item = Flush> {
        self.first.into_iter().chain(self.second)
    }
}
