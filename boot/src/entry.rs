//! The first instructions: boot headers, and the way from 32-bit protected mode to Rust.
//!
//! Both loaders arrive in 32-bit protected mode without paging: GRUB by the multiboot2 header
//! (EBX points to the boot information), QEMU's `-kernel` by the PVH note (EBX points to the
//! start info). The code builds page tables of 2 MiB pages that map the first 4 GiB three times
//! over: at zero, at the direct map's base, and (1 GiB of it) where the image is linked.
//! `memory::paging` replaces them.
//!
//! A CPU without long mode or execute-disable gets one line on COM1, and the run ends there.
#![expect(unsafe_code, reason = "the code before Rust is assembly")]

use core::arch::global_asm;

/// What brought the image into memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Protocol {
    /// GRUB's multiboot2.
    Multiboot2,
    /// Xen's PVH boot, as QEMU's `-kernel` does it.
    Pvh,
    /// Neither magic number was right.
    Unknown,
}

impl Protocol {
    /// Reads the number that the entry code passes on.
    pub(crate) const fn from_raw(raw: u32) -> Self {
        match raw {
            1 => Self::Multiboot2,
            2 => Self::Pvh,
            _ => Self::Unknown,
        }
    }
}

/// The stack until the CPU's own is mapped.
const EARLY_STACK_SIZE: usize = 64 * 1024;

global_asm!(
    r#"
    .section .boot.header, "a"
    .balign 8
multiboot2_header:
    .long 0xe85250d6                    # magic, architecture i386, length, checksum
    .long 0
    .long multiboot2_header_end - multiboot2_header
    .long -(0xe85250d6 + (multiboot2_header_end - multiboot2_header))
1:  .short 1, 1                         # information request, optional
    .long 2f - 1b
    .long 1, 2, 3, 6, 14, 15            # command line, loader, modules, memory map, ACPI 1 and 2
2:  .balign 8
    .short 3, 0                         # entry address
    .long 12
    .long multiboot2_entry
    .balign 8
    .short 6, 0                         # modules on page boundaries
    .long 8
    .short 0, 0                         # end
    .long 8
multiboot2_header_end:

    .section .note.Xen, "a", @note
    .balign 4
    .long 4, 8, 18                      # name size, value size, XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_entry

    .section .boot.text, "awx"
    .code32
    .global multiboot2_entry
multiboot2_entry:
    xor edi, edi
    cmp eax, 0x36d76289
    jne 1f
    mov edi, 1
    jmp 1f
    .global pvh_entry
pvh_entry:
    mov edi, 2
1:  cli
    cld
    mov esi, ebx
    rdtsc
    mov [early_tsc], eax
    mov [early_tsc + 4], edx

    mov eax, 0x80000000                 # long mode and execute-disable, or no Tessera
    cpuid
    mov ebp, offset text_no_long_mode
    cmp eax, 0x80000001
    jb early_failure
    mov eax, 0x80000001
    cpuid
    bt edx, 29
    jnc early_failure
    mov ebp, offset text_no_execute_disable
    bt edx, 20
    jnc early_failure

    xor ecx, ecx                        # 2048 pages of 2 MiB, present, writable
2:  mov eax, ecx
    shl eax, 21
    or eax, 0x83
    mov [early_pd + ecx * 8], eax
    inc ecx
    cmp ecx, 2048
    jb 2b
    mov eax, offset early_pd + 3
    mov [early_pdpt_high + 510 * 8], eax
    xor ecx, ecx
3:  mov [early_pdpt + ecx * 8], eax
    add eax, 4096
    inc ecx
    cmp ecx, 4
    jb 3b
    mov eax, offset early_pdpt + 3
    mov [early_pml4], eax
    mov [early_pml4 + 256 * 8], eax
    mov eax, offset early_pdpt_high + 3
    mov [early_pml4 + 511 * 8], eax

    mov eax, cr4
    or eax, 0x20                        # PAE
    mov cr4, eax
    mov eax, offset early_pml4
    mov cr3, eax
    mov ecx, 0xc0000080                 # EFER: long mode, execute-disable
    rdmsr
    or eax, 0x900
    wrmsr
    mov eax, cr0
    and eax, 0x9ffffffb                 # caches on, no FPU emulation
    or eax, 0x80010023                  # PG, WP, NE, MP, PE
    mov cr0, eax
    lgdt [early_gdt_pointer]
    ljmp 8, offset early_long_mode

early_failure:                          # EBP: the text
    mov esi, ebp
4:  lodsb
    test al, al
    jz 7f
    mov ah, al
    mov dx, 0x3fd
    mov ecx, 0x100000                   # a port that never gets ready is no reason to hang
5:  in al, dx
    test al, 0x20
    jnz 6f
    dec ecx
    jnz 5b
6:  mov al, ah
    mov dx, 0x3f8
    out dx, al
    jmp 4b
7:  cli
    hlt
    jmp 7b

    .code64
early_long_mode:
    mov eax, 16
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    movabs rsp, offset early_stack + {stack_size}
    mov rdx, [early_tsc]
    xor ebp, ebp
    movabs rax, offset {start}
    call rax                            # (protocol, info, tsc), does not return
    ud2

    .balign 8
early_tsc:
    .quad 0
early_gdt:
    .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
early_gdt_pointer:
    .short 23
    .long early_gdt
text_no_long_mode:
    .ascii "Tessera needs long mode (CPUID 80000001h EDX bit 29): this CPU reports it has none\r\n"
    .asciz "tessera: end: halt (no long mode)\r\n"
text_no_execute_disable:
    .ascii "Tessera needs execute-disable (CPUID 80000001h EDX bit 20): this CPU reports it has none\r\n"
    .asciz "tessera: end: halt (no execute-disable)\r\n"

    .section .boot.bss, "aw", @nobits
    .balign 4096
early_pml4:      .skip 4096
early_pdpt:      .skip 4096
early_pdpt_high: .skip 4096
early_pd:        .skip 16384

    .bss
    .balign 16
early_stack:     .skip {stack_size}
    .text
    "#,
    stack_size = const EARLY_STACK_SIZE,
    start = sym crate::start::boot_start,
);
