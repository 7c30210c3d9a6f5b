//! The system configuration: host options and the domains to build.
//!
//! Plain data that travels in the archive. [`Config::check`] holds what the format alone does not:
//! at least one domain, sizes within limits, no file that is not there. The packer calls it to
//! report mistakes early; the archive reader calls it because it trusts no packer.

use crate::disk::{self, DiskConfig};
use crate::network::{self, NetworkConfig, VifConfig};
use crate::share::Share;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

use crate::quotas::{QuotaError, Quotas};

/// The most vCPUs one domain can have: xAPIC identifiers are twice the vCPU's number and end at 254.
pub const MAX_VCPUS: u32 = 128;
/// Physical CPUs are numbered below this.
pub const MAX_PCPUS: u32 = 256;
/// The most domains in one system.
pub const MAX_DOMAINS: usize = 1024;
/// The longest domain name, in bytes.
pub const MAX_NAME: usize = 32;
/// The longest kernel command line, in bytes: what a Linux x86 kernel takes.
pub const MAX_CMDLINE: usize = 2047;
/// The least memory a domain can have: 1 MiB of pages below the legacy hole of a PC.
pub const MIN_MEMORY_PAGES: u64 = 256;
/// The most memory a domain can have: 1 TiB.
pub const MAX_MEMORY_PAGES: u64 = 1 << 28;

/// The whole system.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Config {
    /// Options of the hypervisor itself.
    pub host: HostConfig,
    /// The networks of the host.
    pub networks: Vec<NetworkConfig>,
    /// The domains, in the order in which they are built; the first one gets the console.
    pub domains: Vec<DomainConfig>,
}

/// Options of the hypervisor itself.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct HostConfig {
    /// The least severe log messages that are shown.
    pub log_level: LogLevel,
    /// What follows a panic of the hypervisor.
    pub on_panic: End,
    /// What follows when no domain is left.
    pub on_idle: End,
    /// Names of optional VT-x features that are to be left unused, as if the CPU had none.
    pub vmx_mask: Vec<String>,
}

/// Log levels as in the `log` crate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What went wrong.
    Error,
    /// What may go wrong, too.
    Warn,
    /// The course of events, too.
    #[default]
    Info,
    /// Details for a developer, too.
    Debug,
    /// Everything.
    Trace,
}

/// How a run of the hypervisor ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum End {
    /// Stop all CPUs and keep the machine on.
    Halt,
    /// Start the machine again.
    Reboot,
    /// Switch the machine off.
    #[default]
    Poweroff,
}

/// What follows when a guest asks for a reboot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum OnReboot {
    /// Build the domain anew from the same files.
    #[default]
    Restart,
    /// Take the domain down as if it had powered off.
    Stop,
}

/// When a domain's memory is zeroed and mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum MemoryBacking {
    /// At the first touch of each page of 2 MiB.
    #[default]
    OnTouch,
    /// Before the domain starts, in the largest pages there are.
    AtStart,
}

/// The number of a file in the archive's table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct FileId(pub u32);

/// One domain.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DomainConfig {
    /// The name, for people; unique in a system.
    pub name: String,
    /// The kernel image.
    pub kernel: FileId,
    /// The initial RAM disk, given to the kernel as its only module.
    pub initrd: Option<FileId>,
    /// The kernel's command line.
    pub cmdline: String,
    /// RAM at the start, in pages of 4 KiB.
    pub memory_pages: u64,
    /// When that is zeroed and mapped.
    pub backing: MemoryBacking,
    /// The number of virtual CPUs.
    pub vcpus: u32,
    /// The physical CPUs that the vCPUs may run on; all of them when absent.
    pub affinity: Option<Vec<u32>>,
    /// How much the domain may make the hypervisor set aside for it.
    pub quotas: Quotas,
    /// What each vCPU may claim of the physical CPUs.
    pub share: Share,
    /// What follows when the guest asks for a reboot.
    pub on_reboot: OnReboot,
    /// Its disks.
    pub disks: Vec<DiskConfig>,
    /// Its network interfaces.
    pub vifs: Vec<VifConfig>,
}

