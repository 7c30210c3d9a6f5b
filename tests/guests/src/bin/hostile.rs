//! Random hypercalls and accesses to MSRs, ports and memory, from `seed=N`, `operations=N` of them;
//! `peer=N` is another domain to name in them. Much of what they name does not exist, and the other
//! vCPU changes the memory that the arguments lie in, all the time.
//!
//! What would end the domain is left out. Whatever is answered is right; the guest passes when it
//! gets to its end and nothing was written where it did not ask for it. What became of others is
//! for them to say.
#![no_std]
#![no_main]
#![expect(
    clippy::cast_possible_truncation,
    reason = "any bits of a random number will do"
)]

use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use core::sync::atomic::{AtomicBool, AtomicU64};

use abi::hvm::{SET_EVTCHN_UPCALL_VECTOR, SET_PARAM};
use abi::hypercall::{HVM_OP, MULTICALL, SCHED_OP, multicall};
use abi::{Gfn, PAGE_SHIFT};
use calls::{Call, Choice, Generator, Places, SHAPES, Shape};
use guests::memory::{self, Page};
use guests::report::Report;
use guests::{check, check_eq, cpu, interrupts, runtime, say, smp, xen};
use heapless::Vec;

guests::main!(run);

type Shapes = Vec<Shape, 128>;

/// Memory that no operation names.
static PRIVATE: [Page; 16] = [const { Page::new() }; 16];
static STOP: AtomicBool = AtomicBool::new(false);
static WRITES: AtomicU64 = AtomicU64::new(0);
static OTHER_CALLS: AtomicU64 = AtomicU64::new(0);
static SEED: AtomicU64 = AtomicU64::new(0);

/// The page that each vCPU's arguments lie in. They may reach into the next one; behind that there
/// is nothing, so that no list that the other vCPU has made long is written over what is needed.
const ARGUMENTS: [Gfn; 2] = [Gfn::new(0xb00), Gfn::new(0xb40)];
/// Sixteen frames far from the image.
const SPARE: u64 = 0xc00;
/// Frames in a hole that the runtime maps.
const HOLE: u64 = 0xd_0000;
/// What is not there behind the arguments.
const BEHIND: [u64; 2] = [ARGUMENTS[0].raw() + 2, ARGUMENTS[1].raw() + 2];
/// The last frame below the image: without it, no extent that begins below reaches the image.
const GUARD: u64 = 0x1ff;
/// The local APIC's page.
const APIC: u64 = 0xfee0_0000;
/// The first vector that is no exception's.
const FIRST_VECTOR: u64 = 0x20;

fn places(vcpu: usize) -> Places {
    Places {
        wide: true,
        argument: ARGUMENTS[vcpu].raw() << PAGE_SHIFT,
        absent: memory::MAPPED_END,
        domains: [xen::domid().0, peer(), 0],
        ram: SPARE,
        hole: HOLE,
        vcpus: 2,
    }
}

/// The domain to meddle with.
fn peer() -> u16 {
    let peer = runtime::option("peer").unwrap_or(0);
    u16::try_from(peer).unwrap_or(0)
}

/// What can be called without an end of the domain or an interrupt that looks like an exception.
fn shapes() -> Shapes {
    let named = |shape: &Shape, command| shape.number == HVM_OP && shape.command == command;
    let harmless = |shape: &&Shape| {
        !shape.ends && !named(shape, SET_PARAM) && !named(shape, SET_EVTCHN_UPCALL_VECTOR)
    };
    SHAPES.iter().filter(harmless).copied().collect()
}

fn run(t: &mut Report) {
    let seed = runtime::option("seed").unwrap_or(1);
    let operations = runtime::option("operations").unwrap_or(100_000);
    say!("seed {seed}, {operations} operations");
    SEED.store(seed, SeqCst);
    interrupts::on(2, interrupts::just_count);
    (0x20..=0xff).for_each(|vector| interrupts::on(vector, interrupts::just_count));
    check_eq!(
        t,
        xen::decrease_reservation(&[GUARD, BEHIND[0], BEHIND[1]]),
        Ok(3),
        "three frames less"
    );
    fill_private();
    check_eq!(t, smp::start_by_hypercall(other), Ok(0), "the other vCPU");
    cpu::enable_interrupts();
    let (mut choice, places, shapes) = (Generator::new(seed), places(0), shapes());
    let mut refused = 0_u64;
    let mut faults = 0_u64;
    for _ in 0..operations {
        match choice.below(8) {
            0 => faults += u64::from(!msr(&mut choice)),
            1 => faults += u64::from(!port(&mut choice)),
            2 => faults += u64::from(!access(&mut choice)),
            _ => refused += u64::from(!call(&mut choice, 0, &places, &shapes)),
        }
    }
    cpu::disable_interrupts();
    STOP.store(true, SeqCst);
    check!(t, refused > 0, "nothing was refused");
    check!(t, WRITES.load(SeqCst) > 1000, "the other vCPU took part");
    check_private(t);
    say!(
        "{refused} calls refused, {faults} faults; the other vCPU: {} writes, {} calls",
        WRITES.load(SeqCst),
        OTHER_CALLS.load(SeqCst)
    );
}

/// One call; true unless it was refused.
fn call(choice: &mut Generator, vcpu: usize, places: &Places, shapes: &Shapes) -> bool {
    let mut call = calls::random(choice, places, shapes);
    while may_end(&call) {
        call = calls::random(choice, places, shapes);
    }
    let page = memory::view(ARGUMENTS[vcpu]);
    for (word, at) in call.bytes.chunks_exact(8).zip((0..).step_by(8)) {
        let word = word
            .first_chunk()
            .map_or(0, |word| u64::from_le_bytes(*word));
        page.u64(at).store(word, Relaxed);
    }
    xen::call(call.number, call.args).is_ok()
}

