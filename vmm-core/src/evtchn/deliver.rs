//! Making ports pending, and everything that decides how the guest hears of it.

use core::sync::atomic::Ordering::SeqCst;

use abi::event_channel::fifo::{LINK_BITS, PRIORITY_DEFAULT, PRIORITY_MIN, WORDS_PER_PAGE};
use abi::shared_info::{compat, vcpu_info};
use abi::{Errno, EvtchnPort, PAGE_SIZE, VcpuId, Virq};

use super::fifo::{self, Fifo};
use super::port::{DeviceQueue, Port, Service, State};
use super::two_level::{InfoView, Raised, Width};
use super::{EvtchnTable, Peer, Sent, VcpuSet, Wake};
use crate::mm::page::PageRef;

impl EvtchnTable {
    /// Sends an event through a port of this domain (`EVTCHNOP_send`).
    ///
    /// # Errors
    /// [`Errno::Einval`] for a port that nothing can be sent through.
    pub fn send(&mut self, port: EvtchnPort) -> Result<Sent, Errno> {
        let open = self.open_port(port)?;
        match open.state {
            State::Interdomain { dom, port } => Ok(Sent::Peer(Peer { dom, port })),
            State::Service(service) => Ok(Sent::Service(service)),
            State::Device(queue) => Ok(Sent::Device(queue)),
            State::Ipi => Ok(Sent::Local(self.deliver_to(open.target.vcpu, port))),
            State::Unbound { .. } => Ok(Sent::Local(Wake::NONE)),
            State::Free | State::Virq(_) => Err(Errno::Einval),
        }
    }

    /// Delivers an event that `sender` sent to `port`, if the two are still connected.
    pub fn deliver_from(&mut self, port: EvtchnPort, sender: Peer) -> Wake {
        let expected = State::Interdomain {
            dom: sender.dom,
            port: sender.port,
        };
        match self.open_port(port) {
            Ok(open) if open.state == expected => self.deliver(port),
            _ => Wake::NONE,
        }
    }

    /// Delivers an event from a back end in the hypervisor, if the guest still has its port.
    pub fn raise_service(&mut self, service: Service) -> Wake {
        self.service_port(service)
            .map_or(Wake::NONE, |port| self.deliver(port))
    }

    /// Delivers an event from a device's back end, if the guest has not closed the port that it
    /// bound.
    pub fn raise_device(&mut self, port: EvtchnPort, queue: DeviceQueue) -> Wake {
        match self.open_port(port) {
            Ok(open) if open.state == State::Device(queue) => self.deliver(port),
            _ => Wake::NONE,
        }
    }

    /// Delivers a virtual interrupt to a vCPU, if it has bound it.
    pub fn raise_virq(&mut self, vcpu: VcpuId, virq: Virq) -> Wake {
        let events = self.vcpus.get(vcpu.0 as usize);
        match events.and_then(|events| events.virqs.get(virq.0 as usize)) {
            Some(port) if port.0 != 0 => self.deliver(*port),
            _ => Wake::NONE,
        }
    }

    /// Makes an open port pending.
    pub fn deliver(&mut self, number: EvtchnPort) -> Wake {
        match self.open_port(number) {
            Ok(port) => self.deliver_to(port.target.vcpu, number),
            Err(_) => Wake::NONE,
        }
    }

    /// Makes an open port pending, which is bound to `vcpu`.
    fn deliver_to(&mut self, vcpu: VcpuId, number: EvtchnPort) -> Wake {
        let info = self.info(vcpu);
        let raised = match &mut self.fifo {
            Some(fifo) => match self.ports.get_mut(number.0 as usize) {
                Some(port) => fifo.raise(number, port),
                None => Raised::NOTHING,
            },
            None => self.bitmaps().raise(number, info),
        };
        let mut wake = Wake::NONE;
        if raised.notify {
            wake.upcalls = mark_upcall(vcpu, info);
        }
        if raised.newly_pending && !self.pollers.is_empty() {
            wake.pollers = self.end_polls_of(number);
        }
        wake
    }

