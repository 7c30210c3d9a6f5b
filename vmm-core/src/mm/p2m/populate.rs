//! Memory for a domain: its RAM at the start, and what it asks for later.

use core::ops::AddAssign;

use abi::{Errno, Gfn};
use ept::{PageSize, Perms};

use super::flush::Flush;
use super::{P2m, PageKind, attr, distance, errno};
use crate::mm::frame::{Owner, frames};

/// When RAM is scrubbed and made present.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backing {
    /// At once, in the largest pages that fit.
    Now,
    /// At the first touch of each page, of up to 2 MiB.
    OnTouch,
}

/// How many pages of each size were mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PageCounts {
    /// Of 1 GiB.
    pub giant: u64,
    /// Of 2 MiB.
    pub large: u64,
    /// Of 4 KiB.
    pub small: u64,
}

impl AddAssign for PageCounts {
    fn add_assign(&mut self, more: Self) {
        self.giant += more.giant;
        self.large += more.large;
        self.small += more.small;
    }
}

impl AddAssign<PageSize> for PageCounts {
    fn add_assign(&mut self, one: PageSize) {
        match one {
            PageSize::Size1G => self.giant += 1,
            PageSize::Size2M => self.large += 1,
            PageSize::Size4K => self.small += 1,
        }
    }
}

impl P2m {
    /// Backs `count` guest frames from `gfn` with zeroed RAM, in the largest pages that alignment,
    /// machine and free memory allow. Nothing is changed on error.
    ///
    /// # Errors
    /// [`Errno::Einval`] outside the address space, [`Errno::Eexist`] where something is mapped,
    /// [`Errno::Enomem`].
    pub fn populate(&mut self, gfn: Gfn, count: u64, backing: Backing) -> Result<(), Errno> {
        self.populate_in_steps(gfn, count, backing, &mut || ())
            .map(drop)
    }

    /// The same for a domain under construction, which may take long: calls `give_way` between
    /// steps. Tells what pages were mapped.
    ///
    /// # Errors
    /// As [`P2m::populate`].
    pub fn populate_in_steps(
        &mut self,
        gfn: Gfn,
        count: u64,
        backing: Backing,
        give_way: &mut dyn FnMut(),
    ) -> Result<PageCounts, Errno> {
        let end = gfn.checked_add(count).filter(|end| *end <= self.gfn_end());
        let end = end.ok_or(Errno::Einval)?;
        if count == 0 {
            return Ok(PageCounts::default());
        }
        if self.ept.next(gfn, end).is_some() {
            return Err(Errno::Eexist);
        }
        let mut pages = PageCounts::default();
        if let Err(error) = self.place_all(gfn, end, backing, &mut pages, give_way) {
            self.take_back(gfn, end, give_way);
            return Err(error);
        }
        self.ram = self.ram.saturating_add(count);
        self.highest = self.highest.max(Gfn::new(end.raw().saturating_sub(1)));
        if backing == Backing::Now {
            self.touch(gfn, end, give_way);
        }
        Ok(pages)
    }

    /// Maps RAM from `start` to before `end`, where nothing is mapped; none of it is present yet.
    fn place_all(
        &mut self,
        start: Gfn,
        end: Gfn,
        backing: Backing,
        pages: &mut PageCounts,
        give_way: &mut dyn FnMut(),
    ) -> Result<(), Errno> {
        if backing == Backing::Now && self.limits.giant {
            // Before smaller pages break up the blocks that these need. From the top, since guests
            // have shared pages appear in their lowest memory, which splits what is there.
            let giant = PageSize::Size1G;
            let mut above = giant.base(end);
            while above.raw() >= giant.frames() + start.raw() {
                let at = Gfn::new(above.raw() - giant.frames());
                if !self.place(at, giant, give_way)? {
                    break;
                }
                *pages += giant;
                above = at;
            }
        }
        let mut at = start;
        while at < end {
            let size = if let Some((_, there)) = self.ept.entry(at) {
                there
            } else {
                let size = self.place_best(at, end, give_way)?;
                *pages += size;
                size
            };
            at = at.saturating_add(size.frames());
            give_way();
        }
        Ok(())
    }

    /// Maps one page of up to 2 MiB at `gfn`, which ends by `end`; tells its size.
    fn place_best(
        &mut self,
        gfn: Gfn,
        end: Gfn,
        give_way: &mut dyn FnMut(),
    ) -> Result<PageSize, Errno> {
        let large = PageSize::Size2M;
        let fits = large.base(gfn) == gfn && large.frames() <= distance(gfn, end);
        if fits && self.limits.large && self.place(gfn, large, give_way)? {
            return Ok(large);
        }
        if self.place(gfn, PageSize::Size4K, give_way)? {
            return Ok(PageSize::Size4K);
        }
        Err(Errno::Enomem)
    }

    /// Maps one page of RAM, not present yet; false when there is no free block of that size.
    pub(super) fn place(
        &mut self,
        gfn: Gfn,
        size: PageSize,
        give_way: &mut dyn FnMut(),
    ) -> Result<bool, Errno> {
        let owner = Owner::Domain(self.tables.domain);
        let Some(mfn) = frames().alloc_unscrubbed(size.order(), owner, give_way) else {
            return Ok(false);
        };
        let attr = attr(PageKind::Ram, Perms::empty());
        match self.ept.map(gfn, mfn, size, attr) {
            Ok(flush) => {
                self.settle(flush);
                Ok(true)
            }
            Err(error) => {
                frames().free_in_steps(mfn, size.order(), give_way);
                Err(errno(error))
            }
        }
    }

