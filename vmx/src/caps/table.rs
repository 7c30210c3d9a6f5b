//! The one table of what is required and what is wanted.

use super::features::Features;
use super::{CapMsrs, bits};

/// A control word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Pin,
    Primary,
    Secondary,
    Exit,
    Entry,
}

impl Word {
    pub(super) const ALL: [Self; 5] = [
        Self::Pin,
        Self::Primary,
        Self::Secondary,
        Self::Exit,
        Self::Entry,
    ];

    /// The MSR that tells which bits may be set and cleared, with its name.
    pub(super) const fn source(self, msrs: &CapMsrs) -> (u64, &'static str) {
        match (self, msrs.has_true_msrs()) {
            (Self::Pin, true) => (msrs.true_pin, "IA32_VMX_TRUE_PINBASED_CTLS"),
            (Self::Pin, false) => (msrs.pin, "IA32_VMX_PINBASED_CTLS"),
            (Self::Primary, true) => (msrs.true_proc, "IA32_VMX_TRUE_PROCBASED_CTLS"),
            (Self::Primary, false) => (msrs.proc, "IA32_VMX_PROCBASED_CTLS"),
            (Self::Secondary, _) => (msrs.proc2, "IA32_VMX_PROCBASED_CTLS2"),
            (Self::Exit, true) => (msrs.true_exit, "IA32_VMX_TRUE_EXIT_CTLS"),
            (Self::Exit, false) => (msrs.exit, "IA32_VMX_EXIT_CTLS"),
            (Self::Entry, true) => (msrs.true_entry, "IA32_VMX_TRUE_ENTRY_CTLS"),
            (Self::Entry, false) => (msrs.entry, "IA32_VMX_ENTRY_CTLS"),
        }
    }

    /// Bits without a meaning of their own that a CPU may fix to 1: the reserved part of the
    /// default1 class. SDM 3D, "Default Settings".
    pub(super) const fn reserved_ones(self) -> u32 {
        match self {
            Self::Pin => 0x16,
            Self::Primary => 0x0401_e172 & !bits::CR3_LOAD_EXITING & !bits::CR3_STORE_EXITING,
            Self::Secondary => 0,
            Self::Exit => 0x0003_6dff & !bits::EXIT_SAVE_DEBUG_CONTROLS,
            Self::Entry => 0x11ff & !bits::ENTRY_LOAD_DEBUG_CONTROLS,
        }
    }
}

/// How a control bit is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Set in the negotiated word.
    Set,
    /// Clear at first, set while the guest runs.
    Later,
}

/// A control bit that a feature needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Control {
    pub(super) word: Word,
    pub(super) bit: u32,
    pub(super) name: &'static str,
    pub(super) feature: Features,
    pub(super) used: Use,
}

const fn set(word: Word, bit: u32, name: &'static str, feature: Features) -> Control {
    Control {
        word,
        bit,
        name,
        feature,
        used: Use::Set,
    }
}

const fn later(word: Word, bit: u32, name: &'static str, feature: Features) -> Control {
    Control {
        word,
        bit,
        name,
        feature,
        used: Use::Later,
    }
}

/// Features without which there is no way on.
pub(super) const REQUIRED: Features = Features::SECONDARY_CONTROLS
    .union(Features::EXTERNAL_INTERRUPT_EXITING)
    .union(Features::NMI_EXITING)
    .union(Features::INTERRUPT_WINDOW)
    .union(Features::TSC_OFFSET)
    .union(Features::HLT_EXITING)
    .union(Features::MWAIT_EXITING)
    .union(Features::RDPMC_EXITING)
    // Without it the guest's MOV CR8 would reach the physical TPR.
    .union(Features::CR8_EXITING)
    .union(Features::IO_EXITING)
    // Without it every access to the MSRs a guest uses at each context switch would exit.
    .union(Features::MSR_BITMAP)
    .union(Features::EPT)
    .union(Features::UNRESTRICTED)
    .union(Features::HOST_64BIT)
    .union(Features::EFER)
    .union(Features::DEBUG_CONTROLS)
    .union(Features::IA32E_MODE_GUEST)
    .union(Features::STORE_LMA)
    .union(Features::EPT_4LEVEL)
    .union(Features::EPT_WB)
    .union(Features::INVEPT)
    // It tells the address size of INS and OUTS; every CPU with unrestricted guest has it.
    .union(Features::STRING_IO_INFO);

