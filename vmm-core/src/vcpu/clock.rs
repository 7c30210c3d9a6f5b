//! The time as a vCPU reads it (`struct vcpu_time_info`, `public/xen.h`), and where.
//!
//! A domain's TSC starts at zero with its system time, and its vCPUs share one scale; the record
//! says so and stays true for ever. A vCPU that writes its TSC needs a record of its own, and from
//! then on no vCPU may read the record of another: [`time_flags::TSC_STABLE`] goes.

use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering, fence};

use abi::vcpu::{VcpuTimeInfo, time_flags};
use spin::Mutex;
use zerocopy::IntoBytes;

use crate::mm::span::Span;
use crate::time::{Clock, Scale};

/// What a vCPU's record depends on beside its domain's clock.
#[derive(Debug)]
pub struct VcpuClock {
    /// What to add to the host TSC to get the vCPU's.
    offset: AtomicU64,
    /// Where the guest wants a second copy.
    second: Mutex<Option<Second>>,
}

/// A second copy of the record.
#[derive(Debug)]
struct Second {
    place: Span,
    version: u32,
}

/// One state of a vCPU's record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// The vCPU's TSC when its domain's system time was zero.
    tsc: u64,
    scale: Scale,
    stable: bool,
}

impl VcpuClock {
    /// The clock of a vCPU whose TSC is `offset` ahead of the host's.
    #[must_use]
    pub const fn new(offset: u64) -> Self {
        Self {
            offset: AtomicU64::new(offset),
            second: Mutex::new(None),
        }
    }

    /// The vCPU's TSC is now this much ahead of the host's.
    pub fn set_offset(&self, offset: u64) {
        self.offset.store(offset, Ordering::Relaxed);
    }

    /// The record. `stable` says that all vCPUs of the domain have the same.
    #[must_use]
    pub fn record(&self, clock: &Clock, stable: bool) -> Record {
        Record {
            tsc: clock
                .epoch
                .0
                .wrapping_add(self.offset.load(Ordering::Relaxed)),
            scale: clock.scale,
            stable,
        }
    }

    /// Sets where the second copy is; [`Self::publish`] fills it in.
    pub fn set_second(&self, place: Option<Span>) {
        *self.second.lock() = place.map(|place| Second { place, version: 0 });
    }

    /// Writes the second copy, if the guest wants one.
    pub fn publish(&self, record: &Record) {
        let mut second = self.second.lock();
        let Some(Second { place, version }) = &mut *second else {
            return;
        };
        let begun = version.wrapping_add(1);
        place.write(offset_of!(VcpuTimeInfo, version), &begun.to_le_bytes());
        fence(Ordering::Release);
        place.write(0, record.encode(begun).as_bytes());
        fence(Ordering::Release);
        *version = begun.wrapping_add(1);
        place.write(offset_of!(VcpuTimeInfo, version), &version.to_le_bytes());
    }
}

impl Record {
    /// The record as a guest reads it. An odd version says that it is being written.
    #[must_use]
    pub fn encode(&self, version: u32) -> VcpuTimeInfo {
        let Scale { mul, shift } = self.scale;
        let flags = if self.stable {
            time_flags::TSC_STABLE
        } else {
            0
        };
        let mut time = VcpuTimeInfo::new(self.tsc, 0, mul, shift, flags);
        time.version = version;
        time
    }
}

#[cfg(test)]
mod tests {
    use super::VcpuClock;
    use crate::time::{Clock, Scale, Tsc};

    #[test]
    fn a_record_follows_its_vcpus_tsc() {
        let clock = Clock {
            epoch: Tsc(1_000_000),
            scale: Scale::from_khz(1_000_000),
            wall_seconds: 0,
        };
        let vcpu = VcpuClock::new(clock.tsc_offset());
        assert_eq!(vcpu.record(&clock, true).encode(2).tsc_timestamp, 0);
        // At host time 3,000,000 the guest sets its TSC to 500.
        vcpu.set_offset(500u64.wrapping_sub(3_000_000));
        let time = vcpu.record(&clock, false).encode(2);
        let guest_tsc: u64 = 500 + 1_000;
        let elapsed = guest_tsc.wrapping_sub(time.tsc_timestamp);
        assert_eq!(clock.scale.ns(elapsed), clock.system_time(Tsc(3_001_000)));
        assert_eq!(time.flags, 0);
    }
}
