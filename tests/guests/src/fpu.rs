//! x87, SSE and AVX registers: patterns put in, and looked at again later.
//!
//! The runtime is compiled without floating point, so nothing else touches these registers.
#![expect(unsafe_code, reason = "loads and stores the vector registers")]

use core::arch::asm;

use crate::cpu;

/// Bytes of an FXSAVE image.
const IMAGE: usize = 512;
/// Where the x87 and SSE registers lie in it.
const REGISTERS: core::ops::Range<usize> = 32..416;

/// The x87 and SSE registers with their control words, as FXSAVE stores them.
#[derive(Clone, Debug)]
#[repr(C, align(16))]
pub struct Legacy([u8; IMAGE]);

impl Legacy {
    /// A pattern that depends on `seed` in every register.
    #[must_use]
    pub fn pattern(seed: u8) -> Self {
        let mut image = [0; IMAGE];
        for (index, byte) in (0_u8..=255).cycle().zip(&mut image[REGISTERS]) {
            *byte = index.wrapping_mul(37) ^ seed;
        }
        // The x87 registers have 80 bits; the six bytes behind each are not kept.
        for register in image[32..160].chunks_exact_mut(16) {
            register[10..].fill(0);
        }
        // Round towards zero, all exceptions masked; all x87 registers in use.
        image[0..2].copy_from_slice(&0x0f7f_u16.to_le_bytes());
        image[4] = 0xff;
        image[24..28].copy_from_slice(&0x7f80_u32.to_le_bytes());
        Self(image)
    }

    /// All registers 0, SSE's control word as after reset, x87's as given.
    #[must_use]
    pub fn initial(control_word: u16) -> Self {
        let mut image = [0; IMAGE];
        image[0..2].copy_from_slice(&control_word.to_le_bytes());
        image[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes());
        Self(image)
    }

    /// Loads the registers.
    pub fn load(&self) {
        // SAFETY: an aligned FXSAVE image with valid control words; nobody else uses the
        // registers.
        unsafe { asm!("fxrstor64 [{}]", in(reg) self.0.as_ptr(), options(nostack, readonly)) };
    }

    /// The registers as they are.
    #[must_use]
    pub fn store() -> Self {
        let mut image = Self([0; IMAGE]);
        // SAFETY: an aligned buffer of the size FXSAVE writes.
        unsafe { asm!("fxsave64 [{}]", in(reg) image.0.as_mut_ptr(), options(nostack)) };
        image
    }

    /// Whether registers and control words are the same.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        self.0[REGISTERS] == other.0[REGISTERS]
            && self.0[0..2] == other.0[0..2]
            && self.0[24..28] == other.0[24..28]
    }
}

/// The sixteen AVX registers.
#[derive(Clone, PartialEq, Eq, Debug)]
#[repr(C, align(32))]
pub struct Avx([[u64; 4]; 16]);

macro_rules! all_ymm {
    ($load_or_store:ident, $place:expr) => {
        all_ymm!(@ $load_or_store, $place, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@ load, $place:expr, $($n:literal)+) => {
        asm!(
            $(concat!("vmovdqu ymm", $n, ", [{0} + 32 * ", $n, "]"),)+
            in(reg) $place, options(nostack, readonly)
        )
    };
    (@ store, $place:expr, $($n:literal)+) => {
        asm!(
            $(concat!("vmovdqu [{0} + 32 * ", $n, "], ymm", $n),)+
            in(reg) $place, options(nostack)
        )
    };
}

impl Avx {
    /// Turns AVX on; false when the CPU shows none.
    #[must_use]
    pub fn enable() -> bool {
        const XSAVE: u32 = 1 << 26;
        const AVX: u32 = 1 << 28;
        const CR4_OSXSAVE: u64 = 1 << 18;
        let [_, _, features, _] = cpu::cpuid(1, 0);
        features & (XSAVE | AVX) == (XSAVE | AVX)
            && cpu::write_cr4(cpu::cr4() | CR4_OSXSAVE).is_ok()
            && cpu::xsetbv(7).is_ok()
    }

    /// A pattern that depends on `seed` in every register.
    #[must_use]
    pub fn pattern(seed: u64) -> Self {
        let mut next = seed | 1;
        Self([(); 16].map(|()| {
            [(); 4].map(|()| {
                next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                next
            })
        }))
    }

    /// Loads the registers; [`Avx::enable`] said that they are there.
    pub fn load(&self) {
        // SAFETY: AVX is on; sixteen registers of 32 bytes are read.
        unsafe { all_ymm!(load, self.0.as_ptr()) };
    }

    /// The registers as they are; [`Avx::enable`] said that they are there.
    #[must_use]
    pub fn store() -> Self {
        let mut registers = Self([[0; 4]; 16]);
        // SAFETY: AVX is on; sixteen registers of 32 bytes are written.
        unsafe { all_ymm!(store, registers.0.as_mut_ptr()) };
        registers
    }
}
