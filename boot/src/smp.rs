//! Starting the other CPUs: INIT, start-up interrupts, and the way from real mode to Rust.
//!
//! One CPU is started at a time, through one page below 640 KiB that holds the start-up code and
//! its parameters. One that does not come up in time costs a line in the log; should it arrive
//! later it finds its ticket withdrawn and halts. SDM 3A, "Multiple-Processor Management".
#![expect(unsafe_code, reason = "start-up code, and what it hands over")]

use alloc::boxed::Box;
use core::arch::global_asm;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use abi::{Hpa, PAGE_SIZE};
use boot::madt::Cpu;
use vmm_core::mm::directmap;
use vmx::cpu::apic;

use crate::cpu::tables::{self, Segments};
use crate::cpu::{control, local};
use crate::machine::clocks;
use crate::memory::stacks::{self, Stacks};
use crate::{end, memory, start};

/// How long a CPU may take from its start-up interrupt to Rust, in microseconds.
const PATIENCE_MICROS: u64 = 200_000;
/// Between INIT and start-up, in microseconds: enough for every CPU with VT-x.
const AFTER_INIT_MICROS: u64 = 200;
/// The step of the waiting loop, in microseconds.
const STEP_MICROS: u64 = 100;

/// The CPU that is being started; taken by the first to come.
static TICKET: AtomicU32 = AtomicU32::new(NO_TICKET);
const NO_TICKET: u32 = u32::MAX;
/// Set once the core may have the CPUs.
static RELEASED: AtomicBool = AtomicBool::new(false);

// The start-up page: real mode, then 32 bits, then 64. Everything is addressed from the page's
// start, which CS says in real mode. The words at the end are filled in by `Page::new`.
global_asm!(
    r#"
    .section .rodata.start_up, "a"
    .balign 16
start_up_begin:
    .code16
    cli
    cld
    xorl %ebx, %ebx
    movw %cs, %bx
    movw %bx, %ds
    shll $4, %ebx
    lgdtl (start_up_gdt_pointer - start_up_begin)
    movl $0x11, %eax
    movl %eax, %cr0
    ljmpl *(start_up_to_32 - start_up_begin)

    .code32
start_up_32:
    movw $24, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl %cr4, %eax
    orl $0x20, %eax
    movl %eax, %cr4
    movl (start_up_cr3 - start_up_begin)(%ebx), %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x900, %eax
    wrmsr
    movl $0x80010023, %eax
    movl %eax, %cr0
    ljmpl *(start_up_to_64 - start_up_begin)(%ebx)

    .code64
start_up_64:
    movl %ebx, %ebx
    movq (start_up_stack - start_up_begin)(%rbx), %rsp
    movq (start_up_argument - start_up_begin)(%rbx), %rdi
    movq (start_up_entry - start_up_begin)(%rbx), %rax
    xorl %ebp, %ebp
    callq *%rax
    ud2

    .balign 8
start_up_gdt:
    .quad 0, 0x00af9b000000ffff, 0x00cf9b000000ffff, 0x00cf93000000ffff
start_up_gdt_pointer:
    .short 31
    .long start_up_gdt - start_up_begin
start_up_to_32:
    .long start_up_32 - start_up_begin
    .short 16
start_up_to_64:
    .long start_up_64 - start_up_begin
    .short 8
    .balign 8
start_up_cr3:
    .quad 0
start_up_stack:
    .quad 0
start_up_argument:
    .quad 0
start_up_entry:
    .quad 0
start_up_end:
    .text
    "#,
    options(att_syntax)
);

unsafe extern "C" {
    static start_up_begin: u8;
    static start_up_gdt_pointer: u8;
    static start_up_to_32: u8;
    static start_up_to_64: u8;
    static start_up_cr3: u8;
    static start_up_stack: u8;
    static start_up_argument: u8;
    static start_up_entry: u8;
    static start_up_end: u8;
}

/// What a CPU gets to know when it comes up.
struct Arrival {
    index: u32,
    apic_id: u32,
    segments: *mut Segments,
}

/// The start-up page, while CPUs are being started.
struct Page(u64);

impl Page {
    /// Puts the start-up code into the page and maps it for the CPUs that run it.
    fn new(address: u64) -> Option<Self> {
        let root = memory::map_low_page(address, &mut stacks::take_page)?;
        let page = Self(address);
        let begin = &raw const start_up_begin;
        let size = (&raw const start_up_end).addr() - begin.addr();
        assert!(size <= PAGE_SIZE, "the start-up code fits its page");
        // SAFETY: (1) the code has `size` bytes; (2) the page is RAM below 1 MiB that the memory
        // map set aside for this; (3) they do not overlap, the image being above 2 MiB.
        unsafe {
            directmap::ptr(Hpa::new(address))
                .as_ptr()
                .copy_from_nonoverlapping(begin, size)
        };
        let base = u32::try_from(address).ok()?;
        for (place, skip) in [
            (&raw const start_up_gdt_pointer, 2),
            (&raw const start_up_to_32, 0),
            (&raw const start_up_to_64, 0),
        ] {
            page.relocate(place, skip, base);
        }
        page.set(&raw const start_up_cr3, root);
        page.set(&raw const start_up_entry, arrive as *const () as u64);
        Some(page)
    }

