//! An arena that plays RAM in host tests.
#![expect(
    unsafe_code,
    reason = "gives the direct map memory of the test process"
)]
#![expect(clippy::std_instead_of_core, reason = "runs on the host only")]

extern crate std;

use std::alloc::{Layout, alloc_zeroed};
use std::sync::Once;
use std::vec::Vec;

use abi::{Hpa, Mfn};
use core::cell::Cell;
use core::sync::atomic::{AtomicU64, Ordering};

use super::directmap;
use super::frame::{self, FrameTable, Owner, frames as table};
use super::page::PageRef;

const MIB: u64 = 256;
/// First frame that tests make tables of their own from; up to `SHARED`.
const PRIVATE: u64 = 512 * MIB;
/// First frame of the global table's small region, up to `GIANT`.
const SHARED: u64 = 896 * MIB;
/// First frame of the global table's 1 GiB region: room for a page of that size.
const GIANT: u64 = 1024 * MIB;
const END: u64 = 2048 * MIB;

static ARENA: Once = Once::new();
static NEXT_PRIVATE: AtomicU64 = AtomicU64::new(PRIVATE);

/// Sets up the direct map and the global frame table over memory of this process, once. The
/// memory is only reserved; the host backs what tests touch.
pub fn init() {
    ARENA.call_once(|| {
        let Ok(layout) = Layout::from_size_align(directmap::to_usize((END - PRIVATE) << 12), 4096)
        else {
            unreachable!("a constant layout");
        };
        // SAFETY: the layout is not empty.
        let arena = unsafe { alloc_zeroed(layout) };
        assert!(!arena.is_null(), "address space for the arena");
        let base = (arena.expose_provenance() as u64) - (PRIVATE << 12);
        // SAFETY: the arena is never freed; the frames handed out below lie inside it.
        unsafe { directmap::init(base, Hpa::new(END << 12)) };
        let map = [
            (Mfn::new(SHARED), 64 * MIB),
            (Mfn::new(SHARED + 65 * MIB), 3),
            (Mfn::new(GIANT), END - GIANT),
        ];
        // SAFETY: these regions lie in the arena, and private tables are made below them.
        unsafe { frame::init(&map) };
    });
}

std::thread_local! {
    /// Allocations this thread may still make; `None` for any number.
    static BUDGET: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Lets only the next `budget` frame allocations of this thread succeed, or any number again.
pub fn limit_allocations(budget: Option<u32>) {
    BUDGET.set(budget);
}

/// Counts one allocation of this thread; true when it is to fail.
pub(super) fn allocation_fails() -> bool {
    let Some(left) = BUDGET.get() else {
        return false;
    };
    BUDGET.set(Some(left.saturating_sub(1)));
    left == 0
}

/// `count` frames of RAM nobody uses, for a frame table of the test's own. They are aligned to
/// 16 MiB and still zero.
///
/// # Panics
/// When the tests of this process ask for more than the arena has.
pub fn private_ram(count: u64) -> Mfn {
    init();
    let size = count.next_multiple_of(16 * MIB);
    let start = NEXT_PRIVATE.fetch_add(size, Ordering::Relaxed);
    assert!(start + size <= SHARED, "arena large enough");
    Mfn::new(start)
}

/// A frame table of the test's own over one region of `count` frames.
pub fn private_table(count: u64) -> FrameTable {
    let start = private_ram(count);
    // SAFETY: the frames were just set apart for this table.
    unsafe { FrameTable::new(&[(start, count)]) }
}

/// `count` zeroed pages of the global table, held once each.
///
/// # Panics
/// When the arena is exhausted.
pub fn frames(count: usize) -> Vec<PageRef> {
    init();
    (0..count).map(|_| page(Owner::Hypervisor)).collect()
}

/// One zeroed page of the global table.
///
/// # Panics
/// When the arena is exhausted.
pub fn page(owner: Owner) -> PageRef {
    init();
    let Some(page) = PageRef::alloc(owner) else {
        unreachable!("{} frames left of the arena", table().free_frames());
    };
    page
}

/// A hold on the page that an address of the global table lies in.
pub fn held(hpa: Hpa) -> PageRef {
    PageRef::hold(hpa.mfn())
}
