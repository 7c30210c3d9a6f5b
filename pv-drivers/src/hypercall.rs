//! Hypercalls from the guest's side: VMCALL, directly or through the hypercall page.
//!
//! A hypercall is a number and up to five words; what those words point at decides whether a call
//! can break the caller's memory. [`vmcall`] takes anything and is `unsafe`. [`command`] takes an
//! argument struct that names no other memory, an [`Argument`], and is safe; so is [`bare`], for
//! the calls that take no memory at all.
//!
//! Arguments travel in RDI, RSI, RDX, R10, R8, the number and the result in RAX. A long call that
//! goes on after other work finds its progress in the argument registers, so they come back
//! changed; every other register is preserved (`public/arch-x86/xen-x86_64.h`).
#![expect(
    unsafe_code,
    reason = "VMCALL hands addresses of our memory to the hypervisor"
)]

use core::arch::asm;
use core::fmt;
use core::ptr::NonNull;

use abi::hypercall::{PAGE_SLOTS, STUB_SIZE};
use abi::{
    Errno, EvtchnPort, VcpuId, event_channel, grant_table, hvm, memory, sched, vcpu, xen_version,
};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// Why the hypervisor refused a call: the negative result it returned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Refused(i64);

impl Refused {
    /// The result as the hypervisor returned it, negative.
    #[must_use]
    pub const fn raw(self) -> i64 {
        self.0
    }
}

impl PartialEq<Errno> for Refused {
    fn eq(&self, errno: &Errno) -> bool {
        self.0.cast_unsigned() == errno.to_rax()
    }
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Refused({})", self.0)
    }
}

/// What a hypercall gave back.
pub type Reply = Result<u64, Refused>;

fn reply(rax: u64) -> Reply {
    let signed = rax.cast_signed();
    if signed < 0 {
        Err(Refused(signed))
    } else {
        Ok(rax)
    }
}

/// Makes hypercall `nr` by VMCALL.
///
/// # Errors
/// The negative result of a refused call.
///
/// # Safety
/// Memory the arguments name for this call is valid for what the call does with it, and nobody
/// holds a reference that the call's writes would contradict.
pub unsafe fn vmcall(nr: u64, args: [u64; 5]) -> Reply {
    let rax: u64;
    // SAFETY: the caller vouches for the memory; VMCALL preserves all registers but RAX
    // and those of the arguments.
    unsafe {
        asm!(
            "vmcall",
            inout("rax") nr => rax,
            inout("rdi") args[0] => _,
            inout("rsi") args[1] => _,
            inout("rdx") args[2] => _,
            inout("r10") args[3] => _,
            inout("r8") args[4] => _,
            options(nostack),
        );
    }
    reply(rax)
}

/// A page of call stubs the hypervisor filled, one for each hypercall number.
#[derive(Clone, Copy, Debug)]
pub struct HypercallPage {
    /// Invariant: the page stays mapped, executable and as the hypervisor filled it.
    base: NonNull<u8>,
}

// SAFETY: the page is only read and executed.
unsafe impl Send for HypercallPage {}
// SAFETY: as for `Send`.
unsafe impl Sync for HypercallPage {}

impl HypercallPage {
    /// Wraps a page.
    ///
    /// # Safety
    /// The hypervisor filled the page at `base`, which stays mapped, executable and unchanged for
    /// as long as the value and its copies are used.
    #[must_use]
    pub const unsafe fn new(base: NonNull<u8>) -> Self {
        Self { base }
    }

    /// Makes hypercall `nr` through its stub.
    ///
    /// # Errors
    /// The negative result of a refused call.
    ///
    /// # Panics
    /// When the page has no stub for `nr`.
    ///
    /// # Safety
    /// As for [`vmcall`].
    pub unsafe fn call(&self, nr: usize, args: [u64; 5]) -> Reply {
        assert!(nr < PAGE_SLOTS, "a slot of the hypercall page");
        // SAFETY: the slot lies inside the page.
        let stub = unsafe { self.base.add(nr * STUB_SIZE) };
        let rax: u64;
        // SAFETY: the stub is code by the invariant on `base`: it loads RAX, executes VMCALL and
        // returns. The caller vouches for the memory.
        unsafe {
            asm!(
                "call {stub}",
                stub = in(reg) stub.as_ptr(),
                out("rax") rax,
                inout("rdi") args[0] => _,
                inout("rsi") args[1] => _,
                inout("rdx") args[2] => _,
                inout("r10") args[3] => _,
                inout("r8") args[4] => _,
            );
        }
        reply(rax)
    }
}

/// An argument struct that names no memory: a call with it reads and writes the struct alone.
pub trait Argument: FromBytes + IntoBytes + sealed::Sealed {}

mod sealed {
    /// Only types of this file are arguments.
    pub trait Sealed {}
}

macro_rules! arguments {
    ($($type:ty),+ $(,)?) => {$(
        impl sealed::Sealed for $type {}
        impl Argument for $type {}
    )+};
}

arguments! {
    event_channel::AllocUnbound,
    event_channel::BindInterdomain,
    event_channel::BindIpi,
    event_channel::BindVcpu,
    event_channel::BindVirq,
    event_channel::Port,
    event_channel::Reset,
    event_channel::SetPriority,
    event_channel::Status,
    grant_table::GetVersion,
    grant_table::QuerySize,
    grant_table::SetVersion,
    hvm::EvtchnUpcallVector,
    hvm::MemType,
    hvm::Param,
    memory::DomainArg,
    sched::Shutdown,
    sched::Watchdog,
    vcpu::RunstateInfo,
    vcpu::SetPeriodicTimer,
    vcpu::SetSingleshotTimer,
    xen_version::CompileInfo,
    xen_version::FeatureInfo,
}

