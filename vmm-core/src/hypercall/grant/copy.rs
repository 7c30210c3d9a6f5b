//! `GNTTABOP_copy`.

use alloc::sync::Arc;
use core::mem::offset_of;

use abi::grant_table::{CompatGrantCopy, CopyPtr, GrantCopy, copy_flags, status};
use abi::{DomId, Gfn, GrantRef};

use super::super::{Ctx, int};
use super::Step;
use super::array::each;
use super::mapping::Named;
use crate::domain::Domain;
use crate::grant::Status;
use crate::grant::ops::{self, Side, Span};

/// The domains that the two sides of copies name.
#[derive(Default)]
struct Sides {
    source: Named,
    dest: Named,
}

pub(super) fn copy(ctx: &Ctx<'_, '_>, at: u64, count: u32) -> Step {
    let (size, status_at) = if ctx.wide {
        (size_of::<GrantCopy>(), offset_of!(GrantCopy, status))
    } else {
        (
            size_of::<CompatGrantCopy>(),
            offset_of!(CompatGrantCopy, status),
        )
    };
    let mut sides = Sides::default();
    each(at, count, size, u32::MAX, |at| {
        let request = ctx.read_either::<GrantCopy, CompatGrantCopy>(at)?;
        let status = match copy_one(ctx, &request, &mut sides) {
            Ok(()) => status::OKAY,
            Err(status) => status,
        };
        ctx.write_field(at, status_at, &status)
    })
}

fn copy_one(ctx: &Ctx<'_, '_>, request: &GrantCopy, sides: &mut Sides) -> Result<(), Status> {
    if request.len == 0 {
        return Ok(());
    }
    let is = |flag| request.flags & flag != 0;
    let source = side(
        ctx,
        request.source,
        is(copy_flags::SOURCE_GREF),
        &mut sides.source,
    )?;
    let dest = side(
        ctx,
        request.dest,
        is(copy_flags::DEST_GREF),
        &mut sides.dest,
    )?;
    let span = Span {
        source: request.source.offset,
        dest: request.dest.offset,
        length: request.len,
    };
    ops::copy(&ctx.domain().party(), &ctx.v.cpu.pages, source, dest, span)
}

fn side<'d>(
    ctx: &Ctx<'_, '_>,
    pointer: CopyPtr,
    by_grant: bool,
    named: &'d mut Named,
) -> Result<Side<&'d Arc<Domain>>, Status> {
    let domid = DomId(pointer.domid);
    if !by_grant {
        // A frame is the caller's own, and only this says so.
        return if domid == DomId::SELF {
            Ok(Side::Frame(Gfn::new(pointer.place)))
        } else {
            Err(status::PERMISSION_DENIED)
        };
    }
    let id = if domid == DomId::SELF {
        ctx.domain().id
    } else {
        domid
    };
    let granter = named.find(id).ok_or(status::BAD_DOMAIN)?;
    Ok(Side::Grant(granter, GrantRef(int(pointer.place))))
}