/// Every control bit that is used; the first rows are the ones to name first when missing.
pub(super) const CONTROLS: &[Control] = {
    use Word::{Entry, Exit, Pin, Primary, Secondary};
    type F = Features;
    &[
        set(
            Primary,
            bits::ACTIVATE_SECONDARY_CONTROLS,
            "secondary controls",
            F::SECONDARY_CONTROLS,
        ),
        set(Secondary, bits::ENABLE_EPT, "extended page tables", F::EPT),
        set(
            Secondary,
            bits::UNRESTRICTED_GUEST,
            "unrestricted guest",
            F::UNRESTRICTED,
        ),
        set(
            Pin,
            bits::EXTERNAL_INTERRUPT_EXITING,
            "external-interrupt exiting",
            F::EXTERNAL_INTERRUPT_EXITING,
        ),
        set(Pin, bits::NMI_EXITING, "NMI exiting", F::NMI_EXITING),
        set(Pin, bits::VIRTUAL_NMIS, "virtual NMIs", F::VIRTUAL_NMI),
        later(
            Primary,
            bits::NMI_WINDOW_EXITING,
            "NMI-window exiting",
            F::VIRTUAL_NMI,
        ),
        set(
            Pin,
            bits::ACTIVATE_PREEMPTION_TIMER,
            "VMX-preemption timer",
            F::PREEMPTION_TIMER,
        ),
        later(
            Primary,
            bits::INTERRUPT_WINDOW_EXITING,
            "interrupt-window exiting",
            F::INTERRUPT_WINDOW,
        ),
        set(
            Primary,
            bits::USE_TSC_OFFSETTING,
            "TSC offsetting",
            F::TSC_OFFSET,
        ),
        set(Primary, bits::HLT_EXITING, "HLT exiting", F::HLT_EXITING),
        set(
            Primary,
            bits::MWAIT_EXITING,
            "MWAIT exiting",
            F::MWAIT_EXITING,
        ),
        set(
            Primary,
            bits::MONITOR_EXITING,
            "MONITOR exiting",
            F::MWAIT_EXITING,
        ),
        set(
            Primary,
            bits::RDPMC_EXITING,
            "RDPMC exiting",
            F::RDPMC_EXITING,
        ),
        set(
            Primary,
            bits::CR8_LOAD_EXITING,
            "CR8-load exiting",
            F::CR8_EXITING,
        ),
        set(
            Primary,
            bits::CR8_STORE_EXITING,
            "CR8-store exiting",
            F::CR8_EXITING,
        ),
        set(
            Primary,
            bits::UNCONDITIONAL_IO_EXITING,
            "unconditional I/O exiting",
            F::IO_EXITING,
        ),
        set(Primary, bits::USE_MSR_BITMAPS, "MSR bitmaps", F::MSR_BITMAP),
        set(Secondary, bits::ENABLE_RDTSCP, "RDTSCP", F::RDTSCP),
        set(Secondary, bits::ENABLE_VPID, "VPID", F::VPID),
        set(Secondary, bits::WBINVD_EXITING, "WBINVD exiting", F::WBINVD),
        set(
            Secondary,
            bits::PAUSE_LOOP_EXITING,
            "PAUSE-loop exiting",
            F::PAUSE_LOOP,
        ),
        set(Secondary, bits::ENABLE_INVPCID, "INVPCID", F::INVPCID),
        set(
            Secondary,
            bits::ENABLE_ENCLS_EXITING,
            "ENCLS exiting",
            F::ENCLS_EXITING,
        ),
        set(Secondary, bits::ENABLE_XSAVES, "XSAVES/XRSTORS", F::XSAVES),
        set(
            Exit,
            bits::EXIT_SAVE_DEBUG_CONTROLS,
            "save debug controls",
            F::DEBUG_CONTROLS,
        ),
        set(
            Exit,
            bits::HOST_ADDRESS_SPACE_SIZE,
            "host address-space size",
            F::HOST_64BIT,
        ),
        set(
            Exit,
            bits::ACKNOWLEDGE_INTERRUPT_ON_EXIT,
            "acknowledge interrupt on exit",
            F::ACK_INTR_ON_EXIT,
        ),
        set(
            Exit,
            bits::EXIT_SAVE_EFER,
            "save IA32_EFER on exit",
            F::EFER,
        ),
        set(
            Exit,
            bits::EXIT_LOAD_EFER,
            "load IA32_EFER on exit",
            F::EFER,
        ),
        set(Exit, bits::EXIT_SAVE_PAT, "save IA32_PAT on exit", F::PAT),
        set(Exit, bits::EXIT_LOAD_PAT, "load IA32_PAT on exit", F::PAT),
        set(
            Entry,
            bits::ENTRY_LOAD_DEBUG_CONTROLS,
            "load debug controls",
            F::DEBUG_CONTROLS,
        ),
        later(
            Entry,
            bits::IA32E_MODE_GUEST,
            "IA-32e mode guest",
            F::IA32E_MODE_GUEST,
        ),
        set(
            Entry,
            bits::ENTRY_LOAD_EFER,
            "load IA32_EFER on entry",
            F::EFER,
        ),
        set(
            Entry,
            bits::ENTRY_LOAD_PAT,
            "load IA32_PAT on entry",
            F::PAT,
        ),
    ]
};

