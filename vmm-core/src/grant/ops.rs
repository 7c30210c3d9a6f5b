//! Mapping, unmapping and copying by grant, between any two domains, and a domain's end.
//!
//! Locks: the mapper's [`Maptrack`] is taken first and kept while a table or a p2m is visited.
//! Tables and p2ms are visited one at a time, a table before the p2m of the same domain, so two
//! domains that map each other's pages never wait for each other.

use abi::grant_table::status;
use abi::{DomId, Gfn, GrantRef, PAGE_SIZE};
use spin::{Mutex, RwLock};

use super::pin::{Granted, Status, Use};
use super::{GrantTable, Mapping, Maptrack};
use crate::mm::p2m::{Flush, P2m, Perms};
use crate::mm::page::PageRef;

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
    fn pin(&self, what: Use) -> Result<Granted, Status> {
        let mut table = self.table.lock();
        table.pin(what, |gfn| self.p2m.read().pin(gfn).ok())
    }

    fn unpin(&self, gref: GrantRef, write: bool) {
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
pub enum Side<'a> {
    /// A page granted to the caller.
    Grant(Party<'a>, GrantRef),
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

/// Copies between two pages that the caller has or may use.
///
/// # Errors
/// The operation's status; nothing was copied then.
pub fn copy(
    caller: &Party<'_>,
    source: Side<'_>,
    dest: Side<'_>,
    span: Span,
) -> Result<(), Status> {
    let from = Claim::new(caller, source, false)?;
    let to = Claim::new(caller, dest, true)?;
    let length = usize::from(span.length);
    let (source, dest) = (usize::from(span.source), usize::from(span.dest));
    if source.saturating_add(length) > PAGE_SIZE || dest.saturating_add(length) > PAGE_SIZE {
        return Err(status::BAD_COPY_ARG);
    }
    if !from.grants(source, length) || !to.grants(dest, length) {
        return Err(status::GENERAL_ERROR);
    }
    let (from, to) = (from.page.window(), to.page.window());
    to.copy_from(dest, &from, source, length);
    Ok(())
}

/// A page held for a copy; dropping it ends the use.
struct Claim<'a> {
    page: PageRef,
    start: usize,
    length: usize,
    used: Option<(Party<'a>, GrantRef)>,
    write: bool,
}

impl<'a> Claim<'a> {
    fn new(caller: &Party<'_>, side: Side<'a>, write: bool) -> Result<Self, Status> {
        match side {
            Side::Grant(granter, gref) => {
                let granted = granter.pin(Use {
                    gref,
                    grantee: caller.id,
                    write,
                    whole: false,
                })?;
                Ok(Self {
                    page: granted.page,
                    start: granted.start.into(),
                    length: granted.length.into(),
                    used: Some((granter, gref)),
                    write,
                })
            }
            Side::Frame(gfn) => {
                // It may be mapped by grant. That use does not end under the copy: an unmapping
                // waits until this pCPU drops its translations, which it does between calls.
                let page = caller.p2m.read().hold(gfn, write);
                Ok(Self {
                    page: page.ok_or(status::BAD_PAGE)?,
                    start: 0,
                    length: PAGE_SIZE,
                    used: None,
                    write,
                })
            }
        }
    }

    /// True when all the bytes are granted.
    const fn grants(&self, offset: usize, length: usize) -> bool {
        let end = offset.saturating_add(length);
        self.start <= offset && end <= self.start.saturating_add(self.length)
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if let Some((granter, gref)) = self.used {
            granter.unpin(gref, self.write);
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
