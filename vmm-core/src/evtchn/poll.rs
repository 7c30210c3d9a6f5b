//! Waiting for ports without handling them (`SCHEDOP_poll`, `public/sched.h`).

use abi::{Errno, EvtchnPort, VcpuId};

use super::{EvtchnTable, VcpuSet};

/// What a sleeping vCPU waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Polled {
    /// It does not poll.
    Nothing,
    /// One port, as a lock's waiter does.
    One(EvtchnPort),
    /// Several: it wakes for any port of the domain and looks again.
    Many,
}

/// The start of a poll.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Poll {
    /// There is something to do already.
    Ready,
    /// The vCPU is to sleep until it is in [`super::Wake::pollers`], gets an upcall or times
    /// out, and then to call [`EvtchnTable::stop_poll`].
    Sleep,
}

impl EvtchnTable {
    /// Starts a poll. The ports must have been copied from the guest already.
    ///
    /// # Errors
    /// [`Errno::Einval`] when a port is not open that comes before the first one that is pending.
    pub fn start_poll(&mut self, vcpu: VcpuId, ports: &[EvtchnPort]) -> Result<Poll, Errno> {
        if self.upcall_pending(vcpu) {
            return Ok(Poll::Ready);
        }
        for &port in ports {
            self.open_port(port)?;
            if self.is_pending(port) {
                return Ok(Poll::Ready);
            }
        }
        let Some(events) = self.vcpus.get_mut(vcpu.0 as usize) else {
            return Err(Errno::Enoent);
        };
        events.polled = match ports {
            [] => Polled::Nothing,
            [port] => Polled::One(*port),
            _ => Polled::Many,
        };
        self.pollers.insert(vcpu);
        Ok(Poll::Sleep)
    }

    /// Ends a vCPU's poll; harmless when there is none.
    pub fn stop_poll(&mut self, vcpu: VcpuId) {
        self.pollers.remove(vcpu);
        if let Some(events) = self.vcpus.get_mut(vcpu.0 as usize) {
            events.polled = Polled::Nothing;
        }
    }

    /// Ends the polls that wait for this port and says whose they were.
    pub(super) fn end_polls_of(&mut self, port: EvtchnPort) -> VcpuSet {
        let mut woken = VcpuSet::EMPTY;
        for vcpu in self.pollers {
            let polled = self.vcpus.get(vcpu.0 as usize).map(|events| events.polled);
            if polled == Some(Polled::Many) || polled == Some(Polled::One(port)) {
                woken.insert(vcpu);
                self.stop_poll(vcpu);
            }
        }
        woken
    }
}
