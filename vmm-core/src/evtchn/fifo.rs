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

use abi::event_channel::fifo::{
    BUSY, CONTROL_BLOCK_SIZE, CONTROL_HEAD, CONTROL_READY, LINK_MASK, LINKED, MASKED,
    MAX_ARRAY_PAGES, PENDING, PRIORITIES, WORDS_PER_PAGE,
};
use abi::{Errno, EvtchnPort, PAGE_SIZE, VcpuId};

use super::port::{Port, QueueId};
use super::two_level::Raised;
use super::word::Word;
use crate::mm::page::PageRef;

/// Times the hypervisor tries to link behind a tail that the guest keeps changing.
const LINK_TRIES: u32 = 5;

#[derive(Debug)]
struct ControlBlock {
    page: PageRef,
    offset: usize,
}

impl ControlBlock {
    fn word(&self, offset: usize) -> Word {
        Word {
            page: self.page.page(),
            offset: self.offset.saturating_add(offset),
        }
    }
}

#[derive(Debug)]
struct Queues {
    control: Option<ControlBlock>,
    /// Last port of each queue, 0 for none.
    tails: [u32; PRIORITIES],
}

/// The FIFO state of a domain.
#[derive(Debug)]
pub(super) struct Fifo {
    array: Vec<PageRef>,
    queues: Box<[Queues]>,
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
        let mut queues = Vec::new();
        queues.try_reserve_exact(vcpus).map_err(|_| Errno::Enomem)?;
        queues.resize_with(vcpus, || Queues {
            control: None,
            tails: [0; PRIORITIES],
        });
        Ok(Self {
            array: Vec::new(),
            queues: queues.into_boxed_slice(),
        })
    }

    /// Gives a vCPU its control block.
    pub(super) fn set_control(
        &mut self,
        vcpu: VcpuId,
        page: PageRef,
        offset: usize,
    ) -> Result<(), Errno> {
        let queues = self.queues.get_mut(vcpu.0 as usize).ok_or(Errno::Enoent)?;
        if queues.control.is_some() {
            return Err(Errno::Einval);
        }
        queues.control = Some(ControlBlock { page, offset });
        Ok(())
    }

    /// Adds a page of event words; answers with the first port it holds.
    pub(super) fn add_page(&mut self, page: PageRef) -> Result<EvtchnPort, Errno> {
        let pages = self.array.len();
        if pages >= MAX_ARRAY_PAGES {
            return Err(Errno::Enospc);
        }
        self.array.try_reserve(1).map_err(|_| Errno::Enomem)?;
        self.array.push(page);
        let first = u32::try_from(pages)
            .unwrap_or(u32::MAX)
            .saturating_mul(WORDS_PER_PAGE);
        Ok(EvtchnPort(first))
    }

    fn word(&self, port: u32) -> Option<Word> {
        let page = self.array.get((port / WORDS_PER_PAGE) as usize)?;
        Some(Word {
            page: page.page(),
            offset: ((port % WORDS_PER_PAGE) << 2) as usize,
        })
    }

    /// Makes a port pending and puts it on its queue unless it is masked or on one already.
    pub(super) fn raise(&mut self, number: EvtchnPort, port: &mut Port) -> Raised {
        if self.word(number.0).is_none() {
            // `add_page` raises it when the word appears.
            port.early = true;
            return Raised::NOTHING;
        }
        if self.control(port.target.vcpu).is_none() {
            return Raised::NOTHING;
        }
        let before = self.word(number.0).map_or(0, |word| word.fetch_or(PENDING));
        let newly_pending = before & PENDING == 0;
        Raised {
            newly_pending,
            notify: self.enqueue(number, port),
        }
    }

    /// Clears the port's mask; true when an event waited and must be raised again.
    pub(super) fn unmask(&self, number: EvtchnPort) -> bool {
        self.word(number.0)
            .is_some_and(|word| word.fetch_and(!MASKED) & PENDING != 0)
    }

    /// Appends a pending port to its queue; true when its vCPU must be told.
    fn enqueue(&mut self, number: EvtchnPort, port: &mut Port) -> bool {
        let Some(word) = self.word(number.0) else {
            return false;
        };
        if word.load() & MASKED != 0 || word.fetch_or(LINKED) & LINKED != 0 {
            return false;
        }
        // The guest took the port off its last queue. If it was the tail there, nothing may be
        // linked behind it any more: its word now belongs to the new queue.
        if let Some(tail) = self.tail(port.last)
            && *tail == number.0
        {
            *tail = 0;
        }
        port.last = port.target;
        let Some(tail) = self.tail(port.target) else {
            return false;
        };
        let old_tail = core::mem::replace(tail, number.0);
        let linked = old_tail != 0 && self.link_behind(old_tail, number.0);
        !linked && self.start_queue(port.target, number.0)
    }

    /// Makes `number` the head of an empty queue; true when the guest did not yet know the queue
    /// to be ready.
    fn start_queue(&self, queue: QueueId, number: u32) -> bool {
        let Some(control) = self.control(queue.vcpu) else {
            return false;
        };
        let slot = usize::from(queue.priority) << 2;
        control
            .word(CONTROL_HEAD.saturating_add(slot))
            .store(number);
        let bit = 1u32.checked_shl(queue.priority.into()).unwrap_or(0);
        control.word(CONTROL_READY).fetch_or(bit) & bit == 0
    }

    /// Links `number` behind `tail`. False when the guest has taken the tail off, so that the
    /// queue is empty.
    ///
    /// From the second try on, BUSY asks the guest to leave the word alone. One that will not is
    /// given up on: its event stays pending and unqueued.
    fn link_behind(&self, tail: u32, number: u32) -> bool {
        let Some(word) = self.word(tail) else {
            return false;
        };
        let mut seen = word.load();
        for attempt in 0..LINK_TRIES {
            if seen & LINKED == 0 {
                if attempt != 0 {
                    word.fetch_and(!BUSY);
                }
                return false;
            }
            let linked = (seen & !(BUSY | LINK_MASK)) | number;
            match word.compare_exchange(seen, linked) {
                Ok(()) => return true,
                Err(_) if attempt == 0 => seen = word.fetch_or(BUSY) | BUSY,
                Err(now) => seen = now,
            }
        }
        word.fetch_and(!BUSY);
        true
    }

    fn control(&self, vcpu: VcpuId) -> Option<&ControlBlock> {
        self.queues.get(vcpu.0 as usize)?.control.as_ref()
    }

    fn tail(&mut self, queue: QueueId) -> Option<&mut u32> {
        self.queues
            .get_mut(queue.vcpu.0 as usize)?
            .tails
            .get_mut(usize::from(queue.priority))
    }

    pub(super) fn is_pending(&self, port: EvtchnPort) -> bool {
        self.word(port.0)
            .is_some_and(|word| word.load() & PENDING != 0)
    }

    /// True while the port's word sits on a queue, so that the port must not be handed out.
    pub(super) fn is_linked(&self, port: EvtchnPort) -> bool {
        self.word(port.0)
            .is_some_and(|word| word.load() & LINKED != 0)
    }

    pub(super) fn clear_pending(&self, port: EvtchnPort) {
        if let Some(word) = self.word(port.0) {
            word.fetch_and(!PENDING);
        }
    }
}
