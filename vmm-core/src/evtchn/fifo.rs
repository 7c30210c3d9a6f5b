//! FIFO delivery: one event word per port, sixteen queues per vCPU, linked through the words
//! (`public/event_channel.h`, `struct evtchn_fifo_control_block`).
//!
//! ```text
//! control block (guest)           event array (guest)            here
//! ready: 1 bit per queue          word[port]: PENDING MASKED
//! head[16] ----> port --LINK--> port --LINK--> port <----------- tail of the queue
//! ```
//!
//! The guest takes from the head, the hypervisor appends at the tail. Heads, links and flags lie
//! in guest memory and may hold anything; the tails, and each port's last queue, are ours, so a
//! guest that scribbles loses its own events and nothing else.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::AtomicU32;

use abi::event_channel::fifo::{
    BUSY, CONTROL_BLOCK_SIZE, CONTROL_HEAD, CONTROL_READY, LINK_MASK, LINKED, MASKED,
    MAX_ARRAY_PAGES, PENDING, PRIORITIES, WORDS_PER_PAGE,
};
use abi::{Errno, EvtchnPort, PAGE_SIZE, VcpuId};
use lists::TryPush as _;

use super::port::{Port, QueueId};
use super::two_level::Raised;
use crate::mm::page::PageRef;
use crate::word::Word;

/// Times the hypervisor tries to link behind a tail that the guest keeps changing.
const LINK_TRIES: u32 = 5;

/// The words that the guest and the hypervisor share.
pub(super) trait Memory {
    type Word: Word<u32>;
    /// The event word of a port, if there is one.
    fn word(&self, port: u32) -> Option<&Self::Word>;
    /// A word of a vCPU's control block, if it has one.
    fn control(&self, vcpu: VcpuId, offset: usize) -> Option<&Self::Word>;
}

#[derive(Debug)]
struct ControlBlock {
    page: PageRef,
    offset: usize,
}

/// The pages that the guest gave for them.
#[derive(Debug)]
pub(super) struct Pages {
    array: Vec<PageRef>,
    controls: Box<[Option<ControlBlock>]>,
}

impl Memory for Pages {
    type Word = AtomicU32;

    fn word(&self, port: u32) -> Option<&AtomicU32> {
        let page = self.array.get((port / WORDS_PER_PAGE) as usize)?;
        Some(page.u32(((port % WORDS_PER_PAGE) << 2) as usize))
    }

    fn control(&self, vcpu: VcpuId, offset: usize) -> Option<&AtomicU32> {
        let block = self.controls.get(vcpu.0 as usize)?.as_ref()?;
        Some(block.page.u32(block.offset.saturating_add(offset)))
    }
}

/// Last port of each queue of a vCPU, 0 for none.
type Tails = [u32; PRIORITIES];

/// The FIFO state of a domain.
#[derive(Debug)]
pub(super) struct Fifo<M = Pages> {
    memory: M,
    tails: Box<[Tails]>,
}

/// Checks where a control block is to lie.
pub(super) fn check_offset(offset: u32) -> Result<usize, Errno> {
    let offset = offset as usize;
    let fits = offset <= PAGE_SIZE.saturating_sub(CONTROL_BLOCK_SIZE);
    if fits && offset & 7 == 0 {
        Ok(offset)
    } else {
        Err(Errno::Einval)
    }
}

impl Fifo {
    /// The state of a domain that is about to switch to FIFO events.
    pub(super) fn new(vcpus: usize) -> Result<Self, Errno> {
        let (mut controls, mut tails) = (Vec::new(), Vec::new());
        controls
            .try_reserve_exact(vcpus)
            .map_err(|_| Errno::Enomem)?;
        controls.resize_with(vcpus, || None);
        tails.try_reserve_exact(vcpus).map_err(|_| Errno::Enomem)?;
        tails.resize(vcpus, [0; PRIORITIES]);
        let memory = Pages {
            array: Vec::new(),
            controls: controls.into_boxed_slice(),
        };
        Ok(Self {
            memory,
            tails: tails.into_boxed_slice(),
        })
    }

    /// Gives a vCPU its control block.
    pub(super) fn set_control(
        &mut self,
        vcpu: VcpuId,
        page: PageRef,
        offset: usize,
    ) -> Result<(), Errno> {
        let controls = &mut self.memory.controls;
        let control = controls.get_mut(vcpu.0 as usize).ok_or(Errno::Enoent)?;
        if control.is_some() {
            return Err(Errno::Einval);
        }
        *control = Some(ControlBlock { page, offset });
        Ok(())
    }

