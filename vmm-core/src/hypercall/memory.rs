//! `HYPERVISOR_memory_op` (`public/memory.h`): dispatch, and questions about a domain's memory.
//! Changes by lists of extents are in [`super::extents`], placing pages in [`super::physmap`].

use core::mem::offset_of;

use abi::memory::{
    ACCESS_OP, ACQUIRE_RESOURCE, ADD_TO_PHYSMAP, ADD_TO_PHYSMAP_BATCH, CLAIM_PAGES, CMD_BITS,
    CURRENT_RESERVATION, CompatMemoryMap, CompatReservation, DECREASE_RESERVATION, DomainArg,
    GET_POD_TARGET, GET_SHARING_FREED_PAGES, GET_SHARING_SHARED_PAGES, GET_VNUMAINFO,
    INCREASE_RESERVATION, MAXIMUM_GPFN, MAXIMUM_RAM_PAGE, MAXIMUM_RESERVATION, MEMORY_MAP,
    MapEntry, MemoryMap, POPULATE_PHYSMAP, REMOVE_FROM_PHYSMAP, RESERVED_DEVICE_MEMORY_MAP,
    Reservation, ReservedDeviceMemory, SET_MEMORY_MAP, SET_POD_TARGET, VnumaTopology,
};
use abi::{DomId, Errno};

use super::{Args, Ctx, HypercallOutcome, extents, physmap};
use crate::domain::list;

/// The one flag of [`ReservedDeviceMemory`].
const ALL_DEVICES: u32 = 1;

#[inline(never)]
pub(super) fn op(ctx: &Ctx<'_, '_>, args: Args) -> HypercallOutcome {
    let [command, arg, ..] = args;
    match operation(command) {
        INCREASE_RESERVATION => extents::increase(args),
        DECREASE_RESERVATION => extents::change(ctx, extents::Change::Decrease, args),
        POPULATE_PHYSMAP => extents::change(ctx, extents::Change::Populate, args),
        ADD_TO_PHYSMAP => physmap::add(ctx, args),
        ADD_TO_PHYSMAP_BATCH => physmap::add_batch(ctx, args),
        // No page is shared by its contents.
        GET_SHARING_FREED_PAGES | GET_SHARING_SHARED_PAGES => HypercallOutcome::Done(0),
        ACQUIRE_RESOURCE => Errno::Eacces.into(),
        ACCESS_OP => access(ctx, arg).into(),
        SET_POD_TARGET | GET_POD_TARGET => manage(ctx, arg).into(),
        SET_MEMORY_MAP => Errno::Eperm.into(),
        other => whole(ctx, other, command, arg).into(),
    }
}

/// The command without the progress of a call that is repeated.
pub(super) const fn operation(command: u64) -> u64 {
    command & ((1 << CMD_BITS) - 1)
}

/// The commands that are done at once, and so refuse to begin in their middle.
fn whole(ctx: &Ctx<'_, '_>, operation: u64, command: u64, arg: u64) -> Result<u64, Errno> {
    let at_start = || {
        if command >> CMD_BITS == 0 {
            Ok(())
        } else {
            Err(Errno::Einval)
        }
    };
    match operation {
        MEMORY_MAP => memory_map(ctx, arg),
        // The end of the guest's own memory: how much the machine has is not its concern.
        MAXIMUM_RAM_PAGE => at_start().map(|()| highest_gfn(ctx)),
        CURRENT_RESERVATION => {
            at_start().and_then(|()| query(ctx, arg, |ctx| ctx.domain().memory()))
        }
        MAXIMUM_RESERVATION => {
            at_start().and_then(|()| query(ctx, arg, |ctx| ctx.domain().max_pages))
        }
        MAXIMUM_GPFN => at_start().and_then(|()| query(ctx, arg, highest_gfn)),
        REMOVE_FROM_PHYSMAP => at_start().and_then(|()| physmap::remove(ctx, arg)),
        CLAIM_PAGES => at_start().and_then(|()| claim(ctx, arg)),
        GET_VNUMAINFO => at_start().and_then(|()| vnuma_info(ctx, arg)),
        RESERVED_DEVICE_MEMORY_MAP => at_start().and_then(|()| reserved_memory(ctx, arg)),
        _ => Err(Errno::Enosys),
    }
}

fn highest_gfn(ctx: &Ctx<'_, '_>) -> u64 {
    ctx.domain().p2m.read().highest_gfn().raw()
}

