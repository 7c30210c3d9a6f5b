//! Tests of the CPUID policy, some of them with an independent reader of the result.
#![expect(clippy::arithmetic_side_effects, reason = "a test may panic")]

use super::{CpuidPolicy, Registers, Spec, Tsc, Usable, VcpuView};
use abi::{DomId, VcpuId};
use proptest::prelude::{any, proptest};
use raw_cpuid::{CpuId, CpuIdReader, CpuIdResult};

const ALL_USABLE: Usable = Usable {
    invpcid: true,
    rdtscp: true,
    xsaves: true,
    spec_ctrl: true,
    xcr0: 0x602e7,
};

fn spec() -> Spec {
    Spec {
        domid: DomId(7),
        vcpus: 3,
        usable: ALL_USABLE,
        tsc: Tsc {
            khz: 2_400_000,
            offset: 0x1_2345_6789,
            mul: 0x8000_0000,
            shift: -1,
        },
        upcall_vector: false,
    }
}

/// A host that has every feature there is.
fn full_host(leaf: u32, subleaf: u32) -> Registers {
    let (eax, ebx, ecx, edx) = match (leaf, subleaf) {
        (0, _) => (0x20, 0x756e_6547, 0x6c65_746e, 0x4965_6e69),
        (1, _) => (0x806f8, 0x1f20_0800, u32::MAX, u32::MAX),
        (2, _) => (0x00fe_ff01, 0xf0, 0, 0),
        (4, 0) => (0xfc00_4121, 0x02c0_003f, 63, 0),
        (4, 1) => (0xfc00_4143, 0x03c0_003f, 2047, 4),
        (4, 2) => (0xfc1f_c163, 0x0380_003f, 0x1bfff, 4),
        (4, _) => (0, 0, 0, 0),
        (0xd, 0) => (0x602e7, 0x988, 0x2b00, 0),
        (0xd, 1) => (0x1f, 0x300, 0x1900, 0),
        (0xd, 2) => (256, 576, 0, 0),
        (0xd, 5) => (64, 1088, 0, 0),
        (0xd, 6) => (512, 1152, 0, 0),
        (0xd, 7) => (1024, 1664, 0, 0),
        (0xd, 9) => (8, 2688, 0, 0),
        (0xd, 17) => (64, 2752, 2, 0),
        (0xd, 18) => (8192, 2816, 6, 0),
        (0xd, _) => (0, 0, 0, 0),
        (0x8000_0000, _) => (0x8000_0008, 0, 0, 0),
        (0x8000_0002..=0x8000_0004, _) => (0x6574_6e49, 0x206c, 0, 0),
        (0x8000_0008, _) => (0x3934, u32::MAX, u32::MAX, 0),
        _ => (u32::MAX, u32::MAX, u32::MAX, u32::MAX),
    };
    Registers { eax, ebx, ecx, edx }
}

fn view(vcpu: u32) -> VcpuView {
    VcpuView {
        id: VcpuId(vcpu),
        xcr0: 7,
        apic_enabled: true,
    }
}

fn full() -> CpuidPolicy {
    CpuidPolicy::new(full_host, &spec())
}

fn ask(policy: &CpuidPolicy, leaf: u32, subleaf: u32) -> Registers {
    policy.answer(leaf, subleaf, view(2), || 0)
}

/// The policy as hardware, for `raw_cpuid`.
#[derive(Clone)]
struct Guest(CpuidPolicy, u32);

impl CpuIdReader for Guest {
    fn cpuid2(&self, eax: u32, ecx: u32) -> CpuIdResult {
        let Registers { eax, ebx, ecx, edx } = self.0.answer(eax, ecx, view(self.1), || u64::MAX);
        CpuIdResult { eax, ebx, ecx, edx }
    }
}

