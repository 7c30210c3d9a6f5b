//! Where a vCPU's `vcpu_info` is (`public/xen.h`), and its upcall flag.

use core::mem::offset_of;
use core::sync::atomic::{Ordering, fence};

use abi::shared_info::{self, vcpu_info};
use abi::vcpu::VcpuTimeInfo;
use pv_drivers::shared_page::SharedByte;
use zerocopy::IntoBytes;

use super::clock::Record;
use crate::mm::page::PageRef;

/// A vCPU's `struct vcpu_info`, in guest memory.
#[derive(Clone, Debug)]
pub struct VcpuInfo {
    /// The page it is in, kept as long as this is.
    pub page: PageRef,
    /// Its offset in the page; the structure stays inside.
    pub offset: usize,
    /// Its `evtchn_upcall_pending`, which is looked at before each VM entry.
    upcall_pending: SharedByte,
}

impl VcpuInfo {
    /// Where a new domain's vCPU has its information: in the shared page, if it has room.
    #[must_use]
    pub fn in_shared_info(page: &PageRef, vcpu: u32) -> Option<Self> {
        (vcpu < shared_info::LEGACY_MAX_VCPUS).then(|| {
            Self::new(
                page.clone(),
                (vcpu as usize).saturating_mul(vcpu_info::SIZE),
            )
        })
    }

    /// The information at an offset of a page, which it must not leave.
    #[must_use]
    pub fn new(page: PageRef, offset: usize) -> Self {
        let upcall_pending = page.byte(offset.saturating_add(vcpu_info::UPCALL_PENDING));
        Self {
            page,
            offset,
            upcall_pending,
        }
    }

    /// Fills in the vCPU's time.
    pub fn publish_time(&self, record: &Record) {
        let at = self.offset.saturating_add(vcpu_info::TIME);
        let version = self
            .page
            .u32(at.saturating_add(offset_of!(VcpuTimeInfo, version)));
        let old = version.load(Ordering::Relaxed) & !1;
        version.store(old.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        let time = record.encode(old.wrapping_add(1));
        // The guest sees the odd version until all of it is there.
        self.page.write(at, time.as_bytes());
        version.store(old.wrapping_add(2), Ordering::Release);
    }

    /// True while `evtchn_upcall_pending` is set.
    #[inline(always)]
    #[must_use]
    pub fn upcall_pending(&self) -> bool {
        self.upcall_pending.get().load(Ordering::Acquire) != 0
    }

    /// Clears `evtchn_upcall_mask`, as blocking does.
    pub fn clear_upcall_mask(&self) {
        let mask = self.page.u8(self.offset.saturating_add(1));
        mask.store(0, Ordering::Release);
    }
}
