//! `GNTTABOP_map_grant_ref` and `GNTTABOP_unmap_grant_ref`.

use alloc::sync::Arc;
use core::mem::{self, offset_of};

use abi::grant_table::{MapGrantRef, UnmapGrantRef, map_flags, status};
use abi::{DomId, Gpa, GrantRef};
use heapless::Vec;
use zerocopy::{Immutable, IntoBytes};

use super::super::Ctx;
use super::Step;
use super::array::each;
use crate::domain::{Domain, list};
use crate::grant::{Mapping, Status, ops};
use crate::mm::p2m::Flush;

/// Mappings that one invalidation serves.
const UNMAP_BATCH: usize = 32;

/// The fields that a successful mapping fills, side by side in [`MapGrantRef`].
#[derive(IntoBytes, Immutable)]
#[repr(C, packed)]
struct Mapped {
    status: i16,
    handle: u32,
    dev_bus_addr: u64,
}

const _: () = {
    let start = offset_of!(MapGrantRef, status);
    assert!(start.saturating_add(offset_of!(Mapped, handle)) == offset_of!(MapGrantRef, handle));
    let last = start.saturating_add(offset_of!(Mapped, dev_bus_addr));
    assert!(last == offset_of!(MapGrantRef, dev_bus_addr));
};

/// The domain that the operations of one call name, one after the other; mostly it is the same.
#[derive(Default)]
pub(super) struct Named {
    last: Option<Arc<Domain>>,
}

impl Named {
    /// The domain with this id, if it is there.
    pub(super) fn find(&mut self, id: DomId) -> Option<&Arc<Domain>> {
        if self.last.as_ref().is_none_or(|last| last.id != id) {
            self.last = list::by_id(id);
        }
        self.last.as_ref()
    }
}

/// What the changes of a call leave to do: one duty, since one invalidation serves all of them.
pub(super) struct Duty<'a> {
    domain: &'a Domain,
    flush: Flush,
}

impl<'a> Duty<'a> {
    pub(super) fn of(domain: &'a Domain) -> Self {
        Self {
            domain,
            flush: domain.p2m.read().batch(),
        }
    }

    /// The duty, with room for one more page. Called without a lock.
    #[inline]
    pub(super) fn room(&mut self) -> &mut Flush {
        if self.flush.make_room().is_err() {
            // Without memory to remember more: what there is at once.
            let next = self.domain.p2m.read().batch();
            self.domain.complete(mem::replace(&mut self.flush, next));
        }
        &mut self.flush
    }

    /// Makes sure that no pCPU reaches what was unmapped, and lets it go.
    pub(super) fn complete(self) {
        self.domain.complete(self.flush);
    }
}

pub(super) fn map(ctx: &Ctx<'_, '_>, at: u64, count: u32) -> Step {
    let mut named = Named::default();
    let mut duty = Duty::of(ctx.domain());
    let step = each(at, count, size_of::<MapGrantRef>(), u32::MAX, |at| {
        let request: MapGrantRef = ctx.read(at)?;
        match map_one(ctx, &request, &mut named, duty.room()) {
            Ok(handle) => {
                let mapped = Mapped {
                    status: status::OKAY,
                    handle,
                    // Machine addresses are not the guest's concern: to its devices, which are
                    // all emulated, the frame is where it sees it.
                    dev_bus_addr: Gpa::new(request.host_addr).gfn().gpa().raw(),
                };
                ctx.write_field(at, offset_of!(MapGrantRef, status), &mapped)
            }
            Err(status) => ctx.write_field(at, offset_of!(MapGrantRef, status), &status),
        }
    });
    duty.complete();
    step
}

fn map_one(
    ctx: &Ctx<'_, '_>,
    request: &MapGrantRef,
    named: &mut Named,
    flush: &mut Flush,
) -> Result<u32, Status> {
    use map_flags::{APPLICATION_MAP, CONTAINS_PTE, DEVICE_MAP, HOST_MAP, READONLY};
    if request.flags & (DEVICE_MAP | HOST_MAP) == 0 {
        return Err(status::BAD_GNTREF);
    }
    if request.flags & (DEVICE_MAP | APPLICATION_MAP | CONTAINS_PTE) != 0 {
        return Err(status::GENERAL_ERROR);
    }
    let granter = named.find(DomId(request.dom)).ok_or(status::BAD_DOMAIN)?;
    // Flags that are not known are refused where the page would be mapped.
    let unknown = request.flags & !(HOST_MAP | READONLY) != 0;
    if unknown {
        return Err(status::GENERAL_ERROR);
    }
    ops::map(
        &ctx.domain().party(),
        &granter.party(),
        GrantRef(request.gref),
        Gpa::new(request.host_addr).gfn(),
        request.flags & READONLY == 0,
        flush,
    )
}

pub(super) fn unmap(ctx: &Ctx<'_, '_>, at: u64, count: u32) -> Step {
    let domain = ctx.domain();
    let mut duty = Duty::of(domain);
    let mut ended: Vec<Mapping, UNMAP_BATCH> = Vec::new();
    let most = u32::try_from(UNMAP_BATCH).unwrap_or(0);
    let step = each(at, count, size_of::<UnmapGrantRef>(), most, |at| {
        let request: UnmapGrantRef = ctx.read(at)?;
        let status = match unmap_one(domain, &request, duty.room()) {
            Ok(Some(mapping)) => {
                // As many fit as `each` goes through.
                let _ = ended.push(mapping);
                status::OKAY
            }
            Ok(None) => status::OKAY,
            Err(status) => status,
        };
        ctx.write_field(at, offset_of!(UnmapGrantRef, status), &status)
    });
    // Only what no pCPU can reach any more may be reused, by us or by the granter.
    duty.complete();
    let mut named = Named::default();
    for &mapping in &ended {
        let granter = named.find(mapping.granter).map(|domain| domain.party());
        ops::end_use(granter.as_ref(), mapping);
    }
    step
}

/// Unmaps one page; nothing for an address of 0, which names none.
fn unmap_one(
    domain: &Domain,
    request: &UnmapGrantRef,
    flush: &mut Flush,
) -> Result<Option<Mapping>, Status> {
    if request.host_addr == 0 {
        let known = domain.maptrack.lock().get(request.handle).is_some();
        return if known {
            Ok(None)
        } else {
            Err(status::BAD_HANDLE)
        };
    }
    let gfn = Gpa::new(request.host_addr).gfn();
    ops::unmap(&domain.party(), request.handle, gfn, flush).map(Some)
}
