//! A VMCS region and what software has to remember about it.
#![expect(unsafe_code, reason = "the region's first words; VMCLEAR and VMPTRLD")]

use core::cell::Cell;
use core::ptr::NonNull;

use abi::Hpa;
use invariant::{broken, invariant};

use super::count::Counters;
use super::current::CurrentVmcs;
use crate::enable::VmxOn;
use crate::instr;

/// The CPU identity of "active nowhere".
pub(super) const NOWHERE: u32 = 0;

/// An owned VMCS region.
#[derive(Debug)]
pub struct Vmcs {
    /// Invariant: the frame belongs to this value for as long as it lives; only the CPU writes it
    /// after `new`.
    region: Hpa,
    /// VMLAUNCH succeeded since the last VMCLEAR.
    pub(super) launched: bool,
    /// [`VmxOn::id`] of the CPU this VMCS is active on.
    active_on: u32,
    /// Invariant: 0, or the address of the registers that `HOST_RSP` belongs to while VMRESUME is
    /// possible: the VMCS is launched and holds host state of the CPU it is active on.
    pub(super) resumable: usize,
    /// [`VmxOn::id`] of the CPU whose host state the VMCS holds.
    pub(super) host_of: u32,
    /// What the primary processor-based controls hold.
    pub(super) primary: u32,
    pub(super) counters: Cell<Counters>,
}

// SAFETY: `region` is an address, not a borrow, and a VMCS that is active on another CPU is
// refused by `load`.
unsafe impl Send for Vmcs {}

impl Vmcs {
    /// Prepares a region for use.
    ///
    /// # Safety
    /// `region` is a frame owned by nobody else for as long as the value lives, and `virt` its
    /// address. `revision` comes from this machine's [`crate::Controls`].
    #[must_use]
    pub unsafe fn new(virt: NonNull<u8>, region: Hpa, revision: u32) -> Self {
        // SAFETY: the caller's promise on `virt`.
        unsafe { write_revision(virt, revision) };
        Self {
            region,
            launched: false,
            active_on: NOWHERE,
            resumable: 0,
            host_of: NOWHERE,
            primary: 0,
            counters: Cell::default(),
        }
    }

    /// The region's address.
    #[must_use]
    pub const fn region(&self) -> Hpa {
        self.region
    }

    /// Makes this VMCS the current one of this CPU. Costs no instruction of VMX when it already
    /// is.
    ///
    /// # Panics
    /// When another [`CurrentVmcs`] of this CPU is still in use, or this VMCS is active on
    /// another CPU and was not [cleared](Self::clear) there.
    #[inline]
    pub fn load<'a>(&'a mut self, cpu: &'a VmxOn) -> CurrentVmcs<'a> {
        invariant!(!cpu.in_use.replace(true), "one current VMCS at a time");
        if cpu.current.get() != self.region {
            self.make_current(cpu);
        }
        CurrentVmcs::new(self, cpu)
    }

    #[cold]
    fn make_current(&mut self, cpu: &VmxOn) {
        if self.active_on == NOWHERE {
            self.vmclear();
        }
        invariant!(
            self.active_on == NOWHERE || self.active_on == cpu.id,
            "a VMCS is active on one CPU only"
        );
        // SAFETY: `cpu` proves VMX operation; the region is ours and active at most here.
        if let Err(error) = unsafe { instr::vmptrld(self.region) } {
            // A region that this crate prepared is always accepted.
            broken(format_args!("VMPTRLD of {}: {error}", self.region));
        }
        self.active_on = cpu.id;
        cpu.current.set(self.region);
    }

    /// True when the VMCS is active on another CPU than `cpu`: that CPU must clear it before this
    /// one can load it.
    #[must_use]
    pub fn is_elsewhere(&self, cpu: &VmxOn) -> bool {
        self.active_on != NOWHERE && self.active_on != cpu.id
    }

    /// Writes the VMCS back and makes it inactive, so that any CPU can load it (or the region be
    /// freed). The next entry is a VMLAUNCH.
    ///
    /// # Panics
    /// When it is active on another CPU.
    pub fn clear(&mut self, cpu: &VmxOn) {
        if self.active_on == NOWHERE {
            return;
        }
        invariant!(
            self.active_on == cpu.id,
            "a VMCS is cleared by the CPU it is active on"
        );
        invariant!(!cpu.in_use.get(), "no current VMCS in use");
        self.vmclear();
        self.active_on = NOWHERE;
        if cpu.current.get() == self.region {
            cpu.current.set(crate::enable::NO_VMCS);
        }
    }

    fn vmclear(&mut self) {
        // SAFETY: both callers hold a `VmxOn`; the region is ours and active at most on this CPU.
        if let Err(error) = unsafe { instr::vmclear(self.region) } {
            broken(format_args!("VMCLEAR of {}: {error}", self.region));
        }
        self.launched = false;
        self.resumable = 0;
    }

    /// Accesses counted so far (all zero without the cargo feature `count`).
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters.get()
    }
}

/// Writes the revision identifier into a VMCS or VMXON region: SDM 3C, "Format of the VMCS
/// Region".
///
/// # Safety
/// `virt` is the address of a frame of our own.
pub(crate) unsafe fn write_revision(virt: NonNull<u8>, revision: u32) {
    // Bit 31 (shadow-VMCS indicator) stays clear.
    // SAFETY: a frame is large enough and aligned.
    unsafe { virt.cast::<u32>().write_volatile(revision & 0x7fff_ffff) };
}
