//! Extended processor state: x87, SSE, AVX and what follows.
//!
//! VMX switches none of it, and the hypervisor itself uses none of it, so a guest's state stays
//! in the registers until another vCPU runs: [`XsaveArea::save_guest`] and
//! [`XsaveArea::restore_guest`] at a vCPU switch. Both work on *all* states that any guest may
//! have, whatever the guest's XCR0 enables at the moment, so that nothing one guest left behind
//! is ever seen by another.
//!
//! No supervisor states are offered to guests (`IA32_XSS` stays 0), so the standard format
//! (XSAVE, XSAVEOPT where there is one, FXSAVE on CPUs without XSAVE) holds everything.
#![expect(unsafe_code, reason = "XSAVE, XRSTOR, XSETBV and the area they use")]

use alloc::alloc::{alloc_zeroed, dealloc};
use core::alloc::Layout;
use core::arch::asm;
use core::ptr::NonNull;

use super::{cpuid, cr};

/// XCR0: x87.
pub const X87: u64 = 1 << 0;
/// XCR0: SSE.
pub const SSE: u64 = 1 << 1;
/// XCR0: AVX.
pub const AVX: u64 = 1 << 2;
/// XCR0: the three AVX-512 states.
pub const AVX512: u64 = 7 << 5;
/// XCR0: protection keys.
pub const PKRU: u64 = 1 << 9;

/// States guests may have, where the CPU has them. Not MPX, which is gone from newer CPUs, nor
/// AMX, which needs more than XCR0.
const OFFERED: u64 = X87 | SSE | AVX | AVX512 | PKRU;

/// Where the extended region starts, after the legacy region and the header.
const LEGACY_AND_HEADER: usize = 576;
const FXSAVE_SIZE: usize = 512;

/// The states guests may have: x87 and SSE always, the rest as far as the CPU has it.
#[must_use]
pub fn offered_states() -> u64 {
    if !cpuid::has_xsave() {
        return X87 | SSE;
    }
    let leaf = cpuid::leaf(0xd, 0);
    consistent((u64::from(leaf.edx) << 32 | u64::from(leaf.eax)) & OFFERED)
}

/// Drops states whose prerequisites are missing.
const fn consistent(mut states: u64) -> u64 {
    states |= X87 | SSE;
    if states & AVX == 0 || states & AVX512 != AVX512 {
        states &= !AVX512;
    }
    states
}

/// True when XSETBV accepts `xcr0` on a CPU that has `states`: SDM 1, "Enabling the XSAVE
/// Feature Set and XSAVE-Enabled Features".
#[must_use]
pub const fn is_valid_xcr0(xcr0: u64, states: u64) -> bool {
    xcr0 & X87 != 0
        && xcr0 & !states == 0
        && (xcr0 & AVX == 0 || xcr0 & SSE != 0)
        && (xcr0 & AVX512 == 0 || xcr0 & (AVX512 | AVX) == AVX512 | AVX)
}

/// Bytes of a standard-format area for `states`; `component` tells offset and size of a state.
fn area_size(states: u64, component: impl Fn(u32) -> (u32, u32)) -> usize {
    (2..63)
        .filter(|index| states >> index & 1 != 0)
        .map(|index| {
            let (offset, size) = component(index);
            usize::try_from(u64::from(offset) + u64::from(size)).unwrap_or(usize::MAX)
        })
        .fold(LEGACY_AND_HEADER, usize::max)
}

/// Bytes of a standard-format area for `states` on this CPU.
#[must_use]
pub fn xsave_size(states: u64) -> usize {
    area_size(states, |index| {
        let leaf = cpuid::leaf(0xd, index);
        (leaf.ebx, leaf.eax)
    })
}

/// Makes extended state usable on this CPU, with all offered states enabled.
pub fn init_cpu() {
    let cr0 = (cr::read_cr0() | cr::CR0_MP | cr::CR0_NE) & !(cr::CR0_EM | cr::CR0_TS);
    // SAFETY: x87 bits only.
    unsafe { cr::write_cr0(cr0) };
    let mut cr4 = cr::read_cr4() | cr::CR4_OSFXSR | cr::CR4_OSXMMEXCPT;
    if cpuid::has_xsave() {
        cr4 |= cr::CR4_OSXSAVE;
    }
    // For RDPKRU; of user pages, which alone have protection keys, the host has none.
    if cpuid::has_protection_keys() {
        cr4 |= cr::CR4_PKE;
    }
    // SAFETY: bits every 64-bit CPU has, and two whose features CPUID reports.
    unsafe { cr::write_cr4(cr4) };
    if cpuid::has_xsave() {
        xsetbv(offered_states());
    }
}