/// Why a configuration is no good.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ConfigError {
    /// There is nothing to run.
    NoDomains,
    /// More domains than [`MAX_DOMAINS`].
    TooManyDomains(usize),
    /// A name is empty, too long, or has other characters than letters, digits, `-`, `_` and `.`.
    BadName(String),
    /// Two domains have the same name.
    DuplicateName(String),
    /// Zero vCPUs or more than [`MAX_VCPUS`].
    Vcpus {
        /// The domain.
        domain: String,
        /// What it asks for.
        vcpus: u32,
    },
    /// Less memory than [`MIN_MEMORY_PAGES`] or more than [`MAX_MEMORY_PAGES`].
    Memory {
        /// The domain.
        domain: String,
        /// What it asks for.
        pages: u64,
    },
    /// A limit of what is set aside for a domain.
    Quota {
        /// The domain.
        domain: String,
        /// The mistake.
        error: QuotaError,
    },
    /// The list of physical CPUs is empty or names one at or beyond [`MAX_PCPUS`].
    Affinity {
        /// The domain.
        domain: String,
        /// The offending number; `None` when the list is empty.
        pcpu: Option<u32>,
    },
    /// Its claim on CPU time makes no sense.
    Share {
        /// The domain.
        domain: String,
        /// The key in its description.
        key: &'static str,
        /// Cause and remedy.
        text: String,
    },
    /// A disk of it is no good.
    Disk {
        /// The domain.
        domain: String,
        /// Cause and remedy.
        text: String,
    },
    /// Two disks are the same sectors of the machine.
    Overlap {
        /// Cause and remedy.
        text: String,
    },
    /// The networks or an interface are no good.
    Network {
        /// Cause and remedy.
        text: String,
    },
    /// The command line is longer than [`MAX_CMDLINE`] or contains a NUL.
    Cmdline {
        /// The domain.
        domain: String,
        /// Its length in bytes.
        length: usize,
    },
    /// A kernel or initrd is not in the archive's file table.
    NoSuchFile {
        /// The domain.
        domain: String,
        /// The number of the absent file.
        file: FileId,
    },
}

impl Config {
    /// Checks everything that can be checked without the machine, given the number of files that
    /// the archive carries.
    ///
    /// # Errors
    /// The first mistake found.
    pub fn check(&self, files: usize) -> Result<(), ConfigError> {
        if self.domains.is_empty() {
            return Err(ConfigError::NoDomains);
        }
        if self.domains.len() > MAX_DOMAINS {
            return Err(ConfigError::TooManyDomains(self.domains.len()));
        }
        for (index, domain) in self.domains.iter().enumerate() {
            domain.check(files)?;
            if self
                .domains
                .iter()
                .take(index)
                .any(|other| other.name == domain.name)
            {
                return Err(ConfigError::DuplicateName(domain.name.clone()));
            }
        }
        let disks = self.domains.iter().flat_map(|domain| {
            let name = domain.name.as_str();
            domain.disks.iter().map(move |disk| (name, disk))
        });
        if let Some(text) = disk::conflict(disks) {
            return Err(ConfigError::Overlap { text });
        }
        if let Some(text) = network::mistake(&self.networks, &self.domains) {
            return Err(ConfigError::Network { text });
        }
        Ok(())
    }
}

