//! A domain's guest-physical memory: which machine frame backs each guest frame.
//!
//! [`P2m`] owns the domain's extended page tables and one hold on every frame they map, so a frame
//! outlives its mappings and a mapping never outlives its frame. It tells apart:
//!
//! | kind      | frames                                           | when unmapped     |
//! |-----------|--------------------------------------------------|-------------------|
//! | `Ram`     | the domain's own memory, in pages of any size    | freed, scrubbed   |
//! | `Shared`  | a page the hypervisor or the domain also holds   | this hold dropped |
//! | `Foreign` | another domain's page, mapped by grant           | this hold dropped |
//!
//! A guest frame in none of them is a hole; the guest may have MMIO emulated there.
//!
//! RAM can be backed *on touch*: it has its frames, but no permissions yet. The guest's first access
//! scrubs its page, in steps, and makes it present, which costs no invalidation. What the hypervisor
//! itself touches before that is scrubbed frame by frame.
//!
//! Changes return a [`Flush`], which the caller turns into INVEPT where the domain runs.

mod cache;
mod flush;
mod populate;
mod state;
mod tables;
mod walks;

use core::ops::Range;

use abi::{DomId, Errno, Gfn, Hpa, Mfn};
use ept::{Attr, Entry, Ept, EptError, Leaf, MemType, PageSize};
use invariant::OrBroken;
use spin::Mutex;

pub use self::cache::PageCache;
pub(super) use self::cache::Pages;
pub use self::flush::Flush;
pub use self::populate::{Backing, PageCounts};
use self::state::State;
use self::tables::Tables;
pub(super) use self::walks::{Start, Trail};
use super::frame::frames;
use super::page::PageRef;

pub use ept::Perms;

/// What backs a guest frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PageKind {
    /// The domain's own memory.
    Ram = 1,
    /// A page held by others in the hypervisor too: shared info, grant table, console ring.
    Shared = 2,
    /// A page of another domain, mapped by grant.
    Foreign = 3,
}

impl PageKind {
    const fn from_tag(tag: u8) -> Self {
        match tag {
            1 => Self::Ram,
            2 => Self::Shared,
            _ => Self::Foreign,
        }
    }
}

/// What a guest frame is mapped to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct P2mEntry {
    /// The machine frame.
    pub mfn: Mfn,
    /// What it is.
    pub kind: PageKind,
    /// True when the guest may write it.
    pub writable: bool,
}

/// What the machine's tables can do, and how many there may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Guest-physical address bits: the host's MAXPHYADDR, of which four levels use up to 48.
    pub address_bits: u32,
    /// 2 MiB pages (`IA32_VMX_EPT_VPID_CAP` bit 16).
    pub large: bool,
    /// 1 GiB pages (`IA32_VMX_EPT_VPID_CAP` bit 17).
    pub giant: bool,
    /// Frames that may be kept for the domain, its tables among them.
    pub table_frames: u32,
}

/// How an EPT violation turned out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The access is allowed now: enter the guest again.
    Resolved,
    /// The page is touched for the first time, and a part of it is scrubbed: ask again for the
    /// next, now or when the guest has come back here.
    Unfinished,
    /// The page is there but not for this access.
    Denied(P2mEntry),
    /// Nothing is mapped: the access goes to an emulated device, or to none.
    Hole,
}

/// A domain's guest-physical memory. See the module.
#[derive(Debug)]
pub struct P2m {
    ept: Ept<Tables>,
    tables: Tables,
    limits: Limits,
    ram: u64,
    /// Other domains' pages that are mapped.
    foreign: u64,
    /// The highest guest frame ever mapped.
    highest: Gfn,
    /// Serialises the scrubbing at first touches, which happens beside lookups.
    touch: Mutex<()>,
    /// The duty of changes taken back; goes out with the next token.
    pending: Option<Flush>,
    /// What [`PageCache`] goes by: renewed whenever a page that was present goes away or loses a
    /// permission.
    state: State,
    /// Frames of an unmapped page of 1 GiB that [`P2m::release`] has yet to free.
    parting: Range<u64>,
}

/// What one call of [`P2m::release`] may cost, in instructions, roughly.
const RELEASE_BUDGET: u64 = 10_000;
/// What letting go of a page costs, besides its frames.
const RELEASE_COST: u64 = 1_600;
/// What each of its frames costs.
const FRAME_COST: u64 = 20;
/// What a slot costs that is empty.
const SLOT_COST: u64 = 10;

