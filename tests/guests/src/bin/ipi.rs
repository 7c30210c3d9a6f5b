//! Two vCPUs: start by INIT and start-up IPIs; interrupts between them by events and by the APIC.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use abi::{Errno, EvtchnPort, VcpuId};
use guests::apic::{Apic, icr};
use guests::report::Report;
use guests::xen::SharedInfo;
use guests::{check, check_eq, cpu, events, interrupts, smp};
use pv_drivers::guest::{event_channel, hvm};
use pv_drivers::hypercall::{Bare, bare};

guests::main!(run);

const FIXED: u8 = 0x61;
const NMI: u8 = 2;
/// How long anything may take.
const PATIENCE: u64 = 2_000_000_000;
const MIN_TURNS: u32 = 1_000_000;
const ROUNDS: u64 = 50;

static STOP: AtomicBool = AtomicBool::new(false);
static WAKEUPS: AtomicU64 = AtomicU64::new(0);

/// What vCPU 1 does: sleep, and wake for each interrupt.
fn sleeper() {
    Apic::current().enable();
    while !STOP.load(Ordering::Acquire) {
        cpu::wait_for_interrupt();
        WAKEUPS.fetch_add(1, Ordering::AcqRel);
    }
}

fn wait(shared: SharedInfo, mut done: impl FnMut() -> bool) -> bool {
    // By the clock and by turns: a clock that is set right meanwhile may jump.
    let end = shared.now() + PATIENCE;
    let mut turns = 0_u32;
    while !done() {
        turns = turns.saturating_add(1);
        if turns > MIN_TURNS && shared.now() > end {
            return false;
        }
        core::hint::spin_loop();
    }
    true
}

fn end_of_interrupt(_frame: &mut interrupts::Frame) {
    Apic::current().eoi();
}

fn run(t: &mut Report) {
    let shared = SharedInfo::map();
    let apic = Apic::current();
    apic.enable();
    events::handle(false);
    interrupts::on(FIXED, end_of_interrupt);
    interrupts::on(NMI, interrupts::just_count);
    check_eq!(
        t,
        hvm::set_callback_vector(events::UPCALL),
        Ok(0),
        "upcalls by callback vector"
    );
    check_eq!(
        t,
        bare(Bare::VcpuIsUp(VcpuId(1))),
        Ok(0),
        "vCPU 1 is not up yet"
    );

    smp::start_by_sipi(apic, sleeper);
    let up = wait(shared, || smp::started() == 1);
    if !check!(t, up, "vCPU 1 starts by start-up IPI") {
        return;
    }
    check_eq!(t, bare(Bare::VcpuIsUp(VcpuId(1))), Ok(1), "vCPU 1 is up");

    by_event(t, shared);
    by_apic(t, shared, apic);

    STOP.store(true, Ordering::Release);
    apic.send(smp::apic_id_of(1), u64::from(FIXED));
    let down = wait(shared, || bare(Bare::VcpuIsUp(VcpuId(1))) == Ok(0));
    check!(t, down, "HLT with interrupts off takes vCPU 1 down");
    restart(t, shared, apic);
}

/// INIT and start-up IPIs again, first to a vCPU that is down, then to one that runs.
fn restart(t: &mut Report, shared: SharedInfo, apic: Apic) {
    STOP.store(false, Ordering::Release);
    for starts in 2..=3 {
        smp::start_by_sipi(apic, sleeper);
        let up = wait(shared, || smp::started() == starts);
        if !check!(t, up, "start {starts} of vCPU 1") {
            return;
        }
        check_eq!(t, bare(Bare::VcpuIsUp(VcpuId(1))), Ok(1), "it is up");
    }
    apic.send_init(smp::apic_id_of(1));
    check_eq!(
        t,
        bare(Bare::VcpuIsUp(VcpuId(1))),
        Ok(0),
        "INIT takes it down"
    );
    let early = bare(Bare::VcpuUp(VcpuId(1)));
    let refused = early.is_err_and(|refused| refused == Errno::Einval);
    check!(t, refused, "up after INIT ({early:?})");
}

fn by_event(t: &mut Report, shared: SharedInfo) {
    let Ok(port) = event_channel::bind_ipi(VcpuId(1)) else {
        check!(t, false, "binding an IPI to vCPU 1");
        return;
    };
    for round in 1..=ROUNDS {
        send(t, port);
        let came = wait(shared, || events::count(port) == round);
        if !check!(t, came, "event {round} reaches vCPU 1") {
            return;
        }
    }
    check_eq!(t, events::handled_by(1), ROUNDS, "vCPU 1 handled them all");
    check_eq!(t, events::handled_by(0), 0, "vCPU 0 handled none");
}

fn send(t: &mut Report, port: EvtchnPort) {
    let sent = event_channel::send(port);
    check!(t, sent == Ok(0), "sending to vCPU 1 ({sent:?})");
}

fn by_apic(t: &mut Report, shared: SharedInfo, apic: Apic) {
    for round in 1..=ROUNDS {
        apic.send(smp::apic_id_of(1), u64::from(FIXED));
        let came = wait(shared, || interrupts::count(FIXED) == round);
        if !check!(t, came, "fixed IPI {round} reaches vCPU 1") {
            return;
        }
    }
    apic.send(0, icr::OTHERS | u64::from(FIXED));
    let came = wait(shared, || interrupts::count(FIXED) == ROUNDS + 1);
    check!(t, came, "an IPI to all others reaches vCPU 1");
    cpu::enable_interrupts();
    apic.send(0, icr::SELF | u64::from(FIXED));
    let came = wait(shared, || interrupts::count(FIXED) == ROUNDS + 2);
    check!(t, came, "an IPI to oneself arrives");
    cpu::disable_interrupts();
    apic.send(smp::apic_id_of(1), icr::NMI);
    let came = wait(shared, || interrupts::count(NMI) == 1);
    check!(t, came, "an NMI reaches vCPU 1 asleep");
    check_eq!(
        t,
        bare(Bare::SendNmi(VcpuId(1))),
        Ok(0),
        "an NMI by hypercall"
    );
    let came = wait(shared, || interrupts::count(NMI) == 2);
    check!(t, came, "an NMI by hypercall reaches vCPU 1");
    check!(
        t,
        WAKEUPS.load(Ordering::Acquire) > ROUNDS,
        "each woke vCPU 1 from HLT"
    );
}
