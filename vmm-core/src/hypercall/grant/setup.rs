//! Commands about a table as a whole, and exchanging two of its entries.

use core::mem::offset_of;

use abi::grant_table::{
    CompatSetupTable, GetVersion, QuerySize, SetVersion, SetupTable, SwapGrantRef, status,
};
use abi::{Errno, Gfn, GrantRef};
use zerocopy::IntoBytes;

use super::super::Ctx;
use super::Step;
use super::array::{Progress, each};
use super::mapping::Duty;
use crate::grant;

/// What stands in a list of frames for one that the guest has not placed.
const NOWHERE: u64 = u64::MAX;
/// Frame numbers written at a time.
const CHUNK: usize = 64;

/// The status for a domain that is not the caller.
fn domain_status(ctx: &Ctx<'_, '_>, dom: u16) -> Result<(), i16> {
    ctx.check_own(dom).map_err(|errno| {
        if errno == Errno::Eperm {
            status::PERMISSION_DENIED
        } else {
            status::BAD_DOMAIN
        }
    })
}

/// Of some commands there can be only one at a time.
const fn single(count: u32) -> Result<(), Errno> {
    if count == 1 {
        Ok(())
    } else {
        Err(Errno::Einval)
    }
}

pub(super) fn query_size(ctx: &Ctx<'_, '_>, at: u64, count: u32) -> Step {
    single(count)?;
    let mut query: QuerySize = ctx.read(at)?;
    query.status = match domain_status(ctx, query.dom) {
        Ok(()) => {
            let grants = ctx.domain().grants.lock();
            query.nr_frames = grants.frame_count();
            query.max_nr_frames = grants.max_frames();
            status::OKAY
        }
        Err(status) => status,
    };
    ctx.write(at, &query)?;
    Ok(Progress::Done)
}

pub(super) fn setup_table(ctx: &Ctx<'_, '_>, at: u64, count: u32) -> Step {
    if count == 0 && !ctx.wide {
        // Xen's translation of 32-bit arguments has nothing to translate then.
        return Ok(Progress::Done);
    }
    single(count)?;
    let request = ctx.read_either::<SetupTable, CompatSetupTable>(at)?;
    let status = match domain_status(ctx, request.dom) {
        Ok(()) => fill_frame_list(ctx, &request),
        Err(status) => status,
    };
    // Both layouts have the status in the same place.
    ctx.write_field(at, offset_of!(SetupTable, status), &status)?;
    Ok(Progress::Done)
}

fn fill_frame_list(ctx: &Ctx<'_, '_>, request: &SetupTable) -> i16 {
    let grown = ctx.domain().grants.lock().grow(request.nr_frames);
    if grown.is_err() {
        return status::GENERAL_ERROR;
    }
    let size: u64 = if ctx.wide { 8 } else { 4 };
    let mut first = 0;
    // The table's limit bounds the loop: it has as many frames as were asked for.
    while first < request.nr_frames {
        let wide = places(ctx, first);
        let left = usize::try_from(request.nr_frames.saturating_sub(first)).unwrap_or(CHUNK);
        let wide = wide.get(..left.min(CHUNK)).unwrap_or(&wide);
        let mut narrow = [0_u32; CHUNK];
        for (narrow, &gfn) in narrow.iter_mut().zip(wide) {
            *narrow = u32::try_from(gfn).unwrap_or(u32::MAX);
        }
        let narrow = narrow.get(..wide.len()).unwrap_or(&narrow);
        let bytes = if ctx.wide {
            wide.as_bytes()
        } else {
            narrow.as_bytes()
        };
        let offset = u64::from(first).saturating_mul(size);
        let written = request
            .frame_list
            .checked_add(offset)
            .ok_or(Errno::Efault)
            .and_then(|at| ctx.write(at, bytes));
        if written.is_err() {
            return status::BAD_VIRT_ADDR;
        }
        first = first.saturating_add(64);
    }
    status::OKAY
}

/// Where the guest put frames from `first` on.
fn places(ctx: &Ctx<'_, '_>, first: u32) -> [u64; CHUNK] {
    let grants = ctx.domain().grants.lock();
    let mut places = [NOWHERE; CHUNK];
    for (index, place) in (first..u32::MAX).zip(&mut places) {
        *place = grants.placed_at(index).map_or(NOWHERE, Gfn::raw);
    }
    places
}

pub(super) fn set_version(ctx: &Ctx<'_, '_>, at: u64) -> Step {
    let request: SetVersion = ctx.read(at)?;
    let domain = ctx.domain();
    let changed = domain.grants.lock().set_version(request.version);
    if changed == Ok(grant::Progress::Again) {
        return Ok(Progress::Again);
    }
    let mut duty = Duty::of(domain);
    loop {
        let taken = domain.grants.lock().take_status_frame();
        let Some((page, gfn)) = taken else { break };
        let flush = duty.room();
        let mut p2m = domain.p2m.write();
        // The guest may have put something else there meanwhile.
        let placed = gfn.filter(|&gfn| p2m.lookup(gfn).is_some_and(|it| it.mfn == page.mfn()));
        if let Some(gfn) = placed {
            // What cannot go stays the guest's page, and no status frame any more.
            let _ = p2m.remove_page(gfn, flush);
        }
    }
    duty.complete();
    let version = domain.grants.lock().version();
    ctx.write(at, &SetVersion { version })?;
    changed.map(|_| Progress::Done)
}

pub(super) fn get_version(ctx: &Ctx<'_, '_>, at: u64) -> Step {
    let request: GetVersion = ctx.read(at)?;
    ctx.check_own(request.dom)?;
    let version = ctx.domain().grants.lock().version();
    ctx.write_field(at, offset_of!(GetVersion, version), &version)?;
    Ok(Progress::Done)
}

pub(super) fn swap(ctx: &Ctx<'_, '_>, at: u64, count: u32) -> Step {
    each(at, count, size_of::<SwapGrantRef>(), u32::MAX, |at| {
        let request: SwapGrantRef = ctx.read(at)?;
        let (a, b) = (GrantRef(request.ref_a), GrantRef(request.ref_b));
        let swapped = ctx.domain().grants.lock().swap(a, b);
        let status = swapped.err().unwrap_or(status::OKAY);
        ctx.write_field(at, offset_of!(SwapGrantRef, status), &status)
    })
}
