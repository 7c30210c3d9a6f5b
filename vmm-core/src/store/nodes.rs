//! The nodes that a domain finds in the store, as Xen's toolstack makes them
//! (Xen, `docs/misc/xenstore-paths.pandoc`).

use core::fmt::Write as _;

use abi::DomId;
use heapless::String;
use xenstore::{Access, Control, Error, Perms};

use crate::domain::Domain;

/// What a path or value of ours fits into.
type Text = String<64>;

/// Nodes that the guest may write.
const WRITABLE: &[&str] = &[
    "control/shutdown",
    "control/sysrq",
    "control/feature-poweroff",
    "control/feature-reboot",
    "control/feature-suspend",
    "device/suspend/event-channel",
    "data",
    "drivers",
    "feature",
    "attr",
    "error",
];

/// Nodes of the hypervisor's that the guest only reads, and that hold others.
const READABLE: &[&str] = &["control", "device", "memory", "cpu", "store", "console"];

/// Makes the nodes of a domain, one at a time; calls `give_way` between them.
pub(super) fn make(domain: &Domain, give_way: &mut dyn FnMut()) -> Result<(), Error> {
    let id = domain.id;
    // Owned by nobody but us, and for the domain's eyes alone.
    let readable = Perms::new(DomId::CONTROL, Access::empty()).with(id, Access::READ);
    let writable = Perms::new(id, Access::empty());
    let mut change = |act: &mut dyn FnMut(&mut Control<'_>) -> Result<(), Error>| {
        give_way();
        super::control(|control| act(control)).ok_or(Error::Enomem)?
    };
    let mut add = |below: &str, perms: &Perms| {
        let path = path(id, below);
        let path = path.trim_end_matches('/');
        change(&mut |control| control.make(path, perms.clone()))
    };
    add("", &readable)?;
    for below in READABLE {
        add(below, &readable)?;
    }
    for below in WRITABLE {
        add(below, &writable)?;
    }
    let mut set = |below: &str, value: &str| {
        let path = path(id, below);
        change(&mut |control| control.write(&path, value.as_bytes()))
    };
    set("name", &domain.name)?;
    set("domid", &number(id.0.into()))?;
    let kib = |pages: u64| number(pages.saturating_mul(4));
    set("memory/static-max", &kib(domain.max_pages))?;
    set("memory/target", &kib(domain.p2m.read().ram_pages()))?;
    set("memory/videoram", "0")?;
    set("control/platform-feature-xs_reset_watches", "1")?;
    set("control/platform-feature-multiprocessor-suspend", "1")?;
    set("store/port", &number(domain.store.port.0.into()))?;
    set("console/port", &number(domain.console.port.0.into()))?;
    set("console/type", "xenconsoled")?;
    for vcpu in &domain.vcpus {
        let mut below = Text::new();
        // Ten digits fit.
        let _ = write!(below, "cpu/{}/availability", vcpu.id);
        set(&below, "online")?;
    }
    Ok(())
}

/// Removes the nodes of a domain.
pub(super) fn remove(control: &mut Control<'_>, id: DomId) {
    control.remove(path(id, "").trim_end_matches('/'));
}

/// The path of a domain's node.
pub(super) fn path(id: DomId, below: &str) -> Text {
    let mut text = Text::new();
    // The names here are short; one that is not would be no path and be refused.
    let _ = write!(text, "/local/domain/{id}/{below}");
    text
}

/// A number in decimal.
pub(super) fn number(value: u64) -> Text {
    let mut text = Text::new();
    // Twenty digits fit.
    let _ = write!(text, "{value}");
    text
}
