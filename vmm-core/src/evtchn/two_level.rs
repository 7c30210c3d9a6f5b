//! Two-level delivery: a bitmap of pending ports and one of masked ports in the shared page, and
//! a selector word per vCPU (`public/xen.h`, `struct shared_info`).
//!
//! The guest changes all three at any time, so every step is one atomic operation on one word
//! and nothing read from them is trusted beyond its own bit.

use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::SeqCst;

use abi::EvtchnPort;
use abi::event_channel::{TWO_LEVEL_CHANNELS_32, TWO_LEVEL_CHANNELS_64};
use abi::shared_info::{self, compat, vcpu_info};
use pv_drivers::shared_page::SharedPage;

use crate::word::Word;

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
struct Bit<'a, W = AtomicU32> {
    word: &'a W,
    mask: u32,
}

impl<'a> Bit<'a> {
    /// Bit `number` of the bitmap at `base`; the caller has checked that it lies in the page.
    fn new(page: &'a SharedPage, base: usize, number: u32) -> Self {
        let index = (number >> 5) as usize;
        Self {
            word: page.u32(base.saturating_add(index << 2)),
            mask: 1 << (number & 31),
        }
    }
}

impl<W: Word<u32>> Bit<'_, W> {
    fn test(&self) -> bool {
        self.word.get() & self.mask != 0
    }

    fn test_and_set(&self) -> bool {
        self.word.set_bits(self.mask) & self.mask != 0
    }

    fn clear(&self) {
        self.word.clear_bits(self.mask);
    }
}

/// The three bits that an event of one port passes through; no selector as long as its vCPU has
/// no place for one.
struct Bits<'a, W = AtomicU32> {
    pending: Bit<'a, W>,
    mask: Bit<'a, W>,
    selector: Option<Bit<'a, W>>,
}

