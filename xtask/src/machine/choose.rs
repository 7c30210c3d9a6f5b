//! Which emulator a machine runs in.

use clap::ValueEnum;

use super::Host;

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
    use super::super::host::Device;
    use super::{Host, Kind, choose};

    fn host(nested: Option<&str>) -> Host {
        Host {
            vendor: "GenuineIntel".to_owned(),
            vmx: true,
            nested_itself: false,
            nested: nested.map(str::to_owned),
            device: Device::Usable,
        }
    }

    #[test]
    fn qemu_only_with_nested_vtx() {
        assert_eq!(choose(&host(Some("Y")), None).0, Kind::Qemu);
        assert_eq!(choose(&host(Some("N")), None).0, Kind::Bochs);
        assert_eq!(choose(&host(None), None).0, Kind::Bochs);
    }

    #[test]
    fn the_user_decides() {
        assert_eq!(choose(&host(Some("Y")), Some(Kind::Bochs)).0, Kind::Bochs);
        assert_eq!(choose(&host(None), Some(Kind::Qemu)).0, Kind::Qemu);
    }

    #[test]
    fn the_reason_names_the_cause() {
        let (_, reason) = choose(&host(Some("N")), None);
        assert!(reason.contains("nested=1"), "{reason}");
    }
}
