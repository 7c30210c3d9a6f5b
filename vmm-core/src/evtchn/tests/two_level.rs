//! Two-level delivery, vCPU information that moves, and polls.

use abi::Errno;
use abi::shared_info::compat;

use super::super::{Poll, Width};
use super::{
    EvtchnPort, OTHER, SeqCst, VcpuId, VcpuSet, Wake, bit, page, set_bit, shared_info, table,
    upcall, vcpu_info, virq,
};

#[test]
fn an_event_sets_pending_selector_and_upcall_once() {
    let (mut table, shared) = table(2);
    let port = table.bind_ipi(VcpuId(1)).unwrap();
    assert_eq!(table.deliver(port), upcall(1));
    assert!(bit(&shared, shared_info::EVTCHN_PENDING, port));
    let info = vcpu_info::SIZE;
    assert_eq!(shared.u8(info + vcpu_info::UPCALL_PENDING).load(SeqCst), 1);
    assert_eq!(shared.u64(info + vcpu_info::PENDING_SEL).load(SeqCst), 1);
    assert_eq!(table.deliver(port), Wake::NONE);
}

#[test]
fn a_masked_event_waits_for_unmask() {
    let (mut table, shared) = table(1);
    let port = table.bind_virq(virq::TIMER, VcpuId(0)).unwrap();
    set_bit(&shared, shared_info::EVTCHN_MASK, port);
    assert_eq!(table.raise_virq(VcpuId(0), virq::TIMER), Wake::NONE);
    assert!(bit(&shared, shared_info::EVTCHN_PENDING, port));
    assert_eq!(table.unmask(port), Ok(upcall(0)));
    assert!(!bit(&shared, shared_info::EVTCHN_MASK, port));
    assert_eq!(table.unmask(EvtchnPort(55)), Ok(Wake::NONE));
    assert_eq!(table.unmask(EvtchnPort(64)), Err(Errno::Einval));
}

#[test]
fn a_32_bit_guest_has_its_own_layout_and_fewer_ports() {
    let (mut table, shared) = table(1);
    table.set_width(Width::Bits32);
    for _ in 1..40 {
        assert!(table.bind_ipi(VcpuId(0)).is_ok());
    }
    let port = table.bind_ipi(VcpuId(0)).unwrap();
    assert_eq!(port, EvtchnPort(40));
    assert_eq!(table.deliver(port), upcall(0));
    assert_eq!(shared.u32(compat::EVTCHN_PENDING + 4).load(SeqCst), 1 << 8);
    assert_eq!(
        shared.u32(compat::vcpu_info::PENDING_SEL).load(SeqCst),
        1 << 1
    );
    assert_eq!(table.status(EvtchnPort(1024)), Err(Errno::Einval));
}

#[test]
fn closing_takes_the_pending_event_along() {
    let (mut table, shared) = table(1);
    let port = table.bind_ipi(VcpuId(0)).unwrap();
    assert_eq!(table.deliver(port), upcall(0));
    assert!(table.close(port).is_ok());
    assert!(!bit(&shared, shared_info::EVTCHN_PENDING, port));
}

#[test]
fn moved_information_keeps_its_contents_and_marks_everything() {
    let (mut table, shared) = table(1);
    shared.u64(vcpu_info::TIME + 16).store(12345, SeqCst);
    let place = page();
    let offset = table.check_info_offset(128).unwrap();
    assert_eq!(
        table.move_info(VcpuId(0), place.clone(), offset),
        Ok(upcall(0))
    );
    assert_eq!(place.u64(128 + vcpu_info::TIME + 16).load(SeqCst), 12345);
    assert_eq!(
        place.u64(128 + vcpu_info::PENDING_SEL).load(SeqCst),
        u64::MAX
    );
    assert_eq!(table.move_info(VcpuId(0), page(), 0), Err(Errno::Einval));
    assert_eq!(table.move_info(VcpuId(1), page(), 0), Err(Errno::Enoent));
    // Upcalls now go there.
    place.u8(128).store(0, SeqCst);
    place.u64(128 + vcpu_info::PENDING_SEL).store(0, SeqCst);
    let port = table.bind_ipi(VcpuId(0)).unwrap();
    assert_eq!(table.deliver(port), upcall(0));
    assert_eq!(place.u8(128).load(SeqCst), 1);
}

