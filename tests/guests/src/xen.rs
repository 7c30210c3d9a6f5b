//! Raw hypercalls, for the calls and the mistakes the typed ones of `pv_drivers` do not allow.
//!
//! Safe to call for the reason given in [`crate::cpu`]: the guest only risks itself.
#![expect(unsafe_code, reason = "hypercalls with any argument")]

use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use abi::cpuid;
use abi::hypercall::{CONSOLE_IO, MEMORY_OP};
use abi::memory::{
    ADD_TO_PHYSMAP, AddToPhysmap, DECREASE_RESERVATION, POPULATE_PHYSMAP, Reservation,
    SPACE_SHARED_INFO,
};
use abi::shared_info::{self, vcpu_info};
use abi::{DomId, Gfn};
use pv_drivers::guest::clock;
use pv_drivers::hypercall::{HypercallPage, Reply, vmcall};
use pv_drivers::shared_page::SharedPage;
use zerocopy::FromZeros;

use crate::memory::{self, Page};
use crate::{cpu, smp};

/// Whether a hypervisor with Xen's interface is there.
#[must_use]
pub fn present() -> bool {
    let [_, b, c, d] = cpu::cpuid(cpuid::BASE, 0);
    b == cpuid::SIGNATURE_EBX && c == cpuid::SIGNATURE_ECX && d == cpuid::SIGNATURE_EDX
}

/// This domain's id, as CPUID tells it.
#[must_use]
pub fn domid() -> DomId {
    let [_, _, c, _] = cpu::cpuid(cpuid::BASE + cpuid::LEAF_HVM, 0);
    DomId(u16::try_from(c).unwrap_or(DomId::INVALID.0))
}

/// Makes any hypercall with any words.
///
/// # Errors
/// The negative result of a refused call.
pub fn call(nr: u64, args: [u64; 5]) -> Reply {
    // SAFETY: see the head of this file.
    unsafe { vmcall(nr, args) }
}

/// Makes the hypercall `nr` with a command and any struct.
///
/// # Errors
/// The negative result of a refused call.
pub fn command<T>(nr: u64, cmd: u64, argument: &mut T) -> Reply {
    call(nr, [cmd, (&raw mut *argument) as u64, 0, 0, 0])
}

/// Writes to the hypervisor's own console.
pub(crate) fn console_io(bytes: &[u8]) {
    // A hypervisor that has no such console for this domain drops the text.
    let _ = call(
        CONSOLE_IO,
        [0, bytes.len() as u64, bytes.as_ptr() as u64, 0, 0],
    );
}

/// Puts the page `idx` of `space` at `gfn`.
///
/// # Errors
/// The negative result of a refused call.
pub fn add_to_physmap(space: u32, idx: u64, gfn: u64) -> Reply {
    let mut argument = AddToPhysmap::new_zeroed();
    argument.domid = DomId::SELF.0;
    argument.space = space;
    argument.idx = idx;
    argument.gpfn = gfn;
    command(MEMORY_OP, ADD_TO_PHYSMAP, &mut argument)
}

fn reservation(cmd: u64, frames: &[u64], order: u32) -> Reply {
    let mut argument = Reservation::new_zeroed();
    argument.extent_start = frames.as_ptr() as u64;
    argument.nr_extents = frames.len() as u64;
    argument.extent_order = order;
    argument.domid = DomId::SELF.0;
    command(MEMORY_OP, cmd, &mut argument)
}

/// Gives frames back to the hypervisor; the result counts those given.
///
/// # Errors
/// The negative result of a refused call.
pub fn decrease_reservation(frames: &[u64]) -> Reply {
    decrease_by_extents(frames, 0)
}

/// Gives extents of `2^order` frames back; the result counts those given.
///
/// # Errors
/// The negative result of a refused call.
pub fn decrease_by_extents(first: &[u64], order: u32) -> Reply {
    reservation(DECREASE_RESERVATION, first, order)
}

