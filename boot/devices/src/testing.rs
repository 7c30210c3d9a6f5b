//! Registers and memory of a device that does nothing by itself.

use core::cell::RefCell;
use std::vec::Vec;

use crate::{DmaMemory, Registers};

/// Registers that keep what is written to them.
pub(crate) struct FakeRegisters(RefCell<Vec<u8>>);

impl FakeRegisters {
    pub(crate) fn new(size: usize) -> Self {
        Self(RefCell::new(std::vec![0; size]))
    }

    pub(crate) fn word(&self, at: usize) -> u32 {
        self.read32(at)
    }
}

macro_rules! access {
    ($read:ident, $write:ident, $kind:ty) => {
        fn $read(&self, at: usize) -> $kind {
            let bytes = self.0.borrow();
            let found = bytes.get(at..).and_then(|rest| rest.first_chunk());
            found.map_or(!0, |bytes| <$kind>::from_le_bytes(*bytes))
        }

        fn $write(&self, at: usize, value: $kind) {
            let mut bytes = self.0.borrow_mut();
            if let Some(place) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
                *place = value.to_le_bytes();
            }
        }
    };
}

impl Registers for FakeRegisters {
    access!(read8, write8, u8);
    access!(read16, write16, u16);
    access!(read32, write32, u32);
}

/// Memory at some address.
#[derive(Debug)]
pub(crate) struct FakeMemory {
    address: u64,
    bytes: RefCell<Vec<u8>>,
}

impl FakeMemory {
    pub(crate) fn new(address: u64, size: usize) -> Self {
        Self {
            address,
            bytes: RefCell::new(std::vec![0; size]),
        }
    }
}

macro_rules! word {
    ($read:ident, $write:ident, $kind:ty) => {
        fn $read(&self, at: usize) -> $kind {
            let bytes = self.bytes.borrow();
            let found = bytes.get(at..).and_then(|rest| rest.first_chunk());
            found.map_or(0, |bytes| <$kind>::from_le_bytes(*bytes))
        }

        fn $write(&self, at: usize, value: $kind) {
            self.write(at, &value.to_le_bytes());
        }
    };
}

impl DmaMemory for FakeMemory {
    fn address(&self) -> u64 {
        self.address
    }

    fn size(&self) -> usize {
        self.bytes.borrow().len()
    }

    word!(read32, write32, u32);
    word!(read64, write64, u64);

    fn read(&self, at: usize, out: &mut [u8]) {
        out.copy_from_slice(&self.bytes.borrow()[at..at + out.len()]);
    }

    fn write(&self, at: usize, data: &[u8]) {
        self.bytes.borrow_mut()[at..at + data.len()].copy_from_slice(data);
    }
}

impl<M: DmaMemory> DmaMemory for std::rc::Rc<M> {
    fn address(&self) -> u64 {
        (**self).address()
    }

    fn size(&self) -> usize {
        (**self).size()
    }

    fn read32(&self, at: usize) -> u32 {
        (**self).read32(at)
    }

    fn read64(&self, at: usize) -> u64 {
        (**self).read64(at)
    }

    fn write32(&self, at: usize, value: u32) {
        (**self).write32(at, value);
    }

    fn write64(&self, at: usize, value: u64) {
        (**self).write64(at, value);
    }

    fn read(&self, at: usize, out: &mut [u8]) {
        (**self).read(at, out);
    }

    fn write(&self, at: usize, data: &[u8]) {
        (**self).write(at, data);
    }
}
