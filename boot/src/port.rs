//! I/O ports.
#![expect(unsafe_code, reason = "IN and OUT reach devices")]

/// One I/O port of a device that boot drives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Port(u16);

macro_rules! access {
    ($read:ident, $write:ident, $in:ident, $out:ident, $width:ty) => {
        /// Reads the port.
        pub(crate) fn $read(self) -> $width {
            // SAFETY: whoever made this `Port` answers for what accesses to it do.
            unsafe { x86::io::$in(self.0) }
        }

        /// Writes the port.
        pub(crate) fn $write(self, value: $width) {
            // SAFETY: whoever made this `Port` answers for what accesses to it do.
            unsafe { x86::io::$out(self.0, value) }
        }
    };
}

impl Port {
    /// Names a port.
    ///
    /// # Safety
    /// Whatever is read from or written to the port, the device behind it leaves the
    /// hypervisor's memory alone.
    pub(crate) const unsafe fn new(number: u16) -> Self {
        Self(number)
    }

    access!(read8, write8, inb, outb, u8);
    access!(read16, write16, inw, outw, u16);
    access!(read32, write32, inl, outl, u32);
}
