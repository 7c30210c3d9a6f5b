//! Guest segment registers, four fields each.

use super::field::{self, Field, Rw};

/// A guest segment register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentName {
    /// ES.
    Es,
    /// CS.
    Cs,
    /// SS.
    Ss,
    /// DS.
    Ds,
    /// FS.
    Fs,
    /// GS.
    Gs,
    /// LDTR.
    Ldtr,
    /// TR.
    Tr,
}

/// A segment register's visible and hidden parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Selector.
    pub selector: u16,
    /// Base address.
    pub base: u64,
    /// Limit in bytes, granularity applied.
    pub limit: u32,
    /// Access rights: SDM 3C, "Format of Access Rights".
    pub access_rights: u32,
}

impl Segment {
    /// Access rights of a register that cannot be used.
    pub const UNUSABLE: u32 = 1 << 16;

    /// The descriptor privilege level.
    #[must_use]
    pub const fn dpl(&self) -> u8 {
        let [low, ..] = self.access_rights.to_le_bytes();
        low >> 5 & 3
    }

    /// True when the register cannot be used.
    #[must_use]
    pub const fn is_unusable(&self) -> bool {
        self.access_rights & Self::UNUSABLE != 0
    }

    /// True for a 64-bit code segment.
    #[must_use]
    pub const fn is_long(&self) -> bool {
        self.access_rights & 1 << 13 != 0
    }

    /// True when the default operation size is 32 bits.
    #[must_use]
    pub const fn is_default_32(&self) -> bool {
        self.access_rights & 1 << 14 != 0
    }
}

/// The four fields of a segment register.
#[derive(Clone, Copy, Debug)]
pub(super) struct SegmentFields {
    pub(super) selector: Field<u16, Rw>,
    pub(super) base: Field<u64, Rw>,
    pub(super) limit: Field<u32, Rw>,
    pub(super) access_rights: Field<u32, Rw>,
}

macro_rules! segments {
    ($name:expr, $($variant:ident: $selector:ident, $base:ident, $limit:ident, $rights:ident;)*) => {
        match $name {
            $(SegmentName::$variant => SegmentFields {
                selector: field::$selector,
                base: field::$base,
                limit: field::$limit,
                access_rights: field::$rights,
            },)*
        }
    };
}

impl SegmentName {
    pub(super) const fn fields(self) -> SegmentFields {
        segments! { self,
            Es: GUEST_ES_SELECTOR, GUEST_ES_BASE, GUEST_ES_LIMIT, GUEST_ES_ACCESS_RIGHTS;
            Cs: GUEST_CS_SELECTOR, GUEST_CS_BASE, GUEST_CS_LIMIT, GUEST_CS_ACCESS_RIGHTS;
            Ss: GUEST_SS_SELECTOR, GUEST_SS_BASE, GUEST_SS_LIMIT, GUEST_SS_ACCESS_RIGHTS;
            Ds: GUEST_DS_SELECTOR, GUEST_DS_BASE, GUEST_DS_LIMIT, GUEST_DS_ACCESS_RIGHTS;
            Fs: GUEST_FS_SELECTOR, GUEST_FS_BASE, GUEST_FS_LIMIT, GUEST_FS_ACCESS_RIGHTS;
            Gs: GUEST_GS_SELECTOR, GUEST_GS_BASE, GUEST_GS_LIMIT, GUEST_GS_ACCESS_RIGHTS;
            Ldtr: GUEST_LDTR_SELECTOR, GUEST_LDTR_BASE, GUEST_LDTR_LIMIT, GUEST_LDTR_ACCESS_RIGHTS;
            Tr: GUEST_TR_SELECTOR, GUEST_TR_BASE, GUEST_TR_LIMIT, GUEST_TR_ACCESS_RIGHTS;
        }
    }
}

impl From<crate::exit::SegmentReg> for SegmentName {
    fn from(register: crate::exit::SegmentReg) -> Self {
        use crate::exit::SegmentReg;
        match register {
            SegmentReg::Es => Self::Es,
            SegmentReg::Cs => Self::Cs,
            SegmentReg::Ss => Self::Ss,
            SegmentReg::Ds => Self::Ds,
            SegmentReg::Fs => Self::Fs,
            SegmentReg::Gs => Self::Gs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Segment, SegmentName};

    #[test]
    fn fields_of_one_register_share_their_index() {
        let all = [
            SegmentName::Es,
            SegmentName::Cs,
            SegmentName::Ss,
            SegmentName::Ds,
            SegmentName::Fs,
            SegmentName::Gs,
            SegmentName::Ldtr,
            SegmentName::Tr,
        ];
        for (index, name) in (0u32..).zip(all) {
            let fields = name.fields();
            assert_eq!(fields.selector.encoding(), 0x0800 + 2 * index);
            assert_eq!(fields.base.encoding(), 0x6806 + 2 * index);
            assert_eq!(fields.limit.encoding(), 0x4800 + 2 * index);
            assert_eq!(fields.access_rights.encoding(), 0x4814 + 2 * index);
        }
    }

    #[test]
    fn access_rights_are_told_apart() {
        let code64 = Segment {
            access_rights: 0xa09b,
            ..Segment::default()
        };
        assert!(code64.is_long() && !code64.is_default_32() && !code64.is_unusable());
        assert_eq!(
            Segment {
                access_rights: 0xc0f3,
                ..Segment::default()
            }
            .dpl(),
            3
        );
    }
}
