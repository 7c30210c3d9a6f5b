//! `HYPERVISOR_hvm_op` (`public/hvm/hvm_op.h`, `public/hvm/params.h`).

use alloc::sync::Arc;
use core::mem::offset_of;
use core::sync::atomic::Ordering;

use abi::hvm::{
    ALTP2M, EvtchnUpcallVector, FLUSH_TLBS, GET_MEM_TYPE, GET_PARAM, GET_TIME,
    GUEST_REQUEST_VM_EVENT, MIN_UPCALL_VECTOR, MemType, PAGETABLE_DYING, PagetableDying, Param,
    SET_EVTCHN_UPCALL_VECTOR, SET_PARAM, XENTRACE, Xentrace, mem_type, param,
};
use abi::{Errno, Gfn, VcpuId};

use super::{Args, Ctx, low_half};
use crate::domain::{Domain, VcpuRef};
use crate::evtchn::Width;
use crate::time::Tsc;
use crate::vcpu;

#[inline(never)]
pub(super) fn op(ctx: &Ctx<'_, '_>, args: Args) -> Result<u64, Errno> {
    let [command, arg, ..] = args;
    match command {
        SET_PARAM => set_param(ctx, arg),
        GET_PARAM => get_param(ctx, arg),
        FLUSH_TLBS => flush_tlbs(ctx, arg),
        PAGETABLE_DYING => pagetable_dying(ctx, arg),
        GET_TIME => {
            let now = ctx.domain().clock.system_time(Tsc::now());
            ctx.write(arg, &now).map(|()| 0)
        }
        GET_MEM_TYPE => get_mem_type(ctx, arg),
        SET_EVTCHN_UPCALL_VECTOR => set_upcall_vector(ctx, arg),
        XENTRACE => xentrace(ctx, arg),
        // Nobody listens.
        GUEST_REQUEST_VM_EVENT if arg == 0 => Ok(0),
        GUEST_REQUEST_VM_EVENT => Err(Errno::Einval),
        ALTP2M => Err(Errno::Eopnotsupp),
        _ => Err(Errno::Enosys),
    }
}

/// What a guest may do with one of its parameters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Rights {
    /// It has no meaning any more.
    Obsolete,
    None,
    Read,
    ReadWrite,
}

const fn rights(index: u32) -> Rights {
    match index {
        param::STORE_PFN | param::CONSOLE_PFN | param::ALTP2M => Rights::Read,
        param::CALLBACK_IRQ
        | param::STORE_EVTCHN
        | param::CONSOLE_EVTCHN
        | param::VM86_TSS
        | param::ACPI_IOPORTS_LOCATION
        | param::VM_GENERATION_ID_ADDR
        | param::X87_FIP_WIDTH
        | param::VM86_TSS_SIZED => Rights::ReadWrite,
        param::PAE_ENABLED
        | param::DM_DOMAIN
        | param::MEMORY_EVENT_CR0..=param::BUFIOREQ_EVTCHN
        | param::MEMORY_EVENT_MSR => Rights::Obsolete,
        _ => Rights::None,
    }
}

fn checked_param(ctx: &Ctx<'_, '_>, arg: u64) -> Result<(Param, Rights), Errno> {
    let request: Param = ctx.read(arg)?;
    if request.index >= param::COUNT {
        return Err(Errno::Einval);
    }
    ctx.check_own(request.domid)?;
    match rights(request.index) {
        Rights::Obsolete => Err(Errno::Einval),
        Rights::None => Err(Errno::Eperm),
        rights @ (Rights::Read | Rights::ReadWrite) => Ok((request, rights)),
    }
}

fn get_param(ctx: &Ctx<'_, '_>, arg: u64) -> Result<u64, Errno> {
    let (request, _) = checked_param(ctx, arg)?;
    let value = match request.index {
        param::VM86_TSS => {
            let sized = ctx.domain().params.lock().get(param::VM86_TSS_SIZED)?;
            low_half(sized)
        }
        index => ctx.domain().params.lock().get(index)?,
    };
    ctx.write_field(arg, offset_of!(Param, value), &value)?;
    Ok(0)
}

