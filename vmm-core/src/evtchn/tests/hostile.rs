//! A guest that writes anything anywhere in the pages it shares, at any time.

extern crate std;
use std::{vec, vec::Vec};

use proptest::prelude::{Strategy, any, prop_oneof, proptest};

use super::super::Width;
use super::{EvtchnPort, EvtchnTable, OTHER, PageRef, SeqCst, VcpuId, page, table, virq};

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

fn port() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 0u32..40, 1 => any::<u32>(), 1 => 1020u32..1030]
}

fn value() -> impl Strategy<Value = u32> {
    // Plausible event words hurt more than noise.
    let word = (0u32..16, 0u32..40).prop_map(|(flags, link)| flags << 28 | link);
    prop_oneof![word, any::<u32>()]
}

fn step() -> impl Strategy<Value = Step> {
    let vcpu = 0u32..4;
    prop_oneof![
        8 => (any::<u8>(), 0u16..64, value())
            .prop_map(|(page, word, value)| Step::Scribble { page, word, value }),
        4 => any::<u8>().prop_map(Step::Open),
        1 => port().prop_map(Step::Close),
        1 => port().prop_map(Step::Send),
        2 => port().prop_map(Step::Unmask),
        8 => port().prop_map(Step::Deliver),
        1 => (port(), vcpu.clone()).prop_map(|(port, vcpu)| Step::Move { port, vcpu }),
        1 => (port(), 0u32..18).prop_map(|(port, priority)| Step::Priority { port, priority }),
        1 => (vcpu.clone(), any::<u16>())
            .prop_map(|(vcpu, offset)| Step::Control { vcpu, offset: u32::from(offset) & !7 }),
        1 => proptest::strategy::Just(Step::Expand),
        1 => (vcpu.clone(), any::<u16>())
            .prop_map(|(vcpu, offset)| Step::Register { vcpu, offset: u32::from(offset) & !7 }),
        1 => (vcpu, port()).prop_map(|(vcpu, port)| Step::Poll { vcpu, port }),
        1 => any::<bool>().prop_map(Step::Narrow),
        1 => proptest::strategy::Just(Step::Reset),
    ]
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

proptest! {
    /// Nothing the guest writes makes an operation panic or run on, and at the end every port
    /// can be closed and opened again.
    #[test]
    fn the_table_survives(steps in proptest::collection::vec(step(), 1..150)) {
        let (table, shared) = table(3);
        let mut domain = Domain { table, pages: [shared].into() };
        for step in steps {
            domain.ask(step);
        }
        domain.reset();
        assert_eq!(domain.table.bind_ipi(VcpuId(0)), Ok(EvtchnPort(1)));
    }
}