#[test]
fn hides_what_a_guest_must_not_use() {
    let policy = full();
    let leaf1 = ask(&policy, 1, 0);
    for (name, bit) in [
        ("DTES64", 2),
        ("MONITOR", 3),
        ("VMX", 5),
        ("SMX", 6),
        ("PDCM", 15),
        ("OSXSAVE", 27),
    ] {
        assert_eq!(leaf1.ecx >> bit & 1, 0, "{name}");
    }
    for (name, bit) in [("MCE", 7), ("MCA", 14), ("DS", 21), ("ACPI", 22)] {
        assert_eq!(leaf1.edx >> bit & 1, 0, "{name}");
    }
    let leaf7 = ask(&policy, 7, 0);
    for (name, bit) in [
        ("TSC_ADJUST", 1),
        ("SGX", 2),
        ("HLE", 4),
        ("RTM", 11),
        ("MPX", 14),
    ] {
        assert_eq!(leaf7.ebx >> bit & 1, 0, "{name}");
    }
    for (name, bit) in [("OSPKE", 4), ("CET_SS", 7), ("LA57", 16)] {
        assert_eq!(leaf7.ecx >> bit & 1, 0, "{name}");
    }
    assert_eq!(
        leaf7.edx & (1 << 30 | 1 << 20 | 1 << 15),
        0,
        "CORE_CAPABILITIES, IBT, hybrid"
    );
    for denied in [
        3,
        5,
        8,
        9,
        0xa,
        0xf,
        0x10,
        0x12,
        0x14,
        0x17,
        0x1f,
        0x20,
        0x8000_0005,
    ] {
        assert_eq!(ask(&policy, denied, 0), Registers::default(), "{denied:#x}");
    }
    assert_eq!(
        ask(&policy, 6, 0),
        Registers {
            eax: 4,
            ..Registers::default()
        }
    );
}

#[test]
fn follows_the_vcpu() {
    let policy = full();
    let on = policy.answer(1, 0, view(2), || 1 << 18);
    assert_eq!((on.ecx >> 27 & 1, on.ebx >> 24, on.edx >> 9 & 1), (1, 4, 1));
    let off = VcpuView {
        apic_enabled: false,
        ..view(1)
    };
    let off = policy.answer(1, 0, off, || 0);
    assert_eq!(
        (off.ecx >> 27 & 1, off.ebx >> 24, off.edx >> 9 & 1),
        (0, 2, 0)
    );
    assert_eq!(policy.answer(7, 0, view(0), || 1 << 22).ecx & 0x18, 0x18);
    assert_eq!(
        policy
            .answer(7, 1, view(0), || panic!("no need for CR4"))
            .ebx,
        0
    );
}

#[test]
fn xsave_sizes() {
    let policy = full();
    assert_eq!(policy.xcr0(), 0x602e7);
    let answer = |xcr0, subleaf| policy.answer(0xd, subleaf, VcpuView { xcr0, ..view(0) }, || 0);
    assert_eq!(answer(1, 0).ebx, 576);
    assert_eq!(answer(7, 0).ebx, 832);
    assert_eq!(answer(0xe7, 0).ebx, 2688);
    assert_eq!(answer(0x602e7, 0).ebx, 11008);
    assert_eq!((answer(1, 0).eax, answer(1, 0).ecx), (0x602e7, 11008));
    assert_eq!(answer(0x207, 1).ebx, 576 + 256 + 8);
    assert_eq!(answer(0x60207, 1).ebx, 896 + 64 + 8192);
    assert_eq!(answer(7, 1).eax, 0xf);
    assert_eq!((answer(7, 2).eax, answer(7, 2).ebx), (256, 576));
    assert_eq!(answer(7, 3), Registers::default());
    assert_eq!(answer(7, 19), Registers::default());
}

#[test]
fn xcr0_limit_takes_the_instructions_along() {
    let usable = Usable {
        xcr0: 7,
        ..ALL_USABLE
    };
    let policy = CpuidPolicy::new(full_host, &Spec { usable, ..spec() });
    assert_eq!(policy.xcr0(), 7);
    let leaf7 = ask(&policy, 7, 0);
    assert_eq!(
        (leaf7.ebx >> 16 & 1, leaf7.ebx >> 5 & 1, leaf7.edx >> 24 & 1),
        (0, 1, 0)
    );
    assert_eq!(ask(&policy, 0xd, 0).ecx, 832);
    for (value, valid) in [
        (0, false),
        (1, true),
        (3, true),
        (7, true),
        (5, false),
        (0xe7, false),
    ] {
        assert_eq!(policy.is_valid_xcr0(value), valid, "{value:#x}");
    }
    let usable = Usable {
        xcr0: 0,
        ..ALL_USABLE
    };
    let policy = CpuidPolicy::new(full_host, &Spec { usable, ..spec() });
    let guest = policy.answer(1, 0, view(0), || u64::MAX);
    assert_eq!(guest.ecx & (1 << 26 | 1 << 27 | 1 << 28 | 1 << 12), 0);
    assert_eq!(ask(&policy, 0xd, 0), Registers::default());
}

