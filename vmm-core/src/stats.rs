//! What the hypervisor counts: exits always; their cost, and VMCS accesses, in builds with the
//! feature `count`, which `cargo xtask bench` makes.
//!
//! Lines that begin with `stats:` or `boot:` are for programs: `key=value` words.

use alloc::boxed::Box;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use abi::DomId;
use vmx::vmcs::Counters;

use crate::builder::Entry;
use crate::domain::{Domain, list};
use crate::machine;
use crate::mm::directmap::to_usize;
use crate::mm::frame::{Census, frames};
use crate::mm::p2m::PageCounts;
use crate::time::Tsc;
use crate::{network, percpu};

/// Basic exit reasons that are counted one by one; higher ones share the last place.
const REASONS: usize = 80;
/// Buckets of the cost histogram: eight for each power of two.
const BUCKETS: usize = 8 * 32;

/// What one vCPU's exits were.
#[derive(Debug)]
pub struct ExitStats {
    counts: [u64; REASONS],
    costs: Option<Box<Costs>>,
}

#[derive(Debug)]
struct Costs {
    reasons: Box<[Cost]>,
    /// The reason being handled, the TSC when its exit came, and when others were last looked for.
    open: Option<(usize, Tsc, Tsc)>,
    seen: Counters,
}

#[derive(Clone, Debug)]
struct Cost {
    histogram: [u32; BUCKETS],
    /// The longest time without a look whether somebody wants the pCPU.
    worst: u64,
    reads: u64,
    writes: u64,
    unshadowed: u64,
}

impl Default for ExitStats {
    fn default() -> Self {
        Self::new()
    }
}

impl ExitStats {
    /// Nothing counted yet.
    #[must_use]
    pub fn new() -> Self {
        let costs = cfg!(feature = "count").then(|| {
            let none = Cost {
                histogram: [0; BUCKETS],
                worst: 0,
                reads: 0,
                writes: 0,
                unshadowed: 0,
            };
            let reasons = alloc::vec![none; REASONS].into_boxed_slice();
            Box::new(Costs {
                reasons,
                open: None,
                seen: Counters::default(),
            })
        });
        Self {
            counts: [0; REASONS],
            costs,
        }
    }

    /// An exit came.
    #[inline(always)]
    pub fn exited(&mut self, reason: u16) {
        let index = usize::from(reason).min(REASONS - 1);
        if let Some(count) = self.counts.get_mut(index) {
            *count = count.wrapping_add(1);
        }
        if cfg!(feature = "count")
            && let Some(costs) = &mut self.costs
        {
            let now = Tsc::now();
            costs.open = Some((index, now, now));
        }
    }

    /// In the midst of an exit there was a look whether somebody wants the pCPU.
    #[inline]
    pub fn looked(&mut self) {
        if cfg!(feature = "count")
            && let Some(costs) = &mut self.costs
        {
            costs.look(Tsc::now());
        }
    }

    /// The vCPU is about to enter its guest, or leaves its pCPU.
    #[inline]
    pub fn handled(&mut self, counters: impl FnOnce() -> Counters) {
        if cfg!(feature = "count")
            && let Some(costs) = &mut self.costs
        {
            costs.close(Tsc::now(), counters());
        }
    }
}

impl Costs {
    fn look(&mut self, now: Tsc) {
        if let Some((index, _, looked)) = &mut self.open
            && let Some(cost) = self.reasons.get_mut(*index)
        {
            cost.worst = cost.worst.max(now.since(*looked));
            *looked = now;
        }
    }

    fn close(&mut self, now: Tsc, counters: Counters) {
        let made = counters.since(self.seen);
        self.seen = counters;
        self.look(now);
        let Some((index, since, _)) = self.open.take() else {
            return;
        };
        let Some(cost) = self.reasons.get_mut(index) else {
            return;
        };
        let ticks = now.since(since);
        cost.reads += made.reads;
        cost.writes += made.writes;
        cost.unshadowed += made.unshadowed_reads + made.unshadowed_writes;
        if let Some(bucket) = cost.histogram.get_mut(bucket_of(ticks)) {
            *bucket = bucket.wrapping_add(1);
        }
    }
}

/// The bucket of a cost: linear in eight steps within each power of two.
fn bucket_of(ticks: u64) -> usize {
    if ticks < 8 {
        return to_usize(ticks);
    }
    let power = ticks.ilog2() as usize;
    let step = to_usize(ticks >> (power - 3)) & 7;
    ((power - 2) * 8 + step).min(BUCKETS - 1)
}

/// The least cost that falls into a bucket.
const fn floor_of(bucket: usize) -> u64 {
    if bucket < 8 {
        return bucket as u64;
    }
    (8 + (bucket as u64 & 7)) << (bucket / 8 - 1)
}

impl Cost {
    fn median(&self) -> u64 {
        let total: u64 = self.histogram.iter().map(|&count| u64::from(count)).sum();
        let mut below = 0;
        for (bucket, &count) in self.histogram.iter().enumerate() {
            below += u64::from(count);
            if below * 2 >= total {
                return floor_of(bucket);
            }
        }
        0
    }
}