impl P2m {
    /// Makes the empty memory of a domain.
    ///
    /// # Errors
    /// [`Errno::Enomem`].
    pub fn new(domain: DomId, limits: Limits) -> Result<Self, Errno> {
        let tables = Tables {
            domain,
            limit: limits.table_frames,
        };
        let ept = Ept::new(tables, limits.address_bits).map_err(errno)?;
        Ok(Self {
            ept,
            tables,
            limits,
            ram: 0,
            foreign: 0,
            highest: Gfn::new(0),
            touch: Mutex::new(()),
            pending: None,
            state: State::new(),
            parting: 0..0,
        })
    }

    /// The root table, for the EPT pointer.
    #[inline]
    #[must_use]
    pub const fn root(&self) -> Hpa {
        self.ept.root()
    }

    /// The number of RAM pages mapped.
    #[must_use]
    pub const fn ram_pages(&self) -> u64 {
        self.ram
    }

    /// The number of other domains' pages mapped.
    #[must_use]
    pub const fn foreign_pages(&self) -> u64 {
        self.foreign
    }

    /// The highest guest frame ever mapped (`XENMEM_maximum_gpfn`, `public/memory.h`).
    #[must_use]
    pub const fn highest_gfn(&self) -> Gfn {
        self.highest
    }

    /// The first guest frame number outside the address space.
    #[inline]
    #[must_use]
    pub const fn gfn_end(&self) -> Gfn {
        self.ept.gfn_end()
    }

    /// What a guest frame is mapped to; `None` for a hole or a number outside the address space.
    #[inline]
    #[must_use]
    pub fn lookup(&self, gfn: Gfn) -> Option<P2mEntry> {
        let (entry, size) = self.ept.entry(gfn)?;
        Some(describe(entry, size, gfn))
    }

    /// A duty with nothing to do yet, to merge those of several changes into.
    pub const fn batch(&self) -> Flush {
        Flush::none(self.tables)
    }

    /// Maps a page at `gfn`, in place of whatever is mapped there; that is let go by the token.
    ///
    /// # Errors
    /// [`Errno::Einval`] outside the address space or for permissions no CPU takes,
    /// [`Errno::Eperm`] where a grant is mapped, [`Errno::Enomem`]. The page is let go then.
    pub fn insert_page(
        &mut self,
        gfn: Gfn,
        page: PageRef,
        kind: PageKind,
        perms: Perms,
    ) -> Result<Flush, Errno> {
        let mut flush = self.batch();
        self.insert(gfn, page, attr(kind, perms), &mut flush)?;
        Ok(flush)
    }

    /// Maps another domain's page at `gfn`, in place of whatever is mapped there, and adds the
    /// duty of that to `flush`.
    ///
    /// # Errors
    /// As [`P2m::insert_page`].
    pub fn insert_foreign(
        &mut self,
        gfn: Gfn,
        page: PageRef,
        perms: Perms,
        flush: &mut Flush,
    ) -> Result<(), Errno> {
        flush.make_room()?;
        self.insert(gfn, page, attr(PageKind::Foreign, perms), flush)
    }

    fn insert(
        &mut self,
        gfn: Gfn,
        page: PageRef,
        attr: Attr,
        flush: &mut Flush,
    ) -> Result<(), Errno> {
        let may_go = |old: Entry| kind(old) != PageKind::Foreign;
        let (old, stale) = self
            .ept
            .replace(gfn, page.mfn(), attr, may_go)
            .map_err(errno)?;
        // The tables hold the page from here on.
        page.into_mfn();
        match PageKind::from_tag(attr.tag) {
            PageKind::Ram => self.ram = self.ram.saturating_add(1),
            PageKind::Foreign => self.foreign = self.foreign.saturating_add(1),
            PageKind::Shared => {}
        }
        self.highest = self.highest.max(gfn);
        flush.add(stale);
        match old {
            Some(leaf) => self.let_go(&leaf, flush),
            // What is remembered stays good: of a hole there is nothing.
            None => self.hand_out(flush),
        }
        Ok(())
    }

    /// Unmaps up to `count` frames of RAM or shared pages from `gfn` on, whole pages where they fit,
    /// until `budget` is used up, which is in instructions, roughly; adds the duty of that to
    /// `flush`. Returns how many went. Frames before one that cannot go are gone on error.
    ///
    /// # Errors
    /// As [`P2m::remove`].
    pub fn remove_extent(
        &mut self,
        gfn: Gfn,
        count: u64,
        budget: &mut u64,
        flush: &mut Flush,
    ) -> Result<u64, Errno> {
        let end = gfn.checked_add(count).ok_or(Errno::Einval)?;
        let mut at = gfn;
        while at < end && *budget != 0 {
            let size = self.remove_some(at, end, flush)?;
            at = at.saturating_add(size.frames());
            *budget = budget.saturating_sub(RELEASE_COST + size.frames() * FRAME_COST);
        }
        Ok(distance(gfn, at))
    }

