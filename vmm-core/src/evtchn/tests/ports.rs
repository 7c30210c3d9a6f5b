//! Ports: what each operation answers.

use abi::Errno;
use abi::event_channel::status;
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

use super::super::{DeviceQueue, Peer, Service, State};
use super::{DomId, EvtchnPort, LIMIT, OTHER, Sent, VcpuId, Wake, page, table, upcall, virq};

const ME: DomId = DomId(1);

#[test]
fn ports_come_lowest_first_and_zero_never() {
    let (mut table, _) = table(1);
    let ports: [_; 3] = core::array::from_fn(|_| table.alloc_unbound(OTHER));
    assert_eq!(ports, [1, 2, 3].map(|port| Ok(EvtchnPort(port))));
    let closed = table.close(EvtchnPort(2));
    assert_eq!(closed.map(|closed| closed.peer), Ok(None));
    assert_eq!(table.bind_ipi(VcpuId(0)), Ok(EvtchnPort(2)));
    assert_eq!(table.bind_ipi(VcpuId(0)), Ok(EvtchnPort(4)));
    assert_eq!(table.close(EvtchnPort(0)), Err(Errno::Einval));
}

#[test]
fn the_limit_holds() {
    let (mut table, _) = table(1);
    for expected in 1..=LIMIT {
        assert_eq!(table.alloc_unbound(OTHER), Ok(EvtchnPort(expected)));
    }
    assert_eq!(table.alloc_unbound(OTHER), Err(Errno::Enospc));
    assert_eq!(table.status(EvtchnPort(LIMIT + 1)), Err(Errno::Einval));
}

#[test]
fn a_virq_is_bound_once_per_vcpu() {
    let (mut table, _) = table(2);
    assert_eq!(table.bind_virq(virq::TIMER, VcpuId(0)), Ok(EvtchnPort(1)));
    assert_eq!(table.bind_virq(virq::TIMER, VcpuId(0)), Err(Errno::Eexist));
    assert_eq!(table.bind_virq(virq::TIMER, VcpuId(1)), Ok(EvtchnPort(2)));
    assert_eq!(table.bind_virq(virq::TIMER, VcpuId(2)), Err(Errno::Enoent));
    assert_eq!(
        table.bind_virq(abi::Virq(24), VcpuId(0)),
        Err(Errno::Einval)
    );
    assert_eq!(
        table.bind_virq(virq::DOM_EXC, VcpuId(1)),
        Err(Errno::Einval)
    );
    // It may be bound, and never comes.
    assert_eq!(table.bind_virq(virq::DOM_EXC, VcpuId(0)), Ok(EvtchnPort(3)));
    assert!(table.close(EvtchnPort(1)).is_ok());
    assert_eq!(table.raise_virq(VcpuId(0), virq::TIMER), Wake::NONE);
    assert_eq!(table.bind_virq(virq::TIMER, VcpuId(0)), Ok(EvtchnPort(1)));
}

#[test]
fn only_some_ports_move_between_vcpus() {
    let (mut table, _) = table(2);
    let unbound = table.alloc_unbound(OTHER).unwrap();
    let ipi = table.bind_ipi(VcpuId(0)).unwrap();
    let timer = table.bind_virq(virq::TIMER, VcpuId(0)).unwrap();
    let argo = table.bind_virq(virq::ARGO, VcpuId(0)).unwrap();
    let free = EvtchnPort(argo.0 + 1);
    assert_eq!(table.bind_vcpu(unbound, VcpuId(1)), Ok(()));
    assert_eq!(table.bind_vcpu(argo, VcpuId(1)), Ok(()));
    assert_eq!(table.bind_vcpu(unbound, VcpuId(2)), Err(Errno::Enoent));
    for port in [ipi, timer, free] {
        assert_eq!(table.bind_vcpu(port, VcpuId(1)), Err(Errno::Einval));
    }
    // Closing finds the virtual interrupt although its port has moved.
    assert!(table.close(argo).is_ok());
    assert_eq!(table.bind_virq(virq::ARGO, VcpuId(0)), Ok(argo));
}

#[test]
fn a_channel_connects_two_domains_and_ends_on_both_sides() {
    let (mut mine, _) = table(1);
    let (mut theirs, _) = table(1);
    let offered = theirs.alloc_unbound(ME).unwrap();
    assert_eq!(theirs.check_bindable(offered, OTHER), Err(Errno::Einval));
    assert_eq!(theirs.check_bindable(offered, ME), Ok(()));
    let port = mine
        .open_interdomain(Peer {
            dom: OTHER,
            port: offered,
        })
        .unwrap();
    theirs.bind_peer(offered, Peer { dom: ME, port });
    assert_eq!(theirs.check_bindable(offered, ME), Err(Errno::Einval));

    let remote = Peer {
        dom: OTHER,
        port: offered,
    };
    assert_eq!(mine.send(port), Ok(Sent::Peer(remote)));
    assert_eq!(
        theirs.deliver_from(offered, Peer { dom: ME, port }),
        upcall(0)
    );
    let stranger = Peer {
        dom: ME,
        port: EvtchnPort(port.0 + 1),
    };
    assert_eq!(theirs.deliver_from(offered, stranger), Wake::NONE);

    let status = mine.status(port).unwrap();
    assert_eq!(status.status, status::INTERDOMAIN);
    assert_eq!(
        (status.detail, status.remote_port),
        (u32::from(OTHER.0), offered.0)
    );

    let closed = mine.close(port).unwrap();
    assert_eq!(closed.peer, Some(remote));
    theirs.peer_closed(offered, Peer { dom: ME, port });
    assert_eq!(theirs.state(offered), Ok(State::Unbound { remote: ME }));
}

