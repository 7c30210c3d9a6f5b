//! The current VMCS: the only handle that reads, writes and enters.
#![expect(unsafe_code, reason = "VMREAD, VMWRITE and the VM entry")]

use core::fmt;

use invariant::invariant;

use super::count::Counters;
use super::field::{self, Access, Ctl, Field, Rw, Value};
use super::region::Vmcs;
use super::segment::{Segment, SegmentName};
use crate::caps::{Features, bits};
use crate::enable::VmxOn;
use crate::event::Event;
use crate::exit::{self, Decoded, ExitReason, RawExit, decode};
use crate::instr::{self, InstructionError, VmFail};
use crate::regs::GuestRegs;
use crate::{entry, invvpid};

/// The VMCS that is current on this CPU.
#[derive(Debug)]
pub struct CurrentVmcs<'a> {
    /// Invariant: VMPTRLD was done, and nothing else becomes current while this value lives
    /// (`VmxOn::in_use`).
    pub(super) vmcs: &'a mut Vmcs,
    pub(super) cpu: &'a VmxOn,
}

impl Drop for CurrentVmcs<'_> {
    #[inline]
    fn drop(&mut self) {
        self.cpu.in_use.set(false);
    }
}

/// The VM entry did not happen: the host or control state is wrong, which is our bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryFailure(pub VmFail);

impl fmt::Display for EntryFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VM entry refused: {}", self.0)
    }
}

impl<'a> CurrentVmcs<'a> {
    #[inline]
    pub(super) fn new(vmcs: &'a mut Vmcs, cpu: &'a VmxOn) -> Self {
        Self { vmcs, cpu }
    }

    /// Reads a field.
    #[inline(always)]
    #[must_use]
    pub fn read<T: Value, A: Access>(&self, field: Field<T, A>) -> T {
        T::from_register(self.read_extended(field))
    }

    /// Reads a field, extended with zeros to 64 bits, as VMREAD does.
    #[inline(always)]
    #[must_use]
    pub fn read_extended<T: Value, A: Access>(&self, field: Field<T, A>) -> u64 {
        if cfg!(feature = "count") {
            let mut counters = self.vmcs.counters.get();
            counters.count_read(field.encoding(), field.is_shadowed());
            self.vmcs.counters.set(counters);
        }
        if cfg!(debug_assertions) || !field.is_proven() {
            // SAFETY: the invariant on `self.vmcs`.
            unsafe { instr::vmread(field.encoding()) }
        } else {
            // SAFETY: as above, and the field is there.
            unsafe { instr::vmread_proven(field.encoding()) }
        }
    }

    /// Writes a field that concerns the guest alone.
    #[inline(always)]
    pub fn write<T: Value>(&mut self, field: Field<T, Rw>, value: T) {
        // SAFETY: an `Rw` field has no effect on the host.
        unsafe { self.write_any(field, value) };
    }

    /// Writes any field.
    ///
    /// # Safety
    /// The value keeps the host and its isolation intact.
    #[inline(always)]
    pub(super) unsafe fn write_any<T: Value, A: Access>(&mut self, field: Field<T, A>, value: T) {
        if cfg!(feature = "count") {
            let counters = self.vmcs.counters.get_mut();
            counters.count_write(field.encoding(), field.is_write_shadowed());
        }
        if cfg!(debug_assertions) || !field.is_proven() {
            // SAFETY: the invariant on `self.vmcs`; the caller answers for the value.
            unsafe { instr::vmwrite(field.encoding(), value.to_register()) };
        } else {
            // SAFETY: as above, and the field is there.
            unsafe { instr::vmwrite_proven(field.encoding(), value.to_register()) };
        }
    }

    /// Sets a field of what a VM exit leaves, for a host, which has none.
    #[cfg(any(test, feature = "model"))]
    pub fn set_exit_field<T: Value>(&mut self, field: Field<T, field::Ro>, value: T) {
        // SAFETY: no VM entry comes of this VMCS.
        unsafe { self.write_any(field, value) };
    }