    /// Unmaps the page of RAM or the shared page at `at`, or a part of it that ends before `end`, of up
    /// to 2 MiB; tells how much that is.
    #[inline]
    fn remove_some(&mut self, at: Gfn, end: Gfn, flush: &mut Flush) -> Result<PageSize, Errno> {
        flush.make_room()?;
        let may_go = |entry| kind(entry) != PageKind::Foreign;
        if let Some((leaf, stale)) = self.ept.unmap_small(at, may_go) {
            flush.add(stale);
            self.let_go(&leaf, flush);
            return Ok(PageSize::Size4K);
        }
        let (entry, size) = self.ept.entry(at).ok_or(Errno::Enoent)?;
        if kind(entry) == PageKind::Foreign {
            return Err(Errno::Eperm);
        }
        // Of 1 GiB not more at a time: to free all of it takes too long.
        let large = PageSize::Size2M;
        let fits = large.base(at) == at && large.frames() <= distance(at, end);
        let size = if fits {
            size.min(large)
        } else {
            PageSize::Size4K
        };
        self.unmap(at, size, flush)?;
        Ok(size)
    }

    /// Unmaps RAM or a shared page.
    ///
    /// # Errors
    /// [`Errno::Enoent`] for a hole, [`Errno::Eperm`] for a grant mapping, [`Errno::Enomem`] when
    /// there is none to split a large page.
    pub fn remove(&mut self, gfn: Gfn) -> Result<Flush, Errno> {
        let mut flush = self.batch();
        self.remove_page(gfn, &mut flush)?;
        Ok(flush)
    }

    /// The same, with the duty of it added to `flush`.
    ///
    /// # Errors
    /// As [`P2m::remove`].
    pub fn remove_page(&mut self, gfn: Gfn, flush: &mut Flush) -> Result<(), Errno> {
        let end = gfn.checked_add(1).ok_or(Errno::Enoent)?;
        self.remove_some(gfn, end, flush).map(drop)
    }

    /// Moves a page of RAM from one guest frame to another, in place of whatever is mapped there.
    /// Nothing is changed on error.
    ///
    /// # Errors
    /// [`Errno::Einval`] when `from` is not writable RAM, and those of [`P2m::insert_page`].
    pub fn move_page(&mut self, from: Gfn, to: Gfn) -> Result<Flush, Errno> {
        let page = self.pin(from).map_err(|_| Errno::Einval)?;
        let mut flush = self.batch();
        if from == to {
            return Ok(flush);
        }
        let split = self.ept.split(from, PageSize::Size4K).map_err(errno)?;
        flush.add(split);
        let ram = attr(PageKind::Ram, Perms::RWX);
        if let Err(error) = self.insert(to, page, ram, &mut flush) {
            // Still to be done, with the next change.
            self.defer(flush);
            return Err(error);
        }
        // A small page needs no memory to go, and a fresh duty has room for both.
        self.unmap(from, PageSize::Size4K, &mut flush)?;
        Ok(flush)
    }

    /// Keeps a duty for the next token that goes out.
    fn defer(&mut self, flush: Flush) {
        match &mut self.pending {
            Some(pending) => {
                // What is deferred has no pages, so merging cannot fail.
                drop(pending.merge(flush));
            }
            None => self.pending = Some(flush),
        }
    }

    /// Unmaps another domain's page and adds the duty of that to `flush`. The table that mapped it
    /// may stay, since the next page is likely to be mapped there.
    ///
    /// # Errors
    /// [`Errno::Enoent`] when `gfn` maps no such page, [`Errno::Enomem`].
    pub fn remove_foreign(&mut self, gfn: Gfn, flush: &mut Flush) -> Result<(), Errno> {
        flush.make_room()?;
        let is_foreign = |entry: Entry| kind(entry) == PageKind::Foreign;
        let vacated = self.ept.vacate(gfn, is_foreign);
        let (leaf, stale) = vacated.ok_or(Errno::Enoent)?;
        flush.add(stale);
        self.let_go(&leaf, flush);
        Ok(())
    }

