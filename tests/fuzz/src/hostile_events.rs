//! A guest that writes anything anywhere in the pages it shares, at any time.

use std::sync::atomic::Ordering::SeqCst;

use abi::event_channel::virq;
use abi::{DomId, EvtchnPort, VcpuId};
use calls::Choice;
use vmm_core::evtchn::{EvtchnTable, Width};
use vmm_core::mm::frame::Owner;
use vmm_core::mm::page::PageRef;
use vmm_core::mm::testing;

use crate::Input;

const OTHER: DomId = DomId(7);
const LIMIT: u32 = 1023;
const VCPUS: u32 = 3;

/// One thing that happens to a domain.
#[derive(Clone, Copy, Debug)]
enum Step {
    Scribble { page: u8, word: u16, value: u32 },
    Open(u8),
    Close(u32),
    Send(u32),
    Unmask(u32),
    Deliver(u32),
    Move { port: u32, vcpu: u32 },
    Priority { port: u32, priority: u32 },
    Control { vcpu: u32, offset: u32 },
    Expand,
    Register { vcpu: u32, offset: u32 },
    Poll { vcpu: u32, port: u32 },
    Narrow(bool),
    Reset,
}

fn port(input: &mut Input<'_>) -> u32 {
    match input.below(10) {
        0 => word(input),
        1 => 1020 + input.below(10),
        _ => input.below(40),
    }
}

fn word(input: &mut Input<'_>) -> u32 {
    u32::from_le_bytes(input.bytes())
}

/// Plausible event words hurt more than noise.
fn value(input: &mut Input<'_>) -> u32 {
    if input.flip() {
        input.below(16) << 28 | input.below(40)
    } else {
        word(input)
    }
}

fn step(input: &mut Input<'_>) -> Step {
    let vcpu = input.below(4);
    let offset = word(input) & 0xfff8;
    match input.below(32) {
        0..=7 => Step::Scribble {
            page: input.bytes::<1>()[0],
            word: u16::try_from(input.below(64)).expect("a small number"),
            value: value(input),
        },
        8..=11 => Step::Open(input.bytes::<1>()[0]),
        12 => Step::Close(port(input)),
        13 => Step::Send(port(input)),
        14..=15 => Step::Unmask(port(input)),
        16..=23 => Step::Deliver(port(input)),
        24 => Step::Move {
            port: port(input),
            vcpu,
        },
        25 => Step::Priority {
            port: port(input),
            priority: input.below(18),
        },
        26 => Step::Control { vcpu, offset },
        27 => Step::Expand,
        28 => Step::Register { vcpu, offset },
        29 => Step::Poll {
            vcpu,
            port: port(input),
        },
        30 => Step::Narrow(input.flip()),
        _ => Step::Reset,
    }
}

fn page() -> PageRef {
    testing::page(Owner::Hypervisor)
}

fn scribble(pages: &[PageRef], page: u8, word: u16, value: u32) {
    let page = &pages[usize::from(page) % pages.len()];
    page.u32(usize::from(word) * 4).store(value, SeqCst);
    page.u32(usize::from(word) * 4 + 2048).store(value, SeqCst);
}

/// A domain and the pages it can write.
struct Domain {
    table: EvtchnTable,
    pages: Vec<PageRef>,
}

impl Domain {
    /// Does what the guest asks; what it is answered does not matter here.
    fn ask(&mut self, step: Step) {
        let table = &mut self.table;
        match step {
            Step::Scribble { page, word, value } => scribble(&self.pages, page, word, value),
            Step::Open(kind) => {
                let vcpu = VcpuId(u32::from(kind) % 4);
                let _ = match kind % 3 {
                    0 => table.alloc_unbound(OTHER),
                    1 => table.bind_ipi(vcpu),
                    _ => table.bind_virq(virq::TIMER, vcpu),
                };
            }
            Step::Close(port) => _ = table.close(EvtchnPort(port)),
            Step::Send(port) => _ = table.send(EvtchnPort(port)),
            Step::Unmask(port) => _ = table.unmask(EvtchnPort(port)),
            Step::Deliver(port) => _ = table.deliver(EvtchnPort(port)),
            Step::Move { port, vcpu } => _ = table.bind_vcpu(EvtchnPort(port), VcpuId(vcpu)),
            Step::Priority { port, priority } => {
                _ = table.set_priority(EvtchnPort(port), priority);
            }
            Step::Poll { vcpu, port } => _ = table.start_poll(VcpuId(vcpu), &[EvtchnPort(port)]),
            Step::Narrow(true) => table.set_width(Width::Bits32),
            Step::Narrow(false) => table.set_width(Width::Bits64),
            Step::Control { .. } | Step::Expand | Step::Register { .. } => self.share(step),
            Step::Reset => self.reset(),
        }
    }

    /// Shares one more page with the hypervisor.
    fn share(&mut self, step: Step) {
        let (table, new) = (&mut self.table, page());
        let taken = match step {
            Step::Control { vcpu, offset } => table
                .init_control(VcpuId(vcpu), new.clone(), offset)
                .is_ok(),
            Step::Register { vcpu, offset } => {
                let place = table.check_info_offset(offset);
                place.is_ok_and(|offset| table.move_info(VcpuId(vcpu), new.clone(), offset).is_ok())
            }
            _ => table.expand_array(new.clone()).is_ok(),
        };
        if taken {
            self.pages.push(new);
        }
    }

    fn reset(&mut self) {
        while let Some(closed) = self.table.close_next(EvtchnPort(0)) {
            assert_eq!(closed.peer, None);
        }
        assert_eq!(self.table.finish_reset(), Ok(()));
    }
}

/// Nothing the guest writes makes an operation panic or run on, and at the end every port can be
/// closed and opened again.
pub(crate) fn run(input: &mut Input<'_>) -> u64 {
    let shared = page();
    let mut domain = Domain {
        table: EvtchnTable::new(LIMIT, VCPUS, shared.clone()),
        pages: vec![shared],
    };
    let mut done = 0;
    while !input.is_empty() {
        domain.ask(step(input));
        done += 1;
    }
    domain.reset();
    assert_eq!(domain.table.bind_ipi(VcpuId(0)), Ok(EvtchnPort(1)));
    done
}