/// Reports an ended domain's exits.
pub fn report_domain(domain: &Domain) {
    for vcpu in &domain.vcpus {
        let context = vcpu.context.lock();
        let stats = &context.cpu.stats;
        for (reason, &count) in stats
            .counts
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
        {
            let name = vmx::exit::reason::name(u16::try_from(reason).unwrap_or(u16::MAX));
            let cost = stats
                .costs
                .as_ref()
                .and_then(|costs| costs.reasons.get(reason));
            match cost {
                Some(cost) => log::info!(
                    "stats: dom={} vcpu={} exit={name} count={count} root_median={} root_max={} \
                     vmread={} vmwrite={} unshadowed={}",
                    domain.name,
                    vcpu.id,
                    cost.median(),
                    cost.worst,
                    cost.reads,
                    cost.writes,
                    cost.unshadowed,
                ),
                None => log::debug!(
                    "stats: dom={} vcpu={} exit={name} count={count}",
                    domain.name,
                    vcpu.id
                ),
            }
        }
    }
}

/// The hypervisor's own frames before there was any domain.
static OWN_BEFORE: AtomicU64 = AtomicU64::new(0);

/// Takes note of what the hypervisor has before it builds domains: so much it is to have again
/// when the last one is gone.
pub fn note_start(census: &Census) {
    OWN_BEFORE.store(census.hypervisor, Ordering::Relaxed);
}

/// Reports what an ended domain left behind: its frames that others still hold, or a leak.
pub fn report_end(id: DomId, name: &str) {
    let left = frames().owned_by(id);
    log::info!(
        "stats: left dom={name} memory={} tables={} shared={} disks={} free={}",
        left.memory,
        left.tables,
        left.shared,
        left.disks,
        frames().free_frames()
    );
}

/// Reports the machine's memory at the end of the run: whether all frames are accounted for, and
/// what is in whose hands.
pub fn report_host() {
    network::report();
    let (census, adds_up) = frames().audit();
    let granted: u64 = list::all()
        .filter_map(|domain| Some(domain.p2m.try_read()?.foreign_pages()))
        .sum();
    log::info!(
        "stats: frames total={} free={} frame_table={} cpus={} heap={} hypervisor={} \
         hypervisor_before={} tables={} shared={} domains={} disks={} granted={granted} adds_up={adds_up}",
        census.total,
        census.free,
        census.frame_table,
        census.cpus,
        census.heap,
        census.hypervisor,
        OWN_BEFORE.load(Ordering::Relaxed),
        census.tables,
        census.shared,
        census.domains,
        census.disks,
    );
}

/// How long the parts of building a domain took, in TSC ticks.
#[derive(Debug)]
pub struct BuildStats {
    begun: Tsc,
    last: Tsc,
    scrubbed_before: u64,
    checked: u64,
    populated: u64,
    pages: PageCounts,
    unpacked: u64,
    copied: u64,
}

impl BuildStats {
    /// Begins.
    #[must_use]
    pub fn start() -> Self {
        let now = Tsc::now();
        Self {
            begun: now,
            last: now,
            scrubbed_before: frames().scrubbed(),
            checked: 0,
            populated: 0,
            pages: PageCounts::default(),
            unpacked: 0,
            copied: 0,
        }
    }

    fn lap(&mut self) -> u64 {
        let now = Tsc::now();
        let ticks = now.since(self.last);
        self.last = now;
        ticks
    }

    /// The images' checksums have been checked.
    pub fn checked(&mut self) {
        self.checked = self.lap();
    }

    /// The memory is there, in these pages.
    pub fn populated(&mut self, pages: PageCounts) {
        self.pages = pages;
        self.populated = self.lap();
    }

    /// The kernel has been unpacked.
    pub fn unpacked(&mut self) {
        self.unpacked = self.lap();
    }

    /// Kernel and initrd are in place.
    pub fn copied(&mut self) {
        self.copied = self.lap();
    }

    /// Reports.
    pub fn report(&mut self, name: &str, entry: &Entry) {
        let rest = self.lap();
        let boot = machine::get().boot.entry_tsc;
        log::info!(
            "boot: dom={name} since_entry={} build={} checksum={} populate={} unpack={} copy={} \
             rest={rest} copied_bytes={} scrubbed_frames={} pages_1g={} pages_2m={} pages_4k={}",
            self.last.since(Tsc(boot)),
            self.last.since(self.begun),
            self.checked,
            self.populated,
            self.unpacked,
            self.copied,
            entry.copied,
            frames().scrubbed() - self.scrubbed_before,
            self.pages.giant,
            self.pages.large,
            self.pages.small,
        );
    }
}

/// Adds to a panic's epitaph what this pCPU was running.
pub fn epitaph(out: &mut dyn fmt::Write) {
    let cpu = percpu::current();
    let Some(loaded) = cpu.loaded.try_lock() else {
        return;
    };
    if let Some(vcpu) = loaded.as_ref() {
        // An epitaph that cannot be written is lost either way.
        let _ = writeln!(
            out,
            "cpu{}: last ran {} vcpu{}, now {:?}",
            cpu.id,
            vcpu.domain().name,
            vcpu.id,
            vcpu.state()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::{BUCKETS, bucket_of, floor_of};

    #[test]
    fn a_bucket_holds_what_is_not_below_its_floor() {
        for ticks in (0..2000).chain([5_000, 123_456, 1 << 30]) {
            let bucket = bucket_of(ticks);
            assert!(floor_of(bucket) <= ticks, "{ticks}");
            assert!(
                bucket + 1 == BUCKETS || floor_of(bucket + 1) > ticks,
                "{ticks}"
            );
        }
    }
}
