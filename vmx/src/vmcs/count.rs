//! Counts of VMCS accesses (cargo feature `count`); without the feature they stay 0 and cost
//! nothing.

/// VMREADs and VMWRITEs made through one VMCS since it was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// VMREADs.
    pub reads: u64,
    /// VMWRITEs.
    pub writes: u64,
    /// VMREADs of fields that KVM does not shadow for a nested hypervisor.
    pub unshadowed_reads: u64,
    /// VMWRITEs of such fields.
    pub unshadowed_writes: u64,
    /// Encoding of the last field accessed outside the shadow set (0: none).
    pub last_unshadowed: u32,
}

impl Counters {
    /// What was counted since `earlier`.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            reads: self.reads.wrapping_sub(earlier.reads),
            writes: self.writes.wrapping_sub(earlier.writes),
            unshadowed_reads: self.unshadowed_reads.wrapping_sub(earlier.unshadowed_reads),
            unshadowed_writes: self
                .unshadowed_writes
                .wrapping_sub(earlier.unshadowed_writes),
            last_unshadowed: self.last_unshadowed,
        }
    }

    #[inline(always)]
    pub(super) const fn count_read(&mut self, encoding: u32, shadowed: bool) {
        self.reads += 1;
        if !shadowed {
            self.unshadowed_reads += 1;
            self.last_unshadowed = encoding;
        }
    }

    #[inline(always)]
    pub(super) const fn count_write(&mut self, encoding: u32, shadowed: bool) {
        self.writes += 1;
        if !shadowed {
            self.unshadowed_writes += 1;
            self.last_unshadowed = encoding;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Counters;

    #[test]
    fn unshadowed_accesses_are_told_apart() {
        let mut counters = Counters::default();
        counters.count_read(0x681e, true);
        let before = counters;
        counters.count_read(0x2806, false);
        counters.count_write(0x681e, true);
        let since = counters.since(before);
        assert_eq!((since.reads, since.unshadowed_reads), (1, 1));
        assert_eq!((since.writes, since.unshadowed_writes), (1, 0));
        assert_eq!(since.last_unshadowed, 0x2806);
    }
}
