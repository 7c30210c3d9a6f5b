//! The groups that a port wants to hear (`public/io/netif.h`, "Multicast control").

use heapless::Vec;
use system::network::MacAddr;

/// The most groups a port can name; Linux's back end has the same bound.
pub const MAX_GROUPS: usize = 64;

/// A port named more than [`MAX_GROUPS`] groups.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooManyGroups;

/// The groups of one port.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    list: Vec<MacAddr, MAX_GROUPS>,
    /// The list counts; if not, all groups are heard.
    selective: bool,
}

impl Groups {
    /// No groups. They count when `selective`; if not, all are heard.
    pub(crate) const fn new(selective: bool) -> Self {
        let list = Vec::new();
        Self { list, selective }
    }

    pub(crate) fn hear(&self, group: MacAddr) -> bool {
        !self.selective || self.list.contains(&group)
    }

    pub(crate) fn add(&mut self, group: MacAddr) -> Result<(), TooManyGroups> {
        if self.list.contains(&group) {
            return Ok(());
        }
        self.list.push(group).map_err(|_| TooManyGroups)
    }

    pub(crate) fn remove(&mut self, group: MacAddr) {
        let Some(&last) = self.list.last() else {
            return;
        };
        // A group is there once, and in no order.
        if let Some(place) = self.list.iter_mut().find(|known| **known == group) {
            *place = last;
            self.list.pop();
        }
    }
}
