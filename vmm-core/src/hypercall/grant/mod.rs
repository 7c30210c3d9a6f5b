//! `HYPERVISOR_grant_table_op` (`public/grant_table.h`).
//!
//! The result says whether the array of operations was gone through; what became of each one
//! stands in its own status. Long arrays are gone through piece by piece, and between two pieces
//! the guest repeats its call for the rest (`array`). The commands that only PV guests may use
//! do not exist here.

mod array;
mod copy;
mod mapping;
mod setup;

use abi::Errno;
use abi::grant_table::{
    COPY, GET_VERSION, MAP_GRANT_REF, QUERY_SIZE, SET_VERSION, SETUP_TABLE, SWAP_GRANT_REF,
    UNMAP_GRANT_REF,
};

use super::{Args, Ctx, HypercallOutcome, int, low_half};

/// What a call leaves when it goes on after other work.
type Step = Result<array::Progress, Errno>;

#[inline(never)]
pub(super) fn op(ctx: &Ctx<'_, '_>, args: Args) -> HypercallOutcome {
    let [command, at, count, ..] = args;
    let command = low_half(command);
    if !matches!(
        command,
        MAP_GRANT_REF
            | UNMAP_GRANT_REF
            | COPY
            | SETUP_TABLE
            | QUERY_SIZE
            | SET_VERSION
            | GET_VERSION
            | SWAP_GRANT_REF
    ) {
        return Errno::Enosys.into();
    }
    let count = int(count);
    if count.cast_signed() < 0 {
        return Errno::Einval.into();
    }
    let step = match command {
        MAP_GRANT_REF => mapping::map(ctx, at, count),
        UNMAP_GRANT_REF => mapping::unmap(ctx, at, count),
        COPY => copy::copy(ctx, at, count),
        SETUP_TABLE => setup::setup_table(ctx, at, count),
        QUERY_SIZE => setup::query_size(ctx, at, count),
        SET_VERSION => setup::set_version(ctx, at),
        GET_VERSION => setup::get_version(ctx, at),
        _ => setup::swap(ctx, at, count),
    };
    array::outcome(step, args, count)
}
