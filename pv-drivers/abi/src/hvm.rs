//! `HYPERVISOR_hvm_op` and the initial state of a vCPU (`public/hvm/hvm_op.h`,
//! `public/hvm/params.h`, `public/hvm/hvm_vcpu.h`).

use crate::layout::guest_structs;

/// `HVMOP_set_param`.
pub const SET_PARAM: u64 = 0;
/// `HVMOP_get_param`.
pub const GET_PARAM: u64 = 1;
/// `HVMOP_flush_tlbs`.
pub const FLUSH_TLBS: u64 = 5;
/// `HVMOP_pagetable_dying`.
pub const PAGETABLE_DYING: u64 = 9;
/// `HVMOP_get_time`.
pub const GET_TIME: u64 = 10;
/// `HVMOP_xentrace`.
pub const XENTRACE: u64 = 11;
/// `HVMOP_get_mem_type`.
pub const GET_MEM_TYPE: u64 = 15;
/// `HVMOP_set_evtchn_upcall_vector`.
pub const SET_EVTCHN_UPCALL_VECTOR: u64 = 23;

/// `HVMOP_guest_request_vm_event`.
pub const GUEST_REQUEST_VM_EVENT: u64 = 24;
/// `HVMOP_altp2m`.
pub const ALTP2M: u64 = 25;

/// Lowest vector an upcall may use.
pub const MIN_UPCALL_VECTOR: u8 = 0x10;

/// Indices of [`SET_PARAM`] and [`GET_PARAM`] (`HVM_PARAM_*`).
pub mod param {
    /// How event upcalls reach the guest.
    pub const CALLBACK_IRQ: u32 = 0;
    /// Frame of the xenstore ring.
    pub const STORE_PFN: u32 = 1;
    /// Port of the xenstore ring.
    pub const STORE_EVTCHN: u32 = 2;
    /// Obsolete.
    pub const PAE_ENABLED: u32 = 4;
    /// Obsolete.
    pub const DM_DOMAIN: u32 = 13;
    /// Obsolete, the first of seven.
    pub const MEMORY_EVENT_CR0: u32 = 20;
    /// Obsolete, the last of seven.
    pub const BUFIOREQ_EVTCHN: u32 = 26;
    /// Obsolete.
    pub const MEMORY_EVENT_MSR: u32 = 30;
    /// Frame of the console ring.
    pub const CONSOLE_PFN: u32 = 17;
    /// Port of the console ring.
    pub const CONSOLE_EVTCHN: u32 = 18;
    /// Address of a TSS for real mode.
    pub const VM86_TSS: u32 = 15;
    /// Where ACPI ports live.
    pub const ACPI_IOPORTS_LOCATION: u32 = 19;
    /// What a triple fault means, a shutdown reason.
    pub const TRIPLE_FAULT_REASON: u32 = 31;
    /// Address of the VM generation id.
    pub const VM_GENERATION_ID_ADDR: u32 = 34;
    /// Alternate physical maps.
    pub const ALTP2M: u32 = 35;
    /// Width of the x87 instruction pointer.
    pub const X87_FIP_WIDTH: u32 = 36;
    /// Address and size of a TSS for real mode.
    pub const VM86_TSS_SIZED: u32 = 37;
    /// Parameters there are.
    pub const COUNT: u32 = 39;

    /// Position of the delivery type in the value of [`CALLBACK_IRQ`].
    pub const CALLBACK_TYPE_SHIFT: u32 = 56;
    /// Delivery by a line of the interrupt controller.
    pub const CALLBACK_TYPE_GSI: u8 = 0;
    /// Delivery by a PCI interrupt pin.
    pub const CALLBACK_TYPE_PCI_INTX: u8 = 1;
    /// Delivery by a vector, the same on each vCPU.
    pub const CALLBACK_TYPE_VECTOR: u8 = 2;
}

/// Values of [`MemType::mem_type`].
pub mod mem_type {
    /// Writable memory.
    pub const RAM_RW: u16 = 0;
    /// Memory that may only be read.
    pub const RAM_RO: u16 = 1;
    /// No memory: accesses are emulated.
    pub const MMIO_DM: u16 = 2;
}

