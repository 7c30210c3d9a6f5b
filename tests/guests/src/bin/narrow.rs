//! Hypercalls by 32-bit code: its layouts of arguments and of what is shared with it, and nothing
//! beyond what such layouts hold.
#![no_std]
#![no_main]

use core::sync::atomic::Ordering::SeqCst;

use abi::event_channel::{
    ALLOC_UNBOUND, AllocUnbound, BIND_INTERDOMAIN, BIND_VIRQ, BindInterdomain, BindVirq, CLOSE,
    Port, SEND, STATUS, Status, status as port_status, virq,
};
use abi::grant_table::{
    COPY, CompatCopyPtr, CompatGrantCopy, CompatSetupTable, MAP_GRANT_REF, QUERY_SIZE, QuerySize,
    SETUP_TABLE, UNMAP_GRANT_REF, copy_flags, map_flags, status,
};
use abi::hvm::{GET_PARAM, GET_TIME, Param, SET_PARAM, param};
use abi::hypercall::multicall::CompatEntry;
use abi::hypercall::{
    CONSOLE_IO, EVENT_CHANNEL_OP, GRANT_TABLE_OP, HVM_OP, MEMORY_OP, MULTICALL, PHYSDEV_OP,
    SCHED_OP, SET_TIMER_OP, VCPU_OP, XEN_VERSION,
};
use abi::memory::{
    ADD_TO_PHYSMAP, ADD_TO_PHYSMAP_BATCH, CompatAddToPhysmap, CompatAddToPhysmapBatch,
    CompatMemoryMap, CompatRemoveFromPhysmap, CompatReservation, DECREASE_RESERVATION, MEMORY_MAP,
    MapEntry, POPULATE_PHYSMAP, REMOVE_FROM_PHYSMAP, SPACE_GRANT_TABLE, SPACE_SHARED_INFO,
};
use abi::sched::{CompatPoll, POLL};
use abi::shared_info::{compat, vcpu_info};
use abi::vcpu::{
    CompatRunstateInfo, CompatSetSingleshotTimer, GET_RUNSTATE_INFO, REGISTER_RUNSTATE_MEMORY_AREA,
    REGISTER_VCPU_INFO, RegisterArea, RegisterVcpuInfo, SET_SINGLESHOT_TIMER, VcpuTimeInfo,
    runstate,
};
use abi::xen_version::{EXTRAVERSION, INTERFACE_VERSION, PLATFORM_PARAMETERS, VERSION};
use abi::{DomId, Errno, GrantRef, PAGE_SIZE};
use guests::grants::{self, HOLE, map_request, unmap_request};
use guests::memory::{self, Page};
use guests::narrow::{at, call, command, refused, word};
use guests::report::Report;
use guests::xen::{SharedInfo, domid};
use guests::{check, check_eq, cpu};
use zerocopy::FromZeros;

guests::main!(run);

/// Nothing is mapped here, and what follows is beyond a 32-bit address.
const NOWHERE: u32 = 0xffff_fff0;
/// What no call may change.
const GUARD: u32 = 0xa5a5_a5a5;

static SHARED: Page = Page::new();
static BALLOON: [Page; 3] = [const { Page::new() }; 3];
static TABLE: Page = Page::new();
static INFO: Page = Page::new();
static AREA: Page = Page::new();
static FROM: Page = Page::new();
static TO: Page = Page::new();

fn run(t: &mut Report) {
    // The first call that says how wide the guest is.
    callback(t);
    version(t);
    reservations(t);
    memory_map(t);
    placing(t);
    channels(t);
    timers(t);
    runstates(t);
    registered_info(t);
    grant_table(t);
    copies(t);
    batches(t);
}

fn callback(t: &mut Report) {
    let mut argument = Param::new_zeroed();
    argument.domid = DomId::SELF.0;
    argument.index = param::CALLBACK_IRQ;
    let set = command(HVM_OP, SET_PARAM, &mut argument);
    check_eq!(t, set, Ok(0), "setting a parameter");
    argument.value = u64::MAX;
    let got = command(HVM_OP, GET_PARAM, &mut argument);
    check_eq!(t, (got, argument.value), (Ok(0), 0), "reading it");
    let wrong = call(HVM_OP, [word(GET_PARAM), NOWHERE, 0, 0, 0]);
    check_eq!(t, wrong, refused(Errno::Efault), "a parameter nowhere");
    let mut times = [0_u64; 2];
    check_eq!(t, command(HVM_OP, GET_TIME, &mut times[0]), Ok(0), "time");
    check_eq!(t, command(HVM_OP, GET_TIME, &mut times[1]), Ok(0), "later");
    check!(t, 0 < times[0] && times[0] < times[1], "{times:?} goes on");
}