fn set_param(ctx: &Ctx<'_, '_>, arg: u64) -> Result<u64, Errno> {
    let (request, rights) = checked_param(ctx, arg)?;
    if rights != Rights::ReadWrite {
        return Err(Errno::Eperm);
    }
    let (index, value) = accepted(request.index, request.value)?;
    ctx.domain().params.lock().set(index, value)?;
    if request.index == param::CALLBACK_IRQ {
        let vector = callback_vector(request.value);
        ctx.domain().callback_vector.store(vector, Ordering::SeqCst);
        latch_width(ctx.domain(), ctx.wide);
        // Each vCPU looks at its pending upcalls before it enters the guest.
        for vcpu in vcpu::refs(ctx.domain()) {
            vcpu.kick();
        }
    }
    Ok(0)
}

/// The parameter that setting `index` to `value` changes, and what it becomes.
fn accepted(index: u32, value: u64) -> Result<(u32, u64), Errno> {
    /// Bytes of a 32-bit task state segment, and with every bitmap it can have.
    const TSS: u64 = 104;
    const LARGEST_TSS: u64 = TSS + 0x100 / 8 + 0x1_0000 / 8 + 1;
    match index {
        // There is no power management hardware to move.
        param::ACPI_IOPORTS_LOCATION => Err(Errno::Enodev),
        param::X87_FIP_WIDTH if !matches!(value, 0 | 4 | 8) => Err(Errno::Einval),
        // An address alone, with the size that old firmware expects.
        param::VM86_TSS if value != low_half(value) => Err(Errno::Einval),
        param::VM86_TSS if value != 0 => Ok((param::VM86_TSS_SIZED, value | 128 << 32)),
        param::VM86_TSS => Ok((param::VM86_TSS_SIZED, 0)),
        param::VM86_TSS_SIZED => match value >> 32 {
            0..TSS => Err(Errno::Einval),
            size => {
                let size = size.min(LARGEST_TSS) << 32;
                Ok((index, low_half(value) | size))
            }
        },
        _ => Ok((index, value)),
    }
}

/// The vector that a callback parameter names, or 0 for the ways of delivery that need an
/// interrupt controller no guest has.
fn callback_vector(value: u64) -> u8 {
    let kind = u8::try_from(value >> param::CALLBACK_TYPE_SHIFT).unwrap_or(0);
    let vector = u8::try_from(value & 0xff).unwrap_or(0);
    if kind == param::CALLBACK_TYPE_VECTOR && vector >= MIN_UPCALL_VECTOR {
        vector
    } else {
        0
    }
}

/// Takes the mode of a caller that sets up its interface for the mode of the domain: it decides
/// the layout of the shared page.
pub fn latch_width(domain: &Arc<Domain>, wide: bool) {
    if domain.wide.swap(wide, Ordering::SeqCst) == wide {
        return;
    }
    domain
        .evtchn
        .lock()
        .set_width(if wide { Width::Bits64 } else { Width::Bits32 });
    domain.publish_time();
}

/// What an invalidation of the domain's EPT translations drops includes those of its own page
/// tables.
fn flush_tlbs(ctx: &Ctx<'_, '_>, arg: u64) -> Result<u64, Errno> {
    if arg != 0 {
        return Err(Errno::Einval);
    }
    ctx.domain().flush_translations();
    Ok(0)
}

/// Of interest to shadow page tables only.
fn pagetable_dying(ctx: &Ctx<'_, '_>, arg: u64) -> Result<u64, Errno> {
    let request: PagetableDying = ctx.read(arg)?;
    Err(match ctx.check_own(request.domid) {
        Ok(()) => Errno::Einval,
        Err(Errno::Esrch) => Errno::Esrch,
        Err(_) => Errno::Eopnotsupp,
    })
}

