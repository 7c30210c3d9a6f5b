//! Whether QEMU/KVM on this host gives its machines VT-x, and what to do where it does not.

use std::fs::{self, OpenOptions};
use std::io::{Error, ErrorKind};
use std::os::unix::fs::MetadataExt as _;

use nix::unistd::{Gid, Group};

/// Tells what the CPU is and has.
const CPUINFO: &str = "/proc/cpuinfo";
/// A parameter of `kvm_intel`, which is there when that module is.
const NESTED: &str = "/sys/module/kvm_intel/parameters/nested";
/// What QEMU opens for reading and writing.
const KVM: &str = "/dev/kvm";

/// What decides it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    /// The CPU's maker, in its own word; empty where nothing tells.
    pub(crate) vendor: String,
    /// The CPU shows VT-x.
    pub(crate) vmx: bool,
    /// This host is itself a machine of a hypervisor.
    pub(crate) nested_itself: bool,
    /// The parameter `nested` of the module `kvm_intel`, if that is loaded.
    pub(crate) nested: Option<String>,
    /// `/dev/kvm`.
    pub(crate) device: Device,
}

/// What opening `/dev/kvm` for reading and writing gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Device {
    /// It opens.
    Usable,
    /// There is none.
    Absent,
    /// This user may not, but this group may, if there is one.
    Denied(Option<String>),
    /// Something else is wrong.
    Broken(String),
}

/// One thing that has to be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Check {
    /// Its name.
    pub(crate) what: &'static str,
    /// How it is here.
    pub(crate) found: String,
    /// What to do, if that is not right.
    pub(crate) remedy: Option<String>,
}

impl Host {
    /// Looks at this host.
    pub(crate) fn probe() -> Self {
        let opened = OpenOptions::new().read(true).write(true).open(KVM);
        let device = match opened {
            Ok(_) => Device::Usable,
            Err(error) => Device::unusable(&error),
        };
        let cpuinfo = fs::read_to_string(CPUINFO).unwrap_or_default();
        Self::of(&cpuinfo, fs::read_to_string(NESTED).ok().as_deref(), device)
    }

    /// From the texts of [`CPUINFO`] and [`NESTED`].
    fn of(cpuinfo: &str, nested: Option<&str>, device: Device) -> Self {
        let field = |name: &str| {
            cpuinfo
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(key, _)| key.trim() == name)
                .map_or("", |(_, value)| value.trim())
        };
        let flag = |name| field("flags").split(' ').any(|flag| flag == name);
        Self {
            vendor: field("vendor_id").to_owned(),
            vmx: flag("vmx"),
            nested_itself: flag("hypervisor"),
            nested: nested.map(|text| text.trim().to_owned()),
            device,
        }
    }

    /// Whether QEMU/KVM gives its machine VT-x; else the first reason, with its remedy.
    pub(crate) fn nested_vtx(&self) -> Result<(), String> {
        let wrong = self.checks().into_iter().find_map(|check| {
            let remedy = check.remedy?;
            Some(format!("{} {}: {remedy}", check.what, check.found))
        });
        wrong.map_or(Ok(()), Err)
    }

    /// Everything that has to be right, in the order in which to mend it. What follows from
    /// something that is wrong is left out.
    pub(crate) fn checks(&self) -> Vec<Check> {
        let mut checks = Vec::new();
        for check in [Self::cpu, Self::module, Self::nesting, Self::device] {
            let check = check(self);
            let wrong = check.remedy.is_some();
            checks.push(check);
            if wrong {
                break;
            }
        }
        checks
    }

    fn cpu(&self) -> Check {
        let check = |found: &str, remedy: Option<&str>| Check {
            what: "CPU",
            found: found.to_owned(),
            remedy: remedy.map(str::to_owned),
        };
        match (self.vendor.as_str(), self.vmx) {
            ("GenuineIntel", true) => check("has VT-x", None),
            ("GenuineIntel", false) if self.nested_itself => check(
                "shows no VT-x inside this hypervisor",
                Some("have that one pass it on (under KVM: kvm_intel nested=1 and -cpu host)"),
            ),
            ("GenuineIntel", false) => check(
                "shows no VT-x",
                Some("enable virtualization in the firmware set-up and power-cycle"),
            ),
            ("", _) => check("is unknown", Some("only Intel's can do it")),
            (vendor, _) => check(
                &format!("is {vendor}"),
                Some("KVM offers Intel VT-x on Intel CPUs only; Bochs emulates one anywhere"),
            ),
        }
    }

    fn module(&self) -> Check {
        let loaded = self.nested.is_some();
        Check {
            what: "kvm_intel",
            found: if loaded { "is loaded" } else { "is not loaded" }.to_owned(),
            remedy: (!loaded).then(|| "sudo modprobe kvm_intel nested=1".to_owned()),
        }
    }

    fn nesting(&self) -> Check {
        let on = matches!(self.nested.as_deref(), Some("Y" | "1"));
        Check {
            what: "kvm_intel",
            found: if on { "has nested=1" } else { "has nested=0" }.to_owned(),
            remedy: (!on).then(|| {
                "end all virtual machines, then sudo modprobe -r kvm_intel && sudo modprobe \
                 kvm_intel nested=1 (for good: options kvm_intel nested=1 in \
                 /etc/modprobe.d/kvm.conf)"
                    .to_owned()
            }),
        }
    }

    fn device(&self) -> Check {
        let (found, remedy) = match &self.device {
            Device::Usable => ("can be used".to_owned(), None),
            Device::Absent => (
                "does not exist".to_owned(),
                Some("see dmesg | grep kvm: most often the firmware has VT-x disabled".to_owned()),
            ),
            Device::Denied(group) => (
                "may not be used by this user".to_owned(),
                Some(match group {
                    Some(group) => format!("sudo usermod -aG {group} $USER, and log in again"),
                    None => format!("sudo chown $USER {KVM}"),
                }),
            ),
            Device::Broken(error) => (
                format!("cannot be used ({error})"),
                Some("see dmesg | grep kvm: another hypervisor may hold VT-x".to_owned()),
            ),
        };
        Check {
            what: KVM,
            found,
            remedy,
        }
    }
}