    /// Backs `2^order` guest frames from `gfn` with one block of zeroed RAM, as a guest asks for it
    /// (`XENMEM_populate_physmap`). Nothing is changed on error.
    ///
    /// # Errors
    /// As [`P2m::populate`]; [`Errno::Enomem`] also when there is memory but no such block.
    pub fn populate_extent(&mut self, gfn: Gfn, order: u8, backing: Backing) -> Result<(), Errno> {
        if order == 0 && backing == Backing::Now {
            return self.populate_small(gfn);
        }
        let count = 1_u64.unbounded_shl(order.into());
        let end = gfn.checked_add(count).filter(|end| *end <= self.gfn_end());
        let end = end.ok_or(Errno::Einval)?;
        if self.ept.next(gfn, end).is_some() {
            return Err(Errno::Eexist);
        }
        let owner = Owner::Domain(self.tables.domain);
        let mfn = frames().alloc_unscrubbed(order, owner, &mut || ());
        let mfn = mfn.ok_or(Errno::Enomem)?;
        let large = PageSize::Size2M;
        let size = if self.limits.large && order >= large.order() && large.base(gfn) == gfn {
            large
        } else {
            PageSize::Size4K
        };
        let attr = attr(PageKind::Ram, Perms::empty());
        let mut at = gfn;
        while at < end {
            let next = large.base(at).saturating_add(large.frames()).min(end);
            let pages = distance(at, next);
            let from = mfn.saturating_add(distance(gfn, at));
            let mapped = if size == large {
                self.ept.map(at, from, size, attr)
            } else {
                self.ept.map_run(at, from, pages, attr)
            };
            match mapped {
                Ok(flush) => self.settle(flush),
                Err(error) => {
                    self.take_runs_back(gfn, at, size);
                    frames().free(mfn, order);
                    return Err(errno(error));
                }
            }
            at = next;
        }
        self.ram = self.ram.saturating_add(count);
        self.highest = self.highest.max(Gfn::new(end.raw().saturating_sub(1)));
        if backing == Backing::Now {
            self.touch(gfn, end, &mut || ());
        }
        Ok(())
    }

    /// Undoes what an extent that did not get through has mapped in pages of `size`. No page of it
    /// was present; the tables wait for the next invalidation.
    fn take_runs_back(&mut self, start: Gfn, end: Gfn, size: PageSize) {
        let large = PageSize::Size2M;
        let mut at = start;
        while at < end {
            let next = large.base(at).saturating_add(large.frames());
            let unmapped = if size == large {
                self.ept.unmap(at, size, |_| ())
            } else {
                self.ept.unmap_run(at, distance(at, next))
            };
            let Ok(flush) = unmapped else {
                return;
            };
            self.defer(Flush::of(flush, self.tables));
            at = next;
        }
    }

    /// The same for one page, present from the start. Mostly nothing is there: to look before the
    /// page is taken would walk the tables twice.
    fn populate_small(&mut self, gfn: Gfn) -> Result<(), Errno> {
        let owner = Owner::Domain(self.tables.domain);
        let mfn = frames().alloc_zeroed(0, owner).ok_or(Errno::Enomem)?;
        let attr = attr(PageKind::Ram, Perms::RWX);
        match self.ept.map(gfn, mfn, PageSize::Size4K, attr) {
            Ok(flush) => self.settle(flush),
            Err(error) => {
                frames().free(mfn, 0);
                return Err(errno(error));
            }
        }
        self.ram = self.ram.saturating_add(1);
        self.highest = self.highest.max(gfn);
        Ok(())
    }

    /// Ends a mapping where nothing was mapped. All that may wait is an empty table which it
    /// replaced.
    fn settle(&mut self, flush: ept::Flush) {
        if flush.is_needed() {
            self.defer(Flush::of(flush, self.tables));
        } else {
            flush.done(&self.tables);
        }
    }

    /// Undoes a populate that did not get through. No page of it was present, so the pages go at
    /// once; the tables wait for the next invalidation.
    fn take_back(&mut self, start: Gfn, end: Gfn, give_way: &mut dyn FnMut()) {
        let mut at = start;
        while let Some(leaf) = self.ept.next(at, end) {
            at = leaf.gfn.saturating_add(leaf.size.frames());
            let Ok(flush) = self.ept.unmap(leaf.gfn, leaf.size, |_| ()) else {
                return;
            };
            frames().free_in_steps(leaf.mfn, leaf.size.order(), give_way);
            self.defer(Flush::of(flush, self.tables));
            give_way();
        }
    }

    /// Makes every page from `start` to before `end` present, up to the first hole. Calls
    /// `give_way` between steps.
    pub fn touch(&self, start: Gfn, end: Gfn, give_way: &mut dyn FnMut()) {
        let mut at = start;
        while at < end {
            let Some((entry, size)) = self.ept.entry(at) else {
                return;
            };
            let mut done = 0;
            while !entry.is_present() && done < size.frames() {
                {
                    let _one_at_a_time = self.touch.lock();
                    done = frames().expose(entry.mfn(), size.order(), done);
                    if done >= size.frames() {
                        // There is such a leaf, and no CPU refuses these permissions.
                        let _ = self.ept.reveal(at, Perms::RWX);
                    }
                }
                give_way();
            }
            at = size.base(at).saturating_add(size.frames());
        }
    }
}
