//! How a driver reaches its device: registers, and memory that both share.

/// A block of registers: I/O ports, or a range of physical memory.
///
/// Offsets are in bytes. Behind the end of the block reads give all ones and writes are lost, as
/// where there is no device.
pub trait Registers {
    /// Reads a byte.
    fn read8(&self, at: usize) -> u8;
    /// Reads 16 bits; `at` is even.
    fn read16(&self, at: usize) -> u16;
    /// Reads 32 bits; `at` is a multiple of 4.
    fn read32(&self, at: usize) -> u32;
    /// Writes a byte.
    fn write8(&self, at: usize, value: u8);
    /// Writes 16 bits; `at` is even.
    fn write16(&self, at: usize, value: u16);
    /// Writes 32 bits; `at` is a multiple of 4.
    fn write32(&self, at: usize, value: u32);
}

impl<R: Registers> Registers for &R {
    fn read8(&self, at: usize) -> u8 {
        (**self).read8(at)
    }

    fn read16(&self, at: usize) -> u16 {
        (**self).read16(at)
    }

    fn read32(&self, at: usize) -> u32 {
        (**self).read32(at)
    }

    fn write8(&self, at: usize, value: u8) {
        (**self).write8(at, value);
    }

    fn write16(&self, at: usize, value: u16) {
        (**self).write16(at, value);
    }

    fn write32(&self, at: usize, value: u32) {
        (**self).write32(at, value);
    }
}

/// Memory that the device reads and writes too, one piece in its address space.
///
/// Offsets are in bytes. Behind the end reads give zero and writes are lost. What was written here
/// before a register was written is what the device finds.
pub trait DmaMemory {
    /// Where the device finds it.
    fn address(&self) -> u64;
    /// Its size in bytes.
    fn size(&self) -> usize;
    /// Reads 32 bits; `at` is a multiple of 4.
    fn read32(&self, at: usize) -> u32;
    /// Reads 64 bits; `at` is a multiple of 8.
    fn read64(&self, at: usize) -> u64;
    /// Writes 32 bits; `at` is a multiple of 4.
    fn write32(&self, at: usize, value: u32);
    /// Writes 64 bits; `at` is a multiple of 8.
    fn write64(&self, at: usize, value: u64);
    /// Copies bytes out.
    fn read(&self, at: usize, out: &mut [u8]);
    /// Copies bytes in.
    fn write(&self, at: usize, data: &[u8]);
}
