//! Limits of what a guest can make the hypervisor set aside for it.

use core::fmt;
use serde::{Deserialize, Serialize};

use crate::config::MAX_MEMORY_PAGES;

/// The most event channel ports a domain can have: what the FIFO interface can name.
pub const MAX_EVENT_PORTS: u32 = (1 << 17) - 1;
/// The most frames that can be set aside for one domain's page tables.
pub const MAX_TABLE_FRAMES: u32 = 1 << 24;
/// The newest layout of grant entries.
pub const MAX_GRANT_VERSION: u32 = 2;
/// The most frames a grant table can be allowed.
pub const MAX_GRANT_FRAMES: u32 = 1024;
/// The most frames' worth of grant mappings a domain can be allowed.
pub const MAX_MAPTRACK_FRAMES: u32 = 4096;

/// How much the hypervisor sets aside for a domain at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Quotas {
    /// RAM that the domain may have by ballooning, in pages of 4 KiB.
    pub max_memory_pages: u64,
    /// The highest event channel port it may open.
    pub event_ports: u32,
    /// Frames for its page tables and vCPUs.
    pub table_frames: u32,
    /// How much it may make of grants.
    pub grants: GrantLimits,
}

/// How much a domain may make of grants. The defaults are Xen's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GrantLimits {
    /// The newest layout of entries it may choose, 1 or 2.
    pub max_version: u32,
    /// Frames of its grant table, 512 entries each in version 1.
    pub max_frames: u32,
    /// Frames' worth of mappings of other domains' pages, 256 each.
    pub max_maptrack_frames: u32,
}

impl Default for GrantLimits {
    fn default() -> Self {
        Self {
            max_version: MAX_GRANT_VERSION,
            max_frames: 64,
            max_maptrack_frames: 1024,
        }
    }
}

impl GrantLimits {
    /// True when every limit is one that can be.
    #[must_use]
    pub fn are_valid(&self) -> bool {
        (1..=MAX_GRANT_VERSION).contains(&self.max_version)
            && (1..=MAX_GRANT_FRAMES).contains(&self.max_frames)
            && self.max_maptrack_frames <= MAX_MAPTRACK_FRAMES
    }
}

/// Why a quota is no good; shown behind the domain it is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QuotaError {
    /// The most memory is less than that at the start, or more than [`MAX_MEMORY_PAGES`].
    MaxMemory {
        /// What is asked for.
        pages: u64,
        /// What the domain has at the start.
        memory: u64,
    },
    /// No event channel port, or more than [`MAX_EVENT_PORTS`].
    EventPorts(u32),
    /// Too few page-table frames for the domain to be built, or more than [`MAX_TABLE_FRAMES`].
    TableFrames {
        /// What is asked for.
        frames: u32,
        /// What the domain needs.
        least: u32,
    },
    /// A limit of the grant tables is zero or too high.
    Grants,
}

impl Quotas {
    /// What a domain gets that asks for nothing else: no more memory, as many ports as Xen's
    /// toolstack gives, and page-table frames by its formula (1 MiB for each vCPU, 8 KiB for each
    /// MiB of memory).
    #[must_use]
    pub fn usual(vcpus: u32, max_memory_pages: u64) -> Self {
        let frames = u64::from(vcpus)
            .saturating_mul(256)
            .saturating_add((max_memory_pages >> 8).saturating_mul(2));
        Self {
            max_memory_pages,
            event_ports: 1023,
            table_frames: u32::try_from(frames)
                .unwrap_or(u32::MAX)
                .min(MAX_TABLE_FRAMES),
            grants: GrantLimits::default(),
        }
    }

    /// The fewest page-table frames with which a domain can be built on any machine.
    #[must_use]
    pub fn least_table_frames(vcpus: u32, memory_pages: u64) -> u32 {
        let frames = (memory_pages >> 9)
            .saturating_add(u64::from(vcpus).saturating_mul(4))
            .saturating_add(16);
        u32::try_from(frames).unwrap_or(u32::MAX)
    }

    /// Checks the quotas of a domain with so many vCPUs and pages at the start.
    ///
    /// # Errors
    /// The first mistake found.
    pub fn check(&self, vcpus: u32, memory_pages: u64) -> Result<(), QuotaError> {
        if !(memory_pages..=MAX_MEMORY_PAGES).contains(&self.max_memory_pages) {
            return Err(QuotaError::MaxMemory {
                pages: self.max_memory_pages,
                memory: memory_pages,
            });
        }
        if !(1..=MAX_EVENT_PORTS).contains(&self.event_ports) {
            return Err(QuotaError::EventPorts(self.event_ports));
        }
        let least = Self::least_table_frames(vcpus, memory_pages);
        if !(least..=MAX_TABLE_FRAMES).contains(&self.table_frames) {
            return Err(QuotaError::TableFrames {
                frames: self.table_frames,
                least,
            });
        }
        if !self.grants.are_valid() {
            return Err(QuotaError::Grants);
        }
        Ok(())
    }
}

impl fmt::Display for QuotaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MaxMemory { pages, memory } => write!(
                f,
                "may have {pages} pages of memory at most: give it {memory}, which it has at the \
                 start, to {MAX_MEMORY_PAGES} (1 TiB)"
            ),
            Self::EventPorts(ports) => {
                write!(f, "has {ports} event ports: give it 1 to {MAX_EVENT_PORTS}")
            }
            Self::TableFrames { frames, least } => write!(
                f,
                "has {frames} page-table frames: give it {least} to {MAX_TABLE_FRAMES}"
            ),
            Self::Grants => write!(
                f,
                "has grant limits that are no good: version 1 or 2, 1 to {MAX_GRANT_FRAMES} grant \
                 frames, 0 to {MAX_MAPTRACK_FRAMES} maptrack frames"
            ),
        }
    }
}