    /// Where a byte of the start-up code is in the page.
    fn place(&self, symbol: *const u8) -> *mut u8 {
        let offset = symbol.addr() - (&raw const start_up_begin).addr();
        directmap::ptr(Hpa::new(self.0 + offset as u64)).as_ptr()
    }

    fn relocate(&self, symbol: *const u8, skip: usize, base: u32) {
        let field = self.place(symbol).wrapping_add(skip).cast::<u32>();
        // SAFETY: the field lies in the page, which only this CPU knows so far.
        let offset = unsafe { field.read_unaligned() };
        // SAFETY: as above.
        unsafe { field.write_unaligned(offset + base) };
    }

    fn set(&self, symbol: *const u8, value: u64) {
        // SAFETY: the field lies in the page, aligned; no CPU runs the code meanwhile.
        unsafe { self.place(symbol).cast::<u64>().write_volatile(value) };
    }

    /// The page number that a start-up interrupt carries.
    fn number(&self) -> u8 {
        u8::try_from(self.0 / PAGE_SIZE as u64).unwrap_or(0)
    }
}

/// Starts all CPUs but this one, and returns those that run, this one first.
pub(crate) fn start_all(
    cpus: &[Cpu],
    page: Option<u64>,
    tsc_khz: u64,
    mut came_up: impl FnMut(Cpu),
) {
    let own = apic::id();
    let mut others = cpus.iter().filter(|cpu| cpu.apic_id != own).peekable();
    if others.peek().is_none() {
        return;
    }
    let Some(page) = page.and_then(Page::new) else {
        log::warn!("smp: no free page below 640 KiB to start other CPUs with: one CPU");
        return;
    };
    for cpu in others {
        if local::online() == vmm_core::percpu::MAX_CPUS {
            log::warn!("smp: only {} CPUs are used", vmm_core::percpu::MAX_CPUS);
            break;
        }
        match start_one(&page, *cpu, tsc_khz) {
            Ok(()) => came_up(*cpu),
            Err(reason) => log::warn!("smp: CPU with APIC id {} {reason}", cpu.apic_id),
        }
    }
}

/// Lets the CPUs go to the core, and takes away what only their start needed.
pub(crate) fn release() {
    memory::unmap_low();
    memory::load();
    RELEASED.store(true, Ordering::Release);
}

fn start_one(page: &Page, cpu: Cpu, tsc_khz: u64) -> Result<(), &'static str> {
    let index = u32::try_from(local::online()).unwrap_or(NO_TICKET);
    let stacks = Stacks::allocate().ok_or("gets no stack: out of memory")?;
    let mut segments = Box::new(Segments::new());
    segments.set_interrupt_stacks(stacks.interrupt);
    local::register(index as usize, cpu.apic_id, segments.address());
    let arrival = Arrival {
        index,
        apic_id: cpu.apic_id,
        segments: Box::into_raw(segments),
    };
    // Stack, segments and arrival are the CPU's from here on, even if it never comes.
    page.set(&raw const start_up_stack, stacks.main);
    page.set(
        &raw const start_up_argument,
        Box::into_raw(Box::new(arrival)).addr() as u64,
    );
    TICKET.store(index, Ordering::Release);

    // SAFETY: by the MADT's account this is another CPU, and nothing was started on it yet.
    unsafe { apic::send_init(cpu.apic_id) };
    clocks::delay_micros(AFTER_INIT_MICROS, tsc_khz);
    for attempt in 0..2 {
        // SAFETY: the page holds the start-up code.
        unsafe { apic::send_startup(cpu.apic_id, page.number()) };
        // The second start-up interrupt is for CPUs that miss the first: give that one a chance.
        let patience = if attempt == 0 {
            PATIENCE_MICROS / 20
        } else {
            PATIENCE_MICROS
        };
        for _ in 0..patience / STEP_MICROS {
            if local::online() > index as usize {
                return Ok(());
            }
            clocks::delay_micros(STEP_MICROS, tsc_khz);
        }
    }
    // Withdraw the ticket; a CPU that took it this moment does come up.
    if TICKET
        .compare_exchange(index, NO_TICKET, Ordering::AcqRel, Ordering::Acquire)
        .is_ok()
    {
        return Err("does not come up: going on without it");
    }
    while local::online() == index as usize {
        core::hint::spin_loop();
    }
    Ok(())
}

/// The first Rust code of a CPU that was started.
extern "C" fn arrive(arrival: *mut Arrival) -> ! {
    // SAFETY: `start_one` leaked it for this CPU; one that comes late only reads its number.
    let Arrival {
        index,
        apic_id,
        segments,
    } = unsafe { arrival.read() };
    if TICKET
        .compare_exchange(index, NO_TICKET, Ordering::AcqRel, Ordering::Acquire)
        .is_err()
    {
        end::halt_forever();
    }
    control::init();
    // SAFETY: leaked for this CPU alone, which took the ticket.
    let segments: &'static mut Segments = unsafe { &mut *segments };
    segments.load();
    tables::load_interrupts();
    start::start_local_apic();
    vmm_core::percpu::install(index, apic_id);
    local::came_online();
    while !RELEASED.load(Ordering::Acquire) {
        core::hint::spin_loop();
    }
    memory::load();
    vmm_core::start::start_ap()
}