impl Device {
    fn unusable(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound => Self::Absent,
            ErrorKind::PermissionDenied => Self::Denied(group_that_may()),
            _ => Self::Broken(error.to_string()),
        }
    }
}

/// The group whose members may use the device. There is none where no udev gave it to one.
fn group_that_may() -> Option<String> {
    let device = fs::metadata(KVM).ok()?;
    let gid = gid_that_may(device.mode(), device.gid())?;
    Some(Group::from_gid(Gid::from_raw(gid)).ok()??.name)
}

/// The device's group, if that is not root's own and may read and write.
fn gid_that_may(mode: u32, gid: u32) -> Option<u32> {
    (gid != 0 && mode & 0o060 == 0o060).then_some(gid)
}

#[cfg(test)]
mod tests {
    use super::{Device, Host, gid_that_may};

    fn good() -> Host {
        Host {
            vendor: "GenuineIntel".to_owned(),
            vmx: true,
            nested_itself: false,
            nested: Some("Y".to_owned()),
            device: Device::Usable,
        }
    }

    /// The reason against a host that is good but for `change`.
    fn reason(change: impl FnOnce(&mut Host)) -> String {
        let mut host = good();
        change(&mut host);
        host.nested_vtx().unwrap_err()
    }

    #[test]
    fn a_good_host_is_good() {
        assert_eq!(good().nested_vtx(), Ok(()));
        assert_eq!(good().checks().len(), 4);
        let older = Host {
            nested: Some("1".to_owned()),
            ..good()
        };
        assert_eq!(older.nested_vtx(), Ok(()));
    }

    #[test]
    fn each_thing_that_is_wrong_has_its_remedy() {
        let text = reason(|host| host.nested = Some("N".to_owned()));
        assert!(text.starts_with("kvm_intel has nested=0: "), "{text}");
        assert!(text.contains("modprobe -r kvm_intel"), "{text}");
        let text = reason(|host| host.nested = None);
        assert_eq!(
            text,
            "kvm_intel is not loaded: sudo modprobe kvm_intel nested=1"
        );
        let text = reason(|host| host.device = Device::Denied(Some("virt".to_owned())));
        assert!(text.contains("usermod -aG virt"), "{text}");
        let text = reason(|host| host.device = Device::Denied(None));
        assert!(text.contains("chown $USER /dev/kvm"), "{text}");
        let text = reason(|host| host.device = Device::Absent);
        assert!(text.contains("firmware"), "{text}");
        let text = reason(|host| host.device = Device::Broken("busy".to_owned()));
        assert!(text.contains("(busy)"), "{text}");
    }

    #[test]
    fn a_group_helps_if_it_may_use_the_device() {
        assert_eq!(gid_that_may(0o020_660, 105), Some(105));
        assert_eq!(gid_that_may(0o020_600, 105), None);
        assert_eq!(gid_that_may(0o020_640, 105), None);
        // Nobody is told to join root's.
        assert_eq!(gid_that_may(0o020_660, 0), None);
    }

    #[test]
    fn without_vtx_the_first_reason_counts() {
        let bare = |host: &mut Host| {
            host.vmx = false;
            host.nested = None;
            host.device = Device::Absent;
        };
        assert!(reason(bare).starts_with("CPU shows no VT-x: enable"));
        let inside = |host: &mut Host| {
            bare(host);
            host.nested_itself = true;
        };
        assert!(reason(inside).contains("-cpu host"));
        let amd = |host: &mut Host| {
            bare(host);
            host.vendor = "AuthenticAMD".to_owned();
        };
        let text = reason(amd);
        assert!(text.contains("is AuthenticAMD") && text.contains("Bochs"));
    }

    #[test]
    fn cpuinfo_is_read() {
        let text = "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu vmx hypervisor\n\
                    vmx flags\t: vnmi\n";
        let host = Host::of(text, Some("Y\n"), Device::Usable);
        assert_eq!(host.vendor, "GenuineIntel");
        assert!(host.vmx && host.nested_itself);
        assert_eq!(host.nested_vtx(), Ok(()));
        let amd = "vendor_id : AuthenticAMD\nflags : fpu svm xvmx\n";
        let host = Host::of(amd, None, Device::Absent);
        assert!(!host.vmx && !host.nested_itself);
        assert_eq!(Host::of("", None, Device::Absent).vendor, "");
    }
}
