//! Mapping, unmapping and copying by grant, between any two domains, and a domain's end.
//!
//! Locks: the mapper's [`Maptrack`] is taken first and kept while a table or a p2m is visited.
//! Tables and p2ms are visited one at a time, a table before the p2m of the same domain, so two
//! domains that map each other's pages never wait for each other.

use abi::grant_table::status;
use abi::{DomId, Gfn, GrantRef, PAGE_SIZE};
use spin::{Mutex, RwLock};

use super::pin::{Granted, Status, Use};
use super::{GrantTable, Granter, HeldPage, Mapping, Maptrack};
use crate::mm::directmap::Window;
use crate::mm::guest_mem::GuestMemory;
use crate::mm::p2m::{Flush, P2m, PageCache, Perms};

/// What of a domain takes part in grants.
#[derive(Clone, Copy, Debug)]
pub struct Party<'a> {
    /// The domain.
    pub id: DomId,
    /// What it grants.
    pub table: &'a Mutex<GrantTable>,
    /// What it has mapped.
    pub maptrack: &'a Mutex<Maptrack>,
    /// Its physical memory.
    pub p2m: &'a RwLock<P2m>,
}

impl Party<'_> {
    pub(super) fn pin(&self, what: Use) -> Result<Granted, Status> {
        let mut table = self.table.lock();
        table.pin(what, |gfn| self.p2m.read().pin(gfn).ok())
    }

    pub(super) fn unpin(&self, gref: GrantRef, write: bool) {
        self.table.lock().unpin(gref, write);
    }
}

/// Maps the page that `granter` grants to `mapper` by `gref` at `gfn` of the mapper. Returns the
/// mapping's handle; `flush` takes on the duty for what was mapped there before.
///
/// # Errors
/// The operation's status.
pub fn map(
    mapper: &Party<'_>,
    granter: &Party<'_>,
    gref: GrantRef,
    gfn: Gfn,
    write: bool,
    flush: &mut Flush,
) -> Result<u32, Status> {
    let mut track = mapper.maptrack.lock();
    if !track.has_room() {
        return Err(status::NO_SPACE);
    }
    let granted = granter.pin(Use {
        gref,
        grantee: mapper.id,
        write,
        whole: true,
    })?;
    let perms = if write { Perms::RW } else { Perms::READ };
    let mut p2m = mapper.p2m.write();
    let inserted = p2m.insert_foreign(gfn, granted.page, perms, flush);
    drop(p2m);
    if inserted.is_err() {
        granter.unpin(gref, write);
        return Err(status::GENERAL_ERROR);
    }
    let handle = track.add(Mapping {
        gfn,
        gref,
        granter: granter.id,
        write,
    });
    // There was room, and the table has been ours since.
    handle.ok_or(status::NO_SPACE)
}

/// Takes a mapping out of the mapper's memory, which must be at `gfn`; `flush` takes on the duty
/// of that. The use of the grant ends by [`end_use`], when no pCPU can reach the page any more.
///
/// # Errors
/// The operation's status.
pub fn unmap(
    mapper: &Party<'_>,
    handle: u32,
    gfn: Gfn,
    flush: &mut Flush,
) -> Result<Mapping, Status> {
    let mut track = mapper.maptrack.lock();
    let mapping = track.get(handle).ok_or(status::BAD_HANDLE)?;
    if mapping.gfn != gfn {
        return Err(status::GENERAL_ERROR);
    }
    let removed = mapper.p2m.write().remove_foreign(gfn, flush);
    removed.map_err(|_| status::GENERAL_ERROR)?;
    track.remove(handle);
    Ok(mapping)
}

/// Ends the use of a grant that was mapped. `None` for a granter that has ended: what it held
/// went with it.
pub fn end_use(granter: Option<&Party<'_>>, mapping: Mapping) {
    if let Some(granter) = granter {
        granter.unpin(mapping.gref, mapping.write);
    }
}

/// One side of a copy.
#[derive(Clone, Copy, Debug)]
pub enum Side<G> {
    /// A page granted to the caller.
    Grant(G, GrantRef),
    /// A page in the caller's memory.
    Frame(Gfn),
}

/// Which bytes are copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// The first byte, in the source's page.
    pub source: u16,
    /// The first byte, in the destination's page.
    pub dest: u16,
    /// How many.
    pub length: u16,
}

/// Copies between two pages that the caller has or may use. `remembered` is what the calling vCPU
/// remembers of its domain's pages.
///
/// # Errors
/// The operation's status; nothing was copied then.
pub fn copy<G: Granter>(
    caller: &Party<'_>,
    remembered: &PageCache,
    source: Side<G>,
    dest: Side<G>,
    span: Span,
) -> Result<(), Status> {
    let from = Claim::new(caller, source, false)?;
    let to = Claim::new(caller, dest, true)?;
    let length = usize::from(span.length);
    let (source, dest) = (usize::from(span.source), usize::from(span.dest));
    if source.saturating_add(length) > PAGE_SIZE || dest.saturating_add(length) > PAGE_SIZE {
        return Err(status::BAD_COPY_ARG);
    }
    // Both uses have begun: no table is visited with the p2m open.
    let p2m = caller.p2m.read();
    let own = GuestMemory::new(&p2m, remembered);
    let from = from.open(&own, source, length, false)?;
    let to = to.open(&own, dest, length, true)?;
    to.copy_from(dest, &from, source, length);
    Ok(())
}

/// A page that a copy is about: in use, or the caller's own.
enum Claim<G: Granter> {
    Held(HeldPage<G>),
    Own(Gfn),
}

impl<G: Granter> Claim<G> {
    #[inline]
    fn new(caller: &Party<'_>, side: Side<G>, write: bool) -> Result<Self, Status> {
        match side {
            Side::Grant(granter, gref) => {
                let what = Use {
                    gref,
                    grantee: caller.id,
                    write,
                    whole: false,
                };
                Ok(Self::Held(HeldPage::new(granter, what)?))
            }
            Side::Frame(gfn) => Ok(Self::Own(gfn)),
        }
    }

    /// The page's bytes, if they may be read or written.
    #[inline]
    fn open<'c>(
        &'c self,
        own: &GuestMemory<'c>,
        offset: usize,
        length: usize,
        write: bool,
    ) -> Result<Window<'c>, Status> {
        match self {
            Self::Held(page) => page.bytes(offset, length),
            // It may be mapped by grant: while the p2m is open that mapping, and its use, stay.
            Self::Own(gfn) => own.frame(*gfn, write).ok_or(status::BAD_PAGE),
        }
    }
}

/// Ends some of the uses a domain has of others' grants; false when there are none. Its memory has
/// been let go, and no pCPU will run it again. `by_id` finds those domains that have not ended.
#[must_use]
pub fn release<D>(
    mapper: &Party<'_>,
    by_id: impl Fn(DomId) -> Option<D>,
    party: impl for<'d> Fn(&'d D) -> Party<'d>,
) -> bool {
    let mut track = mapper.maptrack.lock();
    let Some(mappings) = track.take_frame() else {
        return false;
    };
    for mapping in mappings {
        let granter = by_id(mapping.granter);
        end_use(granter.as_ref().map(&party).as_ref(), mapping);
    }
    true
}
