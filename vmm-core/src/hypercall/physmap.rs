//! Placing pages in a domain's physical memory: `XENMEM_add_to_physmap`,
//! `XENMEM_add_to_physmap_batch` and `XENMEM_remove_from_physmap` (`public/memory.h`).
//!
//! Order matters: the page is held before it is placed, and what it replaces is let go only when
//! no pCPU can reach it any more ([`Domain::complete`]).
//!
//! Ranges and batches go on where they were when the guest repeats its call with the progress in
//! the upper bits of the command.

use core::sync::atomic::Ordering;

use abi::memory::{
    AddToPhysmap, AddToPhysmapBatch, CMD_BITS, CompatAddToPhysmap, CompatAddToPhysmapBatch,
    CompatRemoveFromPhysmap, RemoveFromPhysmap, SPACE_DEV_MMIO, SPACE_GMFN, SPACE_GMFN_FOREIGN,
    SPACE_GMFN_RANGE, SPACE_GRANT_TABLE, SPACE_SHARED_INFO,
};
use abi::{Errno, Gfn};
use heapless::Vec;

use super::{Args, Ctx, HypercallOutcome, memory};
use crate::domain::Domain;
use crate::mm::p2m::{Flush, P2m, PageKind, Perms};
use crate::mm::page::PageRef;

/// Pages placed in one go.
const BATCH: u16 = 8;
/// The frame that means none.
const NO_GFN: u64 = u64::MAX;

/// What placing one page leaves to do.
type Duties = Vec<Flush, 2>;

/// How far a range or a batch has got.
enum Progress {
    /// To the end.
    Complete,
    /// So many pages are done for now.
    Paused(u16),
}

pub(super) fn add(ctx: &Ctx<'_, '_>, args: Args) -> HypercallOutcome {
    let [command, arg, ..] = args;
    let progress = progress_of(command).and_then(|start| {
        let request = ctx.read_either::<AddToPhysmap, CompatAddToPhysmap>(arg)?;
        if request.space == SPACE_GMFN_FOREIGN {
            return Err(Errno::Enosys);
        }
        check(ctx, request.domid, request.space)?;
        if request.space == SPACE_GMFN_RANGE {
            add_range(ctx.domain(), &request, start)
        } else {
            add_one(ctx.domain(), request.space, request.idx, request.gpfn)
                .map(|()| Progress::Complete)
        }
    });
    outcome(progress, args)
}

pub(super) fn add_batch(ctx: &Ctx<'_, '_>, args: Args) -> HypercallOutcome {
    let [command, arg, ..] = args;
    let progress = progress_of(command).and_then(|start| {
        let batch = ctx.read_either::<AddToPhysmapBatch, CompatAddToPhysmapBatch>(arg)?;
        if u32::from(batch.space) == SPACE_GMFN_RANGE {
            return Err(Errno::Eopnotsupp);
        }
        check(ctx, batch.domid, batch.space.into())?;
        add_list(ctx, &batch, start)
    });
    outcome(progress, args)
}

/// How many pages an earlier part of the call has done.
fn progress_of(command: u64) -> Result<u16, Errno> {
    u16::try_from(command >> CMD_BITS).map_err(|_| Errno::Edom)
}

fn outcome(progress: Result<Progress, Errno>, args: Args) -> HypercallOutcome {
    let [command, arg, a, b, c] = args;
    match progress {
        Ok(Progress::Complete) => HypercallOutcome::Done(0),
        Ok(Progress::Paused(done)) => {
            let command = u64::from(done) << CMD_BITS | memory::operation(command);
            HypercallOutcome::Preempted([command, arg, a, b, c])
        }
        Err(errno) => errno.into(),
    }
}

/// Checks that the caller may change that domain's map from that space.
fn check(ctx: &Ctx<'_, '_>, domid: u16, space: u32) -> Result<(), Errno> {
    match ctx.check_own(domid) {
        Err(Errno::Esrch) => Err(Errno::Esrch),
        // Devices are for the hardware domain, and no guest is that.
        _ if space == SPACE_DEV_MMIO => Err(Errno::Eacces),
        own => own,
    }
}

