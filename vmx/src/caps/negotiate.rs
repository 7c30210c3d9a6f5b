//! From what the CPU reports to the control words: required, wanted, absent.

use core::fmt;

use super::features::{FeatureMask, Features};
use super::msrs::CapMsrs;
use super::table::{CAPABILITIES, CONTROLS, Control, REQUIRED, Use, Word};

/// Bits of a control register that VMX operation fixes: SDM 3D, "VMX-Fixed Bits in CR0".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FixedBits {
    /// Bits that must be 1.
    pub must_be_1: u64,
    /// Bits that may be 1.
    pub may_be_1: u64,
}

impl FixedBits {
    /// The legal value nearest to `value`.
    #[must_use]
    pub const fn apply(self, value: u64) -> u64 {
        (value | self.must_be_1) & self.may_be_1
    }

    /// True when `value` is legal.
    #[must_use]
    pub const fn allows(self, value: u64) -> bool {
        self.apply(value) == value
    }

    /// The bits an unrestricted guest's CR0 is held to: PE and PG are free.
    #[must_use]
    pub const fn for_unrestricted_guest(self) -> Self {
        const FREE: u64 = crate::cpu::cr::CR0_PE | crate::cpu::cr::CR0_PG;
        Self {
            must_be_1: self.must_be_1 & !FREE,
            may_be_1: self.may_be_1 | FREE,
        }
    }
}

/// The negotiated control words and what goes with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Controls {
    /// Pin-based VM-execution controls.
    pub pin: u32,
    /// Primary processor-based VM-execution controls.
    pub primary: u32,
    /// Secondary processor-based VM-execution controls.
    pub secondary: u32,
    /// VM-exit controls.
    pub exit: u32,
    /// VM-entry controls.
    pub entry: u32,
    /// What is used.
    pub features: Features,
    /// Fixed bits of CR0.
    pub cr0: FixedBits,
    /// Fixed bits of CR4.
    pub cr4: FixedBits,
    /// The EPT pointer without its address: write-back, four levels.
    pub eptp_template: u64,
    /// The preemption timer counts down when this bit of the TSC changes.
    pub preemption_timer_shift: u8,
    /// Bytes of a VMCS region, at most a frame.
    pub vmcs_size: u16,
    /// VMCS revision identifier.
    pub revision: u32,
}

/// Why something needed is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A control cannot be set.
    CannotBeSet,
    /// A control cannot be cleared.
    CannotBeCleared,
    /// A capability is not there.
    NotSupported,
    /// The configuration hides it.
    Hidden,
}

/// Something Tessera needs that this CPU does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Its name.
    pub name: &'static str,
    /// The MSR that tells.
    pub msr: &'static str,
    /// The bit of the control word or capability.
    pub bit: u8,
    /// What is wrong with it.
    pub why: Why,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Tessera needs {} ({} bit {}): ",
            self.name, self.msr, self.bit
        )?;
        f.write_str(match self.why {
            Why::CannotBeSet => "this CPU reports it cannot be set",
            Why::CannotBeCleared => "this CPU reports it cannot be cleared",
            Why::NotSupported => "this CPU reports it is not supported",
            Why::Hidden => "the configuration hides it",
        })
    }
}

/// Everything missing, most telling first; what does not fit is left out.
pub type MissingList = heapless::Vec<Missing, 16>;

/// Chooses the control words: everything required, everything wanted that is there, every bit
/// the CPU insists on, nothing else.
///
/// # Errors
/// With what is missing.
#[expect(
    clippy::result_large_err,
    reason = "called once at boot, where no allocator is needed"
)]
pub fn negotiate(msrs: &CapMsrs, mask: &FeatureMask) -> Result<Controls, MissingList> {
    let mut missing = MissingList::new();
    let features = present(msrs, *mask, &mut missing);
    let mut words = [0_u32; 5];
    for (word, chosen) in Word::ALL.into_iter().zip(&mut words) {
        *chosen = choose(word, msrs, features, &mut missing);
    }
    let vmcs_size = check_region(msrs, &mut missing);
    if !missing.is_empty() {
        return Err(missing);
    }
    let [pin, primary, secondary, exit, entry] = words;
    Ok(Controls {
        pin,
        primary,
        secondary,
        exit,
        entry,
        features,
        cr0: FixedBits {
            must_be_1: msrs.cr0_fixed0,
            may_be_1: msrs.cr0_fixed1,
        },
        cr4: FixedBits {
            must_be_1: msrs.cr4_fixed0,
            may_be_1: msrs.cr4_fixed1,
        },
        eptp_template: EPTP_WRITE_BACK | EPTP_FOUR_LEVELS,
        preemption_timer_shift: low_byte(msrs.misc) & 0x1f,
        vmcs_size,
        revision: low_half(msrs.basic) & 0x7fff_ffff,
    })
}

const EPTP_WRITE_BACK: u64 = 6;
const EPTP_FOUR_LEVELS: u64 = 3 << 3;