/// The MSR a capability bit is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    EptVpid,
    Misc,
    Basic,
}

impl Source {
    pub(super) const fn read(self, msrs: &CapMsrs) -> (u64, &'static str) {
        match self {
            Self::EptVpid => (msrs.ept_vpid, "IA32_VMX_EPT_VPID_CAP"),
            Self::Misc => (msrs.misc, "IA32_VMX_MISC"),
            Self::Basic => (msrs.basic, "IA32_VMX_BASIC"),
        }
    }
}

/// A capability bit that a feature needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Capability {
    pub(super) source: Source,
    pub(super) bit: u8,
    pub(super) name: &'static str,
    pub(super) feature: Features,
}

const fn cap(source: Source, bit: u8, name: &'static str, feature: Features) -> Capability {
    Capability {
        source,
        bit,
        name,
        feature,
    }
}

/// SDM 3D, "VPID and EPT Capabilities", "Miscellaneous Data" and "Basic VMX Information".
pub(super) const CAPABILITIES: &[Capability] = {
    use Source::{Basic, EptVpid, Misc};
    type F = Features;
    &[
        cap(EptVpid, 6, "four-level EPT", F::EPT_4LEVEL),
        cap(EptVpid, 14, "write-back EPT tables", F::EPT_WB),
        cap(EptVpid, 20, "INVEPT", F::INVEPT),
        cap(EptVpid, 26, "all-context INVEPT", F::INVEPT),
        cap(EptVpid, 25, "single-context INVEPT", F::INVEPT_SINGLE),
        cap(EptVpid, 0, "execute-only EPT pages", F::EPT_EXEC_ONLY),
        cap(EptVpid, 16, "2 MiB EPT pages", F::EPT_2M),
        cap(EptVpid, 17, "1 GiB EPT pages", F::EPT_1G),
        cap(EptVpid, 21, "EPT accessed and dirty flags", F::EPT_AD),
        cap(
            EptVpid,
            22,
            "advanced EPT-violation information",
            F::EPT_ADVANCED_EXIT_INFO,
        ),
        cap(EptVpid, 32, "INVVPID", F::VPID),
        cap(
            EptVpid,
            40,
            "individual-address INVVPID",
            F::INVVPID_ADDRESS,
        ),
        cap(EptVpid, 41, "single-context INVVPID", F::INVVPID_SINGLE),
        cap(EptVpid, 42, "all-context INVVPID", F::INVVPID_ALL),
        cap(
            EptVpid,
            43,
            "single-context-retaining-globals INVVPID",
            F::INVVPID_SINGLE_RETAINING_GLOBALS,
        ),
        cap(Misc, 5, "EFER.LMA saved by VM exits", F::STORE_LMA),
        cap(Misc, 6, "activity state HLT", F::ACTIVITY_HLT),
        cap(Misc, 7, "activity state shutdown", F::ACTIVITY_SHUTDOWN),
        cap(Misc, 8, "activity state wait-for-SIPI", F::ACTIVITY_SIPI),
        cap(
            Basic,
            54,
            "string-I/O instruction information",
            F::STRING_IO_INFO,
        ),
    ]
};

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