    /// Clears a port's mask and delivers the event that waited behind it, if there is one
    /// (`EVTCHNOP_unmask`).
    ///
    /// # Errors
    /// [`Errno::Einval`] for a port that has never been in use.
    pub fn unmask(&mut self, port: EvtchnPort) -> Result<Wake, Errno> {
        self.check_port(port)?;
        let vcpu = self
            .ports
            .get(port.0 as usize)
            .map_or(VcpuId(0), |port| port.target.vcpu);
        match &self.fifo {
            Some(fifo) if fifo.unmask(port) => Ok(self.deliver(port)),
            Some(_) => Ok(Wake::NONE),
            None => {
                let info = self.info(vcpu);
                let notify = self.bitmaps().unmask(port, info);
                let upcalls = if notify {
                    mark_upcall(vcpu, info)
                } else {
                    VcpuSet::EMPTY
                };
                Ok(Wake {
                    upcalls,
                    ..Wake::NONE
                })
            }
        }
    }

    /// True while the port is pending, masked or not.
    #[must_use]
    pub fn is_pending(&self, port: EvtchnPort) -> bool {
        match &self.fifo {
            Some(fifo) => fifo.is_pending(port),
            None => self.bitmaps().is_pending(port),
        }
    }

    /// True while the vCPU's `evtchn_upcall_pending` is set.
    #[must_use]
    pub fn upcall_pending(&self, vcpu: VcpuId) -> bool {
        self.info(vcpu).is_some_and(|(page, offset)| {
            page.u8(offset.saturating_add(vcpu_info::UPCALL_PENDING))
                .load(SeqCst)
                != 0
        })
    }

    /// Checks where `VCPUOP_register_vcpu_info` wants a vCPU's information to be.
    ///
    /// # Errors
    /// [`Errno::Enxio`] for a structure that would leave the page or lie unaligned.
    pub fn check_info_offset(&self, offset: u32) -> Result<usize, Errno> {
        let offset = offset as usize;
        let align = match self.width {
            Width::Bits32 => compat::vcpu_info::ALIGN,
            Width::Bits64 => vcpu_info::ALIGN,
        };
        let fits = offset <= PAGE_SIZE.saturating_sub(vcpu_info::SIZE);
        let aligned = offset & align.wrapping_sub(1) == 0;
        if fits && aligned {
            Ok(offset)
        } else {
            Err(Errno::Enxio)
        }
    }

    /// True when the vCPU has registered a place for its information.
    #[must_use]
    pub fn has_moved_info(&self, vcpu: VcpuId) -> bool {
        self.vcpus
            .get(vcpu.0 as usize)
            .is_some_and(|events| events.moved_info.is_some())
    }

    /// Moves a vCPU's information (`VCPUOP_register_vcpu_info`) to a place that passed
    /// [`EvtchnTable::check_info_offset`]. The old contents are copied; then everything is
    /// marked pending, so that an event that comes meanwhile is not lost.
    ///
    /// # Errors
    /// [`Errno::Enoent`] for a bad vCPU, [`Errno::Einval`] when it has been moved before.
    pub fn move_info(&mut self, vcpu: VcpuId, page: PageRef, offset: usize) -> Result<Wake, Errno> {
        self.check_vcpu(vcpu)?;
        if self.has_moved_info(vcpu) {
            return Err(Errno::Einval);
        }
        let mut contents = [0; vcpu_info::SIZE];
        if let Some((old_page, old_offset)) = self.info(vcpu) {
            old_page.read(old_offset, &mut contents);
        }
        let view = page.page();
        view.write(offset, &contents);
        if let Some(events) = self.vcpus.get_mut(vcpu.0 as usize) {
            events.moved_info = Some((page, offset));
        }
        self.bitmaps().select_all((view, offset));
        view.u8(offset.saturating_add(vcpu_info::UPCALL_PENDING))
            .store(1, SeqCst);
        Ok(Wake {
            upcalls: VcpuSet::one(vcpu),
            ..Wake::NONE
        })
    }

