//! Xen's leaves (`public/arch-x86/cpuid.h`).
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm
)]

use super::{Registers, Spec};

/// The first leaf.
pub(super) const BASE: u32 = 0x4000_0000;
/// Leaves up to the last one, which is for PV guests and reads zero.
pub(super) const LEAVES: usize = 6;

/// The MSR that places the hypercall page.
pub(in crate::policy) const HYPERCALL_PAGE_MSR: u32 = 0x4000_0000;

const HOST_TSC_RELIABLE: u32 = 1 << 1;
const RDTSCP_USABLE: u32 = 1 << 2;
const VCPU_ID_PRESENT: u32 = 1 << 3;
const DOMID_PRESENT: u32 = 1 << 4;
const UPCALL_VECTOR: u32 = 1 << 6;

/// "XenVMMXenVMM" and the last leaf.
pub(super) fn signature() -> Registers {
    let text = |bytes: &[u8; 4]| u32::from_le_bytes(*bytes);
    Registers {
        eax: BASE | 5,
        ebx: text(b"XenV"),
        ecx: text(b"MMXe"),
        edx: text(b"nVMM"),
    }
}

pub(super) fn version() -> Registers {
    Registers {
        eax: abi::xen_version::INTERFACE_VERSION,
        ..Registers::default()
    }
}

pub(super) fn hypercall_page() -> Registers {
    Registers {
        eax: 1,
        ebx: HYPERCALL_PAGE_MSR,
        ..Registers::default()
    }
}

/// The TSC, which runs at the host's rate and is never emulated.
pub(super) fn time(spec: &Spec, invariant_tsc: bool) -> [Registers; 3] {
    let reliable = if invariant_tsc { HOST_TSC_RELIABLE } else { 0 };
    let rdtscp = if spec.usable.rdtscp { RDTSCP_USABLE } else { 0 };
    let tsc = spec.tsc;
    let half = |value: u64| u32::try_from(value & 0xffff_ffff).unwrap_or(0);
    [
        Registers {
            eax: reliable | rdtscp,
            ecx: tsc.khz,
            ..Registers::default()
        },
        Registers {
            eax: half(tsc.offset),
            ebx: half(tsc.offset >> 32),
            ecx: tsc.mul,
            edx: u32::from_ne_bytes(i32::from(tsc.shift).to_ne_bytes()),
        },
        Registers {
            eax: tsc.khz,
            ..Registers::default()
        },
    ]
}

/// The vCPU's and the domain's ids; EBX is the vCPU's own.
pub(super) fn identity(spec: &Spec) -> Registers {
    let upcall = if spec.upcall_vector { UPCALL_VECTOR } else { 0 };
    Registers {
        eax: VCPU_ID_PRESENT | DOMID_PRESENT | upcall,
        ecx: u32::from(spec.domid.0),
        ..Registers::default()
    }
}