fn version(t: &mut Report) {
    let version = call(XEN_VERSION, [word(VERSION), 0, 0, 0, 0]);
    check_eq!(t, version, Ok(INTERFACE_VERSION), "version");
    let mut start = [GUARD; 2];
    let asked = command(XEN_VERSION, PLATFORM_PARAMETERS, &mut start);
    check_eq!(t, (asked, start), (Ok(0), [0, GUARD]), "a 32-bit address");
    let wrong = call(XEN_VERSION, [word(EXTRAVERSION), NOWHERE, 0, 0, 0]);
    check_eq!(t, wrong, refused(Errno::Efault), "text to nowhere");
    let mut text = *b"no console";
    let console = [0, word(text.len() as u64), at(&mut text), 0, 0];
    let console = call(CONSOLE_IO, console);
    check_eq!(t, console, refused(Errno::Eperm), "the host's console");
    let physdev = call(PHYSDEV_OP, [0; 5]);
    check_eq!(t, physdev, refused(Errno::Enosys), "no physical devices");
    let unknown = call(0x7fff_ffff, [0; 5]);
    check_eq!(t, unknown, refused(Errno::Enosys), "no such call");
}

fn reservations(t: &mut Report) {
    let mut frames = [0, 0, 0, GUARD];
    for (frame, page) in frames.iter_mut().zip(&BALLOON) {
        *frame = word(page.gfn().raw());
        page.view().u32(0).store(GUARD, SeqCst);
    }
    let mut list = CompatReservation::new_zeroed();
    list.extent_start = at(&mut frames);
    list.nr_extents = word(BALLOON.len() as u64);
    list.domid = DomId::SELF.0;
    let gone = command(MEMORY_OP, DECREASE_RESERVATION, &mut list);
    check_eq!(t, gone, Ok(list.nr_extents), "giving pages back");
    for page in &BALLOON {
        let read = cpu::read64(page.address());
        check_eq!(t, read, Ok(u64::MAX), "a page given back");
    }
    let back = command(MEMORY_OP, POPULATE_PHYSMAP, &mut list);
    check_eq!(t, back, Ok(list.nr_extents), "getting them again");
    for page in &BALLOON {
        check_eq!(t, page.view().u32(0).load(SeqCst), 0, "a fresh page");
    }
    list.extent_start = NOWHERE;
    let none = command(MEMORY_OP, DECREASE_RESERVATION, &mut list);
    check_eq!(t, none, Ok(0), "extents nowhere");
}

fn memory_map(t: &mut Report) {
    let mut entries = [const { [0_u8; size_of::<MapEntry>()] }; 8];
    let mut map = CompatMemoryMap::new_zeroed();
    map.nr_entries = word(entries.len() as u64);
    map.buffer = at(&mut entries);
    check_eq!(t, command(MEMORY_OP, MEMORY_MAP, &mut map), Ok(0), "map");
    check!(t, map.nr_entries > 0, "{} entries", map.nr_entries);
    let first = memory::read::<MapEntry>(map.buffer.into());
    let first = first.map(|entry| (entry.addr.get(), entry.kind.get()));
    check_eq!(t, first, Some((0, 1)), "the first is RAM at 0");
    map.buffer = NOWHERE;
    let wrong = command(MEMORY_OP, MEMORY_MAP, &mut map);
    check_eq!(t, wrong, refused(Errno::Efault), "a map to nowhere");
}