/// The features that are all there and not hidden; required ones that are not go to `missing`.
fn present(msrs: &CapMsrs, mask: FeatureMask, missing: &mut MissingList) -> Features {
    let mut features = Features::all();
    for control in CONTROLS {
        let (msr, name) = control.word.source(msrs);
        let settable = high_half(msr) & control.bit != 0;
        if settable && !mask.hides(control.feature) {
            continue;
        }
        // With no secondary controls at all, or no EPT, one line says it.
        let told =
            control.word == Word::Secondary && !features.contains(Features::SECONDARY_CONTROLS);
        if REQUIRED.contains(control.feature) && !told {
            let why = if settable {
                Why::Hidden
            } else {
                Why::CannotBeSet
            };
            push(
                missing,
                Missing {
                    name: control.name,
                    msr: name,
                    bit: number(control.bit),
                    why,
                },
            );
        }
        features.remove(control.feature);
    }
    for capability in CAPABILITIES {
        let (msr, name) = capability.source.read(msrs);
        let there = msr >> capability.bit & 1 != 0;
        if there && !mask.hides(capability.feature) {
            continue;
        }
        let about_ept = capability.source == super::table::Source::EptVpid;
        let told = about_ept && !features.contains(Features::EPT);
        if REQUIRED.contains(capability.feature) && !told {
            let why = if there {
                Why::Hidden
            } else {
                Why::NotSupported
            };
            push(
                missing,
                Missing {
                    name: capability.name,
                    msr: name,
                    bit: capability.bit,
                    why,
                },
            );
        }
        features.remove(capability.feature);
    }
    // A VPID whose translations cannot be dropped is of no use.
    if !features.intersects(Features::INVVPID_SINGLE | Features::INVVPID_ALL) {
        features.remove(Features::VPID);
    }
    features
}

/// The value of one control word; bits the CPU fixes to 1 against our need go to `missing`.
fn choose(word: Word, msrs: &CapMsrs, features: Features, missing: &mut MissingList) -> u32 {
    if word == Word::Secondary && !features.contains(Features::SECONDARY_CONTROLS) {
        return 0;
    }
    let (msr, name) = word.source(msrs);
    let must_be_1 = low_half(msr);
    let may_be_1 = high_half(msr);
    let ours = |control: &&Control| control.word == word;
    let wanted = CONTROLS
        .iter()
        .filter(ours)
        .filter(|control| features.contains(control.feature) && control.used == Use::Set)
        .fold(0, |bits, control| bits | control.bit);
    let chosen = wanted & may_be_1 | must_be_1;
    // A bit that must be 1 and may not be is no legal value of the MSR: nothing satisfies it.
    let contradictory = must_be_1 & !may_be_1;
    let mut unwanted = contradictory | must_be_1 & !wanted & !word.reserved_ones();
    while unwanted != 0 && !missing.is_full() {
        let bit = unwanted & unwanted.wrapping_neg();
        unwanted &= !bit;
        let known = CONTROLS
            .iter()
            .filter(ours)
            .find(|control| control.bit == bit);
        push(
            missing,
            Missing {
                name: known.map_or_else(|| off_name(word, bit), |control| control.name),
                msr: name,
                bit: number(bit),
                why: Why::CannotBeCleared,
            },
        );
    }
    chosen
}

const fn off_name(word: Word, bit: u32) -> &'static str {
    match (word, bit) {
        (Word::Primary, super::bits::CR3_LOAD_EXITING) => "CR3-load exiting off",
        (Word::Primary, super::bits::CR3_STORE_EXITING) => "CR3-store exiting off",
        _ => "a control off that it does not use",
    }
}

/// The size of a VMCS region; a frame in write-back memory anywhere must do.
fn check_region(msrs: &CapMsrs, missing: &mut MissingList) -> u16 {
    const MSR: &str = "IA32_VMX_BASIC";
    let [low, high, ..] = (msrs.basic >> 32).to_le_bytes();
    let size = u16::from_le_bytes([low, high]) & 0x1fff;
    let memory_type = msrs.basic >> 50 & 0xf;
    let mut need = |name, bit, ok: bool| {
        if !ok {
            push(
                missing,
                Missing {
                    name,
                    msr: MSR,
                    bit,
                    why: Why::NotSupported,
                },
            );
        }
    };
    need(
        "VMCS regions of at most 4096 bytes",
        32,
        size > 0 && size <= 4096,
    );
    need(
        "VMCS regions anywhere in memory",
        48,
        msrs.basic & 1 << 48 == 0,
    );
    need("VMCS regions in write-back memory", 50, memory_type == 6);
    size
}

impl Controls {
    /// Reports what was found, line by line, for the boot log.
    pub fn report(&self, mut line: impl FnMut(fmt::Arguments<'_>)) {
        line(format_args!(
            "VMX: VMCS revision {:#x}, {} bytes; preemption timer counts TSC >> {}",
            self.revision, self.vmcs_size, self.preemption_timer_shift
        ));
        line(format_args!(
            "VMX: pin {:#x} primary {:#x} secondary {:#x} exit {:#x} entry {:#x}",
            self.pin, self.primary, self.secondary, self.exit, self.entry
        ));
        line(format_args!("VMX: required: {}", self.features & REQUIRED));
        line(format_args!("VMX: wanted: {}", self.features - REQUIRED));
        line(format_args!(
            "VMX: absent: {}",
            Features::all() - self.features
        ));
    }
}

/// Leaves out what does not fit: sixteen lines tell enough.
fn push(missing: &mut MissingList, line: Missing) {
    let _: Result<(), Missing> = missing.push(line);
}

const fn number(bit: u32) -> u8 {
    low_byte(bit.trailing_zeros() as u64)
}

const fn low_byte(value: u64) -> u8 {
    let [byte, ..] = value.to_le_bytes();
    byte
}

const fn low_half(msr: u64) -> u32 {
    let [a, b, c, d, ..] = msr.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

const fn high_half(msr: u64) -> u32 {
    low_half(msr >> 32)
}

#[cfg(test)]
#[path = "negotiate_tests.rs"]
mod tests;
