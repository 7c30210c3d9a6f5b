//! Two domains and their ports against a plain model of who is bound to whom.

use std::collections::BTreeMap;

use abi::{DomId, Errno, EvtchnPort, VcpuId, Virq, event_channel::virq};
use calls::Choice;
use vmm_core::evtchn::{Closed, EvtchnTable, Peer, Poll, Sent, Wake};
use vmm_core::mm::frame::Owner;
use vmm_core::mm::page::PageRef;
use vmm_core::mm::testing;

use crate::Input;

const VCPUS: u32 = 2;
const LIMIT: u32 = 1023;
const IDS: [DomId; 2] = [DomId(1), DomId(2)];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bound {
    Waits(DomId),
    To(DomId, u32),
    Virq(u32, u32),
    Ipi,
}

/// An operation by one of the domains.
#[derive(Clone, Copy, Debug)]
enum Op {
    Alloc { remote: u16 },
    Connect { port: u32 },
    BindVirq { number: u32, vcpu: u32 },
    BindIpi { vcpu: u32 },
    MoveTo { port: u32, vcpu: u32 },
    Close { port: u32 },
    Send { port: u32 },
    Poll { port: u32 },
    Reset,
}

fn op(input: &mut Input<'_>) -> Op {
    let port = input.below(12);
    let vcpu = input.below(3);
    match input.below(26) {
        0..=3 => Op::Alloc {
            remote: u16::from(input.flip()) + u16::from(input.flip()) * 2,
        },
        4..=9 => Op::Connect { port },
        10..=11 => Op::BindVirq {
            number: input.below(26),
            vcpu,
        },
        12 => Op::BindIpi { vcpu },
        13..=14 => Op::MoveTo { port, vcpu },
        15..=18 => Op::Close { port },
        19..=22 => Op::Send { port },
        23..=24 => Op::Poll { port },
        _ => Op::Reset,
    }
}

#[derive(Default)]
struct Model {
    ports: [BTreeMap<u32, Bound>; 2],
    /// Ports that are pending; nobody handles events here.
    pending: [BTreeMap<u32, ()>; 2],
}

fn index(dom: DomId) -> Option<usize> {
    IDS.iter().position(|id| *id == dom)
}

impl Model {
    fn open(&mut self, me: usize, bound: Bound) -> u32 {
        let port = (1..).find(|port| !self.ports[me].contains_key(port));
        let port = port.expect("some number is free");
        self.ports[me].insert(port, bound);
        port
    }

    fn apply(&mut self, me: usize, op: Op) -> Result<u32, Errno> {
        let other = 1 - me;
        match op {
            Op::Alloc { remote } => Ok(self.open(me, Bound::Waits(DomId(remote)))),
            Op::Connect { port } => {
                if self.ports[other].get(&port) != Some(&Bound::Waits(IDS[me])) {
                    return Err(Errno::Einval);
                }
                let mine = self.open(me, Bound::To(IDS[other], port));
                self.ports[other].insert(port, Bound::To(IDS[me], mine));
                self.pending[me].insert(mine, ());
                Ok(mine)
            }
            Op::BindVirq { number, vcpu } => self.bind_virq(me, number, vcpu),
            Op::BindIpi { vcpu } if vcpu >= VCPUS => Err(Errno::Enoent),
            Op::BindIpi { .. } => Ok(self.open(me, Bound::Ipi)),
            Op::MoveTo { vcpu, .. } if vcpu >= VCPUS => Err(Errno::Enoent),
            Op::MoveTo { port, .. } => match self.ports[me].get(&port) {
                Some(Bound::Waits(_) | Bound::To(..)) => Ok(0),
                Some(Bound::Virq(number, _)) if !per_vcpu(*number) => Ok(0),
                _ => Err(Errno::Einval),
            },
            Op::Close { port } => self.close(me, port),
            Op::Send { port } => match self.ports[me].get(&port) {
                Some(Bound::To(dom, remote)) => {
                    let (dom, remote) = (index(*dom).expect("ours"), *remote);
                    self.pending[dom].insert(remote, ());
                    Ok(0)
                }
                Some(Bound::Ipi) => {
                    self.pending[me].insert(port, ());
                    Ok(0)
                }
                Some(Bound::Waits(_)) => Ok(0),
                Some(Bound::Virq(..)) | None => Err(Errno::Einval),
            },
            Op::Poll { port } if self.ports[me].contains_key(&port) => {
                Ok(u32::from(self.pending[me].contains_key(&port)))
            }
            Op::Poll { .. } => Err(Errno::Einval),
            Op::Reset => {
                let all: Vec<u32> = self.ports[me].keys().copied().collect();
                all.into_iter()
                    .try_for_each(|port| self.close(me, port).map(drop))
                    .map(|()| 0)
            }
        }
    }

    fn bind_virq(&mut self, me: usize, number: u32, vcpu: u32) -> Result<u32, Errno> {
        if number >= 24 || (!per_vcpu(number) && vcpu != 0) {
            Err(Errno::Einval)
        } else if vcpu >= VCPUS {
            Err(Errno::Enoent)
        } else if self.ports[me]
            .values()
            .any(|bound| *bound == Bound::Virq(number, vcpu))
        {
            Err(Errno::Eexist)
        } else {
            Ok(self.open(me, Bound::Virq(number, vcpu)))
        }
    }

