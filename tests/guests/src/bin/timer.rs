//! Time: the paravirtual clock, the wall clock, runstates, and timers against the clock.
#![no_std]
#![no_main]

use abi::hypercall::VCPU_OP;
use abi::vcpu::{
    GET_RUNSTATE_INFO, REGISTER_VCPU_TIME_MEMORY_AREA, RegisterArea, RunstateInfo, VcpuTimeInfo,
    runstate, time_flags,
};
use abi::{EvtchnPort, VcpuId};
use guests::memory::{self, Page};
use guests::report::Report;
use guests::xen::SharedInfo;
use guests::{check, check_eq, cpu, events, say, xen};
use pv_drivers::guest::{clock, timer};
use zerocopy::FromZeros;

guests::main!(run);

const TSC: u32 = 0x10;
/// Where the second copy of the clock is: across a page's end.
const SECOND: usize = abi::PAGE_SIZE - 8;

static SECOND_CLOCK: [Page; 2] = [const { Page::new() }; 2];

const SELF: VcpuId = VcpuId(0);
const MS: u64 = 1_000_000;
/// How late a timer may be.
const LATE: u64 = MS;

fn run(t: &mut Report) {
    let shared = SharedInfo::map();
    clocks(t, shared);
    let Some(port) = events::handle_timer(t) else {
        return;
    };
    check_eq!(
        t,
        timer::stop_periodic(SELF),
        Ok(0),
        "stopping the periodic timer"
    );
    one_shot(t, shared, port);
    stopping(t, shared, port);
    periodic(t, shared, port);
    runstates(t, shared);
    written_tsc(t, shared);
}

fn clocks(t: &mut Report, shared: SharedInfo) {
    let record = clock::snapshot(shared.page(), shared.vcpu_info());
    check!(t, record.tsc_to_system_mul != 0, "the clock has a scale");
    let mut last = shared.now();
    let start = (last, cpu::rdtsc());
    for _ in 0..2000 {
        let now = shared.now();
        if now < last {
            check!(t, false, "the clock ran backward, {last} to {now}");
        }
        last = now;
    }
    check!(t, last > start.0, "the clock advances");
    let (seconds, ns) = shared.wall_clock();
    say!(
        "wall clock at time 0: {seconds}.{ns:09}, TSC scale {:#x}",
        record.tsc_to_system_mul
    );
    check!(
        t,
        seconds > 1_500_000_000,
        "wall clock {seconds} is in this age"
    );
    check!(t, ns < 1_000_000_000, "wall clock nanoseconds {ns}");
}

/// When `port` fired, on the clock.
fn fired(shared: SharedInfo, port: EvtchnPort) -> u64 {
    let record = clock::snapshot(shared.page(), shared.vcpu_info());
    clock::system_time(&record, events::last(port))
}

fn one_shot(t: &mut Report, shared: SharedInfo, port: EvtchnPort) {
    let mut worst = 0;
    for ahead in [100_000, MS, 3 * MS, 10 * MS, 200_000] {
        let handled = events::count(port);
        let deadline = shared.now() + ahead;
        check_eq!(
            t,
            timer::set_singleshot(SELF, deadline),
            Ok(0),
            "a one-shot timer"
        );
        events::sleep_past(port, handled);
        let at = fired(shared, port);
        check!(
            t,
            at >= deadline,
            "{ahead} ns: {} ns early",
            deadline.saturating_sub(at)
        );
        worst = worst.max(at.saturating_sub(deadline));
    }
    say!("timer at most {worst} ns late");
    check!(t, worst < LATE, "one-shot timer {worst} ns late");

    // The vCPU busy, not asleep: the timer interrupts it.
    let handled = events::count(port);
    let deadline = shared.now() + 2 * MS;
    check_eq!(
        t,
        timer::set_singleshot(SELF, deadline),
        Ok(0),
        "a timer while busy"
    );
    cpu::enable_interrupts();
    shared.spin_until(deadline + LATE);
    check_eq!(
        t,
        events::count(port),
        handled + 1,
        "it fired while the vCPU was busy"
    );

    let handled = events::count(port);
    check_eq!(
        t,
        timer::set_singleshot(SELF, shared.now() - MS),
        Ok(0),
        "a deadline gone by"
    );
    shared.spin_until(shared.now() + LATE);
    check_eq!(t, events::count(port), handled + 1, "it fired at once");

    let deadline = shared.now() + MS;
    check_eq!(t, timer::set_timer(deadline), Ok(0), "set_timer_op");
    events::sleep_past(port, handled + 1);
    check!(
        t,
        fired(shared, port) >= deadline,
        "set_timer_op kept its deadline"
    );
}

