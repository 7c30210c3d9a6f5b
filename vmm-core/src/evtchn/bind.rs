//! Opening and closing ports, and what they are bound to.

use abi::event_channel::fifo::PRIORITY_DEFAULT;
use abi::{DomId, Errno, EvtchnPort, VcpuId, Virq};

use super::port::{DeviceQueue, Port, QueueId, Service, State, VirqScope};
use super::{Closed, EvtchnTable, Peer};

impl EvtchnTable {
    /// Opens a port that `remote` may bind (`EVTCHNOP_alloc_unbound`).
    ///
    /// # Errors
    /// [`Errno::Enospc`] when no port is left, [`Errno::Enomem`].
    pub fn alloc_unbound(&mut self, remote: DomId) -> Result<EvtchnPort, Errno> {
        self.open(State::Unbound { remote }, VcpuId(0))
    }

    /// Opens a port to a back end in the hypervisor.
    ///
    /// # Errors
    /// As [`EvtchnTable::alloc_unbound`].
    pub fn open_service(&mut self, service: Service) -> Result<EvtchnPort, Errno> {
        let port = self.open(State::Service(service), VcpuId(0))?;
        if let Some(slot) = self.services.get_mut(service.index()) {
            *slot = port;
        }
        Ok(port)
    }

    /// Opens a port as the caller's end of a channel (`EVTCHNOP_bind_interdomain`). The other
    /// end must have passed [`EvtchnTable::check_bindable`] and gets
    /// [`EvtchnTable::bind_peer`], all under the locks of both tables.
    ///
    /// # Errors
    /// As [`EvtchnTable::alloc_unbound`].
    pub fn open_interdomain(&mut self, peer: Peer) -> Result<EvtchnPort, Errno> {
        self.open(
            State::Interdomain {
                dom: peer.dom,
                port: peer.port,
            },
            VcpuId(0),
        )
    }

    /// Checks that `port` waits to be bound by `caller`.
    ///
    /// # Errors
    /// [`Errno::Einval`] when it does not.
    pub fn check_bindable(&self, port: EvtchnPort, caller: DomId) -> Result<(), Errno> {
        match self.open_port(port)?.state {
            State::Unbound { remote } if remote == caller => Ok(()),
            State::Free
            | State::Unbound { .. }
            | State::Interdomain { .. }
            | State::Service(_)
            | State::Device(_)
            | State::Virq(_)
            | State::Ipi => Err(Errno::Einval),
        }
    }

    /// Completes a channel: `port`, which passed [`EvtchnTable::check_bindable`], now leads to
    /// `peer`.
    pub fn bind_peer(&mut self, port: EvtchnPort, peer: Peer) {
        if let Ok(port) = self.open_port_mut(port) {
            port.state = State::Interdomain {
                dom: peer.dom,
                port: peer.port,
            };
        }
    }

    /// Completes a channel whose other end is a device's back end in the hypervisor.
    ///
    /// # Errors
    /// [`Errno::Einval`] for a port that does not wait for domain 0.
    pub fn bind_device(&mut self, port: EvtchnPort, queue: DeviceQueue) -> Result<(), Errno> {
        self.check_bindable(port, DomId::CONTROL)?;
        self.open_port_mut(port)?.state = State::Device(queue);
        Ok(())
    }

    /// Ends what [`EvtchnTable::bind_device`] began: the port waits for its peer again.
    pub fn unbind_device(&mut self, port: EvtchnPort, queue: DeviceQueue) {
        if let Ok(port) = self.open_port_mut(port)
            && port.state == State::Device(queue)
        {
            port.state = State::Unbound {
                remote: DomId::CONTROL,
            };
        }
    }

    /// Binds a virtual interrupt to a vCPU (`EVTCHNOP_bind_virq`).
    ///
    /// # Errors
    /// [`Errno::Einval`] for an unknown interrupt or one that is not per vCPU on another vCPU
    /// than 0, [`Errno::Enoent`] for a bad vCPU, [`Errno::Eexist`] when it is bound already, and
    /// those of opening a port.
    pub fn bind_virq(&mut self, virq: Virq, vcpu: VcpuId) -> Result<EvtchnPort, Errno> {
        if virq.0 >= abi::event_channel::virq::COUNT {
            return Err(Errno::Einval);
        }
        let scope = VirqScope::of(virq);
        if scope != VirqScope::Vcpu && vcpu.0 != 0 {
            return Err(Errno::Einval);
        }
        self.check_vcpu(vcpu)?;
        // One that is global may be bound, but comes for the domain that runs the system only, and
        // no guest is that.
        if self.virq_slot(vcpu, virq).is_some_and(|slot| slot.0 != 0) {
            return Err(Errno::Eexist);
        }
        let port = self.open(State::Virq(virq), vcpu)?;
        if let Some(slot) = self.virq_slot(vcpu, virq) {
            *slot = port;
        }
        Ok(port)
    }

    /// Opens a port for interrupts to a vCPU (`EVTCHNOP_bind_ipi`).
    ///
    /// # Errors
    /// [`Errno::Enoent`] for a bad vCPU, and those of opening a port.
    pub fn bind_ipi(&mut self, vcpu: VcpuId) -> Result<EvtchnPort, Errno> {
        self.check_vcpu(vcpu)?;
        self.open(State::Ipi, vcpu)
    }

