//! Where the tables live.

use abi::Mfn;

/// Access to page-table frames: the direct map in the hypervisor, a map of arrays in tests.
///
/// A CPU may walk the tables at any time, so reads and writes are single 64-bit accesses.
pub trait TableMem {
    /// Allocates a table of 512 empty slots. Never frame 0.
    fn alloc(&self) -> Option<Mfn>;

    /// Frees a table that no CPU can reach any more and whose slots are all 0.
    fn free(&self, table: Mfn);

    /// Reads the slot `index`, which is below 512.
    fn read(&self, table: Mfn, index: usize) -> u64;

    /// Writes the slot `index`, which is below 512, after all earlier writes to memory.
    fn write(&self, table: Mfn, index: usize, entry: u64);
}
