//! What other pCPUs leave for a vCPU's local APIC, and the address they find it by.
//!
//! The owner of the [`VLapic`](super::vlapic::VLapic) is the only one to touch its registers.
//! Everybody else holds the [`Inbox`]: vectors and NMIs are posted with atomic operations while
//! the vCPU runs, and the owner folds them in before its next VM entry. The owner publishes its
//! mode and logical address here, so that a sender can match a destination without a lock.
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::wildcard_enum_match_arm
)]

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::vectors::position;
use super::vlapic::{DeliveryMode, Destination, Ipi};

/// Vectors below this one are reserved for exceptions; an APIC takes them as errors.
pub const FIRST_LEGAL_VECTOR: u8 = 16;

const NEWS_VECTORS: u32 = 1 << 0;
const NEWS_ILLEGAL_VECTOR: u32 = 1 << 1;

const ADDRESS_LOGICAL_ID: u32 = 0xff;
const ADDRESS_FLAT: u32 = 1 << 8;
const ADDRESS_CLUSTER: u32 = 1 << 9;
const ADDRESS_X2APIC: u32 = 1 << 10;
const ADDRESS_ENABLED: u32 = 1 << 11;
const ADDRESS_SOFTWARE_ENABLED: u32 = 1 << 12;

/// The receiving side of a local APIC, shared by all pCPUs.
#[derive(Debug)]
pub struct Inbox {
    apic_id: u32,
    /// `ADDRESS_*`; written by the owner alone.
    address: AtomicU32,
    /// `NEWS_*`: what the owner has to look at. Set after the bit it announces.
    news: AtomicU32,
    vectors: [AtomicU64; 4],
    nmi: AtomicBool,
}

/// How an APIC can be addressed, as its owner publishes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Address {
    pub(super) logical_id: u8,
    pub(super) model: LogicalModel,
    pub(super) x2apic: bool,
    pub(super) enabled: bool,
    pub(super) software_enabled: bool,
}

/// How an xAPIC reads a logical destination (SDM 3A, "Logical Destination Mode").
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LogicalModel {
    Flat,
    Cluster,
    /// A reserved value in DFR: nothing matches.
    Reserved,
}

/// What was found in an inbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct News {
    pub(super) vectors: [u64; 4],
    pub(super) illegal_vector: bool,
}

impl Inbox {
    pub(super) fn new(apic_id: u32) -> Self {
        Self {
            apic_id,
            address: AtomicU32::new(0),
            news: AtomicU32::new(0),
            vectors: [const { AtomicU64::new(0) }; 4],
            nmi: AtomicBool::new(false),
        }
    }

    /// The APIC's id, as x2APIC mode shows it.
    #[must_use]
    pub fn apic_id(&self) -> u32 {
        self.apic_id
    }

    /// Posts a vector. True when the vCPU has something new to look at and must be woken.
    ///
    /// SDM 3A, "Local APIC State After It Has Been Software Disabled": such an APIC takes no
    /// fixed interrupts. An illegal vector becomes an error of the receiver.
    pub fn post(&self, vector: u8) -> bool {
        let wanted = ADDRESS_ENABLED | ADDRESS_SOFTWARE_ENABLED;
        if self.address.load(Ordering::Acquire) & wanted != wanted {
            return false;
        }
        if vector < FIRST_LEGAL_VECTOR {
            let before = self.news.fetch_or(NEWS_ILLEGAL_VECTOR, Ordering::AcqRel);
            return before & NEWS_ILLEGAL_VECTOR == 0;
        }
        let (word, bit) = position(vector);
        let Some(word) = self.vectors.get(word) else {
            return false;
        };
        let new = word.fetch_or(bit, Ordering::AcqRel) & bit == 0;
        self.news.fetch_or(NEWS_VECTORS, Ordering::AcqRel);
        new
    }

    /// Posts an NMI. True when none was pending and the vCPU must be woken.
    pub fn post_nmi(&self) -> bool {
        self.is_enabled() && !self.nmi.swap(true, Ordering::AcqRel)
    }

