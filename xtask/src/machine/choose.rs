//! Which emulator a machine runs in, from facts about the host.

use std::fs::{self, OpenOptions};

use clap::ValueEnum;

/// The emulators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// QEMU; guests run only where the host offers nested VT-x through KVM
    Qemu,
    /// Bochs: emulates VT-x, works on every host
    Bochs,
}

impl Kind {
    /// Name as typed on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Bochs => "bochs",
        }
    }
}

/// What decides the choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    /// `/dev/kvm` can be opened for reading and writing; else why not.
    pub(crate) kvm: Result<(), String>,
    /// Content of `kvm_intel`'s `nested` parameter, if that module is loaded.
    pub(crate) nested: Option<String>,
}

impl Host {
    /// Looks at this host.
    pub(crate) fn probe() -> Self {
        let kvm = OpenOptions::new().read(true).write(true).open("/dev/kvm");
        Self {
            kvm: kvm.map(drop).map_err(|error| error.to_string()),
            nested: fs::read_to_string("/sys/module/kvm_intel/parameters/nested")
                .ok()
                .map(|text| text.trim().to_owned()),
        }
    }

    /// Whether QEMU/KVM gives its machine VT-x; else the reason, for people.
    pub(crate) fn nested_vtx(&self) -> Result<(), String> {
        if let Err(error) = &self.kvm {
            return Err(format!("/dev/kvm cannot be used: {error}"));
        }
        match self.nested.as_deref() {
            Some("Y" | "1") => Ok(()),
            Some(_) => Err("kvm_intel is loaded without nested=1".to_owned()),
            None => Err("kvm_intel is not loaded (no Intel VT-x on this host)".to_owned()),
        }
    }
}

/// The emulator to use and why: what the user `wanted`, else QEMU if it can give VT-x, else Bochs.
pub(crate) fn choose(host: &Host, wanted: Option<Kind>) -> (Kind, String) {
    match (wanted, host.nested_vtx()) {
        (Some(kind), _) => (kind, "as asked".to_owned()),
        (None, Ok(())) => (Kind::Qemu, "KVM on this host offers nested VT-x".to_owned()),
        (None, Err(reason)) => (Kind::Bochs, reason),
    }
}

#[cfg(test)]
mod tests {
    use super::{Host, Kind, choose};

    fn host(kvm: bool, nested: Option<&str>) -> Host {
        Host {
            kvm: if kvm {
                Ok(())
            } else {
                Err("No such file or directory".to_owned())
            },
            nested: nested.map(str::to_owned),
        }
    }

    #[test]
    fn qemu_only_with_nested_vtx() {
        assert_eq!(choose(&host(true, Some("Y")), None).0, Kind::Qemu);
        assert_eq!(choose(&host(true, Some("1")), None).0, Kind::Qemu);
        assert_eq!(choose(&host(true, Some("N")), None).0, Kind::Bochs);
        assert_eq!(choose(&host(true, None), None).0, Kind::Bochs);
        assert_eq!(choose(&host(false, Some("Y")), None).0, Kind::Bochs);
    }

    #[test]
    fn the_user_decides() {
        assert_eq!(
            choose(&host(true, Some("Y")), Some(Kind::Bochs)).0,
            Kind::Bochs
        );
        assert_eq!(choose(&host(false, None), Some(Kind::Qemu)).0, Kind::Qemu);
    }

    #[test]
    fn the_reason_names_the_cause() {
        let (_, reason) = choose(&host(false, None), None);
        assert!(reason.contains("No such file"), "{reason}");
        let (_, reason) = choose(&host(true, Some("N")), None);
        assert!(reason.contains("nested=1"), "{reason}");
    }
}
