//! The CPUID of a domain.
//!
//! [`CpuidPolicy`] is built once per domain from the host's leaves: a leaf or a feature bit that
//! no table here allows reads zero. An exit is answered from small arrays, without a search; the
//! few bits that follow the vCPU's state are patched in.
//!
//! SDM 2A, "CPUID - CPU Identification"; Xen's leaves as in `public/arch-x86/cpuid.h`.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm
)]

mod features;
mod host;
mod xen;
mod xstate;

use abi::{DomId, VcpuId};

use features::{Register, allowed, forced};
use xstate::XStates;

pub(super) use xen::HYPERCALL_PAGE_MSR;

/// The last basic leaf: the processor frequency.
const MAX_BASIC: u32 = 0x16;
/// The last extended leaf: the address widths.
const MAX_EXTENDED: u32 = 0x8000_0008;
const BASIC_LEAVES: usize = 0x17;
const EXTENDED_LEAVES: usize = 9;
/// Room for every leaf and subleaf of a policy.
const MAX_ENTRIES: usize = 64;

/// The four registers CPUID answers in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Registers {
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
}

/// The guest's TSC, as CPUID tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tsc {
    /// Its rate.
    pub khz: u32,
    /// What is added to the host's TSC.
    pub offset: u64,
    /// Nanoseconds are `((tsc << shift) * mul) >> 32`.
    pub mul: u32,
    /// See `mul`; negative shifts to the right.
    pub shift: i8,
}

/// What the VM controls in use, and the state that is switched with a vCPU, let a guest use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usable {
    /// INVPCID does not fault.
    pub invpcid: bool,
    /// RDTSCP and RDPID do not fault, and IA32_TSC_AUX is switched.
    pub rdtscp: bool,
    /// XSAVES and XRSTORS do not fault.
    pub xsaves: bool,
    /// IA32_SPEC_CTRL is switched, and IA32_PRED_CMD may be written.
    pub spec_ctrl: bool,
    /// The XCR0 components that are kept for each vCPU; without x87 and SSE there is no XSAVE.
    pub xcr0: u64,
}

/// What a domain's CPUID is made from, beside the host's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spec {
    /// The domain.
    pub domid: DomId,
    /// How many vCPUs it has.
    pub vcpus: u32,
    /// What it may use.
    pub usable: Usable,
    /// Its TSC.
    pub tsc: Tsc,
    /// Offer event channel upcalls through a local APIC vector for each vCPU.
    pub upcall_vector: bool,
}

/// The state of a vCPU that shows in its CPUID.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VcpuView {
    /// The vCPU.
    pub id: VcpuId,
    /// Its XCR0.
    pub xcr0: u64,
    /// False when IA32_APIC_BASE disables the local APIC.
    pub apic_enabled: bool,
}

/// How an answer follows the vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Patch {
    #[default]
    None,
    Features,
    StructuredFeatures,
    Topology,
    XState,
    XenVcpu,
}

/// Where the answers of a leaf are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Slot {
    first: u8,
    /// Number of subleaves; 0 when the leaf is denied.
    count: u8,
    /// False when the leaf does not look at the subleaf.
    indexed: bool,
    patch: Patch,
}

/// The CPUID of one domain.
#[derive(Clone, Debug)]
pub struct CpuidPolicy {
    entries: heapless::Vec<Registers, MAX_ENTRIES>,
    basic: [Slot; BASIC_LEAVES],
    xen: [Slot; xen::LEAVES],
    extended: [Slot; EXTENDED_LEAVES],
    xstates: XStates,
}

const OSXSAVE: u32 = 1 << 27;
const OSPKE: u32 = 1 << 4;
const APIC: u32 = 1 << 9;
const CR4_OSXSAVE: u64 = 1 << 18;
const CR4_PKE: u64 = 1 << 22;

/// The local APIC id of a vCPU.
#[must_use]
pub fn apic_id(vcpu: VcpuId) -> u32 {
    vcpu.0.wrapping_mul(2)
}

