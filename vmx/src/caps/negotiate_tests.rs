//! Negotiation on every known capability table, and on random ones.

extern crate std;
use std::string::{String, ToString};
use std::vec::Vec;

use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};

use super::super::models::{BOCHS_2_7, BOCHS_3_0, NESTED_IN_KVM, model, models};
use super::{
    Controls, FixedBits, MissingList, REQUIRED, Why, Word, high_half, low_half, negotiate,
};
use crate::caps::{CapMsrs, FeatureMask, Features, bits};

#[expect(clippy::result_large_err, reason = "as in the function under test")]
fn all_features(msrs: &CapMsrs) -> Result<Controls, MissingList> {
    negotiate(msrs, &FeatureMask::none())
}

fn lines(missing: &MissingList) -> Vec<String> {
    missing.iter().map(ToString::to_string).collect()
}

fn words(controls: &Controls) -> [u32; 5] {
    [
        controls.pin,
        controls.primary,
        controls.secondary,
        controls.exit,
        controls.entry,
    ]
}

/// No word sets a bit the CPU does not allow or clears one it insists on.
fn assert_legal(msrs: &CapMsrs, controls: &Controls) {
    for (word, value) in Word::ALL.into_iter().zip(words(controls)) {
        let (msr, name) = word.source(msrs);
        assert_eq!(
            value & !high_half(msr),
            0,
            "{name}: bits that cannot be set"
        );
        assert_eq!(
            low_half(msr) & !value,
            0,
            "{name}: bits that cannot be cleared"
        );
    }
}

#[test]
fn penryn_is_refused_for_ept() {
    for table in [BOCHS_2_7, BOCHS_3_0] {
        let missing = all_features(&model(table, "penryn")).unwrap_err();
        let expected = "Tessera needs extended page tables (IA32_VMX_PROCBASED_CTLS2 bit 1): \
                        this CPU reports it cannot be set";
        assert_eq!(lines(&missing).first().map(String::as_str), Some(expected));
        // Without EPT nothing is said of its details.
        assert!(
            lines(&missing)
                .iter()
                .all(|line| !line.contains("EPT_VPID_CAP"))
        );
    }
}

#[test]
fn lynnfield_is_refused_for_unrestricted_guest_alone() {
    for table in [BOCHS_2_7, BOCHS_3_0] {
        let missing = all_features(&model(table, "lynnf")).unwrap_err();
        let expected = "Tessera needs unrestricted guest (IA32_VMX_PROCBASED_CTLS2 bit 7): \
                        this CPU reports it cannot be set";
        assert_eq!(lines(&missing), [expected]);
    }
}

#[test]
fn all_other_models_are_accepted() {
    let mut accepted = 0;
    for (name, msrs) in [BOCHS_2_7, BOCHS_3_0, NESTED_IN_KVM]
        .into_iter()
        .flat_map(models)
    {
        if matches!(name.as_str(), "penryn" | "lynnf") {
            continue;
        }
        let controls = all_features(&msrs).unwrap_or_else(|missing| panic!("{name}: {missing:?}"));
        assert_legal(&msrs, &controls);
        assert!(controls.features.contains(REQUIRED), "{name}");
        assert_eq!(controls.vmcs_size, 4096, "{name}");
        assert_eq!(controls.eptp_template, 0x1e, "{name}");
        accepted += 1;
    }
    assert_eq!(accepted, 9 + 12 + 1);
}

#[test]
fn skylake_gets_exactly_these_words() {
    let controls = all_features(&model(BOCHS_3_0, "skylake_x")).unwrap();
    assert_eq!(controls.pin, 0x16 | 1 << 0 | 1 << 3 | 1 << 5 | 1 << 6);
    let primary = [3, 7, 10, 11, 19, 20, 24, 28, 29, 31];
    assert_eq!(
        controls.primary,
        primary
            .iter()
            .fold(0x0400_6172, |word, bit| word | 1 << bit)
    );
    let secondary = [1, 3, 5, 6, 7, 10, 12, 20];
    assert_eq!(
        controls.secondary,
        secondary.iter().fold(0, |word, bit| word | 1 << bit)
    );
    assert_eq!(controls.exit, 0x0003_6dfb | 0x003c_8204);
    assert_eq!(controls.entry, 0x11fb | 0xc004);
    assert_eq!(
        (controls.revision, controls.preemption_timer_shift),
        (0x2b, 0)
    );
    let absent = Features::all() - controls.features;
    assert_eq!(absent, Features::ENCLS_EXITING);
}