fn stopping(t: &mut Report, shared: SharedInfo, port: EvtchnPort) {
    cpu::enable_interrupts();
    let handled = events::count(port);
    check_eq!(
        t,
        timer::set_singleshot(SELF, shared.now() + 2 * MS),
        Ok(0),
        "a timer to stop"
    );
    check_eq!(t, timer::stop_singleshot(SELF), Ok(0), "stopping it");
    shared.spin_until(shared.now() + 4 * MS);
    check_eq!(
        t,
        events::count(port),
        handled,
        "a stopped timer stays silent"
    );
    check_eq!(
        t,
        timer::set_singleshot(SELF, shared.now() + 3600 * 1000 * MS),
        Ok(0),
        "far ahead"
    );
    check_eq!(
        t,
        timer::set_singleshot(SELF, shared.now() + MS),
        Ok(0),
        "and nearer"
    );
    shared.spin_until(shared.now() + MS + LATE);
    check_eq!(
        t,
        events::count(port),
        handled + 1,
        "the last setting counts"
    );
}

fn periodic(t: &mut Report, shared: SharedInfo, port: EvtchnPort) {
    let handled = events::count(port);
    check_eq!(
        t,
        timer::set_periodic(SELF, 2 * MS),
        Ok(0),
        "a periodic timer"
    );
    shared.spin_until(shared.now() + 21 * MS);
    check_eq!(t, timer::stop_periodic(SELF), Ok(0), "stopping it");
    let ticks = events::count(port) - handled;
    check!(
        t,
        (8..=12).contains(&ticks),
        "{ticks} ticks of 2 ms in 21 ms"
    );
    let handled = events::count(port);
    shared.spin_until(shared.now() + 6 * MS);
    check!(
        t,
        events::count(port) <= handled + 1,
        "no ticks after the stop"
    );
    cpu::disable_interrupts();
}

fn runstates(t: &mut Report, shared: SharedInfo) {
    let mut info = RunstateInfo::new_zeroed();
    let before = shared.now();
    let reply = xen::call(
        VCPU_OP,
        [GET_RUNSTATE_INFO, 0, (&raw mut info) as u64, 0, 0],
    );
    check_eq!(t, reply, Ok(0), "runstate");
    check_eq!(t, info.state, runstate::RUNNING, "whoever asks is running");
    let [running, _, blocked, _] = info.time;
    say!("running {running} ns, blocked {blocked} ns of {before} ns");
    check!(t, running > 0, "time spent running");
    check!(
        t,
        blocked > 5 * MS,
        "time spent asleep in HLT ({blocked} ns)"
    );
}

/// The clock goes on over a write to the TSC, in every place where the guest has it.
fn written_tsc(t: &mut Report, shared: SharedInfo) {
    let place = SECOND_CLOCK[0].address() + SECOND as u64;
    let mut area = RegisterArea { address: place };
    let reply = xen::call(
        VCPU_OP,
        [
            REGISTER_VCPU_TIME_MEMORY_AREA,
            0,
            (&raw mut area) as u64,
            0,
            0,
        ],
    );
    check_eq!(t, reply, Ok(0), "a second copy of the clock");
    for tsc in [0, 1 << 40, 1 << 62, 12_345] {
        let before = shared.now();
        check_eq!(t, cpu::wrmsr(TSC, tsc), Ok(()), "writing the TSC");
        check!(
            t,
            cpu::rdtsc().wrapping_sub(tsc) < 1 << 24,
            "the TSC is what was written"
        );
        let after = shared.now();
        check!(
            t,
            after >= before && after - before < MS,
            "the clock went from {before} to {after} as the TSC became {tsc:#x}"
        );
        let Some(second) = memory::read::<VcpuTimeInfo>(place) else {
            check!(t, false, "the second copy is there");
            return;
        };
        let copy = clock::system_time(&second, cpu::rdtsc());
        check!(
            t,
            copy >= after && copy - after < MS,
            "the second copy says {copy} at {after}"
        );
        check_eq!(
            t,
            second.flags & time_flags::TSC_STABLE,
            0,
            "no vCPU's TSC is another's"
        );
    }
}