/// True for a batch with a call that would end the domain if the other vCPU changed its command.
fn may_end(call: &Call) -> bool {
    let number = |entry: &[u8]| {
        entry
            .first_chunk()
            .map_or(0, |word| u64::from_le_bytes(*word))
    };
    call.number == MULTICALL
        && call
            .bytes
            .chunks_exact(size_of::<multicall::Entry>())
            .any(|entry| [SCHED_OP, HVM_OP].contains(&number(entry)))
}

/// An access to an MSR; true unless it faulted. Left out is what stops a vCPU or the runtime.
fn msr(choice: &mut Generator) -> bool {
    const EFER: u32 = 0xc000_0080;
    const GS_BASE: u32 = 0xc000_0101;
    const HYPERCALL_PAGE: u32 = 0x4000_0000;
    const X2APIC: u32 = 0x800;
    const X2APIC_ICR: u32 = 0x830;
    let near = choice.below(0x40);
    let msr = match choice.below(8) {
        0 => choice.below(u32::MAX),
        1 | 2 => X2APIC + near,
        3 => EFER + near % 8,
        4 => 0xc000_0100 + near % 8,
        5 => 0x4000_0000 + near % 4,
        _ => choice.below(0x1000),
    };
    if choice.below(2) == 0 {
        return cpu::rdmsr(msr).is_ok();
    }
    if matches!(msr, EFER | GS_BASE | HYPERCALL_PAGE | X2APIC_ICR) {
        return true;
    }
    let value = match choice.below(4) {
        0 => choice.any(),
        1 => u64::from(near),
        _ => 1 << near,
    };
    let apic = (X2APIC..X2APIC + 0x40).contains(&msr);
    cpu::wrmsr(msr, if apic { no_exception(value) } else { value }).is_ok()
}

/// A value for a register of the local APIC's: its low byte may be a vector.
const fn no_exception(value: u64) -> u64 {
    value & 0xffff_ffff | FIRST_VECTOR
}

fn port(choice: &mut Generator) -> bool {
    let port = choice.below(0x1_0000) as u16;
    let value = choice.any() as u32;
    let mut bytes = [0; 16];
    match choice.below(6) {
        0 => cpu::in8(port).is_ok(),
        1 => cpu::in32(port).is_ok(),
        2 => cpu::out8(port, value as u8).is_ok(),
        3 => cpu::out32(port, value).is_ok(),
        4 => cpu::ins8(port, &mut bytes).is_ok(),
        _ => cpu::outs8(port, &bytes).is_ok(),
    }
}

/// An access to memory that may not be there, or to the local APIC.
fn access(choice: &mut Generator) -> bool {
    let near = u64::from(choice.below(16));
    let offset = u64::from(choice.below(512)) * 8;
    let value = choice.any();
    let (gpa, value) = match choice.below(4) {
        0 => (APIC + near * 16, no_exception(value)),
        // The registers of timers, of errors and of interrupts by them.
        1 => (APIC + 0x320 + near % 13 * 16, no_exception(value)),
        2 => ((HOLE + near) << PAGE_SHIFT | offset, value),
        _ => ((SPARE + near) << PAGE_SHIFT | offset, value),
    };
    match choice.below(6) {
        0 => cpu::read8(gpa).is_ok(),
        1 => cpu::read32(gpa).is_ok(),
        2 => cpu::read64(gpa).is_ok(),
        3 => cpu::or32(gpa, 0).is_ok(),
        4 => cpu::write32(gpa, value as u32).is_ok(),
        _ => cpu::write64(gpa, value).is_ok(),
    }
}

/// The other vCPU: rewrites arguments, and calls now and then.
fn other() {
    cpu::enable_interrupts();
    let (places, shapes) = (places(1), shapes());
    let mut choice = Generator::new(!SEED.load(SeqCst));
    while !STOP.load(SeqCst) {
        for _ in 0..64 {
            let at = choice.below(128) as usize * 4;
            let value = match choice.below(4) {
                0 => no_place_in_image(choice.any() as u32),
                1 => choice.below(9),
                2 => SPARE as u32 + choice.below(16),
                _ => HOLE as u32 + choice.below(16),
            };
            memory::view(ARGUMENTS[0]).u32(at).store(value, Relaxed);
        }
        WRITES.fetch_add(64, SeqCst);
        let _ = call(&mut choice, 1, &places, &shapes);
        OTHER_CALLS.fetch_add(1, SeqCst);
    }
}

/// A number that is no address in the 2 MiB of the image: a page mapped there by grant, which is not
/// executable, would end the domain.
const fn no_place_in_image(value: u32) -> u32 {
    const LARGE_PAGE: u32 = 21;
    if value >> LARGE_PAGE == 1 {
        value | 2 << LARGE_PAGE
    } else {
        value
    }
}

fn private(page: usize, index: usize) -> u64 {
    !((page as u64) << 16 | index as u64)
}

fn fill_private() {
    for (number, page) in PRIVATE.iter().enumerate() {
        for index in 0..512 {
            page.view()
                .u64(index * 8)
                .store(private(number, index), Relaxed);
        }
    }
}

fn check_private(t: &mut Report) {
    for (number, page) in PRIVATE.iter().enumerate() {
        for index in 0..512 {
            let found = page.view().u64(index * 8).load(Relaxed);
            if found != private(number, index) {
                check!(t, false, "page {number} word {index} is {found:#x}");
                return;
            }
        }
    }
}
