//! Hypercalls: from VMCALL to the part of the domain that each one is about.
//!
//! [`vmcall`] checks the caller, takes the arguments from its registers and [`dispatch`]es: one
//! line per call, one file per family. A call sees the running vCPU through [`Ctx`], copies its
//! arguments in once, and answers with a [`HypercallOutcome`]; only here does an error become a
//! number in RAX. The numbers and layouts are those of Xen's public headers (`public/xen.h`).
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm
)]

mod args;
mod evtchn;
mod extents;
mod grant;
mod hvm;
mod initial;
mod memory;
mod multicall;
mod physmap;
mod privileged;
mod sched;
mod timer;
mod vcpu;
mod version;

use abi::Errno;
use abi::hypercall::{
    CONSOLE_IO, DM_OP, DOMCTL, EVENT_CHANNEL_OP, GRANT_TABLE_OP, HVM_OP, HYPFS_OP, MAX_ARGS,
    MEMORY_OP, MULTICALL, PLATFORM_OP, SCHED_OP, SET_TIMER_OP, SYSCTL, VCPU_OP, VM_ASSIST,
    XEN_VERSION, XENPMU_OP,
};
use vmx::GuestRegs;

use crate::exit::Next;
use crate::vcpu::Running;

pub use args::Ctx;
pub use hvm::latch_width;

/// The arguments of a hypercall, as they lie in registers.
pub type Args = [u64; MAX_ARGS];

/// How a hypercall ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HypercallOutcome {
    /// It is complete, with this result.
    Done(u64),
    /// It is complete, with this result, and the vCPU does this next.
    DoneThen(u64, Next),
    /// It is to go on after whatever else waits for the vCPU: the guest repeats it with these
    /// arguments.
    Preempted(Args),
    /// The same, when the vCPU has done this.
    PreemptedThen(Args, Next),
}

impl From<Result<u64, Errno>> for HypercallOutcome {
    fn from(result: Result<u64, Errno>) -> Self {
        Self::Done(match result {
            Ok(value) => value,
            Err(errno) => errno.to_rax(),
        })
    }
}

impl From<Errno> for HypercallOutcome {
    fn from(errno: Errno) -> Self {
        Self::Done(errno.to_rax())
    }
}

/// Handles a VMCALL.
#[inline(always)]
pub fn vmcall(v: &mut Running<'_>) -> Next {
    if v.is_64bit_supervisor() {
        carry_out(v, true)
    } else {
        other_vmcall(v)
    }
}

/// Handles a VMCALL from other code than that of a 64-bit kernel.
#[inline(never)]
fn other_vmcall(v: &mut Running<'_>) -> Next {
    let wide = v.is_64bit_code();
    if v.cpl() == 0 {
        carry_out(v, wide)
    } else {
        complete(v, wide, Errno::Eperm.to_rax(), Next::Resume)
    }
}

#[inline(always)]
fn carry_out(v: &mut Running<'_>, wide: bool) -> Next {
    let number = number(&v.cpu.regs, wide);
    let args = |ctx: &Ctx<'_, '_>| arguments(&ctx.v.cpu.regs, wide);
    match dispatch(&mut Ctx::new(v, wide), number, args) {
        HypercallOutcome::Done(result) => complete(v, wide, result, Next::Resume),
        HypercallOutcome::DoneThen(result, next) => complete(v, wide, result, next),
        HypercallOutcome::Preempted(args) => {
            set_arguments(&mut v.cpu.regs, wide, args);
            Next::Resume
        }
        HypercallOutcome::PreemptedThen(args, next) => {
            set_arguments(&mut v.cpu.regs, wide, args);
            next
        }
    }
}

#[inline(always)]
fn complete(v: &mut Running<'_>, wide: bool, result: u64, next: Next) -> Next {
    v.cpu.regs.rax = if wide { result } else { low_half(result) };
    v.advance();
    next
}

/// Carries out one hypercall. The arguments are asked for where the call is known, so that one
/// with few of them need not gather all.
#[inline(always)]
fn dispatch(
    ctx: &mut Ctx<'_, '_>,
    number: u64,
    args: impl Fn(&Ctx<'_, '_>) -> Args,
) -> HypercallOutcome {
    match number {
        XEN_VERSION => version::op(ctx, args(ctx)).into(),
        EVENT_CHANNEL_OP => evtchn::op(ctx, args(ctx)),
        SCHED_OP => sched::op(ctx, args(ctx)),
        VCPU_OP => vcpu::op(ctx, args(ctx)),
        SET_TIMER_OP => timer::set_timer_op(ctx, args(ctx)).into(),
        MEMORY_OP => memory::op(ctx, args(ctx)),
        GRANT_TABLE_OP => grant::op(ctx, args(ctx)),
        HVM_OP => hvm::op(ctx, args(ctx)).into(),
        MULTICALL => multicall::op(ctx, args(ctx)),
        VM_ASSIST => sched::vm_assist(ctx, args(ctx)).into(),
        // The console of last resort is the hypervisor's own, and no guest's.
        CONSOLE_IO => Errno::Eperm.into(),
        PLATFORM_OP | SYSCTL | DOMCTL | DM_OP | HYPFS_OP => {
            privileged::refuse(ctx, number, args(ctx)).into()
        }
        // No guest has the processor's performance counters.
        XENPMU_OP => Errno::Eopnotsupp.into(),
        // PHYSDEV_OP among them: no guest has physical interrupts or devices.
        _ => Errno::Enosys.into(),
    }
}

