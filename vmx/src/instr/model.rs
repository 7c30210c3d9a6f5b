//! What the instructions do to a VMCS, in the memory of a process: each thread is a CPU in VMX
//! operation.
//!
//! Fields have names and values and nothing else; there are no translations to drop and no VM
//! entry. Every region keeps its fields for as long as the thread lives.
#![expect(unsafe_code, reason = "has the signatures of the instructions")]

extern crate std;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use core::cell::RefCell;

use abi::Hpa;

use super::{InstructionError, VmFail, access_failed};

/// Fields of one width and type that there can be.
const INDICES: usize = 64;
/// A value for each width, type and index.
type Fields = Box<[u64; 16 * INDICES]>;

#[derive(Default)]
struct Cpu {
    current: Option<(Hpa, Fields)>,
    others: BTreeMap<u64, Fields>,
}

std::thread_local! {
    static CPU: RefCell<Cpu> = RefCell::default();
}

/// Where a field is: SDM 3D, "Field Encoding in VMCS".
fn place(encoding: u32) -> Option<usize> {
    let index = (encoding >> 1 & 0x1ff) as usize;
    let kind = (encoding >> 10 & 3 | (encoding >> 13 & 3) << 2) as usize;
    (index < INDICES).then_some(kind * INDICES + index)
}

fn with_field<T>(name: &str, encoding: u32, act: impl FnOnce(&mut u64) -> T) -> T {
    CPU.with_borrow_mut(|cpu| {
        let current = cpu.current.as_mut();
        match (current, place(encoding)) {
            (Some((_, fields)), Some(place)) => act(&mut fields[place]),
            _ => access_failed(name, encoding),
        }
    })
}

/// No instruction fails here, but that none could be current.
pub(crate) const fn last_error() -> InstructionError {
    InstructionError(0)
}

/// VMXON.
///
/// # Safety
/// None is needed: nothing here touches memory but the model's own.
pub(crate) unsafe fn vmxon(_: Hpa) -> Result<(), VmFail> {
    Ok(())
}

/// VMXOFF.
///
/// # Safety
/// As for [`vmxon`].
pub(crate) unsafe fn vmxoff() -> Result<(), VmFail> {
    Ok(())
}

/// VMCLEAR.
///
/// # Safety
/// As for [`vmxon`].
pub(crate) unsafe fn vmclear(region: Hpa) -> Result<(), VmFail> {
    CPU.with_borrow_mut(|cpu| {
        if let Some((_, fields)) = cpu.current.take_if(|(current, _)| *current == region) {
            cpu.others.insert(region.raw(), fields);
        }
    });
    Ok(())
}

/// VMPTRLD.
///
/// # Safety
/// As for [`vmxon`].
pub(crate) unsafe fn vmptrld(region: Hpa) -> Result<(), VmFail> {
    CPU.with_borrow_mut(|cpu| {
        let fields = cpu.others.remove(&region.raw());
        let fields = fields.unwrap_or_else(|| Box::new([0; 16 * INDICES]));
        if let Some((before, fields)) = cpu.current.replace((region, fields)) {
            cpu.others.insert(before.raw(), fields);
        }
    });
    Ok(())
}

pub(super) const fn invept_raw(_: u64, _: &[u64; 2]) -> Result<(), VmFail> {
    Ok(())
}

pub(super) const fn invvpid_raw(_: u64, _: &[u64; 2]) -> Result<(), VmFail> {
    Ok(())
}

/// VMREAD.
///
/// # Safety
/// As for [`vmxon`].
pub(crate) unsafe fn vmread(encoding: u32) -> u64 {
    with_field("VMREAD", encoding, |field| *field)
}

/// VMWRITE.
///
/// # Safety
/// As for [`vmxon`].
pub(crate) unsafe fn vmwrite(encoding: u32, value: u64) {
    with_field("VMWRITE", encoding, |field| *field = value);
}

pub(crate) use vmread as vmread_proven;
pub(crate) use vmwrite as vmwrite_proven;

#[cfg(test)]
mod tests {
    use core::ptr::NonNull;

    use abi::Hpa;

    use crate::vmcs::{Vmcs, field};
    use crate::{Features, VmxOn};

    #[test]
    fn each_vmcs_has_its_own_fields() {
        let cpu = VmxOn::of_thread(Features::empty());
        let mut frames = [[0u32; 1024]; 2];
        let [mut a, mut b] = [0, 1].map(|index| {
            let frame = NonNull::from(&mut frames[index]).cast();
            let region = Hpa::new((index as u64 + 1) << 12);
            // SAFETY: the frame is this VMCS's alone for the test, and the model does not touch it.
            unsafe { Vmcs::new(frame, region, 1) }
        });
        a.load(&cpu).write(field::GUEST_RIP, 1);
        b.load(&cpu).write(field::GUEST_RIP, 2);
        a.clear(&cpu);
        assert_eq!(a.load(&cpu).read(field::GUEST_RIP), 1);
        assert_eq!(b.load(&cpu).read(field::GUEST_RSP), 0);
        assert_eq!(b.load(&cpu).read(field::GUEST_RIP), 2);
    }
}
