//! SMAP and protection keys, and what they mean for a hypercall's arguments.
//!
//! All pages of the runtime are user pages. With CR4.SMAP set its code can only go on while
//! RFLAGS.AC is set, so that is the rule here but for single instructions.
#![expect(unsafe_code, reason = "changes the rights of the running code")]

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::entry;

/// CR4.SMAP.
pub const CR4_SMAP: u64 = 1 << 21;
/// CR4.PKE.
pub const CR4_PKE: u64 = 1 << 22;
/// Bytes that one entry of the page directory maps.
const LARGE_PAGE: u64 = 1 << 21;
/// The place of the page directories in the page map.
const DIRECTORIES: u64 = 0x2000;

/// Sets RFLAGS.AC: user pages may be accessed.
pub fn allow_user_pages() {
    // SAFETY: a flag that matters with CR4.SMAP alone; code here is in ring 0.
    unsafe { asm!("stac", options(nomem, nostack)) };
}

/// VMCALL with RFLAGS.AC clear. Returns RAX.
#[must_use]
pub fn vmcall_without_ac(nr: u64, first: u64, second: u64) -> u64 {
    let result;
    // SAFETY: no memory is accessed while AC is clear; the hypercalls asked for here only read
    // and write their own argument.
    unsafe {
        asm!(
            "clac",
            "vmcall",
            "stac",
            inout("rax") nr => result,
            in("rdi") first,
            in("rsi") second,
            options(nostack),
        );
    }
    result
}

/// Gives the 2 MiB that hold `address` a protection key.
pub fn set_key(address: u64, key: u64) {
    let entry = entry::page_map_root() + DIRECTORIES + address / LARGE_PAGE * 8;
    // SAFETY: the page map lies in the guest's own memory, mapped one to one; one entry is one
    // aligned word, which the processor reads atomically.
    let entry = unsafe { AtomicU64::from_ptr(entry as *mut u64) };
    let old = entry.load(Ordering::Relaxed) & !(0xf << 59);
    entry.store(old | key << 59, Ordering::Release);
    // SAFETY: drops a translation.
    unsafe { asm!("invlpg [{}]", in(reg) address, options(nostack)) };
}

/// Writes PKRU.
pub fn set_pkru(value: u32) {
    // SAFETY: CR4.PKE is set; the pages of this program keep key 0, which stays allowed.
    unsafe { asm!("wrpkru", in("eax") value, in("ecx") 0, in("edx") 0, options(nostack)) };
}