    /// Unmaps the one leaf that the page of `size` at `gfn` is or is in; `flush` has room for it.
    fn unmap(&mut self, gfn: Gfn, size: PageSize, flush: &mut Flush) -> Result<(), Errno> {
        let mut gone = None;
        let result = self.ept.unmap(gfn, size, |leaf| gone = Some(leaf));
        flush.add(result.map_err(errno)?);
        if let Some(leaf) = gone {
            self.let_go(&leaf, flush);
        }
        Ok(())
    }

    /// Ends the use of a leaf that was unmapped: every change that takes something away ends here.
    fn let_go(&mut self, leaf: &Leaf, flush: &mut Flush) {
        match PageKind::from_tag(leaf.attr.tag) {
            PageKind::Ram => count_off(&mut self.ram, leaf.size),
            PageKind::Foreign => count_off(&mut self.foreign, leaf.size),
            PageKind::Shared => {}
        }
        match leaf.size {
            PageSize::Size4K => self.state.lose(leaf.gfn),
            PageSize::Size2M | PageSize::Size1G => self.state.lose_all(),
        }
        flush.keep((leaf.mfn, leaf.size.order()));
        self.hand_out(flush);
    }

    /// Adds what waits from before to a token on its way out.
    fn hand_out(&mut self, flush: &mut Flush) {
        if let Some(pending) = self.pending.take() {
            self.pending = flush.merge(pending).err();
        }
    }

    /// Holds the guest's page, which must be RAM that the guest may write.
    ///
    /// # Errors
    /// [`Errno::Enoent`] for a hole, [`Errno::Eacces`] for anything but writable RAM.
    pub fn pin(&self, gfn: Gfn) -> Result<PageRef, Errno> {
        let (entry, size) = self.exposed(gfn).ok_or(Errno::Enoent)?;
        let page = describe(entry, size, gfn);
        if page.kind != PageKind::Ram || !page.writable {
            return Err(Errno::Eacces);
        }
        Ok(PageRef::hold(page.mfn))
    }

    /// Holds whatever page the guest sees at `gfn`, be it its own, shared or another domain's;
    /// `None` for a hole and for a page that is to be written but may not.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub(crate) fn hold(&self, gfn: Gfn, write: bool) -> Option<PageRef> {
        let (entry, size) = self.exposed(gfn)?;
        let page = describe(entry, size, gfn);
        (page.writable || !write).then(|| PageRef::hold(page.mfn))
    }

    /// Answers an EPT violation at `gfn` by an access that wanted `perms`. A page that is touched for
    /// the first time is scrubbed in steps, one for each call; `done`, at first 0, is the caller's
    /// to keep for the next one. Another pCPU may be at the same page.
    #[must_use]
    pub fn fault(&self, gfn: Gfn, perms: Perms, done: &mut u64) -> Fault {
        let Some((entry, size)) = self.ept.entry(gfn) else {
            return Fault::Hole;
        };
        if !entry.is_present() {
            self.first_touch(gfn, done)
        } else if entry.perms().contains(perms) {
            Fault::Resolved
        } else {
            Fault::Denied(describe(entry, size, gfn))
        }
    }

    /// A step of making a page of RAM present.
    #[cold]
    fn first_touch(&self, gfn: Gfn, done: &mut u64) -> Fault {
        let Some(_one_at_a_time) = self.touch.try_lock() else {
            return Fault::Unfinished;
        };
        let Some((entry, size)) = self.ept.entry(gfn) else {
            return Fault::Hole;
        };
        if !entry.is_present() {
            debug_assert!(size <= PageSize::Size2M, "larger ones come present");
            let expose = |from| frames().expose(entry.mfn(), size.order(), from);
            let before = core::mem::replace(done, expose(*done));
            if before != 0 && *done >= size.frames() {
                // What it was told of before may have been another page.
                *done = expose(0);
            }
            if *done < size.frames() {
                return Fault::Unfinished;
            }
            // There is such a leaf, and no CPU refuses these permissions.
            let _ = self.ept.reveal(gfn, Perms::RWX);
        }
        Fault::Resolved
    }

    /// The leaf that maps `gfn`; the hypervisor may look at that frame of it.
    #[inline]
    fn exposed(&self, gfn: Gfn) -> Option<(Entry, PageSize)> {
        let (entry, size) = self.ept.entry(gfn)?;
        if !entry.is_present() {
            self.first_look(gfn, entry, size);
        }
        Some((entry, size))
    }

    /// Scrubs a frame of RAM in a page that the guest has not touched yet. A page of one frame
    /// becomes present.
    #[cold]
    fn first_look(&self, gfn: Gfn, entry: Entry, size: PageSize) {
        let mfn = describe(entry, size, gfn).mfn;
        if size == PageSize::Size4K || !frames().is_exposed(mfn) {
            let _one_at_a_time = self.touch.lock();
            frames().expose(mfn, 0, 0);
            if size == PageSize::Size4K {
                // There is such a leaf, and no CPU refuses these permissions.
                let _ = self.ept.reveal(gfn, Perms::RWX);
            }
        }
    }

    /// The machine frame of a guest frame that has memory, which may be looked at from here on,
    /// and whether the guest may write it.
    fn page(&self, gfn: Gfn) -> Option<(Mfn, bool)> {
        let (entry, size) = self.exposed(gfn)?;
        let page = describe(entry, size, gfn);
        Some((page.mfn, page.writable))
    }

    /// Lets go of some pages of a domain that runs nowhere any more and never will, from the guest
    /// frame `from` on, which moves up; true when none is left there. Dropping the value does the
    /// rest.
    pub fn release(&mut self, from: &mut Gfn) -> bool {
        self.state.lose_all();
        let mut budget = RELEASE_BUDGET;
        while budget != 0 {
            if !self.parting.is_empty() {
                self.part();
                budget = 0;
                continue;
            }
            let leaf = match self.ept.seek(*from, self.gfn_end()) {
                Ok(leaf) => leaf,
                Err(gap) if gap.end >= self.gfn_end() => return true,
                Err(gap) => {
                    *from = gap.end;
                    budget = budget.saturating_sub(gap.slots.saturating_mul(SLOT_COST));
                    continue;
                }
            };
            budget = budget.saturating_sub(RELEASE_COST + leaf.size.frames() * FRAME_COST);
            // A whole leaf needs no memory to unmap.
            let Ok(flush) = self.ept.unmap(leaf.gfn, leaf.size, |_| ()) else {
                return true;
            };
            flush.done(&self.tables);
            if leaf.size == PageSize::Size1G {
                self.parting = leaf.mfn.raw()..leaf.mfn.raw() + leaf.size.frames();
            } else {
                frames().free(leaf.mfn, leaf.size.order());
            }
            // Not from the beginning again: that would pass every slot emptied so far.
            *from = leaf.gfn;
        }
        false
    }

    /// Frees 2 MiB of an unmapped page of 1 GiB.
    fn part(&mut self) {
        let large = PageSize::Size2M;
        frames().free(Mfn::new(self.parting.start), large.order());
        self.parting.start = self.parting.start.saturating_add(large.frames());
    }
}

