//! Two-level delivery: a bitmap of pending ports and one of masked ports in the shared page, and
//! a selector word per vCPU (`public/xen.h`, `struct shared_info`).
//!
//! The guest changes all three at any time, so every step is one atomic operation on one word
//! and nothing read from them is trusted beyond its own bit.

use core::sync::atomic::Ordering::SeqCst;

use abi::EvtchnPort;
use abi::event_channel::{TWO_LEVEL_CHANNELS_32, TWO_LEVEL_CHANNELS_64};
use abi::shared_info::{self, compat, vcpu_info};
use pv_drivers::shared_page::SharedPage;

use super::word::Word;

/// How wide the guest's words are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Width {
    /// A 32-bit guest.
    Bits32,
    /// A 64-bit guest.
    Bits64,
}

impl Width {
    /// Ports the bitmaps can name.
    #[must_use]
    pub const fn channels(self) -> u32 {
        match self {
            Self::Bits32 => TWO_LEVEL_CHANNELS_32,
            Self::Bits64 => TWO_LEVEL_CHANNELS_64,
        }
    }

    const fn pending(self) -> usize {
        match self {
            Self::Bits32 => compat::EVTCHN_PENDING,
            Self::Bits64 => shared_info::EVTCHN_PENDING,
        }
    }

    const fn mask(self) -> usize {
        match self {
            Self::Bits32 => compat::EVTCHN_MASK,
            Self::Bits64 => shared_info::EVTCHN_MASK,
        }
    }

    /// The selector bit that covers a port.
    const fn selector(self, port: EvtchnPort) -> u32 {
        match self {
            Self::Bits32 => port.0 >> 5,
            Self::Bits64 => port.0 >> 6,
        }
    }
}

/// A bit of a bitmap, reached through 32-bit words: on a little-endian machine those hold the
/// same bits as the guest's own word size.
#[derive(Clone, Copy)]
struct Bit {
    word: Word,
    mask: u32,
}

impl Bit {
    /// Bit `number` of the bitmap at `base`; the caller has checked that it lies in the page.
    fn new(page: SharedPage, base: usize, number: u32) -> Self {
        let index = (number >> 5) as usize;
        let word = Word {
            page,
            offset: base.saturating_add(index << 2),
        };
        Self {
            word,
            mask: 1 << (number & 31),
        }
    }

    fn test(self) -> bool {
        self.word.load() & self.mask != 0
    }

    fn test_and_set(self) -> bool {
        self.word.fetch_or(self.mask) & self.mask != 0
    }

    fn clear(self) {
        self.word.fetch_and(!self.mask);
    }
}

/// The bitmaps of a domain.
#[derive(Clone, Copy)]
pub(super) struct Bitmaps {
    pub(super) page: SharedPage,
    pub(super) width: Width,
}

/// Where a vCPU's information lies: a page and an offset in it.
pub(super) type InfoView = (SharedPage, usize);

/// What making a port pending changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Raised {
    /// The port was not pending before.
    pub(super) newly_pending: bool,
    /// The bound vCPU must be told.
    pub(super) notify: bool,
}

impl Raised {
    pub(super) const NOTHING: Self = Self {
        newly_pending: false,
        notify: false,
    };
}

impl Bitmaps {
    fn pending_bit(&self, port: EvtchnPort) -> Option<Bit> {
        (port.0 < self.width.channels()).then(|| Bit::new(self.page, self.width.pending(), port.0))
    }

    fn mask_bit(&self, port: EvtchnPort) -> Option<Bit> {
        (port.0 < self.width.channels()).then(|| Bit::new(self.page, self.width.mask(), port.0))
    }

    /// Makes a port pending; `info` is its vCPU's information, a page and an offset.
    pub(super) fn raise(&self, port: EvtchnPort, info: Option<InfoView>) -> Raised {
        let Some(pending) = self.pending_bit(port) else {
            return Raised::NOTHING;
        };
        if pending.test_and_set() {
            return Raised::NOTHING;
        }
        Raised {
            newly_pending: true,
            notify: self.select_unless_masked(port, info),
        }
    }

    /// Clears the port's mask; true when its vCPU must be told of an event that waited.
    pub(super) fn unmask(&self, port: EvtchnPort, info: Option<InfoView>) -> bool {
        let Some(mask) = self.mask_bit(port) else {
            return false;
        };
        mask.clear();
        self.is_pending(port) && self.select_unless_masked(port, info)
    }

    fn select_unless_masked(&self, port: EvtchnPort, info: Option<InfoView>) -> bool {
        let masked = self.mask_bit(port).is_none_or(Bit::test);
        let Some((page, offset)) = info else {
            return false;
        };
        !masked && !self.selector_bit(page, offset, port).test_and_set()
    }

    fn selector_bit(&self, page: SharedPage, info: usize, port: EvtchnPort) -> Bit {
        let word = match self.width {
            Width::Bits32 => compat::vcpu_info::PENDING_SEL,
            Width::Bits64 => vcpu_info::PENDING_SEL,
        };
        Bit::new(page, info.saturating_add(word), self.width.selector(port))
    }

    pub(super) fn is_pending(&self, port: EvtchnPort) -> bool {
        self.pending_bit(port).is_some_and(Bit::test)
    }

    pub(super) fn clear_pending(&self, port: EvtchnPort) {
        if let Some(pending) = self.pending_bit(port) {
            pending.clear();
        }
    }

    /// Sets every selector bit of the vCPU whose information this is.
    pub(super) fn select_all(&self, (page, info): InfoView) {
        match self.width {
            Width::Bits32 => page
                .u32(info.saturating_add(compat::vcpu_info::PENDING_SEL))
                .store(u32::MAX, SeqCst),
            // By halves: a place that was registered while the guest counted as 32-bit need not
            // be aligned for the whole.
            Width::Bits64 => {
                for half in [0, 4] {
                    page.u32(
                        info.saturating_add(vcpu_info::PENDING_SEL)
                            .saturating_add(half),
                    )
                    .store(u32::MAX, SeqCst);
                }
            }
        }
    }
}
