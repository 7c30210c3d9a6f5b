//! Messages between the local APICs of a domain.

use core::sync::atomic::Ordering;

use abi::VcpuId;

use crate::domain::VcpuRef;
use crate::intr::inbox::route;
use crate::intr::vlapic::{Actions, DeliveryMode, Ipi};
use crate::vcpu::{InitialState, Running};

/// Does what a write to the local APIC asks for.
pub fn perform(v: &mut Running<'_>, actions: Actions) {
    if let Some(ipi) = actions.ipi {
        send(v, ipi);
    }
    if actions.software_enabled {
        reassert_upcall(v);
    }
}

/// An upcall that is delivered as an APIC vector and found the APIC disabled comes again.
fn reassert_upcall(v: &Running<'_>) {
    let vector = v.vcpu.upcall_vector.load(Ordering::Relaxed);
    if vector != 0 && v.has_upcall() {
        v.vcpu.inbox.post(vector);
    }
}

fn send(v: &Running<'_>, ipi: Ipi) {
    let sender = usize::try_from(v.vcpu.id.0).unwrap_or(usize::MAX);
    let inboxes = v.domain.vcpus.iter().map(|vcpu| &*vcpu.inbox);
    let signature = v.domain.cpuid.fixed(1, 0).eax;
    for index in route(ipi, sender, inboxes) {
        let id = VcpuId(u32::try_from(index).unwrap_or(u32::MAX));
        if let Some(target) = VcpuRef::new(v.domain, id) {
            deliver(&target, ipi, signature);
        }
    }
}

fn deliver(target: &VcpuRef, ipi: Ipi, signature: u32) {
    match ipi.mode {
        DeliveryMode::Fixed | DeliveryMode::LowestPriority => {
            if target.inbox.post(ipi.vector) {
                target.kick();
            }
        }
        DeliveryMode::Nmi => {
            if target.inbox.post_nmi() {
                target.kick();
            }
        }
        DeliveryMode::Init => target.init(),
        DeliveryMode::Startup => {
            if target.wait_for_sipi.swap(false, Ordering::SeqCst) {
                target.start(InitialState::startup(ipi.vector, signature));
            }
        }
    }
}
