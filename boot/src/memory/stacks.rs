//! CPU stacks, each in the stacks' window above a page that is never mapped, so that an overflow
//! faults instead of writing elsewhere.

use abi::{Mfn, PAGE_SIZE};
use spin::mutex::SpinMutex;
use vmm_core::mm::frame::{self, Owner};
use vmm_core::percpu::MAX_CPUS;

use super::paging;
use crate::cpu::tables::INTERRUPT_STACKS;
use crate::layout;

/// Pages of the stack on which a CPU does all its work.
const MAIN_PAGES: u64 = 16;
/// Pages of each interrupt stack. The epitaph of a double fault is written on one.
const INTERRUPT_PAGES: u64 = 3;

/// The next free address of the window.
static NEXT: SpinMutex<u64> = SpinMutex::new(layout::STACKS_BASE);

/// The tops of one CPU's stacks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stacks {
    /// For everything.
    pub(crate) main: u64,
    /// For the exceptions that get their own.
    pub(crate) interrupt: [u64; INTERRUPT_STACKS],
}

impl Stacks {
    /// Makes the stacks of one more CPU; `None` when memory is out.
    pub(crate) fn allocate() -> Option<Self> {
        let main = stack(MAIN_PAGES)?;
        let mut interrupt = [0; INTERRUPT_STACKS];
        for top in &mut interrupt {
            *top = stack(INTERRUPT_PAGES)?;
        }
        Some(Self { main, interrupt })
    }
}

/// True for an address in the page below one of the stacks.
pub(crate) fn is_guard_page(address: u64) -> bool {
    const CPU_PAGES: u64 = MAIN_PAGES + 1 + INTERRUPT_STACKS as u64 * (INTERRUPT_PAGES + 1);
    // Only an estimate of the end: this runs while the hypervisor dies, and takes no lock.
    let end = layout::STACKS_BASE + MAX_CPUS as u64 * CPU_PAGES * PAGE_SIZE as u64;
    if !(layout::STACKS_BASE..end).contains(&address) {
        return false;
    }
    let page = (address - layout::STACKS_BASE) / PAGE_SIZE as u64 % CPU_PAGES;
    page == 0 || page > MAIN_PAGES && (page - MAIN_PAGES - 1).is_multiple_of(INTERRUPT_PAGES + 1)
}

/// Maps one stack and returns its top.
fn stack(pages: u64) -> Option<u64> {
    let page = PAGE_SIZE as u64;
    let mut next = NEXT.lock();
    let bottom = *next + page;
    *next = bottom + pages * page;
    for number in 0..pages {
        paging::map_stack_page(bottom + number * page, take_page()?, &mut take_page)?;
    }
    Some(*next)
}

/// A frame for a pCPU's stack, or for the page tables that map it.
pub(crate) fn take_page() -> Option<u64> {
    frame::frames()
        .alloc(0, Owner::Cpu)
        .map(|mfn: Mfn| mfn.hpa().raw())
}