    /// Enters the guest and returns at the next VM exit, with no more read than the exit reason.
    ///
    /// `regs` must stay at one address for the fastest entry: `HOST_RSP` is rewritten when it
    /// moves.
    ///
    /// # Errors
    /// When the VM entry is refused. (An entry that fails on *guest* state returns an exit:
    /// [`crate::Exit::EntryFailure`].)
    ///
    /// # Panics
    /// When the VMCS holds no host state of this CPU.
    #[inline(always)]
    pub fn run(&mut self, regs: &mut GuestRegs) -> Result<ExitReason, EntryFailure> {
        if self.vmcs.resumable != (&raw mut *regs).addr() {
            return self.run_anew(regs);
        }
        // SAFETY: the VMCS is current and, by the invariant on `resumable`, launched with the
        // HOST_RSP of `regs` and host state of this CPU.
        let refused = unsafe { entry::resume(regs) };
        if refused {
            return Err(entry_failure());
        }
        Ok(ExitReason(self.read(field::EXIT_REASON)))
    }

    /// The first entry since the VMCS was loaded here or `regs` moved.
    #[cold]
    #[inline(never)]
    fn run_anew(&mut self, regs: &mut GuestRegs) -> Result<ExitReason, EntryFailure> {
        invariant!(
            self.vmcs.host_of == self.cpu.id,
            "init_controls or set_host_state comes first on every CPU"
        );
        let host_rsp = entry::host_rsp(regs);
        self.vmcs.resumable = 0;
        // SAFETY: where the landing place stores the guest's registers; the entry below is with
        // the registers this is the end of.
        unsafe { self.write_any(field::HOST_RSP, host_rsp) };
        let refused = if self.vmcs.launched {
            // SAFETY: the VMCS is current and launched; HOST_RSP was just written, and the host
            // state is this CPU's by the check above.
            unsafe { entry::resume(regs) }
        } else {
            // SAFETY: as above, and the VMCS has been clear since the last VMCLEAR.
            unsafe { entry::launch(regs) }
        };
        if refused {
            return Err(entry_failure());
        }
        let reason = self.read(field::EXIT_REASON);
        // A VM entry that fails on guest state launches nothing.
        if reason & exit::reason::ENTRY_FAILURE == 0 {
            self.vmcs.launched = true;
        }
        if self.vmcs.launched {
            self.vmcs.resumable = (&raw mut *regs).addr();
        }
        Ok(ExitReason(reason))
    }

    /// Reads and decodes the details of the exit that [`Self::run`] returned with.
    #[inline(never)]
    #[must_use]
    pub fn details(&self, reason: ExitReason) -> Decoded {
        decode(&RawExit::read(self, reason.0))
    }

    /// Sets the event the next VM entry injects.
    #[inline]
    pub fn inject(&mut self, event: Event) {
        if let Some(error) = event.error {
            self.write(field::VM_ENTRY_EXCEPTION_ERROR_CODE, error);
        }
        if event.kind.is_software() {
            self.write(field::VM_ENTRY_INSTRUCTION_LENGTH, u32::from(event.length));
        }
        self.write(
            field::VM_ENTRY_INTERRUPTION_INFORMATION,
            event.to_entry_info(),
        );
    }

    /// Takes back an injection that has not been entered with.
    pub fn cancel_injection(&mut self) {
        self.write(field::VM_ENTRY_INTERRUPTION_INFORMATION, 0);
    }

    /// Asks for (or no longer for) an exit as soon as the guest can take an interrupt.
    #[inline]
    pub fn set_interrupt_window(&mut self, wanted: bool) {
        self.set_primary(bits::INTERRUPT_WINDOW_EXITING, wanted);
    }

    /// Asks for (or no longer for) an exit as soon as the guest can take an NMI. Needs
    /// [`Features::VIRTUAL_NMI`].
    pub fn set_nmi_window(&mut self, wanted: bool) {
        let possible = wanted && self.cpu.features.contains(Features::VIRTUAL_NMI);
        self.set_primary(bits::NMI_WINDOW_EXITING, possible);
    }

