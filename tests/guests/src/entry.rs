//! The way in: the PVH note, long mode, and the two ways a further vCPU comes up.
//!
//! The domain builder enters vCPU 0 at the note's address
//! in flat 32-bit mode, paging off, EBX holding the start info. The code below identity-maps
//! 4 GiB with 2 MiB pages that ring 3 may use too, turns long mode on and calls
//! [`crate::runtime::enter`]. A further vCPU comes either out of INIT/SIPI at the trampoline,
//! copied below 1 MiB, or straight in 64-bit mode by `VCPUOP_initialise` at [`secondary_entry`].
#![expect(unsafe_code, reason = "the first instructions of a guest are assembly")]

use core::arch::global_asm;
use core::sync::atomic::AtomicU64;

/// Selector of the 64-bit ring-0 code segment.
pub const KERNEL_CODE: u16 = 0x08;
/// Selector of the ring-3 data segment, privilege level included.
pub const USER_DATA: u16 = 0x1b;
/// Selector of the 64-bit ring-3 code segment, privilege level included.
pub const USER_CODE: u16 = 0x23;
/// Selector of the 32-bit ring-0 code segment.
pub const NARROW_CODE: u16 = 0x28;
/// Selector of vCPU 0's task state; each further vCPU's lies 16 bytes on.
pub const TASK_STATE: u16 = 0x30;
/// CR4 as the runtime sets it: PAE, OSFXSR, OSXMMEXCPT.
pub const CR4: u64 = 0x620;
/// CR0 as the runtime sets it: PG, WP, NE, ET, MP, PE.
pub const CR0: u64 = 0x8001_0033;
/// Bytes of stack each vCPU has.
pub const STACK_SIZE: usize = 128 * 1024;

/// The stack a vCPU that comes up shall use (its top); set before the vCPU is started.
pub static SECONDARY_STACK: AtomicU64 = AtomicU64::new(0);