impl DomainConfig {
    fn check(&self, files: usize) -> Result<(), ConfigError> {
        let domain = || self.name.clone();
        if !is_valid_name(&self.name) {
            return Err(ConfigError::BadName(domain()));
        }
        if !(1..=MAX_VCPUS).contains(&self.vcpus) {
            return Err(ConfigError::Vcpus {
                domain: domain(),
                vcpus: self.vcpus,
            });
        }
        if !(MIN_MEMORY_PAGES..=MAX_MEMORY_PAGES).contains(&self.memory_pages) {
            return Err(ConfigError::Memory {
                domain: domain(),
                pages: self.memory_pages,
            });
        }
        if let Err(error) = self.quotas.check(self.vcpus, self.memory_pages) {
            return Err(ConfigError::Quota {
                domain: domain(),
                error,
            });
        }
        if let Some(pcpus) = &self.affinity {
            let beyond = pcpus.iter().copied().find(|&pcpu| pcpu >= MAX_PCPUS);
            if pcpus.is_empty() || beyond.is_some() {
                return Err(ConfigError::Affinity {
                    domain: domain(),
                    pcpu: beyond,
                });
            }
        }
        if let Some((key, text)) = self.share.mistake() {
            return Err(ConfigError::Share {
                domain: domain(),
                key,
                text,
            });
        }
        if let Some(text) = disk::mistake(&self.disks, files) {
            return Err(ConfigError::Disk {
                domain: domain(),
                text,
            });
        }
        if self.cmdline.len() > MAX_CMDLINE || self.cmdline.contains('\0') {
            return Err(ConfigError::Cmdline {
                domain: domain(),
                length: self.cmdline.len(),
            });
        }
        let absent = |id: &FileId| usize::try_from(id.0).is_ok_and(|id| id >= files);
        match core::iter::once(self.kernel)
            .chain(self.initrd)
            .find(absent)
        {
            Some(file) => Err(ConfigError::NoSuchFile {
                domain: domain(),
                file,
            }),
            None => Ok(()),
        }
    }
}

/// True for a name that can be shown anywhere without quoting.
#[must_use]
pub fn is_valid_name(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(good)
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDomains => write!(f, "the system has no domain: describe at least one"),
            Self::TooManyDomains(count) => {
                write!(
                    f,
                    "the system has {count} domains: at most {MAX_DOMAINS} fit"
                )
            }
            Self::BadName(name) => write!(
                f,
                "domain name {name:?} is no good: use 1 to {MAX_NAME} letters, digits, '-', '_', '.'"
            ),
            Self::DuplicateName(name) => {
                write!(f, "two domains are called `{name}`: give each its own name")
            }
            Self::Vcpus { domain, vcpus } => {
                write!(
                    f,
                    "domain `{domain}` has {vcpus} vCPUs: give it 1 to {MAX_VCPUS}"
                )
            }
            Self::Memory { domain, pages } => write!(
                f,
                "domain `{domain}` has {pages} pages of memory: \
                 give it {MIN_MEMORY_PAGES} to {MAX_MEMORY_PAGES} (1 MiB to 1 TiB)"
            ),
            Self::Quota { domain, error } => write!(f, "domain `{domain}` {error}"),
            Self::Affinity { domain, pcpu: None } => write!(
                f,
                "domain `{domain}` may run on no CPU: name one in `affinity`, or leave it out"
            ),
            Self::Affinity {
                domain,
                pcpu: Some(pcpu),
            } => write!(
                f,
                "domain `{domain}` has CPU {pcpu} in its affinity: the numbers go from 0 to {}",
                MAX_PCPUS - 1
            ),
            Self::Share { domain, key, text } => {
                write!(f, "`{key}` of domain `{domain}`: {text}")
            }
            Self::Disk { domain, text } => write!(f, "domain `{domain}`: {text}"),
            Self::Overlap { text } | Self::Network { text } => f.write_str(text),
            Self::Cmdline { domain, length } => write!(
                f,
                "the command line of domain `{domain}` has {length} bytes: \
                 at most {MAX_CMDLINE} fit, without a NUL"
            ),
            Self::NoSuchFile { domain, file } => write!(
                f,
                "domain `{domain}` wants file {} that the archive does not have: pack it again",
                file.0
            ),
        }
    }
}