/// Of a 32-bit caller's registers only the low halves count: the upper ones may hold anything.
#[inline(always)]
const fn number(regs: &GuestRegs, wide: bool) -> u64 {
    if wide { regs.rax } else { low_half(regs.rax) }
}

/// The arguments, likewise.
#[inline(always)]
fn arguments(regs: &GuestRegs, wide: bool) -> Args {
    if wide {
        return [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8];
    }
    let args = [regs.rbx, regs.rcx, regs.rdx, regs.rsi, regs.rdi];
    args.map(low_half)
}

/// Makes the guest repeat its call with other arguments.
const fn set_arguments(regs: &mut GuestRegs, wide: bool, args: Args) {
    if wide {
        [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8] = args;
    } else {
        [regs.rbx, regs.rcx, regs.rdx, regs.rsi, regs.rdi] = args;
    }
}

const fn low_half(value: u64) -> u64 {
    value & 0xffff_ffff
}

/// An argument that the interface declares as a 32-bit integer.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the upper half does not count"
)]
const fn int(value: u64) -> u32 {
    value as u32
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::{Errno, GuestRegs, HypercallOutcome, arguments, number, set_arguments};

    fn regs() -> GuestRegs {
        let mut regs = GuestRegs::new();
        regs.rax = 0xdead_0000_0000_000c;
        regs.rbx = 0xffff_ffff_0000_0001;
        regs.rcx = 2;
        regs.rdx = 3;
        regs.rsi = 4;
        regs.rdi = 5 << 40 | 5;
        regs.r10 = 6;
        regs.r8 = 7;
        regs
    }

    #[test]
    fn arguments_come_from_the_callers_registers() {
        assert_eq!(number(&regs(), true), 0xdead_0000_0000_000c);
        assert_eq!(arguments(&regs(), true), [5 << 40 | 5, 4, 3, 6, 7]);
    }

    #[test]
    fn upper_halves_of_a_32_bit_caller_do_not_count() {
        assert_eq!(number(&regs(), false), 12);
        assert_eq!(arguments(&regs(), false), [1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_repeated_call_finds_its_arguments() {
        for wide in [true, false] {
            let mut regs = regs();
            set_arguments(&mut regs, wide, [10, 11, 12, 13, 14]);
            assert_eq!(arguments(&regs, wide), [10, 11, 12, 13, 14]);
        }
    }

    /// The table of `docs/hypercalls.md` names the calls that are there, by their numbers.
    #[test]
    fn the_document_lists_the_calls() {
        use abi::hypercall as call;
        const DOCUMENT: &str = include_str!("../../../docs/hypercalls.md");
        let table = DOCUMENT
            .split("## Calls")
            .nth(1)
            .and_then(|rest| rest.split("\n## ").next())
            .unwrap();
        let listed: std::vec::Vec<u64> = table
            .lines()
            .filter_map(|line| line.strip_prefix("| ")?.split(" |").next())
            .flat_map(|numbers| numbers.split(", "))
            .filter_map(|number| number.parse().ok())
            .collect();
        let calls = [
            call::PLATFORM_OP,
            call::MEMORY_OP,
            call::MULTICALL,
            call::SET_TIMER_OP,
            call::XEN_VERSION,
            call::CONSOLE_IO,
            call::GRANT_TABLE_OP,
            call::VM_ASSIST,
            call::VCPU_OP,
            call::MMUEXT_OP,
            call::SCHED_OP,
            call::EVENT_CHANNEL_OP,
            call::PHYSDEV_OP,
            call::HVM_OP,
            call::SYSCTL,
            call::DOMCTL,
            call::ARGO_OP,
            call::XENPMU_OP,
            call::DM_OP,
            call::HYPFS_OP,
        ];
        assert_eq!(listed, calls);
    }

    #[test]
    fn errors_are_negative_numbers() {
        let outcome = HypercallOutcome::from(Err(Errno::Enosys));
        assert_eq!(outcome, HypercallOutcome::Done(-38i64 as u64));
    }
}