#[test]
fn places_for_vcpu_information_are_checked() {
    let (mut table, _) = table(1);
    assert_eq!(table.check_info_offset(4096), Err(Errno::Enxio));
    assert_eq!(table.check_info_offset(u32::MAX), Err(Errno::Enxio));
    assert_eq!(table.check_info_offset(4096 - 56), Err(Errno::Enxio));
    assert_eq!(table.check_info_offset(4), Err(Errno::Enxio));
    assert_eq!(table.check_info_offset(4096 - 64), Ok(4096 - 64));
    table.set_width(Width::Bits32);
    assert_eq!(table.check_info_offset(4), Ok(4));
}

#[test]
fn a_vcpu_without_room_hears_of_events_once_it_registers() {
    let (mut table, _) = table(40);
    let port = table.bind_ipi(VcpuId(39)).unwrap();
    assert_eq!(table.deliver(port), Wake::NONE);
    let place = page();
    assert_eq!(
        table.move_info(VcpuId(39), place.clone(), 0),
        Ok(upcall(39))
    );
    assert_eq!(place.u8(0).load(SeqCst), 1);
}

#[test]
fn a_poll_ends_with_its_port() {
    let (mut table, shared) = table(2);
    let port = table.bind_ipi(VcpuId(0)).unwrap();
    let other = table.bind_ipi(VcpuId(0)).unwrap();
    for polled in [port, other] {
        set_bit(&shared, shared_info::EVTCHN_MASK, polled);
    }
    assert_eq!(table.start_poll(VcpuId(1), &[port]), Ok(Poll::Sleep));
    assert_eq!(table.deliver(other), Wake::NONE);
    let wake = table.deliver(port);
    assert_eq!(
        wake,
        Wake {
            pollers: VcpuSet::one(VcpuId(1)),
            ..Wake::NONE
        }
    );
    // Pending although masked: nothing to wait for.
    assert_eq!(table.start_poll(VcpuId(1), &[port]), Ok(Poll::Ready));
    assert_eq!(
        table.start_poll(VcpuId(1), &[EvtchnPort(99)]),
        Err(Errno::Einval)
    );
}

#[test]
fn a_poll_of_several_ports_ends_with_any_and_stops_when_told() {
    let (mut table, shared) = table(3);
    let ports: [_; 3] = core::array::from_fn(|_| table.bind_ipi(VcpuId(0)).unwrap());
    for polled in ports {
        set_bit(&shared, shared_info::EVTCHN_MASK, polled);
    }
    assert_eq!(table.start_poll(VcpuId(1), &ports), Ok(Poll::Sleep));
    assert_eq!(table.start_poll(VcpuId(2), &ports), Ok(Poll::Sleep));
    table.stop_poll(VcpuId(2));
    assert_eq!(table.deliver(ports[1]).pollers, VcpuSet::one(VcpuId(1)));
    // An upcall that waits ends a poll before it starts.
    let loud = table.alloc_unbound(OTHER).unwrap();
    assert_eq!(table.bind_vcpu(loud, VcpuId(1)), Ok(()));
    assert_eq!(table.deliver(loud), upcall(1));
    assert_eq!(table.start_poll(VcpuId(1), &[]), Ok(Poll::Ready));
}

#[test]
fn a_place_checked_at_one_width_serves_at_the_other() {
    let (mut table, _) = table(1);
    table.set_width(Width::Bits32);
    let offset = table.check_info_offset(4).unwrap();
    // Another vCPU latches the width in between.
    table.set_width(Width::Bits64);
    let place = page();
    assert_eq!(
        table.move_info(VcpuId(0), place.clone(), offset),
        Ok(upcall(0))
    );
    for half in [0, 4] {
        let selector = place.u32(offset + vcpu_info::PENDING_SEL + half);
        assert_eq!(selector.load(SeqCst), u32::MAX);
    }
    let port = table.bind_ipi(VcpuId(0)).unwrap();
    assert!(
        table.deliver(port).upcalls.is_empty(),
        "the upcall is pending already"
    );
}