#[test]
fn older_models_lack_what_the_tables_say() {
    let arrandale = all_features(&model(BOCHS_2_7, "arrand")).unwrap().features;
    let lacks = Features::EPT_1G
        | Features::EPT_AD
        | Features::INVPCID
        | Features::XSAVES
        | Features::PAUSE_LOOP;
    assert!(!arrandale.intersects(lacks));
    assert!(arrandale.contains(Features::EPT_2M | Features::VPID | Features::RDTSCP));
    let haswell = all_features(&model(BOCHS_3_0, "haswell")).unwrap().features;
    assert!(haswell.contains(Features::EPT_1G | Features::INVPCID | Features::PAUSE_LOOP));
    assert!(!haswell.contains(Features::XSAVES));
}

#[test]
fn under_kvm_what_it_takes_away_is_absent() {
    let controls = all_features(&model(NESTED_IN_KVM, "skylake_x")).unwrap();
    assert_eq!(controls.preemption_timer_shift, 5);
    assert_eq!(controls.revision, 0x11e5_7ed0);
    let absent = Features::all() - controls.features;
    let expected = Features::PAUSE_LOOP
        | Features::EPT_ADVANCED_EXIT_INFO
        | Features::ENCLS_EXITING
        | Features::ACTIVITY_SHUTDOWN;
    assert_eq!(absent, expected);
}

#[test]
fn without_true_msrs_cr3_accesses_cannot_be_let_through() {
    let mut msrs = model(BOCHS_3_0, "haswell");
    msrs.basic &= !(1 << 55);
    let missing = all_features(&msrs).unwrap_err();
    let expected = [
        "Tessera needs CR3-load exiting off (IA32_VMX_PROCBASED_CTLS bit 15): \
         this CPU reports it cannot be cleared",
        "Tessera needs CR3-store exiting off (IA32_VMX_PROCBASED_CTLS bit 16): \
         this CPU reports it cannot be cleared",
    ];
    assert_eq!(lines(&missing), expected);
}

#[test]
fn a_control_that_is_stuck_on_is_refused() {
    let mut msrs = model(BOCHS_3_0, "haswell");
    msrs.true_proc |= u64::from(bits::INTERRUPT_WINDOW_EXITING);
    let missing = all_features(&msrs).unwrap_err();
    let expected = "Tessera needs interrupt-window exiting (IA32_VMX_TRUE_PROCBASED_CTLS bit 2): \
                    this CPU reports it cannot be cleared";
    assert_eq!(lines(&missing), [expected]);
}

#[test]
fn a_cpu_without_anything_gets_few_lines() {
    let nothing = CapMsrs {
        basic: 0x00d8_1000_0000_0001,
        ..CapMsrs::default()
    };
    let missing = all_features(&nothing).unwrap_err();
    let first = lines(&missing).swap_remove(0);
    assert!(first.contains("secondary controls"), "{first}");
    assert!(
        missing
            .iter()
            .all(|line| line.msr != "IA32_VMX_PROCBASED_CTLS2")
    );
}

#[test]
fn a_strange_vmcs_region_is_refused() {
    let mut msrs = model(BOCHS_3_0, "haswell");
    msrs.basic = 1 << 55 | 1 << 54 | 1 << 48 | 0x1800 << 32;
    assert_eq!(all_features(&msrs).unwrap_err().len(), 3);
}

#[test]
fn every_optional_feature_can_be_hidden_and_every_required_one_is_missed() {
    let msrs = model(BOCHS_3_0, "skylake_x");
    let whole = all_features(&msrs).unwrap();
    for feature in Features::all().iter() {
        let result = negotiate(&msrs, &FeatureMask::hide(feature));
        if REQUIRED.contains(feature) {
            let missing = result.unwrap_err();
            assert!(
                lines(&missing)
                    .iter()
                    .all(|line| line.ends_with("the configuration hides it"))
            );
        } else {
            let controls = result.unwrap();
            assert_legal(&msrs, &controls);
            assert!(!controls.features.contains(feature));
            assert_eq!(controls.features, whole.features - feature, "{feature}");
        }
    }
}

#[test]
fn a_vpid_without_invvpid_is_not_used() {
    let msrs = model(BOCHS_3_0, "skylake_x");
    let mask = FeatureMask::hide(Features::INVVPID_SINGLE | Features::INVVPID_ALL);
    let controls = negotiate(&msrs, &mask).unwrap();
    assert!(!controls.features.contains(Features::VPID));
    assert_eq!(controls.secondary & bits::ENABLE_VPID, 0);
}