/// Reads XCR0. Only with CR4.OSXSAVE ([`init_cpu`]).
#[inline]
#[must_use]
pub fn xgetbv() -> u64 {
    let (low, high): (u64, u64);
    // SAFETY: reads a register.
    unsafe {
        asm!(
            "xgetbv",
            in("ecx") 0,
            out("rax") low,
            out("rdx") high,
            options(nomem, nostack, preserves_flags),
        );
    }
    high << 32 | low
}

/// Reads PKRU as the last guest left it; 0, which denies nothing, on a CPU without it.
#[must_use]
pub fn pkru() -> u32 {
    if cr::read_cr4() & cr::CR4_PKE == 0 {
        return 0;
    }
    let value: u32;
    // SAFETY: reads a register that is there, as CR4.PKE says.
    unsafe {
        asm!(
            "rdpkru",
            in("ecx") 0,
            out("eax") value,
            out("edx") _,
            options(nomem, nostack, preserves_flags),
        );
    }
    value
}

/// Writes XCR0. The host uses no extended state, so any legal value will do.
///
/// # Panics
/// When the value is not [valid](is_valid_xcr0) for what this CPU offers (in debug builds).
pub fn xsetbv(value: u64) {
    debug_assert!(is_valid_xcr0(value, offered_states()), "a legal XCR0");
    let [low, high] = halves(value);
    // SAFETY: XCR0 matters to guests only.
    unsafe {
        asm!(
            "xsetbv",
            in("ecx") 0,
            in("eax") low,
            in("edx") high,
            options(nomem, nostack, preserves_flags),
        );
    }
}

const fn halves(value: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    [
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
    ]
}

/// How the state is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Fxsave,
    Xsave,
    Xsaveopt,
}

impl Method {
    fn detect() -> Self {
        if !cpuid::has_xsave() {
            Self::Fxsave
        } else if cpuid::leaf(0xd, 1).eax & 1 != 0 {
            Self::Xsaveopt
        } else {
            Self::Xsave
        }
    }
}

/// Memory for one vCPU's extended state.
#[derive(Debug)]
pub struct XsaveArea {
    /// Invariant: allocated with `layout`, 64-byte aligned, large enough for `states`, and a
    /// legal image for XRSTOR.
    memory: NonNull<u8>,
    layout: Layout,
    states: u64,
    method: Method,
}

// SAFETY: owns its memory, and only `&mut self` writes it.
unsafe impl Send for XsaveArea {}
// SAFETY: as above.
unsafe impl Sync for XsaveArea {}

impl XsaveArea {
    /// An area that holds the state after reset; `None` when there is no memory.
    #[must_use]
    pub fn new() -> Option<Self> {
        let method = Method::detect();
        let states = offered_states();
        let size = match method {
            Method::Fxsave => FXSAVE_SIZE,
            Method::Xsave | Method::Xsaveopt => xsave_size(states),
        };
        Self::with_size(size, states, method)
    }

    fn with_size(size: usize, states: u64, method: Method) -> Option<Self> {
        let layout = Layout::from_size_align(size, 64).ok()?;
        // SAFETY: the size is not 0.
        let memory = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        let mut area = Self {
            memory,
            layout,
            states,
            method,
        };
        area.reset();
        Some(area)
    }

