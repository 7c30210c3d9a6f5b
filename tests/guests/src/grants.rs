//! Grants for micro-guests: this domain's table on pages of the runtime, and the operations that
//! take memory away or give it, as raw as the hypervisor has them.

use abi::grant_table::{
    COPY, CopyPtr, GrantCopy, MAP_GRANT_REF, MapGrantRef, UNMAP_GRANT_REF, UnmapGrantRef,
    copy_flags, map_flags, status, v1,
};
use abi::hypercall::GRANT_TABLE_OP;
use abi::memory::{GRANT_TABLE_STATUS, SPACE_GRANT_TABLE};
use abi::{DomId, Gfn, GrantRef};
use core::sync::atomic::Ordering;
use pv_drivers::guest::gnttab::Grants;
use pv_drivers::hypercall::Reply;
use pv_drivers::shared_page::SharedPage;
use zerocopy::FromZeros;

use crate::memory::Page;
use crate::xen;

/// A table of one frame.
pub type Table = Grants<[SharedPage; 1]>;

/// Frames without memory, where grants can be mapped.
pub const HOLE: Gfn = Gfn::new(0x2_0000);

static FRAME: Page = Page::new();
static STATUS: Page = Page::new();

/// Has the first frame of this domain's version 1 table appear, and takes it over.
///
/// # Errors
/// The negative result of a refused call.
pub fn table() -> Result<Table, pv_drivers::hypercall::Refused> {
    xen::add_to_physmap(SPACE_GRANT_TABLE, 0, FRAME.gfn().raw())?;
    Ok(Grants::v1([FRAME.view()]))
}

/// The same once version 2 has been chosen, with its status frame.
///
/// # Errors
/// The negative result of a refused call.
pub fn table_v2() -> Result<Table, pv_drivers::hypercall::Refused> {
    xen::add_to_physmap(SPACE_GRANT_TABLE, 0, FRAME.gfn().raw())?;
    xen::add_to_physmap(SPACE_GRANT_TABLE, GRANT_TABLE_STATUS, STATUS.gfn().raw())?;
    Ok(Grants::v2([FRAME.view()], [STATUS.view()]))
}

/// The table's first frame.
#[must_use]
pub fn frame() -> SharedPage {
    FRAME.view()
}

/// The first status frame.
#[must_use]
pub fn status_frame() -> SharedPage {
    STATUS.view()
}

/// Writes a version 1 entry, reserved or not: all of it, the flags last.
pub fn write_entry(gref: GrantRef, flags: u16, to: DomId, gfn: Gfn) {
    let at = gref.0 as usize * v1::ENTRY_SIZE;
    let page = FRAME.view();
    page.u32(at + v1::FRAME)
        .store(u32::try_from(gfn.raw()).unwrap_or(0), Ordering::Relaxed);
    page.u16(at + v1::DOMID).store(to.0, Ordering::Relaxed);
    page.u16(at + v1::FLAGS).store(flags, Ordering::Release);
}

/// Carries out an array of operations.
pub fn operate<T>(cmd: u64, operations: &mut [T]) -> Reply {
    let count = operations.len() as u64;
    xen::call(
        GRANT_TABLE_OP,
        [cmd, operations.as_mut_ptr() as u64, count, 0, 0],
    )
}

/// A request to map a grant.
#[must_use]
pub fn map_request(dom: DomId, gref: GrantRef, gfn: Gfn, flags: u32) -> MapGrantRef {
    let mut request = MapGrantRef::new_zeroed();
    request.host_addr = gfn.gpa().raw();
    request.flags = flags;
    request.gref = gref.0;
    request.dom = dom.0;
    request.status = i16::MAX;
    request
}

/// Maps a grant.
///
/// # Errors
/// The operation's status, or 1 when the call itself was refused.
pub fn map(dom: DomId, gref: GrantRef, gfn: Gfn, readonly: bool) -> Result<u32, i16> {
    let readonly = if readonly { map_flags::READONLY } else { 0 };
    let request = map_request(dom, gref, gfn, map_flags::HOST_MAP | readonly);
    let mut array = [request];
    if operate(MAP_GRANT_REF, &mut array) != Ok(0) {
        return Err(1);
    }
    let [done] = array;
    if done.status == status::OKAY {
        Ok(done.handle)
    } else {
        Err(done.status)
    }
}

/// A request to unmap a grant.
#[must_use]
pub fn unmap_request(handle: u32, gfn: Gfn) -> UnmapGrantRef {
    let mut request = UnmapGrantRef::new_zeroed();
    request.host_addr = gfn.gpa().raw();
    request.handle = handle;
    request.status = i16::MAX;
    request
}

/// Unmaps a grant; returns the status, or 1 when the call itself was refused.
pub fn unmap(handle: u32, gfn: Gfn) -> i16 {
    let mut array = [unmap_request(handle, gfn)];
    match operate(UNMAP_GRANT_REF, &mut array) {
        Ok(0) => array[0].status,
        _ => 1,
    }
}

/// One side of a copy.
#[derive(Clone, Copy, Debug)]
pub enum Side {
    /// A page granted to this domain, from an offset.
    Grant(DomId, GrantRef, u16),
    /// A page of this domain, from an offset.
    Frame(Gfn, u16),
}

impl Side {
    fn pointer(self) -> CopyPtr {
        let mut pointer = CopyPtr::new_zeroed();
        match self {
            Self::Grant(dom, gref, offset) => {
                pointer.place = gref.0.into();
                pointer.domid = dom.0;
                pointer.offset = offset;
            }
            Self::Frame(gfn, offset) => {
                pointer.place = gfn.raw();
                pointer.domid = DomId::SELF.0;
                pointer.offset = offset;
            }
        }
        pointer
    }
}

/// A request to copy.
#[must_use]
pub fn copy_request(source: Side, dest: Side, len: u16) -> GrantCopy {
    let mut request = GrantCopy::new_zeroed();
    request.source = source.pointer();
    request.dest = dest.pointer();
    request.len = len;
    if matches!(source, Side::Grant(..)) {
        request.flags |= copy_flags::SOURCE_GREF;
    }
    if matches!(dest, Side::Grant(..)) {
        request.flags |= copy_flags::DEST_GREF;
    }
    request.status = i16::MAX;
    request
}

/// Copies; returns the status, or 1 when the call itself was refused.
pub fn copy(source: Side, dest: Side, len: u16) -> i16 {
    let mut array = [copy_request(source, dest, len)];
    match operate(COPY, &mut array) {
        Ok(0) => array[0].status,
        _ => 1,
    }
}
