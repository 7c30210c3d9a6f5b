//! `HYPERVISOR_memory_op` (`public/memory.h`): what can be answered at once is here, lists of
//! extents in [`super::extents`], placing pages in [`super::physmap`].

use core::mem::offset_of;

use abi::Errno;
use abi::memory::{
    ADD_TO_PHYSMAP, CMD_BITS, CURRENT_RESERVATION, CompatMemoryMap, DECREASE_RESERVATION,
    DomainArg, INCREASE_RESERVATION, MACHINE_MEMORY_MAP, MAXIMUM_GPFN, MAXIMUM_RAM_PAGE,
    MAXIMUM_RESERVATION, MEMORY_MAP, MapEntry, MemoryMap, POPULATE_PHYSMAP, REMOVE_FROM_PHYSMAP,
};

use super::{Args, Ctx, HypercallOutcome, extents, physmap};

#[inline(never)]
pub(super) fn op(ctx: &Ctx<'_, '_>, args: Args) -> HypercallOutcome {
    let [command, arg, ..] = args;
    match command & ((1 << CMD_BITS) - 1) {
        INCREASE_RESERVATION => extents::increase(args),
        DECREASE_RESERVATION => extents::change(ctx, extents::Change::Decrease, args),
        POPULATE_PHYSMAP => extents::change(ctx, extents::Change::Populate, args),
        // The end of the guest's own memory: how much the machine has is not its concern.
        MAXIMUM_RAM_PAGE => Ok(highest_gfn(ctx)).into(),
        CURRENT_RESERVATION => query(ctx, arg, |ctx| ctx.domain().memory()).into(),
        MAXIMUM_RESERVATION => query(ctx, arg, |ctx| ctx.domain().max_pages).into(),
        MAXIMUM_GPFN => query(ctx, arg, highest_gfn).into(),
        ADD_TO_PHYSMAP => physmap::add(ctx, arg).into(),
        REMOVE_FROM_PHYSMAP => physmap::remove(ctx, arg).into(),
        MEMORY_MAP => memory_map(ctx, arg).into(),
        MACHINE_MEMORY_MAP => Errno::Eperm.into(),
        _ => Errno::Enosys.into(),
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

/// The memory map that the domain was built with, as far as the caller has room for it.
fn memory_map(ctx: &Ctx<'_, '_>, arg: u64) -> Result<u64, Errno> {
    let request = ctx.read_either::<MemoryMap, CompatMemoryMap>(arg)?;
    let mut at = request.buffer;
    let mut written = 0u32;
    for range in ctx
        .domain()
        .memory_map
        .ranges()
        .into_iter()
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
