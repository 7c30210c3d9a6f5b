//! Delivery of what waits for a running vCPU, just before each VM entry.

use core::sync::atomic::Ordering;

use vmx::event::{self, Event, EventKind};
use vmx::vmcs::field;

use super::access::SHADOW;
use super::{Running, VcpuInfo};
use crate::evtchn::Wake;
use crate::fault::GuestFault;
use crate::intr::inject::{Combined, Decision, First, Inject, Pending, Readiness, combine, decide};

/// RFLAGS.IF.
const INTERRUPT_FLAG: u64 = 1 << 9;
/// Blocking by NMI.
const NMI_BLOCKED: u32 = 1 << 3;
/// CR0.PE.
const PROTECTED: u64 = 1;

/// Events that wait for this vCPU alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct PendingEvents {
    /// The event whose delivery the last exit cut short.
    pub redeliver: Option<Event>,
    /// An exception to raise.
    pub exception: Option<Event>,
    /// An NMI.
    pub nmi: bool,
}

impl PendingEvents {
    /// True when there is none.
    #[inline]
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.redeliver.is_none() && self.exception.is_none() && !self.nmi
    }
}

impl Running<'_> {
    /// Tells the vCPUs that an operation on the domain's events names. This one looks at its
    /// upcall flag before it enters its guest, so it takes no notice beyond that.
    #[inline]
    pub fn wake(&self, wake: Wake) {
        if wake.is_none() {
            return;
        }
        if wake.upcalls != self.alone || !wake.pollers.is_empty() {
            return self.domain.wake(wake);
        }
        let vector = self.shared.upcall_vector.load(Ordering::Relaxed);
        if vector != 0 {
            self.shared.inbox.post(vector);
            self.attention.ask_self();
        }
    }

    /// True while the vCPU's `evtchn_upcall_pending` is set.
    #[inline(always)]
    #[must_use]
    pub fn has_upcall(&self) -> bool {
        self.cpu.info.as_ref().is_some_and(VcpuInfo::upcall_pending)
    }

    /// Chooses what the next VM entry delivers and asks for the window exits that are needed.
    #[inline]
    pub fn inject(&mut self) {
        if self.is_quiet() && (!self.has_upcall() || self.inject_upcall()) {
            return;
        }
        self.inject_pending();
        // What could not be delivered yet is looked at again after the next exit.
        if self.cpu.windows || !self.cpu.pending.is_none() {
            self.attention.ask_self();
        }
    }

    /// True when nothing waits but perhaps an upcall, and no window exit has been asked for.
    #[inline]
    fn is_quiet(&self) -> bool {
        let cpu = &*self.cpu;
        cpu.lapic.is_quiet()
            && cpu.pending.is_none()
            && !self.shared.inbox.nmi_pending()
            && !cpu.windows
    }

    /// Has the next VM entry deliver an upcall where nothing else waits; false when the guest
    /// cannot take it now.
    fn inject_upcall(&mut self) -> bool {
        let callback = self.domain.callback_vector.load(Ordering::Relaxed);
        if callback == 0 {
            // It hears of it by its local APIC, or by looking.
            return true;
        }
        let ready = self.vmcs.read(field::GUEST_RFLAGS) & INTERRUPT_FLAG != 0
            && self.vmcs.read(field::GUEST_INTERRUPTIBILITY_STATE) & SHADOW == 0;
        if ready {
            self.vmcs.inject(Event::external(callback));
        }
        ready
    }

    #[inline(never)]
    fn inject_pending(&mut self) {
        let pending = self.what_waits();
        if pending == Pending::default() {
            self.set_windows(Decision::default());
            return;
        }
        let rflags = self.vmcs.read(field::GUEST_RFLAGS);
        let blocking = self.vmcs.read(field::GUEST_INTERRUPTIBILITY_STATE);
        let guest = Readiness {
            interrupts_enabled: rflags & INTERRUPT_FLAG != 0,
            shadow: blocking & SHADOW != 0,
            nmi_blocked: blocking & NMI_BLOCKED != 0,
            ..Readiness::default()
        };
        let decision = decide(pending, guest);
        match decision.inject {
            Some(Inject::Redeliver) => {
                if let Some(event) = self.cpu.pending.redeliver.take() {
                    self.redeliver(event, blocking);
                }
            }
            Some(Inject::Exception) => {
                if let Some(event) = self.cpu.pending.exception.take() {
                    self.deliver(event);
                }
            }
            Some(Inject::Nmi) => {
                self.cpu.pending.nmi = false;
                self.deliver(Event::nmi());
            }
            Some(Inject::Upcall(vector)) => self.deliver(Event::external(vector)),
            Some(Inject::Lapic(vector)) => {
                self.cpu.lapic.acknowledge(vector);
                self.deliver(Event::external(vector));
            }
            None => {}
        }
        self.set_windows(decision);
    }

    fn what_waits(&mut self) -> Pending {
        let callback = self.domain.callback_vector.load(Ordering::Relaxed);
        let upcall = (callback != 0 && self.has_upcall()).then_some(callback);
        if self.vcpu.inbox.nmi_pending() && self.vcpu.inbox.take_nmi() {
            self.cpu.pending.nmi = true;
        }
        Pending {
            redeliver: self.cpu.pending.redeliver.is_some(),
            exception: self.cpu.pending.exception.is_some(),
            nmi: self.cpu.pending.nmi,
            upcall,
            lapic: self.cpu.lapic.pending_vector(),
        }
    }

    fn redeliver(&mut self, event: Event, blocking: u32) {
        if event.kind == EventKind::Nmi && blocking & NMI_BLOCKED != 0 {
            // The interrupted delivery had begun to block NMIs; the new one blocks them again.
            self.vmcs
                .write(field::GUEST_INTERRUPTIBILITY_STATE, blocking & !NMI_BLOCKED);
        }
        self.deliver(event);
    }

    /// Has the next VM entry deliver `event`.
    fn deliver(&mut self, event: Event) {
        let mut event = event;
        if event.kind == EventKind::HardException
            && self.vmcs.read(field::GUEST_CR0) & PROTECTED == 0
        {
            // Real mode pushes no error code, and a VM entry that would is refused.
            event.error = None;
        }
        self.vmcs.inject(event);
    }

    /// Turns the window exits on or off. Without virtual NMIs there is no NMI window; the
    /// interrupt window, or whatever exit comes first, looks again.
    fn set_windows(&mut self, decision: Decision) {
        self.cpu.windows = decision.interrupt_window || decision.nmi_window;
        self.vmcs.set_interrupt_window(decision.interrupt_window);
        self.vmcs.set_nmi_window(decision.nmi_window);
    }

    /// Raises an exception in the guest in place of the instruction that exited.
    #[inline(never)]
    pub fn raise(&mut self, fault: GuestFault) {
        match fault {
            GuestFault::Pf { address, .. } => self.cpu.ext.set_cr2(address.raw()),
            GuestFault::Db { dr6 } => self.record_debug(dr6),
            _ => {}
        }
        self.raise_event(Event::exception(fault.vector(), fault.error_code()));
    }

    /// Raises an exception, together with the event whose delivery the last exit cut short.
    pub fn raise_event(&mut self, second: Event) {
        self.attention.ask_self();
        let Some(first) = self.cpu.pending.redeliver else {
            self.cpu.pending.exception = Some(second);
            return;
        };
        let kind = match first.kind {
            EventKind::External | EventKind::Nmi => First::Interrupt,
            EventKind::HardException => First::Exception(first.vector),
            EventKind::SoftInt | EventKind::PrivSoftException | EventKind::SoftException => {
                First::Software
            }
        };
        match combine(kind, second.vector) {
            Combined::Second => {
                self.cpu.pending.redeliver = None;
                self.cpu.pending.exception = Some(second);
            }
            Combined::SecondThenFirst => {
                self.cpu.pending.redeliver = Some(second);
                self.requeue(first);
            }
            Combined::DoubleFault => {
                self.cpu.pending.redeliver = None;
                self.cpu.pending.exception = Some(Event::exception(event::VECTOR_DF, Some(0)));
            }
            Combined::TripleFault => {
                self.cpu.pending.redeliver = None;
                self.cpu.triple_fault = true;
            }
        }
    }

    /// Puts an interrupt whose delivery was cut short back to where it came from.
    fn requeue(&mut self, first: Event) {
        match first.kind {
            EventKind::Nmi => self.cpu.pending.nmi = true,
            // The callback vector repeats while the upcall is pending; only the local APIC's
            // vectors have left their queue.
            EventKind::External
                if first.vector != self.domain.callback_vector.load(Ordering::Relaxed) =>
            {
                self.cpu.lapic.unacknowledge(first.vector);
            }
            _ => {}
        }
    }
}