    /// Adds a page of event words; answers with the first port it holds.
    pub(super) fn add_page(&mut self, page: PageRef) -> Result<EvtchnPort, Errno> {
        let array = &mut self.memory.array;
        let pages = array.len();
        if pages >= MAX_ARRAY_PAGES {
            return Err(Errno::Enospc);
        }
        array.try_push(page).map_err(|_| Errno::Enomem)?;
        let first = u32::try_from(pages)
            .unwrap_or(u32::MAX)
            .saturating_mul(WORDS_PER_PAGE);
        Ok(EvtchnPort(first))
    }
}

impl<M: Memory> Fifo<M> {
    /// Makes a port pending and puts it on its queue unless it is masked or on one already.
    pub(super) fn raise(&mut self, number: EvtchnPort, port: &mut Port) -> Raised {
        let Some(word) = self.memory.word(number.0) else {
            // `add_page` raises it when the word appears.
            port.early = true;
            return Raised::NOTHING;
        };
        if self.memory.control(port.target.vcpu, 0).is_none() {
            return Raised::NOTHING;
        }
        let newly_pending = word.set_bits(PENDING) & PENDING == 0;
        Raised {
            newly_pending,
            notify: self.enqueue(number, port),
        }
    }

    /// Clears the port's mask; true when an event waited and must be raised again.
    pub(super) fn unmask(&self, number: EvtchnPort) -> bool {
        let word = self.memory.word(number.0);
        word.is_some_and(|word| word.clear_bits(MASKED) & PENDING != 0)
    }

    /// Appends a pending port to its queue; true when its vCPU must be told.
    fn enqueue(&mut self, number: EvtchnPort, port: &mut Port) -> bool {
        let Some(word) = self.memory.word(number.0) else {
            return false;
        };
        if word.get() & MASKED != 0 || word.set_bits(LINKED) & LINKED != 0 {
            return false;
        }
        // The guest took the port off its last queue. If it was the tail there, nothing may be
        // linked behind it any more: its word now belongs to the new queue.
        if let Some(tail) = tail(&mut self.tails, port.last)
            && *tail == number.0
        {
            *tail = 0;
        }
        port.last = port.target;
        let Some(tail) = tail(&mut self.tails, port.target) else {
            return false;
        };
        let old_tail = core::mem::replace(tail, number.0);
        let linked = old_tail != 0 && self.link_behind(old_tail, number.0);
        !linked && self.start_queue(port.target, number.0)
    }

    /// Makes `number` the head of an empty queue; true when the guest did not yet know the queue
    /// to be ready.
    fn start_queue(&self, queue: QueueId, number: u32) -> bool {
        let slot = usize::from(queue.priority) << 2;
        let word = |offset| self.memory.control(queue.vcpu, offset);
        let (Some(head), Some(ready)) =
            (word(CONTROL_HEAD.saturating_add(slot)), word(CONTROL_READY))
        else {
            return false;
        };
        head.set(number);
        let bit = 1u32.checked_shl(queue.priority.into()).unwrap_or(0);
        ready.set_bits(bit) & bit == 0
    }

    /// Links `number` behind `tail`. False when the guest has taken the tail off, so that the
    /// queue is empty.
    ///
    /// From the second try on, BUSY asks the guest to leave the word alone. One that will not is
    /// given up on: its event stays pending and unqueued.
    fn link_behind(&self, tail: u32, number: u32) -> bool {
        let Some(word) = self.memory.word(tail) else {
            return false;
        };
        let mut seen = word.get();
        for attempt in 0..LINK_TRIES {
            if seen & LINKED == 0 {
                if attempt != 0 {
                    word.clear_bits(BUSY);
                }
                return false;
            }
            let linked = (seen & !(BUSY | LINK_MASK)) | number;
            match word.exchange(seen, linked) {
                Ok(()) => return true,
                Err(_) if attempt == 0 => seen = word.set_bits(BUSY) | BUSY,
                Err(now) => seen = now,
            }
        }
        word.clear_bits(BUSY);
        true
    }

    pub(super) fn is_pending(&self, port: EvtchnPort) -> bool {
        let word = self.memory.word(port.0);
        word.is_some_and(|word| word.get() & PENDING != 0)
    }

