//! The atomic operations that protocols between pCPUs are written with, so that loom can run the
//! very same code through all its interleavings.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// An atomic word. All operations are in one total order.
pub(crate) trait Word<T> {
    /// Reads it.
    fn get(&self) -> T;
    /// Writes it.
    fn set(&self, value: T);
    /// Writes `new` if it was `old`, or answers with what it was instead.
    fn exchange(&self, old: T, new: T) -> Result<(), T>;
    /// Writes `new` if it was `old`; false if it was not.
    fn change(&self, old: T, new: T) -> bool {
        self.exchange(old, new).is_ok()
    }
    /// Sets bits, and returns what it was.
    fn set_bits(&self, bits: T) -> T;
    /// Clears bits, and returns what it was.
    fn clear_bits(&self, bits: T) -> T;
    /// Orders a write before it and a read after it. The operations do so by themselves; loom
    /// alone does not know, and takes a fence.
    fn write_then_read();
}

macro_rules! word {
    ($atomic:ty, $value:ty, $fence:expr) => {
        impl Word<$value> for $atomic {
            #[inline]
            fn get(&self) -> $value {
                self.load(Ordering::SeqCst)
            }

            #[inline]
            fn set(&self, value: $value) {
                self.store(value, Ordering::SeqCst);
            }

            #[inline]
            fn exchange(&self, old: $value, new: $value) -> Result<(), $value> {
                self.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst)
                    .map(drop)
            }

            #[inline]
            fn set_bits(&self, bits: $value) -> $value {
                self.fetch_or(bits, Ordering::SeqCst)
            }

            #[inline]
            fn clear_bits(&self, bits: $value) -> $value {
                self.fetch_and(!bits, Ordering::SeqCst)
            }

            #[inline]
            fn write_then_read() {
                $fence
            }
        }
    };
}

word!(AtomicU32, u32, ());
word!(AtomicU64, u64, ());

#[cfg(test)]
word!(
    loom::sync::atomic::AtomicU32,
    u32,
    loom::sync::atomic::fence(Ordering::SeqCst)
);
#[cfg(test)]
word!(
    loom::sync::atomic::AtomicU64,
    u64,
    loom::sync::atomic::fence(Ordering::SeqCst)
);
