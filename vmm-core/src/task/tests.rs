//! Task switches in a flat memory of 64 KiB.
#![expect(clippy::arithmetic_side_effects, reason = "a test may panic")]

use std::vec;
use std::vec::Vec;

use proptest::prelude::{Strategy, any, prop, prop_assert, proptest};
use vmx::vmcs::Segment;

use super::{Begun, Cause, Memory, Request, State, switch};
use crate::fault::GuestFault;

const SIZE: usize = 0x1_0000;
const GDT: u32 = 0x1000;
const OLD_TSS: u32 = 0x2000;
const NEW_TSS: u32 = 0x3000;
const LDT: u32 = 0x4000;
const NEW_STACK: u32 = 0x5000;

const CODE0: u16 = 0x08;
const DATA0: u16 = 0x10;
const CODE3: u16 = 0x1b;
const DATA3: u16 = 0x23;
const OLD: u16 = 0x28;
const NEW: u16 = 0x30;
const LOCAL_TABLE: u16 = 0x38;

/// Flat memory whose pages can be made read-only.
#[derive(Clone)]
struct Flat {
    bytes: Vec<u8>,
    read_only: Option<u32>,
    cr3: Option<u32>,
    pushes: Vec<(u32, usize, u8)>,
}

fn page_fault(at: u32) -> GuestFault {
    GuestFault::Pf {
        address: abi::Gva::new(at.into()),
        code: 3,
    }
}

impl Memory for Flat {
    fn read(&self, at: u32, bytes: &mut [u8]) -> Result<(), GuestFault> {
        let at = at as usize % SIZE;
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = self.bytes[(at + index) % SIZE];
        }
        Ok(())
    }

    fn write(&mut self, at: u32, bytes: &[u8]) -> Result<(), GuestFault> {
        self.check_write(at, bytes.len())?;
        for (index, byte) in bytes.iter().enumerate() {
            self.bytes[(at as usize + index) % SIZE] = *byte;
        }
        Ok(())
    }

    fn check_write(&self, at: u32, _: usize) -> Result<(), GuestFault> {
        match self.read_only {
            Some(page) if at >> 12 == page >> 12 => Err(page_fault(at)),
            _ => Ok(()),
        }
    }

    fn push(&mut self, at: u32, bytes: &[u8], cpl: u8, _: bool) -> Result<(), GuestFault> {
        self.pushes.push((at, bytes.len(), cpl));
        self.write(at, bytes)
    }

    fn load_cr3(&mut self, cr3: u32) -> bool {
        self.cr3 = Some(cr3);
        cr3 & 1 == 0
    }
}

impl Flat {
    fn put32(&mut self, at: u32, value: u32) {
        self.write(at, &value.to_le_bytes()).unwrap();
    }

    fn get32(&self, at: u32) -> u32 {
        let mut bytes = [0; 4];
        self.read(at, &mut bytes).unwrap();
        u32::from_le_bytes(bytes)
    }

    fn describe(&mut self, selector: u16, base: u32, limit: u32, access: u8, flags: u8) {
        let raw = u64::from(limit & 0xffff)
            | u64::from(base & 0xff_ffff) << 16
            | u64::from(access) << 40
            | u64::from(limit >> 16 & 0xf) << 48
            | u64::from(flags) << 52
            | u64::from(base >> 24) << 56;
        let at = GDT + u32::from(selector & !7);
        self.write(at, &raw.to_le_bytes()).unwrap();
    }

    fn access(&self, selector: u16) -> u8 {
        self.bytes[(GDT + u32::from(selector & !7) + 5) as usize]
    }

    /// Fills in a 32-bit task at privilege level 3.
    fn task(&mut self, tss: u32) {
        self.put32(tss + 0x1c, 0x7000);
        self.put32(tss + 0x20, 0x1234);
        self.put32(tss + 0x24, !(1 << 17 | 1 << 14));
        for register in 0..8 {
            self.put32(tss + 0x28 + 4 * register, 0x100 + register);
        }
        self.put32(tss + 0x38, NEW_STACK);
        let selectors = [DATA3, CODE3, DATA3, DATA3, 0, DATA3];
        for (index, selector) in (0..).zip(selectors) {
            self.put32(tss + 0x48 + 4 * index, u32::from(selector));
        }
        self.put32(tss + 0x60, LOCAL_TABLE.into());
    }
}

