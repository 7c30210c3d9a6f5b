//! How long a vCPU has been in which state, for itself and for the guest
//! (`struct vcpu_runstate_info`, `public/vcpu.h`).
//!
//! The guest's copy lies in pages that were found and pinned when the guest named the area, so
//! that updating it needs no page walk at a time when other page tables may be in use.

use core::sync::atomic::{Ordering, fence};

use crate::mm::span::Span;

/// The states a guest is told of (`RUNSTATE_*`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// On a pCPU.
    Running = 0,
    /// Wants a pCPU and has none.
    Runnable = 1,
    /// Waits for an event.
    Blocked = 2,
    /// Stopped.
    Offline = 3,
}

/// The bit of `state_entry_time` that says the area is being written (`XEN_RUNSTATE_UPDATE`).
const UPDATE: u64 = 1 << 63;

/// Where the guest wants its copy.
#[derive(Clone, Debug)]
pub struct Area {
    place: Span,
    wide: bool,
}

impl Area {
    /// An area; `wide` for the 64-bit layout.
    #[must_use]
    pub const fn new(place: Span, wide: bool) -> Self {
        Self { place, wide }
    }

    fn write(&self, at: usize, bytes: &[u8]) {
        self.place.write(at, bytes);
    }

    /// Offsets of `state_entry_time` and `time[]`.
    const fn offsets(&self) -> (usize, usize) {
        if self.wide { (8, 16) } else { (4, 12) }
    }
}

/// The account of one vCPU.
#[derive(Debug)]
pub struct Runstate {
    kind: Kind,
    entered_ns: u64,
    spent_ns: [u64; 4],
    /// The guest's copy.
    pub area: Option<Area>,
}

/// A copy of the account, as `VCPUOP_get_runstate_info` returns it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// The state.
    pub kind: Kind,
    /// When the vCPU entered it, in the domain's system time.
    pub entered_ns: u64,
    /// Nanoseconds spent in each state, the present one included.
    pub spent_ns: [u64; 4],
}

impl Default for Runstate {
    fn default() -> Self {
        Self::new()
    }
}

impl Runstate {
    /// A vCPU that has been offline since the domain's time began.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            kind: Kind::Offline,
            entered_ns: 0,
            spent_ns: [0; 4],
            area: None,
        }
    }

    /// The account at `now_ns`.
    #[must_use]
    pub fn snapshot(&self, now_ns: u64) -> Snapshot {
        let mut spent_ns = self.spent_ns;
        if let Some(spent) = spent_ns.get_mut(self.kind as usize) {
            *spent = spent.saturating_add(now_ns.saturating_sub(self.entered_ns));
        }
        Snapshot {
            kind: self.kind,
            entered_ns: self.entered_ns,
            spent_ns,
        }
    }

    /// Enters a state, and updates the guest's copy. With `flag_updates` the guest has asked
    /// to see when a write is under way (`VMASST_TYPE_runstate_update_flag`).
    pub fn enter(&mut self, kind: Kind, now_ns: u64, flag_updates: bool) {
        if kind != self.kind {
            self.spent_ns = self.snapshot(now_ns).spent_ns;
            self.kind = kind;
            self.entered_ns = now_ns;
        }
        if self.area.is_some() {
            self.publish(flag_updates);
        }
    }

    /// Writes the guest's copy.
    pub fn publish(&self, flag_updates: bool) {
        let Some(area) = &self.area else { return };
        let (entry_at, time_at) = area.offsets();
        if flag_updates {
            area.write(entry_at, &(self.entered_ns | UPDATE).to_le_bytes());
            fence(Ordering::Release);
        }
        area.write(0, &u32::from(self.kind as u8).to_le_bytes());
        for (index, spent) in self.spent_ns.iter().enumerate() {
            area.write(
                time_at.saturating_add(index.saturating_mul(8)),
                &spent.to_le_bytes(),
            );
        }
        fence(Ordering::Release);
        area.write(entry_at, &self.entered_ns.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, Runstate};

    #[test]
    fn time_is_charged_to_the_state_that_was_left() {
        let mut runstate = Runstate::new();
        runstate.enter(Kind::Running, 100, false);
        runstate.enter(Kind::Blocked, 250, false);
        let snapshot = runstate.snapshot(1000);
        assert_eq!(snapshot.spent_ns, [150, 0, 750, 100]);
        assert_eq!(snapshot.kind, Kind::Blocked);
    }
}
