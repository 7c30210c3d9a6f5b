//! The hypercalls of a control domain, refused as Xen refuses them to any other.
//!
//! What such a domain would manage is managed by the system description.

use abi::hypercall::{DM_OP, DOMCTL, HYPFS_OP, PLATFORM_OP};
use abi::{DomId, Errno};

use super::{Args, Ctx, int};
use crate::domain::list;

/// `XENPF_INTERFACE_VERSION` (`public/platform.h`).
const PLATFORM_VERSION: u32 = 0x0300_0001;
/// `XEN_SYSCTL_INTERFACE_VERSION` and `XEN_DOMCTL_INTERFACE_VERSION` (`public/sysctl.h`,
/// `public/domctl.h`) of the version that is reported.
const CONTROL_VERSION: u32 = 0x15;
/// `XEN_DOMCTL_createdomain`: names a domain that is not there yet.
const CREATE_DOMAIN: u32 = 1;

/// Answers one of these calls.
#[inline(never)]
pub(super) fn refuse(ctx: &Ctx<'_, '_>, number: u64, args: Args) -> Errno {
    let [first, ..] = args;
    match number {
        HYPFS_OP => Errno::Eperm,
        DM_OP => device_model(ctx, first),
        PLATFORM_OP => control(ctx, first, PLATFORM_VERSION, false),
        number => control(ctx, first, CONTROL_VERSION, number == DOMCTL),
    }
}

/// The three whose argument begins with a command and a version; one goes on with a domain.
fn control(ctx: &Ctx<'_, '_>, arg: u64, expected: u32, names_domain: bool) -> Errno {
    let [command, version, domain] = match ctx.read::<[u32; 3]>(arg) {
        Ok(words) => words,
        Err(errno) => return errno,
    };
    let [low, high, ..] = domain.to_le_bytes();
    let domain = DomId(u16::from_le_bytes([low, high]));
    if version != expected {
        Errno::Eacces
    } else if names_domain && command != CREATE_DOMAIN && list::by_id(domain).is_none() {
        Errno::Esrch
    } else {
        Errno::Eperm
    }
}

/// A device model serves another domain.
fn device_model(ctx: &Ctx<'_, '_>, domain: u64) -> Errno {
    let [low, high, ..] = int(domain).to_le_bytes();
    let domain = DomId(u16::from_le_bytes([low, high]));
    let own = domain == DomId::SELF || domain == ctx.domain().id;
    if own || list::by_id(domain).is_some() {
        Errno::Eperm
    } else {
        Errno::Esrch
    }
}
