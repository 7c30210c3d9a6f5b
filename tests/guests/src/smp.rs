//! The second vCPU: started by INIT and start-up IPIs, or by `VCPUOP_initialise` and `VCPUOP_up`.
#![expect(unsafe_code, reason = "hands a function to code that starts elsewhere")]

use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use abi::VcpuId;
use abi::hvm::{VcpuHvmContext, VcpuHvmX86_64, context_mode};
use abi::hypercall::VCPU_OP;
use abi::vcpu::INITIALISE;
use pv_drivers::hypercall::{Bare, Reply, bare};
use zerocopy::{FromZeros, IntoBytes};

use crate::apic::Apic;
use crate::memory::{self, Page};
use crate::{cpu, entry, interrupts, xen};

/// vCPUs this runtime can run.
pub const MAX_VCPUS: usize = 2;

/// Every vCPU's index, at a place GS can point at.
pub(crate) static INDICES: [usize; MAX_VCPUS] = [0, 1];

/// Where the real-mode trampoline goes: a page below 1 MiB that belongs to nothing else.
const TRAMPOLINE_PAGE: u8 = 8;
const TRAMPOLINE: u64 = (TRAMPOLINE_PAGE as u64) << abi::PAGE_SHIFT;

const STACK_PAGES: usize = entry::STACK_SIZE / abi::PAGE_SIZE;
static STACK: [Page; STACK_PAGES] = [const { Page::new() }; STACK_PAGES];

static TASK: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());
static STARTED: AtomicU32 = AtomicU32::new(0);

fn prepare(task: fn()) {
    TASK.store(task as *mut (), Ordering::Release);
    let top = STACK[0].address() + entry::STACK_SIZE as u64;
    entry::SECONDARY_STACK.store(top, Ordering::Release);
}

/// Starts vCPU 1 by INIT and two start-up IPIs; it runs `task`, then stops for good.
pub fn start_by_sipi(apic: Apic, task: fn()) {
    prepare(task);
    memory::write(TRAMPOLINE, entry::trampoline());
    let target = apic_id_of(1);
    apic.send_init(target);
    apic.send_startup(target, TRAMPOLINE_PAGE);
    apic.send_startup(target, TRAMPOLINE_PAGE);
}

/// Starts vCPU 1 by hypercalls; it runs `task`, then stops for good.
///
/// # Errors
/// The negative result of a refused call.
pub fn start_by_hypercall(task: fn()) -> Reply {
    prepare(task);
    initialise(1)?;
    bare(Bare::VcpuUp(VcpuId(1)))
}

/// Gives a vCPU its first registers: 64-bit mode, at the runtime's entry.
///
/// # Errors
/// The negative result of a refused call.
pub fn initialise(vcpu: u64) -> Reply {
    let mut registers = VcpuHvmX86_64::new_zeroed();
    registers.rip = entry::secondary_entry();
    registers.rflags = 2;
    registers.cr0 = entry::CR0;
    registers.cr3 = entry::page_map_root();
    registers.cr4 = entry::CR4;
    registers.efer = 0x500;
    let mut context = VcpuHvmContext::new_zeroed();
    context.mode = context_mode::MODE_64B;
    context.regs[..size_of::<VcpuHvmX86_64>()].copy_from_slice(registers.as_bytes());
    xen::call(VCPU_OP, [INITIALISE, vcpu, &raw const context as u64, 0, 0])
}

/// The APIC id the hypervisor gives a vCPU: two apart, as Xen's.
#[must_use]
pub fn apic_id_of(vcpu: u32) -> u32 {
    2 * vcpu
}

/// How many vCPUs have been started and arrived.
#[must_use]
pub fn started() -> u32 {
    STARTED.load(Ordering::Acquire)
}

/// Where the entry code goes, on vCPU 1.
pub(crate) extern "C" fn enter() -> ! {
    cpu::set_index(&INDICES[1]);
    interrupts::load(1);
    STARTED.fetch_add(1, Ordering::AcqRel);
    let task = TASK.load(Ordering::Acquire);
    // SAFETY: only `prepare` stores here, a `fn()`, before the vCPU is started.
    let task = unsafe { core::mem::transmute::<*mut (), fn()>(task) };
    task();
    cpu::disable_interrupts();
    loop {
        cpu::halt();
    }
}