impl CpuidPolicy {
    /// Builds the policy of `spec`; `host` reads a leaf and subleaf of the host.
    #[must_use]
    pub fn new(mut host: impl FnMut(u32, u32) -> Registers, spec: &Spec) -> Self {
        let mut policy = Self {
            entries: heapless::Vec::new(),
            basic: [Slot::default(); BASIC_LEAVES],
            xen: [Slot::default(); xen::LEAVES],
            extended: [Slot::default(); EXTENDED_LEAVES],
            xstates: XStates::default(),
        };
        let mut host = host::Host::new(&mut host);
        policy.xstates = XStates::new(&mut host, spec.usable.xcr0);
        policy.add_basic(&mut host, spec);
        policy.add_extended(&mut host, spec);
        policy.add_xen(spec);
        policy
    }

    /// Answers CPUID. `cr4` gives the guest's CR4 and is called for the leaves that show it.
    #[must_use]
    pub fn answer(
        &self,
        leaf: u32,
        subleaf: u32,
        vcpu: VcpuView,
        cr4: impl FnOnce() -> u64,
    ) -> Registers {
        let slot = self.slot(leaf);
        let mut answer = self.entry(slot, subleaf);
        match slot.patch {
            Patch::None => {}
            Patch::Features => {
                answer.ebx |= apic_id(vcpu.id).wrapping_shl(24);
                answer.ecx &= if cr4() & CR4_OSXSAVE == 0 {
                    !OSXSAVE
                } else {
                    u32::MAX
                };
                answer.edx &= if vcpu.apic_enabled { u32::MAX } else { !APIC };
            }
            Patch::StructuredFeatures if subleaf == 0 => {
                answer.ecx &= if cr4() & CR4_PKE == 0 {
                    !OSPKE
                } else {
                    u32::MAX
                };
            }
            Patch::StructuredFeatures => {}
            Patch::Topology => {
                answer.ecx |= subleaf & 0xff;
                answer.edx = apic_id(vcpu.id);
            }
            Patch::XState if subleaf == 0 => answer.ebx = self.xstates.standard_size(vcpu.xcr0),
            Patch::XState if subleaf == 1 && answer.eax & features::COMPACTED != 0 => {
                answer.ebx = self.xstates.compacted_size(vcpu.xcr0);
            }
            Patch::XState => {}
            Patch::XenVcpu => answer.ebx = vcpu.id.0,
        }
        answer
    }

    /// The XCR0 components the guest may enable; 0 when it has no XSAVE.
    #[must_use]
    pub fn xcr0(&self) -> u64 {
        self.xstates.xcr0()
    }

    /// True when XSETBV may load `value` into XCR0 (SDM 2D, "XSETBV").
    #[must_use]
    pub fn is_valid_xcr0(&self, value: u64) -> bool {
        xstate::is_consistent(value) && value & !self.xstates.xcr0() == 0
    }

    /// Bits of a guest-physical address.
    #[must_use]
    pub fn phys_bits(&self) -> u8 {
        let [bits, ..] = self.fixed(MAX_EXTENDED, 0).eax.to_le_bytes();
        bits
    }

    /// An answer before it is patched for a vCPU.
    #[must_use]
    pub fn fixed(&self, leaf: u32, subleaf: u32) -> Registers {
        self.entry(self.slot(leaf), subleaf)
    }

    fn slot(&self, leaf: u32) -> Slot {
        let (table, index): (&[Slot], u32) = match leaf >> 28 {
            0 => (&self.basic, leaf),
            4 => (&self.xen, leaf & 0x0fff_ffff),
            8 => (&self.extended, leaf & 0x0fff_ffff),
            _ => return Slot::default(),
        };
        table.get(index as usize).copied().unwrap_or_default()
    }

    fn entry(&self, slot: Slot, subleaf: u32) -> Registers {
        let at = if slot.indexed { subleaf } else { 0 };
        if at >= u32::from(slot.count) {
            return Registers::default();
        }
        let index = usize::from(slot.first).wrapping_add(at as usize);
        self.entries.get(index).copied().unwrap_or_default()
    }

