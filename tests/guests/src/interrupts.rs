//! Interrupts and exceptions: 256 entry stubs, handlers by vector, and recovery from faults.
//!
//! Three things may claim a vector. An instruction of [`crate::cpu`] that may fault names a
//! landing place in the `.recovery` section: the fault then shows up as that function's error.
//! A handler set by [`on`] runs for its vector. Whatever is left is a bug of the guest or of the
//! hypervisor: it is reported with its registers and ends the guest with a failing verdict.
#![expect(
    unsafe_code,
    reason = "descriptor tables and the frames interrupts leave"
)]

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::mem::size_of;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use crate::entry;
use crate::smp::MAX_VCPUS;

/// Registers at the moment of an interrupt, as the stubs push them.
#[repr(C)]
#[derive(Debug)]
pub struct Frame {
    /// R15, R14, R13, R12, R11, R10, R9, R8, RBP, RDI, RSI, RDX, RCX, RBX, RAX in this order.
    pub registers: [u64; 15],
    /// The vector.
    pub vector: u64,
    /// The error code, or 0.
    pub error: u64,
    /// RIP to return to.
    pub rip: u64,
    /// CS to return to.
    pub cs: u64,
    /// RFLAGS to return with.
    pub rflags: u64,
    /// RSP to return with.
    pub rsp: u64,
    /// SS to return with.
    pub ss: u64,
}

/// Index of R11 in [`Frame::registers`]: it carries a recovered fault to the landing place.
const R11: usize = 4;

/// What runs for a vector.
pub type Handler = fn(&mut Frame);

static HANDLERS: [AtomicPtr<()>; 256] = [const { AtomicPtr::new(core::ptr::null_mut()) }; 256];
static COUNTS: [AtomicU64; 256] = [const { AtomicU64::new(0) }; 256];

/// Lets `handler` run for `vector` on every vCPU.
pub fn on(vector: u8, handler: Handler) {
    HANDLERS[usize::from(vector)].store(handler as *mut (), Ordering::Release);
}

/// How often a handler ran for `vector`, on all vCPUs together.
pub fn count(vector: u8) -> u64 {
    COUNTS[usize::from(vector)].load(Ordering::Acquire)
}

/// A handler that does nothing: [`count`] tells that the interrupt came.
pub fn just_count(_frame: &mut Frame) {}

global_asm!(
    r#"
    .text
    .balign 16
guest_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    .if (vector == 8) || (vector >= 10 && vector <= 14) || (vector == 17) || (vector == 21)
    .else
    push $0
    .endif
    push $vector
    jmp guest_interrupt
    .set vector, vector + 1
    .endr

guest_interrupt:
    push %rax
    push %rbx
    push %rcx
    push %rdx
    push %rsi
    push %rdi
    push %rbp
    push %r8
    push %r9
    push %r10
    push %r11
    push %r12
    push %r13
    push %r14
    push %r15
    cld
    mov %rsp, %rdi
    mov %rsp, %rbp
    and $-16, %rsp
    call {dispatch}
    mov %rbp, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rbp
    pop %rdi
    pop %rsi
    pop %rdx
    pop %rcx
    pop %rbx
    pop %rax
    add $16, %rsp
    iretq
    "#,
    dispatch = sym dispatch,
    options(att_syntax),
);

unsafe extern "C" {
    static guest_stubs: [[u8; 16]; 256];
    static guest_recovery_start: [u64; 2];
    static guest_recovery_end: [u64; 2];
}

extern "C" fn dispatch(frame: &mut Frame) {
    let vector = u8::try_from(frame.vector).unwrap_or(u8::MAX);
    if vector < 32
        && let Some(landing) = recovery(frame.rip)
    {
        frame.registers[R11] = RECOVERED | frame.vector << 32 | frame.error & 0xffff_ffff;
        frame.rip = landing;
        return;
    }
    let handler = HANDLERS[usize::from(vector)].load(Ordering::Acquire);
    if handler.is_null() {
        crate::runtime::unexpected(frame);
    }
    COUNTS[usize::from(vector)].fetch_add(1, Ordering::AcqRel);
    // SAFETY: only `on` stores here, and it stores a `Handler`.
    let handler = unsafe { core::mem::transmute::<*mut (), Handler>(handler) };
    handler(frame);
}

/// Marks R11 at a landing place: a fault was recovered from; bits 39:32 hold its vector, bits
/// 31:0 its error code.
pub(crate) const RECOVERED: u64 = 1 << 63;

