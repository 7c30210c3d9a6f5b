//! What to inject at the next VM entry, and which window exit to ask for.
//!
//! A pure decision: the vCPU gathers what waits and how ready the guest is, and acts on the
//! answer. In order: an event whose delivery an exit cut short, an exception the hypervisor
//! raises, an NMI, the event channel upcall, the local APIC.
//!
//! SDM 3C, "Event Injection", "Interrupt-Window Exiting and Virtual-Interrupt Delivery" and
//! "Checks on Guest Non-Register State".

/// What waits for delivery.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pending {
    /// An event whose delivery was cut short by the last exit.
    pub redeliver: bool,
    /// An exception to raise in the guest.
    pub exception: bool,
    /// An NMI.
    pub nmi: bool,
    /// The domain's callback vector, while the vCPU's `evtchn_upcall_pending` is set.
    ///
    /// It bypasses the local APIC: no IRR, no ISR, no task priority, no EOI.
    pub upcall: Option<u8>,
    /// What the local APIC wants to deliver.
    pub lapic: Option<u8>,
}

/// What the vCPU would do at VM entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Activity {
    /// Execute instructions.
    #[default]
    Active,
    /// Sleep until an event arrives.
    Halted,
    /// Wait for a start-up message; nothing else is delivered.
    WaitForStartup,
}

/// How ready the guest is to be interrupted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Readiness {
    /// RFLAGS.IF.
    pub interrupts_enabled: bool,
    /// Blocking by STI or by MOV SS, from the interruptibility state.
    pub shadow: bool,
    /// Blocking by NMI, from the interruptibility state.
    pub nmi_blocked: bool,
    /// The activity state.
    pub activity: Activity,
}

/// The event for the entry interruption-information field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Inject {
    /// The event whose delivery was cut short.
    Redeliver,
    /// The exception the hypervisor raises.
    Exception,
    /// The NMI; take it from the inbox.
    Nmi,
    /// An external interrupt with the callback vector.
    Upcall(u8),
    /// An external interrupt from the local APIC; acknowledge it there.
    Lapic(u8),
}

/// What to do at the next VM entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Decision {
    /// The event to inject.
    pub inject: Option<Inject>,
    /// Ask for an exit as soon as an interrupt can be delivered.
    pub interrupt_window: bool,
    /// Ask for an exit as soon as an NMI can be delivered.
    pub nmi_window: bool,
}

/// Decides what happens at the next VM entry.
#[must_use]
pub fn decide(pending: Pending, guest: Readiness) -> Decision {
    if guest.activity == Activity::WaitForStartup {
        return Decision::default();
    }
    let interrupt = pending
        .upcall
        .map(Inject::Upcall)
        .or_else(|| pending.lapic.map(Inject::Lapic));
    let inject = if pending.redeliver {
        Some(Inject::Redeliver)
    } else if pending.exception {
        Some(Inject::Exception)
    } else if pending.nmi && !guest.nmi_blocked && !guest.shadow {
        Some(Inject::Nmi)
    } else if guest.interrupts_enabled && !guest.shadow {
        interrupt
    } else {
        None
    };
    let waiting = match inject {
        // The callback repeats by itself while it is pending; only the APIC is left behind it.
        Some(Inject::Upcall(_)) => pending.lapic.is_some(),
        // Acknowledging raises the processor priority: whatever else waits there waits for EOI.
        Some(Inject::Lapic(_)) => false,
        Some(Inject::Redeliver | Inject::Exception | Inject::Nmi) | None => interrupt.is_some(),
    };
    Decision {
        inject,
        interrupt_window: waiting,
        nmi_window: pending.nmi && inject != Some(Inject::Nmi),
    }
}

/// The kinds of event that matter when a second one is raised while the first is delivered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum First {
    /// An external interrupt or an NMI: it will not come again by itself.
    Interrupt,
    /// A software interrupt or exception: its instruction runs again.
    Software,
    /// A hardware exception with this vector.
    Exception(u8),
}

/// What becomes of two events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Combined {
    /// Deliver the second; the first comes again by itself.
    Second,
    /// Deliver the second, and keep the first for after it.
    SecondThenFirst,
    /// Deliver #DF instead of both.
    DoubleFault,
    /// The vCPU shuts down.
    TripleFault,
}

const DOUBLE_FAULT: u8 = 8;
const PAGE_FAULT: u8 = 14;

/// Combines the event whose delivery was cut short with an exception raised since.
///
/// SDM 3A, "Interrupt 8 - Double Fault Exception (#DF)", its table of conditions.
#[must_use]
pub fn combine(first: First, second: u8) -> Combined {
    let contributory = |vector: u8| matches!(vector, 0 | 10..=13);
    let serious = contributory(second) || second == PAGE_FAULT;
    match first {
        First::Interrupt => Combined::SecondThenFirst,
        First::Exception(DOUBLE_FAULT) if serious => Combined::TripleFault,
        First::Exception(PAGE_FAULT) if serious => Combined::DoubleFault,
        First::Exception(vector) if contributory(vector) && contributory(second) => {
            Combined::DoubleFault
        }
        First::Software | First::Exception(_) => Combined::Second,
    }
}

