//! Reaches for what it does not own: each hypercall is refused; running code from nowhere ends
//! the domain.
#![no_std]
#![no_main]

use abi::event_channel::{ALLOC_UNBOUND, AllocUnbound, BIND_INTERDOMAIN, BindInterdomain};
use abi::hvm::{Param, SET_PARAM};
use abi::hypercall::{EVENT_CHANNEL_OP, HVM_OP, MEMORY_OP, SCHED_OP};
use abi::memory::{
    ADD_TO_PHYSMAP, AddToPhysmap, CURRENT_RESERVATION, DomainArg, SPACE_GMFN, SPACE_GMFN_FOREIGN,
    SPACE_GRANT_TABLE,
};
use abi::sched::{REMOTE_SHUTDOWN, RemoteShutdown};
use guests::report::Report;
use guests::{check, check_eq, console, cpu, say, xen};
use pv_drivers::hypercall::command;
use zerocopy::FromZeros;

guests::main!(run);

/// Where this guest has nothing, far above its memory and below the APIC.
const NOWHERE: u64 = 0xd000_0000;

fn run(t: &mut Report) {
    for domid in [0_u16, 1, 2, 0x7ff2, 0x7ff4] {
        others(t, domid);
    }
    frames(t);
    check_eq!(t, cpu::write64(NOWHERE, 0), Ok(()), "writing nowhere");
    t.verdict();
    say!("about to run code from {NOWHERE:#x}");
    console::drain();
    cpu::call(NOWHERE);
}

/// Calls that name another domain.
fn others(t: &mut Report, domid: u16) {
    if domid == own_id() {
        return;
    }
    let mut shutdown = RemoteShutdown::new_zeroed();
    shutdown.domid = domid;
    let reply = xen::command(SCHED_OP, REMOTE_SHUTDOWN, &mut shutdown);
    check!(t, reply.is_err(), "ending domain {domid:#x} ({reply:?})");
    let mut param = Param::new_zeroed();
    param.domid = domid;
    let reply = command(HVM_OP, SET_PARAM, &mut param);
    check!(
        t,
        reply.is_err(),
        "a parameter of domain {domid:#x} ({reply:?})"
    );
    let mut map = AddToPhysmap::new_zeroed();
    map.domid = domid;
    let reply = xen::command(MEMORY_OP, ADD_TO_PHYSMAP, &mut map);
    check!(
        t,
        reply.is_err(),
        "the memory of domain {domid:#x} ({reply:?})"
    );
    let reply = command(MEMORY_OP, CURRENT_RESERVATION, &mut DomainArg { domid });
    check!(
        t,
        reply.is_err(),
        "the size of domain {domid:#x} ({reply:?})"
    );
    let mut alloc = AllocUnbound {
        dom: domid,
        remote_dom: 0,
        port: 0,
    };
    let reply = command(EVENT_CHANNEL_OP, ALLOC_UNBOUND, &mut alloc);
    check!(t, reply.is_err(), "a port of domain {domid:#x} ({reply:?})");
    let mut bind = BindInterdomain::new_zeroed();
    bind.remote_dom = domid;
    bind.remote_port = 1;
    let reply = command(EVENT_CHANNEL_OP, BIND_INTERDOMAIN, &mut bind);
    check!(
        t,
        reply.is_err(),
        "a channel to domain {domid:#x} ({reply:?})"
    );
}

fn own_id() -> u16 {
    let [_, _, domid, _] = cpu::cpuid(abi::cpuid::BASE + abi::cpuid::LEAF_HVM, 0);
    u16::try_from(domid).unwrap_or(u16::MAX)
}

/// Frames that are none of this guest's memory.
fn frames(t: &mut Report) {
    for gfn in [NOWHERE >> 12, 1 << 36, 1 << 50, u64::MAX] {
        let reply = xen::add_to_physmap(SPACE_GMFN, gfn, 0x300);
        check!(t, reply.is_err(), "moving frame {gfn:#x} ({reply:?})");
        let reply = xen::decrease_reservation(&[gfn]);
        check_eq!(t, reply, Ok(0), "giving back frame {gfn:#x}");
    }
    let reply = xen::add_to_physmap(SPACE_GMFN_FOREIGN, 0x200, 0x300);
    check!(t, reply.is_err(), "another domain's frame ({reply:?})");
    let reply = xen::add_to_physmap(SPACE_GRANT_TABLE, 1 << 20, 0x300);
    check!(
        t,
        reply.is_err(),
        "a grant frame beyond the last ({reply:?})"
    );
    let reply = xen::add_to_physmap(99, 0, 0x300);
    check!(t, reply.is_err(), "an unknown space ({reply:?})");
    let fault = cpu::wrmsr(abi::cpuid::HYPERCALL_MSR, NOWHERE);
    check!(t, fault.is_err(), "a hypercall page nowhere");
}