#[test]
fn a_service_looks_like_a_remote_domain() {
    let (mut table, _) = table(1);
    let console = table.open_service(Service::Console).unwrap();
    assert_eq!(table.status(console).unwrap().status, status::INTERDOMAIN);
    assert_eq!(table.send(console), Ok(Sent::Service(Service::Console)));
    assert_eq!(table.raise_service(Service::Console), upcall(0));
    assert!(table.close(console).is_ok());
    assert_eq!(table.send(console), Err(Errno::Einval));
    // The port's next user hears nothing of the service.
    assert_eq!(table.alloc_unbound(OTHER), Ok(console));
    assert_eq!(table.raise_service(Service::Console), Wake::NONE);
}

#[test]
fn what_can_be_sent_through() {
    let (mut table, _) = table(2);
    let unbound = table.alloc_unbound(OTHER).unwrap();
    let ipi = table.bind_ipi(VcpuId(1)).unwrap();
    let timer = table.bind_virq(virq::TIMER, VcpuId(0)).unwrap();
    assert_eq!(table.send(unbound), Ok(Sent::Local(Wake::NONE)));
    assert_eq!(table.send(ipi), Ok(Sent::Local(upcall(1))));
    assert_eq!(table.send(timer), Err(Errno::Einval));
    assert_eq!(table.send(EvtchnPort(99)), Err(Errno::Einval));
    assert_eq!(table.send(EvtchnPort(u32::MAX)), Err(Errno::Einval));
}

#[test]
fn a_reset_closes_every_port_and_leaves_fifo_mode() {
    let (mut table, _) = table(1);
    assert_eq!(table.init_control(VcpuId(0), page(), 0), Ok(17));
    for _ in 0..5 {
        assert!(table.bind_ipi(VcpuId(0)).is_ok());
    }
    assert_eq!(table.finish_reset(), Err(Errno::Eagain));
    let mut closed = 0;
    while let Some(next) = table.close_next(EvtchnPort(0)) {
        assert_eq!(next.peer, None);
        closed += 1;
    }
    assert_eq!(closed, 5);
    assert_eq!(table.finish_reset(), Ok(()));
    assert!(!table.is_fifo());
    assert_eq!(table.bind_ipi(VcpuId(0)), Ok(EvtchnPort(1)));
}

proptest! {
    /// Whatever is opened and closed in whatever order, the port handed out is the lowest free.
    #[test]
    fn open_and_close_agree_with_a_set(steps in proptest::collection::vec(any::<(bool, u8)>(), 1..200)) {
        let (mut table, _) = table(1);
        let mut open = std::collections::BTreeSet::new();
        for (opens, pick) in steps {
            if opens {
                let lowest = (1..).find(|port| !open.contains(port)).unwrap();
                prop_assert_eq!(table.alloc_unbound(OTHER), Ok(EvtchnPort(lowest)));
                open.insert(lowest);
            } else {
                let was_open = open.remove(&u32::from(pick));
                prop_assert_eq!(table.close(EvtchnPort(pick.into())).is_ok(), was_open);
            }
        }
        for port in 1..=255 {
            prop_assert!(table.state(EvtchnPort(port)).is_ok() == open.contains(&port));
        }
    }
}

extern crate std;

#[test]
fn a_device_has_its_port_until_either_end_lets_go() {
    let (mut table, _) = table(1);
    let queue = DeviceQueue {
        device: 2,
        queue: 1,
    };
    let other = DeviceQueue { queue: 0, ..queue };
    let foreign = table.alloc_unbound(OTHER).unwrap();
    assert_eq!(table.bind_device(foreign, queue), Err(Errno::Einval));
    let port = table.alloc_unbound(DomId::CONTROL).unwrap();
    assert_eq!(table.raise_device(port, queue), Wake::NONE);
    assert_eq!(table.bind_device(port, queue), Ok(()));
    assert_eq!(table.bind_device(port, other), Err(Errno::Einval));
    assert_eq!(table.send(port), Ok(Sent::Device(queue)));
    assert_eq!(table.raise_device(port, other), Wake::NONE);
    assert_eq!(table.raise_device(port, queue), upcall(0));
    let shown = table.status(port).unwrap();
    assert_eq!((shown.status, shown.detail), (status::INTERDOMAIN, 0));
    table.unbind_device(port, other);
    assert_eq!(table.state(port), Ok(State::Device(queue)));
    table.unbind_device(port, queue);
    let remote = DomId::CONTROL;
    assert_eq!(table.state(port), Ok(State::Unbound { remote }));
    table.bind_device(port, queue).unwrap();
    assert_eq!(table.close(port).unwrap().peer, None);
    assert_eq!(table.raise_device(port, queue), Wake::NONE);
    assert_eq!(table.bind_ipi(VcpuId(0)), Ok(port));
    table.unbind_device(port, queue);
    assert_eq!(table.state(port), Ok(State::Ipi));
}