    /// Gives a vCPU its control block, at a place that is checked here
    /// (`EVTCHNOP_init_control`); answers with the width of the link field. The first one
    /// switches the domain to FIFO events.
    ///
    /// # Errors
    /// [`Errno::Enoent`] for a bad vCPU; [`Errno::Einval`] for a bad offset or a vCPU that has
    /// its block; [`Errno::Enomem`].
    pub fn init_control(&mut self, vcpu: VcpuId, page: PageRef, offset: u32) -> Result<u8, Errno> {
        self.check_vcpu(vcpu)?;
        let offset = fifo::check_offset(offset)?;
        if let Some(fifo) = &mut self.fifo {
            fifo.set_control(vcpu, page, offset)?;
        } else {
            let mut fifo = Fifo::new(self.vcpus.len())?;
            fifo.set_control(vcpu, page, offset)?;
            self.switch_to_fifo(fifo);
        }
        Ok(LINK_BITS)
    }

    /// Takes over what is pending; it is delivered when the event words appear.
    fn switch_to_fifo(&mut self, fifo: Fifo) {
        let bitmaps = self.bitmaps();
        for (number, port) in (0..u32::MAX).zip(self.ports.iter_mut()) {
            port.early |= bitmaps.is_pending(EvtchnPort(number));
            port.target.priority = PRIORITY_DEFAULT;
            port.last = port.target;
        }
        self.fifo = Some(fifo);
    }

    /// Adds a page to the event array (`EVTCHNOP_expand_array`) and delivers what waited for it.
    ///
    /// # Errors
    /// [`Errno::Eopnotsupp`] before the switch to FIFO events; [`Errno::Enospc`] when the array
    /// is full; [`Errno::Enomem`].
    pub fn expand_array(&mut self, page: PageRef) -> Result<Wake, Errno> {
        let first = self
            .fifo
            .as_mut()
            .ok_or(Errno::Eopnotsupp)?
            .add_page(page)?;
        let mut wake = Wake::NONE;
        for number in first.0..first.0.saturating_add(WORDS_PER_PAGE) {
            let waiting = |port: &mut Port| core::mem::take(&mut port.early);
            if self.ports.get_mut(number as usize).is_some_and(waiting) {
                wake = wake.and(self.deliver(EvtchnPort(number)));
            }
        }
        Ok(wake)
    }

    /// Chooses the queue of a port's coming events (`EVTCHNOP_set_priority`).
    ///
    /// # Errors
    /// [`Errno::Einval`] for a bad priority or port, [`Errno::Enosys`] with two-level events,
    /// [`Errno::Eacces`] for a port that is not open.
    pub fn set_priority(&mut self, port: EvtchnPort, priority: u32) -> Result<(), Errno> {
        self.check_port(port)?;
        if self.fifo.is_none() {
            return Err(Errno::Enosys);
        }
        let port = self.open_port_mut(port).map_err(|_| Errno::Eacces)?;
        match u8::try_from(priority) {
            Ok(priority) if u32::from(priority) <= PRIORITY_MIN => {
                port.target.priority = priority;
                Ok(())
            }
            _ => Err(Errno::Einval),
        }
    }
}

/// Sets the `evtchn_upcall_pending` of a vCPU whose information this is; the vCPU is in the answer
/// if it was clear.
fn mark_upcall(vcpu: VcpuId, info: Option<InfoView>) -> VcpuSet {
    let marked = info.is_some_and(|(page, offset)| {
        let flag = offset.saturating_add(vcpu_info::UPCALL_PENDING);
        page.u8(flag).swap(1, SeqCst) == 0
    });
    if marked {
        VcpuSet::one(vcpu)
    } else {
        VcpuSet::EMPTY
    }
}
