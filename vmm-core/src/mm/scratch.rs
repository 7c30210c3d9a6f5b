//! A large buffer for the time of one job, made of free frames in a row.
//!
//! To scrub and to free many frames takes long, so both go in steps.
#![expect(unsafe_code, reason = "turns frames it owns into a byte slice")]

use abi::{Mfn, PAGE_SHIFT};

use super::directmap;
use super::frame::{Owner, frames};

/// A buffer that lives in frames of its own.
#[derive(Debug)]
pub struct Scratch {
    /// The first frame and the order of the block, if the buffer is not empty.
    block: Option<(Mfn, u8)>,
    size: usize,
}

impl Scratch {
    /// A buffer of `size` bytes, or `None` when there are not as many free frames in a row. Calls
    /// `give_way` between steps.
    #[must_use]
    pub fn new(size: usize, give_way: &mut dyn FnMut()) -> Option<Self> {
        if size == 0 {
            return Some(Self { block: None, size });
        }
        let pages = size.div_ceil(1 << PAGE_SHIFT);
        let order = u8::try_from(pages.checked_next_power_of_two()?.trailing_zeros()).ok()?;
        let mfn = frames().alloc_unscrubbed(order, Owner::Hypervisor, give_way)?;
        let mut exposed = 0;
        while exposed < 1 << order {
            exposed = frames().expose(mfn, order, exposed);
            give_way();
        }
        Some(Self {
            block: Some((mfn, order)),
            size,
        })
    }

    /// The buffer. What is in it at first is not defined, but never anybody's secret.
    pub fn bytes(&mut self) -> &mut [u8] {
        let Some((mfn, _)) = self.block else {
            return &mut [];
        };
        let start = directmap::ptr(mfn.hpa());
        // SAFETY: the block's frames follow each other in the direct map, are initialised
        // memory, and belong to this value, which is borrowed for as long as the slice lives.
        unsafe { core::slice::from_raw_parts_mut(start.as_ptr(), self.size) }
    }
}

impl Scratch {
    /// Gives the frames back, and calls `give_way` between steps; dropping the value does it
    /// without.
    pub fn free(mut self, give_way: &mut dyn FnMut()) {
        self.free_in_steps(give_way);
    }

    fn free_in_steps(&mut self, give_way: &mut dyn FnMut()) {
        if let Some((mfn, order)) = self.block.take() {
            frames().free_in_steps(mfn, order, give_way);
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.free_in_steps(&mut || ());
    }
}
