//! One frame's record: eight bytes, in one of four states.
//!
//! ```text
//!            63        36 35         8 7     3  2   0
//! inner     |                 0               |  0  |  inside a free block, not its head
//! free head |    prev    |    next    | order | 1-3 |  links are frame indices; 1 + traces
//!            63        32 31  26 25  8 7 4 3 2   0
//! allocated | holds      |   0  | owner | 0 |u|4,5 |  4 while known to be zero; u: unseen
//! reserved  |                 0               |  6  |  the frame table itself
//! ```

use abi::DomId;

/// Index of a frame in the table; `NONE` ends a list.
pub(super) type Index = u32;

/// The end of a free list.
pub(super) const NONE: Index = (1 << LINK_BITS) - 1;

/// Frames one table can describe: 1 TiB of RAM.
pub(super) const MAX_FRAMES: u64 = LINK_MASK;

/// One hold, in the place of the hold count.
pub(super) const ONE_HOLD: u64 = 1 << HOLDS_SHIFT;

/// Set in an allocated frame's record unless the frame is known to be zero.
pub(super) const DIRTY: u64 = 1;
/// Set beside [`DIRTY`] as long as the frame's owner must not see what is in it.
pub(super) const UNSEEN: u64 = 1 << 3;

const STATE_MASK: u64 = 7;
const FREE_CLEAN: u64 = 1;
const FREE_STALE: u64 = 2;
const FREE_SECRET: u64 = 3;
const ALLOCATED: u64 = 4;
const ALLOCATED_DIRTY: u64 = ALLOCATED | DIRTY;
const RESERVED: u64 = 6;

const ORDER_SHIFT: u32 = 3;
const ORDER_MASK: u64 = 0x1f;
const NEXT_SHIFT: u32 = 8;
const PREV_SHIFT: u32 = 36;
const LINK_BITS: u32 = 28;
const LINK_MASK: u64 = NONE as u64;

const OWNER_SHIFT: u32 = 8;
const DOMAIN_MASK: u64 = 0xffff;
const KIND_SHIFT: u32 = 24;
const KIND_MASK: u64 = 7;
const HOLDS_SHIFT: u32 = 32;

/// Who a frame belongs to. Every allocated frame has exactly one owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// The hypervisor itself, for as long as it needs the frame.
    Hypervisor,
    /// The pool of the hypervisor's heap, which keeps what it has.
    Heap,
    /// What each pCPU has for itself: stacks, VMXON regions.
    Cpu,
    /// Extended page tables and other structures kept on behalf of a domain, out of its sight.
    Tables(DomId),
    /// Pages that the hypervisor shares with a domain: shared info, grant table, console ring.
    Shared(DomId),
    /// A domain's own memory.
    Domain(DomId),
    /// What a domain has written to disks that are in RAM.
    Disk(DomId),
}

impl Owner {
    /// The number of kinds.
    pub(super) const KINDS: usize = 7;

    /// The kind, without the domain: below [`Owner::KINDS`].
    pub(super) const fn kind(self) -> usize {
        match self {
            Self::Hypervisor => 0,
            Self::Heap => 1,
            Self::Cpu => 2,
            Self::Tables(_) => 3,
            Self::Shared(_) => 4,
            Self::Domain(_) => 5,
            Self::Disk(_) => 6,
        }
    }

    /// The domain that the frame is for.
    pub(super) const fn domain(self) -> Option<DomId> {
        match self {
            Self::Hypervisor | Self::Heap | Self::Cpu => None,
            Self::Tables(domain)
            | Self::Shared(domain)
            | Self::Domain(domain)
            | Self::Disk(domain) => Some(domain),
        }
    }

    /// What an owner of this kind may find in frames it gets.
    pub(super) const fn may_see(self) -> Traces {
        match self {
            Self::Hypervisor | Self::Heap | Self::Cpu => Traces::Stale,
            Self::Tables(_) | Self::Shared(_) | Self::Domain(_) | Self::Disk(_) => Traces::Clean,
        }
    }

    const fn pack(self) -> u64 {
        let domain = match self.domain() {
            Some(domain) => domain.0,
            None => 0,
        };
        (self.kind() as u64) << KIND_SHIFT | (domain as u64) << OWNER_SHIFT
    }

    const fn unpack(word: u64) -> Self {
        let domain = DomId((word >> OWNER_SHIFT & DOMAIN_MASK) as u16);
        match word >> KIND_SHIFT & KIND_MASK {
            0 => Self::Hypervisor,
            1 => Self::Heap,
            2 => Self::Cpu,
            3 => Self::Tables(domain),
            4 => Self::Shared(domain),
            5 => Self::Domain(domain),
            _ => Self::Disk(domain),
        }
    }
}

/// What the last user may have left in a free frame.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Traces {
    /// Nothing: all bytes are zero.
    Clean,
    /// The firmware's or the hypervisor's bytes.
    Stale,
    /// A domain's bytes.
    Secret,
}

