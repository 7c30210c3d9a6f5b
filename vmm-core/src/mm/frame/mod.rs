//! The frame table: who owns each frame of RAM, how many hold it, and which are free.
//!
//! Eight bytes per frame (`entry`), free blocks in a buddy system (`buddy`), the table itself
//! carved out of the regions it describes (`regions`). There is one table, [`frames`]; it is set
//! up once by [`init`].
//!
//! ```text
//!            alloc: one hold                 last put
//!   free ---------------------> allocated --------------> free
//!                                |     ^
//!                                +-----+  get / put
//! ```
//!
//! A frame is scrubbed before anybody but its last owner sees it: the frames of
//! [`FrameTable::alloc`] are free of other owners' bytes, and those of
//! [`FrameTable::alloc_unscrubbed`] become zero in [`FrameTable::expose`], which comes before the
//! first look. The records know which frames are zero already, and which their owner has seen.
#![expect(unsafe_code, reason = "scrubs frames and places the table in RAM")]

mod accounts;
mod buddy;
mod census;
mod entry;
mod regions;

use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use abi::{DomId, Mfn, PAGE_SIZE};
use invariant::{OrBroken, invariant};
use spin::{Mutex, Once};

pub use self::accounts::DomainFrames;
use self::accounts::{Account, Accounts};
use self::buddy::{Buddy, Records};
pub use self::census::Census;
pub use self::entry::Owner;
use self::entry::{Contents, DIRTY, Index, ONE_HOLD, Record, Traces, UNSEEN};
use self::regions::Regions;
use super::directmap;

/// log2 of the frames in the largest block: 1 GiB.
pub const MAX_ORDER: u8 = 18;

/// Records that fit in one frame.
const RECORDS_PER_FRAME: u64 = (PAGE_SIZE / size_of::<u64>()) as u64;

/// Frames that are zeroed in one step: what takes longer gives way between two steps.
const STEP: u64 = 32;
/// Records that are looked at or written in one step.
const RECORDS_STEP: usize = 2048;
/// log2 of the frames that are freed in one step.
const FREE_ORDER: u8 = 9;

static FRAMES: Once<FrameTable> = Once::new();

/// The frame table.
///
/// # Panics
/// Before [`init`].
#[inline]
#[must_use]
pub fn frames() -> &'static FrameTable {
    FRAMES.get().or_broken("the frame table is set up")
}

/// Sets the frame table up over `(first frame, number of frames)` regions; later calls change
/// nothing.
///
/// # Safety
/// As for [`FrameTable::new`].
///
/// # Panics
/// When no region has room for the table.
pub unsafe fn init(map: &[(Mfn, u64)]) {
    FRAMES.call_once(|| {
        // SAFETY: the caller's promise is the callee's.
        unsafe { FrameTable::new(map) }
    });
}

/// All frames of RAM the hypervisor was given, and their owners.
#[derive(Debug)]
pub struct FrameTable {
    regions: Regions,
    /// One packed [`Record`] per frame, by index.
    records: &'static [AtomicU64],
    /// Guards every free block's records; those of allocated frames change by atomic operations.
    buddy: Mutex<Buddy>,
    /// What each domain has.
    accounts: Accounts,
    /// Frames that stay free for the hypervisor when domains ask.
    reserve: AtomicU64,
    scrubbed: AtomicU64,
}

impl FrameTable {
    /// Makes a table over `(first frame, number of frames)` regions, in any order.
    ///
    /// # Safety
    /// The regions are RAM inside the direct map that nothing else uses, now or later.
    ///
    /// # Panics
    /// When no region has room for the table.
    #[must_use]
    pub unsafe fn new(map: &[(Mfn, u64)]) -> Self {
        let regions = Regions::new(map);
        let own = regions.frames().div_ceil(RECORDS_PER_FRAME);
        // In the smallest region that has room, so that large blocks stay whole.
        let place = regions
            .iter()
            .filter(|region| region.end - region.start >= own)
            .min_by_key(|region| region.end - region.start);
        let start = place.map(|region| Mfn::new(region.end - own));
        assert!(start.is_some(), "a region with room for the frame table");
        let start = start.unwrap_or_default();
        // SAFETY: `own` frames from `start` end a region, which is unused RAM by the caller's
        // promise.
        unsafe { directmap::zero(start, own) };
        let records = directmap::ptr(start.hpa()).cast::<AtomicU64>();
        // SAFETY: the frames hold at least `frames()` words, are zeroed, aligned to 4 KiB and,
        // being reserved below, used for nothing else from now on.
        let records = unsafe {
            core::slice::from_raw_parts(records.as_ptr(), directmap::to_usize(regions.frames()))
        };
        let table = Self {
            regions,
            records,
            buddy: Mutex::new(Buddy::new(own)),
            accounts: Accounts::new(),
            reserve: AtomicU64::new(0),
            scrubbed: AtomicU64::new(0),
        };
        table.reserve(start, own);
        for region in table.regions.iter() {
            let end = if region.end == start.raw() + own {
                start.raw()
            } else {
                region.end
            };
            table.release_run(region.start, end);
        }
        table
    }