fn placing(t: &mut Report) {
    let mut one = CompatAddToPhysmap::new_zeroed();
    one.domid = DomId::SELF.0;
    one.space = SPACE_SHARED_INFO;
    one.gpfn = word(SHARED.gfn().raw());
    let placed = command(MEMORY_OP, ADD_TO_PHYSMAP, &mut one);
    check_eq!(t, placed, Ok(0), "placing the shared page");
    let version = SHARED.view().u32(compat::WC_VERSION).load(SeqCst);
    let seconds = SHARED.view().u32(compat::WC_SEC).load(SeqCst);
    check!(t, version != 0 && seconds != 0, "a narrow wall clock");

    // The frames of the grant table, and one that there is not.
    let mut idxs = [0, 0x7000_0000_u32];
    let mut gpfns = [word(TABLE.gfn().raw()), word(HOLE.raw())];
    let mut errs = [GUARD; 3];
    let mut batch = CompatAddToPhysmapBatch::new_zeroed();
    batch.domid = DomId::SELF.0;
    batch.space = u16::try_from(SPACE_GRANT_TABLE).unwrap_or(0);
    batch.size = 2;
    batch.idxs = at(&mut idxs);
    batch.gpfns = at(&mut gpfns);
    batch.errs = at(&mut errs);
    let placed = command(MEMORY_OP, ADD_TO_PHYSMAP_BATCH, &mut batch);
    check_eq!(t, placed, Ok(0), "a batch");
    let wrong = (-(Errno::Einval as i32)).cast_unsigned();
    check_eq!(t, errs, [0, wrong, GUARD], "what became of each");
    batch.errs = NOWHERE;
    let wrong = command(MEMORY_OP, ADD_TO_PHYSMAP_BATCH, &mut batch);
    check_eq!(t, wrong, refused(Errno::Efault), "results to nowhere");

    let mut gone = CompatRemoveFromPhysmap::new_zeroed();
    gone.domid = DomId::SELF.0;
    gone.gpfn = word(HOLE.raw());
    let wrong = command(MEMORY_OP, REMOVE_FROM_PHYSMAP, &mut gone);
    check!(t, wrong.is_err(), "nothing is there ({wrong:?})");
    gone.gpfn = word(TABLE.gfn().raw());
    let removed = command(MEMORY_OP, REMOVE_FROM_PHYSMAP, &mut gone);
    check_eq!(t, removed, Ok(0), "the table's frame taken away");
}

/// Where a port has its bit in one of the narrow bitmaps.
fn word_of(bitmap: usize, port: u32) -> usize {
    bitmap + (port / 32) as usize * 4
}

fn is_pending(port: u32) -> bool {
    let at = word_of(compat::EVTCHN_PENDING, port);
    SHARED.view().u32(at).load(SeqCst) >> (port % 32) & 1 != 0
}

fn channels(t: &mut Report) {
    let mut waiting = AllocUnbound::new_zeroed();
    waiting.dom = DomId::SELF.0;
    waiting.remote_dom = DomId::SELF.0;
    let made = command(EVENT_CHANNEL_OP, ALLOC_UNBOUND, &mut waiting);
    check_eq!(t, made, Ok(0), "a port");
    let mut bound = BindInterdomain::new_zeroed();
    bound.remote_dom = DomId::SELF.0;
    bound.remote_port = waiting.port;
    let made = command(EVENT_CHANNEL_OP, BIND_INTERDOMAIN, &mut bound);
    check_eq!(t, made, Ok(0), "its other end");
    // A selector has 32 ports to a bit, as a 32-bit bitmap has them to a word.
    let page = SHARED.view();
    let selector = page.u32(compat::vcpu_info::PENDING_SEL);
    selector.store(0, SeqCst);
    let mut port = Port {
        port: bound.local_port,
    };
    check_eq!(
        t,
        command(EVENT_CHANNEL_OP, SEND, &mut port),
        Ok(0),
        "an event"
    );
    check!(
        t,
        is_pending(waiting.port),
        "it is pending in the narrow bitmap"
    );
    check_eq!(
        t,
        selector.load(SeqCst),
        1 << (waiting.port / 32),
        "selector"
    );
    let mut status = Status::new_zeroed();
    status.dom = DomId::SELF.0;
    status.port = waiting.port;
    let asked = command(EVENT_CHANNEL_OP, STATUS, &mut status);
    check_eq!(
        t,
        (asked, status.status, status.remote_port),
        (Ok(0), port_status::INTERDOMAIN, bound.local_port),
        "status"
    );
    let wrong = call(EVENT_CHANNEL_OP, [word(SEND), NOWHERE, 0, 0, 0]);
    check_eq!(t, wrong, refused(Errno::Efault), "a port nowhere");
    for number in [waiting.port, bound.local_port] {
        port.port = number;
        let closed = command(EVENT_CHANNEL_OP, CLOSE, &mut port);
        check_eq!(t, closed, Ok(0), "closing {number}");
    }
    // What a 32-bit bitmap cannot hold.
    port.port = 1024;
    let wrong = command(EVENT_CHANNEL_OP, SEND, &mut port);
    check_eq!(t, wrong, refused(Errno::Einval), "port 1024");
}