#[cfg(test)]
mod tests {
    use super::{Activity, Combined, Decision, First, Inject, Pending, Readiness, combine, decide};
    use proptest::prelude::{any, proptest};

    const READY: Readiness = Readiness {
        interrupts_enabled: true,
        shadow: false,
        nmi_blocked: false,
        activity: Activity::Active,
    };

    #[test]
    fn order_of_events() {
        let mut pending = Pending {
            redeliver: true,
            exception: true,
            nmi: true,
            upcall: Some(0xf3),
            lapic: Some(0x40),
        };
        let decision = decide(pending, READY);
        assert_eq!(decision.inject, Some(Inject::Redeliver));
        assert!(decision.interrupt_window && decision.nmi_window);
        pending.redeliver = false;
        assert_eq!(decide(pending, READY).inject, Some(Inject::Exception));
        pending.exception = false;
        let decision = decide(pending, READY);
        assert_eq!(decision.inject, Some(Inject::Nmi));
        assert!(decision.interrupt_window && !decision.nmi_window);
        pending.nmi = false;
        let decision = decide(pending, READY);
        assert_eq!(decision.inject, Some(Inject::Upcall(0xf3)));
        assert!(decision.interrupt_window);
        pending.upcall = None;
        let decision = decide(pending, READY);
        let only = Decision {
            inject: Some(Inject::Lapic(0x40)),
            ..Decision::default()
        };
        assert_eq!(decision, only);
        pending.lapic = None;
        assert_eq!(decide(pending, READY), Decision::default());
    }

    #[test]
    fn blocked_interrupts_ask_for_a_window() {
        let pending = Pending {
            upcall: Some(0xf3),
            ..Pending::default()
        };
        for guest in [
            Readiness {
                interrupts_enabled: false,
                ..READY
            },
            Readiness {
                shadow: true,
                ..READY
            },
        ] {
            let decision = decide(pending, guest);
            assert_eq!(decision.inject, None);
            assert!(decision.interrupt_window && !decision.nmi_window);
        }
    }

    #[test]
    fn blocked_nmi_asks_for_a_window_and_lets_interrupts_pass() {
        let pending = Pending {
            nmi: true,
            lapic: Some(0x31),
            ..Pending::default()
        };
        let decision = decide(
            pending,
            Readiness {
                nmi_blocked: true,
                ..READY
            },
        );
        assert_eq!(decision.inject, Some(Inject::Lapic(0x31)));
        assert!(decision.nmi_window && !decision.interrupt_window);
    }

    #[test]
    fn nothing_reaches_a_vcpu_that_waits_for_startup() {
        let pending = Pending {
            nmi: true,
            lapic: Some(0x31),
            ..Pending::default()
        };
        let guest = Readiness {
            activity: Activity::WaitForStartup,
            ..READY
        };
        assert_eq!(decide(pending, guest), Decision::default());
    }

    #[test]
    fn double_fault_table() {
        assert_eq!(combine(First::Interrupt, 14), Combined::SecondThenFirst);
        assert_eq!(combine(First::Software, 13), Combined::Second);
        assert_eq!(combine(First::Exception(13), 14), Combined::Second);
        assert_eq!(combine(First::Exception(13), 11), Combined::DoubleFault);
        assert_eq!(combine(First::Exception(14), 14), Combined::DoubleFault);
        assert_eq!(combine(First::Exception(8), 13), Combined::TripleFault);
        assert_eq!(combine(First::Exception(3), 14), Combined::Second);
    }

    proptest! {
        /// VM entry fails on an interrupt injected into a guest that blocks it.
        #[test]
        fn never_injects_what_the_guest_blocks(bits in any::<u16>(), vector in any::<u8>()) {
            let flag = |n: u32| bits >> n & 1 == 1;
            let pending = Pending {
                redeliver: flag(0),
                exception: flag(1),
                nmi: flag(2),
                upcall: flag(3).then_some(vector),
                lapic: flag(4).then_some(vector),
            };
            let guest = Readiness {
                interrupts_enabled: flag(5),
                shadow: flag(6),
                nmi_blocked: flag(7),
                activity: if flag(8) { Activity::Halted } else { Activity::Active },
            };
            let decision = decide(pending, guest);
            match decision.inject {
                Some(Inject::Upcall(_) | Inject::Lapic(_)) => {
                    assert!(guest.interrupts_enabled && !guest.shadow);
                }
                Some(Inject::Nmi) => assert!(!guest.nmi_blocked && !guest.shadow),
                Some(Inject::Redeliver | Inject::Exception) | None => {}
            }
            let waits = pending.upcall.is_some() || pending.lapic.is_some();
            if waits && decision.inject.is_none() {
                assert!(decision.interrupt_window);
            }
        }
    }
}
