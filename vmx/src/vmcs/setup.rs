//! Setting up the current VMCS: controls, EPT root, host state.
#![expect(
    unsafe_code,
    reason = "writes the fields the host and its isolation depend on"
)]

use abi::Hpa;

use super::current::CurrentVmcs;
use super::eptp::Eptp;
use super::field;
use super::host::HostState;
use crate::caps::{Controls, Features};
use crate::{entry, instr};

/// What a VMCS is set up with.
#[derive(Clone, Copy, Debug)]
pub struct VmcsSetup {
    /// Frame of the top-level EPT table.
    pub ept_root: Hpa,
    /// Virtual-processor identifier, not 0 and not shared with another vCPU; ignored without
    /// [`Features::VPID`].
    pub vpid: u16,
    /// Frame of the MSR bitmap.
    pub msr_bitmap: Hpa,
    /// State that VM exits load on the CPU the VMCS is current on.
    pub host: HostState,
}

/// TSC ticks between two PAUSEs that still count as one loop, and those a loop may take before
/// it exits: long enough for a lock holder that runs, short against a time slice.
const PLE_GAP: u32 = 128;
const PLE_WINDOW: u32 = 4096;

impl CurrentVmcs<'_> {
    /// Writes all control and host-state fields, and the guest fields that have one sensible
    /// start: no event pending, active, no link pointer.
    ///
    /// The rest of the guest state is the caller's to write: segments, descriptor tables, control
    /// registers with their masks and shadows, RIP, RSP, RFLAGS, DR7, EFER, PAT.
    ///
    /// # Safety
    /// 1. Every leaf of the EPT tables under `ept_root`, now and later, maps a frame that may
    ///    belong to this guest; the tables outlive the VMCS or the next `set_ept_root`.
    /// 2. `msr_bitmap` is an [`crate::MsrBitmap`] that lets through no MSR the host depends on,
    ///    and outlives the VMCS.
    /// 3. `host` is this CPU's own ([`HostState::capture`]).
    /// 4. `controls` were negotiated on this machine.
    pub unsafe fn init_controls(&mut self, controls: &Controls, setup: &VmcsSetup) {
        // SAFETY: 1 and 4.
        unsafe { self.write_controls(controls, setup) };
        // SAFETY: 1.
        unsafe { self.set_ept_root(setup.ept_root, controls) };
        // SAFETY: 3.
        unsafe { self.set_host_state(&setup.host) };
        self.prove_fields(controls);
        self.init_optional(controls);
        self.write(field::EXCEPTION_BITMAP, 0);
        self.write(field::PAGE_FAULT_ERROR_CODE_MASK, 0);
        self.write(field::PAGE_FAULT_ERROR_CODE_MATCH, 0);
        self.write(field::CR3_TARGET_COUNT, 0);
        self.write(field::TSC_OFFSET, 0);
        self.write(field::CR0_GUEST_HOST_MASK, 0);
        self.write(field::CR4_GUEST_HOST_MASK, 0);
        self.write(field::CR0_READ_SHADOW, 0);
        self.write(field::CR4_READ_SHADOW, 0);
        self.write(field::VM_ENTRY_INTERRUPTION_INFORMATION, 0);
        self.write(field::VM_ENTRY_EXCEPTION_ERROR_CODE, 0);
        self.write(field::VM_ENTRY_INSTRUCTION_LENGTH, 0);
        self.write(field::GUEST_INTERRUPTIBILITY_STATE, 0);
        self.write(field::GUEST_ACTIVITY_STATE, 0);
        self.write(field::GUEST_PENDING_DEBUG_EXCEPTIONS, 0);
        self.write(field::GUEST_IA32_DEBUGCTL, 0);
    }

    /// # Safety
    /// As for [`Self::init_controls`].
    unsafe fn write_controls(&mut self, controls: &Controls, setup: &VmcsSetup) {
        self.vmcs.primary = controls.primary;
        let words = [
            (field::PIN_BASED_CONTROLS, controls.pin),
            (field::PRIMARY_PROCESSOR_BASED_CONTROLS, controls.primary),
            (
                field::SECONDARY_PROCESSOR_BASED_CONTROLS,
                controls.secondary,
            ),
            (field::PRIMARY_VM_EXIT_CONTROLS, controls.exit),
            (field::VM_ENTRY_CONTROLS, controls.entry),
            (field::VM_EXIT_MSR_STORE_COUNT, 0),
            (field::VM_EXIT_MSR_LOAD_COUNT, 0),
            (field::VM_ENTRY_MSR_LOAD_COUNT, 0),
        ];
        for (word, value) in words {
            // SAFETY: negotiated for this machine; empty MSR lists.
            unsafe { self.write_any(word, value) };
        }
        // SAFETY: the caller answers for the bitmap.
        unsafe { self.write_any(field::MSR_BITMAP_ADDRESS, setup.msr_bitmap.raw()) };
        // SAFETY: no shadow VMCS is used.
        unsafe { self.write_any(field::VMCS_LINK_POINTER, u64::MAX) };
        if controls.features.contains(Features::VPID) {
            assert!(setup.vpid != 0, "VPID 0 is the host's");
            // SAFETY: not the host's.
            unsafe { self.write_any(field::VIRTUAL_PROCESSOR_IDENTIFIER, setup.vpid) };
        }
    }

    /// Tries the fields that are accessed without a look at the outcome later.
    fn prove_fields(&mut self, controls: &Controls) {
        let timer = controls.features.contains(Features::PREEMPTION_TIMER);
        for field in field::PROVEN {
            if field.of_timer && !timer {
                continue;
            }
            // SAFETY: the VMCS is current by the invariant of `CurrentVmcs`.
            let value = unsafe { instr::vmread(field.encoding) };
            if field.writable {
                // SAFETY: as above; the field is written with what it holds, and concerns the
                // guest alone.
                unsafe { instr::vmwrite(field.encoding, value) };
            }
        }
    }

    fn init_optional(&mut self, controls: &Controls) {
        if controls.features.contains(Features::PAUSE_LOOP) {
            self.write(field::PLE_GAP, PLE_GAP);
            self.write(field::PLE_WINDOW, PLE_WINDOW);
        }
        if controls.features.contains(Features::XSAVES) {
            self.write(field::XSS_EXITING_BITMAP, 0);
        }
        if controls.features.contains(Features::ENCLS_EXITING) {
            self.write(field::ENCLS_EXITING_BITMAP, u64::MAX);
        }
        if controls.features.contains(Features::PREEMPTION_TIMER) {
            self.write(field::VMX_PREEMPTION_TIMER_VALUE, u32::MAX);
        }
    }

    /// Points the VMCS at other EPT tables. Translations cached for this vCPU's VPID stay tagged
    /// with the old root and are not used.
    ///
    /// # Safety
    /// Point 1 of [`Self::init_controls`], for `root`.
    pub unsafe fn set_ept_root(&mut self, root: Hpa, controls: &Controls) {
        // SAFETY: the caller's promise.
        unsafe { self.write_any(field::EPT_POINTER, Eptp::new(root, controls).raw()) };
    }

    /// Rewrites the host-state fields; needed when the VMCS moved to another CPU.
    ///
    /// # Safety
    /// `host` is this CPU's own ([`HostState::capture`]).
    pub unsafe fn set_host_state(&mut self, host: &HostState) {
        let selectors = [
            (field::HOST_CS_SELECTOR, host.cs),
            (field::HOST_SS_SELECTOR, host.ss),
            (field::HOST_TR_SELECTOR, host.tr),
            (field::HOST_DS_SELECTOR, 0),
            (field::HOST_ES_SELECTOR, 0),
            (field::HOST_FS_SELECTOR, 0),
            (field::HOST_GS_SELECTOR, 0),
        ];
        for (selector, value) in selectors {
            // SAFETY: the caller's promise.
            unsafe { self.write_any(selector, value) };
        }
        let words = [
            (field::HOST_CR0, host.cr0),
            (field::HOST_CR3, host.cr3),
            (field::HOST_CR4, host.cr4),
            (field::HOST_FS_BASE, host.fs_base),
            (field::HOST_GS_BASE, host.gs_base),
            (field::HOST_TR_BASE, host.tr_base),
            (field::HOST_GDTR_BASE, host.gdtr_base),
            (field::HOST_IDTR_BASE, host.idtr_base),
            // SYSENTER is never used in the host.
            (field::HOST_IA32_SYSENTER_ESP, 0),
            (field::HOST_IA32_SYSENTER_EIP, 0),
            (field::HOST_IA32_EFER, host.efer),
            (field::HOST_RIP, entry::exit_address()),
        ];
        for (word, value) in words {
            // SAFETY: the caller's promise; HOST_RIP is the entry code's own landing place.
            unsafe { self.write_any(word, value) };
        }
        // SAFETY: SYSENTER is never used in the host.
        unsafe { self.write_any(field::HOST_IA32_SYSENTER_CS, 0) };
        if self.cpu.features.contains(Features::PAT) {
            // SAFETY: the caller's promise.
            unsafe { self.write_any(field::HOST_IA32_PAT, host.pat) };
        }
        self.vmcs.host_of = self.cpu.id;
    }
}