impl Traces {
    /// All of them, the best first.
    pub(super) const ALL: [Self; 3] = [Self::Clean, Self::Stale, Self::Secret];

    /// What is left in a frame that an owner gives back.
    pub(super) const fn of(owner: Owner, contents: Contents) -> Self {
        match owner {
            _ if matches!(contents, Contents::Zero) => Self::Clean,
            Owner::Hypervisor | Owner::Heap | Owner::Cpu => Self::Stale,
            Owner::Tables(_) | Owner::Shared(_) | Owner::Domain(_) | Owner::Disk(_) => Self::Secret,
        }
    }
}

/// What is in an allocated frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Contents {
    /// Zeros, which nobody has seen yet.
    Zero,
    /// What an earlier owner left, and this one must not see.
    Unseen,
    /// Whatever its owner has made of it.
    Own,
}

impl Contents {
    /// What an allocated frame's packed record says.
    #[inline]
    pub(super) const fn of(word: u64) -> Self {
        match word & (DIRTY | UNSEEN) {
            DIRTY => Self::Own,
            0 => Self::Zero,
            _ => Self::Unseen,
        }
    }

    const fn pack(self) -> u64 {
        match self {
            Self::Zero => 0,
            Self::Unseen => DIRTY | UNSEEN,
            Self::Own => DIRTY,
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
        traces: Traces,
        next: Index,
        prev: Index,
    },
    /// In somebody's hands.
    Allocated {
        owner: Owner,
        holds: u32,
        contents: Contents,
    },
    /// Not for anybody.
    Reserved,
}

impl Record {
    /// The record of a frame just allocated.
    pub(super) const fn allocated(owner: Owner, contents: Contents) -> Self {
        Self::Allocated {
            owner,
            holds: 1,
            contents,
        }
    }

    /// The packed form.
    pub(super) const fn pack(self) -> u64 {
        match self {
            Self::Inner => 0,
            Self::Free {
                order,
                traces,
                next,
                prev,
            } => {
                let state = match traces {
                    Traces::Clean => FREE_CLEAN,
                    Traces::Stale => FREE_STALE,
                    Traces::Secret => FREE_SECRET,
                };
                state
                    | (order as u64) << ORDER_SHIFT
                    | (next as u64) << NEXT_SHIFT
                    | (prev as u64) << PREV_SHIFT
            }
            Self::Allocated {
                owner,
                holds,
                contents,
            } => ALLOCATED | contents.pack() | owner.pack() | (holds as u64) << HOLDS_SHIFT,
            Self::Reserved => RESERVED,
        }
    }

    /// Reads the packed form.
    pub(super) const fn unpack(word: u64) -> Self {
        match word & STATE_MASK {
            FREE_CLEAN => Self::unpack_free(word, Traces::Clean),
            FREE_STALE => Self::unpack_free(word, Traces::Stale),
            FREE_SECRET => Self::unpack_free(word, Traces::Secret),
            ALLOCATED | ALLOCATED_DIRTY => Self::Allocated {
                owner: Owner::unpack(word),
                holds: (word >> HOLDS_SHIFT) as u32,
                contents: Contents::of(word),
            },
            RESERVED => Self::Reserved,
            _ => Self::Inner,
        }
    }

    const fn unpack_free(word: u64, traces: Traces) -> Self {
        Self::Free {
            order: (word >> ORDER_SHIFT & ORDER_MASK) as u8,
            traces,
            next: (word >> NEXT_SHIFT & LINK_MASK) as Index,
            prev: (word >> PREV_SHIFT & LINK_MASK) as Index,
        }
    }
}

/// The hold count of an allocated frame's packed record, or 0 for any other.
pub(super) const fn holds(word: u64) -> u32 {
    if word & (STATE_MASK & !DIRTY) == ALLOCATED {
        (word >> HOLDS_SHIFT) as u32
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owners() -> impl Strategy<Value = Owner> {
        prop_oneof![
            Just(Owner::Hypervisor),
            Just(Owner::Heap),
            Just(Owner::Cpu),
            any::<u16>().prop_map(|d| Owner::Tables(DomId(d))),
            any::<u16>().prop_map(|d| Owner::Shared(DomId(d))),
            any::<u16>().prop_map(|d| Owner::Domain(DomId(d))),
            any::<u16>().prop_map(|d| Owner::Disk(DomId(d))),
        ]
    }

    fn records() -> impl Strategy<Value = Record> {
        prop_oneof![
            Just(Record::Inner),
            Just(Record::Reserved),
            (0_u8..=18, 0_usize..3, 0..=NONE, 0..=NONE).prop_map(|(order, traces, next, prev)| {
                Record::Free {
                    order,
                    traces: Traces::ALL[traces],
                    next,
                    prev,
                }
            }),
            (owners(), any::<u32>(), 0_usize..3).prop_map(|(owner, holds, contents)| {
                Record::Allocated {
                    owner,
                    holds,
                    contents: [Contents::Zero, Contents::Unseen, Contents::Own][contents],
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
