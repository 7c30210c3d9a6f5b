//! The MSR bitmap: which RDMSR and WRMSR of the guest do not exit.
//!
//! SDM 3C, "MSR-Bitmap Address": four 1 KiB quarters, a set bit exits. Reads of MSRs 0 to 0x1fff,
//! reads of 0xc0000000 to 0xc0001fff, then the writes of both. MSRs outside always exit.

use abi::PAGE_SIZE;

/// An MSR bitmap, a frame in size and alignment.
#[repr(C, align(4096))]
#[derive(Clone, Debug)]
pub struct MsrBitmap([u8; PAGE_SIZE]);

const _: () = assert!(size_of::<MsrBitmap>() == PAGE_SIZE);

const WRITES: usize = 2048;

impl MsrBitmap {
    /// A bitmap that lets nothing through.
    #[must_use]
    pub const fn deny_all() -> Self {
        Self([0xff; PAGE_SIZE])
    }

    /// Lets reads of `msr` through. MSRs outside the bitmap's ranges go on to exit.
    pub fn allow_read(&mut self, msr: u32) {
        self.allow(msr, 0);
    }

    /// Lets writes of `msr` through. MSRs outside the bitmap's ranges go on to exit.
    pub fn allow_write(&mut self, msr: u32) {
        self.allow(msr, WRITES);
    }

    /// True when reads of `msr` exit.
    #[must_use]
    pub fn read_exits(&self, msr: u32) -> bool {
        self.exits(msr, 0)
    }

    /// True when writes of `msr` exit.
    #[must_use]
    pub fn write_exits(&self, msr: u32) -> bool {
        self.exits(msr, WRITES)
    }

    /// The bytes, to copy into the frame the CPU reads.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; PAGE_SIZE] {
        &self.0
    }

    fn allow(&mut self, msr: u32, half: usize) {
        if let Some((byte, bit)) = position(msr)
            && let Some(byte) = self.0.get_mut(half + byte)
        {
            *byte &= !bit;
        }
    }

    fn exits(&self, msr: u32, half: usize) -> bool {
        position(msr)
            .and_then(|(byte, bit)| self.0.get(half + byte).map(|byte| byte & bit != 0))
            .unwrap_or(true)
    }
}

/// Byte and bit of an MSR in its half.
fn position(msr: u32) -> Option<(usize, u8)> {
    let (quarter, index) = match msr {
        0..=0x1fff => (0, msr),
        0xc000_0000..=0xc000_1fff => (1024, msr & 0x1fff),
        _ => return None,
    };
    let byte = usize::try_from(index >> 3).ok()?;
    Some((quarter + byte, 1 << (index & 7)))
}

#[cfg(test)]
mod tests {
    use super::MsrBitmap;
    use proptest::prelude::{any, prop_oneof, proptest};

    #[test]
    fn the_four_quarters_are_where_the_manual_says() {
        let mut bitmap = MsrBitmap::deny_all();
        bitmap.allow_read(0x10);
        bitmap.allow_write(0x1fff);
        bitmap.allow_read(0xc000_0100);
        bitmap.allow_write(0xc000_0101);
        let bytes = bitmap.as_bytes();
        assert_eq!(bytes[2], 0xfe);
        assert_eq!(bytes[2048 + 1023], 0x7f);
        assert_eq!(bytes[1024 + 0x20], 0xfe);
        assert_eq!(bytes[3072 + 0x20], 0xfd);
        assert_eq!(bytes.iter().filter(|byte| **byte != 0xff).count(), 4);
    }

    #[test]
    fn msrs_outside_always_exit() {
        let mut bitmap = MsrBitmap::deny_all();
        for msr in [0x2000, 0x4000_0000, 0xc000_2000, u32::MAX] {
            bitmap.allow_read(msr);
            bitmap.allow_write(msr);
            assert!(bitmap.read_exits(msr) && bitmap.write_exits(msr));
        }
        assert!(bitmap.as_bytes().iter().all(|byte| *byte == 0xff));
    }

    proptest! {
        #[test]
        fn allowing_one_access_allows_no_other(
            msr in prop_oneof![0u32..0x2000, 0xc000_0000u32..0xc000_2000],
            other in any::<u32>(),
        ) {
            let mut bitmap = MsrBitmap::deny_all();
            bitmap.allow_read(msr);
            assert!(!bitmap.read_exits(msr) && bitmap.write_exits(msr));
            assert!(other == msr || bitmap.read_exits(other));
        }
    }
}
