//! `HYPERVISOR_grant_table_op` (`public/grant_table.h`): what a guest needs to set its table up.
//!
//! The result says whether the array of operations was gone through; what became of each one
//! stands in its own status.

use core::mem::offset_of;

use abi::Errno;
use abi::grant_table::{
    CompatSetupTable, GET_VERSION, GetVersion, QUERY_SIZE, QuerySize, SET_VERSION, SETUP_TABLE,
    SetVersion, SetupTable, status,
};

use super::{Args, Ctx, low_half};

/// What stands in a list of frames for one that the guest has not placed.
const NOWHERE: u64 = u64::MAX;

#[inline(never)]
pub(super) fn op(ctx: &Ctx<'_, '_>, args: Args) -> Result<u64, Errno> {
    let [command, array, count, ..] = args;
    let single = || {
        if low_half(count) == 1 {
            Ok(())
        } else {
            Err(Errno::Einval)
        }
    };
    match low_half(command) {
        QUERY_SIZE => single().and_then(|()| query_size(ctx, array))?,
        SETUP_TABLE => single().and_then(|()| setup_table(ctx, array))?,
        SET_VERSION => single().and_then(|()| set_version(ctx, array))?,
        GET_VERSION => single().and_then(|()| get_version(ctx, array))?,
        _ => return Err(Errno::Enosys),
    }
    Ok(0)
}

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

fn query_size(ctx: &Ctx<'_, '_>, at: u64) -> Result<(), Errno> {
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
    ctx.write(at, &query)
}

fn setup_table(ctx: &Ctx<'_, '_>, at: u64) -> Result<(), Errno> {
    let request = ctx.read_either::<SetupTable, CompatSetupTable>(at)?;
    let status = match domain_status(ctx, request.dom) {
        Ok(()) => match fill_frame_list(ctx, &request) {
            Ok(()) => status::OKAY,
            Err(Errno::Efault) => return Err(Errno::Efault),
            Err(_) => status::GENERAL_ERROR,
        },
        Err(status) => status,
    };
    // Both layouts have the status in the same place.
    ctx.write_field(at, offset_of!(SetupTable, status), &status)
}

fn fill_frame_list(ctx: &Ctx<'_, '_>, request: &SetupTable) -> Result<(), Errno> {
    let mut grants = ctx.domain().grants.lock();
    // Bounds the loop as well.
    grants.grow(request.nr_frames)?;
    for index in 0..request.nr_frames {
        let gfn = grants.placed_at(index).map_or(NOWHERE, abi::Gfn::raw);
        let size: u64 = if ctx.wide { 8 } else { 4 };
        let offset = u64::from(index).saturating_mul(size);
        let at = request
            .frame_list
            .checked_add(offset)
            .ok_or(Errno::Efault)?;
        if ctx.wide {
            ctx.write(at, &gfn)?;
        } else {
            ctx.write(at, &u32::try_from(gfn).unwrap_or(u32::MAX))?;
        }
    }
    Ok(())
}

fn set_version(ctx: &Ctx<'_, '_>, at: u64) -> Result<(), Errno> {
    let request: SetVersion = ctx.read(at)?;
    let version = ctx.domain().grants.lock().set_version(request.version)?;
    ctx.write(at, &SetVersion { version })
}

fn get_version(ctx: &Ctx<'_, '_>, at: u64) -> Result<(), Errno> {
    let request: GetVersion = ctx.read(at)?;
    ctx.check_own(request.dom)?;
    let version = ctx.domain().grants.lock().version();
    ctx.write_field(at, offset_of!(GetVersion, version), &version)
}
