//! Features: groups of control and capability bits that make sense only together.

use core::fmt;

use bitflags::bitflags;

use crate::instr::InvvpidKind;

bitflags! {
    /// What of VMX is there and used.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Features: u64 {
        /// Secondary processor-based controls.
        const SECONDARY_CONTROLS = 1 << 0;
        /// External interrupts exit.
        const EXTERNAL_INTERRUPT_EXITING = 1 << 1;
        /// NMIs exit.
        const NMI_EXITING = 1 << 2;
        /// The CPU keeps track of the guest's NMI blocking; NMI windows.
        const VIRTUAL_NMI = 1 << 3;
        /// The VMX-preemption timer.
        const PREEMPTION_TIMER = 1 << 4;
        /// Interrupt windows.
        const INTERRUPT_WINDOW = 1 << 5;
        /// A TSC offset.
        const TSC_OFFSET = 1 << 6;
        /// HLT exits.
        const HLT_EXITING = 1 << 7;
        /// MONITOR and MWAIT exit.
        const MWAIT_EXITING = 1 << 8;
        /// RDPMC exits.
        const RDPMC_EXITING = 1 << 9;
        /// Accesses to CR8 exit.
        const CR8_EXITING = 1 << 10;
        /// I/O instructions exit.
        const IO_EXITING = 1 << 11;
        /// The MSR bitmap.
        const MSR_BITMAP = 1 << 12;
        /// Extended page tables.
        const EPT = 1 << 13;
        /// Unrestricted guest: real mode and paging off.
        const UNRESTRICTED = 1 << 14;
        /// RDTSCP for the guest.
        const RDTSCP = 1 << 15;
        /// Virtual-processor identifiers.
        const VPID = 1 << 16;
        /// WBINVD exits.
        const WBINVD = 1 << 17;
        /// PAUSE loops exit.
        const PAUSE_LOOP = 1 << 18;
        /// INVPCID for the guest.
        const INVPCID = 1 << 19;
        /// ENCLS exits.
        const ENCLS_EXITING = 1 << 20;
        /// XSAVES and XRSTORS for the guest.
        const XSAVES = 1 << 21;
        /// VM exits go to 64-bit code.
        const HOST_64BIT = 1 << 22;
        /// A VM exit acknowledges the interrupt that caused it and tells its vector.
        const ACK_INTR_ON_EXIT = 1 << 23;
        /// `IA32_EFER` is switched at entry and exit.
        const EFER = 1 << 24;
        /// `IA32_PAT` is switched at entry and exit.
        const PAT = 1 << 25;
        /// DR7 and `IA32_DEBUGCTL` are switched at entry and exit.
        const DEBUG_CONTROLS = 1 << 26;
        /// IA-32e mode in the guest.
        const IA32E_MODE_GUEST = 1 << 27;
        /// A VM exit stores EFER.LMA into the VM-entry controls.
        const STORE_LMA = 1 << 28;
        /// Four-level EPT.
        const EPT_4LEVEL = 1 << 29;
        /// EPT tables in write-back memory.
        const EPT_WB = 1 << 30;
        /// 2 MiB EPT pages.
        const EPT_2M = 1 << 31;
        /// 1 GiB EPT pages.
        const EPT_1G = 1 << 32;
        /// Execute-only EPT pages.
        const EPT_EXEC_ONLY = 1 << 33;
        /// Accessed and dirty flags in EPT (there, but not turned on).
        const EPT_AD = 1 << 34;
        /// EPT violations tell the rights of the linear address.
        const EPT_ADVANCED_EXIT_INFO = 1 << 35;
        /// INVEPT.
        const INVEPT = 1 << 36;
        /// INVEPT of one context.
        const INVEPT_SINGLE = 1 << 37;
        /// INVVPID of one address.
        const INVVPID_ADDRESS = 1 << 38;
        /// INVVPID of one VPID.
        const INVVPID_SINGLE = 1 << 39;
        /// INVVPID of all VPIDs.
        const INVVPID_ALL = 1 << 40;
        /// INVVPID of one VPID's non-global translations.
        const INVVPID_SINGLE_RETAINING_GLOBALS = 1 << 41;
        /// The activity state HLT.
        const ACTIVITY_HLT = 1 << 42;
        /// The activity state shutdown.
        const ACTIVITY_SHUTDOWN = 1 << 43;
        /// The activity state wait-for-SIPI.
        const ACTIVITY_SIPI = 1 << 44;
        /// Instruction information for INS and OUTS.
        const STRING_IO_INFO = 1 << 45;
    }
}

