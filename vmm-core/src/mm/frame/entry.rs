//! One frame's record: eight bytes, in one of four states.
//!
//! ```text
//!            63        36 35         8 7     3   2    1  0
//! inner     |                 0                      | 00 |  inside a free block, not its head
//! free head |    prev    |    next    | order | dirty| 01 |  links are frame indices
//!            63        32 31  26 25  8 7     3   2    1  0
//! allocated | holds      |   0  | owner |  0  | dirty| 10 |
//! reserved  |                 0                      | 11 |  the frame table itself
//! ```
//!
//! A frame is *dirty* when its bytes are not known to be zero.

use abi::DomId;

/// Index of a frame in the table; `NONE` ends a list.
pub(super) type Index = u32;

/// The end of a free list.
pub(super) const NONE: Index = LINK_MASK as Index;

/// Frames one table can describe: 1 TiB of RAM.
pub(super) const MAX_FRAMES: u64 = LINK_MASK;

/// One hold, in the place of the hold count.
pub(super) const ONE_HOLD: u64 = 1 << HOLDS_SHIFT;

/// The dirty bit, at the same place in free heads and allocated frames.
pub(super) const DIRTY: u64 = 1 << 2;

const STATE_MASK: u64 = 3;
const FREE_HEAD: u64 = 1;
const ALLOCATED: u64 = 2;
const RESERVED: u64 = 3;

const ORDER_SHIFT: u32 = 3;
const ORDER_MASK: u64 = 0x1f;
const NEXT_SHIFT: u32 = 8;
const PREV_SHIFT: u32 = 36;
const LINK_MASK: u64 = (1 << 28) - 1;

const OWNER_SHIFT: u32 = 8;
const DOMAIN_MASK: u64 = 0xffff;
const KIND_SHIFT: u32 = 24;
const KIND_MASK: u64 = 3;
const HOLDS_SHIFT: u32 = 32;

/// Who a frame belongs to. Every allocated frame has exactly one owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// The hypervisor itself.
    Hypervisor,
    /// Extended page tables and other structures kept on behalf of a domain.
    Tables(DomId),
    /// A domain's own memory.
    Domain(DomId),
}

impl Owner {
    const fn pack(self) -> u64 {
        let (kind, domain) = match self {
            Self::Hypervisor => (0, DomId(0)),
            Self::Tables(domain) => (1, domain),
            Self::Domain(domain) => (2, domain),
        };
        kind << KIND_SHIFT | (domain.0 as u64) << OWNER_SHIFT
    }

    #[expect(clippy::cast_possible_truncation, reason = "masked to 16 bits")]
    const fn unpack(word: u64) -> Self {
        let domain = DomId((word >> OWNER_SHIFT & DOMAIN_MASK) as u16);
        match word >> KIND_SHIFT & KIND_MASK {
            0 => Self::Hypervisor,
            1 => Self::Tables(domain),
            _ => Self::Domain(domain),
        }
    }
}

/// What a record says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Record {
    /// Inside a free block.
    Inner,
    /// First frame of a free block.
    Free {
        order: u8,
        dirty: bool,
        next: Index,
        prev: Index,
    },
    /// In somebody's hands.
    Allocated {
        owner: Owner,
        holds: u32,
        dirty: bool,
    },
    /// Not for anybody.
    Reserved,
}

impl Record {
    /// The record of a frame just allocated.
    pub(super) const fn allocated(owner: Owner, dirty: bool) -> Self {
        Self::Allocated {
            owner,
            holds: 1,
            dirty,
        }
    }

    /// The packed form.
    pub(super) const fn pack(self) -> u64 {
        match self {
            Self::Inner => 0,
            Self::Free {
                order,
                dirty,
                next,
                prev,
            } => {
                FREE_HEAD
                    | dirty_bit(dirty)
                    | (order as u64) << ORDER_SHIFT
                    | (next as u64) << NEXT_SHIFT
                    | (prev as u64) << PREV_SHIFT
            }
            Self::Allocated {
                owner,
                holds,
                dirty,
            } => ALLOCATED | dirty_bit(dirty) | owner.pack() | (holds as u64) << HOLDS_SHIFT,
            Self::Reserved => RESERVED,
        }
    }

    /// Reads the packed form.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "every field is masked or shifted to fit"
    )]
    pub(super) const fn unpack(word: u64) -> Self {
        let dirty = word & DIRTY != 0;
        match word & STATE_MASK {
            FREE_HEAD => Self::Free {
                order: (word >> ORDER_SHIFT & ORDER_MASK) as u8,
                dirty,
                next: (word >> NEXT_SHIFT & LINK_MASK) as Index,
                prev: (word >> PREV_SHIFT & LINK_MASK) as Index,
            },
            ALLOCATED => Self::Allocated {
                owner: Owner::unpack(word),
                holds: (word >> HOLDS_SHIFT) as u32,
                dirty,
            },
            RESERVED => Self::Reserved,
            _ => Self::Inner,
        }
    }
}

/// The hold count of an allocated frame's packed record, or 0 for any other.
#[expect(clippy::cast_possible_truncation, reason = "the shift leaves 32 bits")]
pub(super) const fn holds(word: u64) -> u32 {
    if word & STATE_MASK == ALLOCATED {
        (word >> HOLDS_SHIFT) as u32
    } else {
        0
    }
}

const fn dirty_bit(dirty: bool) -> u64 {
    if dirty { DIRTY } else { 0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owners() -> impl Strategy<Value = Owner> {
        prop_oneof![
            Just(Owner::Hypervisor),
            any::<u16>().prop_map(|d| Owner::Tables(DomId(d))),
            any::<u16>().prop_map(|d| Owner::Domain(DomId(d))),
        ]
    }

    fn records() -> impl Strategy<Value = Record> {
        prop_oneof![
            Just(Record::Inner),
            Just(Record::Reserved),
            (0_u8..=18, any::<bool>(), 0..=NONE, 0..=NONE).prop_map(
                |(order, dirty, next, prev)| Record::Free {
                    order,
                    dirty,
                    next,
                    prev
                }
            ),
            (owners(), any::<u32>(), any::<bool>()).prop_map(|(owner, holds, dirty)| {
                Record::Allocated {
                    owner,
                    holds,
                    dirty,
                }
            }),
        ]
    }

    proptest! {
        #[test]
        fn packing_loses_nothing(record in records()) {
            prop_assert_eq!(Record::unpack(record.pack()), record);
        }
    }
}
