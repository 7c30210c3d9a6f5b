//! This domain's grant table: which references are free, and writing entries (`GNTTABOP_*`,
//! `public/grant_table.h`).
//!
//! [`Grants`] works on the table's pages, wherever the guest has had them placed
//! (`XENMAPSPACE_grant_table`). It trusts the hypervisor that they are this domain's table, and
//! nobody else with them: a peer that uses a grant never writes here.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use core::sync::atomic::fence;

use abi::grant_table::{
    GET_VERSION, GetVersion, QUERY_SIZE, QuerySize, RESERVED_ENTRIES, SET_VERSION, SetVersion,
    flags, v1, v2,
};
use abi::hypercall::GRANT_TABLE_OP;
use abi::{DomId, Gfn, GrantRef};
use zerocopy::FromZeros;

use crate::hypercall::{Refused, array_command};
use crate::shared_page::SharedPage;

/// Frames that this domain's table has and may have.
///
/// # Errors
/// None that a conforming hypervisor returns.
pub fn query_size() -> Result<QuerySize, Refused> {
    let mut argument = QuerySize::new_zeroed();
    argument.dom = DomId::SELF.0;
    array_command(
        GRANT_TABLE_OP,
        QUERY_SIZE,
        core::slice::from_mut(&mut argument),
    )?;
    Ok(argument)
}

/// Chooses the layout of entries; all but the reserved ones are cleared.
///
/// # Errors
/// `-EINVAL` for an unknown version, `-ENOSYS` for one that is not offered, `-EBUSY` while
/// entries are in use.
pub fn set_version(version: u32) -> Result<u32, Refused> {
    let mut argument = SetVersion { version };
    array_command(
        GRANT_TABLE_OP,
        SET_VERSION,
        core::slice::from_mut(&mut argument),
    )?;
    Ok(argument.version)
}

/// The layout of entries in force.
///
/// # Errors
/// None that a conforming hypervisor returns.
pub fn version() -> Result<u32, Refused> {
    let mut argument = GetVersion::new_zeroed();
    argument.dom = DomId::SELF.0;
    array_command(
        GRANT_TABLE_OP,
        GET_VERSION,
        core::slice::from_mut(&mut argument),
    )?;
    Ok(argument.version)
}

/// What a peer may do with a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Read it.
    Read,
    /// Read and write it.
    Write,
}

impl Access {
    const fn flags(self) -> u16 {
        match self {
            Self::Read => flags::PERMIT_ACCESS | flags::READONLY,
            Self::Write => flags::PERMIT_ACCESS,
        }
    }
}

/// The layout of the entries, and for version 2 the pages with their statuses.
#[derive(Clone, Copy, Debug)]
enum Layout<P> {
    V1,
    V2 { status: P },
}

/// A grant is in use, or was when it was looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InUse;

/// The references of a table and who has them.
///
/// Free ones form a chain through the frame fields of their own entries, which mean nothing to
/// the hypervisor while the flags are 0.
#[derive(Debug)]
pub struct Grants<P> {
    frames: P,
    layout: Layout<P>,
    free: u32,
}

/// The end of the chain.
const NONE: u32 = u32::MAX;

impl<P: AsRef<[SharedPage]>> Grants<P> {
    /// Takes over the frames of a version 1 table, in order; no grant but the reserved ones is
    /// given.
    pub fn v1(frames: P) -> Self {
        Self::new(frames, Layout::V1)
    }

    /// Takes over the frames of a version 2 table and its status frames, in order.
    pub fn v2(frames: P, status: P) -> Self {
        Self::new(frames, Layout::V2 { status })
    }

    fn new(frames: P, layout: Layout<P>) -> Self {
        let mut grants = Self {
            frames,
            layout,
            free: NONE,
        };
        for gref in (RESERVED_ENTRIES..grants.entries()).rev() {
            grants.put_back(GrantRef(gref));
        }
        grants
    }

    /// How many references are free.
    pub fn free(&self) -> usize {
        let first = Some(self.free).filter(|&gref| gref != NONE);
        let next = |gref: &u32| {
            self.frame_field(GrantRef(*gref))
                .filter(|&gref| gref != NONE)
        };
        // Nobody else writes the chain, but a table is only as long as it is.
        let chain = core::iter::successors(first, next);
        chain.take(self.entries() as usize).count()
    }