    /// Sets frames aside that no domain gets: the hypervisor must not run out of memory because a
    /// domain took it all. Of these, half may go into what is kept for domains.
    pub fn set_reserve(&self, frames: u64) {
        self.reserve.store(frames, Ordering::Relaxed);
    }

    /// Frames that domains may still get.
    #[must_use]
    pub fn available(&self) -> u64 {
        self.free_frames()
            .saturating_sub(self.reserve.load(Ordering::Relaxed))
    }

    /// True while nothing more may be kept for domains, whatever their quotas: what is left is the
    /// hypervisor's. For memory from the heap, which no owner's account limits.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.free_frames() <= self.reserve.load(Ordering::Relaxed) / 2
    }

    /// Frames that an allocation for this owner has to leave free.
    fn left_free(&self, owner: Owner) -> u64 {
        let reserve = self.reserve.load(Ordering::Relaxed);
        match owner {
            Owner::Hypervisor | Owner::Heap | Owner::Cpu => 0,
            Owner::Tables(_) | Owner::Shared(_) => reserve / 2,
            Owner::Domain(_) | Owner::Disk(_) => reserve,
        }
    }

    /// Marks the table's own frames.
    fn reserve(&self, start: Mfn, count: u64) {
        for offset in 0..count {
            let mfn = start.saturating_add(offset);
            self.word(mfn)
                .store(Record::Reserved.pack(), Ordering::Relaxed);
        }
    }

    /// Puts the frames `start..end` on the free lists, in the largest blocks that fit.
    fn release_run(&self, start: u64, end: u64) {
        let mut buddy = self.buddy.lock();
        let mut at = start;
        while at < end {
            let order = largest_order(at, end);
            buddy.give(self.view(), Mfn::new(at), order, Traces::Stale);
            at += 1 << order;
        }
    }

    /// Allocates `2^order` frames, aligned to their size, with one hold on each.
    ///
    /// All bytes are zero, except that frames for the hypervisor's own use may hold what it or
    /// the firmware left there, never what a domain did. `None` when no block is large enough.
    #[must_use]
    pub fn alloc(&self, order: u8, owner: Owner) -> Option<Mfn> {
        self.alloc_without(order, owner, owner.may_see())
    }

    /// Allocates `2^order` zeroed frames, aligned to their size, with one hold on each.
    #[must_use]
    pub fn alloc_zeroed(&self, order: u8, owner: Owner) -> Option<Mfn> {
        self.alloc_without(order, owner, Traces::Clean)
    }

    /// Allocates `2^order` zeroed frames as [`FrameTable::alloc_zeroed`], all of them before frame
    /// `end`. It may take long: for start-up.
    #[must_use]
    pub(super) fn alloc_zeroed_below(&self, order: u8, owner: Owner, end: Mfn) -> Option<Mfn> {
        let find = |buddy: &mut Buddy| buddy.take_below(self.view(), order, end);
        let claimed = self.claim_found(order, owner, find)?;
        self.make_own(claimed, order, owner, Traces::Clean)
    }

    /// Allocates frames with nothing worse in them than the traces `allowed`.
    fn alloc_without(&self, order: u8, owner: Owner, allowed: Traces) -> Option<Mfn> {
        let claimed = self.claim(order, owner)?;
        self.make_own(claimed, order, owner, allowed)
    }

    /// Gives a block that was just claimed to its owner, with nothing worse in it than the traces
    /// `allowed`.
    #[inline(always)]
    fn make_own(
        &self,
        (index, traces): (Index, Traces),
        order: u8,
        owner: Owner,
        allowed: Traces,
    ) -> Option<Mfn> {
        let word = Record::allocated(owner, Contents::Own).pack();
        for record in self.block(index, order) {
            record.store(word, Ordering::Relaxed);
        }
        let mfn = self.regions.mfn(index)?;
        if traces > allowed {
            self.scrub(mfn, block_frames(order));
        }
        Some(mfn)
    }

    /// Allocates `2^order` frames that nobody may look at before [`FrameTable::expose`]. Calls
    /// `give_way` between steps: a block of 1 GiB has many records.
    #[must_use]
    pub(super) fn alloc_unscrubbed(
        &self,
        order: u8,
        owner: Owner,
        give_way: &mut dyn FnMut(),
    ) -> Option<Mfn> {
        let (index, traces) = self.claim(order, owner)?;
        let contents = match traces {
            Traces::Clean => Contents::Zero,
            traces if traces <= owner.may_see() => Contents::Own,
            _ => Contents::Unseen,
        };
        let word = Record::allocated(owner, contents).pack();
        let mut parts = self.block(index, order).chunks(RECORDS_STEP).peekable();
        while let Some(records) = parts.next() {
            for record in records {
                record.store(word, Ordering::Relaxed);
            }
            if parts.peek().is_some() {
                give_way();
            }
        }
        self.regions.mfn(index)
    }

    /// Makes those of `2^order` frames, from the one at `offset` on, that their owner has not seen
    /// yet fit to be seen: zero if they are not. Stops when it has zeroed 32 of them or passed 2,048;
    /// returns the offset reached, which is the block's size when none is left behind it.
    ///
    /// Calls for one frame come one at a time. From the end of one on the owner may write the
    /// frame.
    ///
    /// # Panics
    /// When a frame is not allocated.
    pub(super) fn expose(&self, mfn: Mfn, order: u8, offset: u64) -> u64 {
        let size = offset
            .saturating_add(RECORDS_STEP as u64)
            .min(block_frames(order));
        let records = self.records_of(mfn, order);
        let records = records.get(..directmap::to_usize(size)).unwrap_or(records);
        let (mut at, mut left) = (offset, STEP);
        while let Some(record) = records.get(directmap::to_usize(at)) {
            let word = record.load(Ordering::Acquire);
            invariant!(entry::holds(word) > 0, "frame allocated");
            match Contents::of(word) {
                Contents::Own => at = at.saturating_add(1),
                Contents::Zero => {
                    record.fetch_or(DIRTY, Ordering::AcqRel);
                    at = at.saturating_add(1);
                }
                Contents::Unseen if left == 0 => return at,
                Contents::Unseen => {
                    let rest = records.iter().skip(directmap::to_usize(at));
                    let unseen = rest.take(directmap::to_usize(left)).take_while(|record| {
                        Contents::of(record.load(Ordering::Relaxed)) == Contents::Unseen
                    });
                    let count = unseen.clone().count() as u64;
                    self.scrub(mfn.saturating_add(at), count);
                    for record in unseen {
                        record.fetch_and(!UNSEEN, Ordering::AcqRel);
                    }
                    at = at.saturating_add(count);
                    left = left.saturating_sub(count);
                }
            }
        }
        size
    }

    /// True when a frame's owner may look at it: [`FrameTable::expose`] is over.
    ///
    /// # Panics
    /// When the frame is not one of the table's.
    #[inline]
    #[must_use]
    pub(super) fn is_exposed(&self, mfn: Mfn) -> bool {
        Contents::of(self.word(mfn).load(Ordering::Acquire)) == Contents::Own
    }

    /// Takes a block off the free lists, in `owner`'s account; tells what is left in it. Its records,
    /// which nobody looks at meanwhile, are the caller's to write.
    fn claim(&self, order: u8, owner: Owner) -> Option<(Index, Traces)> {
        self.claim_found(order, owner, |buddy| buddy.take(self.view(), order))
    }

    /// The same with the block that `find` takes.
    fn claim_found(
        &self,
        order: u8,
        owner: Owner,
        find: impl FnOnce(&mut Buddy) -> Option<(Index, Traces)>,
    ) -> Option<(Index, Traces)> {
        #[cfg(any(test, feature = "testing"))]
        if super::testing::allocation_fails() {
            return None;
        }
        let mut buddy = self.buddy.lock();
        if buddy.free() < self.left_free(owner).saturating_add(block_frames(order)) {
            return None;
        }
        let account = match owner.domain() {
            Some(domain) => Some(self.account(&mut buddy, domain)?),
            None => None,
        };
        let block = find(&mut buddy)?;
        let used = &mut buddy.used[owner.kind()];
        *used = used.saturating_add(block_frames(order));
        if let Some(account) = account {
            account.add(owner, 1_u32.unbounded_shl(order.into()));
        }
        Some(block)
    }

    /// A domain's account, which is opened if there is none yet; `None` without memory for it.
    fn account(&self, buddy: &mut Buddy, domain: DomId) -> Option<&Account> {
        let (page, slot) = accounts::place(domain);
        if self.accounts.page(page).is_none() {
            let (index, _) = buddy.take(self.view(), 0)?;
            let mfn = self.regions.mfn(index)?;
            self.reserve(mfn, 1);
            buddy.own = buddy.own.saturating_add(1);
            // SAFETY: the frame lies in the direct map and was free.
            unsafe { directmap::zero(mfn, 1) };
            self.accounts.set_page(page, mfn);
        }
        self.account_in(page, slot)
    }

    /// The account of a frame's owner, if that is a domain.
    fn find_account(&self, owner: Owner) -> Option<&Account> {
        let (page, slot) = accounts::place(owner.domain()?);
        self.account_in(page, slot)
    }

    fn account_in(&self, page: usize, slot: usize) -> Option<&Account> {
        let mfn = self.accounts.page(page)?;
        let page = directmap::ptr(mfn.hpa()).cast::<accounts::Page>();
        // SAFETY: the frame was reserved for accounts and zeroed before it was set, and is used
        // for nothing else ever; all of an account may change through shared references.
        unsafe { page.as_ref() }.get(slot)
    }

    /// How many frames a domain has: its memory, whether mapped or only held, and what is kept
    /// for it.
    #[must_use]
    pub fn owned_by(&self, domain: DomId) -> DomainFrames {
        self.find_account(Owner::Domain(domain))
            .map_or_else(DomainFrames::default, Account::frames)
    }

    /// Adds a hold on a frame.
    ///
    /// # Panics
    /// When the frame is not allocated, or the count is full.
    #[inline]
    pub(super) fn get(&self, mfn: Mfn) {
        let word = self.word(mfn).fetch_add(ONE_HOLD, Ordering::Relaxed);
        let holds = entry::holds(word);
        invariant!(
            holds > 0 && holds < u32::MAX,
            "frame allocated and not held too often"
        );
    }

    /// Drops a hold on a frame; the last one frees it.
    ///
    /// # Panics
    /// When the frame is not allocated.
    #[inline]
    pub(super) fn put(&self, mfn: Mfn) {
        if self.drop_hold(self.word(mfn)) {
            self.reclaim(mfn, 0);
        }
    }

    /// Drops one hold on each of `2^order` frames, as [`FrameTable::alloc`] gave it. A frame that
    /// somebody else still holds becomes free when the last one lets go.
    ///
    /// # Panics
    /// When the block is not aligned to its size or not all allocated: freeing twice, or what was
    /// never allocated, is our own bug.
    pub fn free(&self, mfn: Mfn, order: u8) {
        invariant!(
            order <= MAX_ORDER && mfn.raw().is_multiple_of(1 << order),
            "aligned block"
        );
        let records = self.records_of(mfn, order);
        if self.is_uniform(records) {
            self.reclaim(mfn, order);
            return;
        }
        let mut run = mfn.raw()..mfn.raw();
        for (frame, record) in (mfn.raw()..u64::MAX).zip(records) {
            if self.drop_hold(record) {
                run.end = frame.saturating_add(1);
            } else {
                // This frame stays with its other holders.
                self.reclaim_run(run);
                let next = frame.saturating_add(1);
                run = next..next;
            }
        }
        self.reclaim_run(run);
    }

    /// The same, which takes long for a large block: calls `give_way` between steps.
    ///
    /// # Panics
    /// As [`FrameTable::free`].
    pub(super) fn free_in_steps(&self, mfn: Mfn, order: u8, give_way: &mut dyn FnMut()) {
        let step = order.min(FREE_ORDER);
        for offset in (0..block_frames(order)).step_by(1 << step) {
            if offset != 0 {
                give_way();
            }
            self.free(mfn.saturating_add(offset), step);
        }
    }

    /// True when all these frames have the same record, and one hold.
    fn is_uniform(&self, records: &[AtomicU64]) -> bool {
        let mut words = records.iter().map(|record| record.load(Ordering::Acquire));
        let first = words.next().unwrap_or_default();
        entry::holds(first) == 1 && words.all(|word| word == first)
    }

    /// Puts frames in a row that nobody holds on the free lists, in the largest blocks that fit.
    fn reclaim_run(&self, run: Range<u64>) {
        let mut at = run.start;
        while at < run.end {
            let order = largest_order(at, run.end);
            self.reclaim(Mfn::new(at), order);
            at = at.saturating_add(block_frames(order));
        }
    }

    /// Frees one frame whose bytes are all zero again.
    ///
    /// # Panics
    /// When the frame is not allocated.
    pub(super) fn free_zeroed(&self, mfn: Mfn) {
        self.word(mfn)
            .fetch_and(!(DIRTY | UNSEEN), Ordering::AcqRel);
        self.put(mfn);
    }

    /// Takes one hold off; true when it was the last.
    #[inline]
    fn drop_hold(&self, record: &AtomicU64) -> bool {
        // Only who has a hold adds others, so the only one stays so, and its record is about to be
        // overwritten.
        if entry::holds(record.load(Ordering::Acquire)) == 1 {
            return true;
        }
        let holds = entry::holds(record.fetch_sub(ONE_HOLD, Ordering::AcqRel));
        invariant!(holds > 0, "frame allocated");
        holds == 1
    }

    /// Puts frames nobody holds on the free lists.
    fn reclaim(&self, mfn: Mfn, order: u8) {
        let Some(index) = self.regions.index(mfn, block_frames(order)) else {
            return;
        };
        let mut buddy = self.buddy.lock();
        let mut traces = Traces::Clean;
        let (mut word, mut alike) = (Record::Inner.pack(), 0);
        for record in self.block(index, order) {
            let next = record.load(Ordering::Acquire);
            record.store(Record::Inner.pack(), Ordering::Relaxed);
            if next != word {
                traces = traces.max(self.write_off(&mut buddy, word, alike));
                (word, alike) = (next, 0);
            }
            // A block has far fewer than 2^32.
            alike = alike.wrapping_add(1);
        }
        traces = traces.max(self.write_off(&mut buddy, word, alike));
        buddy.give(self.view(), mfn, order, traces);
    }

    /// Takes frames that had the same record out of the accounts; tells what is left in them.
    fn write_off(&self, buddy: &mut Buddy, word: u64, frames: u32) -> Traces {
        let Record::Allocated {
            owner, contents, ..
        } = Record::unpack(word)
        else {
            return Traces::Clean;
        };
        let used = &mut buddy.used[owner.kind()];
        let rest = used.checked_sub(frames.into());
        *used = rest.or_broken("frames that go were counted");
        if let Some(account) = self.find_account(owner) {
            account.sub(owner, frames);
        }
        Traces::of(owner, contents)
    }

    /// The owner of a frame; `None` when it is free or not RAM of ours.
    #[must_use]
    pub fn owner(&self, mfn: Mfn) -> Option<Owner> {
        let index = self.regions.index(mfn, 1)?;
        match Record::unpack(self.view().word(index).load(Ordering::Acquire)) {
            Record::Allocated { owner, .. } => Some(owner),
            Record::Inner | Record::Free { .. } | Record::Reserved => None,
        }
    }

    /// The number of free frames.
    #[must_use]
    pub fn free_frames(&self) -> u64 {
        self.buddy.lock().free()
    }

    /// The number of frames zeroed so far.
    #[must_use]
    pub fn scrubbed(&self) -> u64 {
        self.scrubbed.load(Ordering::Relaxed)
    }

    /// Zeroes frames on their way to an owner, before anybody else can reach them.
    fn scrub(&self, mfn: Mfn, count: u64) {
        self.scrubbed.fetch_add(count, Ordering::Relaxed);
        // SAFETY: the frames lie in the direct map by `new`'s promise; they are allocated, and
        // not yet in the hands of the owner they were allocated for.
        unsafe { directmap::zero(mfn, count) };
    }

    #[inline]
    fn view(&self) -> Records<'_> {
        Records {
            regions: &self.regions,
            words: self.records,
        }
    }

    /// The record of a frame.
    #[inline]
    fn word(&self, mfn: Mfn) -> &AtomicU64 {
        let index = self.regions.index(mfn, 1);
        self.view().word(index.or_broken("frame of the table"))
    }

    /// The records of a block, by its first frame.
    ///
    /// # Panics
    /// When it is not one of the table's.
    fn records_of(&self, mfn: Mfn, order: u8) -> &[AtomicU64] {
        let index = self.regions.index(mfn, block_frames(order));
        self.block(index.or_broken("block of the table"), order)
    }

    /// The records of a block, by its first frame's index.
    fn block(&self, index: Index, order: u8) -> &[AtomicU64] {
        let first = index as usize;
        let end = first.saturating_add(directmap::to_usize(block_frames(order)));
        let records = self.records.get(first..end);
        records.or_broken("a block has records")
    }
}

/// The frames in a block.
const fn block_frames(order: u8) -> u64 {
    1_u64.unbounded_shl(order as u32)
}

/// The order of the largest block that begins at frame `start` and ends before `end`.
fn largest_order(start: u64, end: u64) -> u8 {
    let fits = (end - start).ilog2();
    let order = start.trailing_zeros().min(fits);
    u8::try_from(order).unwrap_or(MAX_ORDER).min(MAX_ORDER)
}

#[cfg(test)]
mod tests;