/// Moves pages of the guest's own to frames that follow each other.
fn add_range(domain: &Domain, request: &AddToPhysmap, start: u16) -> Result<Progress, Errno> {
    let left = request.size.checked_sub(start).ok_or(Errno::Eilseq)?;
    let size = u64::from(request.size);
    if request.gpfn.checked_add(size).is_none() || request.idx.checked_add(size).is_none() {
        return Err(Errno::Eoverflow);
    }
    let end = start.saturating_add(left.min(BATCH));
    for done in start..end {
        let [idx, gpfn] = [request.idx, request.gpfn].map(|at| at.saturating_add(done.into()));
        add_one(domain, SPACE_GMFN, idx, gpfn)?;
    }
    Ok(if end < request.size {
        Progress::Paused(end)
    } else {
        Progress::Complete
    })
}

/// Places the pages of a batch, and notes what became of each.
fn add_list(ctx: &Ctx<'_, '_>, batch: &AddToPhysmapBatch, start: u16) -> Result<Progress, Errno> {
    let left = batch.size.checked_sub(start).ok_or(Errno::Eilseq)?;
    if left == 0 {
        return if start == 0 {
            Ok(Progress::Complete)
        } else {
            Err(Errno::Eilseq)
        };
    }
    let end = start.saturating_add(left.min(BATCH));
    for done in start..end {
        let idx = ctx.read_element::<u64, u32>(batch.idxs, done.into())?;
        let gpfn = ctx.read_element::<u64, u32>(batch.gpfns, done.into())?;
        if gpfn == NO_GFN {
            return Err(Errno::Einval);
        }
        let result = match u32::from(batch.space) {
            // Other domains' pages are mapped by grant.
            SPACE_GMFN_FOREIGN => Err(Errno::Eperm),
            space => add_one(ctx.domain(), space, idx, gpfn),
        };
        let code = match result {
            Ok(()) => 0,
            Err(errno) => (errno as i32).wrapping_neg(),
        };
        let at = u64::from(done).saturating_mul(size_of::<i32>() as u64);
        ctx.write(batch.errs.checked_add(at).ok_or(Errno::Efault)?, &code)?;
    }
    Ok(if end < batch.size {
        Progress::Paused(end)
    } else {
        Progress::Complete
    })
}

/// Places one page of the domain's: `index` in `space` appears at `gpfn`.
fn add_one(domain: &Domain, space: u32, index: u64, gpfn: u64) -> Result<(), Errno> {
    if gpfn == NO_GFN {
        return Err(Errno::Einval);
    }
    let gfn = Gfn::new(gpfn);
    let mut duties = Duties::new();
    let result = match space {
        SPACE_SHARED_INFO if index == 0 => place_shared_info(domain, gfn, &mut duties),
        SPACE_GRANT_TABLE => place_grant_frame(domain, index, gfn, &mut duties),
        SPACE_GMFN => {
            let moved = domain.p2m.write().move_page(Gfn::new(index), gfn);
            moved.map(|flush| {
                // The list is empty.
                let _ = duties.push(flush);
            })
        }
        _ => Err(Errno::Einval),
    };
    // Also when the second of two steps failed: the first one's pages wait for this.
    while let Some(flush) = duties.pop() {
        domain.complete(flush);
    }
    match result {
        // A grant is mapped there, which goes its own way only.
        Err(Errno::Eperm) => Err(Errno::Enxio),
        result => result,
    }
}

pub(super) fn remove(ctx: &Ctx<'_, '_>, arg: u64) -> Result<u64, Errno> {
    let request = ctx.read_either::<RemoveFromPhysmap, CompatRemoveFromPhysmap>(arg)?;
    ctx.check_own(request.domid)?;
    let flush = ctx.domain().p2m.write().remove(Gfn::new(request.gpfn))?;
    ctx.domain().complete(flush);
    Ok(0)
}

fn place_shared_info(domain: &Domain, gfn: Gfn, duties: &mut Duties) -> Result<(), Errno> {
    let mut p2m = domain.p2m.write();
    // Read and written under the p2m's lock only.
    let placed = Gfn::new(domain.shared_info_gfn.load(Ordering::Relaxed));
    let page = domain.shared_info.clone();
    place(&mut p2m, page, Some(placed), gfn, duties)?;
    domain.shared_info_gfn.store(gfn.raw(), Ordering::Relaxed);
    Ok(())
}