    /// Sends a port's events to another vCPU from now on (`EVTCHNOP_bind_vcpu`).
    ///
    /// # Errors
    /// [`Errno::Enoent`] for a bad vCPU, [`Errno::Einval`] for a port that cannot move.
    pub fn bind_vcpu(&mut self, port: EvtchnPort, vcpu: VcpuId) -> Result<(), Errno> {
        self.check_vcpu(vcpu)?;
        let port = self.open_port_mut(port)?;
        match port.state {
            State::Unbound { .. }
            | State::Interdomain { .. }
            | State::Service(_)
            | State::Device(_) => {}
            State::Virq(virq) if VirqScope::of(virq) != VirqScope::Vcpu => {}
            State::Free | State::Virq(_) | State::Ipi => return Err(Errno::Einval),
        }
        port.target.vcpu = vcpu;
        Ok(())
    }

    /// Closes a port (`EVTCHNOP_close`).
    ///
    /// # Errors
    /// [`Errno::Einval`] for a port that is not open.
    pub fn close(&mut self, port: EvtchnPort) -> Result<Closed, Errno> {
        let Port { state, target, .. } = *self.open_port(port)?;
        let mut peer = None;
        match state {
            State::Interdomain { dom, port } => peer = Some(Peer { dom, port }),
            State::Service(service) => {
                if let Some(slot) = self.services.get_mut(service.index()) {
                    *slot = EvtchnPort(0);
                }
            }
            State::Virq(virq) => {
                let home = match VirqScope::of(virq) {
                    VirqScope::Vcpu => target.vcpu,
                    VirqScope::Domain | VirqScope::Global => VcpuId(0),
                };
                if let Some(slot) = self.virq_slot(home, virq) {
                    *slot = EvtchnPort(0);
                }
            }
            State::Free | State::Unbound { .. } | State::Device(_) | State::Ipi => {}
        }
        self.free(port);
        Ok(Closed { port, peer })
    }

    /// Learns that the other end of a channel was closed: `port` waits for its peer again.
    /// Nothing happens when the port has found another use meanwhile.
    pub fn peer_closed(&mut self, port: EvtchnPort, peer: Peer) {
        if let Ok(port) = self.open_port_mut(port)
            && port.state
                == (State::Interdomain {
                    dom: peer.dom,
                    port: peer.port,
                })
        {
            port.state = State::Unbound { remote: peer.dom };
        }
    }

    /// Closes the first open port at or above `from`; none is left when this answers `None`.
    pub fn close_next(&mut self, from: EvtchnPort) -> Option<Closed> {
        if self.open == 0 {
            return None;
        }
        let offset = self
            .ports
            .get(from.0 as usize..)?
            .iter()
            .position(Port::is_open)?;
        let number = from.0.checked_add(u32::try_from(offset).ok()?)?;
        self.close(EvtchnPort(number)).ok()
    }

    /// Ends a reset (`EVTCHNOP_reset`): back to two-level events.
    ///
    /// # Errors
    /// [`Errno::Eagain`] while a port is still open.
    pub fn finish_reset(&mut self) -> Result<(), Errno> {
        if self.open != 0 {
            return Err(Errno::Eagain);
        }
        self.fifo = None;
        self.ports.truncate(1);
        self.lowest_free = 1;
        Ok(())
    }

    fn virq_slot(&mut self, vcpu: VcpuId, virq: Virq) -> Option<&mut EvtchnPort> {
        self.vcpus
            .get_mut(vcpu.0 as usize)?
            .virqs
            .get_mut(virq.0 as usize)
    }

    /// Opens the lowest port that is free and, under FIFO, not still on a queue.
    fn open(&mut self, state: State, vcpu: VcpuId) -> Result<EvtchnPort, Errno> {
        let number = (self.lowest_free..=self.highest())
            .find(|&number| self.is_available(EvtchnPort(number)))
            .ok_or(Errno::Enospc)?;
        let index = number as usize;
        let needed = index.saturating_add(1);
        lists::grow_to(&mut self.ports, needed, || Port::FREE).map_err(|_| Errno::Enomem)?;
        let port = self.ports.get_mut(index).ok_or(Errno::Enospc)?;
        port.state = state;
        port.early = false;
        port.target = QueueId {
            vcpu,
            priority: PRIORITY_DEFAULT,
        };
        self.open = self.open.saturating_add(1);
        self.advance_lowest_free();
        Ok(EvtchnPort(number))
    }

    fn is_available(&self, port: EvtchnPort) -> bool {
        let taken = self.ports.get(port.0 as usize).is_some_and(Port::is_open);
        let linked = self.fifo.as_ref().is_some_and(|fifo| fifo.is_linked(port));
        !taken && !linked
    }

    fn advance_lowest_free(&mut self) {
        while self
            .ports
            .get(self.lowest_free as usize)
            .is_some_and(Port::is_open)
        {
            self.lowest_free = self.lowest_free.saturating_add(1);
        }
    }

    /// Gives a port back. A pending event goes with it, so that the port's next user is not
    /// told of one that was never sent.
    fn free(&mut self, number: EvtchnPort) {
        match &self.fifo {
            Some(fifo) => fifo.clear_pending(number),
            None => self.bitmaps().clear_pending(number),
        }
        if let Some(port) = self.ports.get_mut(number.0 as usize) {
            *port = Port {
                last: port.last,
                ..Port::FREE
            };
        }
        self.open = self.open.saturating_sub(1);
        self.lowest_free = self.lowest_free.min(number.0);
    }
}