global_asm!(
    r#"
    .section .note.Xen, "a", @note
    .balign 4
    .long 4, 8, 18
    .asciz "Xen"
    .quad guest_pvh_entry

    .section .text.entry, "ax", @progbits
    .code32
    .globl guest_pvh_entry
guest_pvh_entry:
    cld
    mov $boot_stack_top, %esp
    mov %ebx, %ebp

    # One PML4 entry, four PDPT entries, 2048 pages of 2 MiB: present, writable, ring 3 too.
    mov $page_map + 0x1000 + 7, %eax
    mov %eax, page_map
    lea 0x1000(%eax), %eax
    mov $page_map + 0x1000, %edi
    mov $4, %ecx
1:  mov %eax, (%edi)
    add $0x1000, %eax
    add $8, %edi
    loop 1b
    mov $page_map + 0x2000, %edi
    mov $0x87, %eax
    mov $2048, %ecx
1:  mov %eax, (%edi)
    add $0x200000, %eax
    add $8, %edi
    loop 1b

    call enter_long_mode
    ljmp $8, $1f
    .code64
1:  mov %ebp, %edi
    mov $boot_stack_top, %esp
    xor %ebp, %ebp
    call {enter}
    ud2

    # Turns paging and long mode on and loads the descriptor table; returns in 32-bit code.
    .code32
enter_long_mode:
    mov ${cr4}, %eax
    mov %eax, %cr4
    mov $page_map, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx
    rdmsr
    or $0x100, %eax
    wrmsr
    mov ${cr0}, %eax
    mov %eax, %cr0
    lgdt descriptor_table_pointer
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    ret

    # Where the trampoline arrives, in 32-bit protected mode, on a scratch stack.
secondary_protected:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %ss
    mov $scratch_stack_top, %esp
    call enter_long_mode
    ljmp $8, $guest_secondary_entry

    .code64
    .globl guest_secondary_entry
guest_secondary_entry:
    lgdt descriptor_table_pointer
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov {stack}, %rsp
    push $8
    lea 1f(%rip), %rax
    push %rax
    lretq
1:  xor %ebp, %ebp
    call {secondary_enter}
    ud2

    # Real-mode code, run where it was copied to: CS holds that page.
    .section .rodata.trampoline, "a", @progbits
    .code16
    .globl guest_trampoline
guest_trampoline:
    cli
    cld
    mov %cs, %ax
    mov %ax, %ds
    lgdtl trampoline_pointer - guest_trampoline
    mov $1, %eax
    mov %eax, %cr0
    ljmpl $0x28, $secondary_protected
    .balign 4
trampoline_pointer:
    .word descriptor_table_end - descriptor_table - 1
    .long descriptor_table
    .globl guest_trampoline_end
guest_trampoline_end:

    .section .data.descriptor_table, "aw", @progbits
    .balign 16
    .globl descriptor_table
descriptor_table:
    .quad 0
    .quad 0x00af9b000000ffff    # 0x08 ring-0 code, 64-bit
    .quad 0x00cf93000000ffff    # 0x10 ring-0 data
    .quad 0x00cff3000000ffff    # 0x18 ring-3 data
    .quad 0x00affb000000ffff    # 0x20 ring-3 code, 64-bit
    .quad 0x00cf9b000000ffff    # 0x28 ring-0 code, 32-bit
    .globl task_state_descriptors
task_state_descriptors:
    .quad 0, 0                  # 0x30 vCPU 0
    .quad 0, 0                  # 0x40 vCPU 1
descriptor_table_end:
descriptor_table_pointer:
    .word descriptor_table_end - descriptor_table - 1
    .quad descriptor_table

    .section .bss.boot, "aw", @nobits
    .balign 4096
page_map:
    .skip 6 * 4096
    .skip {stack_size}
boot_stack_top:
    .skip 64
scratch_stack_top:
    .text
    .code64
    "#,
    enter = sym crate::runtime::enter,
    secondary_enter = sym crate::smp::enter,
    stack = sym SECONDARY_STACK,
    stack_size = const STACK_SIZE,
    cr4 = const CR4,
    cr0 = const CR0,
    options(att_syntax),
);

unsafe extern "C" {
    static guest_trampoline: u8;
    static guest_trampoline_end: u8;
    static page_map: u8;
    static mut task_state_descriptors: [u64; 4];
    fn guest_secondary_entry();
}

/// The real-mode code a vCPU runs first after a start-up IPI.
pub(crate) fn trampoline() -> &'static [u8] {
    let start = &raw const guest_trampoline;
    let length = (&raw const guest_trampoline_end as usize).wrapping_sub(start as usize);
    // SAFETY: both symbols bound one piece of read-only data laid out above.
    unsafe { core::slice::from_raw_parts(start, length) }
}

/// Where `VCPUOP_initialise` shall send a vCPU, in 64-bit mode on [`page_map_root`].
pub(crate) fn secondary_entry() -> u64 {
    guest_secondary_entry as *const () as u64
}

/// The value of CR3 every vCPU runs on.
pub(crate) fn page_map_root() -> u64 {
    &raw const page_map as u64
}

/// Writes the descriptor of `vcpu`'s task state and returns its selector.
pub(crate) fn describe_task_state(vcpu: usize, base: u64, limit: u16) -> u16 {
    assert!(vcpu < crate::smp::MAX_VCPUS, "a vCPU of this runtime");
    let low = u64::from(limit) | (base & 0xff_ffff) << 16 | 0x89 << 40 | (base >> 24 & 0xff) << 56;
    let table = &raw mut task_state_descriptors;
    // SAFETY: the table has two entries for each vCPU; each vCPU writes its own, before use.
    unsafe { (*table)[2 * vcpu] = low };
    // SAFETY: as above.
    unsafe { (*table)[2 * vcpu + 1] = base >> 32 };
    TASK_STATE + 16 * u16::try_from(vcpu).unwrap_or(0)
}