#[test]
fn unusable_controls_take_their_bits_along() {
    let usable = Usable {
        xcr0: 7,
        ..Usable::default()
    };
    let policy = CpuidPolicy::new(full_host, &Spec { usable, ..spec() });
    assert_eq!(ask(&policy, 7, 0).ebx >> 10 & 1, 0, "INVPCID");
    assert_eq!(ask(&policy, 7, 0).ecx >> 22 & 1, 0, "RDPID");
    assert_eq!(ask(&policy, 7, 0).edx >> 26 & 1, 0, "SPEC_CTRL");
    assert_eq!(ask(&policy, 0x8000_0001, 0).edx >> 27 & 1, 0, "RDTSCP");
    assert_eq!(ask(&policy, 0xd, 1).eax >> 3 & 1, 0, "XSAVES");
}

#[test]
fn xen_leaves() {
    let policy = full();
    let ask = |leaf, subleaf| {
        let Registers { eax, ebx, ecx, edx } = ask(&policy, leaf, subleaf);
        [eax, ebx, ecx, edx]
    };
    assert_eq!(
        ask(0x4000_0000, 9),
        [0x4000_0005, 0x566e_6558, 0x6558_4d4d, 0x4d4d_566e]
    );
    assert_eq!(ask(0x4000_0001, 0), [0x4_0011, 0, 0, 0]);
    assert_eq!(ask(0x4000_0002, 0), [1, 0x4000_0000, 0, 0]);
    assert_eq!(ask(0x4000_0003, 0), [6, 0, 2_400_000, 0]);
    assert_eq!(ask(0x4000_0003, 1), [0x2345_6789, 1, 0x8000_0000, u32::MAX]);
    assert_eq!(ask(0x4000_0003, 2), [2_400_000, 0, 0, 0]);
    assert_eq!(ask(0x4000_0004, 0), [0x18, 2, 7, 0]);
    for none in [
        0x4000_0005,
        0x4000_0006,
        0x4000_0100,
        0x4fff_ffff,
        0xc000_0000,
    ] {
        assert_eq!(ask(none, 0), [0; 4]);
    }
    let offered = CpuidPolicy::new(
        full_host,
        &Spec {
            upcall_vector: true,
            ..spec()
        },
    );
    assert_eq!(self::ask(&offered, 0x4000_0004, 0).eax, 0x58);
}

#[test]
fn an_independent_reader_agrees() {
    let id = CpuId::with_cpuid_reader(Guest(full(), 2));
    assert_eq!(id.get_vendor_info().unwrap().as_str(), "GenuineIntel");
    let features = id.get_feature_info().unwrap();
    assert_eq!(features.initial_local_apic_id(), 4);
    assert_eq!(features.max_logical_processor_ids(), 8);
    assert!(features.has_x2apic() && features.has_tsc_deadline() && features.has_hypervisor());
    assert!(!features.has_vmx() && !features.has_mce() && !features.has_ds());
    let levels: std::vec::Vec<_> = id
        .get_extended_topology_info()
        .unwrap()
        .map(|l| {
            (
                l.shift_right_for_next_apic_id(),
                l.processors(),
                l.x2apic_id(),
            )
        })
        .collect();
    assert_eq!(levels, [(1, 1, 4), (3, 3, 4)]);
    let caches: std::vec::Vec<_> = id
        .get_cache_parameters()
        .unwrap()
        .map(|c| {
            (
                c.level(),
                c.max_cores_for_cache(),
                c.max_cores_for_package(),
            )
        })
        .collect();
    assert_eq!(caches, [(1, 2, 4), (2, 2, 4), (3, 8, 4)]);
    let widths = id.get_processor_capacity_feature_info().unwrap();
    assert_eq!(
        (widths.physical_address_bits(), widths.linear_address_bits()),
        (48, 48)
    );
    assert_eq!(
        id.get_tsc_info().unwrap().tsc_frequency(),
        Some(2_400_000_000)
    );
    assert_eq!(
        id.get_processor_frequency_info()
            .unwrap()
            .processor_base_frequency(),
        2400
    );
    assert!(
        id.get_performance_monitoring_info()
            .is_none_or(|pmu| pmu.version_id() == 0)
    );
}

