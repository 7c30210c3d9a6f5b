//! Two-level event channels: unmasking, the upcall handler, and counts by port.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use abi::event_channel::virq;
use abi::shared_info::{EVTCHN_MASK, EVTCHN_PENDING, vcpu_info};
use abi::{EvtchnPort, VcpuId};
use pv_drivers::guest::{event_channel, hvm};

use crate::apic::Apic;
use crate::interrupts::{self, Frame};
use crate::report::Report;
use crate::smp::MAX_VCPUS;
use crate::xen::SharedInfo;
use crate::{check_eq, cpu};

/// The vector upcalls come at.
pub const UPCALL: u8 = 0xf3;

/// Ports whose events are counted.
const PORTS: usize = 64;

static COUNTS: [AtomicU64; PORTS] = [const { AtomicU64::new(0) }; PORTS];
/// When the last event of each port was handled, in TSC ticks.
static LAST: [AtomicU64; PORTS] = [const { AtomicU64::new(0) }; PORTS];
static BY_VCPU: [AtomicU64; MAX_VCPUS] = [const { AtomicU64::new(0) }; MAX_VCPUS];
static THROUGH_APIC: AtomicBool = AtomicBool::new(false);

/// Handles upcalls at [`UPCALL`], through the local APIC or past it. The shared page must be
/// mapped by [`SharedInfo::map`] before the first upcall.
pub fn handle(through_apic: bool) {
    THROUGH_APIC.store(through_apic, Ordering::Release);
    interrupts::on(UPCALL, upcall);
}

/// Has upcalls come by callback vector and handles them.
pub fn handle_callbacks(t: &mut Report) {
    handle(false);
    let set = hvm::set_callback_vector(UPCALL);
    check_eq!(t, set, Ok(0), "upcalls by callback vector");
}

/// The same, and binds the timer of vCPU 0; its port.
pub fn handle_timer(t: &mut Report) -> Option<EvtchnPort> {
    handle_callbacks(t);
    let port = event_channel::bind_virq(virq::TIMER, VcpuId(0));
    check_eq!(t, port.map(drop), Ok(()), "binding the timer");
    port.ok()
}

/// Sleeps, with interrupts off but for HLT, until `port` was handled more than `before` times.
pub fn sleep_past(port: EvtchnPort, before: u64) {
    cpu::disable_interrupts();
    while count(port) <= before {
        cpu::wait_for_interrupt();
    }
}

/// How often `port` was handled.
#[must_use]
pub fn count(port: EvtchnPort) -> u64 {
    COUNTS
        .get(port.0 as usize)
        .map_or(0, |count| count.load(Ordering::Acquire))
}

/// When `port` was last handled, in TSC ticks.
#[must_use]
pub fn last(port: EvtchnPort) -> u64 {
    LAST.get(port.0 as usize)
        .map_or(0, |at| at.load(Ordering::Acquire))
}

/// How many events vCPU `index` handled.
#[must_use]
pub fn handled_by(index: usize) -> u64 {
    BY_VCPU
        .get(index)
        .map_or(0, |count| count.load(Ordering::Acquire))
}

fn upcall(_frame: &mut Frame) {
    let now = cpu::rdtsc();
    let shared = SharedInfo::mapped();
    let page = shared.page();
    let info = shared.vcpu_info();
    page.u8(info + vcpu_info::UPCALL_PENDING)
        .store(0, Ordering::SeqCst);
    let mut selector = page
        .u64(info + vcpu_info::PENDING_SEL)
        .swap(0, Ordering::SeqCst);
    while selector != 0 {
        let word = selector.trailing_zeros() as usize;
        selector &= selector - 1;
        let pending = page.u64(EVTCHN_PENDING + 8 * word);
        let mask = page.u64(EVTCHN_MASK + 8 * word).load(Ordering::SeqCst);
        let mut events = pending.load(Ordering::SeqCst) & !mask;
        while events != 0 {
            let bit = events.trailing_zeros();
            events &= events - 1;
            pending.fetch_and(!(1 << bit), Ordering::SeqCst);
            let port = 64 * word + bit as usize;
            if let (Some(count), Some(last)) = (COUNTS.get(port), LAST.get(port)) {
                last.store(now, Ordering::Release);
                count.fetch_add(1, Ordering::AcqRel);
            }
            BY_VCPU[cpu::index()].fetch_add(1, Ordering::AcqRel);
        }
    }
    if THROUGH_APIC.load(Ordering::Acquire) {
        Apic::current().eoi();
    }
}

impl SharedInfo {
    fn bit(offset: usize, port: EvtchnPort) -> (usize, u64) {
        (offset + 8 * (port.0 as usize / 64), 1 << (port.0 % 64))
    }

    /// Whether `port` is pending.
    #[must_use]
    pub fn is_pending(self, port: EvtchnPort) -> bool {
        let (offset, bit) = Self::bit(EVTCHN_PENDING, port);
        self.page().u64(offset).load(Ordering::SeqCst) & bit != 0
    }

    /// Forgets that `port` is pending; returns whether it was.
    pub fn clear_pending(self, port: EvtchnPort) -> bool {
        let (offset, bit) = Self::bit(EVTCHN_PENDING, port);
        self.page().u64(offset).fetch_and(!bit, Ordering::SeqCst) & bit != 0
    }

    /// Masks `port`.
    pub fn mask(self, port: EvtchnPort) {
        let (offset, bit) = Self::bit(EVTCHN_MASK, port);
        self.page().u64(offset).fetch_or(bit, Ordering::SeqCst);
    }

    /// Clears the mask of `port` without telling the hypervisor.
    pub fn clear_mask(self, port: EvtchnPort) {
        let (offset, bit) = Self::bit(EVTCHN_MASK, port);
        self.page().u64(offset).fetch_and(!bit, Ordering::SeqCst);
    }

    /// Whether an upcall is due on this vCPU.
    #[must_use]
    pub fn upcall_pending(self) -> bool {
        let pending = self.vcpu_info() + vcpu_info::UPCALL_PENDING;
        self.page().u8(pending).load(Ordering::SeqCst) != 0
    }
}