fn flat(selector: u16, access_rights: u32) -> Segment {
    Segment {
        selector,
        base: 0,
        limit: u32::MAX,
        access_rights,
    }
}

fn machine() -> (Flat, State) {
    let mut memory = Flat {
        bytes: vec![0; SIZE],
        read_only: None,
        cr3: None,
        pushes: Vec::new(),
    };
    memory.describe(CODE0, 0, 0xf_ffff, 0x9b, 0xc);
    memory.describe(DATA0, 0, 0xf_ffff, 0x93, 0xc);
    memory.describe(CODE3, 0, 0xf_ffff, 0xfa, 0xc);
    memory.describe(DATA3, 0, 0xf_ffff, 0xf2, 0xc);
    memory.describe(OLD, OLD_TSS, 0x67, 0x8b, 0);
    memory.describe(NEW, NEW_TSS, 0x67, 0x89, 0);
    memory.describe(LOCAL_TABLE, LDT, 0xff, 0x82, 0);
    memory.task(NEW_TSS);
    let state = State {
        eip: 0x100,
        eflags: 0x202,
        general: [1, 2, 3, 4, 5, 6, 7, 8],
        segments: [DATA0, CODE0, DATA0, DATA0, DATA0, DATA0]
            .map(|selector| flat(selector, if selector == CODE0 { 0xc09b } else { 0xc093 })),
        ldtr: super::unusable(0),
        tr: Segment {
            selector: OLD,
            base: OLD_TSS.into(),
            limit: 0x67,
            access_rights: 0x8b,
        },
        gdt_base: GDT,
        gdt_limit: 0x3f,
    };
    (memory, state)
}

fn request(cause: Cause) -> Request {
    Request {
        selector: NEW,
        cause,
        return_eip: 0x107,
    }
}

#[test]
fn a_jump_swaps_everything() {
    let (mut memory, mut state) = machine();
    let begun = switch(&mut memory, &mut state, &request(Cause::Jmp));
    assert_eq!(begun, Ok(Begun::Clean));
    assert_eq!((memory.access(OLD), memory.access(NEW)), (0x89, 0x8b));
    assert_eq!(memory.get32(OLD_TSS + 0x20), 0x107);
    assert_eq!(memory.get32(OLD_TSS + 0x24), 0x202);
    assert_eq!(memory.get32(OLD_TSS + 0x44), 8);
    assert_eq!(memory.get32(OLD_TSS + 0x4c), CODE0.into());
    assert_eq!(memory.get32(NEW_TSS), 0, "no link");
    assert_eq!((state.eip, memory.cr3), (0x1234, Some(0x7000)));
    assert_eq!(state.eflags, 0x003d_3fd7);
    assert_eq!(state.general[7], 0x107);
    let [_, code, stack, _, fs, _] = state.segments;
    assert_eq!((code.selector, code.access_rights), (CODE3, 0xc0fb));
    assert_eq!((stack.dpl(), fs.is_unusable()), (3, true));
    assert_eq!(memory.access(CODE3), 0xfb, "the accessed flag");
    assert_eq!((state.ldtr.base, state.ldtr.limit), (LDT.into(), 0xff));
    assert_eq!((state.tr.selector, state.tr.access_rights), (NEW, 0x8b));
}

#[test]
fn a_call_nests_and_iret_comes_back() {
    let (mut memory, before) = machine();
    let mut state = before;
    switch(&mut memory, &mut state, &request(Cause::Call)).unwrap();
    assert_eq!((memory.access(OLD), memory.access(NEW)), (0x8b, 0x8b));
    assert_eq!(memory.get32(NEW_TSS), OLD.into());
    assert_ne!(state.eflags & super::NESTED_TASK, 0);
    let back = Request {
        selector: OLD,
        cause: Cause::Iret,
        return_eip: 0x1235,
    };
    assert_eq!(switch(&mut memory, &mut state, &back), Ok(Begun::Clean));
    assert_eq!((memory.access(OLD), memory.access(NEW)), (0x8b, 0x89));
    assert_eq!(memory.get32(NEW_TSS + 0x24) & super::NESTED_TASK, 0);
    let expected = State {
        eip: 0x107,
        ..before
    };
    assert_eq!(state, expected);
}

