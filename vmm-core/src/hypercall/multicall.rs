//! `HYPERVISOR_multicall`: a batch of hypercalls in one (`public/xen.h`).

use core::mem::offset_of;

use abi::Errno;
use abi::hypercall::MULTICALL;
use abi::hypercall::multicall::{CompatEntry, Entry};

use super::{Args, Ctx, HypercallOutcome, dispatch, int};
use crate::exit::Next;
use crate::time::Tsc;

/// TSC ticks after which other work has a turn: a call that takes long stops by itself, so all of
/// a batch's part stays a small multiple of this.
const TURN: u64 = 8_000;

#[inline(never)]
pub(super) fn op(ctx: &mut Ctx<'_, '_>, args: Args) -> HypercallOutcome {
    let [list, count, ..] = args;
    let count = u64::from(int(count));
    let begun = Tsc::now();
    for done in 0..count {
        if done != 0 && Tsc::now().since(begun) >= TURN {
            return rest_of(ctx, args, done, None);
        }
        let Some(at) = entry_address(ctx, list, done) else {
            return Errno::Efault.into();
        };
        match step(ctx, at) {
            Ok(Step::Done(None)) => {}
            // What the vCPU is to do comes before the rest of the batch.
            Ok(Step::Done(Some(next))) => {
                return rest_of(ctx, args, done.saturating_add(1), Some(next));
            }
            Ok(Step::Again) => return rest_of(ctx, args, done, None),
            Err(errno) => return errno.into(),
        }
    }
    HypercallOutcome::Done(0)
}

/// Leaves the batch after `done` of its calls, to go on with the others, if any, when the vCPU has
/// done what comes `next`.
fn rest_of(ctx: &Ctx<'_, '_>, args: Args, done: u64, next: Option<Next>) -> HypercallOutcome {
    let [list, count, ..] = args;
    let left = u64::from(int(count)).saturating_sub(done);
    let Some(list) = entry_address(ctx, list, done) else {
        return Errno::Efault.into();
    };
    let args = [list, left, 0, 0, 0];
    match next {
        Some(next) if left == 0 => HypercallOutcome::DoneThen(0, next),
        Some(next) => HypercallOutcome::PreemptedThen(args, next),
        None => HypercallOutcome::Preempted(args),
    }
}

enum Step {
    /// The call is complete, its result written.
    Done(Option<Next>),
    /// The call is to go on; its entry holds its new arguments.
    Again,
}

fn step(ctx: &mut Ctx<'_, '_>, at: u64) -> Result<Step, Errno> {
    let entry = ctx.read_either::<Entry, CompatEntry>(at)?;
    let [a, b, c, d, e, _] = entry.args;
    let outcome = if entry.op == MULTICALL {
        // A batch in a batch would nest without end.
        Errno::Einval.into()
    } else {
        dispatch(ctx, entry.op, |_| [a, b, c, d, e])
    };
    match outcome {
        HypercallOutcome::Done(result) => {
            write_result(ctx, at, result)?;
            Ok(Step::Done(None))
        }
        HypercallOutcome::DoneThen(result, next) => {
            write_result(ctx, at, result)?;
            Ok(Step::Done(Some(next)))
        }
        // No batch is in a batch, and only a batch ends in the second way.
        HypercallOutcome::Preempted(args) | HypercallOutcome::PreemptedThen(args, _) => {
            write_args(ctx, at, args)?;
            Ok(Step::Again)
        }
    }
}

fn entry_address(ctx: &Ctx<'_, '_>, list: u64, index: u64) -> Option<u64> {
    let size = if ctx.wide {
        size_of::<Entry>()
    } else {
        size_of::<CompatEntry>()
    };
    list.checked_add(index.checked_mul(size as u64)?)
}

fn write_result(ctx: &Ctx<'_, '_>, at: u64, result: u64) -> Result<(), Errno> {
    if ctx.wide {
        ctx.write_field(at, offset_of!(Entry, result), &result)
    } else {
        ctx.write_field(at, offset_of!(CompatEntry, result), &int(result))
    }
}

fn write_args(ctx: &Ctx<'_, '_>, at: u64, args: Args) -> Result<(), Errno> {
    if ctx.wide {
        ctx.write_field(at, offset_of!(Entry, args), &args)
    } else {
        ctx.write_field(at, offset_of!(CompatEntry, args), &args.map(int))
    }
}
