//! Segments, the task state with the interrupt stacks, and the interrupt descriptor table.
//!
//! SDM 3A, "Protected-Mode Memory Management" (descriptors) and "Interrupt and Exception
//! Handling" (64-bit gates, interrupt stack table).
#![expect(unsafe_code, reason = "loads descriptor tables")]

use core::arch::asm;
use core::cell::UnsafeCell;

use super::traps;

/// The code segment's selector; data follows, then the task state.
pub(crate) const CODE: u16 = 0x08;
const DATA: u16 = 0x10;
const TASK: u16 = 0x18;

/// Which interrupt stack (1 to 7) an exception takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum InterruptStack {
    /// NMI.
    Nmi = 1,
    /// #DF.
    DoubleFault = 2,
    /// #MC.
    MachineCheck = 3,
}

/// The number of interrupt stacks.
pub(crate) const INTERRUPT_STACKS: usize = 3;

/// The 64-bit task state segment.
#[repr(C, packed(4))]
#[derive(Debug)]
struct TaskState {
    reserved0: u32,
    privilege_stacks: [u64; 3],
    reserved1: u64,
    interrupt_stacks: [u64; 7],
    reserved2: u64,
    reserved3: u16,
    /// Beyond the limit: no port is open to anybody else.
    io_bitmap: u16,
}

const _: () = assert!(size_of::<TaskState>() == 104);

/// One CPU's descriptor table and task state.
#[repr(C, align(64))]
#[derive(Debug)]
pub(crate) struct Segments {
    descriptors: [u64; 5],
    task: TaskState,
}

impl Segments {
    /// Segments without interrupt stacks.
    pub(crate) const fn new() -> Self {
        Self {
            descriptors: [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0, 0],
            task: TaskState {
                reserved0: 0,
                privilege_stacks: [0; 3],
                reserved1: 0,
                interrupt_stacks: [0; 7],
                reserved2: 0,
                reserved3: 0,
                io_bitmap: 104,
            },
        }
    }

    /// Sets the top of each interrupt stack.
    pub(crate) fn set_interrupt_stacks(&mut self, tops: [u64; INTERRUPT_STACKS]) {
        let mut all = [0; 7];
        all[..INTERRUPT_STACKS].copy_from_slice(&tops);
        self.task.interrupt_stacks = all;
    }

    /// The address of the descriptor table, by which a CPU knows itself.
    pub(crate) fn address(&self) -> u64 {
        self.descriptors.as_ptr().addr() as u64
    }

    /// Makes these the calling CPU's segments, for ever.
    pub(crate) fn load(&'static mut self) {
        let task = (&raw const self.task).addr() as u64;
        let limit = size_of::<TaskState>() as u64 - 1;
        self.descriptors[3] = limit
            | (task & 0xff_ffff) << 16
            | 0x89 << 40 // present, available 64-bit task state
            | (task >> 24 & 0xff) << 56;
        self.descriptors[4] = task >> 32;
        let pointer = TablePointer::new(self.address(), size_of_val(&self.descriptors));
        // SAFETY: (1) the descriptors live for ever and describe flat code and data segments, so
        // nothing that runs notices the change; (2) the task state descriptor is not busy, being
        // new; (3) the far return goes to the next instruction.
        unsafe {
            asm!(
                "lgdt [{pointer}]",
                "push {code}",
                "lea {scratch}, [rip + 2f]",
                "push {scratch}",
                "retfq",
                "2:",
                "mov ds, {data:e}",
                "mov es, {data:e}",
                "mov ss, {data:e}",
                "xor {scratch:e}, {scratch:e}",
                "mov fs, {scratch:e}",
                "ltr {task:x}",
                pointer = in(reg) &raw const pointer,
                code = const CODE,
                data = in(reg) u32::from(DATA),
                task = in(reg) TASK,
                scratch = out(reg) _,
            );
        }
    }
}

/// The address of the descriptor table in use.
pub(crate) fn current() -> u64 {
    let mut pointer = TablePointer::new(0, 1);
    // SAFETY: SGDT writes the ten bytes it is given.
    unsafe { asm!("sgdt [{}]", in(reg) &raw mut pointer, options(nostack, preserves_flags)) };
    pointer.base
}

#[repr(C, packed(2))]
struct TablePointer {
    limit: u16,
    base: u64,
}

impl TablePointer {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a descriptor table has at most 4 KiB"
    )]
    const fn new(base: u64, size: usize) -> Self {
        Self {
            limit: (size - 1) as u16,
            base,
        }
    }
}

/// The interrupt descriptor table, the same for all CPUs. Written by [`init_interrupts`] before
/// any CPU loads it, and by [`use_interrupt_stacks`] while one CPU runs.
struct Gates(UnsafeCell<[[u64; 2]; 256]>);

// SAFETY: written only while a single CPU runs.
unsafe impl Sync for Gates {}

static GATES: Gates = Gates(UnsafeCell::new([[0; 2]; 256]));

/// Fills the interrupt descriptor table and loads it on the first CPU.
///
/// # Safety
/// Only one CPU runs.
pub(crate) unsafe fn init_interrupts() {
    for vector in 0..=u8::MAX {
        // SAFETY: one CPU runs, by the caller's promise.
        unsafe { set_gate(vector, 0) };
    }
    load_interrupts();
}

/// Sends NMI, #DF and #MC to their own stacks.
///
/// # Safety
/// Only one CPU runs, and its [`Segments`] have these stacks; so have those of every CPU that
/// loads the table later.
pub(crate) unsafe fn use_interrupt_stacks() {
    for (vector, stack) in [
        (traps::NMI, InterruptStack::Nmi),
        (traps::DOUBLE_FAULT, InterruptStack::DoubleFault),
        (traps::MACHINE_CHECK, InterruptStack::MachineCheck),
    ] {
        // SAFETY: one CPU runs, by the caller's promise.
        unsafe { set_gate(vector, stack as u64) };
    }
}

/// Writes an interrupt gate (interrupts stay off behind it).
///
/// # Safety
/// Only one CPU runs.
unsafe fn set_gate(vector: u8, stack: u64) {
    let handler = traps::stub(vector);
    let low = (handler & 0xffff)
        | u64::from(CODE) << 16
        | stack << 32
        | 0x8e << 40
        | (handler >> 16 & 0xffff) << 48;
    // SAFETY: the index is inside the table.
    let gate = unsafe { GATES.0.get().cast::<[u64; 2]>().add(usize::from(vector)) };
    // SAFETY: nobody else accesses the table, by the caller's promise.
    unsafe { gate.write([low, handler >> 32]) };
}

/// Loads the interrupt descriptor table on the calling CPU.
pub(crate) fn load_interrupts() {
    let pointer = TablePointer::new(GATES.0.get().addr() as u64, size_of::<Gates>());
    // SAFETY: the table lives for ever and every gate leads to a handler.
    unsafe { asm!("lidt [{}]", in(reg) &raw const pointer, options(nostack, preserves_flags)) };
}