guest_structs! {
    /// Argument of [`SET_PARAM`] and [`GET_PARAM`] (`xen_hvm_param_t`).
    pub struct Param: 16 {
        /// Whose parameter.
        pub domid: u16 = 0,
        pad: u16 = 2,
        /// One of [`param`].
        pub index: u32 = 4,
        /// Its value (in or out).
        pub value: u64 = 8,
    }

    /// Argument of [`GET_MEM_TYPE`] (`xen_hvm_get_mem_type_t`).
    pub struct MemType: 16 {
        /// Whose memory.
        pub domid: u16 = 0,
        /// One of [`mem_type`] (out).
        pub mem_type: u16 = 2,
        pad: [u16; 2] = 4,
        /// The frame.
        pub pfn: u64 = 8,
    }

    /// Argument of [`SET_EVTCHN_UPCALL_VECTOR`] (`xen_hvm_evtchn_upcall_vector_t`).
    pub struct EvtchnUpcallVector: 8 {
        /// The vCPU.
        pub vcpu: u32 = 0,
        /// The vector its upcalls use.
        pub vector: u8 = 4,
        pad: [u8; 3] = 5,
    }

    /// Argument of [`XENTRACE`] (`xen_hvm_xentrace_t`), as far as it begins.
    pub struct Xentrace: 4 {
        /// The event, below 4096.
        pub event: u16 = 0,
        /// Bytes that follow, of 28.
        pub extra_bytes: u16 = 2,
    }

    /// Argument of [`PAGETABLE_DYING`] (`xen_hvm_pagetable_dying_t`).
    pub struct PagetableDying: 16 {
        /// Whose page table.
        pub domid: u16 = 0,
        pad: [u16; 3] = 2,
        /// Its guest-physical address.
        pub gpa: u64 = 8,
    }

    /// Initial state of a vCPU (`vcpu_hvm_context_t`).
    pub struct VcpuHvmContext: 128 {
        /// One of [`context_mode`].
        pub mode: u32 = 0,
        /// Must be 0.
        pub pad: u32 = 4,
        /// [`VcpuHvmX86_32`] or [`VcpuHvmX86_64`], as `mode` says.
        pub regs: [u8; 120] = 8,
    }

    /// Registers of a vCPU that starts in 32-bit mode (`struct vcpu_hvm_x86_32`).
    pub struct VcpuHvmX86_32: 120 {
        /// EAX.
        pub eax: u32 = 0,
        /// ECX.
        pub ecx: u32 = 4,
        /// EDX.
        pub edx: u32 = 8,
        /// EBX.
        pub ebx: u32 = 12,
        /// ESP.
        pub esp: u32 = 16,
        /// EBP.
        pub ebp: u32 = 20,
        /// ESI.
        pub esi: u32 = 24,
        /// EDI.
        pub edi: u32 = 28,
        /// EIP.
        pub eip: u32 = 32,
        /// EFLAGS.
        pub eflags: u32 = 36,
        /// CR0.
        pub cr0: u32 = 40,
        /// CR3.
        pub cr3: u32 = 44,
        /// CR4.
        pub cr4: u32 = 48,
        /// Must be 0.
        pub pad1: u32 = 52,
        /// `IA32_EFER`.
        pub efer: u64 = 56,
        /// Base of CS.
        pub cs_base: u32 = 64,
        /// Base of DS.
        pub ds_base: u32 = 68,
        /// Base of SS.
        pub ss_base: u32 = 72,
        /// Base of ES.
        pub es_base: u32 = 76,
        /// Base of TR.
        pub tr_base: u32 = 80,
        /// Limit of CS.
        pub cs_limit: u32 = 84,
        /// Limit of DS.
        pub ds_limit: u32 = 88,
        /// Limit of SS.
        pub ss_limit: u32 = 92,
        /// Limit of ES.
        pub es_limit: u32 = 96,
        /// Limit of TR.
        pub tr_limit: u32 = 100,
        /// Attributes of CS, as in a descriptor without its limit bits.
        pub cs_ar: u16 = 104,
        /// Attributes of DS.
        pub ds_ar: u16 = 106,
        /// Attributes of SS.
        pub ss_ar: u16 = 108,
        /// Attributes of ES.
        pub es_ar: u16 = 110,
        /// Attributes of TR.
        pub tr_ar: u16 = 112,
        /// Must be 0.
        pub pad2: [u16; 3] = 114,
    }

    /// Registers of a vCPU that starts in 64-bit mode (`struct vcpu_hvm_x86_64`).
    pub struct VcpuHvmX86_64: 112 {
        /// RAX.
        pub rax: u64 = 0,
        /// RCX.
        pub rcx: u64 = 8,
        /// RDX.
        pub rdx: u64 = 16,
        /// RBX.
        pub rbx: u64 = 24,
        /// RSP.
        pub rsp: u64 = 32,
        /// RBP.
        pub rbp: u64 = 40,
        /// RSI.
        pub rsi: u64 = 48,
        /// RDI.
        pub rdi: u64 = 56,
        /// RIP.
        pub rip: u64 = 64,
        /// RFLAGS.
        pub rflags: u64 = 72,
        /// CR0.
        pub cr0: u64 = 80,
        /// CR3.
        pub cr3: u64 = 88,
        /// CR4.
        pub cr4: u64 = 96,
        /// `IA32_EFER`.
        pub efer: u64 = 104,
    }
}

/// Values of [`VcpuHvmContext::mode`].
pub mod context_mode {
    /// The vCPU starts in 32-bit mode.
    pub const MODE_32B: u32 = 0;
    /// The vCPU starts in 64-bit mode.
    pub const MODE_64B: u32 = 1;
}
