//! CPUID facts the hypervisor itself needs.

pub use raw_cpuid::CpuIdResult;
use raw_cpuid::native_cpuid::cpuid_count;

/// Executes CPUID; zeros for a basic leaf above the CPU's maximum (where CPUID would answer
/// with some other leaf's data).
#[must_use]
pub fn leaf(number: u32, subleaf: u32) -> CpuIdResult {
    const ZERO: CpuIdResult = CpuIdResult {
        eax: 0,
        ebx: 0,
        ecx: 0,
        edx: 0,
    };
    let range = number & 0xffff_0000;
    if matches!(range, 0 | 0x8000_0000) && execute(range, 0).eax < number {
        return ZERO;
    }
    execute(number, subleaf)
}

#[cfg(not(any(test, feature = "model")))]
use cpuid_count as execute;

/// Executes CPUID once for each question. Where tests run it is often a VM exit.
#[cfg(any(test, feature = "model"))]
fn execute(number: u32, subleaf: u32) -> CpuIdResult {
    extern crate std;
    use alloc::collections::BTreeMap;
    use core::cell::RefCell;

    std::thread_local! {
        static KNOWN: RefCell<BTreeMap<(u32, u32), CpuIdResult>> = RefCell::default();
    }
    KNOWN.with_borrow_mut(|known| {
        let answer = known.entry((number, subleaf));
        *answer.or_insert_with(|| cpuid_count(number, subleaf))
    })
}

/// VMX.
#[must_use]
pub fn has_vmx() -> bool {
    leaf(1, 0).ecx & 1 << 5 != 0
}

/// x2APIC mode of the local APIC.
#[must_use]
pub fn has_x2apic() -> bool {
    leaf(1, 0).ecx & 1 << 21 != 0
}

/// The TSC-deadline mode of the APIC timer.
#[must_use]
pub fn has_tsc_deadline() -> bool {
    leaf(1, 0).ecx & 1 << 24 != 0
}

/// XSAVE and its relatives.
#[must_use]
pub fn has_xsave() -> bool {
    leaf(1, 0).ecx & 1 << 26 != 0
}

/// Protection keys for user pages.
#[must_use]
pub fn has_protection_keys() -> bool {
    leaf(0, 0).eax >= 7 && leaf(7, 0).ecx & 1 << 3 != 0
}

/// The hypervisor-present bit: we are nested.
#[must_use]
pub fn is_nested() -> bool {
    leaf(1, 0).ecx & 1 << 31 != 0
}

/// The maker's name for itself.
#[must_use]
pub fn vendor() -> [u8; 12] {
    let CpuIdResult { ebx, ecx, edx, .. } = leaf(0, 0);
    text([ebx, edx, ecx])
}

/// The signature of the hypervisor around, if there is one.
#[must_use]
pub fn hypervisor() -> Option<[u8; 12]> {
    is_nested().then(|| {
        let CpuIdResult { ebx, ecx, edx, .. } = cpuid_count(0x4000_0000, 0);
        text([ebx, ecx, edx])
    })
}

fn text(registers: [u32; 3]) -> [u8; 12] {
    let mut text = [0; 12];
    for (part, register) in text.chunks_exact_mut(4).zip(registers) {
        part.copy_from_slice(&register.to_le_bytes());
    }
    text
}

/// Width of physical addresses in bits.
#[must_use]
pub fn physical_address_bits() -> u8 {
    match leaf(0x8000_0008, 0).eax.to_le_bytes() {
        [0, ..] => 36,
        [bits, ..] => bits,
    }
}
