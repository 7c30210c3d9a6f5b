//! Placing pages in a domain's physical memory: `XENMEM_add_to_physmap` and
//! `XENMEM_remove_from_physmap` (`public/memory.h`).
//!
//! Order matters: the page is held before it is placed, and what it replaces is let go only when
//! no pCPU can reach it any more ([`Domain::complete`]).

use core::sync::atomic::Ordering;

use abi::memory::{
    AddToPhysmap, CompatAddToPhysmap, CompatRemoveFromPhysmap, RemoveFromPhysmap, SPACE_DEV_MMIO,
    SPACE_GMFN, SPACE_GRANT_TABLE, SPACE_SHARED_INFO,
};
use abi::{Errno, Gfn};
use heapless::Vec;

use super::Ctx;
use crate::domain::Domain;
use crate::mm::p2m::{Flush, P2m, PageKind, Perms};
use crate::mm::page::PageRef;

/// What placing one page leaves to do.
type Duties = Vec<Flush, 2>;

pub(super) fn add(ctx: &Ctx<'_, '_>, arg: u64) -> Result<u64, Errno> {
    let request = ctx.read_either::<AddToPhysmap, CompatAddToPhysmap>(arg)?;
    ctx.check_own(request.domid)?;
    let (domain, gfn) = (ctx.domain(), Gfn::new(request.gpfn));
    let mut duties = Duties::new();
    let result = match request.space {
        SPACE_SHARED_INFO if request.idx == 0 => place_shared_info(domain, gfn, &mut duties),
        SPACE_SHARED_INFO => Err(Errno::Einval),
        SPACE_GRANT_TABLE => place_grant_frame(domain, request.idx, gfn, &mut duties),
        SPACE_GMFN => {
            let moved = domain.p2m.write().move_page(Gfn::new(request.idx), gfn);
            moved.map(|flush| {
                // The list is empty.
                let _ = duties.push(flush);
            })
        }
        SPACE_DEV_MMIO => Err(Errno::Eperm),
        _ => Err(Errno::Enosys),
    };
    // Also when the second of two steps failed: the first one's pages wait for this.
    for flush in duties {
        domain.complete(flush);
    }
    result.map(|()| 0)
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