/// Waits for a port, or until `timeout`.
fn poll(port: u32, timeout: u64) -> guests::narrow::Reply {
    let mut ports = [port];
    let mut request = CompatPoll {
        ports: at(&mut ports),
        nr_ports: 1,
        timeout,
    };
    command(SCHED_OP, POLL, &mut request)
}

fn timers(t: &mut Report) {
    const WAIT_NS: u64 = 3_000_000;
    // The time of vCPU 0 is in the same place for both widths.
    let Ok(shared) = SharedInfo::map_at(SHARED.gfn()) else {
        check!(t, false, "the shared page");
        return;
    };
    let mut timer = BindVirq::new_zeroed();
    timer.virq = virq::TIMER.0;
    let bound = command(EVENT_CHANNEL_OP, BIND_VIRQ, &mut timer);
    check_eq!(t, bound, Ok(0), "the timer's port");
    let forget = || {
        let at = word_of(compat::EVTCHN_PENDING, timer.port);
        SHARED.view().u32(at).store(0, SeqCst);
        // The first word of vcpu_info: an upcall that waits would end the poll.
        SHARED.view().u32(0).store(0, SeqCst);
    };
    forget();
    let fires = |t: &mut Report, end: u64, what: &str| {
        check_eq!(t, poll(timer.port, end + WAIT_NS), Ok(0), "waiting, {what}");
        let now = shared.now();
        check!(t, now >= end, "{what} too early: {now} before {end}");
        let there = is_pending(timer.port);
        check!(t, there, "{what} raised its event");
        forget();
    };
    let end = shared.now() + WAIT_NS;
    let halves = [word(end & 0xffff_ffff), word(end >> 32), 0, 0, 0];
    check_eq!(t, call(SET_TIMER_OP, halves), Ok(0), "a time in halves");
    fires(t, end, "a timer set in halves");
    // Its upper half counts: 2^32 ns later is not now.
    let halves = [halves[0], halves[1] + 1, 0, 0, 0];
    check_eq!(t, call(SET_TIMER_OP, halves), Ok(0), "a later time");
    let end = shared.now() + WAIT_NS;
    check_eq!(t, poll(timer.port, end), Ok(0), "waiting for it");
    let there = is_pending(timer.port);
    check!(t, !there && shared.now() >= end, "it does not fire yet");

    let end = shared.now() + WAIT_NS;
    let mut request = CompatSetSingleshotTimer::new_zeroed();
    request.timeout_abs_ns = end.into();
    let set = call(
        VCPU_OP,
        [word(SET_SINGLESHOT_TIMER), 0, at(&mut request), 0, 0],
    );
    check_eq!(t, set, Ok(0), "a timer by vcpu_op");
    fires(t, end, "a timer set by vcpu_op");

    let mut request = CompatPoll {
        ports: NOWHERE,
        nr_ports: 1,
        timeout: end,
    };
    let wrong = command(SCHED_OP, POLL, &mut request);
    check_eq!(t, wrong, refused(Errno::Efault), "ports nowhere");
}

fn vcpu_op<T>(cmd: u64, argument: &mut T) -> guests::narrow::Reply {
    call(VCPU_OP, [word(cmd), 0, at(argument), 0, 0])
}