impl Features {
    /// The cheapest INVVPID that drops all translations of `vpid`.
    #[must_use]
    pub const fn invvpid(self, vpid: u16) -> InvvpidKind {
        if self.contains(Self::INVVPID_SINGLE) {
            InvvpidKind::Single(vpid)
        } else {
            InvvpidKind::All
        }
    }
}

/// The names, in the form [`FeatureMask::parse`] takes: `ept-1g vpid`.
impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (name, _) in self.iter_names() {
            f.write_str(separator)?;
            separator = " ";
            for letter in name.chars() {
                let letter = if letter == '_' {
                    '-'
                } else {
                    letter.to_ascii_lowercase()
                };
                fmt::Write::write_char(f, letter)?;
            }
        }
        Ok(())
    }
}

/// Features to hide: they are treated as if the CPU did not have them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeatureMask(Features);

/// A name that is no feature's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownFeature<'a>(pub &'a str);

impl fmt::Display for UnknownFeature<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "unknown VMX feature \"{}\"; known: {}",
            self.0,
            Features::all()
        )
    }
}

impl FeatureMask {
    /// Hides nothing.
    #[must_use]
    pub const fn none() -> Self {
        Self(Features::empty())
    }

    /// Hides these features.
    #[must_use]
    pub const fn hide(features: Features) -> Self {
        Self(features)
    }

    /// Parses names separated by commas or blanks, as in `ept-1g,vpid`. Case and the choice of
    /// `-` or `_` do not matter.
    ///
    /// # Errors
    /// At the first unknown name.
    pub fn parse(names: &str) -> Result<Self, UnknownFeature<'_>> {
        names
            .split([',', ' '])
            .filter(|name| !name.is_empty())
            .try_fold(Features::empty(), |hidden, name| {
                let feature = by_name(name).ok_or(UnknownFeature(name))?;
                Ok(hidden | feature)
            })
            .map(Self)
    }

    /// True when the feature is hidden.
    #[must_use]
    pub const fn hides(self, feature: Features) -> bool {
        self.0.intersects(feature)
    }
}

fn by_name(name: &str) -> Option<Features> {
    let fold = |byte: u8| {
        if byte == b'-' {
            b'_'
        } else {
            byte.to_ascii_uppercase()
        }
    };
    Features::all()
        .iter_names()
        .find(|(known, _)| known.bytes().eq(name.bytes().map(fold)))
        .map(|(_, feature)| feature)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::{FeatureMask, Features, UnknownFeature};
    use std::string::ToString;

    #[test]
    fn names_parse_and_print_alike() {
        let printed = Features::all().to_string();
        assert_eq!(
            FeatureMask::parse(&printed),
            Ok(FeatureMask::hide(Features::all()))
        );
        assert_eq!(
            (Features::EPT_1G | Features::VPID).to_string(),
            "vpid ept-1g"
        );
    }

    #[test]
    fn masks_take_commas_blanks_and_any_case() {
        let mask = FeatureMask::parse("ept-1g, VPID,ept_ad").unwrap();
        assert!(mask.hides(Features::EPT_1G) && mask.hides(Features::VPID));
        assert!(mask.hides(Features::EPT_AD) && !mask.hides(Features::EPT));
        assert_eq!(FeatureMask::parse(""), Ok(FeatureMask::none()));
        assert_eq!(
            FeatureMask::parse("vpid,ept-3g"),
            Err(UnknownFeature("ept-3g"))
        );
    }
}
