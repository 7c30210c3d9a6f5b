//! The heap: small blocks from a TLSF pool that grows frame by frame, large ones from the frame
//! table directly, to which they return when they are freed.
#![expect(unsafe_code, reason = "implements the global allocator")]

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

use abi::{Mfn, PAGE_SIZE};
use rlsf::Tlsf;
use spin::mutex::SpinMutex;
use vmm_core::mm::directmap;
use vmm_core::mm::frame::{self, Owner};

/// From this size on a block comes from the frame table.
const LARGE: usize = 32 * 1024;
/// By how much the pool grows: 2^order frames.
const GROWTH_ORDER: u8 = 4;

/// A pool of blocks up to 64 KiB.
type Pool = Tlsf<'static, u16, u16, 12, 16>;

struct Heap(SpinMutex<Pool>);

#[global_allocator]
static HEAP: Heap = Heap(SpinMutex::new(Pool::new()));

// SAFETY: (1) blocks come either from the pool or, by size and alignment alone, from the frame
// table, and go back where they came from; (2) neither hands out a block twice; (3) nothing here
// unwinds: the image aborts on panic.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if let Some(order) = frame_order(layout) {
            return frames(order, Owner::Hypervisor).map_or(ptr::null_mut(), NonNull::as_ptr);
        }
        let mut pool = self.0.lock();
        let block = pool.allocate(layout).or_else(|| {
            grow(&mut pool)?;
            pool.allocate(layout)
        });
        block.map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(block) = NonNull::new(block) else {
            return;
        };
        if let Some(order) = frame_order(layout) {
            frame::frames().free(directmap::hpa_of(block).mfn(), order);
        } else {
            // SAFETY: the caller got the block from `alloc` with this layout, so from the pool.
            unsafe { self.0.lock().deallocate(block, layout.align()) };
        }
    }
}

/// The order of the frames for a large block; `None` for one from the pool.
fn frame_order(layout: Layout) -> Option<u8> {
    let size = layout.size().max(layout.align());
    let last = size.div_ceil(PAGE_SIZE).saturating_sub(1);
    let order = last.checked_ilog2().map_or(0, |bit| bit.saturating_add(1));
    let order = u8::try_from(order).unwrap_or(u8::MAX);
    (size >= LARGE).then_some(order)
}

fn frames(order: u8, owner: Owner) -> Option<NonNull<u8>> {
    if order > frame::MAX_ORDER {
        return None;
    }
    let first: Mfn = frame::frames().alloc(order, owner)?;
    Some(directmap::ptr(first.hpa()))
}

/// Adds frames to the pool.
fn grow(pool: &mut Pool) -> Option<()> {
    let block = NonNull::slice_from_raw_parts(
        frames(GROWTH_ORDER, Owner::Heap)?,
        PAGE_SIZE << GROWTH_ORDER,
    );
    // SAFETY: the frames were allocated for the pool and stay with it for ever.
    unsafe { pool.insert_free_block_ptr(block) }.map(|_| ())
}