/// Asks for memory at frames; the result counts those filled.
///
/// # Errors
/// The negative result of a refused call.
pub fn populate_physmap(frames: &[u64]) -> Reply {
    populate_extents(frames, 0)
}

/// Asks for extents of `2^order` frames; the result counts those filled.
///
/// # Errors
/// The negative result of a refused call.
pub fn populate_extents(first: &[u64], order: u32) -> Reply {
    reservation(POPULATE_PHYSMAP, first, order)
}

/// Has the hypervisor fill `page` with call stubs.
///
/// # Errors
/// The fault the MSR write raised.
pub fn hypercall_page(page: &'static Page) -> Result<HypercallPage, cpu::Fault> {
    cpu::wrmsr(cpuid::HYPERCALL_MSR, page.address())?;
    let base = NonNull::new(page.address() as *mut u8).unwrap_or(NonNull::dangling());
    // SAFETY: the page was filled by the write just now and belongs to nothing else.
    Ok(unsafe { HypercallPage::new(base) })
}

/// Makes a hypercall through a page.
///
/// # Errors
/// The negative result of a refused call.
pub fn call_through(page: HypercallPage, nr: usize, args: [u64; 5]) -> Reply {
    // SAFETY: see the head of this file.
    unsafe { page.call(nr, args) }
}

/// The page shared with the hypervisor.
#[derive(Clone, Copy, Debug)]
pub struct SharedInfo {
    page: SharedPage,
}

static SHARED_INFO: Page = Page::new();

impl SharedInfo {
    /// Has the page appear in place of one of the runtime's own.
    ///
    /// # Panics
    /// When the hypervisor refuses: nothing works without it.
    #[must_use]
    pub fn map() -> Self {
        match Self::map_at(SHARED_INFO.gfn()) {
            Ok(shared) => shared,
            Err(refused) => panic!("shared info is refused: {refused:?}"),
        }
    }

    /// The page where [`SharedInfo::map`] put it.
    #[must_use]
    pub fn mapped() -> Self {
        Self {
            page: SHARED_INFO.view(),
        }
    }

    /// Has the page appear at `gfn`.
    ///
    /// # Errors
    /// The negative result of a refused call.
    pub fn map_at(gfn: Gfn) -> Result<Self, pv_drivers::hypercall::Refused> {
        add_to_physmap(SPACE_SHARED_INFO, 0, gfn.raw())?;
        Ok(Self {
            page: memory::view(gfn),
        })
    }

    /// The page itself.
    #[must_use]
    pub fn page(self) -> SharedPage {
        self.page
    }

    /// System time in nanoseconds, by this vCPU's clock record.
    #[must_use]
    pub fn now(self) -> u64 {
        let record = clock::snapshot(self.page, self.vcpu_info());
        clock::system_time(&record, cpu::rdtsc())
    }

    /// Offset of this vCPU's part of the page.
    #[must_use]
    pub fn vcpu_info(self) -> usize {
        shared_info::VCPU_INFO + cpu::index().min(smp::MAX_VCPUS - 1) * vcpu_info::SIZE
    }

    /// Seconds and nanoseconds since 1970 at system time 0.
    #[must_use]
    pub fn wall_clock(self) -> (u64, u32) {
        let word = |offset| self.page.u32(offset).load(Ordering::Acquire);
        loop {
            let before = word(shared_info::WC_VERSION);
            let low = word(shared_info::WC_SEC);
            let high = word(shared_info::WC_SEC_HI);
            let ns = word(shared_info::WC_NSEC);
            if before & 1 == 0 && before == word(shared_info::WC_VERSION) {
                return ((u64::from(high) << 32) | u64::from(low), ns);
            }
        }
    }

    /// Spins until system time reaches `deadline`.
    pub fn spin_until(self, deadline: u64) {
        while self.now() < deadline {
            core::hint::spin_loop();
        }
    }
}