impl<W: Word<u32>> Bits<'_, W> {
    fn raise(&self) -> Raised {
        if self.pending.test_and_set() {
            return Raised::NOTHING;
        }
        Raised {
            newly_pending: true,
            notify: self.select_unless_masked(),
        }
    }

    fn unmask(&self) -> bool {
        self.mask.clear();
        W::write_then_read();
        self.pending.test() && self.select_unless_masked()
    }

    fn select_unless_masked(&self) -> bool {
        W::write_then_read();
        let masked = self.mask.test();
        let selector = self.selector.as_ref().filter(|_| !masked);
        selector.is_some_and(|selector| !selector.test_and_set())
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
    fn pending_bit(&self, port: EvtchnPort) -> Option<Bit<'_>> {
        (port.0 < self.width.channels()).then(|| Bit::new(&self.page, self.width.pending(), port.0))
    }

    fn with_bits<T>(
        &self,
        port: EvtchnPort,
        info: Option<InfoView>,
        act: impl FnOnce(Bits<'_>) -> T,
    ) -> Option<T> {
        let pending = self.pending_bit(port)?;
        let mask = Bit::new(&self.page, self.width.mask(), port.0);
        let word = match self.width {
            Width::Bits32 => compat::vcpu_info::PENDING_SEL,
            Width::Bits64 => vcpu_info::PENDING_SEL,
        };
        let selector = info.as_ref().map(|(page, offset)| {
            let base = offset.saturating_add(word);
            Bit::new(page, base, self.width.selector(port))
        });
        Some(act(Bits {
            pending,
            mask,
            selector,
        }))
    }

    /// Makes a port pending; `info` is its vCPU's information, a page and an offset.
    pub(super) fn raise(&self, port: EvtchnPort, info: Option<InfoView>) -> Raised {
        let raised = self.with_bits(port, info, |bits| bits.raise());
        raised.unwrap_or(Raised::NOTHING)
    }

    /// Clears the port's mask; true when its vCPU must be told of an event that waited.
    pub(super) fn unmask(&self, port: EvtchnPort, info: Option<InfoView>) -> bool {
        self.with_bits(port, info, |bits| bits.unmask()) == Some(true)
    }

    pub(super) fn is_pending(&self, port: EvtchnPort) -> bool {
        self.pending_bit(port).is_some_and(|bit| bit.test())
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

#[cfg(test)]
mod tests {
    use loom::sync::atomic::{
        AtomicU32,
        Ordering::{Relaxed, SeqCst},
    };
    use loom::sync::{Arc, Mutex};
    use loom::thread;

    use super::{Bit, Bits};
    use crate::word::Word;

    const PORT: u32 = 1 << 5;
    const SELECTOR: u32 = 1 << 0;

    /// A mistake: a word whose operations are in no order with those on others.
    #[derive(Default)]
    struct Unordered(AtomicU32);

    impl Word<u32> for Unordered {
        fn get(&self) -> u32 {
            self.0.load(Relaxed)
        }

        fn set(&self, value: u32) {
            self.0.store(value, Relaxed);
        }

        fn exchange(&self, old: u32, new: u32) -> Result<(), u32> {
            self.0
                .compare_exchange(old, new, Relaxed, Relaxed)
                .map(drop)
        }

        fn set_bits(&self, bits: u32) -> u32 {
            self.0.fetch_or(bits, Relaxed)
        }

        fn clear_bits(&self, bits: u32) -> u32 {
            self.0.fetch_and(!bits, Relaxed)
        }

        fn write_then_read() {}
    }

    /// What a domain and the hypervisor share, and the lock of the domain's table.
    #[derive(Default)]
    struct Shared<W> {
        pending: W,
        mask: W,
        selector: W,
        upcall: AtomicU32,
        /// What the event is about.
        work: AtomicU32,
        table: Mutex<()>,
    }

    impl<W: Word<u32> + Default + Send + Sync + 'static> Shared<W> {
        fn bits(&self) -> Bits<'_, W> {
            let bit = |word, mask| Bit { word, mask };
            Bits {
                pending: bit(&self.pending, PORT),
                mask: bit(&self.mask, PORT),
                selector: Some(bit(&self.selector, SELECTOR)),
            }
        }

        fn send(&self) {
            let _table = self.table.lock().unwrap();
            if self.bits().raise().notify {
                self.upcall.swap(1, SeqCst);
            }
        }

        fn unmask(&self) {
            let _table = self.table.lock().unwrap();
            if self.bits().unmask() {
                self.upcall.swap(1, SeqCst);
            }
        }

        /// The guest's handler, in Linux's order; true when it found the event.
        fn handle(&self) -> bool {
            self.upcall.set(0);
            AtomicU32::write_then_read();
            if self.selector.clear_bits(u32::MAX) & SELECTOR == 0 {
                return false;
            }
            let open = self.pending.get() & !self.mask.get() & PORT != 0;
            if open {
                self.pending.clear_bits(PORT);
            }
            open
        }

        /// An event that is still there will be found: the guest is told of it.
        fn told(&self) -> bool {
            self.upcall.load(SeqCst) == 1 && self.selector.get() & SELECTOR != 0
        }

        fn handled_while_sent() {
            loom::model(|| {
                let shared = Arc::new(Self::default());
                shared.send();
                let sender = Arc::clone(&shared);
                let sender = thread::spawn(move || {
                    sender.work.set(1);
                    sender.send();
                });
                let done = shared.handle() && shared.work.get() == 1;
                sender.join().unwrap();
                let pending = shared.pending.get() & PORT != 0;
                assert!(done || pending);
                assert!(!pending || shared.told());
            });
        }

        /// A guest that clears the mask by itself, as Linux does on the vCPU of the port.
        fn unmasked_while_sent() {
            loom::model(|| {
                let shared = Arc::new(Self::default());
                shared.mask.set(PORT);
                let sender = Arc::clone(&shared);
                let sender = thread::spawn(move || sender.send());
                shared.mask.clear_bits(PORT);
                AtomicU32::write_then_read();
                let seen = shared.pending.get() & PORT != 0;
                sender.join().unwrap();
                assert!(seen || shared.told());
            });
        }
    }

    #[test]
    fn what_is_sent_while_the_guest_handles_events_is_handled_or_announced() {
        Shared::<AtomicU32>::handled_while_sent();
    }

    #[test]
    #[should_panic(expected = "assertion")]
    fn an_event_without_order_that_is_lost_while_the_guest_handles_others_is_found_out() {
        Shared::<Unordered>::handled_while_sent();
    }

    /// The table's lock puts the two in order; what counts is that the second looks.
    #[test]
    fn what_is_sent_to_a_port_that_is_being_unmasked_is_announced() {
        loom::model(|| {
            let shared = Arc::new(Shared::<AtomicU32>::default());
            shared.mask.set(PORT);
            let sender = Arc::clone(&shared);
            let sender = thread::spawn(move || sender.send());
            shared.unmask();
            sender.join().unwrap();
            assert!(shared.told());
        });
    }

    #[test]
    fn a_guest_that_unmasks_by_itself_sees_the_event_or_is_told() {
        Shared::<AtomicU32>::unmasked_while_sent();
    }

    #[test]
    #[should_panic(expected = "assertion")]
    fn an_event_without_order_that_an_unmasking_guest_misses_is_found_out() {
        Shared::<Unordered>::unmasked_while_sent();
    }
}
