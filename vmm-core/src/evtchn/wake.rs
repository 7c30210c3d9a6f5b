//! Whom an event concerns: sets of vCPUs.

use abi::VcpuId;

/// The most vCPUs a domain may have (`HVM_MAX_VCPUS`, `public/hvm/hvm_info_table.h`).
pub const MAX_VCPUS: u32 = 128;

/// A set of vCPUs of one domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct VcpuSet(u128);

impl VcpuSet {
    /// The empty set.
    pub const EMPTY: Self = Self(0);

    /// The set of one vCPU.
    #[must_use]
    pub fn one(id: VcpuId) -> Self {
        Self(1u128.checked_shl(id.0).unwrap_or(0))
    }

    /// True when no vCPU is in the set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// True when the vCPU is in the set.
    #[must_use]
    pub fn contains(self, id: VcpuId) -> bool {
        self.0 & Self::one(id).0 != 0
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Adds a vCPU.
    pub fn insert(&mut self, id: VcpuId) {
        self.0 |= Self::one(id).0;
    }

    /// Takes a vCPU out.
    pub fn remove(&mut self, id: VcpuId) {
        self.0 &= !Self::one(id).0;
    }
}

impl Iterator for VcpuSet {
    type Item = VcpuId;

    fn next(&mut self) -> Option<VcpuId> {
        let id = VcpuId(self.0.trailing_zeros());
        (self.0 != 0).then(|| {
            self.remove(id);
            id
        })
    }
}

/// What an operation on event channels asks of the domain's vCPUs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[must_use = "a vCPU that is not told of its event may sleep for ever"]
pub struct Wake {
    /// vCPUs whose `evtchn_upcall_pending` has just been set.
    pub upcalls: VcpuSet,
    /// vCPUs whose poll has ended.
    pub pollers: VcpuSet,
}

impl Wake {
    /// Nobody.
    pub const NONE: Self = Self {
        upcalls: VcpuSet::EMPTY,
        pollers: VcpuSet::EMPTY,
    };

    /// Both together.
    pub const fn and(self, other: Self) -> Self {
        Self {
            upcalls: self.upcalls.union(other.upcalls),
            pollers: self.pollers.union(other.pollers),
        }
    }

    /// True when nobody is to be told anything.
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.upcalls.is_empty() && self.pollers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::{MAX_VCPUS, VcpuSet};
    use abi::VcpuId;

    #[test]
    fn a_set_holds_what_was_put_in() {
        let mut set = VcpuSet::EMPTY;
        for id in [0, 5, 127] {
            set.insert(VcpuId(id));
        }
        set.remove(VcpuId(5));
        assert_eq!(set.collect::<Vec<_>>(), [VcpuId(0), VcpuId(127)]);
        assert!(set.contains(VcpuId(127)) && !set.contains(VcpuId(5)));
    }

    #[test]
    fn ids_beyond_the_limit_are_never_members() {
        let mut set = VcpuSet::one(VcpuId(MAX_VCPUS));
        set.insert(VcpuId(u32::MAX));
        assert!(set.is_empty());
    }
}