impl core::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{DiskName, DiskSource};
    use alloc::string::ToString;
    use alloc::vec;

    const EMPTY: DiskSource = DiskSource::Ram {
        image: None,
        sectors: 0,
    };

    fn domain(name: &str) -> DomainConfig {
        DomainConfig {
            name: name.into(),
            kernel: FileId(0),
            initrd: Some(FileId(1)),
            cmdline: "console=hvc0".into(),
            memory_pages: 65536,
            backing: MemoryBacking::OnTouch,
            vcpus: 2,
            affinity: Some(vec![0, 1]),
            quotas: Quotas::usual(2, 65536),
            share: Share::default(),
            on_reboot: OnReboot::Restart,
            disks: vec![DiskConfig {
                name: DiskName(0),
                source: DiskSource::Ram {
                    image: Some(FileId(1)),
                    sectors: 64,
                },
                read_only: true,
            }],
            vifs: Vec::new(),
        }
    }

    fn with(change: impl FnOnce(&mut DomainConfig)) -> Result<(), ConfigError> {
        let mut changed = domain("web");
        change(&mut changed);
        Config {
            host: HostConfig::default(),
            networks: Vec::new(),
            domains: vec![domain("db"), changed],
        }
        .check(2)
    }

    fn text(change: impl FnOnce(&mut DomainConfig)) -> String {
        with(change).unwrap_err().to_string()
    }

    #[test]
    fn a_good_configuration_passes() {
        assert_eq!(with(|_| ()), Ok(()));
        assert_eq!(with(|d| d.affinity = None), Ok(()));
        assert_eq!(with(|d| d.vcpus = MAX_VCPUS), Ok(()));
    }

    #[test]
    fn networks_are_checked() {
        assert_eq!(
            text(|d| d.vifs.push(VifConfig::new(0, "web", 0))),
            "interface 0 of domain `web` is on network 0, and there are 0: name one that is"
        );
    }

    #[test]
    fn each_mistake_is_named() {
        assert_eq!(Config::default().check(0), Err(ConfigError::NoDomains));
        let many = vec![domain("a"); MAX_DOMAINS + 1];
        let many = Config {
            host: HostConfig::default(),
            networks: Vec::new(),
            domains: many,
        };
        assert_eq!(
            many.check(2),
            Err(ConfigError::TooManyDomains(MAX_DOMAINS + 1))
        );
        assert_eq!(
            text(|d| d.name = "db".into()),
            "two domains are called `db`: give each its own name"
        );
        assert_eq!(
            text(|d| d.name = "a b".into()),
            "domain name \"a b\" is no good: use 1 to 32 letters, digits, '-', '_', '.'"
        );
        assert_eq!(
            text(|d| d.vcpus = 0),
            "domain `web` has 0 vCPUs: give it 1 to 128"
        );
        assert_eq!(
            text(|d| d.memory_pages = 3),
            "domain `web` has 3 pages of memory: give it 256 to 268435456 (1 MiB to 1 TiB)"
        );
        assert_eq!(
            text(|d| d.quotas.max_memory_pages = 65535),
            "domain `web` may have 65535 pages of memory at most: give it 65536, which it has at \
             the start, to 268435456 (1 TiB)"
        );
        assert_eq!(
            text(|d| d.quotas.grants.max_frames = 0),
            "domain `web` has grant limits that are no good: version 1 or 2, 1 to 1024 grant \
             frames, 0 to 4096 maptrack frames"
        );
        assert_eq!(
            text(|d| d.quotas.event_ports = 0),
            "domain `web` has 0 event ports: give it 1 to 131071"
        );
        assert_eq!(
            text(|d| d.quotas.table_frames = 151),
            "domain `web` has 151 page-table frames: give it 152 to 16777216"
        );
        assert_eq!(
            text(|d| d.affinity = Some(vec![])),
            "domain `web` may run on no CPU: name one in `affinity`, or leave it out"
        );
        assert_eq!(
            text(|d| d.affinity = Some(vec![0, 256])),
            "domain `web` has CPU 256 in its affinity: the numbers go from 0 to 255"
        );
        assert_eq!(
            text(|d| d.share.weight = 0),
            "`weight` of domain `web`: there is no weight 0; give 1 to 65535"
        );
        assert_eq!(
            text(|d| d.cmdline = "x".repeat(3000)),
            "the command line of domain `web` has 3000 bytes: at most 2047 fit, without a NUL"
        );
        assert_eq!(
            text(|d| d.disks[0].source = EMPTY),
            "domain `web`: xvda has 0 sectors: give it 1 to 2147483648 (1 TiB)"
        );
        assert_eq!(
            text(|d| d.initrd = Some(FileId(2))),
            "domain `web` wants file 2 that the archive does not have: pack it again"
        );
    }
}