    /// Entries the table has.
    fn entries(&self) -> u32 {
        let per_frame = match self.layout {
            Layout::V1 => v1::ENTRIES_PER_FRAME,
            Layout::V2 { .. } => v2::ENTRIES_PER_FRAME,
        };
        let frames = self.frames.as_ref().len();
        u32::try_from(frames).map_or(0, |frames| frames.saturating_mul(per_frame))
    }

    /// Lets `to` use the page at `gfn`. `None` when no reference is free, or for a frame that
    /// version 1 cannot name.
    pub fn grant(&mut self, to: DomId, gfn: Gfn, access: Access) -> Option<GrantRef> {
        self.write(to, gfn, access.flags(), 0)
    }

    /// Lets `to` copy `length` bytes from `offset` of the page at `gfn`, or to there; it cannot
    /// map them. `None` as above, and in version 1.
    pub fn grant_part(
        &mut self,
        to: DomId,
        gfn: Gfn,
        access: Access,
        offset: u16,
        length: u16,
    ) -> Option<GrantRef> {
        if matches!(self.layout, Layout::V1) {
            return None;
        }
        let range = u32::from(offset) | u32::from(length) << 16;
        self.write(to, gfn, access.flags() | flags::SUB_PAGE, range)
    }

    fn write(&mut self, to: DomId, gfn: Gfn, bits: u16, range: u32) -> Option<GrantRef> {
        let gref = GrantRef(self.free);
        if gref.0 == NONE || (self.is_v1() && gfn.raw() > u64::from(u32::MAX)) {
            return None;
        }
        let (page, at) = self.entry(gref)?;
        self.free = self.frame_field(gref)?;
        match self.layout {
            Layout::V1 => page
                .u32(at + v1::FRAME)
                .store(u32::try_from(gfn.raw()).ok()?, Relaxed),
            Layout::V2 { .. } => {
                page.u32(at + v2::RANGE).store(range, Relaxed);
                page.u64(at + v2::FRAME).store(gfn.raw(), Relaxed);
            }
        }
        page.u16(at + v1::DOMID).store(to.0, Relaxed);
        // The flags make the entry valid and so come last.
        page.u16(at + v1::FLAGS).store(bits, Release);
        Some(gref)
    }

    /// True while somebody has the page mapped, or copies.
    pub fn is_in_use(&self, gref: GrantRef) -> bool {
        let word = match &self.layout {
            Layout::V1 => self.entry(gref),
            Layout::V2 { status } => status_place(status, gref),
        };
        let used = flags::READING | flags::WRITING;
        word.is_some_and(|(page, at)| page.u16(at).load(Acquire) & used != 0)
    }

    /// Takes a grant back; its reference is free again.
    ///
    /// # Errors
    /// [`InUse`]: it is used, and in version 1 goes on being granted. In version 2 nobody new can
    /// use it, and it is to be taken back again later.
    pub fn end(&mut self, gref: GrantRef) -> Result<(), InUse> {
        let Some((page, at)) = self.entry(gref) else {
            return Ok(());
        };
        let word = page.u16(at + v1::FLAGS);
        if self.is_v1() {
            let used = flags::READING | flags::WRITING;
            let taken = word.fetch_update(SeqCst, SeqCst, |bits| (bits & used == 0).then_some(0));
            taken.map_err(|_| InUse)?;
        } else {
            word.store(0, SeqCst);
            fence(SeqCst);
            if self.is_in_use(gref) {
                return Err(InUse);
            }
        }
        self.put_back(gref);
        Ok(())
    }

    const fn is_v1(&self) -> bool {
        matches!(self.layout, Layout::V1)
    }

    fn put_back(&mut self, gref: GrantRef) {
        let next = self.free;
        let Some((page, at)) = self.entry(gref) else {
            return;
        };
        match self.layout {
            Layout::V1 => page.u32(at + v1::FRAME).store(next, Relaxed),
            Layout::V2 { .. } => page.u64(at + v2::FRAME).store(next.into(), Relaxed),
        }
        self.free = gref.0;
    }

    /// The chain's link in a free entry.
    fn frame_field(&self, gref: GrantRef) -> Option<u32> {
        let (page, at) = self.entry(gref)?;
        match self.layout {
            Layout::V1 => Some(page.u32(at + v1::FRAME).load(Relaxed)),
            Layout::V2 { .. } => u32::try_from(page.u64(at + v2::FRAME).load(Relaxed)).ok(),
        }
    }