/// Makes the hypercall `nr` whose first word is a command and whose second points at its argument.
///
/// # Errors
/// The negative result of a refused call.
pub fn command<A: Argument>(nr: u64, cmd: u64, argument: &mut A) -> Reply {
    let address = (&raw mut *argument) as u64;
    // SAFETY: the call touches `argument` alone, borrowed for the whole call; any bytes the
    // hypervisor leaves in it are a valid value, since it is `FromBytes`.
    unsafe { vmcall(nr, [cmd, address, 0, 0, 0]) }
}

/// Makes the hypercall `nr` whose first word is a command, for an array of its arguments.
///
/// # Errors
/// The negative result of a refused call.
pub fn array_command<A: Argument>(nr: u64, cmd: u64, arguments: &mut [A]) -> Reply {
    let address = arguments.as_mut_ptr() as u64;
    // SAFETY: as in `command`, for each of the arguments.
    unsafe { vmcall(nr, [cmd, address, arguments.len() as u64, 0, 0]) }
}

/// Makes the vCPU operation `cmd` on `vcpu`, with its argument.
///
/// # Errors
/// The negative result of a refused call.
pub fn vcpu_command<A: Argument>(cmd: u64, vcpu: u32, argument: &mut A) -> Reply {
    let address = (&raw mut *argument) as u64;
    // SAFETY: as in `command`.
    unsafe {
        vmcall(
            abi::hypercall::VCPU_OP,
            [cmd, u64::from(vcpu), address, 0, 0],
        )
    }
}

/// A call that takes no memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bare {
    /// The hypervisor's version.
    XenVersion,
    /// Let others run.
    Yield,
    /// Sleep until an event is pending.
    Block,
    /// Have the calling vCPU's timer fire at this system time; 0 stops it.
    SetTimer(u64),
    /// Stop the one-shot timer of a vCPU, the calling one.
    StopSingleshotTimer(VcpuId),
    /// Stop the periodic timer of a vCPU.
    StopPeriodicTimer(VcpuId),
    /// Start a vCPU that was initialised.
    VcpuUp(VcpuId),
    /// Stop a vCPU.
    VcpuDown(VcpuId),
    /// Whether a vCPU runs: 1 or 0.
    VcpuIsUp(VcpuId),
    /// Send a vCPU an NMI.
    SendNmi(VcpuId),
}

/// Makes a call that takes no memory.
///
/// # Errors
/// The negative result of a refused call.
pub fn bare(call: Bare) -> Reply {
    use abi::hypercall::{SCHED_OP, SET_TIMER_OP, VCPU_OP, XEN_VERSION};
    let on_vcpu = |cmd, vcpu: VcpuId| (VCPU_OP, [cmd, u64::from(vcpu.0), 0, 0, 0]);
    let (nr, args) = match call {
        Bare::XenVersion => (XEN_VERSION, [xen_version::VERSION, 0, 0, 0, 0]),
        Bare::Yield => (SCHED_OP, [sched::YIELD, 0, 0, 0, 0]),
        Bare::Block => (SCHED_OP, [sched::BLOCK, 0, 0, 0, 0]),
        Bare::SetTimer(deadline) => (SET_TIMER_OP, [deadline, 0, 0, 0, 0]),
        Bare::StopSingleshotTimer(vcpu) => on_vcpu(vcpu::STOP_SINGLESHOT_TIMER, vcpu),
        Bare::StopPeriodicTimer(vcpu) => on_vcpu(vcpu::STOP_PERIODIC_TIMER, vcpu),
        Bare::VcpuUp(vcpu) => on_vcpu(vcpu::UP, vcpu),
        Bare::VcpuDown(vcpu) => on_vcpu(vcpu::DOWN, vcpu),
        Bare::VcpuIsUp(vcpu) => on_vcpu(vcpu::IS_UP, vcpu),
        Bare::SendNmi(vcpu) => on_vcpu(vcpu::SEND_NMI, vcpu),
    };
    // SAFETY: none of these calls reads or writes the caller's memory by an argument.
    unsafe { vmcall(nr, args) }
}

/// Sleeps until one of `ports` is pending, masked or not, or system time reaches `timeout`
/// (0: never).
///
/// # Errors
/// `-EINVAL` for a port that cannot be polled or too many of them.
pub fn poll(ports: &[EvtchnPort], timeout: u64) -> Reply {
    let mut argument = sched::Poll::new_zeroed();
    argument.ports = ports.as_ptr() as u64;
    argument.nr_ports = u32::try_from(ports.len()).unwrap_or(u32::MAX);
    argument.timeout = timeout;
    let address = &raw const argument as u64;
    // SAFETY: the hypervisor only reads: the struct, and the list, which is borrowed for the
    // whole call; `EvtchnPort` is a transparent `u32`.
    unsafe { vmcall(abi::hypercall::SCHED_OP, [sched::POLL, address, 0, 0, 0]) }
}

#[cfg(test)]
mod tests {
    use super::{Refused, reply};
    use abi::Errno;

    #[test]
    fn negative_results_are_refusals() {
        assert_eq!(reply(0), Ok(0));
        assert_eq!(reply(0x4_0011), Ok(0x4_0011));
        let refused = reply(Errno::Enosys.to_rax()).unwrap_err();
        assert_eq!(refused, Refused(-38));
        assert!(refused == Errno::Enosys && refused != Errno::Eperm);
        assert_eq!(refused.raw(), -38);
    }
}