fn runstates(t: &mut Report) {
    const WORDS: usize = size_of::<CompatRunstateInfo>() / 4;
    let mut info = [GUARD; WORDS + 1];
    let asked = vcpu_op(GET_RUNSTATE_INFO, &mut info);
    check_eq!(t, asked, Ok(0), "a runstate");
    check_eq!(
        t,
        (info[0], info[WORDS]),
        (runstate::RUNNING, GUARD),
        "44 bytes of it"
    );
    check!(t, info[3] != GUARD || info[4] != GUARD, "time spent");

    let page = AREA.view();
    for index in 0..=WORDS {
        page.u32(index * 4).store(GUARD, SeqCst);
    }
    // The upper half of a linear address is not the caller's to fill.
    let mut area = RegisterArea {
        address: AREA.address() | 0xdead_beef << 32,
    };
    let registered = vcpu_op(REGISTER_RUNSTATE_MEMORY_AREA, &mut area);
    check_eq!(t, registered, Ok(0), "an area for it");
    let word_at = |index: usize| page.u32(index * 4).load(SeqCst);
    check_eq!(
        t,
        (word_at(0), word_at(WORDS)),
        (runstate::RUNNING, GUARD),
        "the area, and behind it"
    );
    let spent = memory::read::<CompatRunstateInfo>(AREA.address());
    let spent = spent.map_or(0, |info| info.time.iter().map(|time| time.get()).sum());
    check!(t, spent > 0, "the area tells time spent");
    area.address = 0;
    let none = vcpu_op(REGISTER_RUNSTATE_MEMORY_AREA, &mut area);
    check_eq!(t, none, Ok(0), "no area any more");
    area.address = NOWHERE.into();
    let wrong = vcpu_op(REGISTER_RUNSTATE_MEMORY_AREA, &mut area);
    check_eq!(t, wrong, refused(Errno::Efault), "an area nowhere");
}

fn registered_info(t: &mut Report) {
    // A place that would not do for 64 bits.
    const OFFSET: u32 = 0x104;
    let mut place = RegisterVcpuInfo::new_zeroed();
    place.mfn = INFO.gfn().raw();
    place.offset = OFFSET + 2;
    let wrong = vcpu_op(REGISTER_VCPU_INFO, &mut place);
    check_eq!(t, wrong, refused(Errno::Enxio), "an odd place");
    place.offset = OFFSET;
    let moved = vcpu_op(REGISTER_VCPU_INFO, &mut place);
    check_eq!(t, moved, Ok(0), "another place for vcpu_info");
    let time = INFO.address() + u64::from(OFFSET) + vcpu_info::TIME as u64;
    let clock = memory::read::<VcpuTimeInfo>(time);
    let runs = clock.is_some_and(|clock| clock.tsc_to_system_mul != 0);
    check!(t, runs, "its clock is there");
    let again = vcpu_op(REGISTER_VCPU_INFO, &mut place);
    check_eq!(t, again, refused(Errno::Einval), "only once");
}

fn grant_table(t: &mut Report) {
    let mut query = QuerySize::new_zeroed();
    query.dom = DomId::SELF.0;
    let mut array = [query];
    let asked = operate(QUERY_SIZE, &mut array);
    let [query] = array;
    check_eq!(t, (asked, query.status), (Ok(0), status::OKAY), "its size");
    check!(t, query.nr_frames >= 1, "{} frames", query.nr_frames);

    check!(t, grants::table().is_ok(), "the table");
    let mut frames = [GUARD; 2];
    let mut request = CompatSetupTable::new_zeroed();
    request.dom = DomId::SELF.0;
    request.nr_frames = 1;
    request.status = i16::MAX;
    request.frame_list = at(&mut frames);
    let mut array = [request];
    let asked = operate(SETUP_TABLE, &mut array);
    let [mut request] = array;
    check_eq!(t, (asked, request.status), (Ok(0), status::OKAY), "frames");
    check!(t, frames[0] != GUARD, "one frame is named");
    check_eq!(t, frames[1], GUARD, "in 32 bits");
    request.frame_list = NOWHERE;
    let mut array = [request];
    let asked = operate(SETUP_TABLE, &mut array);
    let [request] = array;
    check_eq!(
        t,
        (asked, request.status),
        (Ok(0), status::BAD_VIRT_ADDR),
        "frames to nowhere"
    );
}

fn operate<T>(cmd: u64, array: &mut [T]) -> guests::narrow::Reply {
    let count = word(array.len() as u64);
    call(GRANT_TABLE_OP, [word(cmd), at(array), count, 0, 0])
}

