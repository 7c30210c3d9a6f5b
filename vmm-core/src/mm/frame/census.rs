//! The census: how many frames are in whose hands.
//!
//! Two ways to the same numbers. [`FrameTable::census`] reads counters that allocation and freeing
//! keep under their lock, so it costs nothing and may be asked for at any time.
//! [`FrameTable::audit`] walks every record and says whether the counters were right: for the end
//! of a run and for tests.

use core::sync::atomic::Ordering;

use super::FrameTable;
use super::entry::{Owner, Record};

/// How many frames are in whose hands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Census {
    /// All frames of the table.
    pub total: u64,
    /// Frames nobody has.
    pub free: u64,
    /// The frames that hold the table itself.
    pub frame_table: u64,
    /// Frames of the pCPUs: [`Owner::Cpu`].
    pub cpus: u64,
    /// The heap's pool: [`Owner::Heap`].
    pub heap: u64,
    /// Everything else of the hypervisor's own: [`Owner::Hypervisor`].
    pub hypervisor: u64,
    /// Page tables and other structures kept for domains: [`Owner::Tables`].
    pub tables: u64,
    /// Pages the hypervisor shares with domains: [`Owner::Shared`].
    pub shared: u64,
    /// The domains' memory: [`Owner::Domain`].
    pub domains: u64,
    /// What domains have written to disks in RAM: [`Owner::Disk`].
    pub disks: u64,
}

impl Census {
    /// True when every frame is accounted for exactly once.
    #[must_use]
    pub const fn adds_up(&self) -> bool {
        let own = self.frame_table + self.cpus + self.heap + self.hypervisor;
        self.total == self.free + own + self.for_domains()
    }

    /// Frames that domains have, or that are there for domains.
    #[must_use]
    pub const fn for_domains(&self) -> u64 {
        self.tables + self.shared + self.domains + self.disks
    }

    fn new(total: u64, free: u64, frame_table: u64, used: [u64; Owner::KINDS]) -> Self {
        let [hypervisor, heap, cpus, tables, shared, domains, disks] = used;
        Self {
            total,
            free,
            frame_table,
            cpus,
            heap,
            hypervisor,
            tables,
            shared,
            domains,
            disks,
        }
    }
}

impl FrameTable {
    /// Tells how many frames are in whose hands.
    #[must_use]
    pub fn census(&self) -> Census {
        let buddy = self.buddy.lock();
        Census::new(self.regions.frames(), buddy.free(), buddy.own, buddy.used)
    }

    /// Counts every frame by its record; true beside the census when that agrees with it.
    /// Allocation and freeing wait meanwhile.
    #[must_use]
    pub fn audit(&self) -> (Census, bool) {
        let buddy = self.buddy.lock();
        let told = Census::new(self.regions.frames(), buddy.free(), buddy.own, buddy.used);
        let (mut free, mut frame_table) = (0, 0);
        let mut used = [0; Owner::KINDS];
        for record in self.records {
            match Record::unpack(record.load(Ordering::Relaxed)) {
                Record::Inner => {}
                Record::Free { order, .. } => free += 1 << order,
                Record::Reserved => frame_table += 1,
                Record::Allocated { owner, .. } => used[owner.kind()] += 1,
            }
        }
        let counted = Census::new(told.total, free, frame_table, used);
        (counted, counted == told && counted.adds_up())
    }
}
