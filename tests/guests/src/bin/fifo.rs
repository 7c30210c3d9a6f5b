//! FIFO event channels: the control block, the event array, priorities, queues.
#![no_std]
#![no_main]

use core::sync::atomic::Ordering;

use abi::event_channel::fifo::{
    CONTROL_BLOCK_SIZE, CONTROL_HEAD, CONTROL_READY, LINK_BITS, LINK_MASK, LINKED, MASKED, PENDING,
};
use abi::event_channel::{
    EXPAND_ARRAY, ExpandArray, INIT_CONTROL, InitControl, SET_PRIORITY, SetPriority,
};
use abi::hypercall::EVENT_CHANNEL_OP;
use abi::{Errno, EvtchnPort, VcpuId};
use guests::memory::Page;
use guests::report::Report;
use guests::xen::SharedInfo;
use guests::{check, check_eq, xen};
use pv_drivers::guest::event_channel;
use pv_drivers::hypercall::{Reply, command};
use zerocopy::FromZeros;

guests::main!(run);

static CONTROL: Page = Page::new();
static ARRAY: Page = Page::new();

fn run(t: &mut Report) {
    let shared = SharedInfo::map();
    let reply = expand(ARRAY.gfn().raw());
    check!(
        t,
        is(reply, Errno::Eopnotsupp),
        "an array before FIFO is on ({reply:?})"
    );
    // A port that is pending when the switch comes.
    let Ok(early) = event_channel::bind_ipi(VcpuId(0)) else {
        check!(t, false, "binding a port");
        return;
    };
    shared.mask(early);
    check_eq!(
        t,
        event_channel::send(early),
        Ok(0),
        "sending before the switch"
    );
    switch(t);
    let Ok(ports) = ports() else {
        check!(t, false, "binding three ports");
        return;
    };
    check!(
        t,
        word(early) & PENDING != 0,
        "what was pending before the switch still is"
    );
    queues(t, ports);
}

fn is(reply: Reply, errno: Errno) -> bool {
    reply.is_err_and(|refused| refused == errno)
}

fn expand(gfn: u64) -> Reply {
    xen::command(
        EVENT_CHANNEL_OP,
        EXPAND_ARRAY,
        &mut ExpandArray { array_gfn: gfn },
    )
}

fn init_control(gfn: u64, offset: u32, vcpu: u32) -> (Reply, u8) {
    let mut argument = InitControl::new_zeroed();
    argument.control_gfn = gfn;
    argument.offset = offset;
    argument.vcpu = vcpu;
    let reply = xen::command(EVENT_CHANNEL_OP, INIT_CONTROL, &mut argument);
    (reply, argument.link_bits)
}

fn switch(t: &mut Report) {
    let gfn = CONTROL.gfn().raw();
    let beyond = u32::try_from(4096 - CONTROL_BLOCK_SIZE + 8).unwrap_or(u32::MAX);
    let offset_beyond = init_control(gfn, beyond, 0).0;
    check!(
        t,
        is(offset_beyond, Errno::Einval),
        "a block over the page's end ({offset_beyond:?})"
    );
    let misaligned = init_control(gfn, 4, 0).0;
    check!(
        t,
        is(misaligned, Errno::Einval),
        "a block misaligned ({misaligned:?})"
    );
    let nowhere = init_control(0xe_0000, 0, 0).0;
    check!(
        t,
        is(nowhere, Errno::Einval),
        "a block in no memory ({nowhere:?})"
    );
    let nobody = init_control(gfn, 0, 99).0;
    check!(
        t,
        is(nobody, Errno::Enoent),
        "a block for vCPU 99 ({nobody:?})"
    );

    check_eq!(
        t,
        init_control(gfn, 64, 0),
        (Ok(0), LINK_BITS),
        "a control block"
    );
    let again = init_control(gfn, 64, 0).0;
    check!(
        t,
        is(again, Errno::Einval),
        "a second control block ({again:?})"
    );
    let nowhere = expand(0xe_0000);
    check!(
        t,
        is(nowhere, Errno::Einval),
        "an array page in no memory ({nowhere:?})"
    );
    // All events start masked, as Linux has it.
    for index in 0..1024 {
        ARRAY.view().u32(4 * index).store(MASKED, Ordering::Relaxed);
    }
    check_eq!(t, expand(ARRAY.gfn().raw()), Ok(0), "a first array page");
}

