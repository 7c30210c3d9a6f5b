//! Doorways for a debugger: VMX instructions that it can have executed but not execute itself.
//!
//! It saves RIP, RAX, RCX and RFLAGS of a CPU in VMX root operation, points RIP at one of these,
//! fills in RCX, lets the CPU run to a breakpoint on the UD2, takes the result, and puts
//! everything back (`xtask/gdb/tessera_gdb/vmx.py`). Nothing in the hypervisor comes here.
#![expect(unsafe_code, reason = "instructions for a debugger to have executed")]

core::arch::global_asm!(
    r#"
    .pushsection .text.debugger, "ax", @progbits
    .global debugger_vmread
debugger_vmread:                        # RAX = the field that RCX encodes
    vmread rax, rcx
    ud2
    .global debugger_vmptrld
debugger_vmptrld:                       # the VMCS whose address lies at RCX becomes current
    vmptrld [rcx]
    ud2
    .global debugger_vmptrst
debugger_vmptrst:                       # the address of the current VMCS goes to where RCX points
    vmptrst [rcx]
    ud2
    .popsection
    "#
);
