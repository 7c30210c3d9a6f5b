//! `HYPERVISOR_multicall`: a batch of hypercalls in one (`public/xen.h`).

use core::mem::offset_of;

use abi::Errno;
use abi::hypercall::MULTICALL;
use abi::hypercall::multicall::{CompatEntry, Entry};

use super::{Args, Ctx, HypercallOutcome, dispatch, int};
use crate::exit::Next;

/// Calls carried out before other work has a turn.
const BATCH: u64 = 32;

#[inline(never)]
pub(super) fn op(ctx: &mut Ctx<'_, '_>, args: Args) -> HypercallOutcome {
    let [list, count, ..] = args;
    // Of the calls that let the vCPU rest, the last one decides.
    let mut rest = None;
    for done in 0..count {
        if done == BATCH {
            let Some(list) = entry_address(ctx, list, done) else {
                return Errno::Efault.into();
            };
            return HypercallOutcome::Preempted([list, count.saturating_sub(done), 0, 0, 0]);
        }
        match step(ctx, list, done) {
            Ok(Step::Done(None)) => {}
            Ok(Step::Done(next)) => rest = next,
            Ok(Step::Again) => {
                let Some(list) = entry_address(ctx, list, done) else {
                    return Errno::Efault.into();
                };
                return HypercallOutcome::Preempted([list, count.saturating_sub(done), 0, 0, 0]);
            }
            Err(errno) => return errno.into(),
        }
    }
    match rest {
        Some(next) => HypercallOutcome::DoneThen(0, next),
        None => HypercallOutcome::Done(0),
    }
}

enum Step {
    /// The call is complete, its result written.
    Done(Option<Next>),
    /// The call is to go on; its entry holds its new arguments.
    Again,
}

fn step(ctx: &mut Ctx<'_, '_>, list: u64, index: u64) -> Result<Step, Errno> {
    let entry = ctx.read_element::<Entry, CompatEntry>(list, index)?;
    let at = entry_address(ctx, list, index).ok_or(Errno::Efault)?;
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
        HypercallOutcome::Preempted(args) => {
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
