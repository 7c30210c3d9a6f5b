//! Event channels against a guest that plays by the rules.
#![expect(
    clippy::arithmetic_side_effects,
    reason = "tests choose their own numbers"
)]

mod fifo;
mod ports;
mod two_level;

use core::sync::atomic::Ordering::SeqCst;

use abi::event_channel::virq;
use abi::shared_info::{self, vcpu_info};
use abi::{DomId, EvtchnPort, VcpuId};

use super::{EvtchnTable, Sent, VcpuSet, Wake};
use crate::mm::frame::Owner;
use crate::mm::page::PageRef;
use crate::mm::testing;

const LIMIT: u32 = 1023;
const OTHER: DomId = DomId(7);

fn page() -> PageRef {
    testing::page(Owner::Hypervisor)
}

/// A table of so many vCPUs, and its shared page.
fn table(vcpus: u32) -> (EvtchnTable, PageRef) {
    let shared = page();
    (EvtchnTable::new(LIMIT, vcpus, shared.clone()), shared)
}

fn upcall(vcpu: u32) -> Wake {
    Wake {
        upcalls: VcpuSet::one(VcpuId(vcpu)),
        ..Wake::NONE
    }
}

fn bit(page: &PageRef, base: usize, port: EvtchnPort) -> bool {
    let word = page.u64(base + port.0 as usize / 64 * 8).load(SeqCst);
    word & (1 << (port.0 % 64)) != 0
}

fn set_bit(page: &PageRef, base: usize, port: EvtchnPort) {
    page.u64(base + port.0 as usize / 64 * 8)
        .fetch_or(1 << (port.0 % 64), SeqCst);
}
