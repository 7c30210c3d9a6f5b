//! The paravirtual clock: nanoseconds out of the TSC by the record in `vcpu_info`.

use core::sync::atomic::{Ordering, fence};

use abi::shared_info::vcpu_info;
use abi::vcpu::VcpuTimeInfo;
use zerocopy::FromBytes;

use crate::shared_page::SharedPage;

/// Offset of `version` in the record.
const VERSION: usize = core::mem::offset_of!(VcpuTimeInfo, version);

/// Copies the clock record of the `vcpu_info` at `offset` of `page`, whole: the copy is repeated
/// while the hypervisor is writing.
#[must_use]
pub fn snapshot(page: SharedPage, offset: usize) -> VcpuTimeInfo {
    let record = offset + vcpu_info::TIME;
    loop {
        let before = page.u32(record + VERSION).load(Ordering::Acquire);
        let mut bytes = [0; size_of::<VcpuTimeInfo>()];
        page.read(record, &mut bytes);
        fence(Ordering::Acquire);
        let after = page.u32(record + VERSION).load(Ordering::Relaxed);
        if before & 1 == 0
            && before == after
            && let Ok(info) = VcpuTimeInfo::read_from_bytes(&bytes)
        {
            return info;
        }
        core::hint::spin_loop();
    }
}

/// System time, in nanoseconds, at `tsc`.
#[must_use]
pub fn system_time(info: &VcpuTimeInfo, tsc: u64) -> u64 {
    let delta = u128::from(tsc.wrapping_sub(info.tsc_timestamp));
    let shift = u32::from(info.tsc_shift.unsigned_abs());
    let shifted = if info.tsc_shift < 0 {
        delta >> shift
    } else {
        delta << shift
    };
    let scaled = ((shifted & u128::from(u64::MAX)) * u128::from(info.tsc_to_system_mul)) >> 32;
    // 64 bits times 32, less 32: it fits.
    info.system_time
        .wrapping_add(u64::try_from(scaled).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::system_time;
    use abi::vcpu::VcpuTimeInfo;

    #[test]
    fn scales_both_ways() {
        // 2 GHz: half a nanosecond a tick.
        let fast = VcpuTimeInfo::new(1000, 7, 1 << 31, 0, 0);
        assert_eq!(system_time(&fast, 1000), 7);
        assert_eq!(system_time(&fast, 3000), 1007);
        // 4 GHz by a shift to the right, 500 MHz by one to the left.
        let right = VcpuTimeInfo::new(0, 0, 1 << 31, -1, 0);
        assert_eq!(system_time(&right, 4000), 1000);
        let left = VcpuTimeInfo::new(0, 0, 1 << 31, 2, 0);
        assert_eq!(system_time(&left, 1000), 2000);
    }
}
