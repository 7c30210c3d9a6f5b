//! `HYPERVISOR_xen_version` (`public/version.h`).

use core::mem::offset_of;

use abi::xen_version::{
    BUILD_ID, CAPABILITIES, CAPABILITIES_LEN, CHANGESET, CHANGESET_LEN, COMMANDLINE, COMPILE_INFO,
    CompileInfo, EXTRAVERSION, EXTRAVERSION_LEN, FeatureInfo, GET_FEATURES, GUEST_HANDLE,
    INTERFACE_VERSION, PAGESIZE, PLATFORM_PARAMETERS, VERSION, feature,
};
use abi::{Errno, PAGE_SIZE};

use super::{Args, Ctx, low_half};

/// What a guest may rely on, and nothing that is not there.
const FEATURES: u32 = feature::WRITABLE_PAGE_TABLES
    | feature::AUTO_TRANSLATED_PHYSMAP
    | feature::HVM_CALLBACK_VECTOR
    | feature::HVM_SAFE_PVCLOCK
    | feature::MEMORY_OP_VNODE
    | feature::NOT_DIRECT_MAPPED
    | feature::RUNSTATE_PHYS_AREA
    | feature::VCPU_TIME_PHYS_AREA;

/// A domain has no UUID of its own.
const NO_UUID: [u8; 16] = [0; 16];

#[inline(always)]
pub(super) fn op(ctx: &Ctx<'_, '_>, args: Args) -> Result<u64, Errno> {
    let [command, arg, ..] = args;
    match low_half(command) {
        VERSION => Ok(INTERFACE_VERSION.into()),
        command => other(ctx, command, arg),
    }
}

/// What is not answered by a register alone, or rarely asked for.
#[inline(never)]
fn other(ctx: &Ctx<'_, '_>, command: u64, arg: u64) -> Result<u64, Errno> {
    match command {
        PAGESIZE if arg == 0 => return Ok(PAGE_SIZE as u64),
        PAGESIZE => return Err(Errno::Einval),
        EXTRAVERSION => ctx.write(arg, &text::<EXTRAVERSION_LEN>("-tessera"))?,
        COMPILE_INFO => ctx.write(arg, &compile_info())?,
        CAPABILITIES => ctx.write(arg, &capabilities())?,
        CHANGESET => ctx.write(
            arg,
            &text::<CHANGESET_LEN>(concat!("tessera ", env!("CARGO_PKG_VERSION"))),
        )?,
        // Nothing of the hypervisor is mapped where the guest could see it.
        PLATFORM_PARAMETERS if ctx.wide => ctx.write(arg, &0u64)?,
        PLATFORM_PARAMETERS => ctx.write(arg, &0u32)?,
        GET_FEATURES => features(ctx, arg)?,
        GUEST_HANDLE => ctx.write(arg, &NO_UUID)?,
        // No more than that is written.
        COMMANDLINE => ctx.write(arg, b"<denied>\0")?,
        BUILD_ID => return Err(Errno::Eperm),
        _ => return Err(Errno::Enosys),
    }
    Ok(0)
}

fn features(ctx: &Ctx<'_, '_>, arg: u64) -> Result<(), Errno> {
    let info: FeatureInfo = ctx.read(arg)?;
    if info.submap_idx != 0 {
        return Err(Errno::Einval);
    }
    ctx.write_field(arg, offset_of!(FeatureInfo, submap), &FEATURES)
}

fn compile_info() -> CompileInfo {
    CompileInfo {
        compiler: text("rustc"),
        compile_by: text("tessera"),
        compile_domain: text(""),
        compile_date: text(""),
    }
}

fn capabilities() -> [u8; CAPABILITIES_LEN] {
    text("hvm-3.0-x86_32 hvm-3.0-x86_32p hvm-3.0-x86_64")
}

/// A string as the guest gets it: cut to fit with its NUL, and zero to the end.
fn text<const N: usize>(string: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let room = bytes.split_last_mut().map(|(_, room)| room);
    for (slot, byte) in room.into_iter().flatten().zip(string.bytes()) {
        *slot = byte;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn strings_end_in_zeros_and_are_cut_to_fit() {
        assert_eq!(text::<6>("abc"), *b"abc\0\0\0");
        assert_eq!(text::<4>("abcdef"), *b"abc\0");
        assert_eq!(text::<0>("abc"), []);
    }
}
