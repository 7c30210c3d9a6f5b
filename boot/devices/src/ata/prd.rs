//! The table that tells the bus master where memory is: Physical Region Descriptors.

use crate::DmaMemory;
use crate::block::Span;

/// Bytes in a descriptor.
const ENTRY: usize = 8;
/// No region goes across a multiple of this.
const BORDER: u64 = 1 << 16;
const LAST: u32 = 1 << 31;

/// Why a table cannot be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unfit {
    /// A piece is out of reach, or at an odd address.
    Address,
    /// They are too many.
    Room,
    /// They are not as much as the sectors are.
    Length,
}

/// How many descriptors fit.
pub(super) fn room(table: &impl DmaMemory) -> usize {
    table.size() / ENTRY
}

/// True when there is room for pieces of `bytes` bytes together, a descriptor for each.
pub(super) fn fits(table: &impl DmaMemory, spans: impl Iterator<Item = Span>, bytes: u64) -> bool {
    let (mut count, mut total) = (0usize, 0u64);
    for Span { address, len } in spans {
        count = count.saturating_add(1);
        total = total.saturating_add(len.into());
        let last = address.saturating_add(len.into()).saturating_sub(1);
        let sound = len != 0 && (address | u64::from(len)) & 1 == 0;
        if !sound || last >= 1 << 32 || address / BORDER != last / BORDER {
            return false;
        }
    }
    count <= room(table) && total == bytes
}

/// Writes the table for pieces of `bytes` bytes together. Neighbours become one region.
pub(super) fn fill(
    table: &impl DmaMemory,
    spans: impl Iterator<Item = Span>,
    bytes: u64,
) -> Result<(), Unfit> {
    let mut entries = Entries {
        table,
        count: 0,
        open: None,
    };
    let mut total = 0u64;
    for Span { address, len } in spans {
        total = total.saturating_add(len.into());
        let end = address.checked_add(len.into()).ok_or(Unfit::Address)?;
        if (address | u64::from(len)) & 1 != 0 || len == 0 || end > 1 << 32 {
            return Err(Unfit::Address);
        }
        entries.add(address, end)?;
    }
    if total != bytes || bytes == 0 {
        return Err(Unfit::Length);
    }
    entries.close(LAST)
}

struct Entries<'a, M> {
    table: &'a M,
    count: usize,
    /// The region that may still grow.
    open: Option<(u64, u64)>,
}

impl<M: DmaMemory> Entries<'_, M> {
    fn add(&mut self, start: u64, end: u64) -> Result<(), Unfit> {
        let mut start = start;
        while start < end {
            let border = (start | (BORDER - 1)).saturating_add(1);
            let part = end.min(border);
            self.open = Some(match self.open {
                Some((first, last)) if last == start && last & (BORDER - 1) != 0 => (first, part),
                _ => {
                    self.close(0)?;
                    (start, part)
                }
            });
            start = part;
        }
        Ok(())
    }

    fn close(&mut self, flags: u32) -> Result<(), Unfit> {
        let Some((start, end)) = self.open.take() else {
            return Ok(());
        };
        if self.count >= room(self.table) {
            return Err(Unfit::Room);
        }
        let at = self.count.saturating_mul(ENTRY);
        // 64 KiB are 0 there.
        let length = u32::try_from(end.saturating_sub(start) & (BORDER - 1)).unwrap_or(0);
        let address = u32::try_from(start).map_err(|_| Unfit::Address)?;
        self.table.write32(at, address);
        self.table.write32(at.saturating_add(4), length | flags);
        self.count = self.count.saturating_add(1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Unfit, fill};
    use crate::DmaMemory as _;
    use crate::block::Span;
    use crate::testing::FakeMemory;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
    use std::vec::Vec;

    fn spans(list: &[(u64, u32)]) -> Vec<Span> {
        let span = |&(address, len)| Span { address, len };
        list.iter().map(span).collect()
    }

    fn regions(table: &FakeMemory) -> Vec<(u64, u64)> {
        let mut all = Vec::new();
        for at in (0..table.size()).step_by(8) {
            let (start, word) = (table.read32(at), table.read32(at + 4));
            let length = match word & 0xffff {
                0 => 0x1_0000,
                length => u64::from(length),
            };
            all.push((start.into(), length));
            if word >> 31 != 0 {
                return all;
            }
        }
        panic!("no last region");
    }

    #[test]
    fn neighbours_are_joined_and_borders_kept() {
        let table = FakeMemory::new(0, 64);
        let list = spans(&[(0x1000, 0x1000), (0x2000, 0x1000), (0x8000, 512)]);
        fill(&table, list.into_iter(), 0x2200).unwrap();
        assert_eq!(regions(&table), [(0x1000, 0x2000), (0x8000, 512)]);
        let list = spans(&[(0x0, 0x1_0000), (0x1_0000, 0x1_8000)]);
        fill(&table, list.into_iter(), 0x2_8000).unwrap();
        let wanted = [(0, 0x1_0000), (0x1_0000, 0x1_0000), (0x2_0000, 0x8000)];
        assert_eq!(regions(&table), wanted);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let table = FakeMemory::new(0, 16);
        let fill = |list: &[(u64, u32)], bytes| fill(&table, spans(list).into_iter(), bytes);
        assert_eq!(fill(&[(1, 512)], 512), Err(Unfit::Address));
        assert_eq!(fill(&[(0xffff_fe00, 1024)], 1024), Err(Unfit::Address));
        assert_eq!(fill(&[(u64::MAX - 1, 512)], 512), Err(Unfit::Address));
        assert_eq!(fill(&[(0x1000, 512)], 1024), Err(Unfit::Length));
        assert_eq!(fill(&[], 0), Err(Unfit::Length));
        let far = [(0, 512), (0x1000, 512), (0x2000, 512)];
        assert_eq!(fill(&far, 1536), Err(Unfit::Room));
        assert_eq!(fill(&[(0xffff_fe00, 512)], 512), Ok(()));
    }

    proptest! {
        /// The regions are the pieces' bytes in order, and none crosses a border.
        #[test]
        fn regions_are_the_same_bytes(
            list in proptest::collection::vec((0u64..1 << 18, 1u32..150), 1..6),
            high in any::<u16>(),
        ) {
            let base = u64::from(high) << 14;
            let list: Vec<(u64, u32)> = list.iter()
                .map(|(at, len)| (base + at * 2, len * 512)).collect();
            let table = FakeMemory::new(0, 4096);
            let bytes = list.iter().map(|(_, len)| u64::from(*len)).sum();
            fill(&table, spans(&list).into_iter(), bytes).unwrap();
            let found = regions(&table);
            for (start, len) in &found {
                prop_assert!(start >> 16 == (start + len - 1) >> 16);
            }
            let wide: Vec<(u64, u64)> = list.iter().map(|(at, len)| (*at, u64::from(*len))).collect();
            let bytes_of = |list: &[(u64, u64)]| -> Vec<u64> {
                list.iter().flat_map(|(at, len)| (*at..at + len).step_by(2)).collect()
            };
            prop_assert_eq!(bytes_of(&found), bytes_of(&wide));
        }
    }
}