    /// True while the port's word sits on a queue, so that the port must not be handed out.
    pub(super) fn is_linked(&self, port: EvtchnPort) -> bool {
        let word = self.memory.word(port.0);
        word.is_some_and(|word| word.get() & LINKED != 0)
    }

    pub(super) fn clear_pending(&self, port: EvtchnPort) {
        if let Some(word) = self.memory.word(port.0) {
            word.clear_bits(PENDING);
        }
    }
}

fn tail(tails: &mut [Tails], queue: QueueId) -> Option<&mut u32> {
    tails
        .get_mut(queue.vcpu.0 as usize)?
        .get_mut(usize::from(queue.priority))
}

#[cfg(test)]
mod tests {
    use abi::EvtchnPort;
    use abi::event_channel::fifo::{CONTROL_HEAD, LINK_MASK, LINKED, MASKED, PENDING, PRIORITIES};
    use alloc::boxed::Box;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU32, Ordering::SeqCst};
    use loom::thread;

    use super::{Fifo, Memory, Port, QueueId, VcpuId};

    const A: u32 = 1;
    const B: u32 = 2;
    const QUEUE: QueueId = QueueId {
        vcpu: VcpuId(0),
        priority: 0,
    };

    /// Three event words, and a control block as far as its first queue goes.
    #[derive(Default)]
    struct Words {
        array: [AtomicU32; 3],
        ready: AtomicU32,
        head: AtomicU32,
    }

    impl Memory for Arc<Words> {
        type Word = AtomicU32;

        fn word(&self, port: u32) -> Option<&AtomicU32> {
            self.array.get(port as usize)
        }

        fn control(&self, _: VcpuId, offset: usize) -> Option<&AtomicU32> {
            Some(if offset == CONTROL_HEAD {
                &self.head
            } else {
                &self.ready
            })
        }
    }

    impl Words {
        /// The guest's handler, in Linux's order: takes what is on the queue when it is ready.
        /// The bits are the ports that it handled.
        fn handle(&self) -> u32 {
            let mut handled = 0;
            if self.ready.swap(0, SeqCst) == 0 {
                return handled;
            }
            let mut port = self.head.load(SeqCst);
            while port != 0 {
                let word = &self.array[port as usize];
                let next = word.fetch_and(!(LINKED | LINK_MASK), SeqCst) & LINK_MASK;
                let seen = word.load(SeqCst);
                if seen & PENDING != 0 && seen & MASKED == 0 {
                    word.fetch_and(!PENDING, SeqCst);
                    handled |= 1 << port;
                }
                port = next;
            }
            handled
        }
    }

    fn fifo(words: &Arc<Words>) -> Fifo<Arc<Words>> {
        Fifo {
            memory: Arc::clone(words),
            tails: Box::new([[0; PRIORITIES]]),
        }
    }

    fn port() -> Port {
        Port {
            target: QUEUE,
            last: QUEUE,
            ..Port::FREE
        }
    }

    /// While the guest takes the first event off its queue, a second one is put behind it.
    #[test]
    fn an_event_behind_one_that_is_taken_is_found() {
        loom::model(|| {
            let words = Arc::new(Words::default());
            let mut fifo = fifo(&words);
            let (mut a, mut b) = (port(), port());
            assert!(fifo.raise(EvtchnPort(A), &mut a).notify);
            let guest = Arc::clone(&words);
            let guest = thread::spawn(move || guest.handle());
            let told = fifo.raise(EvtchnPort(B), &mut b).notify;
            let mut handled = guest.join().unwrap();
            assert!(handled & 1 << A != 0);
            if handled & 1 << B == 0 {
                assert!(told, "it is on a queue of its own");
                handled |= words.handle();
            }
            assert_eq!(handled, 1 << A | 1 << B);
        });
    }

    /// The same event once more while the guest handles it.
    #[test]
    fn an_event_that_is_sent_again_is_handled_after_that() {
        loom::model(|| {
            let words = Arc::new(Words::default());
            let mut fifo = fifo(&words);
            let mut a = port();
            fifo.raise(EvtchnPort(A), &mut a);
            let guest = Arc::clone(&words);
            let guest = thread::spawn(move || guest.handle());
            let raised = fifo.raise(EvtchnPort(A), &mut a);
            let handled = guest.join().unwrap() != 0;
            let again = words.handle() != 0;
            // One that was pending still is the same event.
            assert!(handled || again);
            assert!(!raised.newly_pending || handled && again);
            assert_eq!(words.array[A as usize].load(SeqCst) & PENDING, 0);
        });
    }
}
