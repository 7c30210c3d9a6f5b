//! Two guests that make any hypercalls and cause any exits, beside a third that does nothing.
//!
//! What must hold whatever they do: a call answers with a known error or a result; the third
//! guest's memory stays as it was; each end of an event channel knows the other; who maps others'
//! pages has a handle for each; and when all are gone, every frame is free.

use abi::{DomId, EvtchnPort, Gva};
use calls::{Choice, Places, SHAPES};
use vmm_core::evtchn::State;
use vmm_core::testing::{CODE, Guest, TestMachine, VCPUS};
use vmx::GuestRegs;
use vmx::exit::{EptViolation, Exit, IoAccess};

use crate::Input;

/// The two that act, and the one that does not.
const IDS: [u16; 3] = [1, 2, 3];
/// Operations of one input at most.
const MOST: u64 = 400;
/// Where the bytes of calls lie.
const ARGUMENT: u64 = 0x9000;
/// The first frame that guests may lose.
const SPARE: u64 = 0x20;
/// A hole in guest-physical memory, mapped by the first vCPU's tables.
const HOLE: u64 = 0x180;
/// Ports that are looked at.
const PORTS: u32 = 16;
/// Frames of the third guest that are looked at.
const WITNESSES: core::ops::Range<u64> = 0x10..0x60;

pub(crate) fn run(input: &mut Input<'_>) -> u64 {
    let machine = TestMachine::take();
    let [a, b, idle] = IDS.map(|id| Guest::new(&machine, id).expect("room for a guest"));
    mark(&idle);
    let acting = [a, b];
    let mut done = 0;
    while !input.is_empty() && done < MOST {
        step(input, &acting);
        check(&acting);
        done += 1;
    }
    check_marks(&idle);
    assert!(idle.lives());
    let [a, b] = acting;
    let order = if input.flip() {
        [a, idle, b]
    } else {
        [b, a, idle]
    };
    order.into_iter().for_each(Guest::end);
    machine.check_empty();
    done
}

fn step(input: &mut Input<'_>, acting: &[Guest<'_>; 2]) {
    let me = input.index(2);
    let guest = &acting[me];
    let vcpu = input.below(VCPUS);
    match input.below(16) {
        0 => scribble(input, guest),
        1 => exit(input, guest, vcpu),
        2 => access(input, guest, vcpu),
        _ => call(input, guest, vcpu, me),
    }
}

fn call(input: &mut Input<'_>, guest: &Guest<'_>, vcpu: u32, me: usize) {
    let places = Places {
        wide: vcpu == 0,
        argument: ARGUMENT + u64::from(vcpu) * 0x1000,
        absent: HOLE << 12,
        domains: [IDS[me], IDS[1 - me], IDS[2]],
        ram: SPARE,
        hole: HOLE,
        vcpus: VCPUS,
    };
    let call = calls::random(input, &places, SHAPES);
    guest.write(places.argument, &call.bytes);
    if let Some(result) = guest.hypercall(vcpu, call.number, call.args) {
        check_result(result, places.wide, &call);
    }
}

/// A call answers with a small number or with one of the errors that there are.
fn check_result(result: u64, wide: bool, call: &calls::Call) {
    let result = if wide {
        result.cast_signed()
    } else {
        let [a, b, c, d, ..] = result.to_le_bytes();
        i32::from_le_bytes([a, b, c, d]).into()
    };
    const ERRORS: &[i64] = &[
        1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 14, 16, 17, 18, 19, 22, 28, 30, 33, 34, 38, 61, 75, 84, 95,
    ];
    let known = result >= 0 || ERRORS.contains(&-result);
    assert!(known, "{} {:x?} answers {result}", call.number, call.args);
}

/// The guest changes memory that it may have shared.
fn scribble(input: &mut Input<'_>, guest: &Guest<'_>) {
    let page = match input.below(4) {
        0 => HOLE,
        _ => SPARE,
    };
    let at = ((page + u64::from(input.below(16))) << 12) + u64::from(input.below(128)) * 8;
    guest.write(at, &input.bytes::<16>());
}