#[test]
fn bad_tasks_fault_in_the_old_one() {
    let code = u32::from(NEW);
    let check = |cause, change: fn(&mut Flat, &mut State), fault| {
        let (mut memory, mut state) = machine();
        change(&mut memory, &mut state);
        let (memory_before, state_before) = (memory.bytes.clone(), state);
        let got = switch(&mut memory, &mut state, &request(cause));
        assert_eq!(got, Err(fault));
        assert!(
            memory.bytes == memory_before && state == state_before,
            "{fault:?}"
        );
    };
    let event = |external| Cause::Event {
        external,
        error: None,
    };
    check(
        Cause::Jmp,
        |m, _| m.describe(NEW, NEW_TSS, 0x67, 0x8b, 0),
        GuestFault::Gp(code),
    );
    check(Cause::Iret, |_, _| (), GuestFault::Ts(code));
    check(
        event(true),
        |m, _| m.describe(NEW, NEW_TSS, 0x67, 9, 0),
        GuestFault::Np(code | 1),
    );
    check(
        event(false),
        |m, _| m.describe(NEW, NEW_TSS, 0x66, 0x89, 0),
        GuestFault::Ts(code),
    );
    check(Cause::Call, |_, s| s.gdt_limit = 0x36, GuestFault::Gp(code));
    check(
        Cause::Call,
        |_, s| s.tr.limit = 0x5e,
        GuestFault::Ts(OLD.into()),
    );
    check(
        Cause::Call,
        |m, _| m.read_only = Some(OLD_TSS),
        page_fault(OLD_TSS + 0x20),
    );
    check(
        Cause::Call,
        |m, _| m.read_only = Some(NEW_TSS),
        page_fault(NEW_TSS),
    );
    check(
        Cause::Jmp,
        |m, _| m.read_only = Some(GDT),
        page_fault(GDT + u32::from(OLD)),
    );
}

#[test]
fn bad_registers_fault_in_the_new_one() {
    let check = |change: fn(&mut Flat), fault| {
        let (mut memory, mut state) = machine();
        change(&mut memory);
        let begun = switch(&mut memory, &mut state, &request(Cause::Jmp));
        assert_eq!(begun, Ok(Begun::Fault(fault)));
        assert_eq!((state.eip, state.tr.selector), (0x1234, NEW));
        assert!(enters(&state), "{state:x?}");
    };
    check(
        |m| m.put32(NEW_TSS + 0x4c, DATA0.into()),
        GuestFault::Ts(DATA0.into()),
    );
    check(
        |m| m.put32(NEW_TSS + 0x50, DATA0.into()),
        GuestFault::Ts(DATA0.into()),
    );
    check(|m| m.describe(CODE3, 0, 0, 0x7a, 0), GuestFault::Np(0x18));
    check(|m| m.put32(NEW_TSS + 0x48, 0xfff8), GuestFault::Ts(0xfff8));
    check(
        |m| m.put32(NEW_TSS + 0x60, CODE0.into()),
        GuestFault::Ts(CODE0.into()),
    );
    check(|m| m.put32(NEW_TSS + 0x1c, 1), GuestFault::Ts(NEW.into()));
}

#[test]
fn an_error_code_is_pushed_on_the_new_stack() {
    let (mut memory, mut state) = machine();
    let cause = Cause::Event {
        external: true,
        error: Some(0xabcd),
    };
    switch(&mut memory, &mut state, &request(cause)).unwrap();
    assert_eq!(state.general[4], NEW_STACK - 4);
    assert_eq!(memory.get32(NEW_STACK - 4), 0xabcd);
    assert_eq!(memory.pushes, [(NEW_STACK - 4, 4, 3)]);
    let (mut memory, mut state) = machine();
    memory.describe(DATA3, 0, 0xff, 0xf3, 4);
    let begun = switch(&mut memory, &mut state, &request(cause));
    assert_eq!(begun, Ok(Begun::Fault(GuestFault::Ss(1))));
}

#[test]
fn a_task_may_be_of_virtual_8086_mode_and_begin_with_a_trap() {
    let (mut memory, mut state) = machine();
    memory.put32(NEW_TSS + 0x24, 1 << 17);
    memory.put32(NEW_TSS + 0x4c, 0x1234);
    memory.put32(NEW_TSS + 0x60, 0);
    memory.put32(NEW_TSS + 0x64, 1);
    let begun = switch(&mut memory, &mut state, &request(Cause::Jmp));
    assert_eq!(begun, Ok(Begun::Trap));
    let [_, code, ..] = state.segments;
    assert_eq!(
        (code.base, code.limit, code.access_rights),
        (0x1_2340, 0xffff, 0xf3)
    );
    assert!(state.ldtr.is_unusable() && state.ldtr.selector == 0);
}