/// There is no trace buffer that the record could go to.
fn xentrace(ctx: &Ctx<'_, '_>, arg: u64) -> Result<u64, Errno> {
    const EXTRA: u16 = 28;
    const EVENTS: u16 = 1 << 12;
    let request: Xentrace = ctx.read(arg)?;
    if request.extra_bytes > EXTRA || request.event >= EVENTS {
        return Err(Errno::Einval);
    }
    Ok(0)
}

fn get_mem_type(ctx: &Ctx<'_, '_>, arg: u64) -> Result<u64, Errno> {
    let request: MemType = ctx.read(arg)?;
    ctx.check_own(request.domid)?;
    let kind = match ctx.domain().p2m.read().lookup(Gfn::new(request.pfn)) {
        Some(entry) if entry.writable => mem_type::RAM_RW,
        Some(_) => mem_type::RAM_RO,
        None => mem_type::MMIO_DM,
    };
    ctx.write_field(arg, offset_of!(MemType, mem_type), &kind)?;
    Ok(0)
}

fn set_upcall_vector(ctx: &Ctx<'_, '_>, arg: u64) -> Result<u64, Errno> {
    let request: EvtchnUpcallVector = ctx.read(arg)?;
    if request.vector < MIN_UPCALL_VECTOR {
        return Err(Errno::Einval);
    }
    let vcpu = VcpuRef::new(ctx.domain(), VcpuId(request.vcpu)).ok_or(Errno::Enoent)?;
    vcpu.upcall_vector.store(request.vector, Ordering::SeqCst);
    // Whatever came before the vector was known is announced by one interrupt now.
    vcpu.inbox.post(request.vector);
    vcpu.kick();
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::{Errno, Rights, accepted, callback_vector, param, rights};

    #[test]
    fn only_vectors_are_delivered() {
        assert_eq!(callback_vector(2 << 56 | 0xf3), 0xf3);
        assert_eq!(callback_vector(2 << 56 | 0x0f), 0);
        assert_eq!(callback_vector(1), 0);
        assert_eq!(callback_vector(1 << 56 | 0xf3), 0);
        assert_eq!(callback_vector(u64::MAX), 0);
    }

    #[test]
    fn a_guest_may_not_move_its_rings() {
        assert_eq!(rights(param::CONSOLE_PFN), Rights::Read);
        assert_eq!(rights(param::STORE_PFN), Rights::Read);
        assert_eq!(rights(param::CALLBACK_IRQ), Rights::ReadWrite);
        assert_eq!(rights(param::TRIPLE_FAULT_REASON), Rights::None);
        assert_eq!(rights(param::COUNT), Rights::None);
    }

    #[test]
    fn parameters_without_a_meaning_are_invalid() {
        let obsolete = (0..param::COUNT).filter(|&index| rights(index) == Rights::Obsolete);
        assert!(obsolete.eq([4, 13, 20, 21, 22, 23, 24, 25, 26, 30]));
    }

    #[test]
    fn values_are_taken_as_xen_takes_them() {
        let sized = param::VM86_TSS_SIZED;
        assert_eq!(
            accepted(param::STORE_EVTCHN, 7),
            Ok((param::STORE_EVTCHN, 7))
        );
        assert_eq!(
            accepted(param::X87_FIP_WIDTH, 4),
            Ok((param::X87_FIP_WIDTH, 4))
        );
        assert_eq!(accepted(param::X87_FIP_WIDTH, 5), Err(Errno::Einval));
        assert_eq!(
            accepted(param::ACPI_IOPORTS_LOCATION, 1),
            Err(Errno::Enodev)
        );
        assert_eq!(
            accepted(param::VM86_TSS, 0x1000),
            Ok((sized, 128 << 32 | 0x1000))
        );
        assert_eq!(accepted(param::VM86_TSS, 1 << 32), Err(Errno::Einval));
        assert_eq!(accepted(sized, 103 << 32), Err(Errno::Einval));
        assert_eq!(
            accepted(sized, u64::MAX),
            Ok((sized, 8329 << 32 | 0xffff_ffff))
        );
    }
}