/// Places a frame of the grant table, which grows to have it.
fn place_grant_frame(
    domain: &Domain,
    index: u64,
    gfn: Gfn,
    duties: &mut Duties,
) -> Result<(), Errno> {
    let mut grants = domain.grants.lock();
    let (page, placed) = grants.frame(index)?;
    place(&mut domain.p2m.write(), page, placed, gfn, duties)?;
    grants.set_placed(index, gfn);
    Ok(())
}

/// Maps a page that the hypervisor holds at `gfn`, and nowhere else: if it still is at `placed`,
/// where the guest put it before, it leaves from there.
fn place(
    p2m: &mut P2m,
    page: PageRef,
    placed: Option<Gfn>,
    gfn: Gfn,
    duties: &mut Duties,
) -> Result<(), Errno> {
    let mfn = page.mfn();
    let old = placed.filter(|&old| p2m.lookup(old).is_some_and(|entry| entry.mfn == mfn));
    if old == Some(gfn) {
        return Ok(());
    }
    let inserted = p2m.insert_page(gfn, page, PageKind::Shared, Perms::RW)?;
    // Both fit.
    let _ = duties.push(inserted);
    if let Some(old) = old {
        let _ = duties.push(p2m.remove(old)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Duties;
    use crate::mm::frame::Owner;
    use crate::mm::p2m::{Backing, Limits, P2m, PageKind};
    use crate::mm::page::PageRef;
    use crate::mm::testing;
    use abi::{DomId, Errno, Gfn};

    fn p2m() -> P2m {
        testing::init();
        let limits = Limits {
            address_bits: 39,
            large: true,
            giant: false,
            table_frames: u32::MAX,
        };
        let mut p2m = P2m::new(DomId(1), limits).unwrap();
        p2m.populate(Gfn::new(0), 16, Backing::Now).unwrap();
        p2m
    }

    fn place(p2m: &mut P2m, page: PageRef, placed: Option<Gfn>, gfn: Gfn) -> Result<Duties, Errno> {
        let mut duties = Duties::new();
        super::place(p2m, page, placed, gfn, &mut duties).map(|()| duties)
    }

    fn finish(duties: Duties) {
        duties.into_iter().for_each(crate::mm::p2m::Flush::done);
    }

    #[test]
    fn a_shared_page_replaces_memory_and_is_in_one_place_only() {
        let mut p2m = p2m();
        let page = testing::page(Owner::Hypervisor);
        finish(place(&mut p2m, page.clone(), None, Gfn::new(3)).unwrap());
        assert_eq!(p2m.ram_pages(), 15);
        finish(place(&mut p2m, page.clone(), Some(Gfn::new(3)), Gfn::new(0x8000)).unwrap());
        assert_eq!(p2m.lookup(Gfn::new(3)), None);
        let entry = p2m.lookup(Gfn::new(0x8000)).unwrap();
        assert_eq!((entry.mfn, entry.kind), (page.mfn(), PageKind::Shared));
        // Again to where it is.
        let again = place(
            &mut p2m,
            page.clone(),
            Some(Gfn::new(0x8000)),
            Gfn::new(0x8000),
        );
        assert!(again.unwrap().is_empty());
        let far = place(&mut p2m, page, None, Gfn::new(1 << 40));
        assert_eq!(far.unwrap_err(), Errno::Einval);
    }

    #[test]
    fn what_the_guest_put_in_place_of_a_page_stays() {
        let mut p2m = p2m();
        let [first, second] = [(); 2].map(|()| testing::page(Owner::Hypervisor));
        finish(place(&mut p2m, first.clone(), None, Gfn::new(3)).unwrap());
        finish(place(&mut p2m, second.clone(), None, Gfn::new(3)).unwrap());
        // The first page is remembered at 3, but is there no more.
        finish(place(&mut p2m, first, Some(Gfn::new(3)), Gfn::new(4)).unwrap());
        assert_eq!(p2m.lookup(Gfn::new(3)).unwrap().mfn, second.mfn());
    }
}