/// An exit of another kind.
fn exit(input: &mut Input<'_>, guest: &Guest<'_>, vcpu: u32) {
    let mut regs = GuestRegs::new();
    let exit = match input.below(4) {
        0 => Exit::Cpuid,
        1 => Exit::Rdmsr,
        2 => Exit::Wrmsr,
        _ => Exit::Io(IoAccess {
            port: 0x3f8,
            size: 1 << input.below(3),
            input: input.flip(),
            string: None,
            rep: input.flip(),
            immediate: false,
        }),
    };
    regs.rax = input.any();
    regs.rdx = input.any();
    regs.rcx = match input.below(4) {
        0 => input.any(),
        1 => 0x800 + u64::from(input.below(0x40)),
        2 => 0xc000_0080 + u64::from(input.below(8)),
        _ => u64::from(input.below(0x400)),
    };
    if regs.rcx == 0xc000_0080 {
        // What keeps the first vCPU a 64-bit one.
        return;
    }
    let _ = guest.exit(vcpu, &regs, exit);
}

/// An instruction touches memory that is not there.
fn access(input: &mut Input<'_>, guest: &Guest<'_>, vcpu: u32) {
    guest.write(CODE, &input.bytes::<15>());
    let mut regs = GuestRegs::new();
    let page = match input.below(4) {
        0 => 0xfee00,
        1 => SPARE + u64::from(input.below(16)),
        _ => HOLE + u64::from(input.below(16)),
    };
    let at = page << 12 | u64::from(input.below(4096));
    for number in [0, 1, 2, 3, 5, 6, 7] {
        let value = match input.below(4) {
            0 => input.any(),
            1 => input.below(16).into(),
            _ => at,
        };
        let _ = regs.set_gpr(number, value);
    }
    let violation = EptViolation {
        gpa: abi::Gpa::new(at),
        gla: Some(Gva::new(at)),
        gla_is_final: input.below(16) != 0,
        read: input.flip(),
        write: input.flip(),
        exec: input.below(32) == 1,
        ..EptViolation::default()
    };
    let _ = guest.exit(vcpu, &regs, Exit::EptViolation(violation));
}

fn mark(guest: &Guest<'_>) {
    for page in WITNESSES {
        assert!(guest.write(page << 12, &(page ^ u64::MAX).to_le_bytes()));
    }
}

fn check_marks(guest: &Guest<'_>) {
    for page in WITNESSES {
        let mut word = [0; 8];
        assert!(guest.read(page << 12, &mut word), "{page:#x} is gone");
        assert_eq!(u64::from_le_bytes(word), page ^ u64::MAX, "{page:#x}");
    }
}

fn check(acting: &[Guest<'_>; 2]) {
    let states = [0, 1].map(|guest: usize| {
        let table = acting[guest].domain.evtchn.lock();
        core::array::from_fn::<_, { PORTS as usize }, _>(|port| {
            let port = EvtchnPort(u32::try_from(port).expect("few ports"));
            table.state(port).unwrap_or(State::Free)
        })
    });
    for (me, ports) in states.iter().enumerate() {
        for (number, state) in ports.iter().enumerate() {
            check_channel(&states, IDS[me], number, *state);
        }
        let domain = &acting[me].domain;
        let handles = u64::from(domain.maptrack.lock().len());
        assert_eq!(domain.p2m.read().foreign_pages(), handles, "a handle each");
    }
}

/// The other end of a channel is bound to this one.
fn check_channel(states: &[[State; PORTS as usize]; 2], me: u16, number: usize, state: State) {
    let State::Interdomain { dom, port } = state else {
        return;
    };
    let them = IDS.iter().position(|id| DomId(*id) == dom);
    let them = them.expect("a domain that is there");
    let end = states[them].get(port.0 as usize);
    let back = State::Interdomain {
        dom: DomId(me),
        port: EvtchnPort(u32::try_from(number).expect("few ports")),
    };
    assert!(
        end.is_none_or(|end| *end == back),
        "{me}:{number} {state:?} {end:?}"
    );
}