    /// True while an interrupt-window exit is asked for.
    #[inline]
    #[must_use]
    pub fn interrupt_window(&self) -> bool {
        self.vmcs.primary & bits::INTERRUPT_WINDOW_EXITING != 0
    }

    #[inline]
    fn set_primary(&mut self, bit: u32, wanted: bool) {
        let old = self.vmcs.primary;
        let new = if wanted { old | bit } else { old & !bit };
        if new != old {
            self.vmcs.primary = new;
            // SAFETY: the window bits only cause further exits.
            unsafe {
                self.write_any::<u32, Ctl>(field::PRIMARY_PROCESSOR_BASED_CONTROLS, new);
            }
        }
    }

    /// Sets whether the guest is in IA-32e mode: for a vCPU reset, or a state that is loaded.
    /// While it runs the CPU itself keeps the control up to date.
    pub fn set_long_mode(&mut self, on: bool) {
        let old = self.read(field::VM_ENTRY_CONTROLS);
        let bit = bits::IA32E_MODE_GUEST;
        let new = if on { old | bit } else { old & !bit };
        if new != old {
            // SAFETY: tells the guest's mode; an inconsistent one fails the VM entry.
            unsafe { self.write_any(field::VM_ENTRY_CONTROLS, new) };
        }
    }

    /// True when the guest is in IA-32e mode.
    #[must_use]
    pub fn long_mode(&self) -> bool {
        self.read(field::VM_ENTRY_CONTROLS) & bits::IA32E_MODE_GUEST != 0
    }

    /// Reads a guest segment register.
    #[must_use]
    pub fn segment(&self, name: SegmentName) -> Segment {
        let fields = name.fields();
        Segment {
            selector: self.read(fields.selector),
            base: self.read(fields.base),
            limit: self.read(fields.limit),
            access_rights: self.read(fields.access_rights),
        }
    }

    /// Writes a guest segment register.
    pub fn set_segment(&mut self, name: SegmentName, segment: Segment) {
        let fields = name.fields();
        self.write(fields.selector, segment.selector);
        self.write(fields.base, segment.base);
        self.write(fields.limit, segment.limit);
        self.write(fields.access_rights, segment.access_rights);
    }

    /// Moves RIP past the instruction that caused the exit.
    ///
    /// Blocking by STI or MOV SS is left alone: whoever injects an event looks at it.
    #[inline]
    pub fn skip_instruction(&mut self) {
        let length = self.read(field::VM_EXIT_INSTRUCTION_LENGTH);
        let rip = self.read(field::GUEST_RIP).wrapping_add(u64::from(length));
        self.write(field::GUEST_RIP, rip);
    }

    /// Drops this vCPU's cached linear translations, when it has a VPID.
    pub fn flush_vpid(&self) {
        if self.cpu.features.contains(Features::VPID) {
            let kind = self
                .cpu
                .features
                .invvpid(self.read(field::VIRTUAL_PROCESSOR_IDENTIFIER));
            let flushed = invvpid(kind);
            debug_assert!(flushed.is_ok(), "negotiated");
        }
    }

    /// Accesses counted so far (all zero without the cargo feature `count`).
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.vmcs.counters.get()
    }
}

/// Why the entry that was just refused was. Without a current VMCS there is no error to read.
#[cold]
fn entry_failure() -> EntryFailure {
    let error = instr::last_error();
    EntryFailure(if error.0 == 0 {
        VmFail::Invalid
    } else {
        VmFail::Valid(error)
    })
}

impl EntryFailure {
    /// The VM-instruction error, when there is one.
    #[must_use]
    pub const fn error(&self) -> Option<InstructionError> {
        match self.0 {
            VmFail::Invalid => None,
            VmFail::Valid(error) => Some(error),
        }
    }
}