#[test]
fn this_machine_gives_a_sane_policy() {
    let host = |leaf, subleaf| {
        let CpuIdResult { eax, ebx, ecx, edx } = raw_cpuid::CpuIdReaderNative.cpuid2(leaf, subleaf);
        Registers { eax, ebx, ecx, edx }
    };
    let policy = CpuidPolicy::new(host, &spec());
    assert_eq!(ask(&policy, 0, 0).eax, 0x16);
    assert_eq!(
        ask(&policy, 1, 0).ecx & !host(1, 0).ecx & !(1 << 21 | 1 << 24 | 1 << 31),
        0
    );
    assert!(policy.phys_bits() >= 36);
}

#[test]
fn an_old_host_reads_zero_beyond_its_leaves() {
    let host = |leaf, subleaf| match leaf {
        0 => Registers {
            eax: 3,
            ..full_host(0, 0)
        },
        1 => Registers {
            ecx: 0,
            ..full_host(1, subleaf)
        },
        0x8000_0000 => Registers {
            eax: 0x8000_0004,
            ..Registers::default()
        },
        _ => full_host(leaf, subleaf),
    };
    let policy = CpuidPolicy::new(host, &spec());
    for leaf in [4, 7, 0xd, 0x8000_0006, 0x8000_0007] {
        let expected = if leaf == 7 { 2 } else { 0 };
        assert_eq!(
            ask(&policy, leaf, 0),
            Registers {
                eax: expected,
                ..Registers::default()
            },
            "{leaf:#x}"
        );
    }
    assert_eq!(policy.phys_bits(), 36);
    assert_eq!(policy.xcr0(), 0);
}

proptest! {
    #[test]
    fn any_question_is_answered(leaf: u32, subleaf: u32, vcpu: u32, xcr0: u64, cr4: u64) {
        let policy = full();
        let who = VcpuView { id: VcpuId(vcpu), xcr0, apic_enabled: true };
        for leaf in [leaf, leaf & 0x1f, leaf & 0x1f | 0x8000_0000, leaf & 0xf | 0x4000_0000] {
            let _ = policy.answer(leaf, subleaf, who, || cr4);
            let _ = policy.answer(leaf, subleaf & 0x1f, who, || cr4);
        }
        if policy.is_valid_xcr0(xcr0) {
            assert_eq!(xcr0 & !policy.xcr0(), 0);
        }
    }

    /// A guest computes its TSC rate from leaf 0x15 in 32 bits; it must come out close.
    #[test]
    fn the_crystal_ratio_fits_32_bits(khz in 100_000_u32..8_000_000) {
        let Registers { eax, ebx, ecx, .. } = super::host::crystal(khz);
        let product = (ecx / 1000).checked_mul(ebx).unwrap();
        assert!((product / eax).abs_diff(khz) <= khz / 50_000 + 1, "{khz} {eax} {ebx}");
    }

    #[test]
    fn hostile_hosts_do_no_harm(seed in any::<u32>(), vcpus: u32) {
        let noise = |leaf: u32, subleaf: u32| {
            let word = (leaf ^ subleaf.rotate_left(9) ^ seed).wrapping_mul(0x9e37_79b1);
            Registers { eax: word, ebx: !word, ecx: word.rotate_left(7), edx: word.swap_bytes() }
        };
        let policy = CpuidPolicy::new(noise, &Spec { vcpus, ..spec() });
        assert!(super::xstate::is_consistent(policy.xcr0() | 1));
    }
}
