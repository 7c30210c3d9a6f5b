//! Segment descriptors, and the checks on loading them.
//!
//! SDM 3A, "Segment Descriptors", and in "Task Switching" the table of exception conditions that
//! are checked during a task switch.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use vmx::vmcs::Segment;

use super::{Memory, State};
use crate::bits::low32;
use crate::fault::GuestFault;

/// A selector's table indicator: the LDT.
const LOCAL: u16 = 1 << 2;
/// A descriptor's type of an LDT.
const KIND_LDT: u8 = 2;
/// Type bits of code and data segments: accessed; writable or readable; conforming; code.
const ACCESSED: u8 = 1;
const READABLE_OR_WRITABLE: u8 = 2;
const CONFORMING: u8 = 4;
const CODE: u8 = 8;
/// Access rights of a segment of virtual-8086 mode.
const RIGHTS_V86: u32 = 0xf3;

/// Eight bytes of a descriptor table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Descriptor {
    /// Its linear address.
    pub(super) at: u32,
    raw: u64,
}

impl Descriptor {
    /// Reads the descriptor that a selector names; nothing when it lies beyond its table.
    pub(super) fn read(
        memory: &impl Memory,
        state: &State,
        selector: u16,
    ) -> Result<Option<Self>, GuestFault> {
        let (base, limit) = if selector & LOCAL == 0 {
            (state.gdt_base, state.gdt_limit)
        } else if state.ldtr.is_unusable() {
            return Ok(None);
        } else {
            (low32(state.ldtr.base), state.ldtr.limit)
        };
        let offset = u32::from(selector & !7);
        if offset.saturating_add(7) > limit {
            return Ok(None);
        }
        let at = base.wrapping_add(offset);
        let mut bytes = [0; 8];
        memory.read(at, &mut bytes)?;
        let raw = u64::from_le_bytes(bytes);
        Ok(Some(Self { at, raw }))
    }

    const fn access(self) -> u8 {
        let [.., access, _, _] = self.raw.to_le_bytes();
        access
    }

    /// The type field.
    pub(super) const fn kind(self) -> u8 {
        self.access() & 0xf
    }

    /// True for LDTs, TSSs and gates.
    pub(super) const fn is_system(self) -> bool {
        self.access() & 0x10 == 0
    }

    /// True when the P flag is set.
    pub(super) const fn is_present(self) -> bool {
        self.access() & 0x80 != 0
    }

    const fn dpl(self) -> u8 {
        self.access() >> 5 & 3
    }

    const fn is_code(self) -> bool {
        self.kind() & CODE != 0
    }

    const fn is_conforming(self) -> bool {
        self.is_code() && self.kind() & CONFORMING != 0
    }

    /// The limit in bytes.
    pub(super) const fn limit(self) -> u32 {
        let limit = low32(self.raw & 0xffff | self.raw >> 32 & 0xf_0000);
        if self.raw & 1 << 55 != 0 {
            limit << 12 | 0xfff
        } else {
            limit
        }
    }

    /// The register after it was loaded with this descriptor.
    pub(super) const fn segment(self, selector: u16) -> Segment {
        Segment {
            selector,
            base: self.raw >> 16 & 0xff_ffff | self.raw >> 32 & 0xff00_0000,
            limit: self.limit(),
            access_rights: low32(self.raw >> 40 & 0xff | (self.raw >> 52 & 0xf) << 12),
        }
    }

    /// Sets the accessed flag of a code or data segment, in memory and in the register.
    fn access_segment(
        mut self,
        memory: &mut impl Memory,
        selector: u16,
    ) -> Result<Segment, GuestFault> {
        if self.kind() & ACCESSED == 0 {
            memory.write(self.at.wrapping_add(5), &[self.access() | ACCESSED])?;
            self.raw |= u64::from(ACCESSED) << 40;
        }
        Ok(self.segment(selector))
    }
}

/// A register that holds nothing but a selector.
pub(super) const fn unusable(selector: u16) -> Segment {
    Segment {
        selector,
        base: 0,
        limit: 0,
        access_rights: Segment::UNUSABLE,
    }
}