/// Copies and mappings with a grant to this domain itself.
fn copies(t: &mut Report) {
    const GREF: GrantRef = GrantRef(20);
    const TEXT: u64 = 0x1122_3344_5566_7788;
    let own = domid();
    grants::write_entry(
        GREF,
        abi::grant_table::flags::PERMIT_ACCESS,
        own,
        FROM.gfn(),
    );
    let _ = cpu::write64(FROM.address() + 0x10, TEXT);
    let copy = |gref: u32, offset| {
        let mut copy = CompatGrantCopy::new_zeroed();
        copy.source = CompatCopyPtr {
            place: gref,
            domid: own.0,
            offset: 0x10,
        };
        copy.dest = CompatCopyPtr {
            place: word(TO.gfn().raw()),
            domid: DomId::SELF.0,
            offset,
        };
        copy.len = 8;
        copy.flags = copy_flags::SOURCE_GREF;
        copy.status = i16::MAX;
        copy
    };
    let mut array = [copy(GREF.0, 0), copy(21, 8), copy(GREF.0, 0x20)];
    check_eq!(t, operate(COPY, &mut array), Ok(0), "three copies");
    let done = array.map(|copy| copy.status);
    let wanted = [status::OKAY, status::GENERAL_ERROR, status::OKAY];
    check_eq!(t, done, wanted, "what became of each");
    let read = [0, 8, 0x20].map(|offset| cpu::read64(TO.address() + offset));
    check_eq!(t, read, [Ok(TEXT), Ok(0), Ok(TEXT)], "what was copied");
    let wrong = call(GRANT_TABLE_OP, [word(COPY), NOWHERE, 1, 0, 0]);
    check_eq!(t, wrong, refused(Errno::Efault), "copies nowhere");

    let mut map = [map_request(own, GREF, HOLE, map_flags::HOST_MAP)];
    check_eq!(t, operate(MAP_GRANT_REF, &mut map), Ok(0), "mapping");
    let [map] = map;
    check_eq!(t, map.status, status::OKAY, "mapped");
    let read = cpu::read64(HOLE.gpa().raw() + 0x10);
    check_eq!(t, read, Ok(TEXT), "what is mapped");
    let mut unmap = [unmap_request(map.handle, HOLE)];
    check_eq!(t, operate(UNMAP_GRANT_REF, &mut unmap), Ok(0), "unmapping");
    check_eq!(t, unmap[0].status, status::OKAY, "unmapped");
}

fn batches(t: &mut Report) {
    let mut port = Port { port: 1000 };
    let entry = |op: u64, args: [u32; 6]| CompatEntry {
        op: word(op),
        result: GUARD,
        args,
    };
    let send = [word(SEND), at(&mut port), 0, 0, 0, GUARD];
    let mut list = [
        entry(XEN_VERSION, [word(VERSION), 0, 0, 0, 0, GUARD]),
        entry(EVENT_CHANNEL_OP, send),
        entry(SCHED_OP, [word(abi::sched::YIELD), 0, 0, 0, 0, GUARD]),
        entry(MULTICALL, [0; 6]),
        entry(XEN_VERSION, [word(VERSION), 0, 0, 0, 0, GUARD]),
    ];
    let most = word(list.len() as u64 - 1);
    let batch = call(MULTICALL, [at(&mut list), most, 0, 0, 0]);
    check_eq!(t, batch, Ok(0), "a batch");
    let invalid = (-(Errno::Einval as i32)).cast_unsigned();
    check_eq!(
        t,
        list.map(|entry| entry.result),
        [INTERFACE_VERSION, invalid, 0, invalid, GUARD],
        "its results, and what it has no part in"
    );
    let wrong = call(MULTICALL, [NOWHERE, 1, 0, 0, 0]);
    check_eq!(t, wrong, refused(Errno::Efault), "a batch nowhere");
    let end = (PAGE_SIZE - size_of::<CompatEntry>()) as u64;
    let last = FROM.address() + end;
    memory::write(last, zerocopy::IntoBytes::as_bytes(&list[0]));
    check_eq!(
        t,
        call(MULTICALL, [word(last), 1, 0, 0, 0]),
        Ok(0),
        "a batch at the end of a page"
    );
}
