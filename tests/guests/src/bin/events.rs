//! Two-level event channels on one vCPU: binding, masks, upcalls by both ways of delivery.
#![no_std]
#![no_main]

use abi::event_channel::{BIND_VCPU, BindVcpu, status, virq};
use abi::hvm::param;
use abi::hypercall::EVENT_CHANNEL_OP;
use abi::{DomId, Errno, EvtchnPort, VcpuId};
use guests::apic::Apic;
use guests::report::Report;
use guests::xen::SharedInfo;
use guests::{check, check_eq, cpu, events, interrupts};
use pv_drivers::guest::{event_channel, hvm, sched};
use pv_drivers::hypercall::{Refused, command};

guests::main!(run);

const SELF: VcpuId = VcpuId(0);

fn run(t: &mut Report) {
    let shared = SharedInfo::map();
    let Some(port) = binding(t) else { return };
    masks(t, shared, port);
    events::handle_callbacks(t);
    upcalls(t, shared, port);
    // One upcall was due from before, without an event.
    let taken = interrupts::count(events::UPCALL);
    check!(
        t,
        taken <= events::count(port) + 1,
        "no upcall too many ({taken})"
    );

    // The other way: through the local APIC, which must be on and wants an end of interrupt.
    Apic::current().enable();
    cpu::disable_interrupts();
    events::handle(true);
    check_eq!(
        t,
        hvm::set_upcall_vector(SELF, events::UPCALL),
        Ok(0),
        "upcalls by the APIC"
    );
    // A line of an interrupt controller that is not there: the callback vector is off.
    check_eq!(
        t,
        hvm::set_param(param::CALLBACK_IRQ, 1),
        Ok(0),
        "no callback vector"
    );
    upcalls(t, shared, port);
    check_eq!(t, event_channel::close(port), Ok(0), "closing the port");
    let reply = event_channel::send(port);
    check!(
        t,
        is(reply, Errno::Einval),
        "sending to the closed port ({reply:?})"
    );
}

fn is<T>(reply: Result<T, Refused>, errno: Errno) -> bool {
    reply.is_err_and(|refused| refused == errno)
}

/// Binds ports of each kind; returns one that notifies this vCPU itself.
fn binding(t: &mut Report) -> Option<EvtchnPort> {
    let ipi = event_channel::bind_ipi(SELF);
    check!(
        t,
        ipi.is_ok_and(|port| port.0 != 0),
        "binding an IPI ({ipi:?})"
    );
    let port = ipi.ok()?;
    let what = event_channel::status(port).map(|status| (status.status, status.vcpu));
    check_eq!(t, what, Ok((status::IPI, 0)), "status of the IPI");

    let timer = event_channel::bind_virq(virq::TIMER, SELF);
    check!(t, timer.is_ok(), "binding the timer ({timer:?})");
    let again = event_channel::bind_virq(virq::TIMER, SELF);
    check!(
        t,
        is(again, Errno::Eexist),
        "binding the timer twice ({again:?})"
    );
    if let Ok(timer) = timer {
        let what = event_channel::status(timer).map(|status| (status.status, status.detail));
        check_eq!(
            t,
            what,
            Ok((status::VIRQ, virq::TIMER.0)),
            "status of the timer"
        );
        let mut argument = BindVcpu {
            port: timer.0,
            vcpu: 0,
        };
        let moved = command(EVENT_CHANNEL_OP, BIND_VCPU, &mut argument);
        check!(
            t,
            is(moved, Errno::Einval),
            "moving a per-vCPU interrupt ({moved:?})"
        );
        check_eq!(t, event_channel::close(timer), Ok(0), "closing the timer");
        let anew = event_channel::bind_virq(virq::TIMER, SELF);
        check_eq!(t, anew, Ok(timer), "the lowest free port is used again");
    }

    let unbound = event_channel::alloc_unbound(DomId::SELF);
    check!(t, unbound.is_ok(), "an unbound port ({unbound:?})");
    if let Ok(unbound) = unbound {
        let what = event_channel::status(unbound).map(|status| status.status);
        check_eq!(t, what, Ok(status::UNBOUND), "status of the unbound port");
        check_eq!(
            t,
            event_channel::send(unbound),
            Ok(0),
            "sending where nobody listens"
        );
        check_eq!(
            t,
            event_channel::close(unbound),
            Ok(0),
            "closing the unbound port"
        );
    }
    let foreign = event_channel::status(EvtchnPort(900)).map(|status| status.status);
    check!(
        t,
        matches!(foreign, Ok(status::CLOSED) | Err(_)),
        "a port nobody opened ({foreign:?})"
    );
    Some(port)
}

/// The bitmaps, with interrupts off and no vector set.
fn masks(t: &mut Report, shared: SharedInfo, port: EvtchnPort) {
    shared.mask(port);
    check_eq!(
        t,
        event_channel::send(port),
        Ok(0),
        "sending to a masked port"
    );
    check!(t, shared.is_pending(port), "the masked port is pending");
    let polled = sched::poll(&[port], 0);
    check_eq!(t, polled, Ok(0), "polling a pending port returns at once");
    check_eq!(t, event_channel::unmask(port), Ok(0), "unmasking");
    check!(
        t,
        shared.upcall_pending(),
        "unmasking a pending port raises an upcall"
    );
    check!(t, shared.clear_pending(port), "the port is still pending");
    let deadline = shared.now() + 2_000_000;
    check_eq!(
        t,
        sched::poll(&[port], deadline),
        Ok(0),
        "polling with a time limit"
    );
}

fn upcalls(t: &mut Report, shared: SharedInfo, port: EvtchnPort) {
    // Whatever was raised before is taken first.
    cpu::enable_interrupts();
    let taken = interrupts::count(events::UPCALL);
    let before = events::count(port);

    for round in 1..=3 {
        check_eq!(t, event_channel::send(port), Ok(0), "sending");
        check_eq!(
            t,
            events::count(port),
            before + round,
            "the event is there after the call"
        );
    }
    let upcalls = interrupts::count(events::UPCALL) - taken;
    check!(
        t,
        upcalls >= 3,
        "an upcall for each of three events ({upcalls})"
    );

    cpu::disable_interrupts();
    check_eq!(
        t,
        event_channel::send(port),
        Ok(0),
        "sending with interrupts off"
    );
    check_eq!(t, event_channel::send(port), Ok(0), "and once more");
    check_eq!(
        t,
        events::count(port),
        before + 3,
        "no upcall while interrupts are off"
    );
    cpu::enable_interrupts();
    check_eq!(
        t,
        events::count(port),
        before + 4,
        "two sends make one event"
    );

    shared.mask(port);
    check_eq!(
        t,
        event_channel::send(port),
        Ok(0),
        "sending to the masked port"
    );
    check_eq!(
        t,
        events::count(port),
        before + 4,
        "no upcall for a masked port"
    );
    check_eq!(t, event_channel::unmask(port), Ok(0), "unmasking");
    check_eq!(t, events::count(port), before + 5, "unmasking delivers");
    check!(t, !shared.is_pending(port), "nothing is left pending");

    cpu::disable_interrupts();
    check_eq!(t, event_channel::send(port), Ok(0), "sending before HLT");
    cpu::wait_for_interrupt();
    check_eq!(
        t,
        events::count(port),
        before + 6,
        "HLT does not sleep over a pending event"
    );
}