fn ports() -> Result<[EvtchnPort; 3], pv_drivers::hypercall::Refused> {
    let bind = || event_channel::bind_ipi(VcpuId(0));
    Ok([bind()?, bind()?, bind()?])
}

fn word(port: EvtchnPort) -> u32 {
    ARRAY.view().u32(4 * port.0 as usize).load(Ordering::SeqCst)
}

fn set_masked(port: EvtchnPort, masked: bool) {
    let view = ARRAY.view();
    let word = view.u32(4 * port.0 as usize);
    if masked {
        word.fetch_or(MASKED, Ordering::SeqCst);
    } else {
        word.fetch_and(!MASKED, Ordering::SeqCst);
    }
}

fn head(priority: u32) -> u32 {
    CONTROL
        .view()
        .u32(64 + CONTROL_HEAD + 4 * priority as usize)
        .load(Ordering::SeqCst)
}

/// Takes the first port off the queue at `first`, as the ABI wants it; returns the next.
fn take(port: u32) -> u32 {
    let view = ARRAY.view();
    let word = view.u32(4 * port as usize);
    let old = word.fetch_and(!(LINKED | LINK_MASK | PENDING), Ordering::SeqCst);
    old & LINK_MASK
}

fn ready() -> u32 {
    CONTROL
        .view()
        .u32(64 + CONTROL_READY)
        .swap(0, Ordering::SeqCst)
}

fn queues(t: &mut Report, [a, b, urgent]: [EvtchnPort; 3]) {
    let mut priority = SetPriority {
        port: urgent.0,
        priority: 0,
    };
    check_eq!(
        t,
        command(EVENT_CHANNEL_OP, SET_PRIORITY, &mut priority),
        Ok(0),
        "priority 0"
    );
    priority.priority = 16;
    let reply = command(EVENT_CHANNEL_OP, SET_PRIORITY, &mut priority);
    check!(t, is(reply, Errno::Einval), "priority 16 ({reply:?})");

    check_eq!(t, event_channel::send(a), Ok(0), "sending to a masked port");
    check_eq!(t, word(a), PENDING | MASKED, "masked: pending, on no queue");
    check_eq!(t, event_channel::unmask(a), Ok(0), "unmasking");
    check_eq!(
        t,
        word(a),
        PENDING | LINKED,
        "unmasking puts it on its queue"
    );
    check_eq!(t, head(7), a.0, "at the head of the default queue");
    for port in [b, urgent] {
        set_masked(port, false);
        check_eq!(t, event_channel::send(port), Ok(0), "sending");
    }
    check_eq!(t, ready(), 1 | 1 << 7, "both queues are ready");
    check_eq!(t, head(0), urgent.0, "the urgent one heads queue 0");
    check_eq!(t, take(urgent.0), 0, "and is alone there");
    check_eq!(
        t,
        take(a.0),
        b.0,
        "the default queue goes on with the second port"
    );
    check_eq!(
        t,
        event_channel::send(b),
        Ok(0),
        "sending what is on a queue already"
    );
    check_eq!(t, take(b.0), 0, "it was queued once");
    check_eq!(t, word(b), 0, "nothing is left of it");

    // An emptied queue starts anew.
    check_eq!(t, event_channel::send(b), Ok(0), "sending again");
    check_eq!(
        t,
        (ready(), head(7)),
        (1 << 7, b.0),
        "the queue has a new head"
    );
    check_eq!(t, take(b.0), 0, "and ends there");

    let closed = event_channel::close(b);
    check_eq!(t, closed, Ok(0), "closing");
    for _ in 0..100 {
        let Ok(port) = event_channel::bind_ipi(VcpuId(0)) else {
            check!(t, false, "binding a hundred ports");
            return;
        };
        check!(
            t,
            port != a && port != urgent,
            "no port is handed out twice"
        );
        if event_channel::close(port).is_err() {
            check!(t, false, "closing port {port}");
        }
    }
}
