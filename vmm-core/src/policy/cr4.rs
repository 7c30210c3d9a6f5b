//! CR4 bits that a guest may set: those whose feature its CPUID offers.
//!
//! SDM 3A, "Control Registers".

use super::cpuid::CpuidPolicy;

/// CR4.PCE, which needs no feature.
const PCE: u64 = 1 << 8;

/// A CR4 bit and the place of its feature in leaf 1 or 7.
struct Gate {
    cr4: u64,
    feature: Feature,
}

enum Feature {
    Leaf1Ecx(u32),
    Leaf1Edx(u32),
    Leaf7Ebx(u32),
    Leaf7Ecx(u32),
}

const GATES: [Gate; 18] = [
    Gate {
        cr4: 1 << 0,
        feature: Feature::Leaf1Edx(1),
    },
    Gate {
        cr4: 1 << 1,
        feature: Feature::Leaf1Edx(1),
    },
    Gate {
        cr4: 1 << 2,
        feature: Feature::Leaf1Edx(4),
    },
    Gate {
        cr4: 1 << 3,
        feature: Feature::Leaf1Edx(2),
    },
    Gate {
        cr4: 1 << 4,
        feature: Feature::Leaf1Edx(3),
    },
    Gate {
        cr4: 1 << 5,
        feature: Feature::Leaf1Edx(6),
    },
    Gate {
        cr4: 1 << 6,
        feature: Feature::Leaf1Edx(7),
    },
    Gate {
        cr4: 1 << 7,
        feature: Feature::Leaf1Edx(13),
    },
    Gate {
        cr4: 1 << 9,
        feature: Feature::Leaf1Edx(24),
    },
    Gate {
        cr4: 1 << 10,
        feature: Feature::Leaf1Edx(25),
    },
    Gate {
        cr4: 1 << 11,
        feature: Feature::Leaf7Ecx(2),
    },
    Gate {
        cr4: 1 << 12,
        feature: Feature::Leaf7Ecx(16),
    },
    Gate {
        cr4: 1 << 16,
        feature: Feature::Leaf7Ebx(0),
    },
    Gate {
        cr4: 1 << 17,
        feature: Feature::Leaf1Ecx(17),
    },
    Gate {
        cr4: 1 << 18,
        feature: Feature::Leaf1Ecx(26),
    },
    Gate {
        cr4: 1 << 20,
        feature: Feature::Leaf7Ebx(7),
    },
    Gate {
        cr4: 1 << 21,
        feature: Feature::Leaf7Ebx(20),
    },
    Gate {
        cr4: 1 << 22,
        feature: Feature::Leaf7Ecx(3),
    },
];

/// The CR4 bits that a guest with this CPUID may set.
#[must_use]
pub fn allowed(cpuid: &CpuidPolicy) -> u64 {
    let basic = cpuid.fixed(1, 0);
    let extended = cpuid.fixed(7, 0);
    let offered = |feature: &Feature| {
        let (register, bit) = match *feature {
            Feature::Leaf1Ecx(bit) => (basic.ecx, bit),
            Feature::Leaf1Edx(bit) => (basic.edx, bit),
            Feature::Leaf7Ebx(bit) => (extended.ebx, bit),
            Feature::Leaf7Ecx(bit) => (extended.ecx, bit),
        };
        register >> bit & 1 != 0
    };
    let gated = GATES.iter().filter(|gate| offered(&gate.feature));
    gated.fold(PCE, |bits, gate| bits | gate.cr4)
}

#[cfg(test)]
mod tests {
    use super::allowed;
    use crate::policy::cpuid::{CpuidPolicy, Registers, Spec, Tsc, Usable};
    use abi::DomId;

    fn policy(features: u32, usable: Usable) -> CpuidPolicy {
        let host = |leaf: u32, _| match leaf {
            0 => Registers {
                eax: 0x20,
                ..Registers::default()
            },
            _ => Registers {
                eax: features,
                ebx: features,
                ecx: features,
                edx: features,
            },
        };
        let tsc = Tsc {
            khz: 2_000_000,
            offset: 0,
            mul: 1 << 31,
            shift: 0,
        };
        CpuidPolicy::new(
            host,
            &Spec {
                domid: DomId(1),
                vcpus: 1,
                usable,
                tsc,
                upcall_vector: false,
            },
        )
    }

    #[test]
    fn hidden_features_keep_their_bits() {
        let everything = policy(
            u32::MAX,
            Usable {
                xcr0: 0x207,
                ..Usable::default()
            },
        );
        let bits = allowed(&everything);
        assert_eq!(
            bits, 0x0077_0fbf,
            "all but MCE, LA57, VMXE, SMXE, KL, CET and PKS"
        );
        let bits = allowed(&policy(u32::MAX, Usable::default()));
        assert_eq!(
            bits & (1 << 18 | 1 << 22),
            0,
            "no XSAVE, no protection keys"
        );
        assert_eq!(allowed(&policy(0, Usable::default())), 1 << 8);
    }
}
