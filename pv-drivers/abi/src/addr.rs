//! Addresses and frame numbers, one type each, so that none is taken for another.
//!
//! | type  | names                                                    |
//! |-------|----------------------------------------------------------|
//! | `Gva` | guest linear (virtual) address                           |
//! | `Gpa` | guest-physical address; `Gfn` its frame number           |
//! | `Hpa` | host-physical address; `Mfn` its frame number            |
//!
//! The vocabulary is Xen's (`xen/include/xen/mm.h`).

/// log2 of the page size.
pub const PAGE_SHIFT: u32 = 12;
/// Bytes in a page.
pub const PAGE_SIZE: usize = 1 << PAGE_SHIFT;
const OFFSET_MASK: u64 = (1 << PAGE_SHIFT) - 1;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Wraps a raw value.
            #[must_use]
            pub const fn new(raw: u64) -> Self {
                Self(raw)
            }

            /// The raw value.
            #[must_use]
            pub const fn raw(self) -> u64 {
                self.0
            }

            /// Adds `count`; the last value there is on overflow, which is never a page's.
            #[must_use]
            pub const fn saturating_add(self, count: u64) -> Self {
                Self(self.0.saturating_add(count))
            }

            /// Adds `count`, or `None` on overflow.
            #[must_use]
            pub const fn checked_add(self, count: u64) -> Option<Self> {
                match self.0.checked_add(count) {
                    Some(raw) => Some(Self(raw)),
                    None => None,
                }
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

macro_rules! address_and_frame {
    ($address:ident, $frame:ident, $to_frame:ident, $to_address:ident) => {
        impl $address {
            /// The frame that holds this address.
            #[must_use]
            pub const fn $to_frame(self) -> $frame {
                $frame(self.0 >> PAGE_SHIFT)
            }

            /// The offset of this address in its frame, in bytes.
            #[must_use]
            pub const fn page_offset(self) -> usize {
                (self.0 & OFFSET_MASK) as usize
            }

            /// True when the address is the first of its frame.
            #[must_use]
            pub const fn is_page_aligned(self) -> bool {
                self.0 & OFFSET_MASK == 0
            }
        }

        impl $frame {
            /// The address of the frame's first byte. Frame numbers beyond 52 bits wrap; check
            /// guest-supplied ones against the address width first.
            #[must_use]
            pub const fn $to_address(self) -> $address {
                $address(self.0 << PAGE_SHIFT)
            }
        }
    };
}

address!(
    /// A guest linear (virtual) address.
    Gva
);
address!(
    /// A guest-physical address.
    Gpa
);
address!(
    /// A guest frame number.
    Gfn
);
address!(
    /// A host-physical address.
    Hpa
);
address!(
    /// A machine (host) frame number.
    Mfn
);
address_and_frame!(Gpa, Gfn, gfn, gpa);
address_and_frame!(Hpa, Mfn, mfn, hpa);

impl Gva {
    /// The offset of this address in its page, in bytes.
    #[must_use]
    pub const fn page_offset(self) -> usize {
        (self.0 & OFFSET_MASK) as usize
    }
}