/// A register of virtual-8086 mode.
pub(super) const fn virtual_8086(selector: u16) -> Segment {
    Segment {
        selector,
        base: (selector as u64) << 4,
        limit: 0xffff,
        access_rights: RIGHTS_V86,
    }
}

/// Loads the segment registers of a task. `external` is the EXT flag of error codes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loader {
    pub(super) external: bool,
}

impl Loader {
    /// The error code that names a selector.
    pub(super) const fn code(self, selector: u16) -> u32 {
        selector as u32 & 0xfffc | self.external as u32
    }

    /// #TS for a selector.
    pub(super) const fn invalid(self, selector: u16) -> GuestFault {
        GuestFault::Ts(self.code(selector))
    }

    /// A descriptor that has to be there.
    fn find(
        self,
        memory: &impl Memory,
        state: &State,
        selector: u16,
    ) -> Result<Descriptor, GuestFault> {
        Descriptor::read(memory, state, selector)?.ok_or_else(|| self.invalid(selector))
    }

    /// LDTR.
    pub(super) fn ldt(
        self,
        memory: &impl Memory,
        state: &State,
        selector: u16,
    ) -> Result<Segment, GuestFault> {
        if is_null(selector) {
            return Ok(unusable(selector));
        }
        if selector & LOCAL != 0 {
            return Err(self.invalid(selector));
        }
        let found = self.find(memory, state, selector)?;
        if !found.is_system() || found.kind() != KIND_LDT || !found.is_present() {
            return Err(self.invalid(selector));
        }
        Ok(found.segment(selector))
    }

    /// CS.
    pub(super) fn code_segment(
        self,
        memory: &mut impl Memory,
        state: &State,
        selector: u16,
    ) -> Result<Segment, GuestFault> {
        if is_null(selector) {
            return Err(self.invalid(selector));
        }
        let found = self.find(memory, state, selector)?;
        let privilege = if found.is_conforming() {
            found.dpl() <= rpl(selector)
        } else {
            found.dpl() == rpl(selector)
        };
        if found.is_system() || !found.is_code() || !privilege {
            return Err(self.invalid(selector));
        }
        if !found.is_present() {
            return Err(GuestFault::Np(self.code(selector)));
        }
        found.access_segment(memory, selector)
    }

    /// SS, at privilege level `cpl`.
    pub(super) fn stack_segment(
        self,
        memory: &mut impl Memory,
        state: &State,
        selector: u16,
        cpl: u8,
    ) -> Result<Segment, GuestFault> {
        if is_null(selector) {
            return Err(self.invalid(selector));
        }
        let found = self.find(memory, state, selector)?;
        let writable = !found.is_code() && found.kind() & READABLE_OR_WRITABLE != 0;
        if found.is_system() || !writable || found.dpl() != cpl || rpl(selector) != cpl {
            return Err(self.invalid(selector));
        }
        if !found.is_present() {
            return Err(GuestFault::Ss(self.code(selector)));
        }
        found.access_segment(memory, selector)
    }

    /// DS, ES, FS or GS, at privilege level `cpl`.
    pub(super) fn data_segment(
        self,
        memory: &mut impl Memory,
        state: &State,
        selector: u16,
        cpl: u8,
    ) -> Result<Segment, GuestFault> {
        if is_null(selector) {
            return Ok(unusable(selector));
        }
        let found = self.find(memory, state, selector)?;
        let readable = !found.is_code() || found.kind() & READABLE_OR_WRITABLE != 0;
        let privilege =
            found.is_conforming() || (found.dpl() >= cpl && found.dpl() >= rpl(selector));
        if found.is_system() || !readable || !privilege {
            return Err(self.invalid(selector));
        }
        if !found.is_present() {
            return Err(GuestFault::Np(self.code(selector)));
        }
        found.access_segment(memory, selector)
    }
}

const fn is_null(selector: u16) -> bool {
    selector & !3 == 0
}

/// A selector's requested privilege level.
pub(super) const fn rpl(selector: u16) -> u8 {
    (selector & 3) as u8
}