fn query(ctx: &Ctx<'_, '_>, arg: u64, answer: impl Fn(&Ctx<'_, '_>) -> u64) -> Result<u64, Errno> {
    let request: DomainArg = ctx.read(arg)?;
    ctx.check_own(request.domid)?;
    Ok(answer(ctx))
}

/// A command that only a control domain may give, for whichever domain.
fn manage(ctx: &Ctx<'_, '_>, arg: u64) -> Result<u64, Errno> {
    // The domain comes last in this argument, behind four counts.
    const DOMID: u64 = 32;
    let at = arg.checked_add(DOMID).ok_or(Errno::Efault)?;
    let request: DomainArg = ctx.read(at)?;
    Err(match ctx.check_own(request.domid) {
        Err(Errno::Esrch) => Errno::Esrch,
        _ => Errno::Eperm,
    })
}

/// What may be done with which page is for another domain to say, and no guest is that.
fn access(ctx: &Ctx<'_, '_>, arg: u64) -> Result<u64, Errno> {
    // The argument begins with two bytes of its own.
    const DOMID: u64 = 2;
    let at = arg.checked_add(DOMID).ok_or(Errno::Efault)?;
    let request: DomainArg = ctx.read(at)?;
    Err(remote(ctx, request.domid))
}

/// Why a domain that is to be another one than the caller is no good.
fn remote(ctx: &Ctx<'_, '_>, dom: u16) -> Errno {
    let dom = DomId(dom);
    if dom == DomId::SELF || dom == ctx.domain().id || list::by_id(dom).is_some() {
        Errno::Eperm
    } else {
        Errno::Esrch
    }
}

/// Setting memory aside is the control domain's business.
fn claim(ctx: &Ctx<'_, '_>, arg: u64) -> Result<u64, Errno> {
    let request = ctx.read_either::<Reservation, CompatReservation>(arg)?;
    let well_formed =
        request.extent_start == 0 && request.extent_order == 0 && request.mem_flags == 0;
    if well_formed && list::by_id(DomId(request.domid)).is_some() {
        Err(Errno::Eperm)
    } else {
        Err(Errno::Einval)
    }
}

/// No domain has a NUMA topology of its own.
fn vnuma_info(ctx: &Ctx<'_, '_>, arg: u64) -> Result<u64, Errno> {
    let request: VnumaTopology = ctx.read(arg)?;
    if request.pad != 0 {
        return Err(Errno::Einval);
    }
    ctx.check_own(request.domid)?;
    Err(Errno::Eopnotsupp)
}

/// No device has memory reserved for it.
fn reserved_memory(ctx: &Ctx<'_, '_>, arg: u64) -> Result<u64, Errno> {
    let request: ReservedDeviceMemory = ctx.read(arg)?;
    if request.flags & !ALL_DEVICES != 0 {
        return Err(Errno::Einval);
    }
    ctx.write_field(arg, offset_of!(ReservedDeviceMemory, nr_entries), &0u32)?;
    Ok(0)
}

/// The memory map that the domain was built with, as far as the caller has room for it.
fn memory_map(ctx: &Ctx<'_, '_>, arg: u64) -> Result<u64, Errno> {
    let request = ctx.read_either::<MemoryMap, CompatMemoryMap>(arg)?;
    let mut at = request.buffer;
    let mut written = 0u32;
    for range in ctx
        .domain()
        .memory_map
        .ranges()
        .iter()
        .take(request.nr_entries as usize)
    {
        let entry = MapEntry {
            addr: range.start.into(),
            size: range.size.into(),
            kind: (range.kind as u32).into(),
        };
        ctx.write(at, &entry)?;
        at = at
            .checked_add(size_of::<MapEntry>() as u64)
            .ok_or(Errno::Efault)?;
        written = written.saturating_add(1);
    }
    // Both layouts begin with the count.
    ctx.write_field(arg, offset_of!(MemoryMap, nr_entries), &written)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::operation;
    use abi::memory::{POPULATE_PHYSMAP, REMOVE_FROM_PHYSMAP};

    #[test]
    fn progress_stands_above_the_command() {
        assert_eq!(operation(POPULATE_PHYSMAP), POPULATE_PHYSMAP);
        assert_eq!(
            operation(u64::MAX << 6 | REMOVE_FROM_PHYSMAP),
            REMOVE_FROM_PHYSMAP
        );
    }
}