    /// True while an NMI waits for delivery.
    #[must_use]
    pub fn nmi_pending(&self) -> bool {
        self.nmi.load(Ordering::Acquire)
    }

    /// True when anything but an NMI has been posted.
    #[inline]
    pub(super) fn has_news(&self) -> bool {
        self.news.load(Ordering::Relaxed) != 0
    }

    /// Takes the pending NMI, for its injection.
    pub fn take_nmi(&self) -> bool {
        self.nmi.swap(false, Ordering::AcqRel)
    }

    /// True unless the APIC is globally disabled in IA32_APIC_BASE: it then hears no message.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.address.load(Ordering::Acquire) & ADDRESS_ENABLED != 0
    }

    /// True when a message for `destination` is for this APIC; `is_sender` tells whether it is
    /// the one that sent it.
    ///
    /// SDM 3A, "Determining IPI Destination" and "Logical Destination Mode in x2APIC Mode".
    #[must_use]
    pub fn matches(&self, destination: Destination, is_sender: bool) -> bool {
        let address = self.address.load(Ordering::Acquire);
        if address & ADDRESS_ENABLED == 0 {
            return false;
        }
        match destination {
            Destination::ToSelf => is_sender,
            Destination::Everyone => true,
            Destination::Others => !is_sender,
            Destination::Physical(id) => id == self.apic_id,
            Destination::Logical(mda) if address & ADDRESS_X2APIC != 0 => {
                let ldr = x2apic_ldr(self.apic_id);
                mda == u32::MAX || (mda >> 16 == ldr >> 16 && mda & ldr & 0xffff != 0)
            }
            Destination::Logical(mda) => {
                let mda = mda & 0xff;
                let id = address & ADDRESS_LOGICAL_ID;
                mda == 0xff
                    || (address & ADDRESS_FLAT != 0 && mda & id != 0)
                    || (address & ADDRESS_CLUSTER != 0
                        && mda >> 4 == id >> 4
                        && mda & id & 0xf != 0)
            }
        }
    }

    pub(super) fn publish(&self, address: Address) {
        let flag = |on, bit| if on { bit } else { 0 };
        let packed = u32::from(address.logical_id)
            | flag(address.model == LogicalModel::Flat, ADDRESS_FLAT)
            | flag(address.model == LogicalModel::Cluster, ADDRESS_CLUSTER)
            | flag(address.x2apic, ADDRESS_X2APIC)
            | flag(address.enabled, ADDRESS_ENABLED)
            | flag(address.software_enabled, ADDRESS_SOFTWARE_ENABLED);
        self.address.store(packed, Ordering::Release);
    }

    /// Empties the inbox but for a pending NMI.
    pub(super) fn take(&self) -> Option<News> {
        if self.news.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let news = self.news.swap(0, Ordering::AcqRel);
        let mut found = News {
            illegal_vector: news & NEWS_ILLEGAL_VECTOR != 0,
            ..News::default()
        };
        for (taken, posted) in found.vectors.iter_mut().zip(&self.vectors) {
            *taken = posted.swap(0, Ordering::AcqRel);
        }
        Some(found)
    }
}

/// The logical id an x2APIC derives from its id (SDM 3A, "Deriving Logical x2APIC ID from the
/// Local x2APIC ID").
pub(super) fn x2apic_ldr(apic_id: u32) -> u32 {
    ((apic_id >> 4) << 16) | 1_u32.rotate_left(apic_id & 0xf)
}

/// The receivers of `ipi` among `inboxes` (in vCPU order), by index; `sender` is the index of the
/// one that sent it. A lowest-priority message goes to the first match.
pub fn route<'a>(
    ipi: Ipi,
    sender: usize,
    inboxes: impl Iterator<Item = &'a Inbox>,
) -> impl Iterator<Item = usize> {
    let limit = if ipi.mode == DeliveryMode::LowestPriority {
        1
    } else {
        usize::MAX
    };
    (0..usize::MAX)
        .zip(inboxes)
        .filter(move |(index, inbox)| inbox.matches(ipi.destination, *index == sender))
        .map(|(index, _)| index)
        .take(limit)
}