#[test]
fn the_short_format_has_no_cr3() {
    let (mut memory, mut state) = machine();
    memory.describe(NEW, NEW_TSS, 0x2b, 0x81, 0);
    memory.bytes[NEW_TSS as usize..][..44].fill(0);
    for (at, value) in [
        (14, 0x99u16),
        (26, 0x400),
        (34, DATA0),
        (36, CODE0),
        (38, DATA0),
    ] {
        memory.write(NEW_TSS + at, &value.to_le_bytes()).unwrap();
    }
    let begun = switch(&mut memory, &mut state, &request(Cause::Call));
    assert_eq!(begun, Ok(Begun::Clean));
    assert_eq!((memory.cr3, state.eip), (None, 0x99));
    assert_eq!(state.general[4], 0xffff_0400);
    assert_eq!(state.tr.access_rights, 0x83);
}

/// What a VM entry asks of the segment registers (SDM 3C, "Checks on Guest Segment Registers"),
/// with unrestricted guest.
fn enters(state: &State) -> bool {
    let [_, code, stack, ..] = state.segments;
    let granular = |segment: &Segment| {
        let (low, high) = (segment.limit & 0xfff == 0xfff, segment.limit >> 20 == 0);
        let big = segment.access_rights & 1 << 15 != 0;
        segment.is_unusable() || if big { low } else { high }
    };
    if state.eflags & super::VIRTUAL_8086 != 0 {
        return state.segments.iter().all(|segment| {
            segment.base == u64::from(segment.selector) << 4
                && (segment.limit, segment.access_rights) == (0xffff, 0xf3)
        });
    }
    let usable = |segment: &Segment| !segment.is_unusable();
    let fits = match code.access_rights & 0xf {
        9 | 11 => code.dpl() == stack.dpl(),
        13 | 15 => code.dpl() <= stack.dpl(),
        _ => false,
    };
    fits && usable(&code)
        && usable(&stack)
        && matches!(stack.access_rights & 0xf, 3 | 7)
        && state.segments.iter().all(|segment| {
            let rights = segment.access_rights;
            segment.is_unusable()
                || (rights & 0x91 == 0x91
                    && rights & 0xf00 == 0
                    && segment.base >> 32 == 0
                    && (rights & 8 == 0 || rights & 2 != 0 || segment == &code))
        })
        && state.segments.iter().all(granular)
        && granular(&state.tr)
        && matches!(state.tr.access_rights & 0xff, 0x83 | 0x8b)
        && (state.ldtr.is_unusable() || state.ldtr.access_rights & 0xff == 0x82)
}

fn causes() -> impl Strategy<Value = Cause> {
    (0..4, any::<bool>(), any::<Option<u32>>()).prop_map(|(kind, external, error)| match kind {
        0 => Cause::Call,
        1 => Cause::Jmp,
        2 => Cause::Iret,
        _ => Cause::Event { external, error },
    })
}

proptest! {
    /// Whatever is in memory, the processor's registers stay such that a VM entry takes them.
    #[test]
    fn any_memory_leaves_registers_that_enter(
        cause in causes(),
        changes in prop::collection::vec((0x1000u32..0x3070, any::<u8>()), 0..40),
        selector in prop::sample::select(vec![NEW, OLD, CODE0, LOCAL_TABLE, 0, 0x34, 0xfff8]),
        read_only in prop::option::of(prop::sample::select(vec![GDT, OLD_TSS, NEW_TSS])),
        busy in any::<bool>(),
    ) {
        let (mut memory, mut state) = machine();
        for (at, byte) in changes {
            memory.bytes[at as usize] = byte;
        }
        if busy {
            memory.bytes[(GDT + u32::from(NEW) + 5) as usize] |= 2;
        }
        memory.read_only = read_only;
        let request = Request { selector, ..request(cause) };
        let _ = switch(&mut memory, &mut state, &request);
        prop_assert!(enters(&state), "{state:x?}");
    }
}