#[test]
fn a_group_is_used_whole_or_not_at_all() {
    let mut msrs = model(BOCHS_3_0, "skylake_x");
    // PAT can be loaded on entry no more.
    msrs.true_entry &= !(u64::from(bits::ENTRY_LOAD_PAT) << 32);
    let controls = all_features(&msrs).unwrap();
    assert!(!controls.features.contains(Features::PAT));
    assert_eq!(
        controls.exit & (bits::EXIT_LOAD_PAT | bits::EXIT_SAVE_PAT),
        0
    );
}

#[test]
fn a_contradictory_capability_is_refused() {
    let mut msrs = model(BOCHS_3_0, "skylake_x");
    // Bit 14 is reserved and must be 1; here it may not be.
    msrs.true_exit &= !(1 << (32 + 14));
    let missing = all_features(&msrs).unwrap_err();
    assert_eq!(missing.len(), 1);
    assert_eq!((missing[0].bit, missing[0].why), (14, Why::CannotBeCleared));
}

#[test]
fn fixed_bits_hold_a_value() {
    let cr0 = FixedBits {
        must_be_1: 0x8000_0021,
        may_be_1: 0xffff_ffff,
    };
    assert_eq!(cr0.apply(0x10), 0x8000_0031);
    assert!(!cr0.allows(0x10) && !cr0.allows(1 << 32 | 0x8000_0021));
    let guest = cr0.for_unrestricted_guest();
    assert_eq!(guest.must_be_1, 0x20);
    assert!(guest.allows(0x20) && !guest.allows(0x11));
}

#[test]
fn the_report_names_what_is_there_and_what_is_not() {
    let controls = all_features(&model(BOCHS_2_7, "arrand")).unwrap();
    let mut report = Vec::new();
    controls.report(|line| report.push(line.to_string()));
    assert_eq!(
        report[0],
        "VMX: VMCS revision 0x2b, 4096 bytes; preemption timer counts TSC >> 0"
    );
    assert!(report[2].contains("unrestricted") && report[3].contains("vpid"));
    assert!(report[4].starts_with("VMX: absent: ") && report[4].contains("ept-1g"));
}

fn any_msrs() -> impl Strategy<Value = CapMsrs> {
    // Words near a real table reach the accepting paths too.
    let real = models(BOCHS_3_0);
    (0..real.len(), any::<[u64; 8]>(), any::<[u64; 8]>()).prop_map(move |(index, noise, thin)| {
        let mut msrs = real[index].1;
        let words = [
            &mut msrs.basic,
            &mut msrs.true_pin,
            &mut msrs.true_proc,
            &mut msrs.true_exit,
            &mut msrs.true_entry,
            &mut msrs.proc2,
            &mut msrs.ept_vpid,
            &mut msrs.misc,
        ];
        for (word, (noise, thin)) in words.into_iter().zip(noise.into_iter().zip(thin)) {
            // Flip few bits, or many.
            *word ^= noise & thin & thin.rotate_left(17) & thin.rotate_left(40);
        }
        msrs
    })
}

proptest! {
    #[test]
    fn random_capabilities_give_legal_words_or_reasons(msrs in any_msrs(), hidden in any::<u64>()) {
        let mask = FeatureMask::hide(Features::from_bits_truncate(hidden & hidden.rotate_left(9)));
        for mask in [mask, FeatureMask::none()] {
            match negotiate(&msrs, &mask) {
                Ok(controls) => {
                    assert_legal(&msrs, &controls);
                    prop_assert!(controls.features.contains(REQUIRED));
                    prop_assert!(!mask.hides(controls.features));
                }
                Err(missing) => prop_assert!(!missing.is_empty()),
            }
        }
    }

    #[test]
    fn hiding_optional_features_never_stops_a_good_cpu(hidden in any::<u64>()) {
        let msrs = model(BOCHS_3_0, "skylake_x");
        let hidden = Features::from_bits_truncate(hidden) - REQUIRED;
        let controls = negotiate(&msrs, &FeatureMask::hide(hidden)).unwrap();
        assert_legal(&msrs, &controls);
        prop_assert_eq!(controls.features & hidden, Features::empty());
    }

    #[test]
    fn fixed_bits_are_idempotent(must in any::<u64>(), may in any::<u64>(), value in any::<u64>()) {
        let fixed = FixedBits { must_be_1: must & may, may_be_1: may };
        let once = fixed.apply(value);
        prop_assert_eq!(fixed.apply(once), once);
        prop_assert!(fixed.allows(once));
    }
}