impl Drop for P2m {
    /// Lets go of every page; the tables follow. No pCPU may use them any more.
    fn drop(&mut self) {
        while !self.parting.is_empty() {
            self.part();
        }
        if let Some(pending) = self.pending.take() {
            pending.done();
        }
        let flush = self
            .ept
            .clear(|leaf| frames().free(leaf.mfn, leaf.size.order()));
        flush.done(&self.tables);
    }
}

/// The number of frames from `start` to before `end`; none if that lies below.
const fn distance(start: Gfn, end: Gfn) -> u64 {
    end.raw().saturating_sub(start.raw())
}

/// Takes a page that goes off the count of those that are mapped.
fn count_off(mapped: &mut u64, size: PageSize) {
    let rest = mapped.checked_sub(size.frames());
    *mapped = rest.or_broken("a page that goes was counted");
}

/// A leaf's attributes: all memory is write-back.
const fn attr(kind: PageKind, perms: Perms) -> Attr {
    Attr {
        perms,
        memtype: MemType::WriteBack,
        tag: kind as u8,
    }
}

/// What a leaf's entry maps.
#[inline]
fn kind(entry: Entry) -> PageKind {
    PageKind::from_tag(entry.attr().tag)
}

/// What a leaf's entry says about one of its frames. RAM not touched yet counts as writable.
#[inline]
fn describe(entry: Entry, size: PageSize, gfn: Gfn) -> P2mEntry {
    P2mEntry {
        mfn: Mfn::new(entry.mfn().raw() + (gfn.raw() & (size.frames() - 1))),
        kind: kind(entry),
        writable: !entry.is_present() || entry.perms().contains(Perms::WRITE),
    }
}

const fn errno(error: EptError) -> Errno {
    match error {
        EptError::NoMemory => Errno::Enomem,
        EptError::Refused => Errno::Eperm,
        EptError::Occupied => Errno::Eexist,
        EptError::Hole => Errno::Enoent,
        EptError::OutOfRange | EptError::Misaligned | EptError::BadAttr => Errno::Einval,
    }
}

#[cfg(test)]
mod tests;
