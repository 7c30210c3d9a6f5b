//! Control bits by name: SDM 3C, "VM-Execution Control Fields", "VM-Exit Control Fields" and
//! "VM-Entry Control Fields".

/// Pin-based: external-interrupt exiting.
pub const EXTERNAL_INTERRUPT_EXITING: u32 = 1 << 0;
/// Pin-based: NMI exiting.
pub const NMI_EXITING: u32 = 1 << 3;
/// Pin-based: virtual NMIs.
pub const VIRTUAL_NMIS: u32 = 1 << 5;
/// Pin-based: activate VMX-preemption timer.
pub const ACTIVATE_PREEMPTION_TIMER: u32 = 1 << 6;

/// Primary: interrupt-window exiting.
pub const INTERRUPT_WINDOW_EXITING: u32 = 1 << 2;
/// Primary: use TSC offsetting.
pub const USE_TSC_OFFSETTING: u32 = 1 << 3;
/// Primary: HLT exiting.
pub const HLT_EXITING: u32 = 1 << 7;
/// Primary: MWAIT exiting.
pub const MWAIT_EXITING: u32 = 1 << 10;
/// Primary: RDPMC exiting.
pub const RDPMC_EXITING: u32 = 1 << 11;
/// Primary: CR3-load exiting.
pub const CR3_LOAD_EXITING: u32 = 1 << 15;
/// Primary: CR3-store exiting.
pub const CR3_STORE_EXITING: u32 = 1 << 16;
/// Primary: CR8-load exiting.
pub const CR8_LOAD_EXITING: u32 = 1 << 19;
/// Primary: CR8-store exiting.
pub const CR8_STORE_EXITING: u32 = 1 << 20;
/// Primary: NMI-window exiting.
pub const NMI_WINDOW_EXITING: u32 = 1 << 22;
/// Primary: unconditional I/O exiting.
pub const UNCONDITIONAL_IO_EXITING: u32 = 1 << 24;
/// Primary: use MSR bitmaps.
pub const USE_MSR_BITMAPS: u32 = 1 << 28;
/// Primary: MONITOR exiting.
pub const MONITOR_EXITING: u32 = 1 << 29;
/// Primary: activate secondary controls.
pub const ACTIVATE_SECONDARY_CONTROLS: u32 = 1 << 31;

/// Secondary: enable EPT.
pub const ENABLE_EPT: u32 = 1 << 1;
/// Secondary: enable RDTSCP.
pub const ENABLE_RDTSCP: u32 = 1 << 3;
/// Secondary: enable VPID.
pub const ENABLE_VPID: u32 = 1 << 5;
/// Secondary: WBINVD exiting.
pub const WBINVD_EXITING: u32 = 1 << 6;
/// Secondary: unrestricted guest.
pub const UNRESTRICTED_GUEST: u32 = 1 << 7;
/// Secondary: PAUSE-loop exiting.
pub const PAUSE_LOOP_EXITING: u32 = 1 << 10;
/// Secondary: enable INVPCID.
pub const ENABLE_INVPCID: u32 = 1 << 12;
/// Secondary: enable VM functions.
pub const ENABLE_VM_FUNCTIONS: u32 = 1 << 13;
/// Secondary: enable ENCLS exiting.
pub const ENABLE_ENCLS_EXITING: u32 = 1 << 15;
/// Secondary: enable XSAVES/XRSTORS.
pub const ENABLE_XSAVES: u32 = 1 << 20;

/// VM-exit: save debug controls.
pub const EXIT_SAVE_DEBUG_CONTROLS: u32 = 1 << 2;
/// VM-exit: host address-space size.
pub const HOST_ADDRESS_SPACE_SIZE: u32 = 1 << 9;
/// VM-exit: acknowledge interrupt on exit.
pub const ACKNOWLEDGE_INTERRUPT_ON_EXIT: u32 = 1 << 15;
/// VM-exit: save `IA32_PAT`.
pub const EXIT_SAVE_PAT: u32 = 1 << 18;
/// VM-exit: load `IA32_PAT`.
pub const EXIT_LOAD_PAT: u32 = 1 << 19;
/// VM-exit: save `IA32_EFER`.
pub const EXIT_SAVE_EFER: u32 = 1 << 20;
/// VM-exit: load `IA32_EFER`.
pub const EXIT_LOAD_EFER: u32 = 1 << 21;

/// VM-entry: load debug controls.
pub const ENTRY_LOAD_DEBUG_CONTROLS: u32 = 1 << 2;
/// VM-entry: IA-32e mode guest.
pub const IA32E_MODE_GUEST: u32 = 1 << 9;
/// VM-entry: load `IA32_PAT`.
pub const ENTRY_LOAD_PAT: u32 = 1 << 14;
/// VM-entry: load `IA32_EFER`.
pub const ENTRY_LOAD_EFER: u32 = 1 << 15;