    /// Bytes of the area.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.layout.size()
    }

    /// Puts back the state after reset.
    pub fn reset(&mut self) {
        const FCW: u16 = 0x37f;
        const MXCSR: u32 = 0x1f80;
        // SAFETY: the whole area is ours. All zero means "every state in its initial
        // configuration", but for the two control words.
        unsafe { self.memory.write_bytes(0, self.layout.size()) };
        // SAFETY: offset 0 of the legacy region.
        unsafe { self.memory.cast::<u16>().write(FCW) };
        // SAFETY: offset 24 of the legacy region, which is 512 bytes long.
        let mxcsr = unsafe { self.memory.add(24) }.cast::<u32>();
        // SAFETY: in the area and aligned.
        unsafe { mxcsr.write(MXCSR) };
    }

    /// Saves the state of the guest that ran last, all offered states of it.
    pub fn save_guest(&mut self) {
        self.enable_all();
        self.xsave();
    }

    /// Loads the state of the guest that runs next, then its XCR0.
    pub fn restore_guest(&self, guest_xcr0: u64) {
        self.enable_all();
        self.xrstor();
        if self.method != Method::Fxsave && guest_xcr0 != self.states {
            xsetbv(guest_xcr0);
        }
    }

    fn enable_all(&self) {
        if self.method != Method::Fxsave && xgetbv() != self.states {
            xsetbv(self.states);
        }
    }

    /// Saves the states XCR0 enables.
    pub fn xsave(&mut self) {
        let area = self.memory.as_ptr();
        let [low, high] = halves(self.states);
        // SAFETY (all three): the area is large enough and aligned; CR0.TS is clear in the host.
        match self.method {
            // SAFETY: see above.
            Method::Fxsave => unsafe {
                asm!("fxsave64 [{}]", in(reg) area, options(nostack, preserves_flags));
            },
            // SAFETY: see above.
            Method::Xsave => unsafe {
                asm!(
                    "xsave64 [{}]",
                    in(reg) area,
                    in("eax") low,
                    in("edx") high,
                    options(nostack, preserves_flags),
                );
            },
            // SAFETY: see above.
            Method::Xsaveopt => unsafe {
                asm!(
                    "xsaveopt64 [{}]",
                    in(reg) area,
                    in("eax") low,
                    in("edx") high,
                    options(nostack, preserves_flags),
                );
            },
        }
    }

    /// Loads the states XCR0 enables.
    pub fn xrstor(&self) {
        let area = self.memory.as_ptr();
        let [low, high] = halves(self.states);
        if self.method == Method::Fxsave {
            // SAFETY: the invariant on `memory`; the host uses no extended state.
            unsafe {
                asm!("fxrstor64 [{}]", in(reg) area, options(nostack, readonly, preserves_flags));
            }
        } else {
            // SAFETY: as above.
            unsafe {
                asm!(
                    "xrstor64 [{}]",
                    in(reg) area,
                    in("eax") low,
                    in("edx") high,
                    options(nostack, readonly, preserves_flags),
                );
            }
        }
    }
}

impl Drop for XsaveArea {
    fn drop(&mut self) {
        // SAFETY: the invariant on `memory`.
        unsafe { dealloc(self.memory.as_ptr(), self.layout) };
    }
}

#[cfg(test)]
mod tests {
    use super::{AVX, AVX512, Method, PKRU, SSE, X87, XsaveArea};
    use super::{area_size, consistent, is_valid_xcr0};

    #[test]
    fn xcr0_follows_the_dependencies() {
        let all = X87 | SSE | AVX | AVX512 | PKRU;
        for valid in [
            X87,
            X87 | SSE,
            X87 | SSE | AVX,
            X87 | SSE | AVX | AVX512,
            X87 | PKRU,
            all,
        ] {
            assert!(is_valid_xcr0(valid, all), "{valid:#x}");
        }
        let invalid = [
            0,
            SSE,
            X87 | AVX,
            X87 | SSE | AVX512,
            X87 | SSE | AVX | 1 << 5,
            X87 | 1 << 3,
            X87 | 1 << 17,
            all | 1 << 63,
        ];
        for invalid in invalid {
            assert!(!is_valid_xcr0(invalid, all), "{invalid:#x}");
        }
        assert!(!is_valid_xcr0(X87 | SSE | AVX, X87 | SSE));
    }

    #[test]
    fn incomplete_state_groups_are_not_offered() {
        assert_eq!(consistent(0), X87 | SSE);
        assert_eq!(consistent(X87 | SSE | AVX | 1 << 5), X87 | SSE | AVX);
        assert_eq!(consistent(X87 | SSE | AVX512), X87 | SSE);
    }

    #[test]
    fn the_area_ends_with_its_last_state() {
        let component = |index| match index {
            2 => (576, 256),
            5 => (1088, 64),
            6 => (1152, 512),
            7 => (1664, 1024),
            9 => (2688, 8),
            _ => (0, 0),
        };
        assert_eq!(area_size(X87 | SSE, component), 576);
        assert_eq!(area_size(X87 | SSE | AVX, component), 832);
        assert_eq!(area_size(X87 | SSE | AVX | AVX512 | PKRU, component), 2696);
    }

    #[test]
    fn state_survives_a_round_trip() {
        // FXSAVE and FXRSTOR are not privileged: the host tier runs them.
        let mut fresh = XsaveArea::with_size(512, X87 | SSE, Method::Fxsave).unwrap();
        let mut mine = XsaveArea::with_size(512, X87 | SSE, Method::Fxsave).unwrap();
        mine.xsave();
        mine.xrstor();
        fresh.reset();
        assert_eq!(fresh.size(), 512);
        let area = XsaveArea::new().unwrap();
        assert!(area.size() >= 512);
    }
}