    fn close(&mut self, me: usize, port: u32) -> Result<u32, Errno> {
        let bound = self.ports[me].remove(&port).ok_or(Errno::Einval)?;
        self.pending[me].remove(&port);
        if let Bound::To(dom, remote) = bound {
            let dom = index(dom).expect("ours");
            self.ports[dom].insert(remote, Bound::Waits(IDS[me]));
        }
        Ok(0)
    }
}

fn per_vcpu(number: u32) -> bool {
    [virq::TIMER, virq::DEBUG, virq::XENOPROF, virq::XENPMU].contains(&Virq(number))
}

/// Both tables, driven as the hypercalls drive them.
struct Real {
    tables: [EvtchnTable; 2],
}

impl Real {
    fn apply(&mut self, me: usize, op: Op) -> Result<u32, Errno> {
        let other = 1 - me;
        let table = &mut self.tables[me];
        match op {
            Op::Alloc { remote } => table.alloc_unbound(DomId(remote)).map(|port| port.0),
            Op::Connect { port } => {
                let remote = EvtchnPort(port);
                self.tables[other].check_bindable(remote, IDS[me])?;
                let peer = Peer {
                    dom: IDS[other],
                    port: remote,
                };
                let port = self.tables[me].open_interdomain(peer)?;
                let end = Peer { dom: IDS[me], port };
                self.tables[other].bind_peer(remote, end);
                let _ = self.tables[me].deliver(port);
                Ok(port.0)
            }
            Op::BindVirq { number, vcpu } => table
                .bind_virq(Virq(number), VcpuId(vcpu))
                .map(|port| port.0),
            Op::BindIpi { vcpu } => table.bind_ipi(VcpuId(vcpu)).map(|port| port.0),
            Op::MoveTo { port, vcpu } => {
                table.bind_vcpu(EvtchnPort(port), VcpuId(vcpu)).map(|()| 0)
            }
            Op::Close { port } => {
                let closed = table.close(EvtchnPort(port))?;
                self.tell(me, closed);
                Ok(0)
            }
            Op::Send { port } => {
                if let Sent::Peer(peer) = table.send(EvtchnPort(port))? {
                    let sender = Peer {
                        dom: IDS[me],
                        port: EvtchnPort(port),
                    };
                    let _: Wake = self.tables[other].deliver_from(peer.port, sender);
                }
                Ok(0)
            }
            Op::Poll { port } => {
                // Upcalls stay pending here and would end every poll, so the port is asked itself.
                let polled = table.start_poll(VcpuId(0), &[EvtchnPort(port)]);
                table.stop_poll(VcpuId(0));
                table.state(EvtchnPort(port))?;
                assert!(polled == Ok(Poll::Ready) || polled == Ok(Poll::Sleep));
                Ok(u32::from(table.is_pending(EvtchnPort(port))))
            }
            Op::Reset => {
                let mut from = EvtchnPort(0);
                while let Some(closed) = self.tables[me].close_next(from) {
                    from = closed.port;
                    self.tell(me, closed);
                }
                self.tables[me].finish_reset().map(|()| 0)
            }
        }
    }

    fn tell(&mut self, me: usize, closed: Closed) {
        if let Some(peer) = closed.peer {
            let end = Peer {
                dom: IDS[me],
                port: closed.port,
            };
            let dom = index(peer.dom).expect("ours");
            self.tables[dom].peer_closed(peer.port, end);
        }
    }
}

pub(crate) fn run(input: &mut Input<'_>) -> u64 {
    let tables = [(); 2].map(|()| EvtchnTable::new(LIMIT, VCPUS, page()));
    let mut real = Real { tables };
    let fifo = input.flip();
    if fifo {
        for table in &mut real.tables {
            for vcpu in 0..VCPUS {
                let given = table.init_control(VcpuId(vcpu), page(), 0);
                given.expect("first block");
            }
            let _ = table.expand_array(page());
        }
    }
    let mut model = Model::default();
    let mut done = 0;
    while !input.is_empty() {
        let (me, op) = (input.index(2), op(input));
        // A port whose word is still on a queue is not handed out again: a guest that handles
        // nothing would run ahead of the model.
        if fifo && matches!(op, Op::Reset | Op::Close { .. }) {
            continue;
        }
        assert_eq!(real.apply(me, op), model.apply(me, op), "{me} {op:?}");
        done += 1;
    }
    for (me, table) in real.tables.iter().enumerate() {
        for port in 1..LIMIT {
            let pending = model.pending[me].contains_key(&port);
            assert_eq!(table.is_pending(EvtchnPort(port)), pending);
            let bound = model.ports[me].contains_key(&port);
            assert_eq!(table.state(EvtchnPort(port)).is_ok(), bound);
        }
    }
    done
}

fn page() -> PageRef {
    testing::page(Owner::Hypervisor)
}