    /// Where an entry lies.
    fn entry(&self, gref: GrantRef) -> Option<(SharedPage, usize)> {
        let (frame, at) = match self.layout {
            Layout::V1 => (
                gref.0 / v1::ENTRIES_PER_FRAME,
                (gref.0 % v1::ENTRIES_PER_FRAME) as usize * v1::ENTRY_SIZE,
            ),
            Layout::V2 { .. } => (
                gref.0 / v2::ENTRIES_PER_FRAME,
                (gref.0 % v2::ENTRIES_PER_FRAME) as usize * v2::ENTRY_SIZE,
            ),
        };
        Some((*self.frames.as_ref().get(frame as usize)?, at))
    }
}

fn status_place<P: AsRef<[SharedPage]>>(status: &P, gref: GrantRef) -> Option<(SharedPage, usize)> {
    let frame = gref.0 / v2::STATUSES_PER_FRAME;
    let at = (gref.0 % v2::STATUSES_PER_FRAME) as usize * v2::STATUS_SIZE;
    Some((*status.as_ref().get(frame as usize)?, at))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::{Access, Grants, InUse};
    use crate::test_page::TestPage;
    use abi::{DomId, Gfn, GrantRef};
    use core::sync::atomic::Ordering::SeqCst;

    const PEER: DomId = DomId(5);

    #[test]
    fn references_come_in_order_and_back() {
        let page = TestPage::new();
        let view = page.view();
        let mut grants = Grants::v1([view]);
        let mut give = || grants.grant(PEER, Gfn::new(0x1234), Access::Write);
        assert_eq!(give(), Some(GrantRef(8)));
        assert_eq!(view.u64(64).load(SeqCst), 0x0000_1234_0005_0001);
        let rest: std::vec::Vec<_> = core::iter::from_fn(give).collect();
        assert_eq!((rest.len(), rest.last()), (503, Some(&GrantRef(511))));
        assert_eq!(grants.end(GrantRef(100)), Ok(()));
        assert_eq!(grants.end(GrantRef(9)), Ok(()));
        assert_eq!(view.u16(100 * 8).load(SeqCst), 0);
        let readonly = grants.grant(PEER, Gfn::new(7), Access::Read);
        assert_eq!(readonly, Some(GrantRef(9)));
        assert_eq!(view.u64(72).load(SeqCst), 0x0000_0007_0005_0005);
        assert_eq!(grants.grant(PEER, Gfn::new(1 << 32), Access::Read), None);
        assert_eq!(
            grants.grant_part(PEER, Gfn::new(7), Access::Read, 0, 1),
            None
        );
    }

    #[test]
    fn a_grant_in_use_is_not_taken_back() {
        let page = TestPage::new();
        let view = page.view();
        let mut grants = Grants::v1([view]);
        let gref = grants.grant(PEER, Gfn::new(1), Access::Write).unwrap();
        view.u16(64).fetch_or(8, SeqCst);
        assert!(grants.is_in_use(gref));
        assert_eq!(grants.end(gref), Err(InUse));
        assert_eq!(view.u16(64).load(SeqCst), 9);
        view.u16(64).fetch_and(!8, SeqCst);
        assert_eq!(grants.end(gref), Ok(()));
    }

    #[test]
    fn version_2_keeps_statuses_apart() {
        let pages = [TestPage::new(), TestPage::new()];
        let [entries, status] = [0, 1].map(|index: usize| pages[index].view());
        let mut grants = Grants::v2([entries], [status]);
        let far = Gfn::new(1 << 33);
        let gref = grants.grant_part(PEER, far, Access::Read, 32, 100);
        assert_eq!(gref, Some(GrantRef(8)));
        assert_eq!(
            entries.u64(128).load(SeqCst),
            100 << 48 | 32 << 32 | 0x0005_0105
        );
        assert_eq!(entries.u64(136).load(SeqCst), 1 << 33);
        status.u16(16).store(8, SeqCst);
        assert_eq!(grants.end(GrantRef(8)), Err(InUse));
        assert_eq!(entries.u16(128).load(SeqCst), 0, "nobody new");
        status.u16(16).store(0, SeqCst);
        assert_eq!(grants.end(GrantRef(8)), Ok(()));
        assert_eq!(
            grants.grant(PEER, Gfn::new(1), Access::Write),
            Some(GrantRef(8))
        );
    }
}