fn recovery(rip: u64) -> Option<u64> {
    let start = &raw const guest_recovery_start;
    let length = (&raw const guest_recovery_end as usize).wrapping_sub(start as usize);
    // SAFETY: the linker script bounds the section by the two symbols; every entry in it is a
    // pair of quadwords.
    let table = unsafe { core::slice::from_raw_parts(start, length / size_of::<[u64; 2]>()) };
    table
        .iter()
        .find(|[at, _]| *at == rip)
        .map(|[_, landing]| *landing)
}

/// The interrupt descriptor table, shared by all vCPUs; written by vCPU 0 before any other runs.
struct Table(UnsafeCell<[[u64; 2]; 256]>);

// SAFETY: written once by `load_first` on the only vCPU that runs then, read by the CPU alone.
unsafe impl Sync for Table {}

static TABLE: Table = Table(UnsafeCell::new([[0; 2]; 256]));

/// One task state for each vCPU: it holds the stack ring 3 is left for.
struct TaskStates(UnsafeCell<[[u32; 26]; MAX_VCPUS]>);

// SAFETY: each vCPU writes its own element, before the CPU reads it.
unsafe impl Sync for TaskStates {}

static TASK_STATES: TaskStates = TaskStates(UnsafeCell::new([[0; 26]; MAX_VCPUS]));

/// The vector ring 3 may raise by INT, to get back to ring 0.
pub(crate) const FROM_RING_3: u8 = 0x80;

/// Fills the table and loads it on vCPU 0.
pub(crate) fn load_first() {
    // SAFETY: this runs once, on vCPU 0, before interrupts are on and before other vCPUs start.
    let table = unsafe { &mut *TABLE.0.get() };
    let stubs = (&raw const guest_stubs).cast::<[u8; 16]>() as u64;
    for (vector, gate) in (0_u64..).zip(table.iter_mut()) {
        let target = stubs + 16 * vector;
        let ring: u64 = if vector == u64::from(FROM_RING_3) {
            3
        } else {
            0
        };
        let low = target & 0xffff
            | u64::from(entry::KERNEL_CODE) << 16
            | (0x8e | ring << 5) << 40
            | (target >> 16 & 0xffff) << 48;
        *gate = [low, target >> 32];
    }
    load(0);
}

/// Loads the descriptor table and a task state on this vCPU.
pub(crate) fn load(vcpu: usize) {
    #[repr(C, packed)]
    struct Pointer {
        limit: u16,
        base: u64,
    }
    let pointer = Pointer {
        limit: 256 * 16 - 1,
        base: TABLE.0.get() as u64,
    };
    // SAFETY: the table is filled and lives for ever.
    unsafe { asm!("lidt ({0})", in(reg) &raw const pointer, options(att_syntax, nostack)) };
    let base = TASK_STATES.0.get() as u64 + (vcpu * size_of::<[u32; 26]>()) as u64;
    let selector = entry::describe_task_state(vcpu, base, 26 * 4 - 1);
    // SAFETY: the selector names an available 64-bit task state written just now.
    unsafe { asm!("ltr {0:x}", in(reg) selector, options(att_syntax, nostack)) };
}

/// Sets the stack an interrupt out of ring 3 shall use on `vcpu`.
pub(crate) fn set_ring_0_stack(vcpu: usize, top: u64) {
    let states = TASK_STATES.0.get().cast::<[u32; 26]>();
    // SAFETY: `vcpu` is this vCPU's own index, below `MAX_VCPUS`.
    let state = unsafe { states.add(vcpu) };
    let value = [0, (top & 0xffff_ffff) as u32, (top >> 32) as u32];
    // SAFETY: only this vCPU writes its task state; RSP0 lies at byte 4.
    unsafe { state.cast::<[u32; 3]>().write_volatile(value) };
}

/// Has vCPU 0 take the interrupts of `vector` on a stack of their own.
pub(crate) fn use_stack(vector: u8, top: u64) {
    let state = TASK_STATES.0.get().cast::<u8>();
    // SAFETY: IST1 of vCPU 0's task state lies at byte 36.
    let place = unsafe { state.add(36) };
    // SAFETY: this runs on vCPU 0, which alone writes its task state.
    unsafe { place.cast::<u64>().write_unaligned(top) };
    let table = TABLE.0.get().cast::<[u64; 2]>();
    // SAFETY: any vector has a gate in the table.
    let gate = unsafe { table.add(usize::from(vector)) };
    // SAFETY: a gate is two aligned words, which nobody else writes once the table is loaded.
    let [low, high] = unsafe { gate.read_volatile() };
    // SAFETY: as above; the number of the stack takes bits 34:32, which were clear.
    unsafe { gate.write_volatile([low | 1 << 32, high]) };
}