    fn add(&mut self, leaf: u32, patch: Patch, answers: &[Registers], indexed: bool) {
        let first = u8::try_from(self.entries.len()).unwrap_or(u8::MAX);
        let count = u8::try_from(answers.len()).unwrap_or(u8::MAX);
        let slot = match leaf >> 28 {
            0 => self.basic.get_mut(leaf as usize),
            4 => self.xen.get_mut((leaf & 0x0fff_ffff) as usize),
            _ => self.extended.get_mut((leaf & 0x0fff_ffff) as usize),
        };
        assert!(slot.is_some(), "CPUID leaf {leaf:#x} has no slot");
        assert!(
            self.entries.extend_from_slice(answers).is_ok(),
            "the CPUID table is full"
        );
        if let Some(slot) = slot {
            *slot = Slot {
                first,
                count,
                indexed,
                patch,
            };
        }
    }

    fn add_one(&mut self, leaf: u32, answer: Registers) {
        self.add(leaf, Patch::None, &[answer], false);
    }

    fn add_basic(&mut self, host: &mut host::Host<'_>, spec: &Spec) {
        let vendor = host.read(0, 0);
        self.add_one(
            0,
            Registers {
                eax: MAX_BASIC,
                ..vendor
            },
        );
        let usable = features::Conditions::new(&spec.usable, self.xstates.xcr0());
        self.add(
            1,
            Patch::Features,
            &[host::features(host, spec, usable)],
            false,
        );
        self.add_one(2, host.read(2, 0));
        let caches = host::caches(host, spec.vcpus);
        self.add(4, Patch::None, &caches, true);
        self.add_one(
            6,
            Registers {
                eax: forced(6, 0, Register::Eax),
                ..Registers::default()
            },
        );
        let structured = [0, 1, 2].map(|subleaf| {
            let registers = host::filtered(host, 7, subleaf, usable);
            let eax = if subleaf == 0 { 2 } else { registers.eax };
            Registers { eax, ..registers }
        });
        self.add(7, Patch::StructuredFeatures, &structured, true);
        self.add(0xb, Patch::Topology, &host::topology(spec.vcpus), true);
        if self.xstates.xcr0() != 0 {
            let instructions = host.read(0xd, 1).eax & allowed(0xd, 1, Register::Eax, usable);
            let leaves = self.xstates.leaves(instructions);
            self.add(0xd, Patch::XState, &leaves, true);
        }
        self.add_one(0x15, host::crystal(spec.tsc.khz));
        self.add_one(0x16, host::frequency(spec.tsc.khz));
    }

    fn add_extended(&mut self, host: &mut host::Host<'_>, spec: &Spec) {
        let usable = features::Conditions::new(&spec.usable, self.xstates.xcr0());
        let max = Registers {
            eax: MAX_EXTENDED,
            ..Registers::default()
        };
        self.add_one(0x8000_0000, max);
        self.add_one(0x8000_0001, host::filtered(host, 0x8000_0001, 0, usable));
        for name in 0x8000_0002..=0x8000_0004 {
            self.add_one(name, host.read(name, 0));
        }
        let l2 = Registers {
            ecx: host.read(0x8000_0006, 0).ecx,
            ..Registers::default()
        };
        self.add_one(0x8000_0006, l2);
        self.add_one(0x8000_0007, host::filtered(host, 0x8000_0007, 0, usable));
        self.add_one(MAX_EXTENDED, host::address_widths(host));
    }

    fn add_xen(&mut self, spec: &Spec) {
        let invariant_tsc = self.fixed(0x8000_0007, 0).edx & features::INVARIANT_TSC != 0;
        self.add_one(xen::BASE, xen::signature());
        self.add_one(xen::BASE | 1, xen::version());
        self.add_one(xen::BASE | 2, xen::hypercall_page());
        self.add(
            xen::BASE | 3,
            Patch::None,
            &xen::time(spec, invariant_tsc),
            true,
        );
        self.add(xen::BASE | 4, Patch::XenVcpu, &[xen::identity(spec)], false);
    }
}

#[cfg(test)]
mod tests;
